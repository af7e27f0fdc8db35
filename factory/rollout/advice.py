"""What to do next about a rollout that failed and could not go back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from factory.rollout import history
from factory.rollout.history import Ended, Serving
from factory.rollout.model import FleetSpec, Observation, State


def after_failure(fleet: FleetSpec, past: Sequence[Ended], observed: Observation) -> str | None:
    """What is to be done next where the last rollout could not go back; None where that is not so, or all is as it was
    before it. `past`: the rollouts that ended, the last one first."""
    if not past or past[0].state != State.ROLLBACK_FAILED or past[0].destroyed:
        return None
    plan, now = past[0].plan, history.settled(past, observed)
    if now is None:
        return f"nothing serves: factory rollout apply {fleet.name} brings up what is trusted now"
    if now.generation != plan.generation:
        return None if _is_whole(fleet, now, observed) else _heal(fleet, now, observed)
    return _replace(fleet, now, past, observed)


def _heal(fleet: FleetSpec, now: Serving, observed: Observation) -> str:
    """Most of the traffic is where it was before, or it is to be again."""
    where = f"generation {now.generation} of {now.image.digest[:19]}…"
    serves = "serves" if observed.weights.get(now.generation) else "is to serve"
    ours = len(observed.of(now.generation))
    budget = max(1, fleet.size - ours, len(observed.instances) - ours)
    return f"{where} {serves}: factory drift {fleet.name} --heal --budget {budget} has it serve alone"


def _replace(fleet: FleetSpec, now: Serving, past: Sequence[Ended], observed: Observation) -> str:
    """What failed serves."""
    name, before = fleet.name, history.before(past, observed)
    serves = f"generation {now.generation}, which failed, serves"
    another = f"factory rollout apply {name} brings another image, once one is trusted"
    if before is None:
        return f"{serves}, and nothing ran before it: {another}; factory fleet destroy {name} --yes ends it"
    to = f" --to {before.image.digest}" if before.was_left else ""
    brings = f"factory rollout rollback {name}{to} brings back" + ("" if to else f" {before.image.digest[:19]}…")
    return f"{serves}: {brings}{' that' if to else ''}; {another}"


def _is_whole(fleet: FleetSpec, now: Serving, observed: Observation) -> bool:
    there = [one for one in observed.instances if one.state != "stopping"]
    sent = {number: weight for number, weight in observed.weights.items() if weight}
    return sent == {now.generation: 100} and len(there) >= fleet.size and len(observed.of(now.generation)) >= len(there)
