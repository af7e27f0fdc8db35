"""Heads: the signed, dated list of the events in force, of one channel or of the revocations. Pure.

An event is signed by the people it needs; the head around it says which events are in force, and until when that may be
believed. Whoever signs a head can leave an event out or keep an old one, never make one. A reader who remembers
(`seen`) refuses a set that lacks a revocation it has seen, and with it every head that only a key signed which it has
seen revoked; and an older promotion of an image. What it has not seen can be withheld from it until the head expires.

Always: the version only rises; a head is not older than the events in it; it is good until it expires, and never longer
than the reader's own policy allows (`fresh_days`); a reader whose clock is behind it is told so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from factory.errors import ExpiredError, TamperedError
from factory.trust import dsse, predicates, strict
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope, Signer
from factory.trust.fields import Fields
from factory.trust.policy import TrustedKey
from factory.trust.statements import time_text

PAYLOAD_TYPE = "application/vnd.factory.head+json"
CHANNEL, REVOCATIONS = "channel", "revocations"
ROLES = ("approver", "root", "verifier")
"""Who may sign a head."""

MAX_BYTES = 32 << 20
_NEVER = datetime.min.replace(tzinfo=UTC)
_FIELDS = ("kind", "name", "version", "issued_at", "expires_at", "events")


@dataclass(frozen=True)
class Head:
    """`events`: what an event is of (`NAME/ARCH` in a channel, a digest or fingerprint in the revocations) -> its
    envelope, byte for byte. `name` is the channel's; empty for the revocations."""

    kind: str
    name: str
    version: int
    issued_at: datetime
    expires_at: datetime
    events: Mapping[str, bytes]

    @property
    def what(self) -> str:
        """What it is, to people."""
        return "the set of revocations" if self.kind == REVOCATIONS else f"the head of channel {self.name}"

    @property
    def file(self) -> str:
        """Where it lies, from the factory's folder."""
        return "trust/revocations.dsse" if self.kind == REVOCATIONS else f"trust/channels/{self.name}.dsse"

    def good_until(self, fresh_days: int) -> datetime:
        """When it is no longer good: its own word, or sooner where the reader's policy says so."""
        return min(self.expires_at, _later(self.issued_at, timedelta(days=fresh_days)))

    def is_due(self, fresh_days: int, now: datetime) -> bool:
        """Whether less than a third of its life is left."""
        end = self.good_until(fresh_days)
        return (end - now) * 3 < end - self.issued_at


def make(head: Head, signer: Signer) -> Envelope:
    """The head, signed. Raises TrustError where the signer cannot."""
    events = {key: base64.b64encode(raw).decode("ascii") for key, raw in head.events.items()}
    payload = strict.dumps(
        {
            "kind": head.kind,
            "name": head.name,
            "version": head.version,
            "issued_at": time_text(head.issued_at),
            "expires_at": time_text(head.expires_at),
            "events": events,
        }
    )
    return dsse.sign(PAYLOAD_TYPE, payload, [signer])


def nothing(kind: str, name: str = "") -> Head:
    """What comes before the first head: version 0, no events."""
    return Head(kind, name, 0, _NEVER, _NEVER, {})


def following(before: Head, events: Mapping[str, bytes], at: datetime, fresh_days: int) -> Head:
    """The head after `before`: one version on, good for `fresh_days` from `at`."""
    issued = max(at, before.issued_at)
    return replace(
        before, version=before.version + 1, issued_at=issued, expires_at=_later(issued, timedelta(fresh_days)),
        events=events,
    )  # fmt: skip


def loads(raw: bytes, kind: str, name: str = "") -> tuple[Envelope, Head]:
    """The envelope and the head in it, of which nothing is verified yet. Raises TamperedError."""
    what = nothing(kind, name).what
    envelope = dsse.parse(raw, what, max_bytes=MAX_BYTES)
    head = peek(envelope, what)
    if (head.kind, head.name) != (kind, name):
        raise TamperedError(f"{what} is that of another: {head.what}")
    return envelope, head


def peek(envelope: Envelope, what: str = "a head") -> Head:
    """The head an envelope carries, whatever it is of. Raises TamperedError."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TamperedError(f"{what} carries {envelope.payload_type[:80]!r}, not {PAYLOAD_TYPE!r}")
    value = strict.loads(envelope.payload, what, max_bytes=MAX_BYTES)
    fields = Fields(value, what, _FIELDS)
    if value["kind"] == REVOCATIONS:
        predicates.word(value["name"], f"{what}: name", "")
    else:
        predicates.word(value["kind"], f"{what}: kind", CHANNEL)
        predicates.name(value["name"], f"{what}: name")
    head = Head(
        value["kind"], value["name"], fields.number("version"), fields.time("issued_at"), fields.time("expires_at"),
        {key: _event(key, text, what) for key, text in fields.object("events").items()},
    )  # fmt: skip
    if head.expires_at <= head.issued_at:
        raise TamperedError(f"{what} expires before it was issued")
    return head


def require_signed(envelope: Envelope, head: Head, authority: Authority) -> tuple[TrustedKey, ...]:
    """Whose signatures on the head count. Raises TrustError where none does."""
    return authority.require(envelope, ROLES, head.issued_at, head.what)


def require_fresh(head: Head, fresh_days: int, now: datetime) -> None:
    """Refuse a head that is too old, or from the future. Raises ExpiredError."""
    if now < head.issued_at:
        raise ExpiredError(
            f"this machine's clock says {time_text(now)}, but {head.what} was signed at {time_text(head.issued_at)}",
            where="the clock",
            hint="set the clock (timedatectl), or look who signs with a clock ahead",
        )
    end = head.good_until(fresh_days)
    if end <= now:
        raise ExpiredError(
            f"{head.what} was good until {time_text(end)}, and it is {time_text(now)}: something newer may be withheld",
            where=head.file,
            hint="is the clock right? get the newest trust/ (git pull); where it is made: factory channels refresh",
        )


def require_listed_in_time(head: Head, made_at: datetime, what: str) -> None:
    """An event cannot be newer than the head that lists it. Raises TamperedError."""
    if made_at > head.issued_at:
        raise TamperedError(f"{what} was made at {time_text(made_at)}, after the head that lists it", where=head.file)


def _event(key: str, text: object, what: str) -> bytes:
    try:
        return base64.b64decode(str(text).encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise TamperedError(f"{what}: the event of {key[:80]!r} is not base64") from error


def _later(moment: datetime, by: timedelta) -> datetime:
    """`moment` + `by`, or the last moment there is."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(microsecond=0, tzinfo=moment.tzinfo)
