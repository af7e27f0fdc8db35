"""What happened to a fleet, a line of JSON for each event (metrics.line), in `.factory/fleets/NAME/events.jsonl`.

Whoever drives a rollout, heals, scales or destroys writes; readable by the owner only. A file that has grown too large
is kept as `events.jsonl.1`, in place of the one before. What cannot be written holds nothing up; a rollout tells it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from factory.digest import Digest
from factory.model import Layout
from factory.rollout import metrics
from factory.rollout.engine import Turn
from factory.rollout.metrics import Event
from factory.rollout.model import Action, Finding, Launch, Observation, Plan, Retire, Shift

MOST_BYTES = 8 << 20


def path_of(layout: Layout, fleet: str) -> Path:
    """Where the log of a fleet is."""
    return layout.state / "fleets" / fleet / "events.jsonl"


@dataclass(frozen=True)
class Known:
    """What was told already: whose health, what the analysis had come to, and whether the provider answered."""

    healthy: frozenset[str] = frozenset()
    finding: Finding | None = None
    answers: bool = True

    def after(self, turn: Turn) -> Known:
        """With what a turn told."""
        facts = turn.facts
        return Known(facts.healthy, facts.finding or self.finding, facts.unreachable is None)


def events(turn: Turn, known: Known) -> Iterator[Event]:
    """What is new in a turn, each event with the digest of the image that it is about."""
    plan, status, before = turn.plan, turn.status, turn.before
    told = Event(turn.at, plan.fleet.name, plan.rollout, plan.generation, plan.target.digest, "state")
    unreachable = turn.facts.unreachable
    if known.answers != (unreachable is None):
        yield replace(told, what="reachable" if unreachable is None else "unreachable", told=unreachable or "")
    for one in turn.facts.observed.instances:
        if one.id in known.healthy and one.id in turn.facts.ill:
            why = turn.answers[one.id].why if one.id in turn.answers else "its provider says so"
            yield replace(
                told, what="ill", generation=one.generation, digest=one.digest or Digest(""), told=why,
                more={"instance": one.id},
            )  # fmt: skip
    found, last = turn.facts.finding, known.finding
    if found is not None and (last is None or found.verdict != last.verdict):
        yield replace(told, what="verdict", told=found.why, more={"verdict": str(found.verdict)})
    if (before.state, before.step, before.paused) != (status.state, status.step, status.paused):
        where = {"state": str(status.state), "step": status.step + 1, "steps": len(plan.stages)}
        paused = {"paused": status.paused} if status.paused else {}
        yield replace(told, told=status.why_paused or status.reason, more={**where, **paused})
    for action in turn.made:
        of = action.generation if isinstance(action, Launch) else plan.generation
        yield from of_action(action, turn.facts.observed, replace(told, generation=of, digest=_digest(plan, of)))
    for what, texts in (("note", turn.decision.notes), ("problem", turn.problems)):
        yield from (replace(told, what=what, told=text) for text in texts)


def of_action(action: Action, observed: Observation, told: Event) -> Iterator[Event]:
    """What to write of a call that was made. `told`: what it is about, of a launch the generation and its image."""
    if isinstance(action, Launch):
        yield replace(told, what="launch", more={"count": action.count})
    elif isinstance(action, Shift):
        yield replace(told, what="shift", more={"weights": {str(number): weight for number, weight in action.weights}})
    elif isinstance(action, Retire):
        leaving = set(action.instances)
        there = (one for one in observed.instances if one.id in leaving)
        for (number, image), count in sorted(Counter((one.generation, one.digest) for one in there).items(), key=str):
            yield replace(told, what="retire", generation=number, digest=image or Digest(""), more={"count": count})


def _digest(plan: Plan, generation: int) -> Digest:
    return plan.target.digest if generation == plan.generation or plan.old is None else plan.old.digest


@dataclass
class Log:
    """Writes the events of a fleet to a file, each once."""

    path: Path
    _known: Known = field(default_factory=Known)
    _told_problem: bool = False

    def turn(self, turn: Turn) -> Turn:
        """The turn of a rollout, with a problem more where the file cannot be written (said once)."""
        problem = self.write(events(turn, self._known))
        self._known = self._known.after(turn)
        return turn if problem is None else replace(turn, problems=(*turn.problems, problem))

    def write(self, events: Iterable[Event]) -> str | None:
        """Write events; why they cannot be written, said once."""
        try:
            self._append([metrics.line(event) for event in events])
        except OSError as error:
            if not self._told_problem:
                self._told_problem = True
                return f"{self.path.name} is not written: {error.strerror}"
        return None

    def _append(self, lines: Iterable[str]) -> None:
        data = "".join(lines).encode()
        if not data:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                data = data if file.read(1) == b"\n" else b"\n" + data  # whoever wrote last was killed
            file.write(data)
        if size + len(data) > MOST_BYTES:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
