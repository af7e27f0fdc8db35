"""`factory report`: what an auditor takes away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from factory.cli import output
from factory.errors import UsageError
from factory.model import Layout


@click.command()
@click.argument("target", metavar="[NAME|DIGEST]", required=False)
@click.option("--all", "everything", is_flag=True, help="Of every image that the catalog has.")
@click.option("--channel", metavar="CHANNEL", help="With --all: only of those that it points at.")
@click.option("--to", "folder", metavar="DIR", required=True, help="The folder to make; it must not be there yet.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def report(
    obj: dict[str, Any], /, target: str | None, everything: bool, channel: str | None, folder: str, as_json: bool
) -> int:
    """A page that needs nothing else, and CSV files: image, lineage, SBOM, checks, signers, promotions, instances.

    NAME is the image recorded last; DIGEST may be shortened. There is a whole report in the end, or none. Exit 6 where
    the log is not as it was written: the report is made all the same, and says so.
    """
    from factory.cli import audit
    from factory.compliance import report as flow
    from factory.compliance.asking import asking

    if (target is None) != everything:
        raise UsageError("name an image, or say --all", where="NAME", hint="factory report web --to DIR")
    if channel is not None and not everything:
        raise UsageError("--channel goes with --all", where="--channel")
    layout = Layout(obj["folder"].resolve())
    asked = flow.Asked(target, Path(folder), channel)
    with asking(layout, output.say) as catalog:
        written = flow.write(layout, catalog, asked, datetime.now(UTC), output.say)
    count, faults = written.images, written.integrity.faults
    page = asked.to / flow.PAGE
    if as_json:
        output.document({"images": count, "folder": str(asked.to), "page": str(page), "faults": faults})
    else:
        output.say(f"{count} image{'' if count == 1 else 's'}: open the page in a browser")
        output.data(str(page))
    return audit.tell(written.integrity)
