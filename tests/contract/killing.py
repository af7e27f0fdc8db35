"""kill -9 of an engine exactly at a boundary between two of its actions, and what must be so when the next has ended.

The engine runs in a process of its own (`Driver`) that says where it is and waits to be let on; whoever looks kills it
there, then drives on. The fleets here are simulated (simulated_fleets.main); those of real guests are in tests/e2e.
"""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import simulated_fleets
from simulated_fleets import Simulated, quick
from simulated_provider import Behaviour

from factory.catalog import audit, check, rollouts
from factory.catalog.database import Catalog
from factory.rollout import fleet as fleets
from factory.rollout.model import FleetSpec, State

MOST = 400
SILENT_S = 600
KINDS = {"before keep", "after keep", "before launch", "after launch", "before shift", "after shift", "before retire",
         "after retire", "after finish"}  # fmt: skip
"""Of boundaries; a place begins with its kind."""


@dataclass(frozen=True)
class Case:
    """A rollout, and how it ends."""

    name: str
    spec: FleetSpec
    new: Behaviour = field(default_factory=Behaviour)
    end: State = State.SUCCEEDED


CASES = (
    Case("blue-green", quick("blue-green")),
    Case("canary", quick("canary")),
    Case("rolling", quick("rolling", max=4)),
    Case("back", quick("canary"), Behaviour(ill_after_s=6), State.ROLLED_BACK),
    Case("rolling back", quick("rolling", max=4, bake_s=30.0), Behaviour(ill_after_s=20), State.ROLLED_BACK),
)


class EachKind:
    """Fatal at the first boundary of each kind."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    @staticmethod
    def of(place: str) -> str:
        """The kind of a place."""
        return " ".join(place.split()[:2])

    def __call__(self, place: str) -> bool:
        is_new = self.of(place) not in self._met
        self._met.add(self.of(place))
        return is_new


@dataclass
class Driver:
    """A process that drives a fleet and stops at each boundary."""

    pid: int
    heard: int
    said: int

    @classmethod
    def start(cls, drive: Callable[[], object]) -> Driver:
        """Forked, to drive so: to import everything anew would take longer than a simulated rollout. Not where this
        process has threads."""
        heard, tell = os.pipe()
        listen, said = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(heard)
            os.close(said)
            sys.stdin, sys.stdout = os.fdopen(listen), os.fdopen(tell, "w")
            try:
                drive()
                sys.stdout.flush()
            finally:
                os._exit(0)
        os.close(tell)
        os.close(listen)
        return cls(pid, heard, said)

    @classmethod
    def spawn(cls, argv: list[str], env: Mapping[str, str]) -> Driver:
        """A program of its own, whose standard input and output are what it waits for and what it says."""
        heard, tell = os.pipe()
        listen, said = os.pipe()
        ends = [(os.POSIX_SPAWN_DUP2, listen, 0), (os.POSIX_SPAWN_DUP2, tell, 1)]
        pid = os.posix_spawn(argv[0], argv, env, file_actions=ends)
        os.close(tell)
        os.close(listen)
        return cls(pid, heard, said)

    def until(self, is_fatal: Callable[[str], bool]) -> str:
        """Let it on from place to place, and kill it at the first that is fatal; that place, or `end STATE`.
        AssertionError where it dies by itself or is stuck."""
        for _ in range(MOST):
            place = self.next()
            if not place or place.startswith("end ") or is_fatal(place):
                self.kill()
                assert place, "the driver died by itself, or is stuck"
                return place
            self.let_on()
        self.kill()
        raise AssertionError("it does not end")

    def next(self) -> str:
        """Where it stopped; `end STATE` when it has ended; empty when it died, or says nothing for `SILENT_S`."""
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.heard], [], [], SILENT_S)[0]:
                return ""
            found = os.read(self.heard, 256)
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


def made(case: Case, folder: Path) -> Path:
    """A fleet in `folder` whose rollout was begun; a copy of the first one that was made."""
    template = folder.with_name(f"template {case.name}")
    if not template.exists():
        template.mkdir(parents=True)
        simulated = Simulated(template, new=case.new)
        simulated.write()
        simulated.found(case.spec)
    shutil.copytree(template, folder)
    return folder


def to_the_end(folder: Path) -> State:
    """Drive on, in this process; the state it ends in."""
    return Simulated.read(folder).drive().state


def killed_at(folder: Path, number: int) -> str:
    """Drive to the boundary of this number (from 0) and kill it there; where that was."""
    count = itertools.count()
    return Driver.start(lambda: simulated_fleets.main(folder)).until(lambda _: next(count) == number)


def killed_everywhere(case: Case, folder: Path) -> Iterator[str]:
    """Kill at each boundary, each time in a fleet of its own, and drive on: the places. AssertionError where that
    comes to another end than the undisturbed rollout."""
    assert to_the_end(made(case, folder / "whole")) == case.end
    for number in range(MOST):
        there = made(case, folder / f"killed {number}")
        place = killed_at(there, number)
        if place.startswith("end "):
            return
        came_to = to_the_end(there)
        assert came_to == case.end, f"killed {place}, it came to {came_to}"
        assert_same_world(there, case, f"killed {place}")
        yield place
        shutil.rmtree(there)


def assert_same_world(folder: Path, case: Case, when: str) -> None:
    """What runs in the end, and that the catalog says the same and is whole."""
    observed = Simulated.read(folder).observed()
    there = {one.id: one.generation for one in observed.instances if one.state != "stopping"}
    generation = 2 if case.end == State.SUCCEEDED else 1
    assert set(there.values()) == {generation}, when
    assert len(there) == 3, when
    assert observed.weights == {generation: 100}, when
    assert_catalog(folder / "catalog.db", case.end, there, when)


def assert_catalog(path: Path, end: State, there: Iterable[str], when: str) -> None:
    """That the catalog knows how a fleet's last rollout ended and what runs, that no call is open, and that it is
    whole."""
    with Catalog.open(path) as catalog:
        known = rollouts.last(catalog, "web")
        assert known is not None
        assert known.ended == end, when
        assert rollouts.open_intents(catalog, "web") == [], when
        assert fleets.status_of(known).state == end
        assert set(rollouts.instances(catalog, "web")) >= set(there), when
        found = check.problems(catalog.connection, catalog.path, lambda: list(audit.logs(catalog.connection, {})))
        assert [str(problem) for problem in found] == [], when
