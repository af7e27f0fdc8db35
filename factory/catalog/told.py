"""Runs, checks, rollouts and instances, held against the events that tell of them.

An event has all of what such a row says (of checks, a digest), so a row that was changed, put in or taken out shows.
What was noted before there was a log (versions 1 and 2) is told by no event; a log that began so may lack some.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator

from factory.catalog import events

_PAIRS = (
    ("run", "SELECT source, id, command FROM runs",
     "SELECT source, json_extract(details, '$.run'), subject FROM events WHERE action = 'began run'"),
    ("end of a run", "SELECT source, run, exit_code FROM run_ends",
     "SELECT source, subject, json_extract(details, '$.exit_code') FROM events WHERE action = 'ended run'"),
    ("base", "SELECT source, name || '/' || arch, upper(substr(digest, 8)) FROM bases",
     "SELECT source, subject, hex(image) FROM events WHERE action = 'locked base'"),
    ("rollout", "SELECT source, id, fleet || ' ' || hex(to_digest) FROM rollouts",
     "SELECT source, json_extract(details, '$.rollout'), subject || ' ' || hex(image) FROM events"
     " WHERE action = 'began rollout'"),
    ("end of a rollout", "SELECT source, rollout, state FROM rollout_ends",
     "SELECT source, subject, json_extract(details, '$.state') FROM events WHERE action = 'ended rollout'"),
    ("instance", "SELECT source, fleet || ': ' || native, json_array(provider, generation, hex(digest)) FROM instances",
     "SELECT source, subject, json_array(json_extract(details, '$.provider'), json_extract(details, '$.generation'),"
     " hex(image)) FROM events WHERE action = 'launched'"),
    ("end of an instance", "SELECT instances.source, fleet || ': ' || native, reason FROM instance_ends"
     " JOIN instances ON instances.id = instance",
     "SELECT source, subject, json_extract(details, '$.reason') FROM events WHERE action = 'retired'"),
)  # fmt: skip
"""What a row is called, (source, who, what) of the rows, and of the events."""


def faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Where rows and events do not tell the same: a sentence each."""
    migrated = {row[0] for row in connection.execute("SELECT source FROM events WHERE action = 'migrated'")}
    for called, rows, told in _PAIRS:
        for source, who, what in connection.execute(_more(rows, told)):
            if source not in migrated:
                yield f"no event tells of the {called} {who} ({what})"
        for _, who, what in connection.execute(_more(told, rows)):
            yield f"the {called} {who} ({what}) is not there, as its event tells of it"
    for (source,) in connection.execute("SELECT id FROM sources ORDER BY id").fetchall():
        yield from _checks(connection, source, is_migrated=source in migrated)


def _more(these: str, those: str) -> str:
    """The rows that stand in `these` more often than in `those`."""
    return f"""
        WITH these(s, who, what) AS ({these}), those(s, who, what) AS ({those})
        SELECT s, who, what FROM (
            SELECT *, row_number() OVER (PARTITION BY s, who, what) FROM these
            EXCEPT SELECT *, row_number() OVER (PARTITION BY s, who, what) FROM those
        )"""  # noqa: S608


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
