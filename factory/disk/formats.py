"""Stored forms of a disk: write one (qcow2, raw, vmdk), and read its raw content back from the stored file.

The digest of an image is that of its raw content, however it is stored; `digest_and_scan` recomputes it from the very
file, holes included, and looks for byte strings (secrets) on the same pass, free space included. Holes are hashed
as zeros and never read. Nothing else is written, and a form that could not be finished is removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from factory import proc
from factory.digest import Digest
from factory.disk import nbd
from factory.errors import DiskError, ToolError

# Without -W clusters are written in order: the same disk gives the same qcow2 file, for a second more.
_CREATE = {
    "qcow2": ["-c", "-m", "16", "-o", "compression_type=zstd"],
    "vmdk": ["-m", "16", "-o", "subformat=streamOptimized"],  # the form that importers of other clouds read
}
FORMATS = ("qcow2", "raw", "vmdk")
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
Chunk = tuple[int, bytes | bytearray | None]
"""(length, content), or (length, None) for a hole."""


def convert(raw: Path, format_: str, out: Path) -> None:
    """Store a raw disk in `format_` at `out`. DiskError where that fails; nothing is left then."""
    if format_ not in FORMATS:
        raise DiskError(f"there is no disk format {format_!r}", hint="use one of " + ", ".join(FORMATS))
    if format_ == "raw":
        argv = ["cp", "--sparse=always", "--reflink=auto", "--", str(raw), str(out)]
    else:
        argv = ["qemu-img", "convert", "-f", "raw", "-O", format_, *_CREATE[format_], str(raw), str(out)]
    _written(argv, out, f"the disk cannot be stored as {format_}")


def to_raw(disk: Path, format_: str, raw: Path) -> None:
    """Write the raw content of a stored disk to `raw`, sparsely. DiskError where that fails; nothing is left then."""
    argv = ["qemu-img", "convert", "-m", "16", "-W", "-f", format_, "-O", "raw", str(disk), str(raw)]
    _written(argv, raw, f"the disk cannot be unpacked from {format_}")


def raw_digest(path: Path, format_: str) -> Digest:
    """The digest of the raw content of a stored disk, recomputed from the file."""
    return digest_and_scan(path, format_, ())[0]


def scan(path: Path, format_: str, needles: Collection[bytes]) -> set[bytes]:
    """Which of `needles` occur anywhere in the raw content of a stored disk."""
    return digest_and_scan(path, format_, needles)[1]


def digest_and_scan(path: Path, format_: str, needles: Collection[bytes]) -> tuple[Digest, set[bytes]]:
    """The digest of the raw content, and which of `needles` occur in it, in one pass."""
    if any(not needle for needle in needles):
        raise ValueError("an empty needle is everywhere")
    hasher = hashlib.sha256()
    missing, found = set(needles), set[bytes]()
    overlap = max(map(len, missing), default=1) - 1
    tail = b""
    with ThreadPoolExecutor(1) as pool:
        for length, data in chunks(path, format_):
            hashing = pool.submit(_hash, hasher, length, data)
            if missing:
                content = bytes(min(length, overlap)) if data is None else data
                window = tail + content
                found |= {needle for needle in missing if needle in window}
                missing -= found
                tail = bytes(window[len(window) - overlap :]) if overlap else b""
            hashing.result()
    return Digest("sha256:" + hasher.hexdigest()), found


def chunks(path: Path, format_: str) -> Iterator[Chunk]:
    """The raw content of a stored disk, in order."""
    return _raw_chunks(path) if format_ == "raw" else _mapped_chunks(path, format_)


def _hash(hasher: hashlib._Hash, length: int, data: bytes | bytearray | None) -> None:
    if data is not None:
        hasher.update(data)
        return
    zeros = memoryview(_ZEROS)
    for at in range(0, length, _CHUNK):
        hasher.update(zeros[: min(_CHUNK, length - at)])


def _raw_chunks(path: Path) -> Iterator[Chunk]:
    try:
        with path.open("rb", buffering=0) as file:
            size, at = os.fstat(file.fileno()).st_size, 0
            while at < size:
                data = _next_data(file.fileno(), at, size)
                if data > at:
                    yield data - at, None
                at = os.lseek(file.fileno(), data, os.SEEK_HOLE) if data < size else size
                file.seek(data)
                while data < at:
                    chunk = file.read(min(_CHUNK, at - data))
                    if not chunk:
                        raise DiskError("the disk became shorter while it was read", where=str(path))
                    yield len(chunk), chunk
                    data += len(chunk)
    except OSError as error:
        raise DiskError(f"the disk cannot be read: {error.strerror}", where=str(path)) from error


def _next_data(file: int, at: int, size: int) -> int:
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise


def _mapped_chunks(path: Path, format_: str) -> Iterator[Chunk]:
    extents = _extents(path, format_)
    content = nbd.read(
        path, format_, [part for start, length, zero in extents if not zero for part in _parts(start, length)]
    )
    try:
        for start, length, zero in extents:
            if zero:
                yield length, None
                continue
            for _, size in _parts(start, length):
                yield size, next(content)
    finally:
        content.close()


def _parts(start: int, length: int) -> list[tuple[int, int]]:
    return [(at, min(_CHUNK, start + length - at)) for at in range(start, start + length, _CHUNK)]


def _extents(path: Path, format_: str) -> list[tuple[int, int, bool]]:
    """(start, length, reads as zeros) of the raw content; they cover it without a gap."""
    try:
        found = json.loads(proc.run(["qemu-img", "map", "--output=json", "-f", format_, str(path)]).stdout)
        size = json.loads(proc.run(["qemu-img", "info", "--output=json", "-f", format_, str(path)]).stdout)
    except ToolError as error:
        raise DiskError(f"the image cannot be read: {error.message}", where=str(path)) from error
    extents = [(int(part["start"]), int(part["length"]), bool(part["zero"])) for part in found]
    end = 0
    for start, length, _ in extents:
        if start != end:
            raise DiskError("the map of the image has a gap", where=str(path))
        end += length
    if end != size["virtual-size"]:
        raise DiskError("the map of the image does not cover it", where=str(path))
    return _merged(extents)


def _merged(extents: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    merged: list[tuple[int, int, bool]] = []
    for start, length, zero in extents:
        if merged and merged[-1][2] == zero:
            merged[-1] = (merged[-1][0], merged[-1][1] + length, zero)
        else:
            merged.append((start, length, zero))
    return merged


def _written(argv: list[str], out: Path, failure: str) -> None:
    try:
        proc.run(argv)
    except BaseException as error:
        out.unlink(missing_ok=True)
        if isinstance(error, ToolError):
            hint = "is there room for it? (df)"
            raise DiskError(f"{failure}: {error.message}", where=error.where, hint=hint) from error
        raise
