"""An image as a source tells of it, put beside what others told: the same digest stands once, whoever knows it.

What was told first stands in `images`; where another source says otherwise, its account stands in `image_accounts`, so
that its records still are what its log says of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from factory.catalog import chain
from factory.catalog.exchange.kinds import id_of
from factory.digest import Digest, packed

_COLUMNS = "kind, name, arch, recorded_at, builder, tree, spec, package_set"


@dataclass(frozen=True)
class Said:
    """What is told of an image, as a line has it. `recorded_at` None: it is known only as the parent of another."""

    image_kind: str
    name: str
    arch: str
    recorded_at: str | None
    builder: str | None
    tree: str | None
    spec: str | None
    package_set: str | None


def put(connection: sqlite3.Connection, digest: Digest, said: Said, sources: Iterable[int]) -> bool:
    """Write what these sources say of an image; whether the image is new here. ValueError for what no line is of."""
    row = _row(connection, said)
    sql = f"SELECT id, {_COLUMNS} FROM images WHERE digest = ?"
    found = connection.execute(sql, [packed(digest)]).fetchone()
    if found is None:
        insert = f"INSERT INTO images (digest, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        number = connection.execute(insert, [packed(digest), *row]).lastrowid
        assert number is not None
        _known_to(connection, number, sources)
        return True
    number, stands = int(found[0]), found[1:]
    mine = [source for source in sources if source != chain.OWN]
    if stands[3] is None and row[3] is not None:
        _become_known(connection, number, stands, row)
    elif _differs(stands, row):
        for source in mine:
            _account(connection, number, source, row)
    _known_to(connection, number, mine)
    return False


def _row(connection: sqlite3.Connection, said: Said) -> tuple[Any, ...]:
    tree = None if said.tree is None else packed(said.tree)
    spec = id_of(connection, "specs", said.spec)
    packages = id_of(connection, "package_sets", said.package_set)
    return said.image_kind, said.name, said.arch, said.recorded_at, said.builder, tree, spec, packages


def _differs(stands: tuple[Any, ...], row: tuple[Any, ...]) -> bool:
    """Whether records read back would differ: in all but the time; of a mere parent, in what it is and is called."""
    if row[3] is None:
        return stands[:2] != row[:2]
    return (*stands[:3], *stands[4:]) != (*row[:3], *row[4:])


def _become_known(connection: sqlite3.Connection, number: int, stands: tuple[Any, ...], row: tuple[Any, ...]) -> None:
    """What was known only as a parent is told of in full; who called it otherwise keeps its account."""
    if stands[:2] != row[:2]:
        sql = "SELECT source FROM image_sources WHERE image = ?"
        for (source,) in connection.execute(sql, [number]).fetchall():
            _account(connection, number, source, stands)
    sets = ", ".join(f"{column} = ?" for column in _COLUMNS.split(", "))
    connection.execute(f"UPDATE images SET {sets} WHERE id = ?", [*row, number])


def _account(connection: sqlite3.Connection, number: int, source: int, row: tuple[Any, ...]) -> None:
    sql = "SELECT recorded_at FROM image_accounts WHERE image = ? AND source = ?"
    found = connection.execute(sql, [number, source]).fetchone()
    if found is None:
        connection.execute(
            f"INSERT INTO image_accounts (image, source, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, source, *row],
        )
    elif found[0] is None and row[3] is not None:
        sets = ", ".join(f"{column} = ?" for column in _COLUMNS.split(", "))
        connection.execute(
            f"UPDATE image_accounts SET {sets} WHERE image = ? AND source = ?",
            [*row, number, source],
        )


def _known_to(connection: sqlite3.Connection, number: int, sources: Iterable[int]) -> None:
    rows = ([number, source] for source in sources)
    connection.executemany("INSERT OR IGNORE INTO image_sources VALUES (?, ?)", rows)
