"""What a run of healing remembers, and what became of what it did. Pure.

An instance is the same as one before if its id and the time of its launch are: a provider may give the name of one that
is gone to the one that comes in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from factory.rollout.drift import Standing
from factory.rollout.model import Action, Launch, Shift


@dataclass(frozen=True)
class Progress:
    """All times are in seconds since 1970. `there`: id -> time of its launch, of all that the last look saw.

    `came`: id -> first seen, of the replacements that are there; `up`: those of them that came to serve; `worn`: those
    that do not any more. `launched`: how many replacements there were in all, `failed`: how many of them did not hold.
    `awaited`: so many were asked for since `asked_at`, and are not seen yet.

    `leaving`: id -> since when, of those that are to go; `retiring`: id -> when their end was accepted; `given_up`:
    those that do not go. `dismissed`: how many were to go but for failed replacements; `retired`: ids of those that
    went.

    `draining`: ids of those that the last shift kept from getting anything new. `moved_at`: when something last came,
    went or was asked to; where the traffic goes does not count."""

    there: Mapping[str, float]
    moved_at: float
    came: Mapping[str, float] = field(default_factory=dict)
    up: frozenset[str] = frozenset()
    worn: frozenset[str] = frozenset()
    launched: int = 0
    failed: int = 0
    awaited: int = 0
    asked_at: float = 0.0
    leaving: Mapping[str, float] = field(default_factory=dict)
    retiring: Mapping[str, float] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    dismissed: int = 0
    retired: tuple[str, ...] = ()
    draining: frozenset[str] = frozenset()

    @property
    def warming(self) -> list[str]:
        """Replacements of which it is not known yet whether they come to serve."""
        return [name for name in self.came if name not in self.up and name not in self.leaving]

    def never_served(self, name: str) -> bool:
        """Whether it is a replacement that no traffic ever went to."""
        return name in self.came and name not in self.up


def begin(standing: Standing, now: float) -> Progress:
    """The beginning of a run."""
    return Progress(_launches(standing), now)


def accepted(progress: Progress, standing: Standing, action: Action, now: float) -> Progress:
    """After a call that returned."""
    if isinstance(action, Launch):
        there = sum(one.generation == action.generation for one in standing.present)
        return replace(progress, awaited=max(0, action.count - there), asked_at=now, moved_at=now)
    if isinstance(action, Shift):
        return replace(progress, draining=frozenset(action.draining))
    first = {name: now for name in action.instances if name not in progress.retiring}
    moved_at = now if first else progress.moved_at
    return replace(progress, retiring={**progress.retiring, **first}, moved_at=moved_at)


def seen(progress: Progress, standing: Standing, now: float) -> tuple[Progress, tuple[str, ...]]:
    """After a look: what came, what failed, what went; and what is to be told of it."""
    before, notes = progress, list[str]()
    progress, gone = _without_gone(progress, standing, notes)
    progress = _with_new(progress, standing, gone, now, notes)
    progress = _with_failed(progress, standing, now, notes)
    progress = _with_given_up(progress, standing, now, notes)
    if progress != before:
        progress = replace(progress, moved_at=now)
    return replace(progress, there=_launches(standing)), tuple(notes)


def _launches(standing: Standing) -> dict[str, float]:
    return {one.id: one.launched_at for one in standing.observed.instances}


def _without_gone(progress: Progress, standing: Standing, notes: list[str]) -> tuple[Progress, frozenset[str]]:
    """Without those that are gone; their ids. A replacement that nobody told to go has failed."""
    here = _launches(standing)
    gone = frozenset(name for name, at in progress.there.items() if here.get(name) != at)
    lost = sorted((progress.came.keys() & gone) - progress.leaving.keys() - progress.worn)
    went = sorted(progress.leaving.keys() & gone)
    notes += [f"{name} failed: it is gone" for name in lost]
    notes += [f"{name} is retired" for name in went]
    return replace(
        progress,
        came=_but(progress.came, gone),
        up=progress.up - gone,
        worn=progress.worn - gone,
        failed=progress.failed + len(lost),
        leaving=_but(progress.leaving, gone),
        retiring=_but(progress.retiring, gone),
        given_up=progress.given_up - gone,
        retired=(*progress.retired, *went),
        draining=progress.draining - gone,
    ), gone


def _with_new(progress: Progress, standing: Standing, gone: frozenset[str], now: float, notes: list[str]) -> Progress:
    """With the replacements that came, and those that came to serve."""
    serving = standing.serving
    fresh = {
        one.id: now
        for one in standing.present
        if serving is not None and one.generation == serving.generation
        and (one.id not in progress.there or one.id in gone)
    }  # fmt: skip
    came = {**progress.came, **fresh}
    up = progress.up | (came.keys() & standing.healthy)
    notes += [f"launched {name}" for name in fresh]
    notes += [f"{name} is healthy" for name in sorted(up - progress.up)]
    return replace(
        progress,
        came=came,
        up=up,
        launched=progress.launched + len(fresh),
        awaited=max(0, progress.awaited - len(fresh)),
    )


def _with_failed(progress: Progress, standing: Standing, now: float, notes: list[str]) -> Progress:
    """With the replacements that failed counted, once each; those that never served told to go."""
    deadline_s = standing.fleet.health.deadline_s
    slow = {name for name in progress.warming if name in standing.ill or now - progress.came[name] > deadline_s}
    worn = (progress.up & standing.ill) - progress.leaving.keys() - progress.worn
    is_late = now - progress.asked_at > standing.fleet.deadlines.launch.seconds
    unseen = progress.awaited if is_late else 0
    notes += [f"{name} failed: not healthy within {deadline_s:g} s" for name in sorted(slow)]
    notes += [f"{name} failed: it was healthy, and is not any more" for name in sorted(worn)]
    because = "".join(f" ({why})" for why in standing.observed.missing.values())
    notes += [f"{unseen} that were launched never came{because}"] if unseen else []
    return replace(
        progress,
        worn=progress.worn | worn,
        launched=progress.launched + unseen,
        failed=progress.failed + len(slow) + len(worn) + unseen,
        awaited=progress.awaited - unseen,
        leaving={**progress.leaving, **dict.fromkeys(sorted(slow), now)},
    )


def _with_given_up(progress: Progress, standing: Standing, now: float, notes: list[str]) -> Progress:
    """With those given up that were to go, and did not in time."""
    limit_s = standing.fleet.deadlines.retire.seconds
    late = {name for name, at in progress.retiring.items() if name in progress.leaving and now - at > limit_s}
    notes += [f"{name} does not go" for name in sorted(late - progress.given_up)]
    return replace(progress, given_up=progress.given_up | late)


def _but(times: Mapping[str, float], names: frozenset[str]) -> dict[str, float]:
    return {name: at for name, at in times.items() if name not in names}
