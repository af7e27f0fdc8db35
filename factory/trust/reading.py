"""Reads files that others may have put there: at most so many bytes, only regular files, never through a link.

The last part of a path is never a link; with `below`, neither is any part under that folder, and `..` is refused.
(What lies above is where the user keeps things: a home folder may be a link.) What is judged is what was opened: checks
are made on the open descriptor, so that nobody can swap the file between check and use. Never writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from factory.errors import TamperedError, TrustError

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def read_file(path: Path, what: str, *, max_bytes: int, below: Path | None = None) -> bytes:
    """The bytes of a file. FileNotFoundError where there is none; TamperedError where it is not to be read."""
    with opened(path, what, below=below) as descriptor:
        return _bytes(descriptor, path, what, max_bytes)


def read_private_file(path: Path, what: str, *, max_bytes: int) -> bytes:
    """As `read_file`; and TrustError where the file is not its reader's own, or others can read or change it."""
    with opened(path, what) as descriptor:
        data = _bytes(descriptor, path, what, max_bytes)
        status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise TrustError(
            f"{what} belongs to another user (number {status.st_uid}), who can read and swap it",
            where=str(path),
            hint=f"use a key of your own; or, where that user is you: chown {os.geteuid()} {path}",
        )
    if status.st_mode & 0o077:
        raise TrustError(
            f"{what} can be read or changed by others: its mode is {stat.S_IMODE(status.st_mode):04o}",
            where=str(path),
            hint=f"chmod 600 {path}",
        )
    return data


@contextmanager
def opened(path: Path, what: str, *, below: Path | None = None) -> Iterator[int]:
    """A descriptor of what is at `path`, for reading; each folder on the way from `below` is opened by itself, and is
    no link. It may be something else than a regular file. Raises as `read_file` does."""
    with ExitStack() as stack:
        folder, names = None, [str(path)]
        if below is not None:
            folder, names = _open(str(below), os.O_DIRECTORY, None, path, what), _parts_below(path, below, what)
            stack.callback(os.close, folder)
        for name in names[:-1]:
            folder = _open(name, os.O_DIRECTORY | os.O_NOFOLLOW, folder, path, what)
            stack.callback(os.close, folder)
        descriptor = _open(names[-1], os.O_NOFOLLOW, folder, path, what)
        stack.callback(os.close, descriptor)
        yield descriptor


def _parts_below(path: Path, below: Path, what: str) -> list[str]:
    """The names from `below` to `path`, without touching the disk."""
    parts = path.parts[len(below.parts) :]
    if path.parts[: len(below.parts)] != below.parts or not parts or ".." in parts:
        raise TamperedError(f"{what} lies outside of {below}", where=str(path))
    return list(parts)


def _open(name: str, flags: int, folder: int | None, path: Path, what: str) -> int:
    try:
        return os.open(name, _FLAGS | flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = f"{name} is a link" if _is_link(name, folder) else getattr(error, "strerror", None) or str(error)
        raise TamperedError(f"{what} cannot be read: {why}", where=str(path)) from error


def _is_link(name: str, folder: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except (OSError, ValueError):
        return False


def _bytes(descriptor: int, path: Path, what: str, max_bytes: int) -> bytes:
    """All of an open file. Its size is looked at first, and not believed: it may grow, or be a file of /proc."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise TamperedError(f"{what} is no regular file", where=str(path))
    too_large = TamperedError(f"{what} is too large: at most {max_bytes} bytes are read", where=str(path))
    if status.st_size > max_bytes:
        raise too_large
    try:
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise TamperedError(f"{what} cannot be read: {error.strerror or error}", where=str(path)) from error
    if len(data) > max_bytes:
        raise too_large
    return data
