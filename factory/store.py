"""The store: artifacts and small files, each under the digest of its own bytes, read-only.

Owns `.factory/store/`: `sha256/<hex>` is what is stored, `incoming/` what is on its way. Never gives a file another
name, never changes one, never follows a link. Invariants: a file under `sha256/` is whole and was the bytes of its
name when it got there; it got there in one step, and is on the disk.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from factory import digest as digests
from factory import files
from factory.digest import Digest
from factory.errors import StoreError

_BLOCK_BYTES = 1 << 20
_PARTIAL_KEPT_S = 7 * 24 * 3600
_STORED_MODE = 0o444


class Store:
    """A store in a folder; the folder is made when something is first put there."""

    def __init__(self, root: Path) -> None:
        self._stored = root / "sha256"
        self._incoming = root / "incoming"

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest are, or would be. StoreError where it is no digest."""
        if not digests.is_digest(digest):
            raise StoreError(f"not a digest (sha256: and 64 hex digits): {digest!r}")
        return self._stored / digests.hex_of(Digest(digest))

    def has(self, digest: str) -> bool:
        """Whether the store has a regular file for a digest."""
        try:
            return stat.S_ISREG(self.path(digest).lstat().st_mode)
        except FileNotFoundError:
            return False

    def size_bytes(self, digest: str) -> int:
        """How long the stored file is. StoreError where there is none."""
        return self._existing(digest).stat().st_size

    def put(self, source: Path) -> Digest:
        """Move a file into the store: afterwards it is only there. From another file system it is copied.

        Its digest is computed here. Raises StoreError: no regular file, no space.
        """
        with _told(f"cannot store {source}"):
            if not stat.S_ISREG(source.lstat().st_mode):
                raise StoreError(f"cannot store {source}: it is no regular file", where=str(source))
            self._make_folders()
            if source.stat().st_dev == self._stored.stat().st_dev:
                return self._settle(source)
            digest = self.put_copy(source)
            source.unlink()
            return digest

    def put_copy(self, source: Path, *, expected: Digest | None = None) -> Digest:
        """Copy a file into the store; StoreError where the copy is not what was `expected`."""
        with _told(f"cannot store {source}"), self._temporary() as (path, file):
            with source.open("rb") as original:
                copy_sparse(original, file)
            return self._settle(path, expected=expected)

    def put_bytes(self, data: bytes) -> Digest:
        """Store some bytes."""
        with _told("cannot store"), self._temporary() as (path, file):
            file.write(data)
            file.flush()
            return self._settle(path)

    def remove(self, digest: str) -> None:
        """Take the file of a digest away; nothing there is fine."""
        path = self.path(digest)
        with _told(f"cannot remove {path}"):
            if path.is_symlink() or path.exists():
                path.unlink()
                files.sync_folder(path.parent)

    def verify(self, digest: str) -> Path:
        """Read the stored file again; where it is. StoreError where it is missing or not its name's bytes."""
        path = self._existing(digest)
        with _told(f"cannot read {path}"):
            found = digests.of_file(path)
        if found != digest:
            raise StoreError(
                f"the stored file of {digest} is damaged: its bytes are {found}",
                where=str(path),
                hint="remove that file; it is then fetched from [store], or baked again",
            )
        return path

    @contextmanager
    def receiving(self, digest: Digest) -> Iterator[IO[bytes] | None]:
        """A file to append the bytes of a digest to, opened at its end; None where the store already has them.

        It holds what an earlier attempt got. One receiver at a time: a second one waits. When the block ends well, the
        bytes are checked and stored; the wrong ones are refused with StoreError and dropped. When the block raises,
        what came is kept, to go on from.
        """
        with _told(f"cannot fetch {digest}"), self._partial(digest) as file:
            yield file
            if file is not None:
                file.flush()
                self._settle(self._partial_path(digest), expected=digest)

    def tidy(self) -> list[Path]:
        """Remove what killed processes left on its way, and partial fetches older than a week; the paths removed."""
        removed = []
        for path in sorted(self._incoming.glob("*")):
            fresh = path.suffix == ".part" and path.stat().st_mtime > time.time() - _PARTIAL_KEPT_S
            if not fresh and _is_abandoned(path):
                path.unlink(missing_ok=True)
                removed.append(path)
        return removed

    def _make_folders(self) -> None:
        self._stored.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(parents=True, exist_ok=True)

    def _existing(self, digest: str) -> Path:
        if not self.has(digest):
            raise StoreError(
                f"the store does not have {digest}", where=str(self.path(digest)), hint="factory fetch NAME, or bake it"
            )
        return self.path(digest)

    def _settle(self, path: Path, *, expected: Digest | None = None) -> Digest:
        """Give a file of this file system its place; wrong bytes are removed. The digest of its bytes."""
        path.chmod(_STORED_MODE)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        digest = digests.of_file(path)
        if expected is not None and digest != expected:
            path.unlink()
            raise StoreError(
                f"these are not the bytes of {expected}: they are {digest}; they were refused and dropped",
                where=str(path.name),
                hint="the source is damaged or tampered with; find out which",
            )
        path.replace(self.path(digest))
        files.sync_folder(self._stored)
        return digest

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, IO[bytes]]]:
        import tempfile  # a deploy job, which only asks for a path, need not wait for it

        self._make_folders()
        with tempfile.NamedTemporaryFile(dir=self._incoming, prefix="put-", delete=False) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # says to `tidy` that somebody is at it
            path = Path(file.name)
            try:
                yield path, file
            finally:
                path.unlink(missing_ok=True)

    def _partial_path(self, digest: Digest) -> Path:
        return self._incoming / f"{self.path(digest).name}.part"

    @contextmanager
    def _partial(self, digest: Digest) -> Iterator[IO[bytes] | None]:
        path = self._partial_path(digest)
        self._make_folders()
        while not self.has(digest):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(descriptor, path):  # else whoever held it has stored or dropped it
                    file.seek(0, os.SEEK_END)
                    yield file
                    return
        yield None


def copy_sparse(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy bytes, leaving holes for blocks of zeros; `target` must be a new file."""
    while block := source.read(_BLOCK_BYTES):
        if block.count(0) == len(block):
            target.seek(len(block), os.SEEK_CUR)
        else:
            target.write(block)
    target.truncate()
    target.flush()


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _is_abandoned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return False


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}", where=error.filename and str(error.filename)) from error
