"""Changes of a rollout's state, and what state it is in allows."""

from __future__ import annotations

from dataclasses import replace

from factory.rollout.model import Facts, Plan, State, Status


def enter(status: Status, state: State, now: float) -> Status:
    """In a state, from now on."""
    return replace(status, state=state, since=now)


def paused(status: Status, now: float, how: str, why: str) -> Status:
    """Held where it is; `how`: as of Status.paused."""
    return replace(status, paused=how, paused_since=now, why_paused=why)


def unpaused(status: Status) -> Status:
    """No longer held."""
    return replace(status, paused="", paused_since=None, why_paused="")


def back_for(status: Status, now: float, reason: str) -> Status:
    """On the way back, and why."""
    return replace(enter(unpaused(status), State.ABORTING, now), reason=reason)


def failed(status: Status, facts: Facts, why: str) -> Status:
    """No way back, and why."""
    reason = f"{status.reason}; {why}" if status.reason else why
    return replace(enter(status, State.ROLLBACK_FAILED, facts.now), reason=reason)


def goes_back(status: Status) -> bool:
    """Whether it is on the way back."""
    return status.state in (State.ABORTING, State.ROLLING_BACK)


def may_return(plan: Plan, status: Status) -> bool:
    """Whether this rollout can still go back by itself."""
    return status.no_return_at is None or plan.is_rolling


def is_past(plan: Plan, status: Status) -> bool:
    """Whether the point of no return is behind it, for good."""
    return not may_return(plan, status) and status.state in (State.DRAINING, State.RETIRING)


def relaunches(plan: Plan, status: Status) -> bool:
    """Whether part of the old generation was retired, so that going back means to launch it anew."""
    return plan.is_rolling and status.no_return_at is not None


def is_stage(plan: Plan, status: Status) -> bool:
    """Whether draining and retiring are part of a stage: in a rolling rollout, always."""
    return plan.is_rolling and plan.stages[status.step].old_count is not None


def next_stage(plan: Plan, status: Status, facts: Facts) -> Status:
    """After a stage: the one after it, or the watch before the end."""
    if status.step + 1 < len(plan.stages):
        return replace(enter(status, State.LAUNCHING, facts.now), step=status.step + 1, skip=False)
    return replace(enter(status, State.BAKING, facts.now), skip=False)
