"""From how a fleet stands to what it should be: the next moves. Pure. Nothing is changed, only replaced.

What is missing or wrong is launched anew of the image that serves, and once that serves, what was wrong is drained and
retired. Where there is no room for that, one goes first. Always: what serves is not taken below the fleet's minimum (or
what serves now, if that is less), there are never more than its maximum, at most `budget` are replaced, at most
`breaker` replacements may fail, and whatever is waited for has an end. An action is what is to be, not what is to be
done; it is asked for until it is accepted and seen. What is remembered (`Progress`) is of one run: after a death the
next one sees what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from factory.rollout import drift
from factory.rollout.drift import Kind, Standing
from factory.rollout.machine import traffic
from factory.rollout.model import Action, Instance, Launch, Retire, Shift

ALL = frozenset(Kind)
SCALES = frozenset({Kind.MISSING, Kind.EXTRA})


@dataclass(frozen=True)
class Limits:
    """How far a run may go. `budget`: so many may be launched (those that failed not counted), and so many retired
    (those that failed not counted); None: no bound. `mends`: what is to be done something about."""

    budget: int | None = None
    breaker: int = 3
    mends: frozenset[Kind] = ALL


class End(StrEnum):
    """How a run ended."""

    DONE = "done"
    BUDGET = "budget"
    BREAKER = "breaker"
    REFUSED = "refused"
    STUCK = "stuck"


@dataclass(frozen=True)
class Progress:
    """What a run remembers, all times in seconds since 1970. `known`: ids at its beginning. `launched`: id -> first
    seen, of those that came since. `up`: those of them that came to serve. `failed`: replacements that did not.
    `broken`: those of them that are still to go. `awaited`: launches that were accepted and are not seen yet, since
    `asked_at`. `leaving`: id -> since when. `spent`: ids that count as retired. `shifted`: the last shift that was
    accepted, and `joined`, who served by it. `retiring`: id -> when that was accepted. `given_up`: those that do not
    go. `moved_at`: when
    something last came, went or was asked to; where the traffic goes does not count."""

    began: float
    known: frozenset[str] = frozenset()
    launched: Mapping[str, float] = field(default_factory=dict)
    up: frozenset[str] = frozenset()
    failed: int = 0
    broken: frozenset[str] = frozenset()
    awaited: int = 0
    asked_at: float = 0.0
    leaving: Mapping[str, float] = field(default_factory=dict)
    spent: frozenset[str] = frozenset()
    shifted: Shift | None = None
    joined: frozenset[str] = frozenset()
    retiring: Mapping[str, float] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    moved_at: float = 0.0

    @property
    def warming(self) -> list[str]:
        """Replacements of which it is not known yet what becomes of them."""
        return [name for name in self.launched if name not in self.up and name not in self.leaving]


@dataclass(frozen=True)
class Move:
    """What is to be done now. `end`: nothing any more, and how it ended; `why`: the sentence for it."""

    progress: Progress
    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()
    end: End | None = None
    why: str = ""


def begin(standing: Standing, now: float) -> Progress:
    """The beginning of a run."""
    return Progress(now, frozenset(one.id for one in standing.observed.instances), moved_at=now)


def accepted(progress: Progress, standing: Standing, action: Action, now: float) -> Progress:
    """After a call that returned."""
    if isinstance(action, Launch):
        there = sum(one.generation == action.generation for one in standing.present)
        return replace(progress, awaited=max(0, action.count - there), asked_at=now, moved_at=now)
    if isinstance(action, Shift):
        generations = {generation for generation, _ in action.weights}
        joined = (one.id for one in standing.present if one.generation in generations and one.id in standing.healthy)
        return replace(progress, shifted=action, joined=frozenset(joined) - {*action.draining})
    first = {name: now for name in action.instances if name not in progress.retiring}
    moved = now if first else progress.moved_at
    return replace(progress, retiring={**progress.retiring, **first}, moved_at=moved)


def advance(standing: Standing, limits: Limits, progress: Progress, refused: str | None, now: float) -> Move:
    """The next move. `refused`: why the image that serves may not be launched."""
    progress, notes = _seen(standing, progress, now)
    if standing.serving is not None:
        refused = refused or standing.revoked.get(standing.serving.image.digest)
    turn = _Turn(standing, limits, progress, refused, now)
    launch, progress = turn.launch(), turn.leaving()
    turn = replace(turn, progress=progress)
    actions = tuple(action for action in (launch, turn.shift(), turn.retire()) if action is not None)
    if actions or turn.waits():
        if now - progress.moved_at <= turn.patience_s:
            return Move(progress, actions, notes)
        return Move(progress, (), notes, End.STUCK, f"nothing has come of it for {turn.patience_s:g} s")
    return replace(turn.ended(), notes=notes)


def _seen(standing: Standing, progress: Progress, now: float) -> tuple[Progress, tuple[str, ...]]:
    """What became of the replacements, and of those that were to go."""
    fleet, before = standing.fleet, progress
    there = {one.id: one for one in standing.present}
    serving = None if standing.serving is None else standing.serving.generation
    fresh = {
        name: now
        for name, one in there.items()
        if one.generation == serving and name not in progress.known and name not in progress.launched
    }
    progress = replace(progress, launched={**progress.launched, **fresh}, awaited=max(0, progress.awaited - len(fresh)))
    up = progress.up | {name for name in progress.launched if name in standing.healthy}
    progress = replace(progress, up=up)
    notes = [f"launched {name}" for name in fresh]
    dead = {name for name in progress.warming if name not in there and name not in progress.broken}
    slow = {
        name
        for name in progress.warming
        if name in there
        and name not in progress.broken
        and (name in standing.ill or now - progress.launched[name] > fleet.health.deadline_s)
    }
    unseen = progress.awaited if progress.awaited and now - progress.asked_at > fleet.deadlines.launch.seconds else 0
    notes += [f"{name} failed: it is gone" for name in sorted(dead)]
    notes += [f"{name} failed: not healthy within {fleet.health.deadline_s:g} s" for name in sorted(slow)]
    notes += [f"{unseen} that were launched never came"] if unseen else []
    gone = {name for name in progress.leaving if name not in {one.id for one in standing.observed.instances}}
    notes += [f"{name} is retired" for name in sorted(gone)]
    late = {
        name
        for name, at in progress.retiring.items()
        if name in progress.leaving and name not in gone and now - at > fleet.deadlines.retire.seconds
    }
    notes += [f"{name} does not go" for name in sorted(late - progress.given_up)]
    progress = replace(
        progress,
        launched={name: at for name, at in progress.launched.items() if name not in dead | gone},
        broken=(progress.broken | slow) & there.keys(),
        failed=progress.failed + len(dead) + len(slow) + unseen,
        awaited=progress.awaited - unseen,
        leaving={name: at for name, at in progress.leaving.items() if name not in gone},
        given_up=progress.given_up | late,
    )
    return progress if progress == before else replace(progress, moved_at=now), tuple(notes)


@dataclass(frozen=True)
class _Turn:
    """One decision."""

    standing: Standing
    limits: Limits
    progress: Progress
    refused: str | None
    now: float

    # --- what there is

    @cached_property
    def good(self) -> list[Instance]:
        """Those that are to stay."""
        return [one for one in self._right if one.id not in self._surplus]

    @cached_property
    def _right(self) -> list[Instance]:
        """Of the generation that serves, with nothing wrong by themselves."""
        return [
            one
            for one in self.standing.present
            if self._is_ours(one) and self._fault(one) is None and one.id not in self.progress.broken
            and one.id not in self.progress.leaving
        ]  # fmt: skip

    @cached_property
    def _surplus(self) -> frozenset[str]:
        if Kind.EXTRA not in self.limits.mends:
            return frozenset()
        return frozenset(one.id for one in drift.surplus(self._right, self.standing.size, self.standing.healthy))

    def _is_ours(self, one: Instance) -> bool:
        serving = self.standing.serving
        return serving is not None and (one.generation, one.digest) == (serving.generation, serving.image.digest)

    def _fault(self, one: Instance) -> Kind | None:
        found = drift.of_instance(self.standing, one)
        return found.kind if found is not None and found.kind in self.limits.mends else None

    @cached_property
    def serving(self) -> set[str]:
        """The ids of those that take traffic and will."""
        return {
            one.id
            for one in self.standing.present
            if one.id in self.standing.healthy and one.id not in self.progress.leaving
            and one.id not in self.progress.broken and self._takes_traffic(one)
        }  # fmt: skip

    def _takes_traffic(self, one: Instance) -> bool:
        if self.progress.shifted is None:
            return self.standing.has_traffic(one)
        return one.id in self.progress.joined

    @cached_property
    def missing(self) -> int:
        return max(0, self.standing.size - len(self.good))

    @cached_property
    def may_launch(self) -> int:
        """How many more may be launched, but for the room."""
        if self.refused is not None or self.standing.serving is None or self.progress.failed >= self.limits.breaker:
            return 0
        if self.limits.budget is None:
            return self.missing
        under_way = len(self.progress.up) + len(set(self.progress.warming) - self.progress.broken)
        return max(0, self.limits.budget - under_way - self.progress.awaited)

    @cached_property
    def may_retire(self) -> int:
        """How many more may be retired."""
        return (
            len(self.standing.present) if self.limits.budget is None else self.limits.budget - len(self.progress.spent)
        )

    @property
    def patience_s(self) -> float:
        """After so long without any change, nothing will come any more."""
        fleet, deadlines = self.standing.fleet, self.standing.fleet.deadlines
        waits = (fleet.health.deadline_s, deadlines.launch.seconds, deadlines.shift.seconds, deadlines.drain.seconds,
                 deadlines.retire.seconds)  # fmt: skip
        return max(waits) + drift.grace_s(fleet.health)

    # --- what is to be done

    def launch(self) -> Launch | None:
        """What is missing, as far as there is room and budget."""
        serving, awaited = self.standing.serving, self.progress.awaited
        room = self.standing.fleet.max - len(self.standing.observed.instances) - awaited
        count = min(self.missing - awaited, self.may_launch, room)
        if serving is None or count <= 0:
            return None
        there = sum(one.generation == serving.generation for one in self.standing.present)
        return Launch(serving.generation, there + awaited + count)

    def leaving(self) -> Progress:
        """With those that can go now."""
        leaving, spent, serving = dict(self.progress.leaving), set(self.progress.spent), set(self.serving)
        leaving |= {name: self.now for name in self.progress.broken if name not in leaving}
        least = min(self.standing.fleet.min, len(serving))
        if self.progress.shifted is not None or not self._weights(leaving):
            bad = sorted(self._bad(), key=lambda one: (one.id in serving, one.id))
            others = sum(one.id not in serving and one.id not in leaving and self._is_stand_in(one) for one in bad)
            for one in bad:
                if len(spent) >= len(self.progress.spent) + self.may_retire or one.id in leaving:
                    continue
                left = len(serving) - (one.id in serving)
                rest = others - (one.id not in serving and self._is_stand_in(one))
                if left >= least and self._may_go(one, left, rest, no_room=self._has_no_room(leaving)):
                    leaving[one.id] = self.now
                    spent.add(one.id)
                    serving.discard(one.id)
                    others = rest
        if leaving == self.progress.leaving:
            return self.progress
        return replace(self.progress, leaving=leaving, spent=frozenset(spent), moved_at=self.now)

    def _bad(self) -> Iterator[Instance]:
        """What is to go, sooner or later."""
        for one in self.standing.present:
            if one.id in self._surplus or self._fault(one) is not None:
                yield one

    def _may_go(self, one: Instance, left: int, others: int, *, no_room: bool) -> bool:
        """Whether one may go now; `left` serve then, and there are `others` in the place of one that
        should."""
        if one.id in self.serving:
            return self.standing.serving is not None and (left >= self.standing.size or no_room)
        if not self._is_stand_in(one):
            return True
        return left + others >= self.standing.size or no_room

    def _is_stand_in(self, one: Instance) -> bool:
        """Whether one that does not serve stands where another should: the others are just too many."""
        return one.id not in self._surplus and (self._is_ours(one) or self.standing.has_traffic(one))

    def _has_no_room(self, leaving: Mapping[str, float]) -> bool:
        """Whether something must go before what is missing can be launched; one at a time."""
        total = len(self.standing.observed.instances)
        is_waiting = bool(leaving) or total > len(self.standing.present) or self.progress.awaited > 0
        return total >= self.standing.fleet.max and self.missing > 0 and self.may_launch > 0 and not is_waiting

    def _weights(self, leaving: Mapping[str, float]) -> Mapping[int, int]:
        """Weights by how many of each generation can serve; the ones that leave left out."""
        counts: dict[int, int] = {}
        good = {one.id for one in self.good}
        for one in self.standing.present:
            stays = one.id in self.standing.healthy and one.id not in leaving and one.id not in self.progress.broken
            if stays and (one.id in good or self._takes_traffic(one)):
                counts[one.generation] = counts.get(one.generation, 0) + 1
        return traffic.by_count(counts)

    def shift(self) -> Shift | None:
        """All traffic to those that can serve and stay, where it does not go so yet."""
        leaving = self.progress.leaving
        weights = self._weights(leaving)
        if not weights:
            return None
        there = {one.id for one in self.standing.observed.instances}
        wanted = Shift(
            tuple(sorted((number, weight) for number, weight in weights.items() if weight)),
            tuple(sorted(leaving.keys() & there)),
        )
        good = {one.id for one in self.good if one.id in self.standing.healthy}
        done = self.progress.shifted
        is_same = done is not None and done.weights == wanted.weights and {*wanted.draining} <= {*done.draining}
        if is_same and good <= self.progress.joined and traffic.is_sent(self.standing.observed.weights, weights):
            return None
        return wanted

    def retire(self) -> Retire | None:
        """Those that leave and have no sessions left."""
        limit = self.standing.fleet.deadlines.drain
        ready = []
        for one in self.standing.present:
            since = self.progress.leaving.get(one.id)
            if since is None or one.id in self.progress.given_up:
                continue
            never_served = one.id in self.progress.launched and one.id not in self.progress.up
            is_drained = never_served or (self._is_draining(one) and not one.sessions)
            if is_drained or (self.now - since > limit.seconds and limit.then == "continue"):
                ready.append(one.id)
        return Retire(tuple(sorted(ready))) if ready else None

    def _is_draining(self, one: Instance) -> bool:
        if self.progress.shifted is None or one.id in self.progress.shifted.draining:
            return True
        return not self._weights(self.progress.leaving)

    # --- how it ends

    def waits(self) -> bool:
        """Whether something is on its way."""
        progress = self.progress
        on_the_way = set(progress.leaving) - progress.given_up
        unwell = [one for one in self.good if one.id not in self.standing.healthy]
        return bool(
            progress.awaited or progress.warming or on_the_way or (unwell and Kind.UNHEALTHY in self.limits.mends)
        )

    def ended(self) -> Move:
        """How a run ends in which nothing is to be done any more."""
        left = [*self._bad(), *self.progress.broken]
        progress, fleet = self.progress, self.standing.fleet
        if progress.failed >= self.limits.breaker:
            why = f"{progress.failed} replacements failed; no more are launched"
            return Move(progress, end=End.BREAKER, why=why)
        if not left and not self.missing and not progress.given_up:
            return Move(progress, end=End.DONE)
        if progress.given_up:
            return Move(progress, end=End.STUCK, why=f"{', '.join(sorted(progress.given_up))} does not go")
        if self.refused is not None and (self.missing or left):
            return Move(progress, end=End.REFUSED, why=self.refused)
        if self.limits.budget is not None and (self.may_launch <= 0 or self.may_retire <= 0):
            return Move(progress, end=End.BUDGET, why=f"{self.limits.budget} were replaced, which is the budget")
        why = f"nothing more can go or come between min {fleet.min} and max {fleet.max}"
        return Move(progress, end=End.STUCK, why=why)
