"""A factory to measure on: a copy of this repository's, with its warm caches and its store. The original is only read.

Owns the scratch folder and what is in it; removes it (trees of root-owned files included) when it is done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factory import namespace, proc
from factory.model import Layout

REPOSITORY = Path(__file__).resolve().parent.parent
FACTORY = [str(Path(sys.executable).with_name("factory"))]
"""The command line of the factory, as its console script runs it."""

_SOURCES = ("images.toml", "images.lock", "playbooks", "templates")
_NOT_NEEDED = ("tests", "bench", "soak")


@contextmanager
def copy_of(original: Path, folder: Path, *, keep: bool = False) -> Iterator[Layout]:
    """A copy of the factory `original` in `folder`, which is made anew, and removed at the end unless `keep`."""
    with empty(folder, keep=keep) as copy:
        for name in _SOURCES:
            if (original / name).exists():
                proc.run(["cp", "-a", "--", str(original / name), str(folder)])
        _copy_warmth(Layout(original), copy)
        yield copy


@contextmanager
def empty(folder: Path, *, keep: bool = False) -> Iterator[Layout]:
    """An empty `folder`, which is made anew, and removed at the end unless `keep`."""
    namespace.remove(folder)
    folder.mkdir(parents=True)
    try:
        yield Layout(folder)
    finally:
        if not keep:
            namespace.remove(folder)


def _copy_warmth(original: Layout, copy: Layout) -> None:
    """Caches and store. Not the catalog: a live one cannot be copied as a file, and nothing measured reads it."""
    copy.state.mkdir()
    for source in (original.cache, original.store):
        target = copy.state / source.name
        target.mkdir()
        for path in sorted(source.glob("*")):
            if path.name not in _NOT_NEEDED:
                proc.run(["cp", "-a", "--reflink=auto", "--sparse=auto", "--", str(path), str(target)])


def size_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
