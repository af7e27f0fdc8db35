"""What operators say, and what it does to a rollout. An order to abort beats any other of the same moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from factory.rollout.machine import changes
from factory.rollout.model import Facts, Order, Plan, State, Status

_WAITING = frozenset({State.ANALYSING, State.BAKING})
"""The states whose wait is ended by `promote`."""


def obey(plan: Plan, status: Status, facts: Facts) -> tuple[Status, tuple[str, ...]]:
    """The status once operators have been heard, and what they are told."""
    notes: list[str] = []
    orders = [Order.ABORT] if Order.ABORT in facts.orders else facts.orders
    for order in orders:
        if changes.goes_back(status):
            notes.append(f"{order}: it is going back already")
        elif order == Order.PROMOTE and not (status.paused or status.state in _WAITING):
            notes.append("promote: nothing waits that it could end; promote --full ends all waits to come")
        elif order == Order.ABORT and not changes.may_return(plan, status):
            notes.append("abort: past the point of no return; factory rollout rollback brings the previous image back")
        else:
            status = _ORDERS[order](status, facts.now)
    return status, tuple(notes)


def _pause(status: Status, now: float) -> Status:
    return replace(status, paused="operator", paused_since=now, why_paused="an operator paused it")


def _resume(status: Status, now: float) -> Status:
    """Whatever was waited for begins anew, and so does the evidence."""
    return replace(changes.unpaused(status), since=now) if status.paused else status


def _promote(status: Status, now: float) -> Status:
    return replace(_resume(status, now), skip=status.skip or status.state in _WAITING)


def _promote_full(status: Status, now: float) -> Status:
    return replace(_resume(status, now), full=True)


def _abort(status: Status, now: float) -> Status:
    return changes.back_for(status, now, "an operator aborted it")


_ORDERS: Mapping[Order, Callable[[Status, float], Status]] = {
    Order.ABORT: _abort,
    Order.PAUSE: _pause,
    Order.RESUME: _resume,
    Order.PROMOTE: _promote,
    Order.PROMOTE_FULL: _promote_full,
}
