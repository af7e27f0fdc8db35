"""The journal of a run, the lock on an image, and the stages that have finished: what makes a bake survive kill -9.

- A run owns `.factory/runs/RUN/`: `owner.lock` (held with flock while it lives), `journal.jsonl` (one synced line per
  event: started, process, stage, image, finished) and a folder of logs per image.
- An image being baked owns `.factory/work/NAME-ARCH/` through a flock in `.factory/locks/`: flock goes with its
  process, however that ends.
- `Stages` remembers in that folder which stages have finished for which bake key, so that the next run goes on there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from factory import files, proc
from factory.errors import ConflictError
from factory.model import Layout

SETTLED = "settled"
"""A file in a run's folder: the run came to its end, or has been cleaned up after."""

KEPT_RUNS = 50
"""Folders of older runs are removed when a new run begins."""


class Run:
    """One run of a command that bakes or verifies. Use as a context manager; safe from several threads."""

    def __init__(self, layout: Layout, command: str) -> None:
        now = datetime.now(UTC)
        self.id = now.strftime("%Y%m%dT%H%M%SZ-") + secrets.token_hex(2)
        self.folder = layout.runs / self.id
        self.command = command
        self._guard = threading.Lock()

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True)
        self._owner = (self.folder / "owner.lock").open("w")
        fcntl.flock(self._owner, fcntl.LOCK_EX)
        self._file = (self.folder / "journal.jsonl").open("a")
        os.environ[proc.MARKER] = str(self.folder)
        self.event("started", command=self.command, pid=os.getpid())
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(proc.MARKER, None)
        self.event("finished")
        (self.folder / SETTLED).touch()
        self._file.close()
        self._owner.close()

    def event(self, event: str, **facts: Any) -> None:
        """Append an event and sync it: what it says is so even if we are killed right after."""
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts})
        with self._guard:
            self._file.write(line + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def process(self, image: str, pid: int) -> None:
        """Record a process started for `image`, in a way that tells it from a later one with the same number."""
        self.event("process", image=image, pid=pid, identity=proc.identity(pid), boot=boot_id())

    def logs(self, image: str) -> Path:
        """The folder that keeps an image's logs of this run."""
        folder = self.folder / image
        folder.mkdir(exist_ok=True)
        return folder


def boot_id() -> str:
    """What tells this boot of the host from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run; a line cut short by a kill is left out."""
    events = []
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "journal.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
    return events


def is_alive(folder: Path) -> bool:
    """Whether the process that owns a run still lives."""
    try:
        with (folder / "owner.lock").open("r") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def image_lock(layout: Layout, image: str, *, wait: bool, on_wait: Any = None) -> Iterator[None]:
    """Hold an image (`NAME-ARCH`). Waits for another run that holds it; with `wait` off raises ConflictError."""
    path = layout.locks / f"{image}.lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.exclusive(path, wait=False))
        except ConflictError as error:
            if not wait:
                raise ConflictError(
                    f"another run is baking {image}", where=str(path), hint="leave out --no-wait to wait for it"
                ) from error
            if on_wait is not None:
                on_wait()
            stack.enter_context(files.exclusive(path))
        yield


class Stages:
    """Which stages of one image's bake have finished, with what each left, for one key. In the image's work folder."""

    def __init__(self, work: Path, key: str) -> None:
        self._path = work / "stages.json"
        self._key = key
        self._done: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            saved = json.loads(self._path.read_text())
            if saved["key"] == key:
                self._done = saved["done"]

    def get(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage left; None where it has not finished."""
        result: dict[str, Any] | None = self._done.get(stage)
        return result

    def finish(self, stage: str, facts: dict[str, Any]) -> None:
        """Remember that `stage` has finished. Whole or not at all."""
        self._done[stage] = facts
        files.replace(self._path, json.dumps({"key": self._key, "done": self._done}, indent=1).encode())

    def forget(self, *stages: str) -> None:
        """Take stages as not finished: what they left is gone or no longer fits."""
        for stage in stages:
            self._done.pop(stage, None)
