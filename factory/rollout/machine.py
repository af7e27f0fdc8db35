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

from factory.rollout.model import (
    TERMINAL,
    Action,
    Deadline,
    Decision,
    Facts,
    Instance,
    Launch,
    Order,
    Plan,
    Retire,
    Shift,
    Stage,
    State,
    Status,
    Verdict,
)

FORWARD = frozenset(
    {State.PLANNED, State.VERIFIED, State.LAUNCHING, State.WARMING, State.SHIFTING, State.ANALYSING, State.BAKING}
)
_SERVING = frozenset({State.SHIFTING, State.ANALYSING, State.BAKING})
MOST_FLAPS = 3
_SLACK_S = 60.0
"""How much longer than its measurements an analysis may take before it counts as inconclusive."""


def begin(now: float) -> Status:
    """A rollout that was planned."""
    return Status(State.PLANNED, now)


def advance(plan: Plan, status: Status, facts: Facts) -> Decision:
    """One decision: at most one change of state, and what is to be done in the state it comes to."""
    if status.state in TERMINAL:
        return Decision(status)
    ordered, notes = _obey(plan, status, facts)
    if facts.unreachable is not None:
        return Decision(ordered, (), notes)
    if facts.old_refused is not None and _has_baseline(plan) and not ordered.no_baseline:
        ordered = replace(ordered, no_baseline=True)
        notes = (*notes, f"no baseline: the old image may not be launched: {facts.old_refused}")
    alarmed = _alarm(plan, ordered, facts)
    if alarmed.paused and not _goes_back(alarmed):
        decision = _wait_paused(plan, alarmed, facts)
    else:
        decision = _HANDLERS[alarmed.state](plan, alarmed, facts)
    return replace(decision, notes=(*notes, *decision.notes))


def wants_analysis(plan: Plan, status: Status, now: float) -> bool:
    """Whether measurements are to be taken now."""
    if plan.fleet.analysis is None or status.skip or status.full or status.paused == "operator":
        return False
    if status.state == State.ANALYSING:
        stage = plan.stages[status.step]
        return stage.analyse and now - status.since >= stage.pause_s
    return status.state == State.BAKING and plan.fleet.bake_s > 0


def wanted_weights(plan: Plan, status: Status) -> Mapping[int, int]:
    """The weights of the stage a rollout is in, once it has shifted."""
    if status.state in (State.DRAINING, State.RETIRING, State.BAKING) and not plan.is_rolling:
        return {plan.generation: 100}
    return _weights(plan, plan.stages[status.step], baseline=not status.no_baseline)


def weights_of(plan: Plan, status: Status, step: int) -> Mapping[int, int]:
    """The weights that a stage ends with."""
    return _weights(plan, plan.stages[step], baseline=not status.no_baseline)


# --- what operators say


def _obey(plan: Plan, status: Status, facts: Facts) -> tuple[Status, tuple[str, ...]]:
    notes: list[str] = []
    orders = [Order.ABORT] if Order.ABORT in facts.orders else facts.orders
    for order in orders:
        if _goes_back(status):
            notes.append(f"{order}: it is going back already")
        elif order == Order.ABORT and not _may_return(plan, status):
            notes.append("abort: past the point of no return; factory rollout rollback brings the previous image back")
        else:
            status = _ORDERS[order](status, facts.now)
    return status, tuple(notes)


def _pause(status: Status, now: float) -> Status:
    return replace(status, paused="operator", paused_since=now, why_paused="an operator paused it")


def _resume(status: Status, now: float) -> Status:
    """Whatever was waited for begins anew, and so does the evidence."""
    return replace(_unpaused(status), since=now) if status.paused else status


def _promote(status: Status, now: float) -> Status:
    return replace(_resume(status, now), skip=True)


def _promote_full(status: Status, now: float) -> Status:
    return replace(_resume(status, now), full=True)


def _abort(status: Status, now: float) -> Status:
    return _back(status, now, "an operator aborted it")


_ORDERS: Mapping[Order, Callable[[Status, float], Status]] = {
    Order.ABORT: _abort,
    Order.PAUSE: _pause,
    Order.RESUME: _resume,
    Order.PROMOTE: _promote,
    Order.PROMOTE_FULL: _promote_full,
}


def _unpaused(status: Status) -> Status:
    return replace(status, paused="", paused_since=None, why_paused="")


# --- what is seen


def _alarm(plan: Plan, status: Status, facts: Facts) -> Status:
    """Go back where the target may no longer be launched, or its instances do not stay healthy under traffic."""
    if _goes_back(status) or not _may_return(plan, status):
        return status
    if facts.target_refused is not None and (status.no_return_at is None or plan.is_rolling):
        return _back(status, facts.now, f"the image may not run: {facts.target_refused}")
    if status.state not in _SERVING:
        return status
    healthy, wanted = len(_healthy(plan.generation, facts)), plan.stages[status.step].count
    if healthy >= wanted:
        return replace(status, ill_since=None)
    if status.ill_since is None:
        status = replace(status, ill_since=facts.now, flaps=status.flaps + 1)
    why = f"only {healthy} of {wanted} new instances are healthy"
    if status.flaps > MOST_FLAPS:
        return _back(status, facts.now, f"{why}, for the {status.flaps}th time")
    health = plan.fleet.health
    grace_s = health.timeout_s + 2 * health.successes * health.interval_s
    assert status.ill_since is not None
    if facts.now - status.ill_since > grace_s:
        return _back(status, facts.now, f"{why} for {grace_s:g} s")
    return status


def _wait_paused(plan: Plan, status: Status, facts: Facts) -> Decision:
    analysis = plan.fleet.analysis
    limit = analysis.pause_deadline_s if analysis is not None else None
    paused_for = facts.now - (status.paused_since if status.paused_since is not None else facts.now)
    if status.paused == "inconclusive" and limit is not None and paused_for > limit:
        return _decide_back(plan, status, facts, f"{status.why_paused}, for longer than {limit:g} s")
    return Decision(status, _kept(plan, status, facts) if status.state in (State.ANALYSING, State.BAKING) else ())


# --- forward


def _planned(_: Plan, status: Status, facts: Facts) -> Decision:
    return Decision(_enter(status, State.VERIFIED, facts.now))


def _verified(_: Plan, status: Status, facts: Facts) -> Decision:
    return Decision(_enter(status, State.LAUNCHING, facts.now))


def _launching(plan: Plan, status: Status, facts: Facts) -> Decision:
    stage = plan.stages[status.step]
    actions = (*_without_baseline(plan, status, facts), *_launches(plan, status, facts))
    has_baseline = not _needs_baseline(plan, status, stage) or _present(plan.baseline_generation, facts)
    if len(_present(plan.generation, facts)) >= stage.count and has_baseline:
        return Decision(_enter(status, State.WARMING, facts.now))
    late = _late(plan, status, facts, plan.fleet.deadlines.launch, "the instances were not launched")
    return late or Decision(status, actions)


def _warming(plan: Plan, status: Status, facts: Facts) -> Decision:
    stage = plan.stages[status.step]
    is_warm = len(_healthy(plan.generation, facts)) >= stage.count
    needs_baseline = _needs_baseline(plan, status, stage)
    if is_warm and (not needs_baseline or _healthy(plan.baseline_generation, facts)):
        return Decision(_enter(status, State.SHIFTING, facts.now))
    deadline = Deadline(plan.fleet.health.deadline_s, "abort")
    if is_warm and facts.now - status.since > deadline.seconds:
        note = "no baseline: the old image's fresh instance did not become healthy"
        return Decision(_enter(replace(status, no_baseline=True), State.SHIFTING, facts.now), notes=(note,))
    late = _late(plan, status, facts, deadline, "the new instances did not become healthy")
    return late or Decision(status, _launches(plan, status, facts))


def _shifting(plan: Plan, status: Status, facts: Facts) -> Decision:
    weights = wanted_weights(plan, status)
    shift = _shift(weights, _surplus(plan, status, facts))
    if _is_shifted(facts, weights):
        done = _enter(status, State.ANALYSING, facts.now)
        return Decision(done, (shift,) if shift.draining else ())
    late = _late(plan, status, facts, plan.fleet.deadlines.shift, "the traffic was not shifted")
    return late or Decision(status, (shift,) if _may_shift(plan, facts, shift) else ())


def _analysing(plan: Plan, status: Status, facts: Facts) -> Decision:
    stage = plan.stages[status.step]
    if not (status.skip or status.full):
        if facts.now - status.since < stage.pause_s:
            return Decision(status, _kept(plan, status, facts))
        if stage.analyse and (held := _held_by_analysis(plan, status, facts, stage.pause_s)) is not None:
            return held
    if status.ill_since is not None:
        return Decision(status, _kept(plan, status, facts))
    if _surplus(plan, status, facts):
        passed = status.no_return_at if status.no_return_at is not None else facts.now
        return Decision(replace(_enter(status, State.DRAINING, facts.now), no_return_at=passed))
    return Decision(_next_stage(plan, status, facts))


def _baking(plan: Plan, status: Status, facts: Facts) -> Decision:
    bake_s = plan.fleet.bake_s
    if not (status.skip or status.full):
        analysed = plan.fleet.analysis is not None and bake_s > 0
        if analysed and facts.finding is not None and facts.finding.verdict == Verdict.FAILED:
            return _decide_back(plan, status, facts, f"analysis failed: {facts.finding.why}")
        if facts.now - status.since < bake_s:
            return Decision(status, _kept(plan, status, facts))
        if analysed and (held := _held_by_analysis(plan, status, facts, bake_s)) is not None:
            return held
    if status.ill_since is not None:
        return Decision(status, _kept(plan, status, facts))
    if not _others(plan, facts):
        return Decision(_enter(status, State.SUCCEEDED, facts.now))
    passed = status.no_return_at if status.no_return_at is not None else facts.now
    return Decision(replace(_enter(status, State.DRAINING, facts.now), no_return_at=passed))


def _held_by_analysis(plan: Plan, status: Status, facts: Facts, waited_s: float) -> Decision | None:
    """What comes of an analysis that is not a success; None where it is one."""
    analysis, finding = plan.fleet.analysis, facts.finding
    if analysis is None or (finding is not None and finding.verdict == Verdict.SUCCESS):
        return None
    if finding is not None and finding.verdict == Verdict.FAILED:
        return _decide_back(plan, status, facts, f"analysis failed: {finding.why}")
    if finding is not None and finding.verdict == Verdict.INCONCLUSIVE:
        return Decision(_paused(status, facts.now, "inconclusive", finding.why or "the analysis is inconclusive"))
    longest = waited_s + 3 * analysis.count * analysis.interval_s + _SLACK_S
    if facts.now - status.since > longest:
        return Decision(_paused(status, facts.now, "inconclusive", "the analysis did not come to an end"))
    return Decision(status, _kept(plan, status, facts))


def _next_stage(plan: Plan, status: Status, facts: Facts) -> Status:
    if status.step + 1 < len(plan.stages):
        return replace(_enter(status, State.LAUNCHING, facts.now), step=status.step + 1, skip=False)
    return replace(_enter(status, State.BAKING, facts.now), skip=False)


# --- past the point of no return


def _draining(plan: Plan, status: Status, facts: Facts) -> Decision:
    leaving = _surplus(plan, status, facts) if _is_stage(plan, status) else _others(plan, facts)
    weights = wanted_weights(plan, status)
    if not _is_shifted(facts, weights):
        deadline = Deadline(plan.fleet.deadlines.shift.seconds, "pause")
        late = _late(plan, status, facts, deadline, "the traffic was not shifted")
        return late or Decision(status, (_shift(weights, leaving),))
    if not any(one.sessions for one in leaving):
        return Decision(_enter(status, State.RETIRING, facts.now))
    deadline = plan.fleet.deadlines.drain
    if facts.now - status.since > deadline.seconds and deadline.then == "continue":
        note = f"sessions that did not end within {deadline.seconds:g} s are cut"
        return Decision(_enter(status, State.RETIRING, facts.now), notes=(note,))
    late = _late(plan, status, facts, deadline, "sessions did not end")
    return late or Decision(status, (_shift(weights, leaving),))


def _retiring(plan: Plan, status: Status, facts: Facts) -> Decision:
    leaving = _surplus(plan, status, facts) if _is_stage(plan, status) else _others(plan, facts)
    is_late = facts.now - status.since > plan.fleet.deadlines.retire.seconds
    if leaving and not (is_late and plan.fleet.deadlines.retire.then == "continue"):
        late = _late(plan, status, facts, plan.fleet.deadlines.retire, "instances were not retired")
        return late or Decision(status, (Retire(_ids(leaving)),))
    notes = (f"not gone yet: {', '.join(_ids(leaving))}; see factory drift",) if leaving else ()
    if _is_stage(plan, status):
        return Decision(_next_stage(plan, status, facts), notes=notes)
    return Decision(_enter(status, State.SUCCEEDED, facts.now), notes=notes)


# --- back


def _aborting(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Decide whether there is a way back; the weights go back with the same decision."""
    old = _present(plan.old_generation, facts)
    wanted = _old_weights(plan)
    if plan.old_generation is not None and not _is_shifted(facts, wanted):
        if not old and not _relaunches(plan, status):
            return Decision(_failed(status, facts, "nothing of the old generation is left"))
        if facts.old_refused is not None and not plan.fleet.allow_revoked_fallback:
            return Decision(_failed(status, facts, f"the old image may not run either: {facts.old_refused}"))
        if not _relaunches(plan, status) and (worse := _would_serve_less(plan, facts)) is not None:
            return Decision(_failed(status, facts, worse))
    back = _enter(status, State.ROLLING_BACK, facts.now)
    if _relaunches(plan, status) or _is_shifted(facts, wanted):
        return Decision(back)
    return Decision(back, (_shift(wanted, _leavers(plan, facts)),))


def _would_serve_less(plan: Plan, facts: Facts) -> str | None:
    """Why going back would take a fleet that serves below its minimum; None where it would not."""
    serving = len(_serving_ones(facts, {number for number, weight in facts.observed.weights.items() if weight}))
    left = sum(one.id not in facts.ill for one in _present(plan.old_generation, facts))
    if left >= min(plan.fleet.min, serving):
        return None
    return f"only {left} of the old generation can serve, and {serving} serve now"


def _rolling_back(plan: Plan, status: Status, facts: Facts) -> Decision:
    deadlines, waited_s = plan.fleet.deadlines, facts.now - status.since
    if _relaunches(plan, status) and len(_healthy(plan.old_generation, facts)) < plan.fleet.size:
        limit = deadlines.rollback.seconds + plan.fleet.health.deadline_s * plan.fleet.size
        if facts.old_refused is not None:
            return Decision(_failed(status, facts, f"the old image may not be launched: {facts.old_refused}"))
        if waited_s > limit:
            return Decision(_failed(status, facts, f"the old image did not come back within {limit:g} s"))
        return Decision(status, _exchanged(plan, facts))
    wanted, leaving = _old_weights(plan), _leavers(plan, facts)
    if not _is_shifted(facts, wanted):
        if waited_s > deadlines.rollback.seconds and not _relaunches(plan, status):
            return Decision(_failed(status, facts, "the traffic did not go back"))
        return Decision(status, (_shift(wanted, leaving),))
    if any(one.sessions for one in leaving) and waited_s <= deadlines.drain.seconds:
        return Decision(status, (_shift(wanted, leaving),))
    if leaving and waited_s <= deadlines.drain.seconds + deadlines.retire.seconds:
        return Decision(status, (Retire(_ids(leaving)),))
    notes = (f"not gone yet: {', '.join(_ids(leaving))}; see factory drift",) if leaving else ()
    return Decision(_enter(status, State.ROLLED_BACK, facts.now), notes=notes)


def _exchanged(plan: Plan, facts: Facts) -> tuple[Action, ...]:
    """One move towards a whole old generation, some of which was retired: never below min, never above max."""
    assert plan.old_generation is not None
    fleet, total = plan.fleet, len(facts.observed.instances)
    old, new = _present(plan.old_generation, facts), _present(plan.generation, facts)
    if len(old) < fleet.size and total < fleet.max:
        return (Launch(plan.old_generation, min(fleet.size, len(old) + fleet.max - total)),)
    if len(old) >= fleet.size:
        return ()  # they warm
    healthy = _healthy(plan.old_generation, facts) | _healthy(plan.generation, facts)
    ill = [one for one in new if one.id not in healthy]
    spare = ill or (list(new[-1:]) if len(healthy) > fleet.min else [])
    if not spare:
        return ()
    if spare[0].sessions:
        counts = {plan.old_generation: len(_healthy(plan.old_generation, facts)), plan.generation: len(new) - 1}
        return (_shift(_by_count(counts), (spare[0],)),)
    return (Retire((spare[0].id,)),)


def _by_count(counts: Mapping[int, int]) -> Mapping[int, int]:
    """Weights in proportion to counts; together 100."""
    total = sum(counts.values())
    if not total:
        return {}
    weights = {generation: 100 * count // total for generation, count in counts.items()}
    largest = max(weights, key=lambda generation: counts[generation])
    weights[largest] += 100 - sum(weights.values())
    return weights


_HANDLERS: Mapping[State, Callable[[Plan, Status, Facts], Decision]] = {
    State.PLANNED: _planned,
    State.VERIFIED: _verified,
    State.LAUNCHING: _launching,
    State.WARMING: _warming,
    State.SHIFTING: _shifting,
    State.ANALYSING: _analysing,
    State.BAKING: _baking,
    State.DRAINING: _draining,
    State.RETIRING: _retiring,
    State.ABORTING: _aborting,
    State.ROLLING_BACK: _rolling_back,
}


# --- changes of state


def _enter(status: Status, state: State, now: float) -> Status:
    return replace(status, state=state, since=now)


def _paused(status: Status, now: float, how: str, why: str) -> Status:
    return replace(status, paused=how, paused_since=now, why_paused=why)


def _back(status: Status, now: float, reason: str) -> Status:
    return replace(_enter(_unpaused(status), State.ABORTING, now), reason=reason)


def _decide_back(plan: Plan, status: Status, facts: Facts, reason: str) -> Decision:
    """Go back, the weights with the same decision."""
    return _aborting(plan, _back(status, facts.now, reason), facts)


def _failed(status: Status, facts: Facts, why: str) -> Status:
    return replace(_enter(status, State.ROLLBACK_FAILED, facts.now), reason=f"{status.reason}; {why}")


def _late(plan: Plan, status: Status, facts: Facts, deadline: Deadline, what: str) -> Decision | None:
    """What a wait that has taken too long comes to; None while it has not."""
    if facts.now - status.since <= deadline.seconds:
        return None
    why = f"{what} within {deadline.seconds:g} s"
    if deadline.then == "abort" and _may_return(plan, status):
        return _decide_back(plan, status, facts, why)
    if deadline.then == "continue":
        return None
    return Decision(_paused(status, facts.now, "deadline", why))


def _goes_back(status: Status) -> bool:
    return status.state in (State.ABORTING, State.ROLLING_BACK)


def _may_return(plan: Plan, status: Status) -> bool:
    """Whether this rollout can still go back by itself."""
    return status.no_return_at is None or (plan.is_rolling and status.state in FORWARD)


def _relaunches(plan: Plan, status: Status) -> bool:
    """Whether part of the old generation was retired, so that going back means to launch it anew."""
    return plan.is_rolling and status.no_return_at is not None


def _is_stage(plan: Plan, status: Status) -> bool:
    """Whether draining and retiring are part of a stage: in a rolling rollout, always."""
    return plan.is_rolling and plan.stages[status.step].old_count is not None


# --- what there is


def _present(generation: int | None, facts: Facts) -> tuple[Instance, ...]:
    return tuple(one for one in facts.observed.of(generation) if one.state != "stopping") if generation else ()


def _healthy(generation: int | None, facts: Facts) -> frozenset[str]:
    return frozenset(one.id for one in _present(generation, facts) if one.id in facts.healthy)


def _others(plan: Plan, facts: Facts) -> tuple[Instance, ...]:
    """Everything that is not of the new generation."""
    return tuple(one for one in facts.observed.instances if one.generation != plan.generation)


def _leavers(plan: Plan, facts: Facts) -> tuple[Instance, ...]:
    """Everything that is not of the old generation."""
    return tuple(one for one in facts.observed.instances if one.generation != plan.old_generation)


def _surplus(plan: Plan, status: Status, facts: Facts) -> tuple[Instance, ...]:
    """The instances of the old generation that this stage of a rolling rollout lets go: the same ones each time."""
    stage = plan.stages[status.step]
    if not plan.is_rolling or stage.old_count is None:
        return ()
    old = sorted(facts.observed.of(plan.old_generation), key=lambda one: one.id)
    return tuple(old[stage.old_count :])


def _ids(instances: tuple[Instance, ...]) -> tuple[str, ...]:
    return tuple(sorted(one.id for one in instances))


def _has_baseline(plan: Plan) -> bool:
    return plan.baseline_generation is not None and any(stage.baseline for stage in plan.stages)


def _needs_baseline(plan: Plan, status: Status, stage: Stage) -> bool:
    return stage.baseline and not status.no_baseline and plan.baseline_generation is not None


def _launches(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """What is to be launched, as far as there is room; the new generation first."""
    stage = plan.stages[status.step]
    room = plan.fleet.max - len(facts.observed.instances)
    actions: list[Action] = []
    there = len(_present(plan.generation, facts))
    more = min(stage.count - there, room)
    if more > 0:
        actions.append(Launch(plan.generation, there + more))
        room -= more
    is_missing = _needs_baseline(plan, status, stage) and not facts.observed.of(plan.baseline_generation)
    if is_missing and room > 0 and plan.baseline_generation is not None:
        actions.append(Launch(plan.baseline_generation, 1))
    return tuple(actions)


def _without_baseline(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """Take a baseline away that is needed no more: its share of the traffic first, itself when its sessions ended."""
    baseline = facts.observed.of(plan.baseline_generation) if plan.baseline_generation else ()
    if not baseline or _needs_baseline(plan, status, plan.stages[status.step]):
        return ()
    if facts.observed.weights.get(plan.baseline_generation or 0, 0):
        return (_shift(_weights(plan, plan.stages[max(0, status.step - 1)], baseline=False), baseline),)
    is_late = facts.now - status.since > plan.fleet.deadlines.drain.seconds
    return () if any(one.sessions for one in baseline) and not is_late else (Retire(_ids(baseline)),)


def _kept(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """While it waits: what died is launched anew, and weights that were lost (a restarted front) are set again."""
    weights = wanted_weights(plan, status)
    shift = _shift(weights, _surplus(plan, status, facts))
    is_lost = not _is_shifted(facts, weights) and _may_shift(plan, facts, shift)
    return (*_launches(plan, status, facts), *((shift,) if is_lost else ()))


def _weights(plan: Plan, stage: Stage, *, baseline: bool) -> Mapping[int, int]:
    if plan.old_generation is None or stage.weight == 100:
        return {plan.generation: 100}
    left = 100 - stage.weight
    weights = {plan.generation: stage.weight}
    if stage.baseline and baseline and plan.baseline_generation is not None:
        share = min(left, max(1, round(stage.weight / stage.count)))  # as much as one of the new instances gets
        weights[plan.baseline_generation] = share
        left -= share
    return {**weights, **({plan.old_generation: left} if left else {})}


def _old_weights(plan: Plan) -> Mapping[int, int]:
    return {} if plan.old_generation is None else {plan.old_generation: 100}


def _shift(weights: Mapping[int, int], draining: tuple[Instance, ...] = ()) -> Shift:
    return Shift(tuple(sorted((number, weight) for number, weight in weights.items() if weight)), _ids(draining))


def _may_shift(plan: Plan, facts: Facts, shift: Shift) -> bool:
    """Whether as many instances serve afterwards as do now, or as the fleet must have."""
    after = {number for number, _ in shift.weights}
    left = sum(one.generation in after and one.id not in shift.draining for one in _serving_ones(facts, after))
    now = len(_serving_ones(facts, {number for number, weight in facts.observed.weights.items() if weight}))
    return left >= min(plan.fleet.min, now)


def _serving_ones(facts: Facts, generations: set[int]) -> list[Instance]:
    """The healthy instances of some generations."""
    there = facts.observed.instances
    return [one for one in there if one.generation in generations and one.id in facts.healthy]


def _is_shifted(facts: Facts, weights: Mapping[int, int]) -> bool:
    """Whether the traffic goes as wanted; a percent more or less is what rounding over instances may make of it."""
    seen = facts.observed.weights
    numbers = {number for number, weight in (*seen.items(), *weights.items()) if weight}
    return all(
        abs(seen.get(number, 0) - weights.get(number, 0)) <= 1
        and bool(seen.get(number, 0)) == bool(weights.get(number, 0))
        for number in numbers
    )
