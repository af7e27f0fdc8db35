"""`make bench`: a hand-written Packer build of `web` against the factory's bake of it; a bake of nothing; a deploy job;
the catalog of a million images, and one that many processes write to; fleets of ten thousand simulated instances; a
fleet of three guests under load.

    python -m benchmarks.run [--repeat N] [--factory DIR] [--scratch DIR]
                             [--quick [--merge] | --catalog --merge | --load --merge | --rollouts --merge]

Prints a table; writes `benchmarks/results.json` and `docs/benchmarks.md`. Bakes run on a copy of the factory, the rest
on factories made for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    catalog,
    catalog_load,
    deploy,
    factory_bake,
    fleet,
    handwritten_build,
    machine,
    report,
    rollout,
    unchanged,
)
from benchmarks.catalog_load import Load
from benchmarks.clock import Measured
from benchmarks.machine import Machine
from benchmarks.report import Quick, Results
from benchmarks.scratch import FACTORY, REPOSITORY, copy_of, empty
from factory.errors import FactoryError
from factory.model import Layout

IMAGE = "web"
IMAGES = 100
QUICK_TIMES = 11
LOAD_S, WRITERS, READERS = 60, 8, 4


def main() -> int:
    """Measure, print, write; the exit code."""
    chosen = _arguments()
    try:
        results = _measure(chosen)
    except FactoryError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    print("\n" + report.table(results))
    if chosen.merge or not chosen.quick:
        chosen.out.write_text(json.dumps(results.as_json(), indent=2) + "\n")
        chosen.document.parent.mkdir(exist_ok=True)
        chosen.document.write_text(report.document(results))
        print(f"\nwritten: {chosen.out} and {chosen.document}")
    return 0


def _measure(chosen: argparse.Namespace) -> Results:
    with empty(chosen.scratch, keep=chosen.keep) as layout:
        here = machine.describe(layout)
        before = report.stored(json.loads(chosen.out.read_text()), here) if chosen.merge else None
        is_part = chosen.catalog or chosen.load or chosen.rollouts
        results = before if before is not None and is_part else _start(before, layout, here)
        if not (chosen.quick or chosen.catalog or chosen.load):
            found = rollout.measure(layout.state / "rollouts", say=_say)
            results = replace(results, rollouts=tuple(found), rollouts_on=_today())
            guests = fleet.measure(layout.state / "fleets", say=_say)
            results = replace(results, fleets=tuple(guests), fleets_on=_today())
        if not (chosen.quick or chosen.load or chosen.rollouts):
            results = _with_catalog(results, layout, chosen)
        if not (chosen.quick or chosen.rollouts):
            results = _with_load(results, layout)
    return results if chosen.quick or is_part else _with_bakes(results, chosen)


def _start(before: Results | None, layout: Layout, here: Machine) -> Results:
    """Start-up and deploy jobs, with what was measured before."""
    _say("start-up, and a bake of nothing")
    quick = _quick(layout)
    _say("a deploy job")
    job = deploy.measure(layout.state / "deploy")
    if before is None:
        return Results(here, quick, job, _today())
    return replace(before, quick=quick, deploy=job, quick_on=_today())


def _with_catalog(before: Results, layout: Layout, chosen: argparse.Namespace) -> Results:
    found = catalog.measure(layout.state / "catalog", chosen.catalog_images, _say)
    return replace(before, catalog=found, catalog_on=_today())


def _with_load(before: Results, layout: Layout) -> Results:
    _say(f"{WRITERS} processes write to a catalog, and {READERS} read it, for {LOAD_S} s")
    folder = layout.state / "load"
    folder.mkdir(parents=True, exist_ok=True)
    done = catalog_load.run(folder, Load(LOAD_S, WRITERS, READERS))
    for told in (*done.failures, *done.problems):
        _say(told)
    return replace(before, load=done, load_on=_today())


def _with_bakes(results: Results, chosen: argparse.Namespace) -> Results:
    with copy_of(chosen.factory, chosen.scratch, keep=chosen.keep) as layout:
        _say(f"warming up: whatever {IMAGE} still lacks is baked")
        factory_bake.warm_up(layout, IMAGE)
        prepared = handwritten_build.prepare(layout, layout.state / "handwritten")
        by_hand: list[Measured] = []
        by_factory: list[Measured] = []
        for number in range(1, chosen.repeat + 1):
            _say(f"run {number} of {chosen.repeat}: the hand-written Packer build")
            by_hand.append(handwritten_build.build(prepared, number))
            _say(f"  {report.one(by_hand[-1])}")
            _say(f"run {number} of {chosen.repeat}: factory bake {IMAGE} --force")
            by_factory.append(factory_bake.bake(layout, IMAGE))
            _say(f"  {report.one(by_factory[-1])}")
        return replace(results, by_hand=tuple(by_hand), by_factory=tuple(by_factory), bakes_on=_today())


def _quick(layout: Layout) -> Quick:
    many = unchanged.make(layout.state / "unchanged", IMAGES)
    return Quick(
        images=IMAGES,
        nothing_s=unchanged.bake_s(many, IMAGES, QUICK_TIMES),
        help_s=unchanged.process_s([*FACTORY, "--help"], QUICK_TIMES),
        python_s=unchanged.process_s([sys.executable, "-c", "pass"], QUICK_TIMES),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=2, help="how often each of the two is measured, in turns")
    parser.add_argument("--factory", type=Path, default=REPOSITORY, help="the factory whose caches are copied")
    parser.add_argument("--scratch", type=Path, default=REPOSITORY / ".factory" / "bench", help="where the copy goes")
    parser.add_argument("--keep", action="store_true", help="keep the copy")
    parser.add_argument("--quick", action="store_true", help="only start-up and deploy jobs; writes nothing")
    parser.add_argument("--catalog", action="store_true", help="only the catalog; goes with --merge")
    parser.add_argument("--load", action="store_true", help="only many processes at a catalog; goes with --merge")
    parser.add_argument("--rollouts", action="store_true", help="only rollouts; goes with --merge")
    parser.add_argument("--catalog-images", type=int, default=catalog.IMAGES, help="how many images it is to have")
    parser.add_argument("--merge", action="store_true", help="write what is measured, with the rest of --out as it is")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results.json")
    parser.add_argument("--document", type=Path, default=REPOSITORY / "docs" / "benchmarks.md")
    chosen = parser.parse_args()
    parts = [chosen.quick, chosen.catalog, chosen.load, chosen.rollouts]
    if chosen.merge and not any(parts):
        parser.error("--merge goes with --quick, --catalog, --load or --rollouts: a full run measures everything")
    if sum(parts) > 1 or (sum(parts) and not chosen.quick and not chosen.merge):
        parser.error("--catalog, --load and --rollouts go with --merge, and each of the four without the others")
    chosen.factory, chosen.scratch = chosen.factory.resolve(), chosen.scratch.resolve()
    return chosen


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
