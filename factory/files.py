"""Files that must survive a kill -9 and several processes: whole-file replacement, and locks that die with their owner.

Invariants: a reader sees the old bytes or the new, never a mixture; what was written is on the disk when `replace`
returns; a lock is gone when its holder is, however it ended. A lock's own file is never removed (removing it would let
two holders in).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from factory.errors import ConflictError, FactoryError, UsageError


def temporary_of(path: Path) -> Path:
    """Where `replace` prepares the new bytes of `path`; a kill -9 may leave it behind, the next `replace` takes it."""
    return path.with_name(f".{path.name}.tmp")


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Make `data` the content of `path` in one step. One writer at a time: hold `exclusive`. Raises OSError."""
    temporary = temporary_of(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_private(path: Path, data: bytes) -> None:
    """Make a file that only its owner can read; a folder that is not there yet is made for its owner alone.

    Never replaces: UsageError where something of that name is there. At no moment, and after no kill, is there part of
    the file under its name, or a file that others can read. FactoryError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            _link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise FactoryError(f"cannot write {path.name}: {error.strerror}", where=str(path)) from error


def _link(source: Path, path: Path) -> None:
    """Give a file its name; unlike a rename, never replaces."""
    try:
        os.link(source, path, follow_symlinks=False)
    except FileExistsError as error:
        raise UsageError(f"{path.name} is there already", where=str(path), hint="choose another name") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock that the file `path` stands for; against other processes and other threads of this one.

    Without `wait`, ConflictError at once where somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ConflictError(
                f"another run holds {path.name}", where=str(path), hint="wait for it, or leave out --no-wait"
            ) from error
        yield
    finally:
        os.close(descriptor)
