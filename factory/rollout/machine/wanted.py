"""What is to be launched or taken away, and what is kept as it was while a rollout waits."""

from __future__ import annotations

from factory.rollout.machine import seen, traffic
from factory.rollout.model import Action, Facts, Instance, Launch, Plan, Retire, Status


def launches(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """What is to be launched, as far as there is room; the new generation first."""
    stage = plan.stages[status.step]
    room = plan.fleet.max - len(facts.observed.instances)
    actions: list[Action] = []
    there = len(seen.present(plan.generation, facts))
    more = min(stage.count - there, room)
    if more > 0:
        actions.append(Launch(plan.generation, there + more))
        room -= more
    is_missing = seen.needs_baseline(plan, status, stage) and not facts.observed.of(plan.baseline_generation)
    if is_missing and room > 0 and plan.baseline_generation is not None:
        actions.append(Launch(plan.baseline_generation, 1))
    return tuple(actions)


def without_baseline(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """Take a baseline away that is needed no more: its share of the traffic first, itself when its sessions ended."""
    baseline = facts.observed.of(plan.baseline_generation) if plan.baseline_generation else ()
    if not baseline or seen.needs_baseline(plan, status, plan.stages[status.step]):
        return ()
    if facts.observed.weights.get(plan.baseline_generation or 0, 0):
        return (traffic.shift(traffic.of(plan, plan.stages[max(0, status.step - 1)], baseline=False), baseline),)
    is_late = facts.now - status.since > plan.fleet.deadlines.drain.seconds
    return () if any(one.sessions for one in baseline) and not is_late else (Retire(seen.ids(baseline)),)


def kept(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """While it waits: what died is launched anew and gets its share; weights that were lost (a restarted front) are set
    again."""
    weights = traffic.possible(plan, status, facts, traffic.wanted(plan, status))
    shift = traffic.shift(weights, seen.surplus(plan, status, facts))
    is_due = not traffic.is_shifted(facts, weights) or traffic.leaves_idle(facts, shift)
    again = (shift,) if is_due and traffic.may_shift(plan, facts, shift) else ()
    return (*launches(plan, status, facts), *again)


def whole(plan: Plan, status: Status, facts: Facts, leaving: tuple[Instance, ...] = ()) -> tuple[Action, ...]:
    """While old instances are drained and retired: those of the new generation that died are launched anew and get
    their share, and weights that were lost are set again. Nothing is drained but what is `leaving`."""
    weights = traffic.possible(plan, status, facts, traffic.wanted(plan, status))
    shift = traffic.shift(weights, leaving)
    is_due = not traffic.is_shifted(facts, weights) or traffic.leaves_idle(facts, shift)
    can_take = all(seen.healthy(number, facts) for number in weights)
    may = can_take and traffic.may_shift(plan, facts, shift)
    return (*launches(plan, status, facts), *((shift,) if is_due and may else ()))


def restored(plan: Plan, status: Status, facts: Facts) -> tuple[Action, ...]:
    """Before a stage has shifted: the weights of the stage before it, where all were lost (a front that died)."""
    weights = traffic.possible(plan, status, facts, traffic.before(plan, status))
    is_lost = not any(facts.observed.weights.values())
    can_take = weights and all(seen.healthy(number, facts) for number in weights)
    return (traffic.shift(weights),) if is_lost and can_take else ()
