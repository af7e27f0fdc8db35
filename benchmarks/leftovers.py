"""What a killed bake can leave behind, and how it is seen. Only looks; removes nothing, ends nothing.

Processes are found without a marker: this process is made the subreaper of all it starts (prctl(2)), so whatever
outlives the factory becomes its descendant.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from factory import lockfile
from factory.bake.reaper import DURABLE
from factory.errors import FactoryError
from factory.model import Layout

_PR_SET_CHILD_SUBREAPER = 36
_SCANNED_BYTES = 1 << 20
_PRIVATE = (b"PRIVATE KEY-----", b"io.systemd.credential")

File = tuple[str, int]
"""A path and its ctime in ns: the same name made anew, or written since, is another file."""


@dataclass(frozen=True)
class Leftovers:
    """What is there at one moment. `torn`: what is wrong with the lock or the catalog; `private`: files that hold a
    key, a credential or the soak's secret; `files`: anything else that is not meant to stay."""

    processes: dict[int, str] = field(default_factory=dict)
    mounts: frozenset[str] = frozenset()
    loops: frozenset[str] = frozenset()
    private: frozenset[File] = frozenset()
    files: frozenset[File] = frozenset()
    torn: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {name: len(getattr(self, name)) for name in KINDS}

    def still_in(self, now: Leftovers) -> Leftovers:
        """What of this is there `now` as well."""
        return Leftovers(
            {pid: name for pid, name in self.processes.items() if now.processes.get(pid) == name},
            self.mounts & now.mounts,
            self.loops & now.loops,
            self.private & now.private,
            self.files & now.files,
            now.torn,
        )


KINDS = ("processes", "mounts", "loops", "private", "files", "torn")


def adopt_orphans() -> None:
    """Make this process the one that inherits whatever its descendants leave running."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Watch:
    """Looks at one factory; `folder` holds it and `temporary`, the only place for temporary files it was given."""

    def __init__(self, layout: Layout, temporary: Path, secret: str) -> None:
        self._layout = layout
        self._temporary = temporary
        self._secret = secret.encode()
        self._mounts = _mounts()
        self._loops = _loops()

    def look(self, grace_s: float = 0) -> Leftovers:
        """What is there, once nothing runs any more or `grace_s` have passed."""
        ends_at = time.monotonic() + grace_s
        while (processes := descendants()) and time.monotonic() < ends_at:
            time.sleep(0.05)
        private, files = set[File](), set[File]()
        for path in self._candidates():
            with suppress(OSError):
                found = (str(path.relative_to(self._layout.root.parent)), path.lstat().st_ctime_ns)
                (private if self._is_private(path) else files).add(found)
        return Leftovers(
            processes,
            frozenset(_mounts() - self._mounts),
            frozenset(_loops() - self._loops),
            frozenset(private),
            frozenset(files),
            tuple(self._torn()),
        )

    def _candidates(self) -> Iterator[Path]:
        """Files that are not meant to stay: temporary ones, work, things on their way, half-written siblings."""
        layout = self._layout
        yield from _files(self._temporary)
        for work in sorted(layout.work.glob("*/")):
            for path in sorted(work.iterdir()):
                if path.name not in DURABLE:
                    yield path
                    yield from _private_files(path)
        yield from _files(layout.store / "incoming")
        yield from _files(layout.cache / "incoming")
        yield from layout.root.glob(".images.lock.*")
        yield from (path for path in layout.runs.rglob("*") if path.is_file() and self._is_private(path))

    def _is_private(self, path: Path) -> bool:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _SCANNED_BYTES:
            return False
        content = path.read_bytes()
        return self._secret in content or any(mark in content for mark in _PRIVATE)

    def _torn(self) -> Iterator[str]:
        try:
            lockfile.read(self._layout.lock)
        except FactoryError as error:
            yield f"images.lock: {error.message}"
        if not self._layout.catalog.is_file():
            return
        try:
            with closing(sqlite3.connect(self._layout.catalog, timeout=60)) as connection:
                said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        except sqlite3.Error as error:
            said = [str(error)]
        if said != ["ok"]:
            yield "catalog: " + "; ".join(said[:3])


def descendants() -> dict[int, str]:
    """Every living process below this one: pid -> its command line. The dead among our children are buried."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in ("Z", "X"):
                    parents[int(entry.name)] = int(parent)
    found: dict[int, str] = {}
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and pid != above:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found[pid] = words.strip()[:200]
    return found


def _private_files(folder: Path) -> Iterator[Path]:
    """The small files below a work folder's entry, trees left out: their keys go with the folder."""
    if folder.is_dir() and not folder.is_symlink() and folder.name != "tree":
        yield from _files(folder)


def _files(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield path
                yield from _files(path)
            else:
                yield path


def _mounts() -> frozenset[str]:
    return frozenset(Path("/proc/self/mounts").read_text().splitlines())


def _loops() -> frozenset[str]:
    return frozenset(str(path) for path in Path("/sys/block").glob("loop*/loop/backing_file"))
