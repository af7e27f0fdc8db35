"""Opens the catalog, brings it to this version, and is the only way to write to it.

Owns the connection, its settings (WAL, full sync) and the one kind of transaction: BEGIN IMMEDIATE, because a deferred
one that reads before it writes fails as soon as another process writes in between. Invariants: a catalog of a later
version is not touched, nor is a database of something else; a new catalog has its name only once it is whole; a
migration and the note of it are one transaction; every SQLite error leaves as CatalogError (faults.py).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database

from factory import files
from factory.catalog import faults, migrations
from factory.catalog.faults import told
from factory.errors import CatalogError

T = TypeVar("T")

_CACHE_KIB = 65_536
"""Of a large catalog's pages, so many are kept at hand; SQLite's own 2 MiB are too few for a walk over its indexes."""


class Catalog:
    """An open catalog. May be used from several threads; they take turns."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self._database = database
        self._turn = threading.RLock()

    @classmethod
    def open(cls, path: Path, busy_s: float | None = None) -> Catalog:
        """The catalog in a file, made or migrated where necessary. CatalogError: newer, damaged, not reachable.

        `busy_s`: how long to wait for another writer each time; None: as long as all do.
        """
        with told(path):
            _prepare(path)
            timeout = faults.BUSY_S if busy_s is None else busy_s
            connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
            try:
                version = _version(connection)
                if version > migrations.VERSION:
                    raise _newer(path, version)
                if version < migrations.VERSION:
                    _refuse_foreign(connection, path, version)
                    with files.exclusive(_guard(path)):
                        _migrate(connection)
                connection.execute("PRAGMA journal_mode = WAL")  # it has another where a backup was put in its place
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                return cls.over(connection, path)
            except BaseException:
                connection.close()
                raise

    @classmethod
    def read(cls, path: Path) -> Catalog:
        """The catalog in a file, to be read only; nothing is made. CatalogError: none there, of another version.

        One of an earlier version is migrated where it can be written. A catalog that nobody writes to can be read
        where it stands, also in a folder that is read-only.
        """
        with told(path):
            if not path.is_file():
                raise CatalogError("there is no catalog", where=str(path), hint="factory bake begins one")
            faults.refuse_empty(path)
            connection = _connect_reading(path)
            try:
                version = _version(connection)
                if version > migrations.VERSION:
                    raise _newer(path, version)
                if version == migrations.VERSION:
                    return cls.over(connection, path)
            except BaseException:
                connection.close()
                raise
            connection.close()
        cls.open(path).close()
        return cls.read(path)

    @classmethod
    def over(cls, connection: sqlite3.Connection, path: Path) -> Catalog:
        """The catalog that a connection has open, such as one of a pool that serves pages."""
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return cls(path, Database(connection))

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
        with self._turn, told(self.path):
            self._database.conn.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.conn.execute("COMMIT")
            finally:
                if self._database.conn.in_transaction:
                    self._database.conn.execute("ROLLBACK")

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for what reads many rows, or works inside `writing`."""
        connection: sqlite3.Connection = self._database.conn
        return connection

    def streamed(self, rows: Iterable[T]) -> Iterator[T]:
        """What `rows` gives, which is read from this catalog as it is asked for. CatalogError while it is."""
        remaining = iter(rows)
        while True:
            with told(self.path):
                try:
                    row = next(remaining)
                except StopIteration:
                    return
            yield row

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the catalog for all that is read inside, whatever others write meanwhile; nothing is written
        there. CatalogError, also for what goes wrong while rows are read through the connection itself."""
        with told(self.path):
            begins = not self.connection.in_transaction
            if begins:
                self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                if begins and self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows a SELECT gives. CatalogError."""
        with self._turn, told(self.path):
            return list(self._database.query(sql, parameters))


def _prepare(path: Path) -> None:
    """The folder, and a whole new catalog where there is none. A file of no bytes is none of ours."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with files.exclusive(_guard(path)):
                if not path.exists():
                    _begin(path)
    except OSError as error:
        raise CatalogError(
            f"the catalog cannot be made: {error.strerror or error}",
            where=str(path),
            hint=f"the folder must be yours to write to, and have room: {path.parent}",
        ) from error
    faults.refuse_empty(path)


def _begin(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise CatalogError(
            f"there is no {path.name}, and yet a log of one: {log.name}",
            where=str(log),
            hint="it holds what was written last: put the catalog back beside it; if that is lost, move the log away",
        )
    temporary = files.temporary_of(path)
    for left in (temporary, *(temporary.with_name(temporary.name + end) for end in ("-wal", "-shm", "-journal"))):
        left.unlink(missing_ok=True)
    with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
        _migrate(connection)
    temporary.replace(path)
    files.sync_folder(path.parent)


def _guard(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _refuse_foreign(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """CatalogError for a database that has tables, and not the ones that a catalog of this version begins with."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and (version == 0 or not tables >= {"runs", "bakes", "images", "intents"}):
        raise CatalogError(
            "this is a database, but no catalog; nothing was changed", where=str(path), hint=faults.restore(path)
        )


def _newer(path: Path, version: int) -> CatalogError:
    return CatalogError(
        f"the catalog is of version {version}; this factory knows {migrations.VERSION}",
        where=str(path),
        hint="use the version of factory that wrote it; nothing was changed",
    )


def _connect_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Where the folder is read-only and no writer is at work, SQLite is told that the
    file does not change: it could not make the memory it shares with writers there."""
    uri = path.absolute().as_uri()
    options: dict[str, Any] = {"uri": True, "isolation_level": None, "check_same_thread": False}
    options["timeout"] = faults.BUSY_S
    connection: sqlite3.Connection = sqlite3.connect(f"{uri}?mode=ro", **options)
    try:
        _version(connection)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
            raise
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", **options)
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    for number in range(_version(connection) + 1, migrations.VERSION + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations.MIGRATIONS[number - 1](connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
