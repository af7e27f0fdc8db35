"""A table of *Data* as one CSV file: every row that the filters of its address leave, read once, sent as it is read.

In the order that the catalog has them, whatever the page is sorted by, so that a million rows need no memory. A file
that cannot be read to its end is broken off, never closed as if it were whole: a browser then says that it failed.
"""

from __future__ import annotations

import asyncio
import csv
import io
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasette.filters import Filters

from factory import tabular
from factory.catalog import copies
from factory.errors import CatalogError, UsageError
from factory.pages.plugin.tables import DATABASE

ROWS = 1000
"""So many are read, and sent, at once."""
LIMIT_S = 10.0
"""So long reading them may take."""


async def whole(datasette: Any, request: Any) -> TableFile:
    """The answer. Raises CatalogError where the first rows take too long, UsageError for a column that is not there."""
    rows = Rows(_open(datasette), datasette.pages.layout.catalog)
    try:
        await asyncio.to_thread(rows.ask, request.url_vars["view"], _filters(request))
        first = await asyncio.to_thread(rows.next)
    except BaseException:
        rows.connection.close()
        raise
    return TableFile(f"{request.url_vars['view']}.csv", rows, first, is_head=request.method == "HEAD")


def _open(datasette: Any) -> sqlite3.Connection:
    """A connection of its own to the copy: those of Datasette belong to threads, and answer pages meanwhile."""
    uri = Path(datasette.get_database(DATABASE).path).absolute().as_uri()
    return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def _filters(request: Any) -> Filters:
    """As the page of the table understands its address."""
    names = [key for key in request.args if not key.startswith("_") or "__" in key]
    return Filters(sorted((name, value) for name in names for value in request.args.getlist(name)))


@dataclass
class Rows:
    """The rows of a table as lines of CSV. `path`: the catalog, for errors."""

    connection: sqlite3.Connection
    path: Path
    cursor: sqlite3.Cursor | None = None

    def ask(self, view: str, filters: Filters) -> None:
        """Ask for the rows of a view. Raises UsageError, CatalogError."""
        columns = {row[1] for row in self.connection.execute(f"PRAGMA table_info({view})")}
        for column, _, _ in filters.selections():
            if column not in columns:
                raise UsageError(f"this table has no column {column[:80]!r}")
        clauses, values = filters.build_where_clauses(view)
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        with copies.limited(self.connection, self.path, LIMIT_S):
            self.cursor = self.connection.execute(f"SELECT * FROM {view}{where}", values)

    def next(self) -> str:
        """The next lines; none after the last. Raises CatalogError."""
        assert self.cursor is not None
        with copies.limited(self.connection, self.path, LIMIT_S):
            return _lines(self.cursor.fetchmany(ROWS))

    @property
    def heading(self) -> str:
        """The line above them."""
        assert self.cursor is not None
        return _lines([[column[0] for column in self.cursor.description]])


def _lines(rows: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([map(tabular.csv_cell, row) for row in rows])
    return out.getvalue()


@dataclass(frozen=True)
class TableFile:
    """What Datasette sends. Whatever happens, the connection is closed in the end."""

    name: str
    rows: Rows
    first: str
    is_head: bool

    async def asgi_send(self, send: Any) -> None:
        """Send all of it; where the rest cannot be read, stop without the end that says that all was sent."""
        with closing(self.rows.connection):
            disposition = f'attachment; filename="{self.name}"'.encode()
            headers = [(b"content-type", b"text/csv; charset=utf-8"), (b"content-disposition", disposition)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if not self.is_head:
                lines = self.rows.heading + self.first
                while lines:
                    await send({"type": "http.response.body", "body": lines.encode(), "more_body": True})
                    try:
                        lines = await asyncio.to_thread(self.rows.next)
                    except CatalogError:
                        return
            await send({"type": "http.response.body", "body": b""})
