"""kill -9 of the engine at every boundary between two of its actions: the next one ends as if nothing had happened.

The machines are the simulator's, a file that outlives the engine; the catalog is real. The engine runs in a process of
its own that says where it is and waits; its parent kills it there, then drives on in another.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import simulated_fleets
from simulated_fleets import Simulated, quick
from simulated_provider import Behaviour

from factory.catalog import audit, check, rollouts
from factory.catalog.database import Catalog
from factory.rollout import fleet as fleets
from factory.rollout.model import FleetSpec, State

NEVER = Behaviour(healthy_after_s=None)
MOST = 400


@dataclass
class Driver:
    """A process that drives a fleet and stops at each boundary."""

    pid: int
    heard: int
    said: int

    def next(self) -> str:
        """Where it stopped; `end STATE` when it has ended; empty when it died."""
        line = b""
        while not line.endswith(b"\n"):
            found = os.read(self.heard, 1)
            if not found:
                return ""
            line += found
        return line.decode().strip()

    def let_on(self) -> None:
        os.write(self.said, b"\n")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        os.waitpid(self.pid, 0)
        os.close(self.heard)
        os.close(self.said)


def start(folder: Path) -> Driver:
    """A driver, forked: to import everything anew would take longer than the rollout."""
    heard, tell = os.pipe()
    listen, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        os.close(said)
        os.dup2(listen, 0)
        os.dup2(tell, 1)
        import sys

        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        try:
            simulated_fleets.main(folder)
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(tell)
    os.close(listen)
    return Driver(pid, heard, said)


def to_the_end(folder: Path) -> tuple[str, int]:
    """Drive on; the state it ends in, and at how many boundaries it stopped."""
    driver = start(folder)
    for count in range(MOST):
        place = driver.next()
        if place.startswith("end "):
            driver.close()
            return place.removeprefix('end "').rstrip('"'), count
        assert place, "the driver died"
        driver.let_on()
    driver.kill()
    raise AssertionError("it does not end")


def killed_at(folder: Path, number: int) -> str:
    """Drive to the boundary of this number (from 0) and kill it there; where that was."""
    driver = start(folder)
    for count in range(MOST):
        place = driver.next()
        if count == number or place.startswith("end ") or not place:
            driver.kill()
            return place
        driver.let_on()
    raise AssertionError("it does not end")


@pytest.mark.parametrize(
    ("spec", "new", "end"),
    [
        (quick("blue-green"), Behaviour(), State.SUCCEEDED),
        (quick("canary"), Behaviour(), State.SUCCEEDED),
        (quick("rolling", max=4), Behaviour(), State.SUCCEEDED),
        (quick("canary"), Behaviour(ill_after_s=6), State.ROLLED_BACK),
    ],
    ids=["blue-green", "canary", "rolling", "back"],
)
def test_kill_at_every_boundary_comes_to_the_same_end(
    tmp_path: Path, spec: FleetSpec, new: Behaviour, end: State
) -> None:
    def made(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        simulated = Simulated(folder, new=new)
        simulated.write()
        simulated.found(spec)
        return folder

    whole = made("whole")
    state, boundaries = to_the_end(whole)
    assert state == end
    assert boundaries > 20
    number, places = 0, set[str]()
    while True:
        folder = made(f"killed-{number}")
        place = killed_at(folder, number)
        if place.startswith("end "):
            break
        places.add(place)
        assert to_the_end(folder)[0] == end, f"killed {place}"
        _same_world(folder, end, f"killed {place}")
        number += 1
    assert number >= 20
    assert {"before launch", "after launch", "before shift", "after shift", "before retire", "after retire",
            "after finish"} <= places  # fmt: skip


def _same_world(folder: Path, end: State, when: str) -> None:
    """What runs in the end, and that the catalog says the same and is whole."""
    observed = Simulated.read(folder).observed()
    there = {one.id: one.generation for one in observed.instances if one.state != "stopping"}
    generation = 2 if end == State.SUCCEEDED else 1
    assert set(there.values()) == {generation}, when
    assert len(there) == 3, when
    assert observed.weights == {generation: 100}, when
    with Catalog.open(folder / "catalog.db") as catalog:
        known = rollouts.last(catalog, "web")
        assert known is not None
        assert known.ended == end, when
        assert rollouts.open_intents(catalog, "web") == [], when
        assert fleets.status_of(known).state == end
        assert set(rollouts.instances(catalog, "web")) >= set(there), when
        found = check.problems(catalog.connection, catalog.path, lambda: list(audit.logs(catalog.connection, {})))
        assert [str(problem) for problem in found] == [], when
