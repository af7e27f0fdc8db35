"""How the traffic is to go, whether it does, and whether it may be sent so just now."""

from __future__ import annotations

from collections.abc import Mapping

from factory.rollout.machine import changes, seen
from factory.rollout.model import Facts, Instance, Plan, Shift, Stage, State, Status


def wanted(plan: Plan, status: Status) -> Mapping[int, int]:
    """The weights of the stage a rollout is in, once it has shifted."""
    if status.state in (State.DRAINING, State.RETIRING, State.BAKING) and not plan.is_rolling:
        return {plan.generation: 100}
    return of(plan, plan.stages[status.step], baseline=not status.no_baseline)


def before(plan: Plan, status: Status) -> Mapping[int, int]:
    """The weights until the stage a rollout is in has shifted."""
    return old_weights(plan) if status.step == 0 else of_stage(plan, status, status.step - 1)


def of_stage(plan: Plan, status: Status, step: int) -> Mapping[int, int]:
    """The weights that a stage ends with."""
    return of(plan, plan.stages[step], baseline=not status.no_baseline)


def of(plan: Plan, stage: Stage, *, baseline: bool) -> Mapping[int, int]:
    """The weights of a stage; `baseline`: with a share for the instance to compare with."""
    if plan.old_generation is None or stage.weight == 100:
        return {plan.generation: 100}
    left = 100 - stage.weight
    weights = {plan.generation: stage.weight}
    if stage.baseline and baseline and plan.baseline_generation is not None:
        share = min(left, max(1, round(stage.weight / stage.count)))  # as much as one of the new instances gets
        weights[plan.baseline_generation] = share
        left -= share
    return {**weights, **({plan.old_generation: left} if left else {})}


def possible(plan: Plan, status: Status, facts: Facts, weights: Mapping[int, int]) -> Mapping[int, int]:
    """Weights as they can be: a provider refuses to send traffic to whom nobody answers for. The share of a baseline
    that is ill goes to the old generation; where that is gone, or all of it ill for a while, its share goes to the new
    one: an ill old generation must not hold up its replacement. Once the old generation is to go and nobody of the new
    one serves, it is the other way about, if the old image may run."""
    since, old, baseline = status.old_ill_since, plan.old_generation, plan.baseline_generation
    if weights.get(baseline or 0) and not seen.healthy(baseline, facts):
        weights = _moved(weights, baseline, old)
    is_ill = since is not None and facts.now - since > plan.fleet.health.grace_s
    is_gone = not seen.present(old, facts)
    if weights.get(old or 0) and (is_ill or is_gone) and seen.healthy(plan.generation, facts):
        weights = _moved(weights, old, plan.generation)
    may_serve = facts.old_revoked is None or plan.fleet.allow_revoked_fallback
    if changes.is_past(plan, status) and may_serve and seen.healthy(old, facts) and _is_down(plan.generation, facts):
        weights = _moved(weights, plan.generation, old)
    return weights


def _is_down(generation: int, facts: Facts) -> bool:
    """Whether nobody of a generation serves."""
    return seen.is_heard_of(generation, facts) and not seen.healthy(generation, facts)


def _moved(weights: Mapping[int, int], source: int | None, target: int | None) -> Mapping[int, int]:
    """With the share of one generation given to another."""
    if source is None or target is None:
        return weights
    kept = {number: weight for number, weight in weights.items() if number != source}
    return {**kept, target: kept.get(target, 0) + weights[source]}


def old_weights(plan: Plan) -> Mapping[int, int]:
    """All to the old generation."""
    return {} if plan.old_generation is None else {plan.old_generation: 100}


def by_count(counts: Mapping[int, int]) -> Mapping[int, int]:
    """Weights in proportion to counts, at least 1 where there is any; together 100."""
    total = sum(counts.values())
    if not total:
        return {}
    weights = {generation: max(100 * count // total, min(count, 1)) for generation, count in counts.items()}
    largest = max(weights, key=lambda generation: counts[generation])
    weights[largest] += 100 - sum(weights.values())
    return weights


def shift(weights: Mapping[int, int], draining: tuple[Instance, ...] = ()) -> Shift:
    """The action that has traffic go so."""
    return Shift(tuple(sorted((number, weight) for number, weight in weights.items() if weight)), seen.ids(draining))


def may_shift(plan: Plan, facts: Facts, shift: Shift) -> bool:
    """Whether as many instances serve afterwards as do now, or as the fleet must have."""
    after = {number for number, _ in shift.weights}
    left = sum(one.generation in after and one.id not in shift.draining for one in seen.serving_ones(facts, after))
    now = len(seen.may_serve(facts, {number for number, weight in facts.observed.weights.items() if weight}))
    return left >= min(plan.fleet.min, now)


def leaves_idle(facts: Facts, shift: Shift) -> bool:
    """Whether somebody who serves and is to take part of the traffic gets none: it came up after the last shift."""
    taking = seen.serving_ones(facts, {number for number, _ in shift.weights})
    return any(one.is_idle and one.id not in shift.draining for one in taking)


def is_served(plan: Plan, status: Status, facts: Facts) -> bool:
    """Whether the traffic goes as the stage wants it, and everybody who is to take part of it gets some."""
    weights = possible(plan, status, facts, wanted(plan, status))
    return is_shifted(facts, weights) and not leaves_idle(facts, shift(weights, seen.surplus(plan, status, facts)))


def is_shifted(facts: Facts, weights: Mapping[int, int]) -> bool:
    """Whether the traffic goes as wanted."""
    return is_sent(facts.observed.weights, weights)


def is_sent(sent: Mapping[int, int], weights: Mapping[int, int]) -> bool:
    """Whether weights are as wanted; a percent more or less is what rounding over instances may make of it."""
    numbers = {number for number, weight in (*sent.items(), *weights.items()) if weight}
    return all(
        abs(sent.get(number, 0) - weights.get(number, 0)) <= 1
        and bool(sent.get(number, 0)) == bool(weights.get(number, 0))
        for number in numbers
    )
