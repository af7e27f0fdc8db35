"""A run's own folder for temporary files, ours and those of every program we start.

Its path is short (sockets are made in it, and a socket's path has at most 107 bytes), it is private, and the journal
names it before it is made, so that the next run removes what a killed one left.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from factory import namespace
from factory.bake.journal import Run
from factory.errors import FactoryError

_NAME = re.compile(r"factory-[0-9a-f]{12}")


@contextmanager
def scratch(run: Run) -> Iterator[Path]:
    """Make temporary files go into a new folder of this run's, until the end."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    folder = Path(tempfile.gettempdir()) / f"factory-{secrets.token_hex(6)}"
    run.event("scratch", path=str(folder))
    folder.mkdir(mode=0o700)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable
        with suppress(FactoryError):  # what cannot be removed now, the next run removes
            namespace.remove(folder)


def remove(path: str) -> bool:
    """Remove the folder that a journal names; whether there was one. Only what is provably one of ours is touched."""
    folder = Path(path)
    if not _NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    if folder.stat().st_uid != os.getuid():
        return False
    namespace.remove(folder)
    return True
