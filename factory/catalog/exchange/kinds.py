"""The kinds of lines that belong to one source: how a row is read as a line, and how a line becomes a row.

Every such table is append-only, so the rows of a source are its history in order; that order is all that tells two rows
apart that say the same.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from factory.catalog import chain, signed
from factory.catalog.exchange import EVENT
from factory.digest import Digest, packed, parse_digest
from factory.trust import dsse

Line = Mapping[str, Any]
Put = Callable[[sqlite3.Connection, int, Line], None]


@dataclass(frozen=True)
class Kind:
    """`select` gives a source's id, then the `columns` in their order; `nested` are JSON in the row, plain in a line.
    `put` writes a line as a row of a source of this catalog."""

    name: str
    select: str
    columns: tuple[str, ...]
    put: Put
    order: str = "rowid"
    nested: tuple[str, ...] = ()

    def rows(self, connection: sqlite3.Connection, source: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """(source, what a line of it says) of every row, or of those of one source. Streams."""
        where = "" if source is None else " WHERE source = :source"
        sql = f"{self.select}{where} ORDER BY {self.order}"
        for number, *values in connection.execute(sql, {} if source is None else {"source": source}):
            said = dict(zip(self.columns, values, strict=True))
            for name in self.nested:
                said[name] = json.loads(said[name])
            yield number, said


def hexed(column: str, name: str) -> str:
    """SQL: a digest of 32 bytes as text; NULL as NULL."""
    return f"'sha256:' || nullif(lower(hex({column})), '') AS {name}"


def _select(table: str, *columns: str) -> str:
    return f"SELECT source, {', '.join(columns)} FROM {table}"


def _plain(kind: str, table: str, columns: str, digests: str = "") -> Kind:
    """A kind whose lines have the columns of a table; `digests` are 32 bytes there, text in a line."""
    names, blobs = tuple(columns.split()), frozenset(digests.split())
    said = [hexed(name, name) if name in blobs else name for name in names]
    marks = ", ".join("?" * (len(names) + 1))
    insert = f"INSERT INTO {table} (source, {', '.join(names)}) VALUES ({marks})"

    def put(connection: sqlite3.Connection, source: int, line: Line) -> None:
        values = [packed(line[name]) if name in blobs and line[name] is not None else line[name] for name in names]
        connection.execute(insert, [source, *values])

    return Kind(kind, _select(table, *said), names, put)


def id_of(connection: sqlite3.Connection, table: str, digest: str | None) -> int | None:
    """The number of the row with this digest; None for None. ValueError where there is none."""
    if digest is None:
        return None
    found = connection.execute(f"SELECT id FROM {table} WHERE digest = ?", [packed(digest)]).fetchone()
    if found is None:
        raise ValueError(f"it names {digest} of {table}, which no line before it is of")
    return int(found[0])


def _put_event(connection: sqlite3.Connection, source: int, line: Line) -> None:
    chain.insert(connection, source, event_of(line))


def event_of(line: Line) -> chain.Event:
    """The event that a line says. ValueError, TypeError."""
    for name in ("image", "record", "attestation"):
        if line[name] is not None:
            parse_digest(line[name])
    parse_digest(line["previous"])
    if not isinstance(line["authenticated"], bool) or not isinstance(line["seq"], int):
        raise TypeError("seq or authenticated is of another type")
    for name in ("at", "actor", "action", "subject", "details"):
        if not isinstance(line[name], str):
            raise TypeError(f"{name} is no text")
    return chain.Event(**{name: line[name] for name in EVENTS.columns})


def line_of(event: chain.Event) -> dict[str, Any]:
    """What a line of an event says."""
    return {name: getattr(event, name) for name in EVENTS.columns}


def _put_bake(connection: sqlite3.Connection, source: int, line: Line) -> None:
    image, parent = id_of(connection, "images", line["image"]), id_of(connection, "images", line["parent"])
    row = [
        source, line["event"], image, line["name"], line["arch"], parent, packed(line["bake_key"]), line["run"],
        line["kind"], line["baked_at"], id_of(connection, "package_sets", line["added"]),
        id_of(connection, "input_sets", line["inputs"]), line["pins"],
    ]  # fmt: skip
    known = connection.execute("SELECT 1 FROM edges WHERE child = ? AND parent = ?", [image, parent]).fetchone()
    if known is None:
        connection.execute("INSERT INTO edges VALUES (?, ?)", [image, parent])
    bake = connection.execute(
        "INSERT INTO bakes (source, event, image, name, arch, parent, bake_key, run, kind, baked_at, added, inputs,"
        " pins) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    ).lastrowid
    artifacts = [[bake, form, packed(digest), size] for form, digest, size in line["artifacts"]]
    connection.executemany("INSERT INTO artifacts VALUES (?, ?, ?, ?)", artifacts)
    locations = [[bake, place, native] for place, native in line["locations"]]
    connection.executemany("INSERT INTO locations VALUES (?, ?, ?)", locations)


def _put_statement(connection: sqlite3.Connection, source: int, line: Line) -> None:
    """What a signed envelope means, read from the envelope itself."""
    sql = "SELECT id, envelope FROM attestations WHERE digest = ?"
    found = connection.execute(sql, [line["attestation"]]).fetchone()
    if found is None:
        raise ValueError(f"it names the envelope {line['attestation']}, which no line before it is of")
    signed.put(connection, found[0], dsse.parse(found[1]), source=source)


def _put_rollout_end(connection: sqlite3.Connection, source: int, line: Line) -> None:
    sql = "SELECT 1 FROM rollouts WHERE id = ? AND source = ?"
    if connection.execute(sql, [line["rollout"], source]).fetchone() is None:
        raise ValueError(f"no line before it began the rollout {line['rollout']}")
    row = [line["rollout"], line["ended_at"], line["state"]]
    connection.execute("INSERT INTO rollout_ends VALUES (?, ?, ?)", row)


def _put_instance_end(connection: sqlite3.Connection, source: int, line: Line) -> None:
    sql = "SELECT id FROM instances WHERE source = ? AND provider = ? AND native = ? AND launched_at = ?"
    found = connection.execute(sql, [source, line["provider"], line["native"], line["launched_at"]]).fetchone()
    if found is None:
        raise ValueError(f"no line before it launched {line['native']}")
    connection.execute("INSERT INTO instance_ends VALUES (?, ?, ?)", [found[0], line["ended_at"], line["reason"]])


EVENTS = Kind(
    EVENT,
    _select(
        "events", "seq", "at", "actor", "iif(authenticated, 'true', 'false')", "action", "subject",
        hexed("image", "image"), hexed("record", "record"), "attestation", "details", hexed("previous", "previous"),
    ),
    ("seq", "at", "actor", "authenticated", "action", "subject", "image", "record", "attestation", "details",
     "previous"),
    _put_event,
    order="source, seq",
    nested=("authenticated",),
)  # fmt: skip

BAKES = Kind(
    "bake",
    _select(
        "bakes", "event", hexed("(SELECT digest FROM images WHERE id = image)", "image"), "name", "arch",
        hexed("(SELECT digest FROM images WHERE id = parent)", "parent"), hexed("bake_key", "bake_key"), "run", "kind",
        "baked_at", hexed("(SELECT digest FROM package_sets WHERE id = added)", "added"),
        hexed("(SELECT digest FROM input_sets WHERE id = inputs)", "inputs"), "pins",
        "(SELECT json_group_array(json_array(format, 'sha256:' || lower(hex(digest)), size_bytes))"
        " FROM (SELECT * FROM artifacts WHERE bake = bakes.id ORDER BY format))",
        "(SELECT json_group_array(json_array(place, native))"
        " FROM (SELECT * FROM locations WHERE bake = bakes.id ORDER BY place))",
    ),
    ("event", "image", "name", "arch", "parent", "bake_key", "run", "kind", "baked_at", "added", "inputs", "pins",
     "artifacts", "locations"),
    _put_bake,
    nested=("artifacts", "locations"),
)  # fmt: skip

_BY_ENVELOPE = "SELECT source, (SELECT digest FROM attestations WHERE id = attestation) FROM "

OF_A_SOURCE: tuple[Kind, ...] = (
    _plain("run", "runs", "id started_at command"),
    _plain("run-end", "run_ends", "run ended_at exit_code"),
    _plain("task", "tasks", "run image arch play task place started_at duration_s outcome changed message"),
    _plain("check", "checks", "run image arch test outcome duration_s message exempted"),
    _plain("base", "bases", "name arch digest run recorded_at entry"),
    BAKES,
    Kind("assignment", _BY_ENVELOPE + "channel_assignments", ("attestation",), _put_statement),
    Kind("revocation", _BY_ENVELOPE + "revocations", ("attestation",), _put_statement),
    _plain("rollout", "rollouts", "id fleet from_digest to_digest started_at", "from_digest to_digest"),
    Kind(
        "rollout-end",
        "SELECT source, rollout, ended_at, state FROM rollout_ends JOIN rollouts ON rollouts.id = rollout",
        ("rollout", "ended_at", "state"),
        _put_rollout_end,
        order="rollout_ends.rowid",
    ),
    _plain("instance", "instances", "fleet generation provider native digest rollout launched_at", "digest"),
    Kind(
        "instance-end",
        "SELECT source, provider, native, launched_at, ended_at, reason FROM instance_ends"
        " JOIN instances ON instances.id = instance",
        ("provider", "native", "launched_at", "ended_at", "reason"),
        _put_instance_end,
        order="instance_ends.rowid",
    ),
)
"""In the order in which they stand in a file: what a line names stands before it."""


def envelope_text(raw: bytes) -> str:
    """An envelope as a line has it: base64 of its bytes."""
    return base64.b64encode(raw).decode("ascii")


def envelope_bytes(text: str) -> bytes:
    """The bytes of an envelope. ValueError."""
    return base64.b64decode(text, validate=True)


def digest_or_none(value: Any) -> Digest | None:
    """A digest, or None for None. ValueError."""
    return None if value is None else parse_digest(value)
