"""Revocations: signed events that withdraw an image, with all that descends from it, or a key. Pure.

An event has the signature of an approver or of root; the head lists those in force. The set is judged as a whole: it
says itself which keys are compromised, and what such a key signed (the head, or an event) counts only where the set
lists it as kept. What one key says of itself counts: whoever says so, owner or thief, it is compromised.

Always: an event that does not verify refuses the set, it is never passed over; numbers rise over both kinds of event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from factory.digest import Digest, is_digest
from factory.errors import RevokedError, TamperedError
from factory.trust import dsse, heads, statements
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope, Signer
from factory.trust.fields import Fields
from factory.trust.heads import Head
from factory.trust.policy import Policy
from factory.trust.statements import KEY_REVOCATION, REVOCATION, Statement, Subject, time_text

if TYPE_CHECKING:
    from factory.trust.facts import Ancestor

ROLES = ("approver", "root")
"""Who may revoke."""

MAX_KEPT = 100_000
_FIELDS = ("number", "made_at", "at", "reason")
_KEY_FIELDS = ("number", "made_at", "reason", "keep")


@dataclass(frozen=True)
class Revocation:
    """An image (its raw digest) or a base (its tree's) withdrawn from `at` on, which may lie ahead."""

    digest: Digest
    name: str
    reason: str
    at: datetime
    made_at: datetime
    number: int

    def statement(self) -> Statement:
        """The statement that says it."""
        said = {"number": self.number, "made_at": time_text(self.made_at), "at": time_text(self.at)}
        return Statement(REVOCATION, (Subject(self.name, self.digest),), {**said, "reason": self.reason})


@dataclass(frozen=True)
class KeyRevocation:
    """A compromised key: `digest` is its fingerprint. Of all it ever signed only the envelopes in `keep` count."""

    digest: Digest
    name: str
    reason: str
    made_at: datetime
    number: int
    keep: frozenset[Digest] = frozenset()

    def statement(self) -> Statement:
        """The statement that says it."""
        said = {"number": self.number, "made_at": time_text(self.made_at), "reason": self.reason}
        return Statement(KEY_REVOCATION, (Subject(self.name, self.digest),), {**said, "keep": sorted(self.keep)})


Event = Revocation | KeyRevocation


@dataclass(frozen=True)
class Revocations:
    """A set that was verified. `images` and `keys` by what they revoke; `newest`: the time of its newest statement."""

    head: Head
    images: Mapping[Digest, Revocation] = field(default_factory=dict)
    keys: Mapping[Digest, KeyRevocation] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return self.head.version

    @property
    def issued_at(self) -> datetime:
        return self.head.issued_at

    @property
    def expires_at(self) -> datetime:
        return self.head.expires_at

    @property
    def newest(self) -> datetime:
        return self.head.issued_at  # no event is newer than its head

    @property
    def compromised(self) -> Mapping[Digest, frozenset[Digest]]:
        """Fingerprint of a key -> the digests of the envelopes it has signed that still count."""
        return {fingerprint: event.keep for fingerprint, event in self.keys.items()}

    @property
    def last_number(self) -> int:
        """The number of the last event; 0 where nothing was ever revoked."""
        return max((event.number for events in (self.images, self.keys) for event in events.values()), default=0)

    def revoked_by(self, digest: Digest, ancestors: Iterable[Ancestor], now: datetime) -> Revocation | None:
        """What revokes an image at `now`: its own revocation, else that of the nearest ancestor; None for nothing."""
        for one in (digest, *(ancestor.digest for ancestor in ancestors)):
            found = self.images.get(one)
            if found is not None and found.at <= now:
                return found
        return None

    def refuse_revoked(self, digest: Digest, ancestors: Iterable[Ancestor], now: datetime) -> None:
        """Raises RevokedError where the image, or an ancestor of it, is revoked at `now`."""
        found = self.revoked_by(digest, ancestors, now)
        if found is None:
            return
        whom = "it" if found.digest == digest else f"its ancestor {found.name} ({found.digest})"
        raise RevokedError(
            f"{digest} is not to be run: {whom} was revoked from {time_text(found.at)} on: {found.reason}",
            where="trust/revocations.dsse",
            hint="the same inputs give the same image: mend them (factory lock --refresh for newer packages, say), "
            "factory bake, and promote the new one",
        )


def make(event: Event, signer: Signer) -> Envelope:
    """The event, signed. Raises TrustError where the signer cannot."""
    return statements.signed(event.statement(), [signer])


def verify(raw: bytes, policy: Policy, now: datetime) -> Revocations:
    """The set in force. Raises TrustError; ExpiredError where it is too old, or the clock behind it."""
    found = verify_unsafe_stale(raw, policy)
    heads.require_fresh(found.head, policy.fresh_days, now)
    return found


def verify_unsafe_stale(raw: bytes, policy: Policy) -> Revocations:
    """As `verify`, but at any time: only for whoever renews the set, never for a decision to run something."""
    envelope, head = heads.loads(raw, heads.REVOCATIONS)
    listed = {key: dsse.parse(event, f"the revocation of {key[:80]}") for key, event in head.events.items()}
    events = [_event(key, event) for key, event in listed.items()]
    found = Revocations(
        head,
        {event.digest: event for event in events if isinstance(event, Revocation)},
        {event.digest: event for event in events if isinstance(event, KeyRevocation)},
    )
    _require_numbers(events)
    authority = Authority(policy, found.compromised)
    heads.require_signed(envelope, head, authority)
    for event in events:
        what = f"the revocation of {event.name} ({event.digest[:19]}…)"
        of_others = {key: keep for key, keep in found.compromised.items() if key != event.digest}
        Authority(policy, of_others).require(listed[event.digest], ROLES, event.made_at, what)
        heads.require_listed_in_time(head, event.made_at, what)
    return found


def declared(raw: bytes, policy: Policy) -> Mapping[Digest, frozenset[Digest]]:
    """The keys that people of `policy` declared compromised in a set, with what still counts of each.

    Only ever to trust less: the head's signature and age are not looked at, so that a set which cannot be verified
    under `policy` (because it was renewed by a key that only a newer policy knows) still withdraws a key. Raises
    TamperedError where it is no set.
    """
    _, head = heads.loads(raw, heads.REVOCATIONS)
    found: dict[Digest, frozenset[Digest]] = {}
    for key, listed in head.events.items():
        envelope = dsse.parse(listed, f"the revocation of {key[:80]}")
        event = _event(key, envelope)
        if isinstance(event, KeyRevocation) and Authority(policy).signers(envelope, ROLES, event.made_at):
            found[event.digest] = event.keep
    return found


def read(envelope: Envelope) -> Event:
    """The event an envelope carries; its signatures are not looked at. Raises TamperedError."""
    what = "a revocation"
    if envelope.payload_type != statements.PAYLOAD_TYPE:
        raise TamperedError(f"{what} carries {envelope.payload_type[:80]!r}, not an in-toto statement")
    statement = statements.loads(envelope.payload, what)
    if statement.predicate_type not in (REVOCATION, KEY_REVOCATION) or len(statement.subjects) != 1:
        raise TamperedError(f"{what} says {statement.predicate_type!r} of {len(statement.subjects)} subjects")
    (subject,) = statement.subjects
    whom = (subject.sha256, subject.name)
    if statement.predicate_type == REVOCATION:
        said = Fields(statement.predicate, what, _FIELDS)
        return Revocation(
            *whom, said.text("reason"), at=said.time("at"), made_at=said.time("made_at"), number=said.number("number")
        )
    said = Fields(statement.predicate, what, _KEY_FIELDS)
    keep = said.items("keep", MAX_KEPT)
    if not all(is_digest(item) for item in keep):
        raise TamperedError(f"{what}: keep holds what is no digest")
    return KeyRevocation(
        *whom, said.text("reason"), made_at=said.time("made_at"), number=said.number("number"), keep=frozenset(keep)
    )


def _event(key: str, envelope: Envelope) -> Event:
    event = read(envelope)
    if event.digest != key:
        raise TamperedError(f"the set of revocations lists {event.digest} as {key[:80]!r}")
    return event


def _require_numbers(events: Iterable[Event]) -> None:
    numbers = [event.number for event in events]
    if len(set(numbers)) != len(numbers):
        raise TamperedError("two revocations have one number", where="trust/revocations.dsse")
