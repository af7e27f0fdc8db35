"""kill -9 of healing at every boundary between two of its actions: the next run ends as if nothing had happened."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from healing import Healer
from killing import MOST, Driver
from rollout_drive import OLD
from simulated_fleets import Simulated, Stopping, quick

from factory.catalog import audit, check, rollouts
from factory.catalog.database import Catalog
from factory.digest import of_bytes
from factory.rollout.heal import End, Limits
from factory.rollout.mending import Mended
from factory.rollout.model import Generation, Image

SPEC = quick("canary", min=2, max=5)
KINDS = {"before intend", "after intend", "before launch", "after launch", "before shift", "after shift",
         "before retire", "after retire", "after finish"}  # fmt: skip


def disorder(folder: Path) -> Path:
    """Two that serve, one of somebody else's image with a share of the traffic, one left over."""
    folder.mkdir()
    made, other = Simulated(folder), Image("web", "amd64", of_bytes(b"other"), {})
    made.write()
    for number, image, count in ((1, OLD, 2), (2, other, 1), (3, OLD, 1)):
        made.provider.launch(Generation(number, image, "r"), count)
    made.clock.sleep(100)
    made.provider.shift({1: 67, 2: 33})
    return folder


def heal(made: Simulated, provider: Any = None) -> Mended:
    clock, served = made.clock, Generation(1, OLD, "r")
    limits = Limits(budget=3)
    return Healer(made.catalog_path, SPEC, served, provider or made.provider, limits, clock, clock.sleep).run()


def main(folder: Path) -> None:
    """Heal the fleet in a folder, stopping at each boundary."""
    made = Simulated.read(folder)
    made.clock.sleep(0.1)  # to begin takes time too
    provider = Stopping(made.provider)
    intend, finish = rollouts.intend, rollouts.finish

    def intended(*arguments: Any) -> list[int]:
        provider.at("before intend")
        found = intend(*arguments)
        provider.at("after intend")
        return found

    def finished(catalog: Catalog, outcomes: Mapping[int, str | None]) -> None:
        finish(catalog, outcomes)
        provider.at("after finish")

    rollouts.intend, rollouts.finish = intended, finished  # type: ignore[assignment]
    sys.stdout.write(f"end {heal(made, provider).end}\n")


def killed_at(folder: Path, number: int) -> str:
    """Heal up to the boundary of this number (from 0) and kill it there; where that was."""
    count = itertools.count()
    return Driver.start(lambda: main(folder)).until(lambda _: next(count) == number)


def killed_everywhere(template: Path) -> Iterator[tuple[str, Path]]:
    """Kill at each boundary, each time in a fleet of its own: where, and the fleet's folder."""
    for number in range(MOST):
        folder = template.with_name(f"killed {number}")
        shutil.copytree(template, folder)
        place = killed_at(folder, number)
        if place.startswith("end "):
            return
        yield place, folder


def assert_mended(folder: Path, when: str) -> None:
    """Only what should runs, and the catalog says the same and is whole."""
    observed = Simulated.read(folder).observed()
    staying = [one for one in observed.instances if one.state != "stopping"]
    assert [one.generation for one in staying] == [1, 1, 1], when
    assert observed.weights == {1: 100}, when
    with Catalog.open(folder / "catalog.db") as catalog:
        assert rollouts.open_intents(catalog, "web") == [], when
        assert set(rollouts.instances(catalog, "web")) >= {one.id for one in staying}, when
        found = check.problems(catalog.connection, catalog.path, lambda: list(audit.logs(catalog.connection, {})))
        assert [str(problem) for problem in found] == [], when


def test_kill_at_every_boundary_of_healing_comes_to_the_same_end(tmp_path: Path) -> None:
    places = set()
    for place, folder in killed_everywhere(disorder(tmp_path / "template")):
        assert heal(Simulated.read(folder)).end == End.DONE, f"killed {place}"
        assert_mended(folder, f"killed {place}")
        places.add(place)
    assert places == KINDS


def test_kill_after_kill_of_healing_still_comes_to_the_same_end(tmp_path: Path) -> None:
    folder = disorder(tmp_path / "killed")
    kills = 0
    while not killed_at(folder, 3 + kills % 6).startswith("end ") and kills < MOST:
        kills += 1
    assert kills >= 5
    assert heal(Simulated.read(folder)).end == End.DONE
    assert_mended(folder, f"killed {kills} times")
