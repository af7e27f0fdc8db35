"""kill -9 of the engine at every boundary between two of its actions: the next one ends as if nothing had happened.

The machines are the simulator's, a file that outlives the engine, as its clock is; the catalog is real.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from killing import CASES, KINDS, Case, EachKind, assert_same_world, killed_at, killed_everywhere, made, to_the_end
from simulated_fleets import Simulated, quick
from simulated_provider import SimulatedProvider

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.rollout import fleet as fleets
from factory.rollout.engine import Engine
from factory.rollout.health import Answer
from factory.rollout.model import TERMINAL, Health, Observation, State

MOST_WITHOUT_A_STATE = 4
"""Boundaries before an end is written (the last call, made and noted, and the writing): who is always killed sooner
comes to none."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kill_at_every_boundary_comes_to_the_same_end(case: Case, tmp_path: Path) -> None:
    places = list(killed_everywhere(case, tmp_path))
    assert len(places) >= 20
    assert {EachKind.of(place) for place in places} == KINDS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kill_after_kill_still_comes_to_the_same_end(case: Case, tmp_path: Path) -> None:
    folder = made(case, tmp_path / "killed")
    kills = 0
    while not killed_at(folder, 1 + kills % 4).startswith("end ") and kills < 300:  # to tidy and to end are 4
        kills += 1
    assert kills >= 10
    assert to_the_end(folder) == case.end
    assert_same_world(folder, case, f"killed {kills} times")


class Mute(SimulatedProvider):
    """Has no word of its own on health: whoever wants to know must ask the instances."""

    def observe(self) -> Observation:
        seen = super().observe()
        self.healthy = {one.id: bool(one.healthy) for one in seen.instances}
        asked = tuple(replace(one, healthy=None, address="127.0.0.1:1") for one in seen.instances)
        return replace(seen, instances=asked)

    def probe(self, addresses: Mapping[str, str], _: Health) -> Mapping[str, Answer]:
        return {one: Answer(self.healthy.get(one, False)) for one in addresses}


def test_engines_that_die_one_after_another_take_nothing_for_ill_that_they_have_not_asked_yet(tmp_path: Path) -> None:
    simulated = Simulated(tmp_path)
    health = Health(tcp=80, successes=2, interval_s=0.5, deadline_s=60)
    simulated.found(replace(quick(bake_s=30.0), health=health, analysis=None))
    provider = simulated.provider
    provider.__class__ = Mute
    with Catalog.open(simulated.catalog_path) as catalog, fleets.leased(catalog, "web") as fence:
        for turns in itertools.count():
            if turns % 10 == 0:
                known = rollouts.last(catalog, "web")
                assert known is not None
                engine = Engine(simulated.around(catalog, fence, provider, probe=provider.probe), known)  # type: ignore[attr-defined]
            if engine.turn().status.state in TERMINAL:
                break
            simulated.clock.sleep(0.5)
        assert engine.status.state == State.SUCCEEDED, engine.status.reason
        assert turns > 60


def test_engine_that_takes_over_after_hours_measures_anew(tmp_path: Path) -> None:
    simulated = Simulated(tmp_path)
    simulated.found(quick())
    with Catalog.open(simulated.catalog_path) as catalog, fleets.leased(catalog, "web") as fence:
        for state in (State.ANALYSING, State.BAKING, None):
            known = rollouts.last(catalog, "web")
            assert known is not None
            engine = Engine(simulated.around(catalog, fence), known)
            while engine.status.state != state and engine.status.state not in TERMINAL:
                engine.turn()
                assert engine.status.why_paused == ""
                simulated.clock.sleep(0.5)
            simulated.clock.sleep(7200)
    assert engine.status.state == State.SUCCEEDED
