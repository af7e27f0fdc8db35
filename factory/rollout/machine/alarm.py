"""What takes a rollout back by itself, whatever it waits for: an image that may not run, instances that fall ill."""

from __future__ import annotations

from dataclasses import replace

from factory.rollout.machine import changes, seen
from factory.rollout.model import Facts, Plan, State, Status

MOST_FLAPS = 3
_OF_THIS_STAGE = frozenset({State.SHIFTING, State.ANALYSING, State.BAKING})
_OF_THE_STAGE_BEFORE = frozenset({State.LAUNCHING, State.WARMING})


def raised(plan: Plan, status: Status, facts: Facts) -> Status:
    """Go back where the target may no longer be launched, or its instances do not stay healthy under traffic. Keeps in
    mind since when the old generation is ill."""
    status = replace(status, old_ill_since=_old_ill_since(plan, status, facts))
    if changes.goes_back(status) or not changes.may_return(plan, status):
        return status
    if facts.target_refused is not None:
        return changes.back_for(status, facts.now, f"the image may not run: {facts.target_refused}")
    wanted = _how_many_serve(plan, status)
    if not wanted:
        return status
    healthy = len(seen.healthy(plan.generation, facts))
    if healthy >= wanted:
        return replace(status, ill_since=None)
    if status.ill_since is None:
        fell = healthy + len(seen.unknown(plan.generation, facts)) < wanted
        status = replace(status, ill_since=facts.now, flaps=status.flaps + fell)
    why, because = f"only {healthy} of {wanted} new instances are healthy", seen.why_ill(plan.generation, facts)
    if status.flaps > MOST_FLAPS:
        return changes.back_for(status, facts.now, f"{why}, for the {status.flaps}th time{because}")
    grace_s = plan.fleet.health.grace_s
    assert status.ill_since is not None
    if facts.now - status.ill_since > grace_s:
        return changes.back_for(status, facts.now, f"{why} for {grace_s:g} s{because}")
    return status


def _old_ill_since(plan: Plan, status: Status, facts: Facts) -> float | None:
    """Since when all that there is of the old generation is ill."""
    old = seen.present(plan.old_generation, facts)
    if not old or not all(one.id in facts.ill for one in old):
        return None
    return status.old_ill_since if status.old_ill_since is not None else facts.now


def _how_many_serve(plan: Plan, status: Status) -> int:
    """How many of the new generation were healthy when traffic was sent to them; 0: none has been sent yet."""
    if status.state in _OF_THIS_STAGE:
        return plan.stages[status.step].count
    if status.state in _OF_THE_STAGE_BEFORE and status.step:
        return plan.stages[status.step - 1].count
    return 0
