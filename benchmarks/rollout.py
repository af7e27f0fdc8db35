"""How quickly, and in how much memory, a fleet of many instances is planned and rolled: on the simulator of the tests.

    python -m benchmarks.rollout STRATEGY COUNT FOLDER

Engine, machine, catalog and log are the product's own; machines are the simulator's, and so is the clock, which goes on
while the engine sleeps. What the simulator takes for itself is measured, and not counted as the engine's.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.scratch import REPOSITORY

sys.path.append(str(REPOSITORY / "tests" / "contract"))

from simulated_provider import Behaviour, SimulatedProvider

from factory import proc
from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.digest import of_bytes
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import flow, log, plan
from factory.rollout.analysis import Measurement
from factory.rollout.engine import Around, Engine
from factory.rollout.health import Answer
from factory.rollout.model import (
    Analysis,
    FleetSpec,
    Generation,
    Health,
    Image,
    Observation,
    Plan,
    State,
    Step,
)

INSTANCES = 10_000
STRATEGIES = ("blue-green", "canary", "rolling")
OLD, NEW = (Image("web", "amd64", of_bytes(name), {"local": "/disk"}) for name in (b"old image", b"new image"))


@dataclass(frozen=True)
class Measured:
    """One rollout. `engine_s`: of `wall_s`, without what the simulator took. `peak_mib`: of the whole process."""

    strategy: str
    instances: int
    wall_s: float
    engine_s: float
    plan_s: float
    peak_mib: float
    turns: int

    @property
    def per_instance_s(self) -> float:
        """The engine's own time for one instance."""
        return self.engine_s / self.instances


def measure(folder: Path, count: int = INSTANCES, say: Callable[[str], None] = lambda _: None) -> list[Measured]:
    """A rollout by each strategy, each in a process of its own."""
    found = []
    for strategy in STRATEGIES:
        say(f"a {strategy} rollout of {count} simulated instances")
        argv = [sys.executable, "-m", "benchmarks.rollout", strategy, str(count), str(folder / strategy)]
        found.append(Measured(**json.loads(proc.run(argv, cwd=REPOSITORY).stdout)))
    return found


class Timed:
    """A provider, and how long it took. It has no word on health: instances are asked, and answer at once."""

    def __init__(self, provider: SimulatedProvider) -> None:
        self._provider = provider
        self._healthy: dict[str, bool] = {}
        self.took_s = 0.0

    def observe(self) -> Observation:
        began = time.perf_counter()
        seen = self._provider.observe()
        self._healthy = {one.id: bool(one.healthy) for one in seen.instances}
        asked = tuple(replace(one, healthy=None, address="127.0.0.1:80") for one in seen.instances)
        found = Observation(asked, seen.weights)
        self.took_s += time.perf_counter() - began
        return found

    def probe(self, addresses: Mapping[str, str], _: Health) -> Mapping[str, Answer]:
        return {one: Answer(self._healthy.get(one, False), "as the simulator says") for one in addresses}

    def launch(self, generation: Generation, count: int) -> None:
        self._timed(lambda: self._provider.launch(generation, count))

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        self._timed(lambda: self._provider.shift(weights, draining))

    def retire(self, instances: Iterable[str]) -> None:
        self._timed(lambda: self._provider.retire(instances))

    def faults(self, image_arch: str) -> list[str]:
        return self._provider.faults(image_arch)

    def _timed(self, call: Callable[[], None]) -> None:
        began = time.perf_counter()
        call()
        self.took_s += time.perf_counter() - began


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class _Trusting:
    def refusal(self, image: Image) -> str | None:
        return None

    revoked = refusal


def fleet(strategy: str, count: int) -> FleetSpec:
    """A fleet of that size; its canary has four steps and an analysis in each, its rolling twenty steps."""
    steps = tuple(Step(weight, 5, analyse=True) for weight in (1, 10, 25, 50))
    found = Analysis("http_json", "http://127.0.0.1:1/", "error_rate", success="< 0.01", baseline="fresh")
    made = FleetSpec(
        "web", "local", "web", "prod", count, count, 2 * count + 1, strategy,  # type: ignore[arg-type]
        Health(tcp=80, successes=2, deadline_s=600), listen="127.0.0.1:8080", bake_s=10,
    )  # fmt: skip
    if strategy == "canary":
        return replace(made, steps=steps, analysis=found)
    return replace(made, surge=max(1, count // 20)) if strategy == "rolling" else made


def rolled(strategy: str, count: int, folder: Path) -> Measured:
    """Plan and roll a fleet of OLD to NEW, in this process."""
    spec, clock = fleet(strategy, count), Clock()
    simulated = SimulatedProvider(None, clock, {image.digest: Behaviour() for image in (OLD, NEW)})
    simulated.launch(Generation(1, OLD, "before"), count)
    clock.sleep(60)
    simulated.shift({1: 100})
    provider = Timed(simulated)
    layout = Layout(folder)
    written = log.Log(log.path_of(layout, "web"))
    began = time.perf_counter()
    made = Plan("r-1", spec, NEW, 2, plan.stages(spec, count), OLD, 1, 3)
    plan.preview(made, count)
    planned = time.perf_counter()
    turns = []
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, "web") as fence:
        flow.begin(catalog, fence, made)
        known = rollouts.last(catalog, "web")
        assert known is not None

        def told(turn: object) -> None:
            written.turn(turn)  # type: ignore[arg-type]
            turns.append(clock.now)

        around = Around(catalog, provider, _Trusting(), fence, clock, provider.probe, _good, told)
        status = Engine(around, known).run(clock.sleep)
    wall_s = time.perf_counter() - began
    assert status.state == State.SUCCEEDED, status
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(strategy, count, wall_s, wall_s - provider.took_s, planned - began, peak_mib, len(turns))


def _good(_: object, subject: object, baseline: object, at: float) -> Measurement:
    return Measurement(at, 0.0, 0.0)


if __name__ == "__main__":
    print(json.dumps(vars(rolled(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))))
