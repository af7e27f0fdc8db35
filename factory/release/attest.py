"""What a bake signs, and how it comes into trust/: SBOM, deploy ticket, the image's own channel.

Signed before anything is recorded: what cannot be signed is not recorded. `publish` is the last step of a record and
may be done again after a kill: it puts the ticket beside those that a channel still needs, and moves the channel.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factory import __version__, packer
from factory.catalog import attestations
from factory.catalog.database import Catalog
from factory.catalog.record import BakeRecord
from factory.digest import Digest, is_digest
from factory.errors import TrustError
from factory.model import Layout, LockedImage
from factory.release import promote, refresh, standing
from factory.release.signing import Signing
from factory.release.standing import Standing, tickets_path
from factory.release.vouching import require_same
from factory.store import Store
from factory.trust import statements, ticket
from factory.trust.dsse import Envelope
from factory.trust.facts import BASE, IMAGE, Ancestor, Artifact, BakeFacts, CheckOutcome, ImageFacts, Verification
from factory.trust.predicates import sbom
from factory.trust.predicates.sbom import Package
from factory.trust.ticket import Ticket

Say = Callable[[str], None]


@dataclass(frozen=True)
class Attested:
    """A ticket, and the SBOM's envelope where a new one was made."""

    ticket: Ticket
    sbom: Envelope | None = None


def ready(layout: Layout, signing: Signing) -> None:
    """See to it that this machine can sign before any work is done. Raises TrustError, UsageError where it cannot.

    Here a passphrase is asked for, and the development key made; a first, empty set of revocations is signed.
    """
    signing.for_role("builder")
    signing.for_role("verifier")
    refresh.ensure_revocations(layout, signing)
    standing.read(layout, signing.policy)


def ancestors(found: Standing, parent: LockedImage | None, base: tuple[str, Digest]) -> tuple[Ancestor, ...]:
    """The ancestors of an image on `parent`, or straight on a base (name, digest). Raises TrustError: a revoked one."""
    if parent is None:
        name, digest = base
        line: tuple[Ancestor, ...] = (Ancestor(digest, name, BASE),)
    else:
        said = found.vouched(f"{parent.name}/{parent.arch}", parent.digest)
        require_same(said, parent)
        line = (Ancestor(parent.digest, parent.name, IMAGE), *said.ancestors)
    found.revocations.refuse_revoked(line[0].digest, line[1:], standing.this_moment())
    return line


def image_facts(locked: LockedImage, line: tuple[Ancestor, ...], store: Store) -> ImageFacts:
    """An image as it is attested; its artifacts with their sizes."""
    artifacts = tuple(
        Artifact(place, native, store.size_bytes(native) if is_digest(native) else None)
        for place, native in sorted(locked.artifacts.items())
    )
    return ImageFacts(
        locked.name, locked.arch, locked.digest, locked.bake_key, locked.base, locked.tree, line, artifacts
    )


def versions() -> Mapping[str, str]:
    """The versions of what bakes."""
    return {
        "factory": __version__,
        "ansible-core": importlib.metadata.version("ansible-core"),
        "packer": str(packer.installed_version()),
        "python": platform.python_version(),
    }


def verification(cases: Iterable[Any], configuration: Mapping[str, Digest], signing: Signing) -> Verification:
    """What a verification found, now; `cases` as verify/report.py has them."""
    checks = tuple(CheckOutcome(case.owner, case.name, case.outcome) for case in cases)
    return Verification(checks, standing.this_moment(), signing.policy.digest, configuration)


def attest(bake: BakeFacts, found: Verification, packages: Iterable[Package], signing: Signing) -> Attested:
    """Sign SBOM and ticket of an image that passed. Raises TrustError, VerifyError."""
    builder, verifier = signing.for_role("builder"), signing.for_role("verifier")
    bill = statements.signed(sbom.statement(bake.image, packages, bake.finished_at), [builder])
    return Attested(ticket.make(bake, found, bill.digest, builder=builder, verifier=verifier), bill)


def renew(old: Ticket, found: Verification, signing: Signing) -> Attested:
    """Sign that an image, whose ticket counts, passed once more. Raises TrustError, VerifyError."""
    return Attested(ticket.renew(old, found, verifier=signing.for_role("verifier")))


def publish(layout: Layout, signing: Signing, say: Say, record: BakeRecord) -> None:
    """Put the ticket of a recorded image into trust/, and move the image's own channel. May be done again.

    A ticket whose place others changed meanwhile stays with theirs; what cannot be promoted is said, and is no error.
    """
    if not record.ticket:
        return
    who = f"{record.image.name}/{record.image.arch}"
    path = tickets_path(layout, who)
    new = ticket.loads(record.ticket.encode(), "the ticket")
    with standing.lock(layout):
        try:
            raw = standing.paper(layout, path, ticket.MAX_BYTES)
            kept = ticket.loads(raw, path.name) if raw else {}
        except TrustError as error:
            say(f"{who}: {path.name} could not be read ({error.message}); it is written anew")
            kept = {}
        standing.write(layout, path, ticket.dumps({**kept, **new}.values()))
        try:
            standing.prune_tickets(layout, standing.read(layout, signing.policy), who)
        except TrustError as error:
            say(f"{who}: {error.message}")
    with Catalog.open(layout.catalog) as catalog:
        keys = [key.public for key in signing.policy.keys.values()]
        attestations.index(catalog, [envelope for one in new.values() for envelope in one.envelopes], keys)
    channel = record.facts.get("channel")
    if isinstance(channel, str):
        promote.promote_verified(layout, who, channel, signing, say)


def renew_heads(layout: Layout, signing: Signing) -> list[str]:
    """Sign anew what in trust/ would soon be too old to count; what could not be is for people to read."""
    try:
        done = refresh.refresh(layout, signing)
    except TrustError as error:
        return [f"trust/ was not renewed: {error.message}"]
    return [f"{place} was not renewed: {error.message}" for place, error in done.refused.items()]
