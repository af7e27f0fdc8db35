"""`factory revoke`: what must run nowhere."""

from __future__ import annotations

from typing import Any

import click

from factory.cli import output, promotions, times
from factory.model import Layout


@click.command()
@click.argument("target", metavar="DIGEST|NAME[@DIGEST]")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is signed, and shown to whoever is refused.")
@click.option("--at", metavar="TIME", help="From when on, like 2026-12-31 or 2026-12-31T12:00:00Z.  [default: now]")
@click.option("--unknown", is_flag=True, help="Also where nothing here has that digest.")
@promotions.KEY
@promotions.JSON
@click.pass_obj
def revoke(
    obj: dict[str, Any], /, target: str, reason: str, at: str | None, unknown: bool, key: str | None, as_json: bool
) -> None:
    """Withdraw an image (or a base) and all that descends from it: nobody gets it from then on.

    Signed by an approver or root. There is no way back: bake a new image.
    """
    from factory.release import revoke as flow
    from factory.trust.statements import time_text

    layout = Layout(obj["folder"].resolve())
    done = flow.revoke(
        layout, target, reason, promotions.signing(layout, key), at=times.parse(at, "--at"), unknown=unknown
    )
    event = done.event
    if as_json:
        output.document(
            {
                "digest": event.digest,
                "name": event.name,
                "reason": event.reason,
                "at": time_text(event.at),
                "number": event.number,
                "version": done.version,
                "status": "revoked" if done.is_new else "unchanged",
                "descendants": [{"name": name, "digest": digest} for name, digest in done.descendants],
                "channels": [{"channel": channel, "image": image} for channel, image in done.channels],
            }
        )
        return
    word = output.colour("revoked", "red", "bold")
    when = f"from {time_text(event.at)} on: {event.reason}"
    output.say(f"{word} {event.name} {event.digest}" + (f" {when}" if done.is_new else f" already, {when}"))
    for name, digest in done.descendants:
        output.say(f"  and with it {name} {promotions.short(digest)}, which descends from it")
    for channel, image in done.channels:
        output.say(f"  {channel} refuses {image} from then on: promote another")
    output.say(f"{promotions.COMMIT}: who has the old set does not know yet" if done.is_new else "nothing was written")
    output.data(event.digest)
