"""Opens the catalog, brings it to this version, and is the only way to write to it.

Owns the connection, its settings (WAL, full sync) and the one kind of transaction: BEGIN IMMEDIATE, because a deferred
one that reads before it writes fails as soon as another process writes in between. Invariants: a catalog of a later
version is not touched; a migration and the note of it are one transaction; every SQLite error leaves as CatalogError.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from factory import files
from factory.catalog import schema
from factory.errors import CatalogError

_BUSY_S = 60


def now() -> str:
    """This moment as the catalog writes it: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Catalog:
    """An open catalog. May be used from several threads; they take turns."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self._database = database
        self._turn = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Catalog:
        """The catalog in a file, made or migrated where necessary. CatalogError: newer, damaged, not reachable."""
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                version = _version(connection)
                if version > schema.VERSION:
                    raise CatalogError(
                        f"the catalog is of version {version}; this factory knows {schema.VERSION}",
                        where=str(path),
                        hint="use the version of factory that wrote it; nothing was changed",
                    )
                if version < schema.VERSION:
                    with files.exclusive(path.with_name(path.name + ".lock")):
                        _migrate(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                return cls(path, Database(connection))
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Database]:
        """A transaction that has the right to write from its start: all of it happens, or nothing. CatalogError."""
        with self._turn, _told(self.path):
            self._database.conn.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.conn.execute("COMMIT")
            finally:
                if self._database.conn.in_transaction:
                    self._database.conn.execute("ROLLBACK")

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows a SELECT gives. CatalogError."""
        with self._turn, _told(self.path):
            return list(self._database.query(sql, parameters))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    for number in range(_version(connection) + 1, schema.VERSION + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{schema.MIGRATIONS[number - 1]}\nPRAGMA user_version = {number};\nCOMMIT;"
        )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CatalogError(
            f"the catalog cannot be used: {error}", where=str(path), hint="is its folder writable, and space left?"
        ) from error
    except sqlite3.IntegrityError as error:
        raise CatalogError(f"the catalog refuses this: {error}", where=str(path)) from error
    except sqlite3.DatabaseError as error:
        raise CatalogError(
            f"the catalog is damaged: {error}",
            where=str(path),
            hint=f"put a backup in its place, or move it away (mv {path.name} {path.name}.damaged): "
            "images.lock and the store do not need it",
        ) from error
    except OSError as error:
        raise CatalogError(f"the catalog cannot be used: {error.strerror or error}", where=str(path)) from error
