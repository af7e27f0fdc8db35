"""What runs of a fleet and should not, and what should and does not. Pure.

What a fleet is to run is what its last rollout left: one generation of one image, `size` instances, all of the traffic.
An instance is told by its tag; of one whose tag cannot be read, nothing is believed. While a rollout goes on, it is the
rollout's matter how many there are of which generation; what nobody knows or what was revoked is told even then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from factory.digest import Digest
from factory.rollout.history import Serving
from factory.rollout.model import FleetSpec, Health, Instance, Observation


class Kind(StrEnum):
    """What is wrong; `find` says which one where several are."""

    REVOKED = "revoked"
    UNKNOWN = "unknown-image"
    WRONG = "wrong-image"
    UNHEALTHY = "unhealthy"
    EXTRA = "extra"
    MISSING = "missing"
    TRAFFIC = "traffic"


@dataclass(frozen=True)
class Drift:
    """One finding. `instance` None: of the fleet as a whole; `count`: how many are missing."""

    kind: Kind
    why: str
    instance: str | None = None
    generation: int | None = None
    digest: Digest | None = None
    count: int = 1


@dataclass(frozen=True)
class Standing:
    """How a fleet stands. `serving` None: nothing is to serve. `healthy`: ids seen to serve; `ill`: ids not seen to,
    for longer than they may. `revoked`: digest -> why, of the images seen. `rolling`: the generations of a rollout that
    goes on; None where none does."""

    fleet: FleetSpec
    serving: Serving | None
    observed: Observation
    healthy: frozenset[str] = frozenset()
    ill: frozenset[str] = frozenset()
    revoked: Mapping[Digest, str] = field(default_factory=dict)
    rolling: frozenset[int] | None = None

    @property
    def size(self) -> int:
        """How many there are to be."""
        return 0 if self.serving is None else self.fleet.size

    @property
    def present(self) -> tuple[Instance, ...]:
        """The instances that are not stopping."""
        return tuple(one for one in self.observed.instances if one.state != "stopping")

    def has_traffic(self, one: Instance) -> bool:
        """Whether an instance gets any, once it is healthy."""
        return bool(self.observed.weights.get(one.generation)) and not one.is_idle


def find(standing: Standing) -> tuple[Drift, ...]:
    """All that drifted, instances in the order of their ids."""
    faults = {one.id: fault for one in standing.present if (fault := of_instance(standing, one)) is not None}
    if standing.rolling is not None:
        return tuple(faults[name] for name in sorted(faults))
    right = [one for one in standing.present if one.id not in faults or faults[one.id].kind == Kind.UNHEALTHY]
    for one in surplus([one for one in right if one.id not in faults], standing.size, standing.healthy):
        faults[one.id] = _drift(Kind.EXTRA, one, f"more than the {standing.size} that there are to be")
    there = sum(one.id not in faults or faults[one.id].kind == Kind.UNHEALTHY for one in right)
    return (*_missing(standing, there), *(faults[name] for name in sorted(faults)), *_traffic(standing))


def of_instance(standing: Standing, one: Instance) -> Drift | None:
    """What is wrong with an instance by itself, whatever others there are; None: nothing."""
    serving, generation = standing.serving, one.generation
    if one.digest is None:
        return _drift(Kind.UNKNOWN, one, "no tag says of which image it is")
    if (why := standing.revoked.get(one.digest)) is not None:
        return _drift(Kind.REVOKED, one, why)
    if standing.rolling is not None:
        return None if generation in standing.rolling else _drift(Kind.EXTRA, one, "of a generation nobody knows")
    if serving is None:
        return _drift(Kind.EXTRA, one, "the fleet is to run nothing")
    if one.digest != serving.image.digest:
        return _drift(Kind.WRONG, one, f"generation {serving.generation} serves, of {serving.image.digest}")
    if generation != serving.generation:
        return _drift(Kind.EXTRA, one, f"of the image that serves, but not of generation {serving.generation}")
    if one.id in standing.ill:
        return _drift(Kind.UNHEALTHY, one, "not healthy for longer than it may be")
    return None


def surplus(right: Iterable[Instance], size: int, healthy: frozenset[str]) -> tuple[Instance, ...]:
    """Those of the right instances that are too many: the ones that do not serve first, then the youngest."""
    ordered = sorted(right, key=lambda one: (one.id not in healthy, one.launched_at, one.id))
    return tuple(ordered[size:])


def _drift(kind: Kind, one: Instance, why: str) -> Drift:
    return Drift(kind, why, one.id, one.generation, one.digest)


def _missing(standing: Standing, there: int) -> Iterator[Drift]:
    count = standing.size - there
    if count > 0 and standing.serving is not None:
        why = f"{there} of {standing.size} are there"
        yield Drift(Kind.MISSING, why, None, standing.serving.generation, standing.serving.image.digest, count)


def _traffic(standing: Standing) -> Iterator[Drift]:
    """Traffic that does not go where it belongs; where nobody could take it, that is not told again."""
    serving, weights = standing.serving, standing.observed.weights
    if serving is None:
        return
    ours = [one for one in standing.present if one.generation == serving.generation]
    for generation, weight in sorted(weights.items()):
        if ours and weight and generation != serving.generation:
            yield Drift(Kind.TRAFFIC, f"{weight}% goes to generation {generation}", None, generation)
    if not any(weights.values()):
        if any(one.id not in standing.ill for one in ours):
            why = f"none goes to generation {serving.generation}"
            yield Drift(Kind.TRAFFIC, why, None, serving.generation, serving.image.digest)
        return
    for one in sorted(ours, key=lambda one: one.id):
        if one.id in standing.healthy and not standing.has_traffic(one):
            yield _drift(Kind.TRAFFIC, one, "healthy, and gets none")


# --- who is ill


@dataclass(frozen=True)
class Illness:
    """Since when each instance was seen not to serve; nothing of those that do."""

    since: Mapping[str, float] = field(default_factory=dict)

    def after(self, observed: Observation, healthy: frozenset[str], now: float) -> Illness:
        """With what is seen now."""
        unwell = [one.id for one in observed.instances if one.id not in healthy and one.state != "stopping"]
        return Illness({name: min(self.since.get(name, now), now) for name in unwell})

    def ill(self, observed: Observation, health: Health, now: float) -> frozenset[str]:
        """Those for longer than the grace; who may still be warming is not among them."""
        return frozenset(
            one.id
            for one in observed.instances
            if one.id in self.since
            and now - self.since[one.id] >= health.grace_s
            and now - one.launched_at > health.deadline_s
        )

    def undecided(self, observed: Observation, health: Health, now: float) -> bool:
        """Whether looking on for the grace would tell more."""
        old = {one.id for one in observed.instances if now - one.launched_at > health.deadline_s}
        return bool((old & self.since.keys()) - self.ill(observed, health, now))
