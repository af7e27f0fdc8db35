"""How a fleet and its rollout look at one moment: the records, the weights that are wanted, why it waits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory.rollout import machine
from factory.rollout.health import Answer
from factory.rollout.model import TERMINAL, FleetSpec, Instance, Observation, Plan, State, Status


@dataclass(frozen=True)
class Event:
    """A state that a rollout came to, and what was noted with it. `number` rises; `step` is from 1."""

    number: int
    at: str
    state: str
    step: int
    paused: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """`unseen`: why the provider could not be asked; `answers`: what is known of instances' health beside what their
    provider says. `driven`: a living process works on the fleet. `next_step`: what an operator is to do after a rollout
    that could not go back."""

    fleet: FleetSpec
    at: float
    plan: Plan | None
    status: Status | None
    events: tuple[Event, ...]
    observed: Observation
    unseen: str | None
    answers: Mapping[str, Answer]
    driven: bool
    next_step: str | None = None

    def is_healthy(self, one: Instance) -> bool | None:
        """What is known of an instance's health; None: nothing."""
        if one.healthy is not None or one.id not in self.answers:
            return one.healthy
        return self.answers[one.id].healthy


def nobody_drives(fleet: str) -> str:
    """What is to be said of a rollout that has not ended, and on which no living process works."""
    return f"nobody drives it: factory rollout apply {fleet} goes on with it"


def wanted_weights(picture: Picture) -> Mapping[int, int]:
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
    why = _for(picture, plan, status)
    if status.ill_since is not None:
        ill = f"new instances are not healthy, for {max(0.0, picture.at - status.ill_since):.0f} s"
        return f"{ill}; {why}" if why else ill
    return why


def _for(picture: Picture, plan: Plan, status: Status) -> str | None:
    stage, deadlines = plan.stages[status.step], plan.fleet.deadlines
    passed = max(0.0, picture.at - status.since)
    new = [one for one in picture.observed.of(plan.generation) if one.state != "stopping"]
    match status.state:
        case State.LAUNCHING:
            why = picture.observed.missing.get(plan.generation)
            launched = f"{len(new)} of {stage.count} launched, {_of(passed, deadlines.launch.seconds)}"
            return f"{launched}: {why}" if why else launched
        case State.WARMING:
            healthy = sum(picture.is_healthy(one) is True for one in new)
            return f"{healthy} of {stage.count} healthy, {_of(passed, plan.fleet.health.deadline_s)}"
        case State.SHIFTING:
            return f"for the traffic to go as wanted, {_of(passed, deadlines.shift.seconds)}"
        case State.ANALYSING if passed < stage.pause_s:
            then = ", then analysis" if stage.analyse else ""
            return f"the step's pause, {_of(passed, stage.pause_s)}{then}"
        case State.ANALYSING:
            return "for the analysis" if stage.analyse else None
        case State.BAKING:
            return f"watches for {_of(passed, plan.fleet.bake_s)}"
        case State.DRAINING:
            return _sessions(picture, plan.generation, passed, deadlines.drain.seconds)
        case State.RETIRING:
            left = sum(one.generation != plan.generation for one in picture.observed.instances)
            return f"{left} instances to go, {_of(passed, deadlines.retire.seconds)}"
        case State.ROLLING_BACK:
            left = sum(one.generation != plan.old_generation for one in picture.observed.instances)
            return f"{left} instances to go" if left else None
    return None


def _sessions(picture: Picture, stays: int, passed: float, limit: float) -> str:
    sessions = sum(one.sessions or 0 for one in picture.observed.instances if one.generation != stays)
    return f"{sessions} sessions to end, {_of(passed, limit)}"


def _of(passed: float, limit: float) -> str:
    return f"{passed:.0f} of {limit:g} s"
