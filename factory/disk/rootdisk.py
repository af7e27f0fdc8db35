"""The root file system of a disk file: find it, list it as a manifest, take its tree out as a tar.

Owns the reading of partition tables (GPT and MBR, 512-byte sectors) and the walk over an ext4 file system. It never
mounts; only `replay` writes, and only to a disk that is the caller's own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from factory import proc
from factory.disk.ext4 import ROOT_INODE, FileSystem, Inode
from factory.disk.manifest import HOST_XATTRS, KIND_OF_MODE, Entry, first_links, without_lost_and_found
from factory.errors import DiskError

SECTOR = 512
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_BUFFER_BYTES = 1 << 20
_TAR_TYPE = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Partition:
    """One partition: its number, the byte it starts at, its length, its type (GUID, or hex of the MBR type)."""

    number: int
    offset: int
    size: int
    type: str


def partitions(disk: Path) -> list[Partition]:
    """The partitions of a disk, from its GPT, else its MBR; none where there is no table. Raises DiskError."""
    try:
        with disk.open("rb") as file:
            head = file.read(2 * SECTOR)
            if head[SECTOR : SECTOR + 8] != b"EFI PART":
                return list(_mbr(head))
            first, count, each = struct.unpack_from("<QII", head, SECTOR + 72)
            if not 128 <= each <= 4096 or count > 1024:
                raise DiskError("the partition table is damaged", where=str(disk))
            file.seek(first * SECTOR)
            return list(_gpt(file.read(count * each), each))
    except OSError as error:
        raise DiskError(f"the disk cannot be read: {error.strerror}", where=str(disk)) from error


def find_root(disk: Path) -> int:
    """The byte at which the ext4 root file system begins: the one with an os-release. DiskError where there is none."""
    found = partitions(disk)
    seen = []
    for part in found or [Partition(0, 0, disk.stat().st_size, "whole disk")]:
        try:
            with FileSystem(disk, part.offset, dirty_ok=True) as fs, _damage_explained(fs):
                if any(lookup(fs, path) is not None for path in _OS_RELEASE):
                    return part.offset
                seen.append(f"partition {part.number} is ext4 without an os-release")
        except DiskError as error:
            seen.append(f"partition {part.number}: {error.message}")
    raise DiskError(
        "the disk has no ext4 root file system: " + "; ".join(seen),
        where=str(disk),
        hint="use a disk whose root partition is ext4 (not LVM, btrfs or xfs) and holds /etc/os-release",
    )


def replay(disk: Path, offset: int) -> bool:
    """Replay the journal of a file system that was not unmounted; whether there was one to replay.

    Writes to `disk`: give it a copy. Nothing but the journal is applied, so what is read later is what the guest saw.
    A file system inside a disk is replayed in a file of its own: e2fsck 1.47 cannot open it again at an offset.
    """
    with FileSystem(disk, offset, dirty_ok=True) as fs:
        if not fs.dirty:
            return False
        size = fs.size
    own = disk.with_name(f".{disk.name}.journal") if offset else disk
    try:
        if offset:
            _copy_data(disk, offset, own, 0, size)
        argv = ["e2fsck", "-y", "-E", "journal_only", str(own)]
        done = proc.run(argv, check=False)
        if done.code not in (0, 1):
            raise DiskError(
                "the journal of the root file system cannot be replayed: " + proc.failure(argv, done).message,
                where=str(disk),
            )
        if offset:
            _copy_data(own, 0, disk, offset, size)
    finally:
        if offset:
            own.unlink(missing_ok=True)
    return True


def lookup(fs: FileSystem, path: str) -> Inode | None:
    """The inode at an absolute path, links on the way not followed; None where there is nothing."""
    inode = fs.inode(ROOT_INODE)
    for name in filter(None, path.split("/")):
        if not stat.S_ISDIR(inode.mode):
            return None
        number = dict(fs.children(inode)).get(name)
        if number is None:
            return None
        inode = fs.inode(number)
    return inode


def entries(fs: FileSystem) -> list[Entry]:
    """The manifest of a file system. Raises DiskError where it is damaged."""
    return [entry for entry, _ in _listing(fs)]


def read(fs: FileSystem, path: str) -> bytes | None:
    """The content of a small file; None where the path is no file."""
    with _damage_explained(fs):
        inode = lookup(fs, path)
        return fs.content(inode) if inode is not None and stat.S_ISREG(inode.mode) else None


def write_tar(fs: FileSystem, out: IO[bytes]) -> list[Entry]:
    """Write the whole file system as a tar (GNU long names, attributes as pax records); its manifest.

    Sockets are left out: a tar has no type for them, and only a running program gives one a meaning.
    """
    listing = _listing(fs)
    with _damage_explained(fs):
        for entry, inode in listing:
            if entry.type == "socket":
                continue
            if entry.xattrs:
                out.write(_pax_xattrs(entry))
            linked = entry.hardlink is not None and entry.hardlink != entry.path
            out.write(_tar_header(entry, inode.mtime, linked))
            if entry.type == "file" and not linked:
                for length, view in fs.chunks(inode):
                    _write_chunk(out, length, view)
                out.write(bytes(-entry.size % 512))
        out.write(bytes(2 * tarfile.RECORDSIZE))
    return [entry for entry, _ in listing]


def _copy_data(source: Path, start: int, target: Path, to: int, size: int) -> None:
    """Copy what is written of a part of a file into another, where the holes are holes or hold what may stay."""
    try:
        with source.open("rb") as reader, target.open("r+b" if target.exists() else "w+b") as writer:
            if writer.seek(0, os.SEEK_END) < to + size:
                writer.truncate(to + size)
            at = start
            while at < start + size:
                try:
                    at = os.lseek(reader.fileno(), at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # only holes follow
                        break
                    raise
                end = min(os.lseek(reader.fileno(), at, os.SEEK_HOLE), start + size)
                while at < end:
                    copied = os.copy_file_range(reader.fileno(), writer.fileno(), end - at, at, to + at - start)
                    if not copied:
                        raise DiskError("the disk ends before its file system does", where=str(source))
                    at += copied
    except OSError as error:
        raise DiskError(f"a part of the disk cannot be copied: {error.strerror}", where=str(target)) from error


def _gpt(table: bytes, each: int) -> Iterator[Partition]:
    for number, at in enumerate(range(0, len(table) - each + 1, each), 1):
        kind = table[at : at + 16]
        if kind != bytes(16):
            first, last = struct.unpack_from("<QQ", table, at + 32)
            guid = struct.unpack_from("<IHH", kind)
            text = "{:08X}-{:04X}-{:04X}-".format(*guid) + kind[8:10].hex().upper() + "-" + kind[10:].hex().upper()
            yield Partition(number, first * SECTOR, (last - first + 1) * SECTOR, text)


def _mbr(head: bytes) -> Iterator[Partition]:
    if head[510:512] != b"\x55\xaa":
        return
    for number in range(4):
        status, kind, first, count = struct.unpack_from("<B3xB3xII", head, 446 + 16 * number)
        if status in (0, 0x80) and kind and count:
            yield Partition(number + 1, first * SECTOR, count * SECTOR, f"{kind:02x}")


def _listing(fs: FileSystem) -> list[tuple[Entry, Inode]]:
    with _damage_explained(fs):
        found = sorted(walk(fs), key=lambda item: os.fsencode(item[0]))
        first = first_links((path, inode.number, inode.mode) for path, inode in found)
        contents: dict[int, str] = {}
        listing = [(_entry(fs, path, inode, first, contents), inode) for path, inode in found]
    kept = {entry.path for entry in without_lost_and_found([entry for entry, _ in listing])}
    return [item for item in listing if item[0].path in kept]


def walk(fs: FileSystem) -> Iterator[tuple[str, Inode]]:
    root = fs.inode(ROOT_INODE)
    yield "/", root
    below: list[tuple[str, Inode]] = [("", root)]
    seen = {ROOT_INODE}
    while below:
        prefix, folder = below.pop()
        for name, number in fs.children(folder):
            inode = fs.inode(number)
            path = f"{prefix}/{name}"
            yield path, inode
            if stat.S_ISDIR(inode.mode):
                if number in seen:
                    raise DiskError(f"the folder {path} is linked twice", where=str(fs.path))
                seen.add(number)
                below.append((path, inode))


def _entry(fs: FileSystem, path: str, inode: Inode, first: dict[int, str], contents: dict[int, str]) -> Entry:
    kind = KIND_OF_MODE.get(inode.kind)
    if kind is None:
        raise DiskError(f"{path} has no type that is known", where=str(fs.path))
    size, content = 0, ""
    if kind == "file":
        size = inode.size
        if inode.number not in contents:
            contents[inode.number] = _sha256(fs, inode)
        content = contents[inode.number]
    elif kind == "link":
        content = fs.target(inode)
    elif kind in ("char", "block"):
        content = "{}:{}".format(*fs.device(inode))
    attributes = {} if kind == "link" else fs.xattrs(inode)
    xattrs = tuple((name, attributes[name].hex()) for name in sorted(attributes) if name not in HOST_XATTRS)
    hardlink = first.get(inode.number) if kind != "dir" else None
    return Entry(path, kind, stat.S_IMODE(inode.mode), inode.uid, inode.gid, size, content, xattrs, hardlink)


def _sha256(fs: FileSystem, inode: Inode) -> str:
    hasher = hashlib.sha256()
    for length, view in fs.chunks(inode):
        if view is None:
            for at in range(0, length, _BUFFER_BYTES):
                hasher.update(bytes(min(_BUFFER_BYTES, length - at)))
        else:
            hasher.update(view)
    return hasher.hexdigest()


def _write_chunk(out: IO[bytes], length: int, view: memoryview | None) -> None:
    if view is not None:
        out.write(view)
        return
    for at in range(0, length, _BUFFER_BYTES):
        out.write(bytes(min(_BUFFER_BYTES, length - at)))


def _tar_header(entry: Entry, mtime: int, linked: bool) -> bytes:
    info = tarfile.TarInfo("." + entry.path if entry.path != "/" else ".")
    info.type = tarfile.LNKTYPE if linked else _TAR_TYPE[entry.type]
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, max(mtime, 0)
    if linked:
        info.linkname = f".{entry.hardlink}"
    elif entry.type == "link":
        info.linkname = entry.content
    elif entry.type in ("char", "block"):
        info.devmajor, info.devminor = map(int, entry.content.split(":"))
    elif entry.type == "file":
        info.size = entry.size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _pax_xattrs(entry: Entry) -> bytes:
    """A pax header with the records `SCHILY.xattr.NAME`, as GNU tar and star write them."""
    records = b""
    for name, value in entry.xattrs:
        record = b" SCHILY.xattr." + os.fsencode(name) + b"=" + bytes.fromhex(value) + b"\n"
        length = len(record) + 1
        while length != len(record) + len(str(length)):
            length = len(record) + len(str(length))
        records += str(length).encode() + record
    info = tarfile.TarInfo("./PaxHeaders/attributes")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


@contextmanager
def _damage_explained(fs: FileSystem) -> Iterator[None]:
    """Turn what a damaged file system makes the reader stumble over into a DiskError."""
    try:
        yield
    except (struct.error, ValueError, IndexError, RecursionError) as error:
        raise DiskError("the file system is damaged", where=f"{fs.path} at byte {fs.offset}") from error
