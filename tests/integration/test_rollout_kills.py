"""kill -9 of the engine at every boundary between two of its actions: the next one ends as if nothing had happened.

The machines are the simulator's, a file that outlives the engine, as its clock is; the catalog is real.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from killing import CASES, KINDS, Case, EachKind, assert_same_world, killed_at, killed_everywhere, made, to_the_end

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
