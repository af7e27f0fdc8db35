"""One decision of a run of healing: what is to be launched, who is to go, where the traffic is to go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from factory.rollout import drift
from factory.rollout.drift import Kind, Standing
from factory.rollout.heal.moves import End, Limits
from factory.rollout.heal.progress import Progress
from factory.rollout.history import Serving
from factory.rollout.machine import traffic
from factory.rollout.model import Instance, Launch, Retire, Shift


@dataclass(frozen=True)
class Turn:
    """How things are at one moment. `serving`: what is to serve; `refused`: why it may not be launched."""

    standing: Standing
    serving: Serving
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
    def bad(self) -> list[Instance]:
        """Those that are to go, sooner or later."""
        return [one for one in self.standing.present if one.id in self._surplus or self._is_faulty(one)]

    @cached_property
    def _right(self) -> list[Instance]:
        """Of what serves, with nothing wrong by themselves, and not told to go."""
        return [
            one
            for one in self.standing.present
            if self._is_ours(one) and not self._is_faulty(one) and one.id not in self.progress.leaving
        ]

    @cached_property
    def _surplus(self) -> frozenset[str]:
        if Kind.EXTRA not in self.limits.mends:
            return frozenset()
        return frozenset(one.id for one in drift.surplus(self._right, self.standing.size, self.standing.healthy))

    def _is_ours(self, one: Instance) -> bool:
        return (one.generation, one.digest) == (self.serving.generation, self.serving.image.digest)

    def _is_faulty(self, one: Instance) -> bool:
        found = drift.of_instance(self.standing, one)
        return found is not None and found.kind in self.limits.mends

    @cached_property
    def busy(self) -> frozenset[str]:
        """The ids of those that serve, and are not told to go."""
        return frozenset(
            one.id
            for one in self.standing.present
            if one.id in self.standing.healthy
            and one.id not in self.progress.leaving
            and self.standing.has_traffic(one)
        )

    @cached_property
    def weights(self) -> Mapping[int, int]:
        """Where the traffic is to go: by how many of each generation can serve, without those that were told to go."""
        counts: dict[int, int] = {}
        good = {one.id for one in self.good}
        for one in self.standing.present:
            can_serve = one.id in self.standing.healthy and one.id not in self.progress.leaving
            if can_serve and (one.id in good or one.id in self.busy):
                counts[one.generation] = counts.get(one.generation, 0) + 1
        return traffic.by_count(counts)

    @cached_property
    def missing(self) -> int:
        """How many there are too few."""
        return max(0, self.standing.size - len(self.good))

    @cached_property
    def may_launch(self) -> int:
        """How many more may be launched, but for the room."""
        progress, budget = self.progress, self.limits.budget
        if self.refused is not None or progress.failed >= self.limits.breaker:
            return 0
        if budget is None:
            return self.missing
        return max(0, budget - (progress.launched - progress.failed) - progress.awaited)

    @cached_property
    def may_dismiss(self) -> int:
        """How many more may be told to go."""
        budget = self.limits.budget
        return len(self.standing.present) if budget is None else max(0, budget - self.progress.dismissed)

    @property
    def patience_s(self) -> float:
        """After so long without any change, nothing will come any more."""
        health, deadlines = self.standing.fleet.health, self.standing.fleet.deadlines
        waits = (deadlines.launch, deadlines.shift, deadlines.drain, deadlines.retire)
        return max(health.deadline_s, *(wait.seconds for wait in waits)) + health.grace_s

    # --- what is to be done

    def launch(self) -> Launch | None:
        """What is missing, as far as there is room and budget."""
        awaited = self.progress.awaited
        room = self.standing.fleet.max - len(self.standing.observed.instances) - awaited
        count = min(self.missing - awaited, self.may_launch, room)
        if count <= 0:
            return None
        there = sum(one.generation == self.serving.generation for one in self.standing.present)
        return Launch(self.serving.generation, there + awaited + count)

    def dismissed(self) -> Progress:
        """With those told to go that can go now: the ones that do not serve first.

        Whoever serves goes once `size` others do; one that should and does not, once its place is taken, too.
        """
        progress, size = self.progress, self.standing.size
        leaving, serving, told = dict(progress.leaving), len(self.busy), 0
        least = min(self.standing.fleet.min, serving)
        going = sorted(
            (one for one in self.bad if one.id not in leaving), key=lambda one: (one.id in self.busy, one.id)
        )
        idle = {one.id for one in going if one.id not in self.busy and self._has_place(one)}
        for one in going:
            is_busy, is_idle = one.id in self.busy, one.id in idle
            left, others = serving - is_busy, 0 if is_busy else len(idle) - is_idle
            may_go = (not is_busy and not is_idle) or left + others >= size or self._has_no_room(leaving)
            if not may_go or left < least or (told >= self.may_dismiss and one.id not in progress.worn):
                continue
            leaving[one.id], serving = self.now, left
            told += one.id not in progress.worn
            idle.discard(one.id)
        if leaving == progress.leaving:
            return progress
        return replace(progress, leaving=leaving, dismissed=progress.dismissed + told, moved_at=self.now)

    def _has_place(self, one: Instance) -> bool:
        """Whether one that does not serve has the place of one that should: the others are just too many."""
        return one.id not in self._surplus and (self._is_ours(one) or self.standing.has_traffic(one))

    def _has_no_room(self, leaving: Mapping[str, float]) -> bool:
        """Whether something must go before what is missing can be launched; one at a time."""
        total = len(self.standing.observed.instances)
        is_waiting = bool(leaving) or total > len(self.standing.present) or self.progress.awaited > 0
        return total >= self.standing.fleet.max and self.missing > 0 and self.may_launch > 0 and not is_waiting

    def shift(self) -> Shift | None:
        """All traffic to those that can serve and stay, where it does not go so yet."""
        observed, progress = self.standing.observed, self.progress
        going = tuple(one for one in observed.instances if one.id in progress.leaving)
        are_idle = any(one.is_idle and one.id in self.standing.healthy for one in self.good)
        are_told = all(self._is_draining(one) for one in going)
        if not self.weights or (are_told and not are_idle and traffic.is_sent(observed.weights, self.weights)):
            return None
        return traffic.shift(self.weights, going)

    def retire(self) -> Retire | None:
        """Those that leave and have no sessions left."""
        ready = [one.id for one in self.standing.present if self._can_retire(one)]
        return Retire(tuple(sorted(ready))) if ready else None

    def _can_retire(self, one: Instance) -> bool:
        since, limit = self.progress.leaving.get(one.id), self.standing.fleet.deadlines.drain
        if since is None or one.id in self.progress.given_up:
            return False
        if self.progress.never_served(one.id) or (self._is_draining(one) and not one.sessions):
            return True
        return self.now - since > limit.seconds and limit.then == "continue"

    def _is_draining(self, one: Instance) -> bool:
        """Whether it gets nothing new: it was said so, by whoever, or nobody is left to get anything."""
        return one.id in self.progress.draining or one.is_idle or not self.weights

    # --- how it ends

    def waits(self) -> bool:
        """Whether something is on its way."""
        progress = self.progress
        are_well = all(one.id in self.standing.healthy for one in self.good)
        is_going = bool(progress.leaving.keys() - progress.given_up)
        return bool(
            progress.awaited or progress.warming or is_going or (Kind.UNHEALTHY in self.limits.mends and not are_well)
        )

    def end(self) -> tuple[End, str]:
        """How a run ends in which nothing is to be done any more, and why."""
        progress, limits, fleet = self.progress, self.limits, self.standing.fleet
        if not self.bad and not self.missing and not progress.given_up:
            return End.DONE, ""
        if progress.failed >= limits.breaker:
            return End.BREAKER, f"{_count(progress.failed, 'replacement')} failed; no more are launched"
        if progress.given_up:
            names = ", ".join(sorted(progress.given_up))
            return End.STUCK, f"{names} {'does' if len(progress.given_up) == 1 else 'do'} not go"
        if self.refused is not None:
            return End.REFUSED, self.refused
        if limits.budget is not None and (self.may_launch <= 0 or self.may_dismiss <= 0):
            return End.BUDGET, f"the budget of {limits.budget} is used up"
        return End.STUCK, f"nothing more can go or come between min {fleet.min} and max {fleet.max}"


def _count(number: int, of: str) -> str:
    return f"{number} {of}{'' if number == 1 else 's'}"
