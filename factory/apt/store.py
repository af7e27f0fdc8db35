"""The folder where apt's files are kept: contents by digest, and shelves that say which URL had which content.

Owns `cache/apt/`, which any number of factory processes share:

- `blobs/ab/<sha256>`: contents; written to a temporary file, fsynced, renamed: there whole or not at all;
- `pool/`: the shelf of .debs, kept for ever; `packages/NAME/<sha256>`: the control data of each .deb by package name;
- `snapshots/<id>/`: one shelf per snapshot of the repositories' indexes; `current` names the one in force;
- `locks/`: advisory locks (flock), so that one URL is downloaded once and a dead process holds nothing.

A shelf has one small file per URL. Nothing here speaks to a network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from factory.digest import Digest, hex_of, parse_digest

_LOCKS = 256
_STALE_S = 24 * 3600


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    write_through(path, lambda file: file.write(data))


def write_through(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove what processes that were killed left unfinished: temporary files that are a day old."""
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _STALE_S:
                path.unlink()


@dataclass(frozen=True)
class Entry:
    """What a URL had when it was fetched: a content, or None where the server said that there is none (404).

    `used`: a bake asked for it, and not only a refresh."""

    url: str
    digest: Digest | None
    size: int = 0
    used: bool = True


class Shelf:
    """A folder of entries by URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, url: str) -> Entry | None:
        """The entry of a URL; None where it has none."""
        return self._read(self._path(url))

    def put(self, entry: Entry) -> None:
        """Remember an entry, instead of the one this URL had."""
        data = {"url": entry.url, "digest": entry.digest, "size": entry.size, "used": entry.used}
        write_atomically(self._path(entry.url), json.dumps(data).encode())

    def remove(self, urls: Iterable[str]) -> None:
        """Forget these URLs."""
        for url in urls:
            self._path(url).unlink(missing_ok=True)

    def names(self) -> frozenset[str]:
        """What distinguishes one state of the shelf from another, as entries only ever come."""
        if not self.folder.is_dir():
            return frozenset()
        return frozenset(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def entries(self) -> list[Entry]:
        """All entries, ordered by URL."""
        found = (self._read(self.folder / name) for name in self.names())
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.url)

    def _path(self, url: str) -> Path:
        return self.folder / hashlib.sha256(url.encode()).hexdigest()

    @staticmethod
    def _read(path: Path) -> Entry | None:
        """An entry; None where there is none, or none that we wrote."""
        try:
            data = json.loads(path.read_bytes())
            digest = data["digest"]
            return Entry(data["url"], None if digest is None else parse_digest(digest), data["size"], data["used"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


class Incoming:
    """A content on its way into the store: hashed as it is written, kept by `keep`, gone otherwise."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hasher = hashlib.sha256()
        store.incoming.mkdir(parents=True, exist_ok=True)
        self._path = store.incoming / secrets.token_hex(12)
        self._file: IO[bytes] | None = None
        self.size = 0

    def __enter__(self) -> Incoming:
        self._file = self._path.open("xb")
        return self

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest("sha256:" + self._hasher.hexdigest())

    def keep(self) -> Digest:
        """Put the content among the blobs; its digest."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        target = self._store.blob(self.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path.replace(target)
        return self.digest

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        self._path.unlink(missing_ok=True)


class Store:
    """`cache/apt/` as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def pool(self) -> Shelf:
        """The shelf of .debs."""
        return Shelf(self.folder / "pool")

    @property
    def incoming(self) -> Path:
        """Where contents are until they are whole."""
        return self.folder / "incoming"

    def blob(self, digest: Digest) -> Path:
        """Where a content is, if it is there."""
        name = hex_of(digest)
        return self.folder / "blobs" / name[:2] / name

    def has(self, digest: Digest) -> bool:
        """Whether a content is there."""
        return self.blob(digest).is_file()

    def add(self, data: bytes) -> Digest:
        """Put a small content among the blobs; its digest."""
        with Incoming(self) as incoming:
            incoming.write(data)
            return incoming.keep()

    def current(self) -> str:
        """The id of the snapshot in force. The first call of all starts one."""
        path = self.folder / "current"
        with self.locked("current"):
            if not path.exists():
                write_atomically(path, self.new_snapshot_id().encode())
            return path.read_text().strip()

    def snapshot(self, identifier: str) -> Shelf:
        """The shelf of a snapshot."""
        return Shelf(self.folder / "snapshots" / identifier)

    def switch(self, identifier: str) -> None:
        """Put a snapshot in force, for all who ask from now on."""
        with self.locked("current"):
            write_atomically(self.folder / "current", identifier.encode())

    @staticmethod
    def new_snapshot_id() -> str:
        """An id no snapshot has yet."""
        return secrets.token_hex(8)

    def debs_named(self, name: str) -> list[str]:
        """The stanzas (control data, Size, SHA256) of the .debs of a package that are here, in a stable order."""
        folder = self.folder / "packages" / name
        if not folder.is_dir():
            return []
        return [
            path.read_text()
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".") and self.has(Digest(f"sha256:{path.name}"))
        ]

    def describe_deb(self, name: str, stanza: str, digest: Digest) -> None:
        """Remember the stanza of a .deb that is among the blobs."""
        write_atomically(self.folder / "packages" / name / hex_of(digest), stanza.encode())

    @contextlib.contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold the lock that `what` falls on: one of a fixed number, so never take two at once."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        stripe = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big") % _LOCKS
        descriptor = os.open(folder / f"{stripe:02x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
