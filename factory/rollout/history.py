"""What a fleet ran, by how its rollouts ended: what is to serve now, and what ran before that. Pure.

What a rollout leaves:

    SUCCEEDED        its target
    ROLLED_BACK      what it came from
    ROLLBACK_FAILED  that of the two which has most of the traffic; where neither has any, of which there are instances;
                     else what it came from

A rollout that came from nothing and did not succeed leaves what the one before it left, unless its target has traffic.
A fleet that was destroyed is to run nothing, until a later rollout leaves something.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from factory.rollout.model import Image, Observation, Plan, State


@dataclass(frozen=True)
class Serving:
    """The generation that a fleet's traffic belongs to, and the image its instances are of."""

    generation: int
    image: Image


@dataclass(frozen=True)
class Ended:
    """A rollout that ended. `destroyed`: the fleet was, or began to be, after it and before the next."""

    plan: Plan
    state: State
    destroyed: bool = False


@dataclass(frozen=True)
class Before:
    """What a fleet ran before. `was_left`: a rollback went away from it, as an operator asked."""

    image: Image
    was_left: bool = False


def settled(past: Iterable[Ended], observed: Observation) -> Serving | None:
    """What is to serve, whether there is an instance of it or not; None: nothing. `past`: the last one first."""
    return _last(takewhile(lambda one: not one.destroyed, past), observed)


def left(ended: Ended, observed: Observation) -> Serving | None:
    """What a rollout left; None: nothing of its own."""
    plan, target = ended.plan, Serving(ended.plan.generation, ended.plan.target)
    if ended.state == State.SUCCEEDED:
        return target
    has_failed = ended.state == State.ROLLBACK_FAILED
    if plan.old is None or plan.old_generation is None:
        return target if has_failed and observed.weights.get(target.generation) else None
    old = Serving(plan.old_generation, plan.old)
    return max((old, target), key=lambda one: _presence(one, observed)) if has_failed else old


def is_torn(ended: Ended, observed: Observation) -> bool:
    """Whether a rollout that could not go back has most of the traffic on what it came from, and not all is as it was:
    instances of its target are still there."""
    now = left(ended, observed)
    is_back = ended.state == State.ROLLBACK_FAILED and now is not None and now.generation != ended.plan.generation
    return is_back and any(one.state != "stopping" for one in observed.of(ended.plan.generation))


def before(past: Sequence[Ended], observed: Observation) -> Before | None:
    """What ran before what serves now: what the rollout that brought that came from; None: nothing else ever did.

    Where nothing is to serve, as after an end of the fleet, it is what ran last; so it is where the last rollout did
    not succeed and nothing is there of what is to serve. `past`: the last one first.
    """
    ran, now = _last(past, observed), settled(past, observed)
    if ran is None:
        return None
    if now is None or (past[0].state != State.SUCCEEDED and not observed.of(now.generation)):
        return Before(ran.image)
    found: Serving | None = ran
    rest = list(past)
    while found is not None:
        while rest and rest[0].plan.generation != found.generation:
            rest.pop(0)
        if not rest:
            return None
        brought = rest.pop(0)
        found = _came_from(brought.plan) or _last(rest, observed)
        if found is not None and found.image.digest != ran.image.digest:
            return Before(found.image, was_left=brought.plan.back)
    return None


def _last(past: Iterable[Ended], observed: Observation) -> Serving | None:
    return next((found for one in past if (found := left(one, observed)) is not None), None)


def _came_from(plan: Plan) -> Serving | None:
    if plan.old is None or plan.old_generation is None:
        return None
    return Serving(plan.old_generation, plan.old)


def _presence(one: Serving, observed: Observation) -> tuple[int, bool]:
    return observed.weights.get(one.generation, 0), bool(observed.of(one.generation))
