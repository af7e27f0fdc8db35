"""`factory revoke`, and the signed part of `factory key revoke`: withdraw an image with its descendants, or a key.

A revocation is never made weaker: one that holds already is not put off. It can be made with an expired set, since
withdrawing must always be possible; the set is renewed by it. A key is withdrawn in the order heads, then revocations:
a kill in between leaves heads that are good, and the key not yet withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from factory import lockfile
from factory.catalog import attestations, lookups
from factory.catalog.database import Catalog
from factory.digest import Digest, is_digest
from factory.errors import TrustError, UsageError
from factory.model import Layout
from factory.release import refresh, standing
from factory.release.signing import Signing
from factory.release.standing import Standing
from factory.trust import dsse, heads, promotions, revocations, statements, ticket
from factory.trust.authority import Authority
from factory.trust.predicates import MAX_TEXT, provenance
from factory.trust.revocations import Event, KeyRevocation, Revocation, Revocations


@dataclass(frozen=True)
class Known:
    """What is known here of images: digest -> its name, and digest -> those it descends from."""

    names: Mapping[Digest, str]
    ancestors: Mapping[Digest, frozenset[Digest]]

    def descendants(self, digest: Digest) -> list[Digest]:
        """All that descend from a digest."""
        return sorted(one for one, above in self.ancestors.items() if digest in above and one != digest)


@dataclass(frozen=True)
class Revoked:
    """`is_new`: False where it was so already. `descendants`: (name, digest); `channels`: (channel, NAME/ARCH) that
    refuse from then on."""

    event: Revocation
    is_new: bool
    version: int
    descendants: tuple[tuple[str, Digest], ...] = ()
    channels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class KeyRevoked:
    """`void`: (channel, NAME/ARCH) whose promotion counts no more: promote them anew. `resigned`: channels."""

    event: KeyRevocation
    is_new: bool
    void: tuple[tuple[str, str], ...] = ()
    resigned: tuple[str, ...] = ()


def revoke(
    layout: Layout, target: str, reason: str, signing: Signing, *,
    at: datetime | None = None, unknown: bool = False, now: datetime | None = None,
) -> Revoked:  # fmt: skip
    """Withdraw DIGEST or NAME[/ARCH][@DIGEST] from `at` on (None: now). Raises UsageError, TrustError."""
    _check(reason)
    now = now or standing.this_moment()
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        refresh.begin(layout, catalog, signing, now)
        found = standing.read(layout, signing.policy)
        standing.index(catalog, layout)
        known = survey(layout, catalog, found)
        digest, name = _target(known, layout, target, unknown=unknown)
        affected = known.descendants(digest)
        told = (
            tuple((known.names[one], one) for one in affected),
            tuple(sorted(_channels_at(found, {digest, *affected}))),
        )
        before = found.revocations.images.get(digest)
        if before is not None and before.at <= (at or now):
            return Revoked(before, False, found.revocations.version, *told)
        event = Revocation(digest, name, reason, at or now, now, _number(catalog, found.revocations))
        return Revoked(event, True, _publish(layout, catalog, found, event, signing, now), *told)


def revoke_key(
    layout: Layout, name: str, reason: str, keep: Iterable[Digest], signing: Signing, now: datetime | None = None
) -> KeyRevoked:
    """Say that the key `name` of the policy was compromised; of what it signed, `keep` and its revocations count on."""
    _check(reason)
    now = now or standing.this_moment()
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        policy = signing.policy
        key = policy.keys.get(name)
        if key is None:
            raise UsageError(f"the policy has no key {name}", where=str(layout.policy), hint="factory key list")
        refresh.begin(layout, catalog, signing, now)
        found = standing.read(layout, policy)
        standing.index(catalog, layout)
        fingerprint, before = key.public.fingerprint, found.revocations.keys.get(key.public.fingerprint)
        own = frozenset(
            envelope.digest
            for envelope in map(dsse.parse, found.revocations.head.events.values())
            if dsse.verify(envelope, (key.public,))
        )
        kept = frozenset(keep) | own | (before.keep if before else frozenset())
        event = before
        if event is None or event.keep != kept:
            event = KeyRevocation(fingerprint, name, reason, now, _number(catalog, found.revocations), kept)
        after = Authority(policy, {**found.revocations.compromised, fingerprint: event.keep})
        resigned = _resign(layout, catalog, found, after, signing, now)
        if event is not before:
            _publish(layout, catalog, found, event, signing, now)
        return KeyRevoked(event, event is not before, tuple(_void(found, after)), resigned)


def survey(layout: Layout, catalog: Catalog, found: Standing) -> Known:
    """Every digest that lock, tickets, channels and catalog name. Nothing of it is verified: it is only shown."""
    names: dict[Digest, str] = {}
    parents: dict[Digest, set[Digest]] = {}
    for row in catalog.query("SELECT DISTINCT digest, name FROM bases"):
        names[row["digest"]] = row["name"]
    for digest, (name, above) in lookups.parents(catalog).items():
        names[digest] = name
        parents.setdefault(digest, set()).update(above)
    for channel in found.channels.values():
        for image, event in channel.head.events.items():
            with suppress(TrustError):
                names.setdefault(promotions.read(dsse.parse(event)).digest, image)
    for path in sorted(layout.tickets.glob("*.jsonl")):
        with suppress(TrustError):
            for digest, one in ticket.loads(standing.paper(layout, path, ticket.MAX_BYTES) or b"").items():
                said = statements.of_envelope(one.provenance, statements.PROVENANCE, path.name)
                made = provenance.read(said).image
                names[digest] = f"{made.name}/{made.arch}"
                for ancestor in made.ancestors:
                    names.setdefault(ancestor.digest, ancestor.name)
                    parents.setdefault(digest, set()).add(ancestor.digest)
    lock = lockfile.read(layout.lock)
    for base in lock.bases.values():
        names[base.digest] = base.name
    for locked in lock.images.values():
        names[locked.digest] = f"{locked.name}/{locked.arch}"
        parents.setdefault(locked.digest, set()).add(locked.base)
    return Known(names, {digest: frozenset(_above(digest, parents)) for digest in parents})


def _above(digest: Digest, parents: Mapping[Digest, set[Digest]]) -> set[Digest]:
    above: set[Digest] = set()
    todo = list(parents.get(digest, ()))
    while todo:
        one = todo.pop()
        if one not in above:
            above.add(one)
            todo += parents.get(one, ())
    return above


def _target(known: Known, layout: Layout, target: str, *, unknown: bool) -> tuple[Digest, str]:
    """(digest, name) of what is to be withdrawn. Raises UsageError where nobody here knows it."""
    name, at, text = target.rpartition("@")
    plain = name if at else "unknown" if target.startswith("sha256:") else target
    if plain.count("/") > 1 or not all(map(lockfile.is_name, plain.split("/"))):
        raise UsageError(
            f"{plain[:80]!r} is no name of an image or a base",
            where="NAME@DIGEST",
            hint="NAME or NAME/ARCH: 1 to 63 of a-z, 0-9, - each",
        )
    if not at and not target.startswith("sha256:"):
        return _locked(layout, target)
    if not is_digest(text):
        raise UsageError(f"{text!r} is no digest", where="DIGEST", hint="sha256: and all 64 hex digits")
    digest = Digest(text)
    found = known.names.get(digest)
    if found is None and not unknown:
        raise UsageError(
            f"nothing here has the digest {digest}",
            where="images.lock, trust/, the catalog",
            hint="is it spelled right? To withdraw it all the same: --unknown",
        )
    if at and found is not None and name not in (found, found.partition("/")[0]):
        raise UsageError(f"{digest} is {found}, not {name}", where="NAME@DIGEST")
    return digest, found or name or "unknown"


def _locked(layout: Layout, name: str) -> tuple[Digest, str]:
    """(digest, name) of the image, or of the base, that images.lock has under a name."""
    lock = lockfile.read(layout.lock)
    images = [one for one in lock.images.values() if name in (one.name, f"{one.name}/{one.arch}")]
    bases = [one for one in lock.bases.values() if name in (one.name, f"{one.name}/{one.arch}")]
    named = [(one.digest, f"{one.name}/{one.arch}") for one in images] or [(one.digest, one.name) for one in bases]
    if len(named) != 1:
        raise UsageError(
            f"no image or base {name} is in images.lock"
            if not named
            else f"{name} is locked for several architectures",
            where="images.lock",
            hint="name it by its digest" if not named else f"say which: {', '.join(sorted(one for _, one in named))}",
        )
    return named[0]


def _channels_at(found: Standing, digests: set[Digest]) -> Iterator[tuple[str, str]]:
    for channel in found.channels.values():
        for image, event in channel.head.events.items():
            with suppress(TrustError):
                if promotions.read(dsse.parse(event)).digest in digests:
                    yield channel.name, image


def _void(found: Standing, after: Authority) -> Iterator[tuple[str, str]]:
    """The promotions that count now, and under `after` no more."""
    for name, channel in sorted(found.channels.items()):
        for image in sorted(channel.promotions):
            with suppress(TrustError):
                rule = found.policy.channels[name]
                channel.promotions[image]
                try:
                    promotions.verify_event(channel.head.events[image], rule, after)
                except TrustError:
                    yield name, image


def _resign(
    layout: Layout, catalog: Catalog, found: Standing, after: Authority, signing: Signing, now: datetime
) -> tuple[str, ...]:
    """Sign anew the heads of channels that only a withdrawn key has signed."""
    resigned = []
    for name, channel in sorted(found.channels.items()):
        raw = standing.paper(layout, layout.channels / f"{name}.dsse", heads.MAX_BYTES) or b""
        try:
            promotions.verify_unsafe_stale(raw, found.policy.channels[name], after)
        except TrustError:
            signer = signing.without(after.compromised).for_role(*refresh.ROLES)
            head = standing.next_head(catalog, channel.head, channel.head.events, now, found.policy)
            standing.write_head(layout, head, signer)
            resigned.append(name)
    return tuple(resigned)


def _publish(layout: Layout, catalog: Catalog, found: Standing, event: Event, signing: Signing, now: datetime) -> int:
    """Sign an event and the head that lists it; the head's version."""
    void = {*found.revocations.compromised, *([event.digest] if isinstance(event, KeyRevocation) else [])}
    signer = signing.without(void).for_role(*revocations.ROLES)
    before = found.revocations.head
    events = {**before.events, event.digest: revocations.make(event, signer).raw}
    head = standing.next_head(catalog, before, events, now, found.policy)
    standing.write_head(layout, head, signer)
    standing.index(catalog, layout)
    return head.version


def _number(catalog: Catalog, found: Revocations) -> int:
    """A number for a revocation that was never used here."""
    used = attestations.highest(catalog, [statements.REVOCATION, statements.KEY_REVOCATION])
    return max(found.last_number, used) + 1


def _check(reason: str) -> None:
    if not 0 < len(reason) <= MAX_TEXT or not reason.isprintable():
        raise UsageError(f"a reason is one line of 1 to {MAX_TEXT} printable characters", where="--reason")
