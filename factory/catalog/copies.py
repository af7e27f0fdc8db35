"""A consistent copy of a catalog for whoever only reads, such as the pages, and the news that it is time for another.

`VACUUM INTO` writes all of one moment into a new file while others go on writing; a live file with a write-ahead log
served as if it did not change would show stale rows. The copy is readable by its owner alone and complete or not there.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from factory.catalog.database import Catalog
from factory.catalog.faults import told
from factory.errors import CatalogError

STEPS = 20_000
"""So many steps of SQLite's machine pass between two looks at the clock: less than a millisecond."""


def copy(catalog: Catalog, to: Path, is_unwanted: Callable[[], bool] = lambda: False) -> None:
    """Write the catalog into a new file. CatalogError: no room, damaged, `is_unwanted` by now; nothing is left then."""
    try:
        os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        catalog.connection.set_progress_handler(lambda: int(is_unwanted()), STEPS)
        with told(catalog.path):
            if is_unwanted():
                raise sqlite3.OperationalError("interrupted")
            catalog.connection.execute("VACUUM INTO ?", [str(to)])
        catalog.connection.set_progress_handler(None, 0)
    except BaseException as error:
        with suppress(OSError):
            to.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CatalogError(f"no copy of the catalog can be made: {error.strerror}", where=str(to)) from error
        raise


class Watch:
    """Tells two states of a catalog apart: another connection wrote to it, or another file was put in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._catalog: Catalog | None = None
        self._file: tuple[int, int] | None = None

    def state(self) -> tuple[int, int, int]:
        """Two that differ: something was written in between. CatalogError where it cannot be read."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise CatalogError(f"the catalog cannot be read: {error.strerror}", where=str(self._path)) from error
        if self._catalog is None or self._file != (found.st_dev, found.st_ino):
            self.close()
            self._catalog = Catalog.read(self._path)
            self._file = (found.st_dev, found.st_ino)
        version = self._catalog.query("PRAGMA data_version")[0]["data_version"]
        return found.st_dev, found.st_ino, int(version)

    def close(self) -> None:
        """Let go of the file."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None


@contextmanager
def asked(connection: sqlite3.Connection, path: Path, limit_s: float) -> Iterator[Catalog]:
    """The catalog that a connection of a pool has open, for questions that may take `limit_s` seconds together.

    Raises CatalogError after that, and for what SQLite refuses.
    """
    with limited(connection, path, limit_s):
        yield Catalog.over(connection, path)


@contextmanager
def limited(connection: sqlite3.Connection, path: Path, limit_s: float) -> Iterator[None]:
    """As `asked`, for what is asked through the connection itself, such as the next rows of a cursor."""
    end = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: int(time.monotonic() > end), STEPS)
    try:
        with told(path):
            yield
    except CatalogError as error:
        if time.monotonic() > end:
            raise CatalogError(
                f"the catalog did not answer within {limit_s:g} s",
                where=str(path),
                hint="ask for less at once, or ask by command: factory images, factory where",
            ) from error
        raise
    finally:
        connection.set_progress_handler(None, 0)
