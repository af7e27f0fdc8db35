"""The commands around a bake: bake, why."""

from __future__ import annotations

from typing import Any

import click

from factory.bake.options import Options
from factory.cli import output
from factory.cli.key import ask_known
from factory.cli.progress import Progress
from factory.model import Layout


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--force", is_flag=True, help="Bake even what has not changed: the NAMEs, or all.")
@click.option("--refresh", is_flag=True, help="First pin the package versions that are offered now.")
@click.option("--locked", is_flag=True, help="Fail (exit 5) where the locked inputs give another digest.")
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="Images at a time."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why; --refresh plays no part in it.")
@click.option(
    "--keep-failed",
    is_flag=True,
    help="Keep the tree or disk that a failed playbook left, and say how to get in.",
)
@click.option("--key", metavar="NAME", help="The key that signs.  [default: the one here that may]")
@click.option("--no-wait", is_flag=True, help="Fail (exit 7) where another run is baking the same image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def bake(obj: dict[str, Any], /, as_json: bool, dry_run: bool, no_wait: bool, **chosen: Any) -> int:
    """Bake what changed, parents first: the images NAME… and those below them; without a NAME, all.

    An image is recorded in images.lock only when the very bytes in the store booted and passed their checks.
    """
    from factory.bake import flow

    options = Options(wait=not no_wait, command="bake", ask=ask_known, **chosen)
    layout = Layout(obj["folder"].resolve())
    if dry_run:
        return _dry_run(layout, options, as_json)
    with Progress(quiet=False) as progress:
        report = flow.bake(layout, options, progress)
    if as_json:
        output.document(report.as_json())
    for result in report.images:
        if result.error is not None:
            output.say("")
            output.say(output.colour(f"{result.image.name} failed", "bold"))
            output.explain(result.error)
    if not as_json:
        output.say(_summary(report))
    return report.exit_code


def _summary(report: Any) -> str:
    counts: dict[str, int] = {}
    for result in report.images:
        counts[result.status] = counts.get(result.status, 0) + 1
    words = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no images"
    return words + (f"   (factory logs {report.run})" if report.run else "")


def _dry_run(layout: Layout, options: Options, as_json: bool) -> int:
    from factory.bake import flow

    with Progress(quiet=True) as progress:
        planned = flow.plan(layout, options, progress)
    if as_json:
        images = [
            {"name": image.name, "arch": image.arch, "action": found.decision.action,
             "reasons": list(found.decision.reasons), "bake_key": found.inputs.bake_key}
            for image, found in planned
        ]  # fmt: skip
        output.document({"images": images})
        return 0
    width = max((len(image.name) for image, _ in planned), default=0)
    for image, found in planned:
        reasons = "; ".join(found.decision.reasons)
        output.data(f"{image.name:<{width}}  {found.decision.action:<9}  {reasons}".rstrip())
    return 0


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def why(obj: dict[str, Any], /, name: str, as_json: bool) -> int:
    """Which inputs of NAME differ from its locked bake, down to the file, variable or package.

    They are named that finely where this factory's own catalog saw that bake; else by input.
    """
    from factory.bake import asking

    answer = asking.why(Layout(obj["folder"].resolve()), name)
    if as_json:
        output.document(answer.as_json())
    elif not answer.baked:
        output.data(f"{answer.name} was never baked")
    elif not answer.changes:
        output.data(f"{answer.name}: nothing has changed")
    for change in answer.changes if not as_json else ():
        output.data(str(change))
    return 0
