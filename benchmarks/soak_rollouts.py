"""kill -9 of rollouts at every boundary between two actions, and what comes of it: a part of `make soak`.

First on the simulator, all boundaries of every case of the tests; then the properties of the machine and of healing,
with many examples from a new seed; then over real guests under load, where each boundary is killed in a rollout of its
own, back and forth on one fleet, until all were met or the time is over. Nothing may be lost, and each rollout must
come to the end, and the world, of one that nobody disturbed.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import clock
from benchmarks.load import load
from benchmarks.scratch import REPOSITORY

sys.path += [str(REPOSITORY / "tests" / name) for name in ("unit", "contract", "e2e")]

import guest_fleets
import killing
import tiny_images
from guest_fleets import Case, GuestFleet, Rolled
from local_fleets import free_port

PER_S = 20
_PROPERTIES = ("test_rollout_machine.py", "test_rollout_heal.py", "test_rollout_judgement.py")


@dataclass
class Tally:
    """What happened in the rollouts of one case. `boundaries`: how many one has that nobody disturbs."""

    case: str
    boundaries: int = 0
    kills: int = 0
    requests: int = 0
    lost: int = 0
    wrong: int = 0

    def line(self) -> str:
        cells = (self.boundaries, self.kills, self.requests, self.lost, self.wrong)
        return f"{self.case:<28}" + "".join(f"{cell:>12}" for cell in cells)


HEAD = f"{'case':<28}" + "".join(f"{name:>12}" for name in ("boundaries", "kills", "requests", "lost", "wrong ends"))


@dataclass
class Soak:
    """What was killed, and what was found."""

    folder: Path
    seed: int
    ends_at: float
    tallies: list[Tally] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def run(self) -> None:
        """All of it, in order."""
        for case in killing.CASES:
            self._simulated(case)
        self._properties()
        with self._fleet() as fleet:
            try:
                new = fleet.rolled(guest_fleets.BLUE_GREEN)
                assert new.end == f"end {guest_fleets.BLUE_GREEN.end}", f"a new fleet came to {new.end}"
                world = fleet.world()
                for guests in guest_fleets.CASES:
                    self._guests(fleet, guests, world)
            except AssertionError as error:
                self._find(f"it could not go on: {error}")

    # --- without machines

    def _simulated(self, case: killing.Case) -> None:
        tally = self._tally(f"simulated {case.name}")
        try:
            for _ in killing.killed_everywhere(case, self.folder / "simulated" / case.name):
                tally.kills += 1
        except AssertionError as error:
            tally.wrong += 1
            self._find(f"{tally.case}: {error}")
        tally.boundaries = tally.kills + tally.wrong
        _say(f"{tally.case}: killed at {tally.kills} boundaries")

    def _properties(self) -> None:
        argv = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", "-p", "no:cacheprovider"]
        argv += ["--hypothesis-profile", "soak", "--hypothesis-seed", str(self.seed)]
        argv += [f"tests/unit/{name}" for name in _PROPERTIES]
        done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
        _say(f"properties, seed {self.seed}: {last}")
        if done.returncode != 0:
            self._find(f"properties, seed {self.seed}:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")

    # --- over real guests

    @contextmanager
    def _fleet(self) -> Iterator[GuestFleet]:
        fleet = GuestFleet(self.folder / "fleet", free_port(), tiny_images.bake(*tiny_images.IMAGES))
        fleet.root.mkdir()
        try:
            yield fleet
        finally:
            fleet.close()

    def _guests(self, fleet: GuestFleet, case: Case, world: dict[str, object]) -> None:
        """Once undisturbed, to know its boundaries; then killed at each of them, in any order, while there is time."""
        if time.monotonic() > self.ends_at:
            _say(f"no time is left for {case.name}")
            return
        tally = self._tally(f"guests, {case.name}")
        whole = self._rolled(fleet, case, world, tally, lambda _: False)
        numbers = list(range(len(whole.places)))
        tally.boundaries = len(numbers)
        random.Random(self.seed).shuffle(numbers)
        for number in numbers:
            if time.monotonic() > self.ends_at:
                return
            count = itertools.count()
            self._rolled(fleet, case, world, tally, lambda _, count=count, number=number: next(count) == number)  # type: ignore[misc]

    def _rolled(
        self, fleet: GuestFleet, case: Case, world: dict[str, object], tally: Tally, is_fatal: Callable[[str], bool]
    ) -> Rolled:
        """One rollout under load, and what is wrong with it."""
        began = time.monotonic()
        with load(fleet.url, PER_S) as found:
            rolled = fleet.rolled(case, is_fatal)
        tally.kills += len(rolled.kills)
        tally.requests += found.sent
        tally.lost += len(found.lost)
        when = f"{case.name}, killed {', '.join(rolled.kills) or 'nowhere'}"
        took = f"{time.monotonic() - began:.0f} s, load {clock.load():.1f}"
        _say(f"{when}: {rolled.end}, {found.sent} requests, {len(found.lost)} lost, {took}")
        if found.lost:
            self._find(f"{when}: {len(found.lost)} requests lost: {found.lost[:3]}")
        now = fleet.world()
        if rolled.end != f"end {case.end}" or now != world:
            tally.wrong += 1
            self._find(f"{when}: {rolled.end}, and {_differences(world, now)}")
        return rolled

    def _tally(self, case: str) -> Tally:
        self.tallies.append(Tally(case))
        return self.tallies[-1]

    def _find(self, text: str) -> None:
        self.findings.append(text)
        print(f"          ! {text}", flush=True)


def _differences(world: dict[str, object], now: dict[str, object]) -> str:
    return (
        "; ".join(f"{key}: {now[key]}, not {world[key]}" for key in world if now[key] != world[key]) or "all is there"
    )


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def soak(folder: Path, minutes: float, seed: int) -> bool:
    """Soak for so long, and print what was found; whether nothing was lost and each rollout ended as it should."""
    soaked = Soak(folder, seed, time.monotonic() + minutes * 60)
    soaked.run()
    print("\n".join(["", HEAD, *(tally.line() for tally in soaked.tallies)]))
    print(f"findings: {len(soaked.findings)}")
    for finding in soaked.findings:
        print(f"  ! {finding}")
    return not soaked.findings
