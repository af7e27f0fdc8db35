"""A factory whose fleets run on the simulator: the engine and the catalog are real, the machines and the clock files.

Time passes while the engine sleeps, and only then; it goes on in the next process. `main` drives the rollout of a fleet
in a process of its own: at each boundary (before and after a decision is kept, before and after each call of the
provider) it writes a line and waits for one, so that its parent can kill it exactly there. What it stops with
(`Stopping`, `stop_at_decisions`) is good for any provider.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]

from rollout_drive import NEW, OLD, analysis, fleet  # noqa: E402
from simulated_provider import Behaviour, Faults, SimulatedProvider  # noqa: E402

from factory.catalog import rollouts  # noqa: E402
from factory.catalog.database import Catalog  # noqa: E402
from factory.rollout import fleet as fleets  # noqa: E402
from factory.rollout import flow, plan  # noqa: E402
from factory.rollout.analysis import Measurement  # noqa: E402
from factory.rollout.engine import Around, Engine  # noqa: E402
from factory.rollout.model import FleetSpec, Generation, Health, Image, Observation, Plan, Status, Step  # noqa: E402
from factory.rollout.providers import Provider  # noqa: E402


@dataclass
class Trusted:
    """Trust that can be withdrawn: digest -> why it was revoked; `unread`: why the papers cannot be read."""

    refused: dict[str, str] = field(default_factory=dict)
    unread: str | None = None

    def refusal(self, image: Image) -> str | None:
        return self.unread or self.refused.get(image.digest)

    def revoked(self, image: Image) -> str | None:
        return None if self.unread else self.refused.get(image.digest)


class FileClock:
    """Outlives who looks at it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now = float(path.read_text()) if path.exists() else 1_000_000.0

    def __call__(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self._path.write_text(repr(self._now))


def quick(strategy: str = "canary", size: int = 3, **more: Any) -> FleetSpec:
    """A fleet whose rollout takes half a minute of its clock."""
    steps = (Step(34, 3, analyse=True), Step(67, 3))
    health = Health(tcp=80, successes=1, interval_s=0.5, deadline_s=60)
    return fleet(
        strategy, size, steps=steps, health=health, analysis=analysis(interval_s=0.5), **{"bake_s": 2.0, **more}
    )


@dataclass
class Simulated:
    """One fleet in a folder."""

    folder: Path
    new: Behaviour = field(default_factory=Behaviour)
    old: Behaviour = field(default_factory=Behaviour)
    faults: Faults = field(default_factory=Faults)
    clock: Any = None

    def __post_init__(self) -> None:
        self.clock = self.clock or FileClock(self.folder / "clock")

    @property
    def provider(self) -> SimulatedProvider:
        behaviours = {OLD.digest: self.old, NEW.digest: self.new}
        return SimulatedProvider(self.folder / "world.json", self.clock, behaviours, faults=self.faults)

    @property
    def catalog_path(self) -> Path:
        return self.folder / "catalog.db"

    def found(self, spec: FleetSpec, old_count: int = 3) -> Plan:
        """A fleet of OLD that serves, and a rollout of NEW that was begun."""
        provider = replace_faults(self.provider)
        if old_count:
            provider.clock = lambda: self.clock() - 60
            provider.launch(Generation(1, OLD, "before"), old_count)
            provider.clock = self.clock
            provider.shift({1: 100})
        there = old_count > 0
        made = Plan("r-1", spec, NEW, 2, plan.stages(spec, old_count), OLD if there else None, 1 if there else None,
                    3 if there else None)  # fmt: skip
        with Catalog.open(self.catalog_path) as catalog, fleets.leased(catalog, spec.name) as fence:
            flow.begin(catalog, fence, made)
        return made

    def drive(self, provider: Any = None, **around: Any) -> Status:
        """Drive what was begun to its end."""
        with Catalog.open(self.catalog_path) as catalog:
            catalog.connection.execute("PRAGMA synchronous = OFF")  # what is killed is a process, not the host
            with fleets.leased(catalog, "web") as fence:
                known = rollouts.last(catalog, "web")
                assert known is not None
                return Engine(self.around(catalog, fence, provider, **around), known).run(self.clock.sleep)

    def around(self, catalog: Catalog, fence: int, provider: Any = None, **around: Any) -> Around:
        made = Around(catalog, provider or self.provider, Trusted(), fence, self.clock, measure=good)
        return replace(made, **around)

    def observed(self) -> Observation:
        return replace_faults(self.provider).observe()

    def write(self) -> None:
        """For the process that drives."""
        (self.folder / "behaviours.json").write_text(json.dumps([asdict(self.new), asdict(self.old)]))

    @classmethod
    def read(cls, folder: Path) -> Simulated:
        new, old = json.loads((folder / "behaviours.json").read_text())
        return cls(folder, Behaviour(**new), Behaviour(**old))


def replace_faults(provider: SimulatedProvider) -> SimulatedProvider:
    """The same world, with nothing going wrong."""
    provider.injected = Faults()
    return provider


def good(_: object, subject: object, baseline: object, at: float) -> Measurement:
    """A measurement without errors."""
    return Measurement(at, 0.0, 0.0)


class Stopping:
    """A provider that says where it is, and waits to be let on."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def at(self, place: str) -> None:
        sys.stdout.write(place + "\n")
        sys.stdout.flush()
        if not sys.stdin.readline():
            sys.exit("the parent is gone")

    def faults(self, image_arch: str) -> list[str]:
        return self._provider.faults(image_arch)

    def observe(self) -> Observation:
        return self._provider.observe()

    def launch(self, generation: Generation, count: int) -> None:
        self.at("before launch")
        self._provider.launch(generation, count)
        self.at("after launch")

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        self.at("before shift")
        self._provider.shift(weights, draining)
        self.at("after shift")

    def retire(self, instances: Iterable[str]) -> None:
        self.at("before retire")
        self._provider.retire(instances)
        self.at("after retire")


def stop_at_decisions(stopping: Stopping) -> None:
    """Have the engine of this process stop where it keeps a decision too, and once it has noted how its calls went.
    For good: this process is there to be killed."""
    keep, finish = rollouts.keep, rollouts.finish

    def kept(catalog: Catalog, fence: int, rollout: rollouts.Known, step: rollouts.Step) -> list[int]:
        worth = step.is_new_state or step.actions
        if worth:
            stopping.at(f"before keep {step.state}")
        found = keep(catalog, fence, rollout, step)
        if worth:
            stopping.at(f"after keep {step.state}")
        return found

    def finished(catalog: Catalog, outcomes: Mapping[int, str | None]) -> None:
        finish(catalog, outcomes)
        stopping.at("after finish")

    rollouts.keep, rollouts.finish = kept, finished


def say_end(status: Status) -> None:
    """The last line of a process that drives: how the rollout ended."""
    sys.stdout.write(f"end {status.state}\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    """Drive the fleet in a folder, stopping at each boundary."""
    simulated = Simulated.read(folder)
    simulated.clock.sleep(0.1)  # to begin takes time too
    stopping = Stopping(simulated.provider)
    stop_at_decisions(stopping)
    say_end(simulated.drive(stopping))
