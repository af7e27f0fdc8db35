"""`factory catalog serve`: the catalog in a browser."""

from __future__ import annotations

from typing import Any

import click

from factory.cli import output
from factory.model import Layout


@click.command("serve")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", metavar="PORT", type=click.IntRange(0, 65535), default=8001, show_default=True,
    help="0: any that is free.",
)  # fmt: skip
@click.option("--open", "opens", is_flag=True, help="Open a browser on it.")
@click.pass_obj
def serve_command(obj: dict[str, Any], /, host: str, port: int, opens: bool) -> None:
    """The catalog in a browser, until Ctrl-C: images, lineage, packages, signatures; what changes shows by itself.

    Serves a copy, and only to read. Nobody is asked who they are: any other HOST than 127.0.0.1 lets whoever reaches
    it read all of the catalog.
    """
    from factory.pages import serving
    from factory.pages.site import is_loopback

    def ready(url: str) -> None:
        output.say(f"serving the catalog on {url} (Ctrl-C ends it)")
        if not is_loopback(host):
            output.say(
                "whoever reaches this address can read all of the catalog: put a proxy that asks who it is before it"
            )
        if opens:
            click.launch(url)

    serving.serve(Layout(obj["folder"].resolve()), serving.Address(host, port), output.say, ready)
