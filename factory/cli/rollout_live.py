"""How a rollout looks while it goes on: a live tree on a terminal, elsewhere a line for each event.

Whoever drives draws what its engine knows already and asks nobody; whoever follows asks the catalog and the provider
once a second.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from factory.cli import output, tables
from factory.model import Layout

if TYPE_CHECKING:
    from factory.rollout.engine import Turn
    from factory.rollout.lookup import Found
    from factory.rollout.metrics import Event
    from factory.rollout.picture import Picture
    from factory.rollout.tree import Line

LOOK_S = 1.0
"""Between two looks at what another process drives."""

SHOWN = "what was planned is shown"
"""What holds where fleets.toml cannot be used."""

_DRAW_S = 0.5
_MOODS = {"good": ("green",), "bad": ("red",), "soft": ("dim",), "strong": ("bold",), "plain": ()}
TREE, EVENTS, NOTHING = "tree", "events", "nothing"


class Live:
    """A fleet on standard error. `form`: TREE (a line for each event where there is no terminal), EVENTS (each a line
    of JSON), or NOTHING."""

    def __init__(self, layout: Layout, fleet: str, form: str = TREE, *, drives: bool = False) -> None:
        """`drives`: goes on with a rollout that is under way, or begins one, for which fleets.toml must be right.
        Raises as `lookup.among` does."""
        from factory.rollout import lookup
        from factory.rollout.log import Known

        found = lookup.find(layout, fleet, begins=drives)
        warn_of(found, "what was planned goes on" if drives else SHOWN)
        self._layout, self._spec = layout, found.fleet
        self._form = form
        self._is_terminal = form == TREE and sys.stderr.isatty()
        self._drawn = 0
        self._drawn_at = 0.0
        self._known = Known()
        self._told = 0
        self._unseen, self._undriven = Lasting(), Lasting()

    def picture(self) -> Picture:
        """How the fleet looks now. Asks the provider."""
        from factory.catalog.database import Catalog
        from factory.rollout import view

        with Catalog.read(self._layout.catalog) as catalog:
            return view.gather(self._layout, catalog, self._spec, time.time())

    # --- of whoever drives

    def turn(self, turn: Turn) -> None:
        """After a turn of the engine of this process."""
        from factory.rollout import log, metrics, view
        from factory.rollout.model import TERMINAL

        events = list(log.events(turn, self._known))
        self._known = self._known.after(turn)
        if self._form == EVENTS:
            for event in events:
                sys.stderr.write(metrics.line(event))
            sys.stderr.flush()
        elif self._is_terminal:
            for event in events:
                if event.what in ("note", "problem"):
                    self.note(said(event))
            is_new = (turn.before.state, turn.before.step) != (turn.status.state, turn.status.step)
            if is_new or turn.status.state in TERMINAL or time.monotonic() - self._drawn_at > _DRAW_S:
                self._draw(view.of_turn(turn))
        elif self._form == TREE:
            for event in events:
                output.say(said(event))

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._form == TREE:
            self._erase()
            output.say(text)

    def leave(self, text: str) -> None:
        """The last line, below what was drawn."""
        output.say(f"\n{text}" if self._is_terminal else text)

    # --- of whoever follows

    def look(self) -> None:
        """Follow what another process drives, until it lets go."""
        while True:
            picture = self.picture()
            self.show(picture)
            if not picture.driven:
                return
            time.sleep(LOOK_S)

    def show(self, picture: Picture) -> None:
        """Draw it, or tell what is new."""
        if self._is_terminal:
            self._draw(picture)
        elif self._form == TREE and picture.plan is not None:
            name = picture.fleet.name
            unseen = None if picture.unseen is None else f"{name}: its instances cannot be seen: {picture.unseen}"
            self._unseen.tell(unseen, f"{name}: its instances are seen again")
            of = f"of {len(picture.plan.stages)}  {picture.plan.target.digest}"
            for event in picture.events:
                if event.number > self._told:
                    paused = f"  paused ({event.paused})" if event.paused else ""
                    notes = f"  {'; '.join(event.notes)}" if event.notes else ""
                    text = f"{name}: {event.state}, step {event.step} {of}{paused}{notes}"
                    output.say(tables.cell(text))
                    self._told = event.number

    def heed(self, picture: Picture) -> None:
        """Tell that nobody drives what has not ended, where no tree does."""
        from factory.rollout.model import TERMINAL

        if self._form == TREE and not self._is_terminal and picture.status and picture.status.state not in TERMINAL:
            self._undriven.tell(*undriven(picture.fleet.name, driven=picture.driven))

    # --- drawing

    def _draw(self, picture: Picture) -> None:
        import shutil

        from factory.rollout.tree import Room, tree

        size = shutil.get_terminal_size()
        lines = tree(picture, Room(size.columns, max(4, size.lines - 1)))[: max(1, size.lines - 1)]
        self._erase()
        sys.stderr.write("".join(f"{drawn(line, size.columns - 1)}\n" for line in lines))
        sys.stderr.flush()
        self._drawn, self._drawn_at = len(lines), time.monotonic()

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


class Lasting:
    """What may be so for a while: told when it comes to be, and when it is over."""

    def __init__(self) -> None:
        self._is_so = False

    def tell(self, text: str | None, over: str) -> None:
        """`text`: what is so, None: nothing; `over`: what is said of that after it was."""
        if (text is not None) != self._is_so:
            self._is_so = text is not None
            output.say(tables.cell(text or over))


def undriven(fleet: str, *, driven: bool) -> tuple[str | None, str]:
    """For `Lasting`: that nobody drives a rollout which has not ended."""
    from factory.rollout.picture import nobody_drives

    return None if driven else f"{fleet}: {nobody_drives(fleet)}", f"{fleet}: somebody drives it again"


def drawn(line: Line, columns: int | None = None, *, to_answer: bool = False) -> str:
    """A line of a tree in its colour, cut to a width. `to_answer`: it goes to standard output."""
    text = tables.cell(line.text)
    if columns is not None and len(text) > columns:
        text = text[: columns - 1] + "…"
    stream = sys.stdout if to_answer else sys.stderr
    return output.colour(text, *_MOODS[line.mood], stream=stream) if _MOODS[line.mood] else text


def warn_of(found: Found, then: str = SHOWN) -> None:
    """Say why fleets.toml was not used, where it was not, and what holds instead."""
    if found.unused is not None:
        output.warn(tables.cell(f"{found.unused}; {then}"))


def said(event: Event) -> str:
    """An event as one line for people, with the digest of the image that it is about."""
    more = dict(event.more)
    match event.what:
        case "state":
            what = f"{more['state']}, step {more['step']} of {more['steps']}"
            what += f", paused ({more['paused']})" if "paused" in more else ""
        case "launch":
            what = f"launch until there are {more['count']} of generation {event.generation}"
        case "retire":
            what = f"retire {more['count']} of generation {event.generation}"
        case "shift":
            weights = more["weights"]
            assert isinstance(weights, dict)
            sent = ", ".join(f"{one}% to generation {number}" for number, one in weights.items())
            what = f"traffic: {sent or 'to none'}"
        case "ill":
            what = f"{more['instance']} is not healthy any more"
        case "verdict":
            what = f"analysis: {more['verdict']}"
        case "unreachable":
            what = "its provider cannot be asked"
        case "reachable":
            what = "its provider answers again"
        case "problem":
            what = "not done, and tried again"
        case other:
            what = other
    return tables.cell(f"{event.fleet}: {what}  {event.digest}" + (f"  {event.told}" if event.told else ""))
