"""`factory rollout`: replace a fleet, follow along, say what is to happen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables
from factory.errors import ConflictError, RollbackFailedError, RolledBackError, UsageError, WaitError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.rollout.engine import Turn
    from factory.rollout.flow import Prepared
    from factory.rollout.model import Order
    from factory.rollout.view import Picture

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_MOODS = {"good": ("green",), "bad": ("red",), "soft": ("dim",), "strong": ("bold",), "plain": ()}
_LOOK_S = 1.0


@click.group()
def rollout() -> None:
    """Replace a fleet by new instances of the image that is trusted for it now, and follow along."""


@rollout.command("plan")
@click.argument("fleet")
@_JSON
@click.pass_obj
def plan_command(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """What a rollout would do, step by step, and how many instances there would be. Nothing is launched.

    Exit 2 with every reason where it cannot be, 6 where the image may not run.
    """
    from factory.catalog.database import Catalog
    from factory.rollout import flow

    layout = Layout(obj["folder"].resolve())
    with Catalog.open(layout.catalog) as catalog:
        prepared = flow.prepare(layout, catalog, fleet)
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
@click.option("--no-wait", is_flag=True, help="Exit 7 at once where another process works on the fleet.")
@_JSON
@click.pass_obj
def apply(obj: dict[str, Any], /, fleet: str, no_wait: bool, as_json: bool) -> None:
    """Replace FLEET by what is trusted for it now; a rollout that was begun goes on where it was.

    Exit 8 where it failed and went back, 9 where it could not. Ctrl-C leaves it where it is; the same command goes on.
    Where another process drives it, this one watches.
    """
    from factory.rollout import flow

    _drive(Layout(obj["folder"].resolve()), fleet, flow.apply, no_wait=no_wait, as_json=as_json)


@rollout.command()
@click.argument("fleet")
@click.option("--no-wait", is_flag=True, help="Exit 7 at once where another process works on the fleet.")
@_JSON
@click.pass_obj
def rollback(obj: dict[str, Any], /, fleet: str, no_wait: bool, as_json: bool) -> None:
    """Bring back the image that FLEET ran before: a rollout of its own, that skips steps. It must still be trusted.

    Of a rollout that goes on and may still go back: `factory rollout abort` is quicker.
    """
    from functools import partial

    from factory.rollout import flow

    _drive(Layout(obj["folder"].resolve()), fleet, partial(flow.apply, back=True), no_wait=no_wait, as_json=as_json)


def _drive(layout: Layout, fleet: str, drive: Callable[..., Any], *, no_wait: bool, as_json: bool) -> None:
    """Drive a rollout, or watch whoever does; at the end its picture, and the exit code."""
    failed: RolledBackError | RollbackFailedError | None = None
    with _Live(layout, fleet, quiet=as_json) as live:
        while True:
            try:
                status = drive(layout, fleet, live.turn)
                break
            except ConflictError as error:
                if no_wait:
                    raise
                live.note(f"{error.message}: watching")
                time.sleep(_LOOK_S)
                live.look()
            except (RolledBackError, RollbackFailedError) as error:
                status, failed = None, error
                break
    picture = live.picture()
    if as_json:
        from factory.rollout import view

        output.document(view.as_json(picture))
    elif status is None and failed is None:
        output.say(f"{fleet} runs {_running(picture)} already; nothing was done")
    if failed is not None:
        if as_json:
            output.explain(failed)
            raise click.exceptions.Exit(failed.exit_code)
        raise failed


def _running(picture: Picture) -> str:
    return picture.plan.target.digest if picture.plan is not None else "it"


class _Live:
    """The tree of a fleet, drawn anew as it changes on a terminal; elsewhere a line for each event."""

    def __init__(self, layout: Layout, fleet: str, *, quiet: bool = False) -> None:
        from factory.rollout import spec

        self._layout, self._spec = layout, spec.find(layout.root, fleet)
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty() and not quiet
        self._drawn = 0
        self._drawn_at = 0.0
        self._told = 0

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            self._draw(self.picture())

    def turn(self, turn: Turn) -> None:
        """After a turn of the engine of this process."""
        for problem in turn.problems:
            self.note(f"not done, and tried again: {problem}")
        if self._is_terminal:
            if time.monotonic() - self._drawn_at > _LOOK_S / 2 or turn.before.state != turn.status.state:
                self._draw(self.picture())
        else:
            self._tell(turn)

    def look(self) -> None:
        """Follow what another process drives, until it lets go."""
        while True:
            picture = self.picture()
            self.show(picture)
            if not picture.driven:
                return
            time.sleep(_LOOK_S)

    def picture(self) -> Picture:
        from factory.catalog.database import Catalog
        from factory.rollout import view

        with Catalog.read(self._layout.catalog) as catalog:
            return view.gather(self._layout, catalog, self._spec, time.time())

    def show(self, picture: Picture) -> None:
        """Draw it, or tell what is new."""
        if self._is_terminal:
            self._draw(picture)
        else:
            self._tell_events(picture)

    def note(self, text: str) -> None:
        if not self._quiet:
            self._erase()
            output.say(text)

    def _tell(self, turn: Turn) -> None:
        if self._quiet:
            return
        before, after = turn.before, turn.status
        if (before.state, before.step, before.paused) != (after.state, after.step, after.paused):
            why = after.why_paused if after.paused else after.reason
            output.say(
                f"{turn.plan.fleet.name}: {after.state} step {after.step + 1} of {len(turn.plan.stages)}"
                f" {turn.plan.target.digest[:19]}…" + (f" paused ({after.paused})" if after.paused else "")
                + (f": {why}" if why else "")
            )  # fmt: skip
        for note in turn.decision.notes:
            output.say(f"{turn.plan.fleet.name}: {note}")

    def _tell_events(self, picture: Picture) -> None:
        for event in picture.events[self._told :]:
            notes = f": {'; '.join(event.notes)}" if event.notes else ""
            output.say(f"{picture.fleet.name}: {event.state} step {event.step + 1} {event.paused}{notes}".rstrip())
        self._told = len(picture.events)

    def _draw(self, picture: Picture) -> None:
        import shutil

        from factory.rollout import view

        width = shutil.get_terminal_size().columns
        lines = view.tree(picture)
        self._erase()
        for line in lines:
            text = tables.cell(line.text)[: width - 1]
            sys.stderr.write((output.colour(text, *_MOODS[line.mood]) if _MOODS[line.mood] else text) + "\n")
        sys.stderr.flush()
        self._drawn, self._drawn_at = len(lines), time.monotonic()

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


@rollout.command()
@click.argument("fleet")
@_JSON
@click.pass_obj
def status(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """How FLEET looks now: its rollout, generations, instances, weights, and why it waits."""
    picture = _Live(Layout(obj["folder"].resolve()), fleet).picture()
    _show(picture, as_json=as_json)


def _show(picture: Picture, *, as_json: bool) -> None:
    from factory.rollout import view

    if as_json:
        output.document(view.as_json(picture))
        return
    for line in view.tree(picture):
        text = tables.cell(line.text)
        tables.line(output.colour(text, *_MOODS[line.mood], stream=sys.stdout) if _MOODS[line.mood] else text)


@rollout.command()
@click.argument("fleet")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one document each time something changed.")
@click.pass_obj
def watch(obj: dict[str, Any], /, fleet: str, as_json: bool) -> None:
    """Follow the rollout of FLEET, whoever drives it, to its end; a rollback too."""
    import json

    from factory.rollout import view
    from factory.rollout.model import TERMINAL

    live = _Live(Layout(obj["folder"].resolve()), fleet, quiet=as_json)
    shown = ""
    while True:
        picture = live.picture()
        if as_json:
            document = json.dumps(view.as_json(picture), ensure_ascii=False)
            if document != shown:
                output.data(document)
                shown = document
        else:
            live.show(picture)
        if picture.status is None or picture.status.state in TERMINAL:
            return
        time.sleep(_LOOK_S)


@rollout.command()
@click.argument("fleet")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), default=3600, show_default=True, metavar="SECONDS"
)
@_JSON
@click.pass_obj
def wait(obj: dict[str, Any], /, fleet: str, timeout_s: float, as_json: bool) -> None:
    """For CI: exit 0 when the rollout has succeeded, 8 or 9 when it failed, 10 when it pauses or time runs out."""
    from factory.rollout.model import TERMINAL, State

    live = _Live(Layout(obj["folder"].resolve()), fleet, quiet=True)
    ends = time.monotonic() + timeout_s
    while True:
        picture = live.picture()
        status = picture.status
        if status is None:
            raise UsageError(f"{fleet} never had a rollout", hint=f"factory rollout apply {fleet}")
        if status.state in TERMINAL:
            break
        if status.paused:
            raise WaitError(
                f"it is paused: {status.why_paused}", hint=f"factory rollout resume {fleet}, promote or abort"
            )
        if time.monotonic() > ends:
            raise WaitError(f"it is {status.state} after {timeout_s:g} s", hint=f"factory rollout watch {fleet}")
        time.sleep(_LOOK_S)
    if as_json:
        _show(picture, as_json=True)
    if status.state == State.SUCCEEDED:
        return
    kind = RolledBackError if status.state == State.ROLLED_BACK else RollbackFailedError
    if as_json:
        raise click.exceptions.Exit(kind.exit_code)
    raise kind(f"{status.state}: {status.reason}")


def _order(obj: dict[str, Any], fleet: str, wanted: Order, *, as_json: bool) -> None:
    from factory.rollout import flow

    known = flow.order(Layout(obj["folder"].resolve()), fleet, wanted)
    if as_json:
        output.document({"fleet": fleet, "rollout": known.id, "order": str(wanted)})
    else:
        output.say(f"{fleet}: {wanted}: told to {known.id}; factory rollout watch {fleet} follows it")


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
