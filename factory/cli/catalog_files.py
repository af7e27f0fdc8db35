"""`factory catalog backup`, `export`, `import`: the catalog as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from factory.cli import output
from factory.errors import TamperedError, UsageError
from factory.model import Layout

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_FORCE = click.option("--force", is_flag=True, help="Also where a file of that name is there: it is replaced.")


@click.command("backup")
@click.option("--to", "target", metavar="FILE", help="Where to.  [default: .factory/backups/catalog-TIME.db]")
@_FORCE
@_JSON
@click.pass_obj
def backup_command(obj: dict[str, Any], /, target: str | None, force: bool, as_json: bool) -> None:
    """A copy of the catalog in one file, while others go on writing; it has its name only once it was proven whole.

    Proven is all that `factory catalog check` looks at; where it finds anything, there is no backup. To go back to one:
    move catalog.db, catalog.db-wal and catalog.db-shm away, all three, and put it in their place.
    """
    from factory.compliance import transfer as flow

    layout = Layout(obj["folder"].resolve())
    made = flow.backup(layout, None if target is None else Path(target).absolute(), force=force)
    if as_json:
        logs = [
            {"source": log.name, "catalog": log.catalog, "length": log.length, "head": log.head} for log in made.logs
        ]
        output.document({"path": str(made.path), "size_bytes": made.size_bytes, "digest": made.digest, "logs": logs})
        return
    events = ", ".join(f"{log.length} events of {log.name}" for log in made.logs)
    output.say(f"{output.colour('backed up', 'green', 'bold')}: {made.size_bytes} bytes, {events}; {made.digest}")
    output.data(str(made.path))


@click.command("export")
@click.option(
    "--to", "target", metavar="FILE|-", default="-", help="Where to; packed where it ends in .gz.  [default: -]"
)
@click.option("--name", metavar="NAME", help="What whoever imports it is to call it.  [default: the folder's name]")
@_FORCE
@click.pass_obj
def export_command(obj: dict[str, Any], /, target: str, name: str | None, force: bool) -> int:
    """All of the catalog as JSON lines, as it is at this moment; the same catalog gives the same bytes.

    Exit 6 where the log is not as it was written: it is exported all the same, and no import takes it.
    """
    from factory.compliance import transfer as flow

    layout = Layout(obj["folder"].resolve())
    called = flow.name_of(layout, name)
    if target == "-":
        for line in flow.lines(layout, called):
            sys.stdout.write(line)
        sys.stdout.flush()
    else:
        count = flow.export(layout, Path(target).absolute(), called, force=force)
        output.say(f"{output.colour('exported', 'green', 'bold')}: {count} lines, as {called}")
        output.data(str(Path(target).absolute()))
    return _tell_breaks(flow.breaks(layout))


def _tell_breaks(found: list[str]) -> int:
    """Say where the logs of what was exported break; the exit code."""
    if not found:
        return 0
    for fault in found:
        output.say(f"{output.colour('tampered', 'red', 'bold')}: {fault}")
    error = TamperedError(
        "what was exported is not as it was written: no import takes it",
        hint="factory audit tells more; put a backup of before in the catalog's place",
    )
    output.explain(error)
    return error.exit_code


@click.command("import")
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--name", metavar="NAME", help="What its catalog is to be called here; with one FILE.")
@_JSON
@click.pass_obj
def import_command(obj: dict[str, Any], /, files: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Take over what other factories exported: all of a file, or nothing of it.

    The same digest stands once, whoever baked it; who knows it is kept, and so is each factory's log. What was imported
    before is not imported again. Begins a catalog where there is none. Exit 6 where a log in a file breaks, or tells
    another past than it did before.
    """
    from factory.compliance import transfer as flow

    if name is not None and len(files) > 1:
        raise UsageError("--name is for one file", where="--name")
    layout = Layout(obj["folder"].resolve())
    taken = []
    for file in files:
        done = flow.take_over(layout, Path(file), name)
        taken.append({"file": done.file, "catalog": done.catalog, "name": done.name, "sources": done.sources,
                      "lines": done.lines, "added": dict(done.added)})  # fmt: skip
        counts = ", ".join(f"{kind} {count}" for kind, count in done.added.items() if count)
        said = f"new are {counts}" if counts else "nothing is new"
        output.say(f"{output.colour('imported', 'green', 'bold')} {file} ({done.name}): {said}")
    if as_json:
        output.document({"files": taken})
