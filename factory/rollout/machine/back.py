"""The way back: whether there is one, and what is to be done on it. Before the point of no return it is a shift of
weights; a rolling rollout that has retired some of the old generation launches those anew."""

from __future__ import annotations

from dataclasses import replace

from factory.rollout.machine import changes, seen, traffic
from factory.rollout.model import Action, Deadline, Decision, Facts, Launch, Plan, Retire, State, Status


def decide(plan: Plan, status: Status, facts: Facts, reason: str) -> Decision:
    """Go back, the weights with the same decision."""
    return aborting(plan, changes.back_for(status, facts.now, reason), facts)


def late(plan: Plan, status: Status, facts: Facts, deadline: Deadline, what: str, because: str = "") -> Decision | None:
    """What a wait that has taken too long comes to; None while it has not. `because`: is put behind the sentence."""
    if facts.now - status.since <= deadline.seconds:
        return None
    why = f"{what} within {deadline.seconds:g} s{because}"
    if deadline.then == "abort" and changes.may_return(plan, status):
        return decide(plan, status, facts, why)
    if deadline.then == "continue":
        return None
    return Decision(changes.paused(status, facts.now, "deadline", why))


def aborting(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Decide whether there is a way back; the weights go back with the same decision."""
    wanted = traffic.old_weights(plan)
    goes = plan.old_generation is not None and not traffic.is_shifted(facts, wanted)
    if goes and (failed := _revoked(plan, status, facts)):
        return failed
    back = changes.enter(status, State.ROLLING_BACK, facts.now)
    if changes.relaunches(plan, status) or traffic.is_shifted(facts, wanted):
        return Decision(back)
    if needed := _lacking(plan, facts):
        return Decision(back) if plan.old_generation is not None else _brought_up(plan, status, facts, needed)
    return Decision(back, (traffic.shift(wanted, seen.leavers(plan, facts)),))


def _revoked(plan: Plan, status: Status, facts: Facts) -> Decision | None:
    """Where traffic would have to go back to an image that must not run; None where it may."""
    if facts.old_revoked is None:
        return None
    if not plan.fleet.allow_revoked_fallback:
        return Decision(changes.failed(status, facts, f"the old image may not run either: {facts.old_revoked}"))
    if not seen.present(plan.old_generation, facts):
        return Decision(changes.failed(status, facts, "nothing of the old generation is left"))
    return None


def _lacking(plan: Plan, facts: Facts) -> int:
    """How many of the old generation there must be, where too few can serve to take all of the traffic: the fleet
    would serve below its minimum, and with less than now. 0: they can."""
    serving = len(seen.may_serve(facts, {number for number, weight in facts.observed.weights.items() if weight}))
    old = seen.present(plan.old_generation, facts)
    needed = min(plan.fleet.min, serving)
    if plan.old_generation is not None and not old:
        needed = max(needed, 1)
    return needed if len(seen.healthy(plan.old_generation, facts)) < needed else 0


def rolling_back(plan: Plan, status: Status, facts: Facts) -> Decision:
    """Until the traffic is back and what is not of the old generation is gone."""
    deadlines, waited_s, limit = plan.fleet.deadlines, facts.now - status.since, _limit_s(plan, status)
    if changes.relaunches(plan, status) and len(seen.healthy(plan.old_generation, facts)) < plan.fleet.size:
        if facts.old_revoked is not None:
            return Decision(changes.failed(status, facts, f"the old image may not be launched: {facts.old_revoked}"))
        why = f"the old image did not come back within {limit:g} s"
        return _overdue(plan, status, facts, why, _exchanged(plan, facts))
    wanted, leaving = traffic.old_weights(plan), seen.leavers(plan, facts)
    if not traffic.is_shifted(facts, wanted):
        if failed := _revoked(plan, status, facts):
            return failed
        if needed := _lacking(plan, facts):
            return _brought_up(plan, status, facts, needed)
        why = f"the traffic did not go back within {limit:g} s"
        return _overdue(plan, status, facts, why, (traffic.shift(wanted, leaving),))
    status = changes.unpaused(status)
    if traffic.leaves_idle(facts, shift := traffic.shift(wanted, leaving)) and waited_s <= limit:
        return Decision(status, (shift,))
    if any(one.sessions for one in leaving) and waited_s <= deadlines.drain.seconds:
        return Decision(status, (traffic.shift(wanted, leaving),))
    if leaving and waited_s <= deadlines.drain.seconds + deadlines.retire.seconds:
        return Decision(status, (shift, Retire(seen.ids(leaving))))  # one that is ill may recover in this moment
    notes = (f"not gone yet: {', '.join(seen.ids(leaving))}; see factory drift",) if leaving else ()
    return Decision(changes.enter(status, State.ROLLED_BACK, facts.now), notes=notes)


def _brought_up(plan: Plan, status: Status, facts: Facts, needed: int) -> Decision:
    """Towards as many of the old generation as are needed: those that are ill may recover, those that are gone are
    launched anew, if there is room and the old image may. Until then the old ones get as much of the traffic as they
    are of those."""
    if plan.old_generation is None:
        return Decision(changes.failed(status, facts, "nothing ran before it; what serves is left as it is"))
    there, can = len(seen.present(plan.old_generation, facts)), len(seen.healthy(plan.old_generation, facts))
    room = plan.fleet.max - len(facts.observed.instances)
    actions: list[Action] = []
    if facts.old_revoked is None and there < needed and room > 0:
        actions.append(Launch(plan.old_generation, min(needed, there + room)))
        status = replace(status, brings_up=True)
    part = traffic.by_count({plan.old_generation: can, plan.generation: needed - can})
    is_more = part.get(plan.old_generation, 0) > facts.observed.weights.get(plan.old_generation, 0) + 1
    if can and is_more and seen.healthy(plan.generation, facts):
        actions.append(traffic.shift(part))
    return _overdue(plan, status, facts, f"fewer than {needed} of the old generation can serve", tuple(actions))


def _limit_s(plan: Plan, status: Status) -> float:
    """How long the traffic may take to be back; longer where instances must come up before."""
    fleet = plan.fleet
    times = fleet.size if changes.relaunches(plan, status) else status.brings_up
    return fleet.deadlines.rollback.seconds + fleet.health.deadline_s * times


def _overdue(plan: Plan, status: Status, facts: Facts, why: str, actions: tuple[Action, ...]) -> Decision:
    """What is done on the way back while there is time; after that it has failed, or is tried for ever (`pause`)."""
    if facts.now - status.since > _limit_s(plan, status):
        if plan.fleet.deadlines.rollback.then == "continue":
            return Decision(changes.failed(status, facts, why))
        status = status if status.paused else changes.paused(status, facts.now, "deadline", why)
    return Decision(status, actions)


def _exchanged(plan: Plan, facts: Facts) -> tuple[Action, ...]:
    """One move towards a whole old generation, some of which was retired: never below min, never above max."""
    assert plan.old_generation is not None
    fleet, total = plan.fleet, len(facts.observed.instances)
    old, new = seen.present(plan.old_generation, facts), seen.present(plan.generation, facts)
    if len(old) < fleet.size and total < fleet.max:
        return (Launch(plan.old_generation, min(fleet.size, len(old) + fleet.max - total)),)
    if len(old) >= fleet.size:
        return ()  # they warm
    if not (seen.is_heard_of(plan.old_generation, facts) and seen.is_heard_of(plan.generation, facts)):
        return ()
    healthy = seen.healthy(plan.old_generation, facts) | seen.healthy(plan.generation, facts)
    ill = [one for one in new if one.id not in healthy]
    spare = ill or (list(new[-1:]) if len(healthy) > fleet.min else [])
    if not spare:
        return ()
    serving = {
        number: len(seen.healthy(number, facts) - {spare[0].id}) for number in (plan.old_generation, plan.generation)
    }
    if spare[0].sessions and any(serving.values()):
        return (traffic.shift(traffic.by_count(serving), (spare[0],)),)
    return (Retire((spare[0].id,)),)
