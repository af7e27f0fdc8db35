"""What stands in a checkout's trust/: read and verified for whoever changes it, and written.

Whoever writes holds `lock`. A file is replaced whole, after which the catalog is told; what a killed command did not
tell it is told by the next (`index`). An expired head is read here, because its holders renew it; one that does not
verify never is: it is a fault, told and left alone. Never decides what may run: that is trust/judgement.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from factory import files, lockfile
from factory.catalog import attestations
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, TamperedError, TrustError, UnsignedError
from factory.model import Layout
from factory.trust import dsse, heads, judgement, policy, promotions, revocations, ticket
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope, Signer
from factory.trust.heads import Head
from factory.trust.keys import PublicKey
from factory.trust.policy import Policy
from factory.trust.promotions import Channel
from factory.trust.reading import read_file
from factory.trust.revocations import Revocations
from factory.trust.ticket import Ticket, Vouched

PROPOSAL_BYTES = 1 << 20


def this_moment() -> datetime:
    """Now, as statements say it: UTC, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def lock(layout: Layout) -> AbstractContextManager[None]:
    """Held by whoever changes trust/."""
    return files.exclusive(layout.locks / "trust")


@dataclass(frozen=True)
class Standing:
    """`faults`: channel -> why its head is not believed. A set or a head in here may have expired."""

    layout: Layout
    policy: Policy
    revocations: Revocations
    channels: Mapping[str, Channel]
    faults: Mapping[str, TrustError]
    _tickets: dict[str, dict[Digest, Ticket]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def authority(self) -> Authority:
        """Whose signatures count."""
        return Authority(self.policy, self.revocations.compromised)

    def tickets(self, image: str) -> dict[Digest, Ticket]:
        """The deploy tickets of NAME/ARCH, nothing of them verified; none where there is no file."""
        if image not in self._tickets:
            path = tickets_path(self.layout, image)
            raw = paper(self.layout, path, ticket.MAX_BYTES)
            self._tickets[image] = {} if raw is None else ticket.loads(raw, f"trust/tickets/{path.name}")
        return self._tickets[image]

    def vouched(self, image: str, digest: Digest) -> Vouched:
        """What is signed for a digest as NAME/ARCH. Raises TrustError."""
        found = self.tickets(image).get(digest)
        where = f"trust/tickets/{tickets_path(self.layout, image).name}"
        if found is None:
            raise UnsignedError(
                f"nothing is signed for {image} {digest}",
                where=where,
                hint=f"factory bake {image.partition('/')[0]} verifies and signs it",
            )
        vouched = ticket.verify(found, digest, self.authority)
        if f"{vouched.name}/{vouched.arch}" != image:
            raise TamperedError(f"{digest} was signed as {vouched.name}/{vouched.arch}, not as {image}", where=where)
        return vouched


def read(layout: Layout, policy: Policy) -> Standing:
    """All of it. Raises TrustError where the revocations cannot be believed: then nothing else can."""
    raw = paper(layout, layout.revocations, heads.MAX_BYTES)
    if raw is None:
        raise UnsignedError(
            "there is no signed set of revocations",
            where="trust/revocations.dsse",
            hint="get it back if there was one (git checkout trust/), else factory channels refresh begins one",
        )
    revoked = revocations.verify_unsafe_stale(raw, policy)
    authority = Authority(policy, revoked.compromised)
    channels: dict[str, Channel] = {}
    faults: dict[str, TrustError] = {}
    for path in sorted(layout.channels.glob("*.dsse")):
        try:
            rule = judgement.channel_rule(policy, path.stem)
            found = paper(layout, path, heads.MAX_BYTES) or b""
            channels[path.stem] = promotions.verify_unsafe_stale(found, rule, authority)
        except TrustError as error:
            faults[path.stem] = error
    return Standing(layout, policy, revoked, channels, faults)


def paper(layout: Layout, path: Path, max_bytes: int) -> bytes | None:
    """A file of trust/, None where there is none. TamperedError where it is not to be read."""
    try:
        return read_file(path, str(path.relative_to(layout.root)), max_bytes=max_bytes, below=layout.root)
    except FileNotFoundError:
        return None


def tickets_path(layout: Layout, image: str) -> Path:
    """Where the tickets of NAME/ARCH are."""
    return layout.tickets / f"{image.replace('/', '-')}.jsonl"


def proposal_path(layout: Layout, channel: str, image: str) -> Path:
    """Where a promotion of NAME/ARCH that lacks approvals waits for them."""
    return layout.proposals / f"{channel}-{image.replace('/', '-')}.dsse"


def write(layout: Layout, path: Path, data: bytes) -> None:
    """Replace a file of trust/."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, data)


def write_head(layout: Layout, head: Head, signer: Signer) -> Envelope:
    """Sign a head and put it in its place. Raises TrustError where the signer cannot, or nobody could read it back:
    then what stands there is left as it is."""
    envelope = heads.make(head, signer)
    path = layout.revocations if head.kind == heads.REVOCATIONS else layout.channels / f"{head.name}.dsse"
    known: Mapping[str, bytes] = {}
    with suppress(TrustError):
        known = heads.loads(paper(layout, path, heads.MAX_BYTES) or b"", head.kind, head.name)[1].events
    _, written = heads.loads(envelope.raw, head.kind, head.name)
    for key, raw in written.events.items():
        if known.get(key) != raw:
            _require_readable(head, key, raw)
    write(layout, path, envelope.raw)
    return envelope


def _require_readable(head: Head, key: str, raw: bytes) -> None:
    what = f"an event that {head.what} was to list"
    event = dsse.parse(raw, what)
    is_of = revocations.read(event).digest if head.kind == heads.REVOCATIONS else promotions.read(event, what).image
    if is_of != key:
        raise TamperedError(f"{what} as {key[:80]!r} is of {is_of}", where=head.file)


def next_head(catalog: Catalog, before: Head, events: Mapping[str, bytes], at: datetime, policy: Policy) -> Head:
    """The head after `before`. Its version is one that was never used here, also where `before` is an old one that git
    brought back."""
    used = attestations.highest(catalog, [heads.PAYLOAD_TYPE], attestations.subject_of_head(before.kind, before.name))
    after = heads.following(before, events, at, policy.fresh_days)
    return replace(after, version=max(after.version, used + 1))


def proposals(layout: Layout) -> Iterator[tuple[Path, Envelope, promotions.Promotion]]:
    """The promotions that wait for approvals; nothing of them is verified, what is no promotion is left out."""
    for path in sorted(layout.proposals.glob("*.dsse")):
        with suppress(TrustError):
            envelope = dsse.parse(paper(layout, path, PROPOSAL_BYTES) or b"", path.name)
            yield path, envelope, promotions.read(envelope)


def index(catalog: Catalog, layout: Layout, *images: str) -> None:
    """Tell the catalog of every event and head in trust/, and of the tickets of `images` (NAME/ARCH)."""
    found: list[Envelope] = []
    for path in (layout.revocations, *sorted(layout.channels.glob("*.dsse"))):
        with suppress(TrustError):
            if raw := paper(layout, path, heads.MAX_BYTES):
                envelope = dsse.parse(raw, path.name)
                found.append(envelope)
                for event in heads.peek(envelope).events.values():
                    with suppress(TrustError):
                        found.append(dsse.parse(event))
    for image in images:
        with suppress(TrustError):
            raw = paper(layout, tickets_path(layout, image), ticket.MAX_BYTES)
            for one in ticket.loads(raw).values() if raw else ():
                found += one.envelopes
    attestations.index(catalog, found, _keys(layout))


def ticketed(layout: Layout) -> list[str]:
    """NAME/ARCH of every image that has a file of tickets."""
    stems = sorted(path.stem for path in layout.tickets.glob("*.jsonl"))
    return [f"{name}/{arch}" for name, _, arch in (stem.rpartition("-") for stem in stems)]


def _keys(layout: Layout) -> list[PublicKey]:
    """The keys that the policy here knows; none where it cannot be read."""
    with suppress(FactoryError, OSError):
        return [key.public for key in policy.read(layout.policy).keys.values()]
    return []


def keep_ticket(layout: Layout, found: Standing, image: str, digest: Digest) -> None:
    """Put the ticket that `found` has of a digest into the file, where it is not in there."""
    path = tickets_path(layout, image)
    raw = paper(layout, path, ticket.MAX_BYTES)
    written = ticket.loads(raw) if raw else {}
    if digest not in written:
        write(layout, path, ticket.dumps([*written.values(), found.tickets(image)[digest]]))


def prune_tickets(layout: Layout, found: Standing, image: str) -> None:
    """Drop the tickets of NAME/ARCH that neither the lock, a channel nor a proposal names. Where a channel cannot be
    read (or what it says of the image), nothing is dropped."""
    if found.faults:
        return
    named = {locked.digest for locked in lockfile.find(layout.lock, image.partition("/")[0])}
    named |= {proposed.digest for _, _, proposed in proposals(layout)}
    for channel in found.channels.values():
        if image in channel.head.events:
            try:
                named.add(promotions.read(dsse.parse(channel.head.events[image])).digest)
            except TrustError:
                return
    path = tickets_path(layout, image)
    raw = paper(layout, path, ticket.MAX_BYTES)
    tickets = ticket.loads(raw) if raw else {}
    kept = [one for digest, one in tickets.items() if digest in named]
    if kept and len(kept) < len(tickets):
        write(layout, path, ticket.dumps(kept))
