"""Fleets of real, tiny guests, rolled from image to image by the real engine, in processes that are there to be killed.

Engine, catalog and provider are the product's; that its images are trusted is taken for granted. Who drives a fleet is
a program of its own, this file, run with the fleet's folder: it stops at each boundary and waits to be let on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests/contract"), str(PROJECT / "tests/unit")]

from killing import Driver  # noqa: E402
from local_fleets import fleet_of  # noqa: E402
from simulated_fleets import Stopping, Trusted, say_end, stop_at_decisions  # noqa: E402

from factory import proc  # noqa: E402
from factory.catalog import audit, check, rollouts  # noqa: E402
from factory.catalog.database import Catalog  # noqa: E402
from factory.model import Layout  # noqa: E402
from factory.rollout import fleet as fleets  # noqa: E402
from factory.rollout import flow, plan  # noqa: E402
from factory.rollout.engine import Around, Engine  # noqa: E402
from factory.rollout.model import FleetSpec, Health, HttpProbe, Image, Order, Plan, State, Step  # noqa: E402
from factory.rollout.providers.local import connect, folder_of  # noqa: E402
from factory.rollout.providers.local.guests import is_ours, tagged  # noqa: E402
from factory.rollout.providers.local.provider import LocalProvider  # noqa: E402

FLEET = "web"
GOOD = ("tiny-one", "tiny-two")
HEALTH = Health(http=HttpProbe(80, "/", 200, "IMAGE_VERSION"), successes=1, interval_s=0.5, timeout_s=5)
_HALF = (Step(50, 1.0),)


@dataclass(frozen=True)
class Case:
    """A rollout, and how it ends. `image`: what to, or else the one of `GOOD` that does not serve now. `abort_at`: the
    boundary at which an operator says so."""

    name: str
    fleet: Mapping[str, object]
    image: str | None = None
    abort_at: str = ""
    end: State = State.SUCCEEDED


BLUE_GREEN = Case("blue-green", {"strategy": "blue-green"})
CANARY = Case("canary", {"steps": _HALF})
ROLLING = Case("rolling", {"strategy": "rolling"})
ABORTED = Case("canary, aborted", {"steps": _HALF}, abort_at="after keep ANALYSING", end=State.ROLLED_BACK)
BROKEN = Case("broken", {"health": replace(HEALTH, deadline_s=20)}, "tiny-broken", end=State.ROLLED_BACK)
CASES = (BLUE_GREEN, ABORTED, BROKEN, CANARY, ROLLING)


@dataclass(frozen=True)
class Rolled:
    """What a rollout went through, and its end: all its boundaries, those at which it was killed, `end STATE`."""

    end: str
    places: tuple[str, ...]
    kills: tuple[str, ...]


@dataclass(frozen=True)
class GuestFleet:
    """A fleet of one guest in a folder, and the images that it can have."""

    root: Path
    port: int
    images: Mapping[str, Image]

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def provider(self) -> LocalProvider:
        return connect(self.layout, self._spec(BLUE_GREEN))

    def _spec(self, case: Case) -> FleetSpec:
        about = {"size": 1, "min": 1, "max": 2, "health": HEALTH, "memory_mib": 384, "bake_s": 1.0}
        return fleet_of(FLEET, self.port, **{**about, **case.fleet})

    def begin(self, case: Case) -> None:
        """Begin a rollout from what serves, or of a new fleet."""
        spec = self._spec(case)
        with Catalog.open(self.layout.catalog) as catalog, fleets.leased(catalog, FLEET) as fence:
            old = fleets.serving(catalog, FLEET, self.provider.observe())
            name = case.image or next(name for name in GOOD if old is None or self.images[name] != old.image)
            number = rollouts.last_generation(catalog, FLEET) + 1
            stages = plan.stages(spec, 0 if old is None else 1)
            made = Plan(f"r-{time.time_ns()}", spec, self.images[name], number, stages)
            if old is not None:
                made = replace(made, old=old.image, old_generation=old.generation)
            flow.begin(catalog, fence, made)

    def rolled(self, case: Case, is_fatal: Callable[[str], bool] = lambda _: False) -> Rolled:
        """Begin a rollout and see it to its end; who drives it is killed where that is fatal, and another goes on."""
        self.begin(case)
        places: list[str] = []
        kills: list[str] = []
        while True:
            place = self._driver().until(lambda place: self._at(place, case, places) or is_fatal(place))
            if place.startswith("end "):
                return Rolled(place, tuple(places), tuple(kills))
            kills.append(place)

    def _at(self, place: str, case: Case, places: list[str]) -> bool:
        if place == case.abort_at and place not in places:
            flow.order(self.layout, FLEET, Order.ABORT)
        places.append(place)
        return False

    def _driver(self) -> Driver:
        return Driver.spawn([sys.executable, __file__, str(self.root)], os.environ)

    def world(self) -> dict[str, object]:
        """All that there is of the fleet, in its catalog too; the generation that serves is called N, so that two
        worlds can be compared."""
        observed, folder = self.provider.observe(), folder_of(self.layout, FLEET)
        with Catalog.open(self.layout.catalog) as catalog:
            serving = fleets.serving(catalog, FLEET, observed)
            number = 0 if serving is None else serving.generation

            def named(text: object) -> str:
                return str(text).replace(f"-g{number}-", "-gN-")

            problems = check.problems(
                catalog.connection, catalog.path, lambda: list(audit.logs(catalog.connection, {}))
            )
            return {
                "instances": [(named(one.id), one.state, one.healthy) for one in observed.instances],
                "are what they should be": {serving is not None and one.digest == serving.image.digest
                                            for one in observed.instances},
                "weights": {"N" if one == number else one: weight for one, weight in observed.weights.items()},
                "processes": sorted(named(tag.id) for _, tag in tagged(folder)),
                "files": sorted(named(path.relative_to(folder)) for path in folder.rglob("*")),
                "instances in the catalog": sorted(map(named, rollouts.instances(catalog, FLEET))),
                "open calls": rollouts.open_intents(catalog, FLEET),
                "problems of the catalog": [str(problem) for problem in problems],
            }  # fmt: skip

    def close(self) -> None:
        for pid, tag in tagged(folder_of(self.layout, FLEET)):
            proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]


def main(root: Path) -> None:
    """Drive what was begun, stopping at each boundary."""
    layout = Layout(root)
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, FLEET) as fence:
        known = rollouts.last(catalog, FLEET)
        assert known is not None
        stopping = Stopping(connect(layout, fleets.plan_of(known).fleet))
        stop_at_decisions(stopping)
        status = Engine(Around(catalog, stopping, Trusted(), fence), known).run()
    say_end(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
