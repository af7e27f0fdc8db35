"""What a rollout will do, step by step, and the least and the most there is at each. Pure.

`stages` turns the strategy of a fleet into steps that are all alike to the machine; `preview` says what people want to
know before they begin: how many instances there are at most, and how many serve at least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from factory.rollout.model import FleetSpec, Plan, Stage


@dataclass(frozen=True)
class Moment:
    """One step as a person reads it. `most`: instances of all generations together; `serving`: those that take traffic,
    at least, while all of them are healthy."""

    what: str
    weight: int
    most: int
    serving: int


def stages(fleet: FleetSpec, old_count: int) -> tuple[Stage, ...]:
    """The steps of a rollout that replaces `old_count` instances (0: the fleet is new)."""
    if old_count == 0:
        return (Stage(100, fleet.size),)
    if fleet.strategy == "canary":
        return _canary(fleet)
    if fleet.strategy == "rolling":
        return _rolling(fleet, old_count)
    return (Stage(100, fleet.size, analyse=fleet.analysis is not None),)


def _canary(fleet: FleetSpec) -> tuple[Stage, ...]:
    fresh = fleet.analysis is not None and fleet.analysis.baseline == "fresh"
    found = [
        Stage(
            step.weight,
            max(1, math.ceil(fleet.size * step.weight / 100)),
            step.pause_s,
            step.analyse,
            baseline=fresh and step.analyse and step.weight < 100,
        )
        for step in fleet.steps
    ]
    if not found or found[-1].weight < 100:
        found.append(Stage(100, fleet.size))
    return tuple(found)


def _rolling(fleet: FleetSpec, old_count: int) -> tuple[Stage, ...]:
    found, left = [], old_count
    for count in [*range(fleet.surge, fleet.size, fleet.surge), fleet.size]:
        left = min(left, max(0, fleet.size - count))
        weight = round(100 * count / (count + left))
        found.append(Stage(weight, count, analyse=fleet.analysis is not None, old_count=left))
    return tuple(found)


def most_instances(fleet: FleetSpec, old_count: int) -> int:
    """How many instances there are at most, of all generations together."""
    most, left = old_count, old_count
    for stage in stages(fleet, old_count):
        most = max(most, left + stage.count + stage.baseline)
        left = left if stage.old_count is None else stage.old_count
    return most


def preview(plan: Plan, old_count: int, other_count: int = 0) -> list[Moment]:
    """The steps of a plan, for people. `other_count`: instances that are of neither side; they stay to the end."""
    fleet, left = plan.fleet, old_count
    found: list[Moment] = []
    for number, stage in enumerate(plan.stages):
        parts = [f"launch until {stage.count} of generation {plan.generation} are healthy"]
        if stage.baseline:
            parts.append("and one fresh instance of the old image to compare with")
        parts.append(f"send them {stage.weight}% of the traffic")
        if stage.pause_s:
            parts.append(f"wait {stage.pause_s:g} s")
        if stage.analyse:
            parts.append("analyse")
        most = other_count + left + stage.count + stage.baseline
        serving = min(left + _before(plan, number), left + stage.count)
        if stage.old_count is not None and stage.old_count < left:
            parts.append(f"then retire {left - stage.old_count} of generation {plan.old_generation}")
            left = stage.old_count
            serving = min(serving, left + stage.count)
        found.append(Moment(", ".join(parts), stage.weight, most, serving))
    if fleet.bake_s:
        found.append(Moment(f"watch for {fleet.bake_s:g} s", 100, other_count + left + fleet.size, fleet.size))
    leaving = [f"generation {plan.old_generation}"] if left and not plan.is_rolling else []
    leaving += [f"{other_count} of other generations"] if other_count else []
    if leaving:
        what = f"point of no return; drain and retire {' and '.join(leaving)}"
        found.append(Moment(what, 100, other_count + left + fleet.size, fleet.size))
    return found


def _before(plan: Plan, number: int) -> int:
    """How many of the new generation serve when a step begins."""
    return plan.stages[number - 1].count if number else 0
