"""An answer as rows: a table for people, `--json` for programs, `--csv` for spreadsheets. All three say the same.

What a cell holds is shown, never run: control characters are escaped in a table and in CSV, and there a text that a
spreadsheet would take for a formula is preceded by an apostrophe.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from factory.cli import output
from factory.errors import UsageError
from factory.tabular import Row, visible, write_csv

TABLE, JSON, CSV = "table", "json", "csv"
_Command = TypeVar("_Command", bound=Callable[..., Any])
_MEASURED = 1000
"""So many rows decide how wide a column is; those after them are written as they come."""


def forms(command: _Command) -> _Command:
    """Adds --json and --csv to a command; see `form_of`."""
    command = click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, with a heading.")(command)
    return click.option("--json", "as_json", is_flag=True, help="One JSON document.")(command)


def form_of(*, as_json: bool, as_csv: bool) -> str:
    """The form that was asked for. UsageError for both."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other", where="--csv")
    return JSON if as_json else CSV if as_csv else TABLE


def show(form: str, columns: Sequence[str], rows: Iterable[Row], document: Callable[[list[Row]], Any]) -> None:
    """Write rows in a form. `columns`: the keys a table and CSV show, in order; headings are the keys themselves.

    `document` makes the JSON document of all rows. A table and CSV are written as the rows come.
    """
    if form == JSON:
        output.document(document(list(rows)))
    elif form == CSV:
        write_csv(sys.stdout, columns, rows)
        sys.stdout.flush()
    else:
        _table(columns, rows)


def stream_json(before: Mapping[str, Any], key: str, rows: Iterable[Row]) -> None:
    """One JSON document with the fields of `before` and then a list, written as its rows come."""
    head = json.dumps(before, ensure_ascii=False)[:-1]
    sys.stdout.write(f"{head}{', ' if before else ''}{json.dumps(key)}: [")
    separator = "\n  "
    for row in rows:
        sys.stdout.write(separator + json.dumps(row, ensure_ascii=False))
        separator = ",\n  "
    sys.stdout.write("\n]}\n")
    sys.stdout.flush()


def line(text: str = "") -> None:
    """A line of an answer for people."""
    sys.stdout.write(text + "\n")


def or_say(rows: Iterable[Row], text: str) -> Iterator[Row]:
    """The rows as they come; where there is none, `text` beside the answer."""
    has_some = False
    for row in rows:
        has_some = True
        yield row
    if not has_some:
        output.say(text)


def section(title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A table below a heading of its own; nothing where there are no rows."""
    remaining = iter(rows)
    first = next(remaining, None)
    if first is not None:
        line()
        line(output.colour(title, "bold", "cyan", stream=sys.stdout))
        _table(columns, itertools.chain([first], remaining))


def cell(value: Any, *, whole: bool = False) -> str:
    """A value as a table shows it: one line, nothing that a terminal would act on. A digest is shortened, unless it is
    to be `whole`."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item, whole=whole) for item in value) or "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value)
    if not whole and text.startswith("sha256:") and len(text) == 71:
        return f"{text[:19]}…"
    return visible(text)


def _table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    cells: Iterator[list[str]] = ([cell(row.get(key)) for key in columns] for row in rows)
    first = list(itertools.islice(cells, _MEASURED))
    if not first:
        return
    headings = [key.replace("_", " ") for key in columns]
    widths = [max(map(len, column)) for column in zip(headings, *first, strict=True)]
    sys.stdout.write(output.colour(_line(headings, widths), "bold", stream=sys.stdout) + "\n")
    for line in itertools.chain(first, cells):
        sys.stdout.write(_line(line, widths) + "\n")
    sys.stdout.flush()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip()
