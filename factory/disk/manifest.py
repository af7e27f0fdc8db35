"""Manifests: what is in a tree or a file system, one line per path, with no times.

Owns the record `Entry`, its JSON-lines form and the comparison of two manifests. A manifest is sorted by the bytes of
the path; the same tree gives the same bytes wherever it is scanned, and its digest is the *tree digest*.
`/lost+found` belongs to a file system and not to a tree, so an empty one is never listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from factory import digest as digests
from factory.digest import Digest
from factory.errors import DiskError

Kind = Literal["file", "dir", "link", "char", "block", "fifo", "socket"]

KIND_OF_MODE: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
LOST_AND_FOUND = "/lost+found"
EMPTY_CONTENT = hashlib.sha256().hexdigest()
"""The `content` of an empty file."""
HOST_XATTRS = ("security.selinux", "security.ima", "security.evm")
"""Extended attributes that the host's kernel puts on every file: they say nothing about the tree."""

_READ_BYTES = 1 << 20
_BATCH = 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree. Names that are not UTF-8 hold surrogate escapes, as in `os.fsdecode`.

    `path` is absolute within the tree ("/" is its root); `mode` the permission bits (0o7777); `size` the bytes of a
    file, else 0; `content` the sha256 (64 hex) of a file, the target of a link, "major:minor" of a device, else "";
    `xattrs` (name, hex of the value), sorted; `hardlink` the first path of the group of hard links this path
    belongs to (itself for the first), None for a path on its own.
    """

    path: str
    type: Kind
    mode: int
    uid: int
    gid: int
    size: int = 0
    content: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()
    hardlink: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two manifests. `what` names the fields that changed, or the kind of what came or went."""

    path: str
    kind: Literal["added", "removed", "changed"]
    what: str


def scan(tree: Path) -> list[Entry]:
    """The manifest of a tree on disk, as this process sees owners: call it inside the namespace. Raises DiskError."""
    root = os.fspath(tree)
    try:
        paths = sorted(_walk(root, ""), key=os.fsencode)
        stats = [os.lstat(root + path) for path in paths]
        first = first_links((path, st.st_ino, st.st_mode) for path, st in zip(paths, stats, strict=True))
        hashed = [
            (path, st.st_size)
            for path, st in zip(paths, stats, strict=True)
            if stat.S_ISREG(st.st_mode) and first.get(st.st_ino, path) == path
        ]
        batches = [hashed[start : start + _BATCH] for start in range(0, len(hashed), _BATCH)]
        contents: dict[str, str] = {}
        with ThreadPoolExecutor(2) as pool:
            for part in pool.map(lambda batch: {path: _sha256(root + path, size) for path, size in batch}, batches):
                contents |= part
        return [_entry(root, path, st, first, contents) for path, st in zip(paths, stats, strict=True)]
    except OSError as error:
        raise DiskError(
            f"the tree cannot be read: {error.strerror}", where=os.fspath(error.filename or tree),
            hint="a tree is read inside the namespace that wrote it, and nothing may change it meanwhile",
        ) from error  # fmt: skip


def dumps(entries: Iterable[Entry]) -> bytes:
    """The manifest as canonical JSON lines: the same entries give the same bytes."""
    return b"".join(
        json.dumps(
            [e.path, e.type, f"{e.mode:04o}", e.uid, e.gid, e.size, e.content, e.xattrs, e.hardlink],
            separators=(",", ":"),
        ).encode()
        + b"\n"
        for e in entries
    )


def loads(data: bytes) -> list[Entry]:
    """The entries of a manifest written by `dumps`. Raises DiskError where it is not one."""
    entries = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            path, kind, mode, uid, gid, size, content, xattrs, hardlink = json.loads(line)
            pairs = tuple((str(name), str(value)) for name, value in xattrs)
            entries.append(Entry(path, kind, int(mode, 8), uid, gid, size, content, pairs, hardlink))
        except (ValueError, TypeError) as error:
            raise DiskError(f"line {number} of the manifest is damaged", where=repr(line[:80])) from error
    return entries


def digest(entries: Iterable[Entry]) -> Digest:
    """The tree digest: the digest of the manifest's bytes."""
    return digests.of_bytes(dumps(entries))


def compare(sealed: Iterable[Entry], found: Iterable[Entry]) -> list[Change]:
    """What differs in `found` from `sealed`, sorted by path."""
    before = {entry.path: entry for entry in sealed}
    after = {entry.path: entry for entry in found}
    changes = [Change(path, "removed", before[path].type) for path in before.keys() - after.keys()]
    changes += [Change(path, "added", after[path].type) for path in after.keys() - before.keys()]
    for path in before.keys() & after.keys():
        if before[path] != after[path]:
            changes.append(Change(path, "changed", ", ".join(_differing(before[path], after[path]))))
    return sorted(changes, key=lambda change: os.fsencode(change.path))


def first_links(found: Iterable[tuple[str, int, int]]) -> dict[int, str]:
    """Of sorted (path, inode number, mode): the first path of each inode that has several and is not a folder."""
    first: dict[int, str] = {}
    several: set[int] = set()
    for path, inode, mode in found:
        if not stat.S_ISDIR(mode) and first.setdefault(inode, path) != path:
            several.add(inode)
    return {inode: first[inode] for inode in several}


def without_lost_and_found(entries: Sequence[Entry]) -> list[Entry]:
    """The entries less `/lost+found`, unless something is in it."""
    if any(entry.path.startswith(LOST_AND_FOUND + "/") for entry in entries):
        return list(entries)
    return [entry for entry in entries if entry.path != LOST_AND_FOUND]


def _differing(before: Entry, after: Entry) -> list[str]:
    return [name for name in Entry.__slots__ if name != "path" and getattr(before, name) != getattr(after, name)]


def _walk(root: str, below: str) -> Iterator[str]:
    yield below or "/"
    folders = []
    with os.scandir(root + below if below else root) as listing:
        for item in listing:
            path = f"{below}/{item.name}"
            if item.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                yield path
    for path in folders:
        if path != LOST_AND_FOUND or os.listdir(root + path):
            yield from _walk(root, path)


def _entry(root: str, path: str, st: os.stat_result, first: dict[int, str], contents: dict[str, str]) -> Entry:
    kind = KIND_OF_MODE[stat.S_IFMT(st.st_mode)]
    hardlink = first.get(st.st_ino) if kind != "dir" else None
    size, content = 0, ""
    if kind == "file":
        size, content = st.st_size, contents[hardlink or path]
    elif kind == "link":
        content = os.readlink(root + path)
    elif kind in ("char", "block"):
        content = f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
    xattrs = () if kind == "link" else _xattrs(root + path)
    return Entry(path, kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, size, content, xattrs, hardlink)


def _xattrs(path: str) -> tuple[tuple[str, str], ...]:
    names = os.listxattr(path, follow_symlinks=False)
    if not names:
        return ()
    kept = sorted(name for name in names if name not in HOST_XATTRS)
    return tuple((name, os.getxattr(path, name, follow_symlinks=False).hex()) for name in kept)


def _sha256(path: str, size: int) -> str:
    hasher = hashlib.sha256()
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        while chunk := os.read(file, min(size + 1, _READ_BYTES)):
            hasher.update(chunk)
    finally:
        os.close(file)
    return hasher.hexdigest()
