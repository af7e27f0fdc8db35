"""What every provider keeps to, whatever it runs on. One entry of `WORLDS` for each, and the simulator.

A world is what a provider runs in, and how a test lets time pass there. To add one: a context manager that gives a
`Place`, and its line in `WORLDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from local_fleets import LocalWorld
from simulated_provider import Behaviour, SimulatedProvider, World
from strict_aws.worlds import aws

from factory.digest import of_bytes
from factory.errors import FactoryError
from factory.rollout.model import Generation, Image, Instance, Observation
from factory.rollout.providers import Provider


class Place(Protocol):
    """What the contract is tested in. Two worlds have nothing in common."""

    @property
    def provider(self) -> Provider:
        """The provider of the world's fleet, as a process that has just been started has it: with no memory."""
        ...

    def image(self, version: str) -> Image:
        """An image whose instances become healthy; the same for the same version."""
        ...

    def sick_image(self) -> Image:
        """An image whose instances never do."""
        ...

    def wait(self, until: Callable[[], bool]) -> None:
        """Let time pass until something is so; fail where it never is."""
        ...

    def left(self) -> set[int]:
        """The generations of the fleet of which there is anything: an instance, or what was made beside them."""
        ...

    def beside(self, name: str) -> Place:
        """The world of another fleet in the same place."""
        ...


@dataclass
class SimulatedWorld:
    """Machines in a file, and a clock that goes on while one waits."""

    folder: Path
    name: str = "web"
    now: float = 1_000_000.0

    @property
    def provider(self) -> SimulatedProvider:
        behaviours = {of_bytes(b"sick"): Behaviour(healthy_after_s=None)}
        return SimulatedProvider(self._path, lambda: self.now, behaviours)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def image(self, version: str) -> Image:
        return Image("web", "amd64", of_bytes(version.encode()), {"local": version})

    def sick_image(self) -> Image:
        return self.image("sick")

    def wait(self, until: Callable[[], bool]) -> None:
        for _ in range(60):
            if until():
                return
            self.now += 1
        raise AssertionError("it did not come to be")

    def left(self) -> set[int]:
        world = World(**json.loads(self._path.read_text()))
        return {*world.beside, *(one.generation for one in self.provider.observe().instances)}

    def beside(self, name: str) -> SimulatedWorld:
        return SimulatedWorld(self.folder, name, self.now)


@contextmanager
def simulator(folder: Path) -> Iterator[Place]:
    """No machines at all."""
    folder.mkdir()
    yield SimulatedWorld(folder)


@contextmanager
def local(folder: Path) -> Iterator[Place]:
    """Real HAProxy, real processes; in QEMU's place a program that behaves like it."""
    world = LocalWorld(folder)
    try:
        yield world
    finally:
        world.close()


WORLDS: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "simulator": simulator,
    "local": local,
    "aws": aws,
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with WORLDS[request.param](tmp_path / "world") as made:
        yield made


def generation(world: Place, number: int, version: str | None = None) -> Generation:
    return Generation(number, world.image(version or f"v{number}"), f"rollout-{number}")


def seen(world: Place) -> Observation:
    return world.provider.observe()


def healthy(world: Place, number: int) -> list[Instance]:
    """Those of a generation that can take traffic, by the provider's own word or, where it has none, being there."""
    return [one for one in seen(world).of(number) if one.state == "running" and one.healthy in (True, None)]


def up(world: Place, number: int, count: int) -> Generation:
    made = generation(world, number)
    world.provider.launch(made, count)
    world.wait(lambda: len(healthy(world, number)) == count and all(one.healthy for one in healthy(world, number)))
    return made


def ids(world: Place, number: int) -> list[str]:
    return [one.id for one in seen(world).of(number)]


def shifted(world: Place, weights: dict[int, int]) -> None:
    world.provider.shift(weights)
    wanted = {number: weight for number, weight in weights.items() if weight}
    world.wait(lambda: {number: weight for number, weight in seen(world).weights.items() if weight} == wanted)


def test_observe_of_nothing_is_empty(world: Place) -> None:
    assert seen(world) == Observation()


def test_faults_of_a_fleet_that_can_be_run_are_none(world: Place) -> None:
    assert world.provider.faults("amd64") == []


def test_faults_name_an_architecture_that_cannot_be_run(world: Place) -> None:
    (fault,) = world.provider.faults("riscv64")
    assert "riscv64" in fault


def test_launch_brings_as_many_as_asked_each_with_its_tags(world: Place) -> None:
    made = up(world, 3, 2)
    found = seen(world).instances
    assert [(one.generation, one.digest, one.state) for one in found] == [(3, made.image.digest, "running")] * 2
    assert len({one.id for one in found}) == 2
    assert all(one.address for one in found)
    assert seen(world).weights.get(3, 0) == 0


def test_launch_again_is_the_same_and_more_only_adds(world: Place) -> None:
    made = generation(world, 1)
    world.provider.launch(made, 1)
    world.provider.launch(made, 1)
    first = ids(world, 1)
    assert len(first) == 1
    world.provider.launch(made, 3)
    assert len(ids(world, 1)) == 3
    assert set(first) < set(ids(world, 1))
    world.provider.launch(made, 2)
    assert len(ids(world, 1)) == 3, "launch never takes away"


def test_launch_of_another_image_in_a_generation_is_refused(world: Place) -> None:
    world.provider.launch(generation(world, 1), 1)
    with pytest.raises(FactoryError):
        world.provider.launch(generation(world, 1, "another"), 2)
    assert len(ids(world, 1)) == 1


def test_generations_stand_side_by_side_and_traffic_goes_where_it_is_sent(world: Place) -> None:
    old, new = up(world, 1, 3), up(world, 2, 1)
    assert {one.digest for one in seen(world).of(1)} == {old.image.digest}
    assert {one.digest for one in seen(world).of(2)} == {new.image.digest}
    for weights in ({1: 100}, {1: 99, 2: 1}, {1: 67, 2: 33}, {1: 10, 2: 90}, {1: 0, 2: 100}, {1: 100, 2: 0}, {2: 100}):
        shifted(world, weights)
    shifted(world, {2: 100})
    assert len(ids(world, 1)) == 3, "a generation without traffic stays"
    shifted(world, {1: 0, 2: 0})


def test_traffic_is_not_sent_to_a_generation_that_cannot_take_it(world: Place) -> None:
    up(world, 1, 1)
    shifted(world, {1: 100})
    world.provider.launch(Generation(2, world.sick_image(), "rollout-2"), 1)
    with pytest.raises(FactoryError, match="healthy"):
        world.provider.shift({1: 50, 2: 50})
    with pytest.raises(FactoryError, match="healthy"):
        world.provider.shift({7: 100})
    assert dict(seen(world).weights) == {1: 100}


def test_retire_takes_these_and_no_others(world: Place) -> None:
    up(world, 1, 2)
    up(world, 2, 1)
    shifted(world, {2: 100})
    first, second = ids(world, 1)
    world.provider.retire([first])
    world.wait(lambda: ids(world, 1) == [second])
    world.provider.retire([first, second, "never-was", "../../etc"])
    world.wait(lambda: ids(world, 1) == [])
    assert len(ids(world, 2)) == 1
    assert dict(seen(world).weights) == {2: 100}


def test_retire_of_everything_leaves_nothing(world: Place) -> None:
    up(world, 1, 2)
    shifted(world, {1: 100})
    world.provider.retire(ids(world, 1))
    world.wait(lambda: seen(world) == Observation())


def test_retire_of_nothing_takes_no_instance_and_removes_what_is_left_beside_them(world: Place) -> None:
    up(world, 1, 2)
    up(world, 2, 1)
    shifted(world, {2: 100})
    world.provider.retire(())
    assert (len(ids(world, 1)), len(ids(world, 2)), world.left()) == (2, 1, {1, 2})
    world.provider.retire(ids(world, 1))
    world.wait(lambda: ids(world, 1) == [])
    world.provider.retire(())
    assert world.left() == {2}
    assert [one.healthy for one in seen(world).of(2)] == [True]
    assert dict(seen(world).weights) == {2: 100}


def test_retire_of_nothing_where_nothing_is_leaves_nothing(world: Place) -> None:
    world.provider.retire(())
    assert seen(world) == Observation()


def test_launch_after_a_retirement_fills_up_again(world: Place) -> None:
    made = up(world, 1, 2)
    shifted(world, {1: 100})
    world.provider.retire(ids(world, 1)[:1])
    world.wait(lambda: len(ids(world, 1)) == 1)
    world.provider.launch(made, 2)
    world.wait(lambda: len(healthy(world, 1)) == 2)
    shifted(world, {1: 100})


def test_fleets_do_not_touch_each_other(world: Place) -> None:
    other = world.beside("web-g1-01")
    up(world, 1, 1)
    up(other, 1, 2)
    assert len(ids(world, 1)) == 1
    assert len(ids(other, 1)) == 2
    world.provider.retire(ids(other, 1))
    assert len(ids(other, 1)) == 2
