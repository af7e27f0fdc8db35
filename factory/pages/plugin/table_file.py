"""A table of *Data* as one CSV file: every row that the filters of its address leave, read once, sent as it is read.

In the order that the catalog has them, whatever the page is sorted by, so that a million rows need no memory. A file
that cannot be read to its end is broken off, never ended as if it were whole: a browser then says that it failed.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasette.filters import Filters

from factory import tabular
from factory.catalog.reader import Reader
from factory.errors import CatalogError, UsageError
from factory.pages.plugin.tables import DATABASE

ROWS = 1000
"""So many are read, and sent, at once."""
LIMIT_S = 10.0
"""So long reading them may take."""


async def whole(datasette: Any, request: Any) -> TableFile:
    """The answer. Raises CatalogError where the first rows take too long, UsageError for a column that is not there."""
    view, copy = request.url_vars["view"], Path(datasette.get_database(DATABASE).path)
    reader = Reader(copy, datasette.pages.layout.catalog, view, LIMIT_S)
    try:
        first = await asyncio.to_thread(_begun, reader, _filters(request), view)
    except BaseException:
        reader.close()
        raise
    return TableFile(f"{view}.csv", reader, first, request)


def _filters(request: Any) -> Filters:
    """As the page of the table understands its address."""
    names = [key for key in request.args if not key.startswith("_") or "__" in key]
    return Filters(sorted((name, value) for name in names for value in request.args.getlist(name)))


def _begun(reader: Reader, filters: Filters, view: str) -> str:
    """The heading and the first rows."""
    columns = reader.columns()
    for column, _, _ in filters.selections():
        if column not in columns:
            raise UsageError(f"this table has no column {column[:80]!r}")
    reader.begin(*filters.build_where_clauses(view))
    return _lines([columns, *reader.next(ROWS)])


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([map(tabular.csv_cell, row) for row in rows])
    return out.getvalue()


@dataclass(frozen=True)
class TableFile:
    """What Datasette sends: `first`, then what `reader` still has. Whatever happens, that is closed in the end."""

    name: str
    reader: Reader
    first: str
    request: Any

    async def asgi_send(self, send: Any) -> None:
        """Send all of it. Stops, without the end that says that all was sent, where the rest cannot be read, whoever
        asked has gone, or the server ends."""
        disposition = f'attachment; filename="{self.name}"'.encode()
        headers = [(b"content-type", b"text/csv; charset=utf-8"), (b"content-disposition", disposition)]
        gone = asyncio.create_task(_gone(self.request.receive))
        with closing(self.reader):
            try:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                lines = "" if self.request.method == "HEAD" else self.first
                while lines:
                    await send({"type": "http.response.body", "body": lines.encode(), "more_body": True})
                    if gone.done():
                        return
                    lines = _lines(await asyncio.to_thread(self.reader.next, ROWS))
                await send({"type": "http.response.body", "body": b""})
            except (CatalogError, asyncio.CancelledError):
                return
            finally:
                gone.cancel()


async def _gone(receive: Any) -> None:
    """Returns when whoever asked has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
