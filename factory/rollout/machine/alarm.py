"""What takes a rollout back by itself, whatever it waits for: an image that may not run, instances that fall ill."""

from __future__ import annotations

from dataclasses import replace

from factory.rollout.machine import changes, seen
from factory.rollout.model import Facts, Plan, State, Status

MOST_FLAPS = 3
_OF_THIS_STAGE = frozenset({State.SHIFTING, State.ANALYSING, State.BAKING, State.DRAINING, State.RETIRING})
_OF_THE_STAGE_BEFORE = frozenset({State.LAUNCHING, State.WARMING})


def raised(plan: Plan, status: Status, facts: Facts) -> Status:
    """Go back where the target must not run any more, or its instances do not stay healthy under traffic; fail where
    that is so past the point of no return. Keeps in mind since when the old generation is ill."""
    status = replace(status, old_ill_since=_old_ill_since(plan, status, facts))
    if changes.goes_back(status):
        return status
    if facts.target_revoked is not None and changes.may_return(plan, status):
        return changes.back_for(status, facts.now, f"the image may not run: {facts.target_revoked}")
    wanted = _how_many_serve(plan, status)
    if not wanted:
        return status
    healthy = len(seen.healthy(plan.generation, facts))
    if healthy >= wanted:
        return _well(status, facts.now)
    if status.ill_since is None:
        fell = healthy + len(seen.unknown(plan.generation, facts)) < wanted
        status = replace(status, ill_since=facts.now, flaps=status.flaps + fell)
    why, because = f"only {healthy} of {wanted} new instances are healthy", seen.why_ill(plan.generation, facts)
    assert status.ill_since is not None
    if not changes.may_return(plan, status):
        limit_s = plan.fleet.health.deadline_s  # those that died are launched anew, and have to come up
        if status.flaps <= MOST_FLAPS and facts.now - status.ill_since <= limit_s:
            return status
        how = f"for the {status.flaps}th time" if status.flaps > MOST_FLAPS else f"for {limit_s:g} s"
        return changes.failed(status, facts, f"past the point of no return {why} {how}{because}")
    if status.flaps > MOST_FLAPS:
        return changes.back_for(status, facts.now, f"{why}, for the {status.flaps}th time{because}")
    grace_s = plan.fleet.health.grace_s
    if facts.now - status.ill_since > grace_s:
        return changes.back_for(status, facts.now, f"{why} for {grace_s:g} s{because}")
    return status


def _well(status: Status, now: float) -> Status:
    """With enough that are healthy. What is drained and retired is waited for from then on."""
    if status.ill_since is not None and status.state in (State.DRAINING, State.RETIRING):
        status = replace(status, since=now)
    return replace(status, ill_since=None)


def _old_ill_since(plan: Plan, status: Status, facts: Facts) -> float | None:
    """Since when all that there is of the old generation is ill."""
    old = seen.present(plan.old_generation, facts)
    if not old or not all(one.id in facts.ill for one in old):
        return None
    return status.old_ill_since if status.old_ill_since is not None else facts.now


def _how_many_serve(plan: Plan, status: Status) -> int:
    """How many of the new generation are to be healthy: as many as were when traffic was sent to them, and past the
    point of no return the fleet's minimum; 0: none has been sent yet."""
    if status.state in _OF_THIS_STAGE:
        count = plan.stages[status.step].count
        return min(plan.fleet.min, count) if changes.is_past(plan, status) else count
    if status.state in _OF_THE_STAGE_BEFORE and status.step:
        return plan.stages[status.step - 1].count
    return 0
