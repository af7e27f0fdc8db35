"""A view of a copy of the catalog, read once from its first row to its last, a piece at a time.

For what is sent as it is read and may be of any size. A connection of its own, so that whoever else asks the copy does
not wait, and nothing of the view is sorted or kept.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.catalog import copies


class Reader:
    """A view of the copy in a file. Its methods may be called from several threads; each may take `limit_s` seconds.

    `view` is a name, never of a visitor's. Errors (CatalogError) are those of the catalog in `catalog`.
    """

    def __init__(self, copy: Path, catalog: Path, view: str, limit_s: float) -> None:
        uri = f"{copy.absolute().as_uri()}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._cursor = self._connection.cursor()
        self._catalog, self._view, self._limit_s = catalog, view, limit_s
        self._turn = threading.Lock()

    def columns(self) -> list[str]:
        """The columns of the view, in their order."""
        with self._turn, copies.limited(self._connection, self._catalog, self._limit_s):
            return [str(row[1]) for row in self._connection.execute(f"PRAGMA table_info({self._view})")]

    def begin(self, conditions: Sequence[str], values: Mapping[str, Any]) -> None:
        """Begin with the rows for which all these SQL conditions hold."""
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        with self._turn, copies.limited(self._connection, self._catalog, self._limit_s):
            self._cursor.execute(f"SELECT * FROM {self._view}{where}", values)

    def next(self, most: int) -> list[tuple[Any, ...]]:
        """The next rows, `most` of them; none after the last."""
        with self._turn, copies.limited(self._connection, self._catalog, self._limit_s):
            return self._cursor.fetchmany(most)

    def close(self) -> None:
        """Let go of the copy; what is being read in another thread is given up."""
        self._connection.interrupt()
        with self._turn:
            self._connection.close()
