"""`factory fleet`: which fleets run, how many instances each has, and the end of one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables
from factory.cli.rollout_live import SHOWN, drawn, warn_of
from factory.errors import DriftError, FactoryError, ProviderError, TrustError, UsageError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.catalog.database import Catalog
    from factory.rollout.mending import Mended
    from factory.rollout.picture import Picture

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_ENDED = {"destroy": "being destroyed", "destroyed": "destroyed"}
_COLUMNS = ("fleet", "provider", "image", "digest", "size", "instances", "healthy", "traffic", "rollout", "note")

_NOT_SEEN = dict.fromkeys(("instances", "healthy", "traffic"), "?")
"""What a table says of a fleet whose provider did not answer; elsewhere that is null."""


@click.group()
def fleet() -> None:
    """The fleets of fleets.toml, and those that still run though they stand there no more."""


@fleet.command("list")
@tables.forms
@click.pass_obj
def list_command(obj: dict[str, Any], /, as_json: bool, as_csv: bool) -> None:
    """Every fleet: its image, how many instances it is to have and has, where its traffic goes, its last rollout."""
    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    layout = Layout(obj["folder"].resolve())
    with _reading(layout) as catalog:
        rows = list(_rows(layout, catalog))
    if form == tables.TABLE:
        rows = [row if row["instances"] is not None else {**row, **_NOT_SEEN} for row in rows]
    tables.show(form, _COLUMNS, rows, lambda found: {"fleets": found})
    if not rows and form == tables.TABLE:
        output.say("fleets.toml names no fleet, and none runs")


def _reading(layout: Layout) -> Catalog:
    from factory.catalog.database import Catalog

    if not layout.catalog.is_file():
        Catalog.open(layout.catalog).close()
    return Catalog.read(layout.catalog)


def _rows(layout: Layout, catalog: Catalog) -> Iterator[dict[str, Any]]:
    from factory.catalog import fleet_orders, rollouts
    from factory.rollout import fleet as fleets
    from factory.rollout import lookup, view

    written, unused = lookup.written(layout)
    if unused is not None:
        output.warn(tables.cell(f"{unused}; {SHOWN}"))
    for name in sorted({*written, *rollouts.fleet_names(catalog)}):
        if name not in written and rollouts.last(catalog, name) is None:
            continue  # another factory's
        picture = view.gather(layout, catalog, lookup.among(layout, catalog, name).fleet, time.time())
        if name not in written and not picture.observed.instances and picture.unseen is None:
            continue
        is_seen = picture.unseen is None
        serving = fleets.settled(catalog, name, picture.observed)
        ended = fleet_orders.end(catalog, name)
        notes = [
            "" if name in written or unused is not None else "not in fleets.toml",
            _ENDED.get(ended or "", ""),
            "" if is_seen else f"not seen: {picture.unseen}",
        ]
        yield {
            "fleet": name,
            "provider": picture.fleet.provider,
            "image": picture.fleet.image,
            "digest": serving and serving.image.digest,
            "size": picture.fleet.size,
            "instances": len(picture.observed.instances) if is_seen else None,
            "healthy": _healthy(picture) if is_seen else None,
            "traffic": _traffic(picture) if is_seen else None,
            "rollout": picture.status and str(picture.status.state),
            "note": "; ".join(note for note in notes if note) or None,
        }


def _healthy(picture: Picture) -> int:
    return sum(picture.is_healthy(one) is True for one in picture.observed.instances)


def _traffic(picture: Picture) -> str | None:
    sent = sorted(picture.observed.weights.items())
    return ", ".join(f"{weight}% to {number}" for number, weight in sent if weight) or None


@fleet.command()
@click.argument("name", metavar="FLEET")
@_JSON
@click.pass_obj
def show(obj: dict[str, Any], /, name: str, as_json: bool) -> None:
    """FLEET as it runs now: its generations, instances, weights, its last rollout, how many there are to be."""
    from factory.catalog import fleet_orders
    from factory.rollout import lookup, view
    from factory.rollout.tree import Line, tree

    layout = Layout(obj["folder"].resolve())
    with _reading(layout) as catalog:
        found = lookup.among(layout, catalog, name)
        warn_of(found)
        picture = view.gather(layout, catalog, found.fleet, time.time())
        ended = fleet_orders.end(catalog, name)
    wanted = picture.fleet
    if as_json:
        sizes = {"size": wanted.size, "min": wanted.min, "max": wanted.max}
        output.document({**view.as_json(picture), **sizes, "ended": ended})
        return
    lines = tree(picture)
    if not picture.observed.instances and picture.unseen is None:
        is_meant = ended is not None or picture.plan is None
        lines.append(Line("nothing of it runs", "soft" if is_meant else "bad"))
    wants = f"{wanted.size} there are to be, min {wanted.min}, max {wanted.max}"
    lines.append(Line(wants if ended is None else _ENDED[ended], "soft"))
    for line in lines:
        tables.line(drawn(line, to_answer=True))


@fleet.command()
@click.argument("name", metavar="FLEET")
@click.argument("size", metavar="[N]", required=False, type=click.IntRange(min=0))
@_JSON
@click.pass_obj
def scale(obj: dict[str, Any], /, name: str, size: int | None, as_json: bool) -> None:
    """Have N instances of the image that FLEET runs now, from its min to its max; without N, as fleets.toml says.

    It stays so, in rollouts too, until fleets.toml says another size than it does now. Exit 7 while a rollout goes on.
    """
    from factory.rollout import mending

    layout = Layout(obj["folder"].resolve())
    done = mending.scale(layout, name, size, lambda text: output.say(f"{name}: {text}"))
    if as_json:
        output.document(_scaled(name, done))
    if (failure := _unscaled(name, done)) is not None:
        if not as_json:
            raise failure
        output.explain(failure)
        raise click.exceptions.Exit(failure.exit_code)
    if not as_json:
        output.say(f"{name} has {_instances(done.standing.size)}")


def _scaled(name: str, done: Mended) -> dict[str, Any]:
    return {
        "fleet": name,
        "size": done.standing.size,
        "end": str(done.end),
        "launched": list(done.launched),
        "retired": list(done.retired),
        "failed": done.move.progress.failed,
    }


def _unscaled(name: str, done: Mended) -> FactoryError | None:
    """Why a fleet has not the size that was asked for; None where it has."""
    from factory.rollout.heal import End

    if done.end == End.DONE:
        return None
    hint = f"factory drift {name} says what is amiss"
    kind = {End.BREAKER: ProviderError, End.REFUSED: TrustError}.get(done.end, DriftError)
    said = f"{name} has not come to {_instances(done.standing.size)}: {done.move.why}"
    return kind(said, where=f"fleet {name}", hint=hint)


def _instances(count: int) -> str:
    return f"{count} instance{'' if count == 1 else 's'}"


@fleet.command()
@click.argument("name", metavar="FLEET")
@click.option("--yes", is_flag=True, help="It is meant.")
@_JSON
@click.pass_obj
def destroy(obj: dict[str, Any], /, name: str, yes: bool, as_json: bool) -> None:
    """End FLEET: its traffic, its instances, and what its provider made for it. The next rollout begins anew.

    Interrupted, the same command goes on. Exit 7 while a rollout goes on.
    """
    from factory.rollout import destroying, lookup

    layout = Layout(obj["folder"].resolve())
    if not yes:
        with _reading(layout) as catalog:
            wanted = lookup.among(layout, catalog, name).fleet
        raise UsageError(
            f"this ends the fleet {wanted.name} and all of its instances",
            where="--yes",
            hint=f"factory fleet destroy {name} --yes does it; factory fleet show {name} shows what would go",
        )
    gone = destroying.destroy(layout, name, lambda text: output.say(f"{name}: {text}"))
    if as_json:
        output.document({"fleet": name, "retired": list(gone)})
    else:
        output.say(f"{name} is destroyed: {_instances(len(gone))} retired" if gone else f"nothing of {name} runs")
