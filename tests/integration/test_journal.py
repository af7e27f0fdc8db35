"""Journal, image lock, stages and reaper against real processes and kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from factory import proc
from factory.bake import journal, reaper, scratch
from factory.errors import ConflictError
from factory.model import Layout

HOLD = """
import sys, time
from pathlib import Path
from factory import proc
from factory.bake import journal
from factory.model import Layout
layout = Layout(Path(sys.argv[1]))
with journal.Run(layout, "test") as run, journal.image_lock(layout, "web-amd64", wait=False):
    work = layout.work / "web-amd64"
    work.mkdir(parents=True)
    (work / "secrets.json").write_text("x")
    journal.Stages(work, "key", {}).finish("seal", {"a": 1})
    child = proc.spawn(["sleep", "300"])
    stray = __import__("subprocess").Popen(["sleep", "301"])  # outlives us: what a reaper is for
    run.process("web-amd64", stray.pid)
    print(child.pid, stray.pid, flush=True)
    time.sleep(300)
"""


Holder = tuple["subprocess.Popen[str]", int, int]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def holder(layout: Layout) -> Holder:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(layout.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child, stray = map(int, process.stdout.readline().split())
    return process, child, stray


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_second_run_conflicts_while_the_first_lives(
    layout: Layout, holder: tuple[subprocess.Popen[str], int, int]
) -> None:
    process, _child, stray = holder
    try:
        with pytest.raises(ConflictError, match="another run"), journal.image_lock(layout, "web-amd64", wait=False):
            pass
        assert reaper.reap(layout) == []
        assert (layout.work / "web-amd64/secrets.json").exists()
        assert not _is_dead(stray)
    finally:
        process.kill()
        process.wait()
        os.kill(stray, signal.SIGKILL)


def _is_dead(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_kill_9_is_cleaned_up_and_finished_stages_stay(layout: Layout, holder: Holder) -> None:
    process, child, stray = holder
    process.kill()
    process.wait()
    assert _gone(child), "a child dies with its parent"
    assert not _is_dead(stray)
    said = reaper.reap(layout)
    assert _gone(stray)
    assert any(f"process {stray}" in line for line in said)
    work = layout.work / "web-amd64"
    assert sorted(path.name for path in work.iterdir()) == ["stages.json"]
    assert journal.Stages(work, "key", {}).get("seal") == {"a": 1}
    assert journal.Stages(work, "other", {}).get("seal") is None
    assert reaper.reap(layout) == [], "once is enough"


def test_reaper_leaves_a_process_it_cannot_prove_is_its_own(layout: Layout) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        with journal.Run(layout, "test") as run:
            run.event("process", image="x", pid=other.pid, identity="1", boot=journal.boot_id())
            run.event("process", image="x", pid=other.pid, identity="2", boot="another boot")
        # As if killed: the journal has no end.
        (run.folder / journal.SETTLED).unlink()
        path = run.folder / "journal.jsonl"
        path.write_text("".join(line for line in path.open() if '"finished"' not in line))
        reaper.reap(layout)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_journal_line_cut_short_is_left_out(layout: Layout) -> None:
    with journal.Run(layout, "test") as run:
        run.event("stage", image="x", stage="base")
    with (run.folder / "journal.jsonl").open("a") as file:
        file.write('{"at": "2026')
    assert [event["event"] for event in journal.read_events(run.folder)] == ["started", "stage", "finished"]


def test_temporary_files_go_with_the_run_or_with_the_next_one(layout: Layout, tmp_path: Path) -> None:
    with journal.Run(layout, "test") as run, scratch.scratch(run) as folder:
        assert tempfile.mkdtemp().startswith(str(folder))
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    left = tmp_path / "factory-0123456789ab"
    other = tmp_path / "not-ours"
    for path in (left, other):
        path.mkdir()
    with journal.Run(layout, "test") as run:
        run.event("scratch", path=str(left))
        run.event("scratch", path=str(other))
    (run.folder / journal.SETTLED).unlink()
    assert any("temporary files" in line for line in reaper.reap(layout))
    assert (left.exists(), other.exists()) == (False, True)


def test_a_process_that_carries_a_dead_runs_marker_is_ended(layout: Layout) -> None:
    with journal.Run(layout, "test") as run:
        pass
    (run.folder / journal.SETTLED).unlink()
    stray = subprocess.Popen(["sleep", "300"], env={**os.environ, proc.MARKER: str(run.folder)})
    other = subprocess.Popen(["sleep", "300"], env={**os.environ, proc.MARKER: "/somewhere/else"})
    try:
        assert any(f"process {stray.pid}" in line for line in reaper.reap(layout))
        assert stray.wait(10) != 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_stages_made_with_another_secret_are_not_gone_on_with(tmp_path: Path) -> None:
    journal.Stages(tmp_path, "key", {"TOKEN": "old"}).finish("seal", {"a": 1})
    text = (tmp_path / "stages.json").read_text()
    assert "old" not in text
    assert (tmp_path / "stages.json").stat().st_mode & 0o077 == 0
    assert journal.Stages(tmp_path, "key", {"TOKEN": "old"}).get("seal") == {"a": 1}
    assert journal.Stages(tmp_path, "key", {"TOKEN": "new"}).get("seal") is None


def test_what_a_bake_works_on_is_for_nobody_else(layout: Layout) -> None:
    with journal.Run(layout, "test") as run:
        for folder in (layout.runs, layout.work, layout.image_trees, run.folder):
            assert folder.stat().st_mode & 0o077 == 0
        assert not list(layout.state.glob(f"{journal.UNBORN}*"))
