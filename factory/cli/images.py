"""The commands on one stored image: verify, boot, fetch."""

from __future__ import annotations

from typing import Any

import click

from factory.cli import output
from factory.cli.progress import Progress
from factory.model import Layout


@click.command()
@click.argument("name", metavar="NAME|DIGEST")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def verify(obj: dict[str, Any], /, name: str, as_json: bool) -> int:
    """Boot the stored artifact of an image and run its checks again. Never alters it.

    DIGEST is one that images.lock holds. Exits 4 where a check fails; images.lock stays as it is either way.
    """
    from factory.bake import stored

    with Progress() as progress:
        report = stored.verify(Layout(obj["folder"].resolve()), name, progress)
    passed = sum(case.outcome == "passed" for case in report.cases)
    if as_json:
        output.document(
            {
                "name": name,
                "passed": report.passed,
                "checks": [vars(case) for case in report.cases],
                "accelerator": report.accelerator,
                "boot_s": round(report.boot_s, 3),
                "duration_s": round(report.duration_s, 3),
                "junit": str(report.junit),
                "console": str(report.console),
            }
        )
    else:
        output.say(
            f"{name}: {passed} of {len(report.cases)} checks passed in {report.duration_s:.0f} s ({report.junit})"
        )
    return 0


@click.command()
@click.argument("name", metavar="NAME|DIGEST|DISK")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, once the guest can be entered.")
@click.pass_obj
def boot(obj: dict[str, Any], /, name: str, as_json: bool) -> int:
    """Start a disposable guest of an image to look around in, and say how to get in. Ctrl-C ends it.

    DISK is the path of a disk image, such as one that `bake --keep-failed` kept. Nothing that is done in the guest is
    kept; the image itself is only read.
    """
    from factory.bake import stored
    from factory.verify import shell

    def ready(session: Any) -> None:
        if as_json:
            output.document({"name": name, "ssh": shell.command(session), "ports": session.guest.ports})

    try:
        stored.boot(Layout(obj["folder"].resolve()), name, output.say, ready)
    except KeyboardInterrupt:
        output.say("\nthe guest is gone")
    return 0


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def fetch(obj: dict[str, Any], /, name: str, as_json: bool) -> int:
    """Get the locked bytes of NAME from the store that images.toml names; they are verified on arrival."""
    from factory.bake import stored

    files = stored.fetch(Layout(obj["folder"].resolve()), name)
    if as_json:
        output.document({"name": name, "artifacts": {place: str(path) for place, path in files.items()}})
        return 0
    for place, path in files.items():
        output.data(f"{place}  {path}")
    return 0
