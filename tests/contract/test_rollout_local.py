"""Whole rollouts on the provider `local`: real engine, catalog and HAProxy; in QEMU's place what behaves like it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from local_fleets import DEADLINE_S, LocalWorld
from simulated_fleets import Trusted, good

from benchmarks.load import load
from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.rollout import fleet as fleets
from factory.rollout import flow, plan
from factory.rollout.engine import Around, Engine, Turn
from factory.rollout.model import FleetSpec, Order, Plan, State, Step


@dataclass
class Driven:
    """A rollout of generation 2 over generation 1, which serves with two."""

    world: LocalWorld
    catalog: Catalog
    engine: Engine
    turns: list[Turn] = field(default_factory=list)

    def until(self, *states: State) -> State:
        ends_at = time.monotonic() + DEADLINE_S
        while self.engine.status.state not in states:
            assert time.monotonic() < ends_at, self.engine.status
            self.turn()
        return self.engine.status.state

    def turn(self) -> None:
        self.turns.append(self.engine.turn())
        time.sleep(0.02)

    def order(self, wanted: Order) -> None:
        rollouts.order(self.catalog, self.engine.known, wanted)

    def idle(self, number: int) -> list[str]:
        """Those of a generation that get nothing, healthy or not."""
        seen = self.world.provider.front.seen() or {}
        return [one.id for one in self.world.of(number) if one.id not in seen or not seen[one.id].weight]


@contextmanager
def driven(folder: Path, boot_s: float = 0.0, **spec: object) -> Iterator[Driven]:
    """`boot_s`: how long the new guests take to boot."""
    world = LocalWorld(folder)
    made = {"strategy": "blue-green", "min": 2, "max": 5, "bake_s": 1000.0, **spec}
    world.fleet = replace(world.fleet, **made)  # type: ignore[arg-type]
    try:
        old, new = world.up(1, 2), world.image("v2", boot_s=boot_s)
        world.provider.shift({1: 100})
        fleet: FleetSpec = world.fleet
        begun = Plan("r-2", fleet, new, 2, plan.stages(fleet, 2), old.image, 1)
        with Catalog.open(folder / "catalog.db") as catalog, fleets.leased(catalog, fleet.name) as fence:
            flow.begin(catalog, fence, begun)
            known = rollouts.last(catalog, fleet.name)
            assert known is not None
            around = Around(catalog, world.provider, Trusted(), fence, measure=good)
            yield Driven(world, catalog, Engine(around, known))
    finally:
        world.close()


def test_rollout_replaces_the_fleet_and_loses_nothing(tmp_path: Path) -> None:
    with driven(tmp_path, strategy="canary", steps=(Step(50, 0.2),), bake_s=0.2) as it:
        with load(it.world.url, 50) as found:
            it.until(State.SUCCEEDED)
        assert found.lost == []
        assert it.idle(2) == []
        assert it.world.left() == {2}


@pytest.mark.parametrize("state", [State.ANALYSING, State.BAKING])
def test_instance_that_is_launched_anew_while_it_waits_gets_its_share(tmp_path: Path, state: State) -> None:
    with driven(tmp_path, strategy="canary", steps=(Step(90, 1000),)) as it:
        it.until(State.ANALYSING)
        if state == State.BAKING:
            it.order(Order.PROMOTE)
            it.until(State.BAKING)
        it.world.kill("web-g2-01")
        it.world.wait(lambda: len(it.world.of(2)) == 1)
        ends_at = time.monotonic() + DEADLINE_S
        while len(it.world.of(2)) < 2 or it.idle(2):
            assert time.monotonic() < ends_at, it.world.provider.front.seen()
            it.turn()
        assert it.engine.status.state == state


def test_old_generation_that_is_ill_does_not_block_the_fix(tmp_path: Path) -> None:
    with driven(tmp_path, strategy="canary", steps=(Step(50, 0.2),), bake_s=0.2) as it:
        for name in ("web-g1-01", "web-g1-02"):
            (it.world.folder / f"instances/{name}/sick").touch()
        it.world.wait_healthy(1, 0)
        it.until(State.SUCCEEDED)
        assert it.idle(2) == []


def test_front_that_dies_while_new_guests_boot_is_back_before_they_are_up(tmp_path: Path) -> None:
    with driven(tmp_path, boot_s=DEADLINE_S) as it:
        it.until(State.WARMING)
        it.world.kill("front")
        ends_at = time.monotonic() + DEADLINE_S / 2
        while not _answers(it.world):
            assert time.monotonic() < ends_at
            it.turn()
        assert it.engine.status.state == State.WARMING


def test_new_guests_that_die_while_the_old_ones_drain_are_launched_anew_and_the_old_ones_serve(tmp_path: Path) -> None:
    with driven(tmp_path, bake_s=0.0) as it, load(f"{it.world.url}slow?3", 0.01):
        it.world.wait(lambda: any(one.sessions for one in it.world.of(1)))
        it.until(State.DRAINING)
        for name in ("web-g2-01", "web-g2-02"):
            it.world.kill(name)
        ends_at = time.monotonic() + DEADLINE_S
        while not _answers(it.world):
            assert time.monotonic() < ends_at
            it.turn()
        it.until(State.SUCCEEDED)
        assert it.world.left() == {2}
        assert _answers(it.world)


def _answers(world: LocalWorld) -> bool:
    try:
        return world.get("/", 1)[0] == 200
    except OSError:
        return False
