"""The machine of a rollout: from where it is and what is seen, where it goes and what is to be done. Pure.

    PLANNED -> VERIFIED -> (LAUNCHING -> WARMING -> SHIFTING -> ANALYSING) for each stage -> BAKING
        -> point of no return -> DRAINING -> RETIRING -> SUCCEEDED
    any of those before the point -> ABORTING -> ROLLING_BACK -> ROLLED_BACK | ROLLBACK_FAILED

A rolling rollout drains and retires part of the old generation in each stage, so it passes the point in its first.

Always: the old generation is only observed before the point of no return is recorded, so that going back is a shift of
weights; nothing is launched beyond the fleet's maximum; traffic goes only to a generation whose instances were seen
healthy; an order to abort beats any other; a wait ends by what it waits for or by its deadline, whose outcome is named;
no data is not good news. An action is what is to be, not what is to be done, and is asked for until it is seen to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from factory.rollout.machine import alarm, back, changes, forward, orders, seen, traffic, wanted
from factory.rollout.model import TERMINAL, Decision, Facts, Plan, State, Status, Verdict

wanted_weights, weights_of = traffic.wanted, traffic.of_stage

_HANDLERS: Mapping[State, Callable[[Plan, Status, Facts], Decision]] = {
    State.PLANNED: forward.planned,
    State.VERIFIED: forward.verified,
    State.LAUNCHING: forward.launching,
    State.WARMING: forward.warming,
    State.SHIFTING: forward.shifting,
    State.ANALYSING: forward.analysing,
    State.BAKING: forward.baking,
    State.DRAINING: forward.draining,
    State.RETIRING: forward.retiring,
    State.ABORTING: back.aborting,
    State.ROLLING_BACK: back.rolling_back,
}


def begin(now: float) -> Status:
    """A rollout that was planned."""
    return Status(State.PLANNED, now)


def advance(plan: Plan, status: Status, facts: Facts) -> Decision:
    """One decision: at most one change of state, and what is to be done in the state it comes to."""
    if status.state in TERMINAL:
        return Decision(status)
    ordered, notes = orders.obey(plan, status, facts)
    if facts.unreachable is not None:
        return Decision(ordered, (), notes)
    if facts.old_revoked is not None and seen.has_baseline(plan) and not ordered.no_baseline:
        ordered = replace(ordered, no_baseline=True)
        notes = (*notes, f"no baseline: the old image may not be launched: {facts.old_revoked}")
    alarmed = alarm.raised(plan, ordered, facts)
    if alarmed.state in TERMINAL:
        return Decision(alarmed, (), notes)
    if alarmed.paused and not changes.goes_back(alarmed):
        decision = _wait_paused(plan, alarmed, facts)
    else:
        decision = _HANDLERS[alarmed.state](plan, alarmed, facts)
    return replace(decision, notes=(*notes, *decision.notes))


def _wait_paused(plan: Plan, status: Status, facts: Facts) -> Decision:
    analysis, finding = plan.fleet.analysis, facts.finding
    limit = analysis.pause_deadline_s if analysis is not None else None
    paused_for = facts.now - (status.paused_since if status.paused_since is not None else facts.now)
    if status.paused == "inconclusive" and limit is not None and paused_for > limit:
        return back.decide(plan, status, facts, f"{status.why_paused}, for longer than {limit:g} s")
    if status.paused == "inconclusive" and finding is not None and finding.verdict == Verdict.FAILED:
        return back.decide(plan, status, facts, f"analysis failed: {finding.why}")
    if status.state in (State.DRAINING, State.RETIRING):
        return Decision(status, wanted.whole(plan, status, facts))
    keeps = wanted.kept if status.state in (State.ANALYSING, State.BAKING) else wanted.restored
    return Decision(status, keeps(plan, status, facts))


def wants_analysis(plan: Plan, status: Status, now: float) -> bool:
    """Whether measurements are to be taken now."""
    if plan.fleet.analysis is None or status.skip or status.full or status.paused == "operator":
        return False
    if status.state == State.ANALYSING:
        stage = plan.stages[status.step]
        return stage.analyse and now - status.since >= stage.pause_s
    return status.state == State.BAKING and plan.fleet.bake_s > 0
