"""The way forward, a function for each state: what it waits for, and what comes then."""

from __future__ import annotations

from dataclasses import replace

from factory.rollout.machine import back, changes, seen, traffic, wanted
from factory.rollout.model import Deadline, Decision, Facts, Instance, Plan, Retire, State, Status, Verdict

_SLACK_S = 60.0
"""How much longer than its measurements an analysis may take before it counts as inconclusive."""


def planned(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Only an image that may be launched goes on."""
    if facts.target_refused is not None:
        return back.decide(plan, status, facts, f"the image may not run: {facts.target_refused}")
    return Decision(changes.enter(status, State.VERIFIED, facts.now))


def verified(_: Plan, status: Status, facts: Facts) -> Decision:
    """Begin with the first stage."""
    return Decision(changes.enter(status, State.LAUNCHING, facts.now))


def launching(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until there are as many instances as the stage is to have."""
    stage = plan.stages[status.step]
    actions = (*wanted.without_baseline(plan, status, facts), *wanted.launches(plan, status, facts))
    has_baseline = not seen.needs_baseline(plan, status, stage) or seen.present(plan.baseline_generation, facts)
    if len(seen.present(plan.generation, facts)) >= stage.count and has_baseline:
        return Decision(changes.enter(status, State.WARMING, facts.now))
    because = seen.why_ill(plan.generation, facts) or (f" ({facts.target_refused})" if facts.target_refused else "")
    late = back.late(plan, status, facts, plan.fleet.deadlines.launch, "the instances were not launched", because)
    return late or Decision(status, (*actions, *wanted.restored(plan, status, facts)))


def warming(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until they are healthy."""
    stage = plan.stages[status.step]
    is_warm = len(seen.healthy(plan.generation, facts)) >= stage.count
    needs_baseline = seen.needs_baseline(plan, status, stage)
    if is_warm and (not needs_baseline or seen.healthy(plan.baseline_generation, facts)):
        return Decision(changes.enter(status, State.SHIFTING, facts.now))
    deadline = Deadline(plan.fleet.health.deadline_s, "abort")
    if is_warm and facts.now - status.since > deadline.seconds:
        note = "no baseline: the old image's fresh instance did not become healthy"
        return Decision(changes.enter(replace(status, no_baseline=True), State.SHIFTING, facts.now), notes=(note,))
    because = seen.why_ill(plan.generation, facts)
    late = back.late(plan, status, facts, deadline, "the new instances did not become healthy", because)
    return late or Decision(status, (*wanted.launches(plan, status, facts), *wanted.restored(plan, status, facts)))


def shifting(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until the traffic goes as the stage wants it."""
    weights = traffic.possible(plan, status, facts, traffic.wanted(plan, status))
    shift = traffic.shift(weights, seen.surplus(plan, status, facts))
    if traffic.is_shifted(facts, weights):
        done = changes.enter(status, State.ANALYSING, facts.now)
        return Decision(done, (shift,) if shift.draining or traffic.leaves_idle(facts, shift) else ())
    late = back.late(plan, status, facts, plan.fleet.deadlines.shift, "the traffic was not shifted")
    return late or Decision(status, (shift,) if traffic.may_shift(plan, facts, shift) else ())


def analysing(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until the pause is over and the numbers are good; in a rolling rollout then the point of no return."""
    stage = plan.stages[status.step]
    if not (status.skip or status.full):
        if facts.now - status.since < stage.pause_s:
            return Decision(status, wanted.kept(plan, status, facts))
        if stage.analyse and (held := _held_by_analysis(plan, status, facts, stage.pause_s)) is not None:
            return held
    if status.ill_since is not None:
        return Decision(status, wanted.kept(plan, status, facts))
    if seen.surplus(plan, status, facts):
        passed = status.no_return_at if status.no_return_at is not None else facts.now
        return Decision(replace(changes.enter(status, State.DRAINING, facts.now), no_return_at=passed))
    return Decision(changes.next_stage(plan, status, facts))


def baking(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Watch the whole new generation; the point of no return comes after it."""
    bake_s = plan.fleet.bake_s
    if not (status.skip or status.full):
        analysed = plan.fleet.analysis is not None and bake_s > 0
        is_over = facts.finding is not None and facts.finding.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)
        if analysed and is_over:
            return _held_by_analysis(plan, status, facts, bake_s) or Decision(status)
        if facts.now - status.since < bake_s:
            return Decision(status, wanted.kept(plan, status, facts))
        if analysed and (held := _held_by_analysis(plan, status, facts, bake_s)) is not None:
            return held
    if status.ill_since is not None:
        return Decision(status, wanted.kept(plan, status, facts))
    if not traffic.is_served(plan, status, facts):
        deadline = Deadline(bake_s + plan.fleet.deadlines.shift.seconds, "pause")
        late = back.late(plan, status, facts, deadline, "the traffic does not go to all of the new generation")
        return late or Decision(status, wanted.kept(plan, status, facts))
    others = seen.others(plan, facts)
    if not others or plan.is_rolling:  # whose last stage took away all that goes
        return Decision(changes.enter(status, State.SUCCEEDED, facts.now), notes=_not_gone(others))
    passed = status.no_return_at if status.no_return_at is not None else facts.now
    return Decision(replace(changes.enter(status, State.DRAINING, facts.now), no_return_at=passed))


def _held_by_analysis(plan: Plan, status: Status, facts: Facts, waited_s: float) -> Decision | None:
    """What comes of an analysis that is not a success; None where it is one."""
    analysis, finding = plan.fleet.analysis, facts.finding
    if analysis is None or (finding is not None and finding.verdict == Verdict.SUCCESS):
        return None
    if finding is not None and finding.verdict == Verdict.FAILED:
        return back.decide(plan, status, facts, f"analysis failed: {finding.why}")
    if finding is not None and finding.verdict == Verdict.INCONCLUSIVE:
        return Decision(
            changes.paused(status, facts.now, "inconclusive", finding.why or "the analysis is inconclusive")
        )
    began = max(status.since + waited_s, 0.0 if finding is None or finding.since is None else finding.since)
    if facts.now - began > 3 * analysis.count * analysis.interval_s + _SLACK_S:
        return Decision(changes.paused(status, facts.now, "inconclusive", "the analysis did not come to an end"))
    return Decision(status, wanted.kept(plan, status, facts))


def draining(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until what goes has no sessions left. It stays while too few would serve without it."""
    leaving = seen.leaving(plan, status, facts)
    if not seen.may_go(plan, facts, leaving):
        return Decision(status, wanted.whole(plan, status, facts))
    weights = traffic.possible(plan, status, facts, traffic.wanted(plan, status))
    shift, limit_s = traffic.shift(weights, leaving), plan.fleet.deadlines.shift.seconds
    again = Decision(status, (*wanted.launches(plan, status, facts), shift))
    if not traffic.is_shifted(facts, weights):
        late = back.late(plan, status, facts, Deadline(limit_s, "pause"), "the traffic was not shifted")
        return late or again
    if traffic.leaves_idle(facts, shift) and facts.now - status.since <= limit_s:
        return again
    if not any(one.sessions for one in leaving):
        return Decision(changes.enter(status, State.RETIRING, facts.now))
    deadline = plan.fleet.deadlines.drain
    if facts.now - status.since > deadline.seconds and deadline.then == "continue":
        note = f"sessions that did not end within {deadline.seconds:g} s are cut"
        return Decision(changes.enter(status, State.RETIRING, facts.now), notes=(note,))
    return back.late(plan, status, facts, deadline, "sessions did not end") or again


def retiring(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until it is gone, and the new generation serves."""
    leaving, deadline = seen.leaving(plan, status, facts), plan.fleet.deadlines.retire
    if not seen.may_go(plan, facts, leaving):
        is_known = seen.is_heard_of(plan.generation, facts)
        return Decision(changes.enter(status, State.DRAINING, facts.now) if is_known else status)
    is_late = facts.now - status.since > deadline.seconds
    if leaving and not (is_late and deadline.then == "continue"):
        late = back.late(plan, status, facts, deadline, "instances were not retired")
        return late or Decision(status, (*wanted.whole(plan, status, facts, leaving), Retire(seen.ids(leaving))))
    whole = Decision(status, wanted.whole(plan, status, facts))
    is_short = len(seen.healthy(plan.generation, facts)) < plan.stages[status.step].count
    if status.ill_since is not None or (is_short and not is_late):
        return whole
    if not traffic.is_served(plan, status, facts):
        pause, what = replace(deadline, then="pause"), "the traffic does not go to all of the new generation"
        return back.late(plan, status, facts, pause, what) or whole
    if changes.is_stage(plan, status):
        return Decision(changes.next_stage(plan, status, facts), notes=_not_gone(leaving))
    return Decision(changes.enter(status, State.SUCCEEDED, facts.now), notes=_not_gone(leaving))


def _not_gone(leaving: tuple[Instance, ...]) -> tuple[str, ...]:
    return (f"not gone yet: {', '.join(seen.ids(leaving))}; see factory drift",) if leaving else ()
