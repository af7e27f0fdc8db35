"""What `make soak` says of rollouts that were killed: that nothing was found where nothing is, and what was."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from killing import CASES
from simulated_fleets import quick

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from guest_fleets import BLUE_GREEN, Case, Rolled

from benchmarks import soak, soak_rollouts
from benchmarks.load import Outcome
from factory.rollout.model import State


@dataclass
class Guests:
    """A fleet whose rollouts have three boundaries; who is killed at `lossy` loses requests, at `wrong` the fleet."""

    lossy: str = ""
    wrong: str = ""
    url: str = "http://127.0.0.1:1/"
    killed: list[str] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    weights: int = 100

    def rolled(self, case: Case, is_fatal: Callable[[str], bool]) -> Rolled:
        places = ("before launch", "after launch", "after finish")
        kills = tuple(place for place in places if is_fatal(place))
        self.killed += kills
        self.lost = [(1.0, "timed out")] if self.lossy in kills else []
        self.weights = 50 if self.wrong in kills else 100
        return Rolled(f"end {case.end}", places, kills)

    def world(self) -> dict[str, object]:
        return {"weights": self.weights}


@pytest.fixture
def soaked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Guests], soak_rollouts.Soak]:
    """Soaks a fleet of guests, without guests or requests."""

    def do(guests: Guests) -> soak_rollouts.Soak:
        @contextmanager
        def load(_: str, per_second: float) -> Iterator[Outcome]:
            found = Outcome(Counter({"hello": 20}))
            yield found
            found.lost = list(guests.lost)

        monkeypatch.setattr(soak_rollouts, "load", load)
        made = soak_rollouts.Soak(tmp_path, 7, time.monotonic() + 60)
        made._guests(guests, BLUE_GREEN, {"weights": 100})  # type: ignore[arg-type]
        return made

    return do


def test_each_boundary_is_killed_once_and_nothing_is_found(soaked: Callable[[Guests], soak_rollouts.Soak]) -> None:
    guests = Guests()
    made = soaked(guests)
    assert sorted(guests.killed) == ["after finish", "after launch", "before launch"]
    assert made.findings == []
    (tally,) = made.tallies
    assert (tally.boundaries, tally.kills, tally.requests, tally.lost, tally.wrong) == (3, 3, 80, 0, 0)


def test_lost_requests_and_other_worlds_are_found(soaked: Callable[[Guests], soak_rollouts.Soak]) -> None:
    made = soaked(Guests(lossy="after launch", wrong="after finish"))
    (tally,) = made.tallies
    assert (tally.kills, tally.requests, tally.lost, tally.wrong) == (3, 81, 1, 1)
    assert sorted(text.partition(":")[0] for text in made.findings) == [
        "blue-green, killed after finish",
        "blue-green, killed after launch",
    ]
    assert any("weights: 50, not 100" in text for text in made.findings)


def test_simulated_rollout_that_comes_to_another_end_is_found(tmp_path: Path) -> None:
    made = soak_rollouts.Soak(tmp_path, 7, 0.0)
    made._simulated(replace(CASES[0], spec=quick("blue-green"), end=State.ROLLED_BACK))
    assert [tally.wrong for tally in made.tallies] == [1]
    assert len(made.findings) == 1


@pytest.mark.parametrize(("rollouts", "code"), [(True, 0), (False, 1)])
def test_exit_code_says_whether_anything_was_found_and_the_minutes_are_shared(
    rollouts: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []

    def found(is_well: bool) -> Callable[[argparse.Namespace, float], bool]:
        return lambda _, minutes: shares.append(minutes) or is_well  # type: ignore[func-returns-value]

    monkeypatch.setattr(soak, "SOAKS", {"rollouts": found(rollouts), "bake": found(True)})
    monkeypatch.setattr("sys.argv", ["soak", "--minutes", "10", "--scratch", str(tmp_path / "scratch")])
    assert soak.main() == code
    assert shares == [5, 5]
