"""`factory lock`: is images.lock true to its inputs; pin what is offered now; mend; drop."""

from __future__ import annotations

from typing import Any

import click

from factory.cli import output
from factory.cli.progress import Progress
from factory.errors import UsageError
from factory.model import Layout


@click.command()
@click.argument("bases", nargs=-1, metavar="[BASE…]")
@click.option("--check", "action", flag_value="check", help="Exit 5 where the lock is not true (the default).")
@click.option(
    "--refresh",
    "action",
    flag_value="refresh",
    help="Pin what the repositories offer now, for BASE… or all; bakes nothing.",
)
@click.option(
    "--repair", "action", flag_value="repair", help="Make images.lock anew from the catalog, as after a merge conflict."
)
@click.option("--prune", "action", flag_value="prune", help="Drop from images.lock what is gone from images.toml.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def lock(obj: dict[str, Any], /, bases: tuple[str, ...], action: str | None, as_json: bool) -> int:
    """Check images.lock against its inputs, or refresh, repair or prune it."""
    from factory.bake import relock

    layout = Layout(obj["folder"].resolve())
    if bases and action != "refresh":
        raise UsageError("a BASE goes with --refresh", hint="factory lock --refresh BASE")
    if action in (None, "check"):
        return _check(layout, as_json)
    if action == "refresh":
        with Progress() as progress:
            lines = relock.refresh(layout, bases, progress)
    else:
        lines = relock.repair(layout) if action == "repair" else relock.prune(layout)
    if as_json:
        output.document({"changes": lines})
    else:
        for line in lines or ["nothing changed"]:
            output.data(line)
    return 0


def _check(layout: Layout, as_json: bool) -> int:
    from factory.bake import asking

    untrue = asking.untrue(layout)
    if as_json:
        output.document({"true": not untrue, "images": {name: list(inputs) for name, inputs in untrue.items()}})
    else:
        for name, inputs in untrue.items():
            output.data(f"{name}: {', '.join(inputs)}")
        output.say(
            "images.lock is not true to its inputs (factory bake)" if untrue else "images.lock is true to its inputs"
        )
    return 5 if untrue else 0
