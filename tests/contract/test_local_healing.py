"""Healing over the provider `local`: its real code and a real HAProxy, fake_qemu in QEMU's place."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from healing import Healer
from local_fleets import LocalWorld

from benchmarks.load import load
from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.rollout import drift, heal
from factory.rollout.drift import Kind
from factory.rollout.heal import End, Limits
from factory.rollout.looking import steady
from factory.rollout.mending import Mended
from factory.rollout.model import Generation, Health, HttpProbe
from factory.rollout.providers.local import guests, tags
from factory.rollout.sight import Sight

HEALTH = Health(http=HttpProbe(80, "/", 200, "factory"), successes=2, interval_s=0.1, timeout_s=0.5, deadline_s=20)


class LongAgo:
    """A clock that is late: who is launched by it is past its deadline."""

    monotonic, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

    @staticmethod
    def time() -> float:
        return time.time() - 1000


@dataclass
class Fleet:
    """A fleet of two whose guests take a moment to boot. `told`: what healing said, and what HAProxy gave each guest
    then."""

    world: LocalWorld
    generation: Generation
    told: list[tuple[str, dict[str, int]]] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, int]:
        return {name: one.weight for name, one in (self.world.provider.front.seen() or {}).items()}

    def be(self, **other: object) -> None:
        """Have it be another fleet from now on."""
        self.world.fleet = dataclasses.replace(self.world.fleet, **other)  # type: ignore[arg-type]

    def healer(self, limits: Limits | None = None) -> Healer:
        def tell(text: str) -> None:
            self.told.append((text, self.weights))

        world = self.world
        return Healer(
            world.root / "catalog.db", world.fleet, self.generation, world.provider, limits or Limits(), tell=tell
        )

    def drifts(self) -> list[Kind]:
        healer = self.healer()
        seen = steady(Sight(healer.provider, healer.spec.health), time.time, time.sleep)
        return [one.kind for one in drift.find(healer.ground.standing(healer.serving, seen, None, time.time()))]

    def heal(self, limits: Limits | None = None) -> Mended:
        done = self.healer(limits).run()
        with Catalog.open(self.world.root / "catalog.db") as catalog:
            there = {one.id for one in self.world.provider.observe().instances}
            assert set(rollouts.instances(catalog, "web")) == there
        return done


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    world = LocalWorld(tmp_path / "world")
    world.fleet = dataclasses.replace(world.fleet, health=HEALTH)
    made = Fleet(world, world.generation(1, "slow", boot_s=0.2))
    with monkeypatch.context() as patch:
        patch.setattr(guests, "time", LongAgo())
        world.provider.launch(made.generation, 2)
    world.wait_healthy(1, 2)
    world.provider.shift({1: 100})
    yield made
    world.close()


def test_guest_that_was_killed_is_replaced_and_gets_traffic_once_it_is_healthy(fleet: Fleet) -> None:
    assert fleet.drifts() == []
    with load(fleet.world.url, 50) as found:
        fleet.world.kill("web-g1-01")
        fleet.world.wait(lambda: len(fleet.world.of(1)) == 1)
        assert fleet.drifts() == [Kind.MISSING]
        done = fleet.heal()
        time.sleep(0.3)
    assert (done.end, done.launched, done.retired) == (End.DONE, ("web-g1-01",), ())
    (launched, before), (healthy, then) = fleet.told
    assert (launched, healthy) == ("launched web-g1-01", "web-g1-01 is healthy")
    assert (before["web-g1-01"], then["web-g1-01"]) == (0, 0)
    assert len(set(fleet.weights.values())) == 1
    assert min(fleet.weights.values()) > 0
    assert fleet.drifts() == []
    assert found.lost == []
    assert found.sent > 30


def test_fleet_of_which_nothing_is_left_serves_again(fleet: Fleet) -> None:
    for name in ("web-g1-01", "web-g1-02", tags.FRONT):
        fleet.world.kill(name)
    fleet.world.wait(lambda: fleet.world.processes() == {})
    assert fleet.drifts() == [Kind.MISSING]
    assert fleet.heal().end == End.DONE
    assert sorted(fleet.weights) == ["web-g1-01", "web-g1-02"]
    assert min(fleet.weights.values()) > 0
    assert fleet.world.get()[0] == 200


def test_killed_haproxy_is_drift_and_comes_back(fleet: Fleet) -> None:
    fleet.world.kill(tags.FRONT)
    assert fleet.drifts() == [Kind.TRAFFIC]
    done = fleet.heal()
    assert (done.end, done.launched, done.retired) == (End.DONE, (), ())
    assert fleet.world.get()[0] == 200


def test_guest_that_nobody_gave_traffic_gets_it_without_another_launch(fleet: Fleet) -> None:
    fleet.be(size=3)
    fleet.world.provider.launch(fleet.generation, 3)
    fleet.world.wait_healthy(1, 3)
    assert fleet.drifts() == [Kind.TRAFFIC]
    done = fleet.heal()
    assert (done.end, done.launched) == (End.DONE, ())
    assert min(fleet.weights.values()) > 0


def test_guest_that_is_ill_is_replaced_before_it_goes(fleet: Fleet) -> None:
    with load(fleet.world.url, 50) as found:
        (fleet.world.folder / "instances/web-g1-02/sick").touch()
        fleet.world.wait(lambda: [one.healthy for one in fleet.world.of(1)] == [True, False])
        seen_at = time.time() - found.began  # before HAProxy saw it, it answered with 500
        assert fleet.drifts() == [Kind.UNHEALTHY]
        done = fleet.heal()
        time.sleep(0.3)
    assert (done.end, done.launched, done.retired) == (End.DONE, ("web-g1-03",), ("web-g1-02",))
    assert [text for text, _ in fleet.told] == [
        "launched web-g1-03", "web-g1-03 is healthy", "draining web-g1-02", "web-g1-02 is retired",
    ]  # fmt: skip
    assert [lost for lost in found.lost if lost[0] > seen_at] == []


def test_size_that_is_changed_under_load_loses_nothing(fleet: Fleet) -> None:
    scales = Limits(mends=heal.SCALES)
    with load(fleet.world.url, 50) as found:
        fleet.be(size=4)
        assert fleet.heal(scales).launched == ("web-g1-03", "web-g1-04")
        assert min(fleet.weights.values()) > 0
        fleet.be(size=1)
        assert fleet.heal(scales).retired == ("web-g1-02", "web-g1-03", "web-g1-04")
        time.sleep(0.3)
    assert found.lost == []
    assert fleet.drifts() == []


def test_image_that_does_not_come_up_trips_the_breaker_and_leaves_what_serves(fleet: Fleet) -> None:
    fleet.be(size=3, health=dataclasses.replace(HEALTH, deadline_s=1))
    disk = Path(fleet.generation.image.references["local"])
    disk.write_text(disk.read_text().replace('"boot_s": 0.2', '"boot_s": 99'))
    with load(fleet.world.url, 50) as found:
        done = fleet.heal(Limits(breaker=1))
    assert (done.end, done.launched, done.retired) == (End.BREAKER, (), ("web-g1-03",))
    assert [one.id for one in fleet.world.of(1)] == ["web-g1-01", "web-g1-02"]
    assert found.lost == []
