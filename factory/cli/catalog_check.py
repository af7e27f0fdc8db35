"""`factory catalog check`: whether the catalog is whole, and as it was written."""

from __future__ import annotations

from typing import Any

import click

from factory.cli import output
from factory.errors import CatalogError, TamperedError
from factory.model import Layout


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def check_command(obj: dict[str, Any], /, as_json: bool) -> int:
    """Look the whole catalog over: the file, its schema, the log and what it has digests of, envelopes, counts.

    A line for each problem. Exit 3 where it is damaged, 6 where it was tampered with. Repairs nothing: put a backup in
    its place (factory catalog backup).
    """
    from factory.catalog.check import TAMPERED
    from factory.catalog.faults import restore
    from factory.cli.audit import integrity_json, tell
    from factory.compliance import audit as flow

    layout = Layout(obj["folder"].resolve())
    with flow.opened(layout) as catalog:
        found = flow.check(layout, catalog)
    if as_json:
        said = [{"kind": one.kind, "where": one.where, "what": one.what} for one in found.problems]
        logs = {} if found.integrity is None else integrity_json(found.integrity)
        output.document({**logs, "ok": found.ok, "problems": said})
    else:
        for one in found.problems:
            output.data(f"{one.kind}  {one}")
    if found.integrity is not None:
        code = tell(found.integrity)
        if code:
            return code
    if found.ok:
        output.say("nothing is wrong with the catalog")
        return 0
    tampered = [one for one in found.problems if one.kind == TAMPERED]
    kind = TamperedError if tampered else CatalogError
    error = kind(
        f"the catalog is not as it was written: {len(found.problems)} problems",
        where=str(layout.catalog),
        hint=restore(layout.catalog),
    )
    output.explain(error)
    return error.exit_code
