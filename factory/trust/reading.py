"""Reads files that others may have put there: at most so many bytes, only regular files, never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from factory.errors import TamperedError


def read_file(path: Path, what: str, *, max_bytes: int) -> bytes:
    """The bytes of a file. FileNotFoundError where there is none; TamperedError where it is not to be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror or str(error)
        raise TamperedError(f"{what} cannot be read: {why}", where=str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TamperedError(f"{what} is no regular file", where=str(path))
        data = file.read(max_bytes + 1) if status.st_size <= max_bytes else b""
        if status.st_size > max_bytes or len(data) > max_bytes:
            raise TamperedError(f"{what} is too large: at most {max_bytes} bytes are read", where=str(path))
        return data
