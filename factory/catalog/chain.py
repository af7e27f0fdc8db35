"""The log of events: who did what when, each event with the hash of the one before it.

An event's hash is the sha256 of the RFC 8785 JSON of all its columns and of the id of the catalog it belongs to, so
that no event can be changed, dropped, put in between or moved to another catalog without the rest of the chain
showing it. A chain that somebody recomputed as a whole, or cut at its end, shows against the promotions: each signs
the length and the head that the chain had (`Head`). An event is written in the transaction of what it tells of.
"""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from factory import digest as digests
from factory.catalog.clock import now
from factory.digest import Digest, packed, unpacked
from factory.errors import CatalogError

OWN = 1
"""The number of a catalog's own source."""

START = bytes(32)
"""`previous` of the first event."""

COLUMNS = "seq, at, actor, authenticated, action, subject, image, record, attestation, details, previous"


@dataclass(frozen=True)
class Entry:
    """What is to be noted. `signers`: fingerprints of those whose signatures were verified; none: the system's user
    did it, unauthenticated. `record`: digest of what was recorded."""

    action: str
    subject: str
    image: Digest | None = None
    record: Digest | None = None
    attestation: Digest | None = None
    signers: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One event as it stands in the log; `seq` counts from 1. `actor`: fingerprints joined by commas, or the system's
    user where it is not `authenticated`."""

    seq: int
    at: str
    actor: str
    authenticated: bool
    action: str
    subject: str
    image: Digest | None
    record: Digest | None
    attestation: Digest | None
    details: str
    previous: Digest

    def hash(self, catalog: str) -> Digest:
        """What the event after it names as `previous`; `catalog` is the id of the catalog it belongs to."""
        return digests.of_bytes(_canonical({"catalog": catalog, **vars(self)}))


@dataclass(frozen=True)
class Head:
    """A chain's end: the id of the catalog, the number of its events, and the hash of the last."""

    catalog: str
    length: int
    digest: Digest


def append(connection: sqlite3.Connection, entry: Entry) -> int:
    """Add an event to this catalog's own log, in the transaction that is open; its seq."""
    before = head(connection)
    event = Event(
        seq=before.length + 1,
        at=now(),
        actor=",".join(entry.signers) or local_user(),
        authenticated=bool(entry.signers),
        action=entry.action,
        subject=entry.subject,
        image=entry.image,
        record=entry.record,
        attestation=entry.attestation,
        details=json.dumps(entry.details, sort_keys=True, ensure_ascii=False),
        previous=before.digest,
    )
    insert(connection, OWN, event)
    return event.seq


def insert(connection: sqlite3.Connection, source: int, event: Event) -> None:
    """Write an event as it is, at the end of the log of a source."""
    connection.execute(
        f"INSERT INTO events (source, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            source,
            event.seq,
            event.at,
            event.actor,
            int(event.authenticated),
            event.action,
            event.subject,
            event.image and packed(event.image),
            event.record and packed(event.record),
            event.attestation,
            event.details,
            packed(event.previous),
        ],
    )


def head(connection: sqlite3.Connection, source: int = OWN) -> Head:
    """Where the log of a source ends. The hash is that of its last event as it stands; audit.py proves the rest."""
    named = connection.execute("SELECT catalog FROM sources WHERE id = ?", [source]).fetchone()
    if named is None:
        raise nameless()
    catalog = str(named[0])
    sql = f"SELECT {COLUMNS} FROM events WHERE source = ? ORDER BY seq DESC LIMIT 1"
    row = connection.execute(sql, [source]).fetchone()
    if row is None:
        return Head(catalog, 0, unpacked(START))
    last = event_of(row)
    return Head(catalog, last.seq, last.hash(catalog))


def nameless() -> CatalogError:
    """The error for a catalog that lacks its own source."""
    return CatalogError(
        "the catalog was changed by hand: it does not say which catalog it is",
        hint="factory catalog check tells what else; put a backup in its place",
    )


def events(connection: sqlite3.Connection, source: int = OWN, after: int = 0) -> Iterator[Event]:
    """The events of a source in their order, those up to `after` left out."""
    sql = f"SELECT {COLUMNS} FROM events WHERE source = ? AND seq > ? ORDER BY seq"
    return map(event_of, connection.execute(sql, [source, after]))


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
"""Of texts, whole numbers below 2**53, true, false and null under ASCII keys it makes what RFC 8785 asks for, and many
times faster: a log of a million events is read on every audit."""


def _canonical(said: Mapping[str, Any]) -> bytes:
    return _encode(said).encode()


def of_row(row: Mapping[str, Any]) -> Digest:
    """The digest of a row, for the details of the event that tells of it (`row`): of its columns but ids and source."""
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
    return digests.of_bytes(_canonical(plain))


def local_user() -> str:
    """The name of the user this process runs as, or its number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def event_of(row: tuple[Any, ...]) -> Event:
    """The event of a row that has COLUMNS."""
    seq, at, actor, authenticated, action, subject, image, record, attestation, details, previous = row
    return Event(
        seq=seq,
        at=at,
        actor=actor,
        authenticated=bool(authenticated),
        action=action,
        subject=subject,
        image=image and unpacked(image),
        record=record and unpacked(record),
        attestation=attestation and Digest(attestation),
        details=details,
        previous=unpacked(previous),
    )
