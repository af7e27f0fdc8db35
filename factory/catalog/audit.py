"""The log of events, asked and held against itself: who did what when, and where a chain breaks.

`logs` reads every event there is, each time: whoever changed one could have changed a note of how far it was read as
well. What a chain alone does not show (it was recomputed as a whole, or cut at its end) shows where a signed promise
says how long it was and where it ended. Reads only.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.catalog import chain
from factory.catalog.chain import Event
from factory.digest import Digest, packed, unpacked

MOST_TOLD = 20
"""So many breaks of one log are told; the rest is counted."""


@dataclass(frozen=True)
class Break:
    """Where a log is not as it was written: at event `seq`. `expected` and `found`: what differs, as text."""

    seq: int
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"event {self.seq}: {self.what} (expected {self.expected}, found {self.found})"


@dataclass(frozen=True)
class Log:
    """The log of one source, read to its end. `ends`: the hashes of the events that were asked for, by their seq."""

    source: int
    catalog: str
    name: str
    length: int
    head: Digest
    breaks: tuple[Break, ...] = ()
    more_breaks: int = 0
    ends: Mapping[int, Digest] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which events are asked for; None: any. `actor`: texts, one of which is the actor or (of several signers) one of
    them. `images`: digests the event is about, `subject`: NAME/ARCH or the beginning of it. Times as clock.text."""

    actor: tuple[str, ...] | None = None
    action: str | None = None
    images: tuple[Digest, ...] | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None


def logs(connection: sqlite3.Connection, ends: Mapping[str, Iterable[int]] | None = None) -> list[Log]:
    """Every log here, its chain proven from the first event to the last. `ends`: catalog id -> seqs whose hash is
    wanted."""
    sources = connection.execute("SELECT id, catalog, name FROM sources ORDER BY id").fetchall()
    return [_log(connection, source, frozenset((ends or {}).get(source[1], ()))) for source in sources]


def own_log(connection: sqlite3.Connection) -> Log:
    """The log of this catalog itself, its chain proven likewise; some 15 microseconds an event."""
    of = connection.execute("SELECT id, catalog, name FROM sources WHERE id = ?", [chain.OWN]).fetchone()
    if of is None:
        raise chain.nameless()
    return _log(connection, of, frozenset())


def _log(connection: sqlite3.Connection, of: tuple[int, str, str], ends: frozenset[int]) -> Log:
    source, catalog, name = of
    last, seq = unpacked(chain.START), 0
    breaks: list[Break] = []
    found: dict[int, Digest] = {}
    count = 0
    for event in chain.events(connection, source):
        fault = fault_of(event, seq, last)
        if fault is not None:
            count += 1
            if count <= MOST_TOLD:
                breaks.append(fault)
        seq, last = event.seq, event.hash(catalog)
        if seq in ends:
            found[seq] = last
    return Log(source, catalog, name, seq, last, tuple(breaks), max(0, count - MOST_TOLD), found)


def fault_of(event: Event, before: int, last: Digest) -> Break | None:
    """How an event does not follow the one of seq `before`, whose hash is `last`; None where it does."""
    if event.seq != before + 1:
        return Break(event.seq, "events before it are missing", f"event {before + 1}", f"event {event.seq}")
    if event.previous != last:
        what = f"it does not follow event {before} as that stands here: one of the two was changed"
        if before == 0:
            what = "it is the first, and names one before it"
        return Break(event.seq, what, last, event.previous)
    return None


def actions(connection: sqlite3.Connection) -> list[str]:
    """Every action that stands in a log here."""
    return [row[0] for row in connection.execute("SELECT DISTINCT action FROM events ORDER BY action")]


def actors(connection: sqlite3.Connection) -> set[str]:
    """Everybody who did what stands in a log here: users, and fingerprints of signers."""
    rows = connection.execute("SELECT DISTINCT actor, authenticated FROM events")
    return {one for actor, is_signed in rows for one in (actor.split(",") if is_signed else [actor])}


def images_of(connection: sqlite3.Connection, name: str, arch: str) -> list[Digest]:
    """The digests of all images and bases called so; `arch` empty: any."""
    sql = "SELECT digest FROM images WHERE name = ? AND (? = '' OR arch = ?) ORDER BY id"
    return [unpacked(row[0]) for row in connection.execute(sql, [name, arch, arch])]


def events(connection: sqlite3.Connection, wanted: Wanted) -> Iterator[tuple[int, Event]]:
    """(source, event) of every event that is wanted, the oldest first, each log in its own order; with a limit, the
    last so many. Streams."""
    sources = [row[0] for row in connection.execute("SELECT id FROM sources ORDER BY id")]
    where, parameters = _where(connection, wanted)
    if wanted.limit is None:
        return _merged([_rows(connection, source, where, parameters, "ASC") for source in sources])
    newest = [_rows(connection, source, where, parameters, f"DESC LIMIT {int(wanted.limit)}") for source in sources]
    kept = list(_merged([reversed(list(rows)) for rows in newest]))
    return iter(kept[-wanted.limit :])


def _merged(logs: Sequence[Iterator[tuple[int, Event]]]) -> Iterator[tuple[int, Event]]:
    return heapq.merge(*logs, key=lambda item: item[1].at)


def _where(connection: sqlite3.Connection, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    said: list[str] = []
    parameters: dict[str, Any] = {"action": wanted.action, "since": wanted.since, "until": wanted.until}
    if wanted.actor is not None:
        marks = []
        for number, actor in enumerate(wanted.actor):
            parameters[f"actor{number}"] = actor
            marks.append(f"instr(',' || actor || ',', ',' || :actor{number} || ',')")
        said.append(f"({' OR '.join(marks)})")
    if wanted.images is not None:
        # a table of its own: there may be more images of one name than a statement takes parameters
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted_images (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("DELETE FROM wanted_images")
        rows = ([packed(digest)] for digest in wanted.images)
        connection.executemany("INSERT OR IGNORE INTO wanted_images VALUES (?)", rows)
        said.append("image IN (SELECT digest FROM wanted_images)")
    said += ["action = :action"] if wanted.action is not None else []
    said += ["at >= :since"] if wanted.since is not None else []
    said += ["at <= :until"] if wanted.until is not None else []
    return "".join(f" AND {one}" for one in said), parameters


def _rows(
    connection: sqlite3.Connection, source: int, where: str, parameters: Mapping[str, Any], order: str
) -> Iterator[tuple[int, Event]]:
    sql = f"SELECT {chain.COLUMNS} FROM events WHERE source = :source{where} ORDER BY seq {order}"
    for row in connection.execute(sql, {**parameters, "source": source}):
        yield source, chain.event_of(row)
