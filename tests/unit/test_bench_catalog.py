from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import catalog_made, catalog_plan, catalog_report
from benchmarks.catalog import Measured
from benchmarks.catalog_load import Load
from benchmarks.catalog_plan import Shape
from benchmarks.catalog_signed import Costs
from factory.catalog import chain, clock, contents, events, lineage
from factory.catalog.database import Catalog
from factory.compliance import audit
from factory.model import Layout

SMALL = Shape(
    120, sets=4, packages=400, set_size=30, core=10, added=3, names=5, wide=20, per_run=10, promotions=12,
    revocations=2, instances=3, checks=2, checked=4,
)  # fmt: skip


def dump(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, but for the catalog's own random id and the first event, which has the time."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in sorted(tables)}


def test_catalog_in_bulk_is_row_for_row_what_the_product_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    bakes = list(catalog_plan.plans(SMALL))
    first = next(n for n in itertools.count(SMALL.per_run, SMALL.per_run) if n >= SMALL.sets)
    at = {"number": 0}

    def planned_time() -> str:
        return clock.text(catalog_plan.at(SMALL, at["number"]))

    for module in (chain, contents, events):
        monkeypatch.setattr(module, "now", planned_time)

    def as_product_does(catalog: Catalog, number: int) -> None:
        run = catalog_plan.run_of(SMALL, number)
        at["number"] = number
        if number % SMALL.per_run == 0:
            events.begin_run(catalog, run, catalog_made.COMMAND)
        with catalog.writing() as database:
            contents.put_bake(database.conn, catalog_plan.recorded(SMALL, bakes[number]))
        if number % SMALL.per_run == SMALL.per_run - 1:
            events.end_run(catalog, run, 0)

    with Catalog.open(ours) as catalog:
        for number in range(first):
            as_product_does(catalog, number)
        catalog.connection.execute("VACUUM INTO ?", [str(theirs)])
        catalog_made.in_bulk(catalog, SMALL, bakes[first:])
    with Catalog.open(theirs) as catalog:
        for number in range(first, SMALL.images):
            as_product_does(catalog, number)
    found, wanted = dump(ours), dump(theirs)
    assert len(wanted["images"]) == SMALL.images + catalog_plan.BASES
    assert len(wanted["events"]) == 1 + SMALL.images + 2 * SMALL.images // SMALL.per_run
    for table, rows in wanted.items():
        assert found[table] == rows, table


def test_catalog_that_is_made_holds_together(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    sizes = catalog_made.make(layout.catalog, SMALL)
    assert 0 < sizes.shared <= sizes.bakes <= sizes.everything
    with audit.opened(layout) as catalog:
        checked = audit.check(layout, catalog)
        assert not checked.problems
        assert checked.integrity is not None
        assert not checked.integrity.faults
        tables = ("images", "bakes", "package_set_counts", "channel_assignments", "revocations", "instances", "checks")
        assert [catalog.query(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables] == [
            124, 120, 4, 12, 2, 3, 8,
        ]  # fmt: skip
        root = catalog.query(
            "SELECT id FROM images WHERE digest = ?", [catalog_plan.digest_of("image", SMALL.wide_root)]
        )
        assert lineage.count_descendants(catalog, root[0]["id"]) == SMALL.wide


def test_plans_of_a_large_shape_are_as_they_are_told() -> None:
    shape = catalog_plan.shape_of(20_000)
    depths: list[int] = []
    inside = {shape.wide_root}
    for bake in catalog_plan.plans(shape):
        assert bake.number == len(depths)
        assert -catalog_plan.BASES <= bake.parent < bake.number
        depths.append(1 if bake.parent < 0 else depths[bake.parent] + 1)
        if bake.parent in inside:
            inside.add(bake.number)
    assert len(inside) - 1 == shape.wide == 800
    counted = Counter(depths)
    assert max(counted) <= catalog_plan.DEEPEST
    assert sum(counted[depth] for depth in range(5, 13)) > 0.6 * shape.images


def test_package_sets_of_a_shape_have_every_package() -> None:
    shape = replace(SMALL, sets=20)
    sets = [catalog_plan.set_of(shape, number) for number in range(shape.sets)]
    assert all(len({package.name for package in one}) == shape.set_size for one in sets)
    assert len(set(sets)) == shape.sets
    assert len(set(itertools.chain.from_iterable(sets))) == shape.packages


def test_report_of_the_catalog_comes_back_from_json() -> None:
    numbers = {name: 1 for name in Measured.__annotations__ if name != "costs"}
    measured = Measured(**{**numbers, "costs": Costs(*[2] * len(Costs.__annotations__))})  # type: ignore[arg-type]
    assert catalog_report.from_json(catalog_report.as_json(measured)) == measured
    targets = [figure for figure in catalog_report.figures(measured) if figure.target is not None]
    assert len(targets) == 7
    lines = catalog_report.document(measured, "2026-11-25")
    assert all(len(line) <= 120 for line in lines)
    assert "takes about 0 kB" in " ".join(lines)


def test_report_of_many_processes_says_what_was_lost() -> None:
    done = Load(60, 8, 4, writes=900, reads=300, slowest_write_s=2.5, lost=["a"], failures=["b"], problems=["c"])
    assert Load(**json.loads(json.dumps(vars(done)))) == done
    assert [(figure.value, figure.reached) for figure in catalog_report.load_figures(done)] == [
        (900, None), (1, False), (2, False), (2.5, None)
    ]  # fmt: skip
    assert all(len(line) <= 120 for line in catalog_report.load_document(done, "2026-11-25"))
