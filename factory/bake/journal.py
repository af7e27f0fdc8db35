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
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from factory import files, proc
from factory.errors import ConflictError
from factory.model import Layout

UNBORN = "new-"
"""How the folder of a run is called before it has its owner."""

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
        self._layout = layout
        self.command = command
        self._guard = threading.Lock()

    def __enter__(self) -> Run:
        make_private_folders(self._layout)
        unborn = self._layout.state / f"{UNBORN}{self.id}"  # so that it is never seen without its owner
        unborn.mkdir(mode=0o700)
        self._owner = (unborn / "owner.lock").open("w")
        fcntl.flock(self._owner, fcntl.LOCK_EX)
        unborn.rename(self.folder)
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


def make_private_folders(layout: Layout) -> None:
    """What a bake works on is for nobody else to read: a tree may hold a secret until it is sealed and checked."""
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (layout.runs, layout.work, layout.image_trees):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)


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
    """Which stages of one image's bake have finished, with what each left, for one key. In the image's work folder.

    The values of the secrets count as well, by a salted digest: what was made with an old value is not gone on with,
    since only the new one would be looked for in it.
    """

    def __init__(self, work: Path, key: str, values: Mapping[str, str]) -> None:
        self._path = work / "stages.json"
        self._key = key
        self._salt = secrets.token_hex(16)
        self._done: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            saved = json.loads(self._path.read_text())
            if (saved["key"], saved["secrets"]) == (key, _fingerprint(values, saved["salt"])):
                self._salt, self._done = saved["salt"], saved["done"]
        self._secrets = _fingerprint(values, self._salt)

    def get(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage left; None where it has not finished."""
        result: dict[str, Any] | None = self._done.get(stage)
        return result

    def finish(self, stage: str, facts: dict[str, Any]) -> None:
        """Remember that `stage` has finished. Whole or not at all."""
        self._done[stage] = facts
        self._write()

    def forget(self, *stages: str) -> None:
        """Take stages as not finished: what they left is gone or no longer fits."""
        for stage in stages:
            self._done.pop(stage, None)
        self._write()

    def _write(self) -> None:
        state = {"key": self._key, "salt": self._salt, "secrets": self._secrets, "done": self._done}
        files.replace(self._path, json.dumps(state, indent=1).encode(), mode=0o600)


def _fingerprint(values: Mapping[str, str], salt: str) -> str:
    text = json.dumps(dict(values), sort_keys=True).encode()
    return hmac.new(bytes.fromhex(salt), text, hashlib.sha256).hexdigest()
