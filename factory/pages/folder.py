"""Where a server keeps its copies of the catalog: a folder of its own, which dies with it.

A lock inside says that the server lives. What is left of one that was killed is removed by the next; a folder whose
lock is held is never touched. Only the owner can read it.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from factory import files
from factory.errors import ConflictError, ToolError

_LOCK = "lock"


class Copies:
    """The folder of this server; each copy gets a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)

    def next(self) -> Path:
        """Where the next copy goes; nothing is there yet."""
        return self.folder / f"catalog-{next(self._numbers)}.db"


@contextmanager
def mine(above: Path) -> Iterator[Copies]:
    """A folder in `above` for this server alone, removed when it ends. ToolError where it cannot be made."""
    folder = above / f"{os.getpid()}-{os.urandom(4).hex()}"
    try:
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_left(above)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ToolError(
            f"there is no place for a copy of the catalog: {error.strerror}", where=str(above),
            hint="that folder must be yours to write to, and its disk have room: df",
        ) from error  # fmt: skip
    with files.exclusive(folder / _LOCK, wait=False):
        try:
            yield Copies(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left(above: Path) -> None:
    for folder in above.iterdir():
        if folder.is_dir() and not folder.is_symlink():
            with suppress(ConflictError), files.exclusive(folder / _LOCK, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
