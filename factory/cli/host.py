"""Commands about this host and about new factories: doctor, init."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from factory.cli import output
from factory.model import Layout


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def doctor(obj: dict[str, Any], /, as_json: bool) -> int:
    """What this host can do: each tool and its version, whether KVM really boots a guest, and what to install.

    Exits 3 where something is missing that a bake needs.
    """
    from factory import doctor as examination

    findings = examination.examine(Layout(obj["folder"].resolve()))
    bad = [finding for finding in findings if finding.needed and not finding.ok]
    packages = sorted({package for finding in bad for package in finding.install})
    install = f"apt-get install {' '.join(packages)}" if packages else None
    if as_json:
        output.document({"ok": not bad, "findings": [vars(finding) for finding in findings], "install": install})
        return 3 if bad else 0
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = ("✓", "green") if finding.ok else ("✗", "red") if finding.needed else ("–", "yellow")
        output.data(f"{output.colour(*mark, stream=sys.stdout)} {finding.name:<{width}}  {finding.detail}")
    if install:
        output.say(f"\n{output.colour('hint:', 'cyan', 'bold')} {install}")
    return 3 if bad else 0


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def init(folder: Path, as_json: bool) -> None:
    """Lay out a new factory in DIR: images.toml, templates, a playbook with its role.

    Nothing that is there already is touched; a folder that has one of these is refused.
    """
    from factory import skeleton

    written = skeleton.lay_out(folder)
    if as_json:
        output.document({"folder": str(folder.resolve()), "files": written})
        return
    for name in written:
        output.say(f"  {name}")
    output.say(f"\nA new factory. Next: cd {folder} && factory bake")
