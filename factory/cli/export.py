"""`factory export`: one trusted image as a folder that can be carried to where there is no network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from factory.cli import output
from factory.model import Layout


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--to", "folder", metavar="DIR", required=True, help="The folder to make; it may be there, and empty.")
@click.option("--channel", metavar="CHANNEL", help="The image that CHANNEL points at, instead of the locked one.")
@click.option("--at", "place", metavar="PLACE", help="The artifact there: aws/REGION, qcow2, raw, vmdk.")
@click.option("--bytes", "with_bytes", is_flag=True, help="Take the artifact's bytes along.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def export(
    obj: dict[str, Any], /, name: str, folder: str, channel: str | None, place: str | None, with_bytes: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write all that a deploy job without a network needs of NAME (or NAME/ARCH) to DIR.

    Judges the image as `factory resolve` does, by this checkout's policy, and exits 6 where it is not to be run.
    """
    from factory.release import export as flow
    from factory.release.resolve import Asked
    from factory.trust.statements import time_text

    layout = Layout(obj["folder"].resolve())
    bundle = flow.export(layout, Asked(name, channel=channel, place=place), Path(folder), with_bytes=with_bytes)
    if as_json:
        output.document(
            {
                "bundle": str(bundle.folder),
                "name": bundle.name,
                "arch": bundle.arch,
                "digest": bundle.digest,
                "channel": bundle.channel,
                "location": bundle.place,
                "artifact": bundle.artifact,
                "bytes": bundle.has_bytes,
                "sbom": bundle.sbom,
                "policy": bundle.policy,
                "good_until": time_text(bundle.good_until),
                "files": list(bundle.files),
            }
        )
    else:
        output.data(str(bundle.folder))
    asked = ["factory", "resolve", "--bundle", str(bundle.folder), "--policy", "FILE"]
    asked += ["--channel", channel] if channel else []
    asked += ["--at", place] if place else []
    asked += ["--check-bytes"] if with_bytes else []
    output.say(f"{bundle.name}/{bundle.arch} {bundle.digest[:19]}… exported; good until {time_text(bundle.good_until)}")
    output.say("carry it over, and the policy by a way of its own (FILE; or --policy-digest instead); then:")
    output.say(f"  {shlex.join(asked)}")
