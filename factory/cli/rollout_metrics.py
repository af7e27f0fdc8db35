"""`factory rollout metrics`: what runs and how rollouts went, for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from factory.cli import output
from factory.cli.rollout_live import warn_of
from factory.errors import UsageError
from factory.model import Layout


@click.command()
@click.argument("fleet", required=False)
@click.option("--all", "is_all", is_flag=True, help="All fleets of fleets.toml.")
@click.option("--to", "path", type=click.Path(path_type=Path, dir_okay=False), help="Replace this file, whole.")
@click.option("--listen", metavar="127.0.0.1:PORT", help="Answer at /metrics of an address of this machine.")
@click.pass_obj
def metrics(obj: dict[str, Any], /, fleet: str | None, is_all: bool, path: Path | None, listen: str | None) -> None:
    """What FLEET runs and how its rollouts went, in the text format of Prometheus; each number with the image's digest.

    --to: for the textfile collector of node_exporter. --listen: gathered anew for each who asks, until Ctrl-C.
    """
    from factory.rollout import lookup, measuring
    from factory.rollout import metrics as written

    if is_all == (fleet is not None):
        raise UsageError("name a fleet, or say --all", where="FLEET")
    if path is not None and listen is not None:
        raise UsageError("--to and --listen exclude each other", where="--listen")
    layout = Layout(obj["folder"].resolve())
    found = lookup.everyone(layout) if fleet is None else [lookup.find(layout, fleet)]
    if found:
        warn_of(found[0])  # it is the same for all
    fleets = [one.fleet for one in found]
    if path is not None:
        written.write(path, measuring.text(layout, fleets))
    elif listen is not None:
        host, port = _address(listen)
        server = written.Server(host, port, lambda: measuring.text(layout, fleets))
        output.say(f"metrics at http://{listen.rpartition(':')[0]}:{server.port}/metrics; Ctrl-C ends it")
        server.run()
    else:
        click.echo(measuring.text(layout, fleets), nl=False)


def _address(text: str) -> tuple[str, int]:
    from ipaddress import ip_address

    host, _, port = text.rpartition(":")
    try:
        ip_address(host.strip("[]"))
        if not 0 <= int(port) < 1 << 16:
            raise ValueError(port)
    except ValueError:
        raise UsageError(f"{text} is no address", where="--listen", hint="127.0.0.1:PORT; port 0: any") from None
    return host.strip("[]"), int(port)
