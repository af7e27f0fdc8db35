"""Runs, checks, rollouts and instances, held against the events that tell of them.

An event has a digest of such a row (of checks, of all that were noted together), so a row that was changed, put in or
taken out shows. What was noted before there was a log (versions 1 and 2) is told by no event.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from factory.catalog import chain, events


@dataclass(frozen=True)
class _Told:
    """Rows of a table, each with an event called `action` that has a digest of it. `who`: SQL for what to call one."""

    called: str
    table: str
    who: str
    columns: str
    action: str
    source: str = "source"

    @property
    def rows(self) -> str:
        """SQL: (source, digest, who) of every row."""
        said = ", ".join(f"'{column}', {column}" for column in self.columns.split())
        return f"SELECT {self.source}, row_digest({said}), {self.who} FROM {self.table}"

    @property
    def events(self) -> str:
        """SQL: the same of every event."""
        said = "SELECT source, json_extract(details, '$.row'), subject FROM events WHERE action"
        return f"{said} = '{self.action}'"


_TOLD = (
    _Told("run", "runs", "id", "id started_at command", "began run"),
    _Told("end of the run", "run_ends", "run", "run ended_at exit_code", "ended run"),
    _Told("base", "bases", "name", "name arch digest run recorded_at entry", "locked base"),
    _Told("rollout", "rollouts", "id", "id fleet from_digest to_digest started_at", "began rollout"),
    _Told(
        "end of the rollout",
        "rollout_ends JOIN rollouts ON rollouts.id = rollout",
        "rollout",
        "rollout ended_at state",
        "ended rollout",
    ),
    _Told("instance", "instances", "native", "fleet generation provider native digest rollout launched_at", "launched"),
    _Told(
        "end of the instance",
        "instance_ends JOIN instances ON instances.id = instance",
        "native",
        "native ended_at reason",
        "retired",
        "instances.source",
    ),
)


def faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Where rows and events do not tell the same: a sentence each."""
    migrated = {row[0] for row in connection.execute("SELECT source FROM events WHERE action = 'migrated'")}
    connection.create_function("row_digest", -1, _row_digest, deterministic=True)
    for told in _TOLD:
        for source, _, who in connection.execute(_more(told.rows, told.events)):
            if source not in migrated:
                yield f"no event tells of the {told.called} {who} as it stands here"
        for _, _, who in connection.execute(_more(told.events, told.rows)):
            yield f"the {told.called} that an event tells of ({who}) is not there, or was changed"
    for (source,) in connection.execute("SELECT id FROM sources ORDER BY id").fetchall():
        yield from _checks(connection, source, is_migrated=source in migrated)


def _more(these: str, those: str) -> str:
    """SQL: the rows that stand in `these` more often than in `those`, told apart by source and digest."""
    numbered = "SELECT s, row, row_number() OVER (PARTITION BY s, row) AS n"
    return f"""
        WITH these(s, row, who) AS ({these}), those(s, row, who) AS ({those})
        SELECT s, row, (SELECT who FROM these WHERE these.s = left.s AND these.row IS left.row)
        FROM ({numbered} FROM these EXCEPT {numbered} FROM those) AS left"""


def _row_digest(*pairs: str | bytes | int | None) -> str:
    """The digest of a row, given as its columns' names, each with its value."""
    return chain.of_row({str(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)})


def _checks(connection: sqlite3.Connection, source: int, *, is_migrated: bool) -> Iterator[str]:
    read: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    sql = "SELECT seq, subject, details FROM events WHERE source = ? AND action = ? ORDER BY seq"
    for seq, subject, text in connection.execute(sql, [source, events.CHECKED]):
        details = json.loads(text)
        name, _, arch = subject.partition("/")
        key = (details["run"], name, arch)
        rows = connection.execute(
            "SELECT test, outcome, duration_s, message, exempted FROM checks"
            " WHERE run = ? AND image = ? AND arch = ? AND source = ? ORDER BY id LIMIT ? OFFSET ?",
            [*key, source, details["checks"], read[key]],
        )
        noted = [events.Check(*row) for row in rows]
        read[key] += details["checks"]
        if len(noted) != details["checks"] or events.digest_of(noted) != details["digest"]:
            yield f"the checks of {subject} in the run {key[0]} are not those that event {seq} tells of"
    count = connection.execute("SELECT count(*) FROM checks WHERE source = ?", [source]).fetchone()[0]
    if count != sum(read.values()) and not is_migrated:
        yield f"there are {count} results of checks, and events tell of {sum(read.values())}"
