"""`factory rollout`: replace a fleet, follow along, say what is to happen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, rollout_metrics, tables
from factory.cli.rollout_live import EVENTS, LOOK_S, NOTHING, TREE, Lasting, Live, drawn, undriven
from factory.errors import (
    ConflictError,
    DriftError,
    FactoryError,
    RollbackFailedError,
    RolledBackError,
    UsageError,
    WaitError,
)
from factory.model import Layout

if TYPE_CHECKING:
    from factory.catalog.rollouts import Known
    from factory.digest import Digest
    from factory.rollout.model import Order, Status
    from factory.rollout.picture import Picture
    from factory.rollout.preparing import Prepared

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_NO_WAIT = click.option("--no-wait", is_flag=True, help="Exit 7 at once where another process works on the fleet.")
_EVENTS = click.option("--events", is_flag=True, help="Each event as a line of JSON on standard error, no tree.")


@click.group()
def rollout() -> None:
    """Replace a fleet by new instances of the image that is trusted for it now, and follow along."""


rollout.add_command(rollout_metrics.metrics)


@rollout.command("plan")
@click.argument("fleet")
@_JSON
@click.pass_obj
def plan_command(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """What a rollout would do, step by step, and how many instances there would be. Nothing is launched.

    Exit 2 with every reason where it cannot be, 6 where the image may not run.
    """
    from factory.catalog.database import Catalog
    from factory.rollout import preparing

    layout = Layout(obj["folder"].resolve())
    with Catalog.open(layout.catalog) as catalog:
        prepared = preparing.prepare(layout, catalog, fleet)
    if as_json:
        output.document(_prepared_json(prepared))
    else:
        _tell_prepared(prepared)


def _prepared_json(prepared: Prepared) -> dict[str, Any]:
    made = prepared.plan
    return {
        "fleet": made.fleet.name,
        "strategy": made.fleet.strategy,
        "from": made.old and made.old.digest,
        "to": made.target.digest,
        "name": made.target.name,
        "arch": made.target.arch,
        "generation": made.generation,
        "instances": prepared.old_count,
        "unchanged": prepared.unchanged,
        "steps": [vars(moment) for moment in prepared.moments],
    }


def _tell_prepared(prepared: Prepared) -> None:
    made = prepared.plan
    was = "nothing" if made.old is None else f"{made.old.name}/{made.old.arch} {made.old.digest}"
    if prepared.unchanged:
        output.say(f"{made.fleet.name} runs {made.target.digest} already")
        return
    tables.line(f"fleet {made.fleet.name} ({made.fleet.strategy}, min {made.fleet.min}, max {made.fleet.max})")
    tables.line(f"from  {was}, {prepared.old_count} instances")
    tables.line(f"to    {made.target.name}/{made.target.arch} {made.target.digest}")
    rows = [{"step": number, **vars(moment)} for number, moment in enumerate(prepared.moments, start=1)]
    tables.section("Steps", ("step", "weight", "most", "serving", "what"), rows)
    tables.line("\nmost: instances of all generations at once; serving: at least so many, while all are healthy")


@rollout.command()
@click.argument("fleet")
@_NO_WAIT
@_EVENTS
@_JSON
@click.pass_obj
def apply(obj: dict[str, Any], /, fleet: str, no_wait: bool, events: bool, as_json: bool) -> None:
    """Replace FLEET by what is trusted for it now; a rollout that was begun goes on where it was.

    Exit 8 where it failed and went back, 9 where it could not; 5 where the fleet runs that image already and something
    is amiss (factory drift). Ctrl-C leaves it where it is; the same command goes on. Where another process drives it,
    this one watches, and ends as it ends; a rollout of another image than what is trusted now is told to go back first.
    """
    _drive(Layout(obj["folder"].resolve()), fleet, _Wanted(no_wait=no_wait, events=events, as_json=as_json))


@rollout.command()
@click.argument("fleet")
@click.option("--to", "to", metavar="DIGEST", help="Which of the images that it ran, in place of the one before.")
@_NO_WAIT
@_EVENTS
@_JSON
@click.pass_obj
def rollback(obj: dict[str, Any], /, fleet: str, to: str | None, no_wait: bool, events: bool, as_json: bool) -> None:
    """Bring back the image that FLEET ran before: a rollout of its own, that skips steps. It must still be trusted.

    A rollout that was begun and may still go back is brought back, and that is all. Where another process drives one:
    `factory rollout abort`. After a rollback, --to says what to go back to: without it that would be the image that was
    just left (exit 2).
    """
    wanted = _Wanted(back=True, to=_digest(to, "--to"), no_wait=no_wait, events=events, as_json=as_json)
    _drive(Layout(obj["folder"].resolve()), fleet, wanted)


def _digest(said: str | None, option: str) -> Digest | None:
    from factory.digest import is_digest, parse_digest

    if said is not None and not is_digest(said):
        raise UsageError(f"{said!r} is no digest", where=option, hint="sha256: and 64 hex digits")
    return None if said is None else parse_digest(said)


@dataclass(frozen=True)
class _Wanted:
    """How a rollout is to be driven."""

    back: bool = False
    to: Digest | None = None
    no_wait: bool = False
    events: bool = False
    as_json: bool = False


def _drive(layout: Layout, fleet: str, wanted: _Wanted) -> None:
    """Drive a rollout, or watch whoever does; at the end its picture, and the exit code."""
    from factory.rollout import view
    from factory.rollout.model import State

    live = Live(layout, fleet, EVENTS if wanted.events else NOTHING if wanted.as_json else TREE, drives=True)
    failed: FactoryError | None = None
    status: Status | None = None
    try:
        status = _to_the_end(layout, fleet, live, wanted)
    except (RolledBackError, RollbackFailedError) as error:
        failed = error
    except KeyboardInterrupt:
        live.leave(f"it is left where it is: factory rollout {'rollback' if wanted.back else 'apply'} {fleet} goes on")
        raise
    picture = live.picture()
    if status is None and failed is None:
        failed = _astray(layout, fleet)
    if failed is not None and picture.next_step is not None:
        failed.hint = picture.next_step
    if wanted.as_json:
        output.document(view.as_json(picture))
    elif status is None and failed is None:
        output.say(f"{fleet} runs {_running(picture)} already; nothing was done")
    elif status is not None and status.state == State.ROLLED_BACK:
        output.say(f"{fleet} runs what it ran before: {status.reason}")
    if failed is not None:
        if wanted.as_json:
            output.explain(failed)
            raise click.exceptions.Exit(failed.exit_code)
        raise failed


def _astray(layout: Layout, fleet: str) -> DriftError | None:
    """What is amiss in a fleet whose image is the one that is wanted; None where nothing is."""
    from factory.catalog.database import Catalog
    from factory.rollout import looking

    with Catalog.read(layout.catalog) as catalog:
        found = looking.look(layout, catalog, fleet).drifts
    if not found:
        return None
    count = sum(one.count for one in found)
    return DriftError(
        f"{fleet} runs the image that is wanted already, and is not as it should be: {found[0].why}"
        + (f", and {count - 1} more" if count > 1 else ""),
        where=f"fleet {fleet}",
        hint=f"factory drift {fleet} tells all of it; with --heal it is mended",
    )


def _to_the_end(layout: Layout, fleet: str, live: Live, wanted: _Wanted) -> Status | None:
    """Drive, as soon as nobody else does; how it ended, here or there."""
    from factory.rollout import flow
    from factory.rollout.preparing import Wish

    wish, before = Wish(wanted.back, wanted.to), flow.last_ended(layout, fleet)
    while True:
        try:
            return flow.apply(layout, fleet, live.turn, wish)
        except ConflictError as error:
            if wanted.no_wait:
                raise
            told = flow.supersede(layout, fleet, wish)
            live.note(f"{error.message}: watching" + (f"; {told}" if told else ""))
        live.look()
        if (ended := flow.end_of_other(layout, fleet, before, wish)) is not None:
            return ended


def _running(picture: Picture) -> str:
    return picture.plan.target.digest if picture.plan is not None else "it"


@rollout.command()
@click.argument("fleet")
@_JSON
@click.pass_obj
def status(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """How FLEET looks now: its rollout, generations, instances, weights, and why it waits."""
    picture = Live(Layout(obj["folder"].resolve()), fleet).picture()
    _show(picture, as_json=as_json)


def _show(picture: Picture, *, as_json: bool) -> None:
    from factory.rollout import view
    from factory.rollout.tree import tree

    if as_json:
        output.document(view.as_json(picture))
        return
    for line in tree(picture):
        tables.line(drawn(line, to_answer=True))


@rollout.command()
@click.argument("fleet")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one document each time something changed.")
@click.pass_obj
def watch(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """Follow the rollout of FLEET, whoever drives it, to its end; a rollback too."""
    import json

    from factory.rollout import view
    from factory.rollout.model import TERMINAL

    live = Live(Layout(obj["folder"].resolve()), fleet, NOTHING if as_json else TREE)
    shown: dict[str, Any] = {}
    while True:
        picture = live.picture()
        if as_json:
            document = view.as_json(picture)
            if {**document, "waiting": None} != {**shown, "waiting": None}:  # there the seconds pass
                output.data(json.dumps(document, ensure_ascii=False))
                shown = document
        else:
            live.show(picture)
            live.heed(picture)
        if picture.status is None and not as_json:
            output.say(f"{fleet} never had a rollout")
        if picture.status is None or picture.status.state in TERMINAL:
            return
        time.sleep(LOOK_S)


@rollout.command()
@click.argument("fleet")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), default=3600, show_default=True, metavar="SECONDS"
)
@click.option("--digest", metavar="DIGEST", help="Wait for a rollout of this image, and for it to begin.")
@_JSON
@click.pass_obj
def wait(obj: dict[str, Any], /, fleet: str, timeout_s: float, digest: str | None, as_json: bool) -> None:
    """For CI: exit 0 when the rollout that is under way has succeeded, 8 or 9 when it failed, 10 when it pauses or time
    runs out.

    Where none is under way, it answers at once for the last one, and says which that is. With --digest a rollout of
    another image does not count: it waits until one of that image begins.
    """
    from factory.rollout import fleet as fleets
    from factory.rollout import flow
    from factory.rollout.model import State

    layout = Layout(obj["folder"].resolve())
    live = Live(layout, fleet, NOTHING)
    known = _awaited(layout, fleet, _Awaited(timeout_s, _digest(digest, "--digest")))
    status = fleets.status_of(known)
    output.say(f"{fleet}: {status.state} since {flow.ended_at(layout, known)}: rollout {known.id} of {known.to_digest}")
    if as_json:
        _show(live.picture(), as_json=True)
    if status.state == State.SUCCEEDED:
        return
    kind = RolledBackError if status.state == State.ROLLED_BACK else RollbackFailedError
    if as_json:
        raise click.exceptions.Exit(kind.exit_code)
    hint = live.picture().next_step if status.state == State.ROLLBACK_FAILED else None
    raise kind(f"{status.state}: {status.reason}", where=f"fleet {fleet}", hint=hint)


@dataclass(frozen=True)
class _Awaited:
    """What is waited for, and how long."""

    timeout_s: float
    digest: Digest | None


def _awaited(layout: Layout, fleet: str, wanted: _Awaited) -> Known:
    """The rollout that was waited for, once it has ended. Raises WaitError (10), UsageError."""
    from factory.rollout import fleet as fleets
    from factory.rollout import flow

    ends, rollout, lasting = time.monotonic() + wanted.timeout_s, None, Lasting()
    while True:
        driven = flow.is_driven(layout, fleet)
        known = flow.awaited(layout, fleet, rollout, wanted.digest)
        if known is None and wanted.digest is None:
            raise UsageError(f"{fleet} never had a rollout", hint=f"factory rollout apply {fleet}")
        told = f"no rollout of {wanted.digest} has begun"
        if known is not None:
            if known.ended is not None:
                return known
            status, rollout = fleets.status_of(known), known.id  # another one may begin between two looks
            told = f"it is {status.state}"
            lasting.tell(*undriven(fleet, driven=driven))
            if status.paused:
                raise WaitError(
                    f"it is paused: {status.why_paused}", hint=f"factory rollout resume {fleet}, promote or abort"
                )
        if time.monotonic() > ends:
            raise WaitError(f"{told} after {wanted.timeout_s:g} s", hint=f"factory rollout watch {fleet}")
        time.sleep(LOOK_S)


def _order(obj: dict[str, Any], fleet: str, wanted: Order, *, as_json: bool) -> None:
    from factory.rollout import flow

    layout = Layout(obj["folder"].resolve())
    driven = flow.is_driven(layout, fleet)
    known = flow.order(layout, fleet, wanted)
    if as_json:
        output.document({"fleet": fleet, "rollout": known.id, "order": str(wanted)})
    else:
        output.say(f"{fleet}: {wanted}: told to {known.id}; factory rollout watch {fleet} follows it")
    Lasting().tell(*undriven(fleet, driven=driven))


@rollout.command()
@click.argument("fleet")
@_JSON
@click.pass_obj
def pause(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """Hold the rollout where it is, for as long as it takes. It still goes back by itself where the image fails."""
    from factory.rollout.model import Order

    _order(obj, fleet, Order.PAUSE, as_json=as_json)


@rollout.command()
@click.argument("fleet")
@_JSON
@click.pass_obj
def resume(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """Go on with a rollout that is paused; what it waited for begins anew."""
    from factory.rollout.model import Order

    _order(obj, fleet, Order.RESUME, as_json=as_json)


@rollout.command()
@click.argument("fleet")
@click.option("--full", is_flag=True, help="All waits and analyses to come; health is still asked for.")
@_JSON
@click.pass_obj
def promote(obj: dict[str, Any], /, fleet: str, full: bool, as_json: bool) -> None:
    """End the present wait of the rollout, whatever its analysis says; with --full all of them."""
    from factory.rollout.model import Order

    _order(obj, fleet, Order.PROMOTE_FULL if full else Order.PROMOTE, as_json=as_json)


@rollout.command()
@click.argument("fleet")
@_JSON
@click.pass_obj
def abort(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """Go back: all traffic to the old generation, the new one retired. Not past the point of no return."""
    from factory.rollout.model import Order

    _order(obj, fleet, Order.ABORT, as_json=as_json)
