"""The catalog under many processes at once, and under SIGKILL: of writers, of imports, backups, exports, migrations."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import catalog_load
from benchmarks.catalog_load import Load, record
from factory.catalog import audit, check, events, migrations
from factory.catalog.backup import backup
from factory.catalog.database import Catalog
from factory.catalog.exchange.export import export
from factory.catalog.exchange.take_over import take_over
from factory.compliance import transfer
from factory.model import Layout


def problems(path: Path) -> list[str]:
    with Catalog.read(path) as catalog:
        found = check.problems(catalog.connection, path, lambda: audit.logs(catalog.connection))
        return [str(one) for one in found]


def test_eight_writers_and_four_readers_lose_nothing(tmp_path: Path) -> None:
    done = catalog_load.run(tmp_path, Load(seconds=8, writers=8, readers=4))
    assert done.failures == []
    assert (done.lost, done.problems) == ([], [])
    assert done.ok


def test_killed_writers_leave_a_whole_catalog(tmp_path: Path) -> None:
    done = catalog_load.run(tmp_path, Load(seconds=6, writers=4, readers=2), kill=True, seed=7)
    assert done.kills > 3
    assert (done.failures, done.lost, done.problems) == ([], [], [])


def killed_at(moment: int, work: Callable[[], None]) -> bool:
    """Do some work in a child that is killed when it enters or leaves a function for the n-th time; whether it was."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            left = moment

            def count(*_: object) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.setprofile(count)
            work()
            sys.setprofile(None)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def calls_of(work: Callable[[], None]) -> int:
    """How many times that work enters or leaves a function."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A catalog with three bakes."""
    path = tmp_path / "source" / "catalog.db"
    with Catalog.open(path) as catalog:
        for number in range(3):
            record(catalog, f"run-{number}")
    return path


def moments(total: int, count: int) -> list[int]:
    chosen = random.Random(11)
    return sorted({1, 2, *(chosen.randrange(1, total) for _ in range(count)), total - 1})


def test_killed_import_leaves_all_or_nothing(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    with Catalog.read(source) as catalog:
        file.write_text("".join(export(catalog, "x")))
    target = tmp_path / "target" / "catalog.db"

    def work() -> None:
        with Catalog.open(target) as catalog:
            take_over(catalog, file)

    total = calls_of(work)
    outcomes = set()
    for moment in moments(total, 25):
        shutil.rmtree(target.parent)
        was_killed = killed_at(moment, work)
        with Catalog.open(target) as catalog:
            bakes = catalog.query("SELECT count(*) AS n FROM bakes")[0]["n"]
        outcomes.add((was_killed, bakes))
        assert problems(target) == []
    assert {bakes for _, bakes in outcomes} <= {0, 3}
    assert (True, 0) in outcomes
    work()
    assert problems(target) == []


def test_killed_backup_leaves_a_whole_file_or_none(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup" / "b.db"

    def work() -> None:
        with Catalog.read(source) as catalog:
            backup(catalog, target, force=True)

    total = calls_of(work)
    for moment in moments(total, 25):
        target.unlink(missing_ok=True)
        killed_at(moment, work)
        if target.exists():
            assert problems(target) == []
    work()
    assert [item.name for item in target.parent.iterdir()] == ["b.db"]
    assert problems(source) == []


def test_killed_export_leaves_a_whole_file_or_none(source: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "factory")
    layout.state.mkdir(parents=True)
    shutil.copy(source, layout.catalog)
    target = tmp_path / "e.jsonl"
    whole = "".join(transfer.lines(layout, "x"))

    def work() -> None:
        transfer.export(layout, target, "x", force=True)

    total = calls_of(work)
    for moment in moments(total, 15):
        target.unlink(missing_ok=True)
        killed_at(moment, work)
        assert not target.exists() or target.read_text() == whole


@pytest.mark.parametrize("version", [1, 2])
def test_killed_migration_goes_on_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    old = tmp_path / "old.db"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "VERSION", version)
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:version])
        with Catalog.open(old) as catalog, catalog.writing() as database:
            for number in range(20):
                database.conn.execute("INSERT INTO runs VALUES (?, '2026', 'x')", [f"r{number}"])
    path = tmp_path / "catalog.db"

    def work() -> None:
        Catalog.open(path).close()

    shutil.copy(old, path)
    total = calls_of(work)
    versions = set()
    for moment in moments(total, 25):
        for left in tmp_path.glob("catalog.db*"):
            left.unlink()
        shutil.copy(old, path)
        killed_at(moment, work)
        with closing(sqlite3.connect(path)) as connection:
            versions.add(connection.execute("PRAGMA user_version").fetchone()[0])
        with Catalog.open(path) as catalog:
            assert len(events.runs(catalog)) == 20
        assert problems(path) == []
    assert versions <= set(range(version, migrations.VERSION + 1))
    assert version in versions


def test_killed_beginning_leaves_no_half_catalog(tmp_path: Path) -> None:
    path = tmp_path / "f" / "catalog.db"

    def work() -> None:
        Catalog.open(path).close()

    total = calls_of(work)
    for moment in moments(total, 20):
        shutil.rmtree(path.parent, ignore_errors=True)
        killed_at(moment, work)
        assert not path.exists() or path.stat().st_size > 0
        Catalog.open(path).close()
        assert problems(path) == []
        assert [item.name for item in path.parent.glob(".*")] == []


def test_backup_made_while_others_write_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    Catalog.open(path).close()
    child = os.fork()
    if child == 0:
        try:
            with Catalog.open(path) as catalog:
                number = 0
                while True:
                    record(catalog, f"w-{number}")
                    number += 1
        finally:
            os._exit(1)
    try:
        lengths = []
        for number in range(5):
            with Catalog.read(path) as catalog:
                made = backup(catalog, tmp_path / f"b{number}.db")
            lengths.append(made.logs[0].length)
            assert problems(made.path) == []
        assert lengths == sorted(lengths)
        assert lengths[-1] > lengths[0]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert problems(path) == []
