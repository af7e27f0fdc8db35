"""A provider whose machines are a file: it behaves as a real one does, slowly, unreliably, and for ever.

The world (instances, weights, what each image does) is one JSON file, so that it outlives a killed engine as machines
do. Time is what `clock` says. An image may come up late or never, fall ill or die after a while, or flap; calls may be
refused, be done though the reply is lost, or find nobody for a while. Nothing here agrees with anybody: it only obeys
the contract of factory/rollout/providers.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from factory.digest import Digest
from factory.errors import ProviderError
from factory.rollout.model import Generation, Instance, Observation


@dataclass(frozen=True)
class Behaviour:
    """What instances of an image do, in seconds since their launch. `None`: never."""

    pending_s: float = 1.0
    healthy_after_s: float | None = 2.0
    ill_after_s: float | None = None
    dies_after_s: float | None = None
    flaps_every_s: float | None = None

    def state(self, age_s: float) -> str:
        """`pending` or `running`."""
        return "pending" if age_s < self.pending_s else "running"

    def is_healthy(self, age_s: float) -> bool:
        """Whether one of that age serves."""
        if self.healthy_after_s is None or age_s < self.healthy_after_s:
            return False
        if self.ill_after_s is not None and age_s >= self.ill_after_s:
            return False
        return not (self.flaps_every_s and int(age_s / self.flaps_every_s) % 2)

    def is_dead(self, age_s: float) -> bool:
        return self.dies_after_s is not None and age_s >= self.dies_after_s


@dataclass
class World:
    """All that exists. `instances`: id -> generation, digest, launched_at, stopping_since."""

    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    draining: list[str] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)
    """The generations for which something was made beside their instances."""
    next_id: int = 1
    launched: list[str] = field(default_factory=list)
    """Digests, in the order of their launches."""
    calls: int = 0


@dataclass(frozen=True)
class Faults:
    """What goes wrong: the numbers of the calls (from 1) that are refused, or done with their reply lost; until when
    nobody answers."""

    refused: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    gone_until: float = 0.0


class SimulatedProvider:
    """One fleet in a file; in memory where `path` is None. `joins_by_itself`: one that comes up gets its share of its
    generation's traffic at once (as on AWS), not only by the next shift (as on this machine)."""

    def __init__(
        self, path: Path | None, clock: Callable[[], float], behaviours: Mapping[Digest, Behaviour] | None = None,
        *, stopping_s: float = 1.0, sessions_s: float = 2.0, faults: Faults | None = None,
        joins_by_itself: bool = True,
    ) -> None:  # fmt: skip
        self.path, self.clock = path, clock
        self.behaviours = dict(behaviours or {})
        self.stopping_s, self.sessions_s = stopping_s, sessions_s
        self.joins_by_itself = joins_by_itself
        self.injected = faults or Faults()
        self.watch: Callable[[World], None] = lambda _: None
        self._memory = World()

    # --- the contract

    def faults(self, image_arch: str) -> list[str]:
        return [] if image_arch == "amd64" else [f"no machine here runs {image_arch}; use an amd64 image"]

    def observe(self) -> Observation:
        self._reachable()
        now = self.clock()
        world = self._settled(self._read(), now)
        found = tuple(
            Instance(
                id=name,
                generation=one["generation"],
                digest=Digest(one["digest"]),
                state="stopping"
                if one["stopping_since"] is not None
                else self._of(one).state(now - one["launched_at"]),  # type: ignore[arg-type]
                launched_at=one["launched_at"],
                address=f"192.0.2.{one['generation'] % 256}:80",
                healthy=one["stopping_since"] is None and self._of(one).is_healthy(now - one["launched_at"]),
                sessions=self._sessions(world, name, one, now),
                is_idle=not self.joins_by_itself and not one["joined"],
            )
            for name, one in world.instances.items()
        )
        there = {one.generation for one in found}
        sent = {int(number): weight for number, weight in world.weights.items()}
        return Observation(found, {number: weight for number, weight in sent.items() if number in there})

    def launch(self, generation: Generation, count: int) -> None:
        with self._changing() as world:
            there = [
                one for one in world.instances.values()
                if one["generation"] == generation.number and one["stopping_since"] is None
            ]  # fmt: skip
            if not {one["digest"] for one in there} <= {generation.image.digest}:
                raise ProviderError(f"generation {generation.number} is of another image")
            world.beside = sorted({*world.beside, generation.number})
            for _ in range(count - len(there)):
                world.instances[f"i-{world.next_id}"] = {
                    "generation": generation.number,
                    "digest": generation.image.digest,
                    "launched_at": self.clock(),
                    "stopping_since": None,
                    "drained_since": None,
                    "joined": False,
                }
                world.next_id += 1
                world.launched.append(generation.image.digest)

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        assert sum(weights.values()) in (0, 100), weights
        with self._changing() as world:
            now = self.clock()
            self._refuse_unhealthy(world, {number for number, weight in weights.items() if weight}, now)
            world.weights = {str(number): weight for number, weight in weights.items() if weight}
            world.draining = sorted(set(draining))
            for name, one in world.instances.items():
                serves = bool(weights.get(one["generation"])) and name not in world.draining
                one["drained_since"] = None if serves else one["drained_since"] or now
                one["joined"] = serves and (one["joined"] or self._of(one).is_healthy(now - one["launched_at"]))

    def retire(self, instances: Iterable[str]) -> None:
        named = tuple(instances)
        with self._changing() as world:
            if not named:
                there = {one["generation"] for one in world.instances.values()}
                world.beside = [number for number in world.beside if number in there]
            for name in named:
                if name in world.instances and world.instances[name]["stopping_since"] is None:
                    world.instances[name]["stopping_since"] = self.clock()

    # --- what happens by itself

    def _of(self, one: Mapping[str, Any]) -> Behaviour:
        return self.behaviours.get(Digest(one["digest"]), Behaviour())

    def _settled(self, world: World, now: float) -> World:
        """The world without those that died or have stopped."""
        kept = {
            name: one
            for name, one in world.instances.items()
            if not self._of(one).is_dead(now - one["launched_at"])
            and (one["stopping_since"] is None or now - one["stopping_since"] < self.stopping_s)
        }
        return replace(world, instances=kept)

    def _refuse_unhealthy(self, world: World, numbers: set[int], now: float) -> None:
        """Traffic goes only to a generation of which somebody can take it."""
        able = {
            one["generation"]
            for one in world.instances.values()
            if one["stopping_since"] is None and self._of(one).is_healthy(now - one["launched_at"])
        }
        if numbers - able:
            raise ProviderError(f"generation {min(numbers - able)} has no healthy instance")

    def _sessions(self, world: World, name: str, one: Mapping[str, Any], now: float) -> int:
        if one["drained_since"] is None:
            return 5 if world.weights.get(str(one["generation"])) else 0
        return 1 if now - one["drained_since"] < self.sessions_s else 0

    # --- calls

    def _reachable(self) -> None:
        if self.clock() < self.injected.gone_until:
            raise ProviderError("nobody answers")

    @contextmanager
    def _changing(self) -> Iterator[World]:
        self._reachable()
        with self._locked():
            world = self._settled(self._read(), self.clock())
            world.calls += 1
            if world.calls in self.injected.refused:
                self._write(world)
                raise ProviderError("try again later")
            yield world
            self.watch(world)
            self._write(world)
        if world.calls in self.injected.lost:
            raise ProviderError("the connection was cut before the reply")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> World:
        if self.path is None:
            return replace(self._memory, instances={name: dict(one) for name, one in self._memory.instances.items()})
        if not self.path.exists():
            return World()
        return World(**json.loads(self.path.read_text()))

    def _write(self, world: World) -> None:
        if self.path is None:
            self._memory = world
            return
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(world)))
        fresh.replace(self.path)


__all__ = ["Behaviour", "Faults", "SimulatedProvider", "World"]
