"""Finds and removes what a killed run left behind: its processes, trees, keys, overlays. Never touches fleets.

A process is ended only where it is provably a dead run's: the one it recorded (same boot, number and start time), or
one that has the run's folder in its environment. A work folder is swept only under its image's lock, so never while
another run is at work in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

from factory import namespace, proc
from factory.bake import journal, scratch
from factory.errors import ConflictError
from factory.model import Layout
from factory.store import Store

DURABLE = ("stages.json", "sealed", "kept")
"""What stays in a work folder between runs: finished stages, and what --keep-failed was asked to keep."""


GUEST = "guest"
"""The folder of a guest that `factory boot` started, in its run's folder."""


def reap(layout: Layout) -> list[str]:
    """Clean up after every dead run; a line for each process ended and each folder cleaned."""
    said = [f"ended process {pid} of a run that was killed" for pid in _end_marked(layout)]
    for folder in sorted(layout.runs.glob("*/")):
        events = journal.read_events(folder)
        if (folder / journal.SETTLED).exists() or journal.is_alive(folder):
            continue
        said += [f"ended process {pid} of run {folder.name}" for pid in _end_processes(events)]
        said += [
            f"removed the temporary files of run {folder.name}"
            for event in events
            if event["event"] == "scratch" and scratch.remove(str(event.get("path")))
        ]
        namespace.remove(folder / GUEST)
        (folder / journal.SETTLED).touch()
    for folder in layout.state.glob(f"{journal.UNBORN}*/"):
        if not journal.is_alive(folder):
            namespace.remove(folder)
    said += sweep_all(layout)
    Store(layout.store).tidy()
    _forget_old_runs(layout)
    return said


def is_needed(layout: Layout) -> bool:
    """Whether some run neither ended nor has been cleaned up after; it may still be at work. Cheap."""
    return any(not (folder / journal.SETTLED).exists() for folder in layout.runs.glob("*/"))


def sweep_all(layout: Layout) -> list[str]:
    """Sweep every work folder that no run holds."""
    said: list[str] = []
    for work in sorted(layout.work.glob("*/")):
        if all(path.name in DURABLE for path in work.iterdir()):
            continue  # its lock is not taken: a run that does not wait would take that for another bake
        with contextlib.suppress(ConflictError), journal.image_lock(layout, work.name, wait=False):
            if sweep(work):
                said.append(f"cleaned up after a run of {work.name} that was killed")
    return said


def sweep(work: Path) -> list[str]:
    """Remove all but the durable files of a work folder; their names. The image's lock must be held."""
    removed = []
    for path in sorted(work.iterdir()) if work.exists() else ():
        if path.name not in DURABLE:
            namespace.remove(path)
            removed.append(path.name)
    return removed


def _end_marked(layout: Layout) -> list[int]:
    """End the processes whose environment says that they belong to a dead run of this factory."""
    ended = []
    for folder in Path("/proc").glob("[0-9]*"):
        run = _run_of(folder)
        if run is None or run.parent != layout.runs or journal.is_alive(run):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(int(folder.name))
            try:
                if _run_of(folder) == run:  # still the process that was looked at
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    ended.append(int(folder.name))
            finally:
                os.close(descriptor)
    return ended


def _run_of(process: Path) -> Path | None:
    """The run folder that a process has in its environment; None where it has none, or is not ours to look at."""
    marker = proc.MARKER.encode() + b"="
    with contextlib.suppress(OSError):
        for variable in (process / "environ").read_bytes().split(b"\0"):
            if variable.startswith(marker):
                return Path(os.fsdecode(variable[len(marker) :]))
    return None


def _end_processes(events: list[dict[str, object]]) -> list[int]:
    ended = []
    for event in events:
        pid = event.get("pid")
        if event["event"] != "process" or not isinstance(pid, int) or event.get("boot") != journal.boot_id():
            continue
        if event.get("identity") is not None and proc.identity(pid) == event["identity"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


def _forget_old_runs(layout: Layout) -> None:
    for folder in sorted(layout.runs.glob("*/"))[: -journal.KEPT_RUNS]:
        if not journal.is_alive(folder):
            shutil.rmtree(folder, ignore_errors=True)
