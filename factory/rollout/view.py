"""How a fleet and its rollout look: gathered from what is remembered and what is seen, shown as JSON or as a tree.

`gather` asks the catalog, and the provider if it can; it changes nothing, so that anybody may look while another
process drives. The rest is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.errors import FactoryError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import health, machine, providers
from factory.rollout.health import Answer
from factory.rollout.model import TERMINAL, FleetSpec, Instance, Observation, Plan, State, Status

MOST_EVENTS = 200


@dataclass(frozen=True)
class Event:
    """A state that a rollout came to, and what was noted with it."""

    at: str
    state: str
    step: int
    paused: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """`unseen`: why the provider could not be asked; `answers`: of a probe of each instance that has an address.
    `driven`: a living process works on the fleet."""

    fleet: FleetSpec
    at: float
    plan: Plan | None
    status: Status | None
    events: tuple[Event, ...]
    observed: Observation
    unseen: str | None
    answers: Mapping[str, Answer]
    driven: bool

    def is_healthy(self, one: Instance) -> bool | None:
        """What is known of an instance's health; None: nothing."""
        if one.healthy is not None or one.id not in self.answers:
            return one.healthy
        return self.answers[one.id].healthy


def gather(layout: Layout, catalog: Catalog, wanted: FleetSpec, at: float) -> Picture:
    """How a fleet looks now."""
    known = rollouts.last(catalog, wanted.name)
    plan = None if known is None else fleets.plan_of(known)
    fleet = wanted if plan is None or known is None or known.ended is not None else plan.fleet
    observed, unseen, answers = Observation(), None, dict[str, Answer]()
    try:
        observed = providers.connect(layout, fleet).observe()
        addresses = {one.id: one.address for one in observed.instances if one.address and one.healthy is None}
        answers = health.probe_all(addresses, fleet.health)
    except FactoryError as error:
        unseen = error.message
    holder = rollouts.holder(catalog, wanted.name)
    return Picture(
        fleet,
        at,
        plan,
        None if known is None else fleets.status_of(known),
        () if known is None else tuple(_events(catalog, known)),
        observed,
        unseen,
        answers,
        holder is not None and fleets.is_alive(holder),
    )


def _events(catalog: Catalog, known: rollouts.Known) -> Iterator[Event]:
    """The states that differ from the one before, and those with notes; the last ones."""
    found: list[Event] = []
    for _, past in rollouts.states(catalog, known.id):
        status = msgspec.json.decode(past.status, type=Status)
        event = Event(past.at, str(status.state), status.step, status.paused, past.notes)
        before = found[-1] if found else None
        same = before is not None and (before.state, before.step, before.paused) == (
            event.state,
            event.step,
            event.paused,
        )
        if not same or event.notes:
            found.append(event)
    yield from found[-MOST_EVENTS:]


def as_json(picture: Picture) -> dict[str, Any]:
    """The document of `rollout status --json`."""
    plan, status = picture.plan, picture.status
    return {
        "fleet": picture.fleet.name,
        "rollout": plan and plan.rollout,
        "state": status and str(status.state),
        "step": status and status.step,
        "steps": plan and len(plan.stages),
        "from": plan and plan.old and plan.old.digest,
        "to": plan and plan.target.digest,
        "weight": 0 if plan is None else picture.observed.weights.get(plan.generation, 0),
        "wanted_weight": _wanted(picture).get(plan.generation, 0) if plan else 0,
        "paused": (status and status.paused) or None,
        "reason": (status and (status.why_paused or status.reason)) or None,
        "waiting": waiting(picture),
        "no_return_at": status and _time(status.no_return_at),
        "driven": picture.driven,
        "unseen": picture.unseen,
        "weights": {str(number): weight for number, weight in sorted(picture.observed.weights.items())},
        "instances": [
            {
                "id": one.id,
                "generation": one.generation,
                "digest": one.digest,
                "state": one.state,
                "healthy": picture.is_healthy(one),
                "address": one.address,
                "sessions": one.sessions,
                "launched_at": _time(one.launched_at),
            }
            for one in sorted(picture.observed.instances, key=lambda one: (one.generation, one.id))
        ],
        "events": [{**vars(event), "notes": list(event.notes)} for event in picture.events],
    }


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _wanted(picture: Picture) -> Mapping[int, int]:
    """The weights that are wanted in this state."""
    plan, status = picture.plan, picture.status
    if plan is None or status is None:
        return {}
    old = {} if plan.old_generation is None else {plan.old_generation: 100}
    if status.state in (State.ABORTING, State.ROLLING_BACK, State.ROLLED_BACK):
        return old
    if status.state == State.SUCCEEDED:
        return {plan.generation: 100}
    if status.state in (State.PLANNED, State.VERIFIED):
        return old
    if status.state in (State.LAUNCHING, State.WARMING):
        return old if status.step == 0 else machine.weights_of(plan, status, status.step - 1)
    return machine.wanted_weights(plan, status)


def waiting(picture: Picture) -> str | None:
    """Why a rollout does not go on just now; None where it does, or has ended."""
    plan, status = picture.plan, picture.status
    if plan is None or status is None or status.state in TERMINAL:
        return None
    if status.paused:
        return f"paused: {status.why_paused}"
    waited = picture.at - status.since
    new = [one for one in picture.observed.of(plan.generation) if one.state != "stopping"]
    healthy = sum(picture.is_healthy(one) is True for one in new)
    stage = plan.stages[status.step]
    deadlines = plan.fleet.deadlines
    if status.state == State.LAUNCHING:
        return f"{len(new)} of {stage.count} launched, {waited:.0f} of {deadlines.launch.seconds:g} s"
    if status.state == State.WARMING:
        return f"{healthy} of {stage.count} healthy, {waited:.0f} of {plan.fleet.health.deadline_s:g} s"
    if status.state == State.ANALYSING and waited < stage.pause_s:
        return f"{waited:.0f} of {stage.pause_s:g} s" + (", then analysis" if stage.analyse else "")
    if status.state == State.ANALYSING and stage.analyse:
        return "analysis"
    if status.state == State.BAKING:
        return f"watched for {waited:.0f} of {plan.fleet.bake_s:g} s"
    if status.state == State.DRAINING:
        sessions = sum(one.sessions or 0 for one in picture.observed.instances if one.generation != plan.generation)
        return f"{sessions} sessions to end, {waited:.0f} of {deadlines.drain.seconds:g} s"
    if status.state == State.RETIRING:
        left = sum(one.generation != plan.generation for one in picture.observed.instances)
        return f"{left} instances to go, {waited:.0f} of {deadlines.retire.seconds:g} s"
    return None


@dataclass(frozen=True)
class Line:
    """A line of the tree. `mood`: good, bad, soft, strong or plain; how it is coloured is for who prints it."""

    text: str
    mood: str = "plain"


def tree(picture: Picture) -> list[Line]:
    """A fleet as a person reads it: its rollout, its generations, their instances, why it waits."""
    plan, status = picture.plan, picture.status
    lines = [Line(f"fleet {picture.fleet.name}  {picture.fleet.image} on {picture.fleet.provider}", "strong")]
    if plan is not None and status is not None:
        lines += list(_rollout(picture, plan, status))
    else:
        lines.append(Line("no rollout yet", "soft"))
    if picture.unseen is not None:
        lines.append(Line(f"its instances cannot be seen: {picture.unseen}", "bad"))
    numbers = sorted({one.generation for one in picture.observed.instances}, reverse=True)
    for place, number in enumerate(numbers):
        lines += list(_generation(picture, number, is_last=place == len(numbers) - 1))
    return lines


def _rollout(picture: Picture, plan: Plan, status: Status) -> Iterator[Line]:
    mood = {State.SUCCEEDED: "good", State.ROLLED_BACK: "bad", State.ROLLBACK_FAILED: "bad"}.get(status.state, "strong")
    step = "" if status.state in TERMINAL else f"  step {status.step + 1} of {len(plan.stages)}"
    was = "nothing" if plan.old is None else f"{plan.old.digest[:19]}…"
    yield Line(f"rollout {plan.rollout}  {status.state}{step}", mood)
    yield Line(f"  {plan.fleet.strategy}: {was} -> {plan.target.digest[:19]}…", "soft")
    if status.reason:
        yield Line(f"  {status.reason}", "bad")
    if (why := waiting(picture)) is not None:
        yield Line(f"  waits: {why}", "bad" if status.paused else "plain")
    if status.state not in TERMINAL and not picture.driven:
        yield Line(f"  nobody drives it: factory rollout apply {picture.fleet.name} goes on with it", "bad")


def _generation(picture: Picture, number: int, *, is_last: bool) -> Iterator[Line]:
    plan = picture.plan
    role = ""
    if plan is not None:
        role = {plan.generation: " (new)", plan.old_generation: " (old)", plan.baseline_generation: " (baseline)"}.get(
            number, ""
        )
        if picture.status is not None and picture.status.state in TERMINAL:
            role = ""
    there = picture.observed.of(number)
    healthy = sum(picture.is_healthy(one) is True for one in there)
    weight, wanted = picture.observed.weights.get(number, 0), _wanted(picture).get(number, 0)
    sent = f"{weight}% of the traffic" + ("" if abs(weight - wanted) <= 1 else f" (wanted: {wanted}%)")
    yield Line(f"{'└─' if is_last else '├─'} generation {number}{role}  {sent}, {healthy} of {len(there)} healthy")
    shown = there if len(there) <= 20 else there[:20]
    for place, one in enumerate(shown):
        ends = place == len(shown) - 1 and len(shown) == len(there)
        yield _instance(picture, one, "   " if is_last else "│  ", "└─" if ends else "├─")
    if len(there) > len(shown):
        yield Line(f"{'   ' if is_last else '│  '}└─ {len(there) - len(shown)} more", "soft")


def _instance(picture: Picture, one: Instance, before: str, branch: str) -> Line:
    is_healthy = picture.is_healthy(one)
    words = {True: "healthy", False: "not healthy", None: ""}[is_healthy]
    answer = picture.answers.get(one.id)
    why = f": {answer.why}" if answer is not None and not answer.healthy and answer.why else ""
    parts = [one.id, f"{one.digest[:19]}…" if one.digest else "of an unknown image", one.state, words + why,
             one.address or "", "" if one.sessions is None else f"{one.sessions} sessions"]  # fmt: skip
    mood = "good" if is_healthy else "bad" if is_healthy is False and one.state == "running" else "soft"
    return Line(f"{before}{branch} " + "  ".join(part for part in parts if part), mood)
