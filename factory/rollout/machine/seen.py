"""What there is of a fleet, told apart: what belongs to which side of a rollout, what is healthy, what is to go."""

from __future__ import annotations

from factory.rollout.model import Facts, Instance, Plan, Stage, Status


def present(generation: int | None, facts: Facts) -> tuple[Instance, ...]:
    """The instances of a generation that are not on their way out."""
    return tuple(one for one in facts.observed.of(generation) if one.state != "stopping") if generation else ()


def healthy(generation: int | None, facts: Facts) -> frozenset[str]:
    """The ids of those of a generation that serve."""
    return frozenset(one.id for one in present(generation, facts) if one.id in facts.healthy)


def why_ill(generation: int, facts: Facts) -> str:
    """What is said of those of a generation that are not healthy or do not come, to be put behind a sentence; empty:
    nothing is."""
    said = [f"{one.id}: {one.why}" for one in present(generation, facts) if one.why and one.id not in facts.healthy]
    said += [facts.observed.missing[generation]] if generation in facts.observed.missing else []
    more = f", and {len(said) - 1} more" if len(said) > 1 else ""
    return f" ({said[0]}{more})" if said else ""


def unknown(generation: int | None, facts: Facts) -> frozenset[str]:
    """The ids of those of a generation that nobody has heard of yet, as when an engine has just begun to ask."""
    return frozenset(one.id for one in present(generation, facts)) - facts.healthy - facts.ill


def serving_ones(facts: Facts, generations: set[int]) -> list[Instance]:
    """The healthy instances of some generations."""
    there = facts.observed.instances
    return [one for one in there if one.generation in generations and one.id in facts.healthy]


def may_serve(facts: Facts, generations: set[int]) -> list[Instance]:
    """Those of some generations that serve, or did when they were last heard of: nobody has said otherwise."""
    there = facts.observed.instances
    return [
        one
        for one in there
        if one.generation in generations
        and (one.id in facts.healthy or (one.state == "running" and one.id not in facts.ill))
    ]


def others(plan: Plan, facts: Facts) -> tuple[Instance, ...]:
    """Everything that is not of the new generation."""
    return tuple(one for one in facts.observed.instances if one.generation != plan.generation)


def leavers(plan: Plan, facts: Facts) -> tuple[Instance, ...]:
    """Everything that is not of the old generation."""
    return tuple(one for one in facts.observed.instances if one.generation != plan.old_generation)


def surplus(plan: Plan, status: Status, facts: Facts) -> tuple[Instance, ...]:
    """The instances of the old generation that this stage of a rolling rollout lets go: the same ones each time, but
    those that are ill, or on their way out, before others."""
    stage = plan.stages[status.step]
    if not plan.is_rolling or stage.old_count is None:
        return ()
    old = sorted(
        facts.observed.of(plan.old_generation), key=lambda one: (one.state == "stopping", one.id in facts.ill, one.id)
    )
    return tuple(old[stage.old_count :])


def leaving(plan: Plan, status: Status, facts: Facts) -> tuple[Instance, ...]:
    """What goes: everything that is not of the new generation, or, in a stage of a rolling rollout that is not the
    last, a part of the old one."""
    if plan.is_rolling and plan.stages[status.step].old_count:
        return surplus(plan, status, facts)
    return others(plan, facts)


def may_go(plan: Plan, facts: Facts, leavers: tuple[Instance, ...]) -> bool:
    """Whether what stays serves the fleet's minimum, or nothing that serves is lost with what goes."""
    going = set(ids(leavers))
    lost = any(one.id in going and one.id not in facts.ill for one in present(plan.old_generation, facts))
    there = (*present(plan.old_generation, facts), *present(plan.generation, facts))
    return not lost or sum(one.id in facts.healthy and one.id not in going for one in there) >= plan.fleet.min


def is_heard_of(generation: int, facts: Facts) -> bool:
    """Whether all of a generation that run were heard of: an engine that has just begun knows nothing yet."""
    heard = facts.healthy | facts.ill
    return all(one.id in heard for one in present(generation, facts) if one.state == "running")


def ids(instances: tuple[Instance, ...]) -> tuple[str, ...]:
    """Their ids, in order."""
    return tuple(sorted(one.id for one in instances))


def has_baseline(plan: Plan) -> bool:
    """Whether a rollout is to have an instance to compare with."""
    return plan.baseline_generation is not None and any(stage.baseline for stage in plan.stages)


def needs_baseline(plan: Plan, status: Status, stage: Stage) -> bool:
    """Whether a stage is to have one, and it can be had."""
    return stage.baseline and not status.no_baseline and plan.baseline_generation is not None
