"""Reads files that others may have put there: at most so many bytes, only regular files, never through a link.

The last part of a path is never a link; with `below`, neither is any part under that folder. (What lies above is where
the user keeps things: a home folder may be a link.) What is judged is what was opened: the checks are made on the open
descriptor, so nobody can swap the file between check and use. Never writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factory.errors import TamperedError, TrustError

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def read_file(path: Path, what: str, *, max_bytes: int, below: Path | None = None) -> bytes:
    """The bytes of a file. FileNotFoundError where there is none; TamperedError where it is not to be read."""
    with _opened(path, what, below) as descriptor:
        return _bytes(descriptor, path, what, max_bytes)


def read_private_file(path: Path, what: str, *, max_bytes: int) -> bytes:
    """The bytes of a file that only its owner, who runs this, can read. As `read_file`, and TrustError where not so."""
    with _opened(path, what, None) as descriptor:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid != os.geteuid():
            raise TrustError(
                f"{what} belongs to another user (number {status.st_uid}), who can read and swap it",
                where=str(path),
                hint=f"use a key of your own, or take this one over: chown {os.geteuid()} {path}",
            )
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            raise TrustError(
                f"{what} can be used by others: its mode is {stat.S_IMODE(status.st_mode):04o}",
                where=str(path),
                hint=f"chmod 600 {path} (and make a new key if others were on this machine meanwhile)",
            )
        return _bytes(descriptor, path, what, max_bytes)


@contextmanager
def _opened(path: Path, what: str, below: Path | None) -> Iterator[int]:
    """A descriptor of what is at `path`. Each folder between `below` and it is opened by itself, and must be one."""
    names = [str(path)] if below is None else [str(below), *_parts_below(path, what, below)]
    descriptor = None
    try:
        for index, name in enumerate(names):
            is_root, is_last = below is not None and index == 0, index == len(names) - 1
            flags = _FLAGS | (0 if is_last else os.O_DIRECTORY)
            upper = descriptor
            try:
                descriptor = os.open(name, flags & ~os.O_NOFOLLOW if is_root else flags, dir_fd=upper)
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:
                raise _unreadable(path, what, name, upper, error) from error
            finally:
                if upper is not None and descriptor != upper:
                    os.close(upper)
        assert descriptor is not None
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
