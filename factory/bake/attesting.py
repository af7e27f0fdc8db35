"""From what a bake or a verification left to what is signed of it: the facts of release/attest.py, gathered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from factory.bake.session import Session
from factory.catalog import lookups
from factory.catalog.contents import InstalledPackage
from factory.catalog.record import BakeRecord, record_bake
from factory.digest import Digest
from factory.errors import TrustError
from factory.model import ImageSpec, Lock, LockedImage
from factory.release import attest, standing
from factory.release.attest import Attested
from factory.release.vouching import require_same
from factory.trust import ticket
from factory.trust.facts import Ancestor, BakeFacts, Verification
from factory.verify.report import VerifyReport


def line_of(session: Session, image: ImageSpec, base: Digest) -> tuple[Ancestor, ...]:
    """The ancestors of an image that is baked on `base`. Raises TrustError where one is revoked, or not vouched for."""
    found = standing.read(session.layout, session.signing.policy)
    parent = session.lock().images[image.base, image.arch] if image.layered else None
    return attest.ancestors(found, parent, (image.base, base))


def of_bake(
    session: Session,
    record: BakeRecord,
    line: tuple[Ancestor, ...],
    report: VerifyReport,
    packages: Iterable[InstalledPackage],
    started_at: datetime,
) -> Attested:
    """Sign a bake that passed its checks; `packages`: all that are installed. Raises TrustError."""
    facts = BakeFacts(
        image=attest.image_facts(record.image, line, session.store),
        parameters=record.facts,
        inputs=_by_input(record),
        builder=record.builder,
        versions=attest.versions(),
        run=record.run,
        started_at=started_at,
        finished_at=min(_time(record.baked_at), standing.this_moment()),
    )
    return attest.attest(facts, _verification(session, record.image, report), packages, session.signing)


def again(session: Session, image: ImageSpec, record: BakeRecord, report: VerifyReport) -> Attested:
    """Sign that a locked image passed again; where what is signed for it does not count, all of it anew.

    Raises TrustError.
    """
    locked = record.image
    found = standing.read(session.layout, session.signing.policy)
    try:
        said = found.vouched(f"{locked.name}/{locked.arch}", locked.digest)
        require_same(said, locked)
    except TrustError:
        known = lookups.image(session.catalog, locked.digest)
        assert known is not None, "whoever asks has seen to it: can_sign_again"
        baked_at = _time(known.baked_at)
        packages = lookups.packages(session.catalog, locked.digest)
        line = line_of(session, image, locked.base)
        return of_bake(session, replace(record, baked_at=known.baked_at), line, report, packages, baked_at)
    old = found.tickets(f"{locked.name}/{locked.arch}")[locked.digest]
    return attest.renew(old, _verification(session, locked, report), session.signing)


def can_sign_again(session: Session, locked: LockedImage, *, objected: bool) -> bool:
    """Whether enough is known of a locked image to sign for it without baking it."""
    return not objected or bool(lookups.packages(session.catalog, locked.digest))


def record(session: Session, made: BakeRecord, attested: Attested, seen: Lock) -> None:
    """Record a bake or a verification with its ticket; the SBOM's envelope into the store(s) first."""
    if attested.sbom is not None:
        session.share(session.store.put_bytes(attested.sbom.raw))
    publish = partial(attest.publish, session.layout, session.signing, session.listener.note)
    signed = replace(made, ticket=ticket.dumps([attested.ticket]).decode())
    record_bake(session.catalog, session.layout, signed, seen, publish=publish)


def _verification(session: Session, locked: LockedImage, report: VerifyReport) -> Verification:
    lock = session.lock()
    configuration: dict[str, Digest] = {}
    name: str | None = locked.name
    while name is not None:
        entry = locked if name == locked.name else lock.images[name, locked.arch]
        if "checks" in entry.inputs:
            configuration[name] = entry.inputs["checks"]
        spec = session.factory.images[name]
        name = spec.base if spec.layered else None
    return attest.verification(report.cases, configuration, session.signing)


def _by_input(made: BakeRecord) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {name: {} for name in made.image.inputs}
    for file in made.inputs:
        found.setdefault(file.input, {})[file.path] = file.digest
    return found


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)
