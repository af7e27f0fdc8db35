"""Rows as comma-separated values (RFC 4180, lines end in LF), for spreadsheets: nothing in a cell is run.

A list is joined by spaces, a truth is `true` or `false`, nothing is empty. A text that a spreadsheet would take for a
formula has an apostrophe put before it; what has no shape (control characters, ends of lines) is written as its escape.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

Row = Mapping[str, Any]


def write_csv(out: IO[str], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a heading and the rows as they come: of each row the values of `columns`, in their order."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(row.get(key)) for key in columns])


def csv_cell(value: Any) -> Any:
    """A value as a cell holds it."""
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = visible(value)
        return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
    return value


def visible(text: str) -> str:
    """A text on one line, with nothing in it that would act on who shows it or is not allowed in XML."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
