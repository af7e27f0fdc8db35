"""The tables of the catalog, as numbered migrations. What has been released is never edited: a change is a new one.

History is append-only by trigger: a row, once written, is neither changed nor removed. What ends later (a run, an
intent, an instance) has its end in a table of its own. Times are UTC, ISO 8601; durations seconds. A digest is
`sha256:<hex>` in the tables of versions 1 and 2, its 32 bytes in those that came with version 3.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from factory.catalog.migrations import fifth, first, fourth, second, sixth, third

Migration = Callable[[sqlite3.Connection], None]
"""Makes a catalog of its version out of one of the version before. The caller has the transaction."""


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of a script inside the transaction that is open (`executescript` would commit it first)."""
    for statement in _statements(script):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def append_only(*tables: str) -> str:
    """The triggers that refuse UPDATE and DELETE."""
    return "".join(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the catalog is append-only: {table}'); END;\n"
        for table in tables
        for verb in ("UPDATE", "DELETE")
    )


def _first(connection: sqlite3.Connection) -> None:
    run_script(connection, first.SQL + append_only(*first.APPEND_ONLY))


def _second(connection: sqlite3.Connection) -> None:
    run_script(connection, second.SQL + append_only(*second.APPEND_ONLY))


def _third(connection: sqlite3.Connection) -> None:
    old = third.Old.read(connection)
    run_script(connection, third.DROP + third.SQL + append_only(*third.APPEND_ONLY))
    third.carry_over(connection, old)


def _fourth(connection: sqlite3.Connection) -> None:
    run_script(connection, fourth.SQL + append_only(*fourth.APPEND_ONLY))


def _fifth(connection: sqlite3.Connection) -> None:
    run_script(connection, fifth.SQL + append_only(*fifth.APPEND_ONLY))


def _sixth(connection: sqlite3.Connection) -> None:
    run_script(connection, sixth.SQL)


MIGRATIONS: tuple[Migration, ...] = (_first, _second, _third, _fourth, _fifth, _sixth)
"""Migration n (from 1) makes a catalog of version n out of one of version n - 1."""

VERSION = len(MIGRATIONS)
