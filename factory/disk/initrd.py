"""Makes an initial ramdisk that was packed during a bake the same bytes as any other of the same content.

mkinitramfs (0.142) sorts the names, but keeps inode numbers and the times of what it made just now. Format knowledge:
the kernel's buffer-format.rst: cpio "newc" archives in a row, the last one compressed.
"""

from __future__ import annotations

import gzip
import lzma
import os
import struct
from pathlib import Path

from factory import proc
from factory.errors import DiskError

_CPIO = (b"070701", b"070702")
_TRAILER = b"TRAILER!!!"
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEADER = 110
_INODE, _MTIME, _SIZE, _NAME_SIZE = 0, 5, 6, 11
_DEVICE = (7, 8)


def normalise(initrd: Path, epoch: int, tree: Path) -> None:
    """Rewrite the initrd so that its bytes follow from its content; nothing is changed where they do already.

    zstd is run from within `tree`, which packed it. A packing that is not known is left alone.
    """
    data = initrd.read_bytes()
    try:
        plain = _unpacked_length(data)
        packed = data[plain:]
        archive = _unpack(packed, tree)
        if archive is None:
            return
        wanted = _normalised(data[:plain], epoch) + _pack(_normalised(archive, epoch), packed, tree)
    except (ValueError, struct.error, IndexError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DiskError("the initial ramdisk is damaged", where=str(initrd)) from error
    if wanted != data:
        initrd.write_bytes(wanted)


def _unpack(packed: bytes, tree: Path) -> bytes | None:
    if not packed:
        return b""
    if packed.startswith(_ZSTD):
        return proc.run(_in_tree(tree, "zstd", "-dcq"), stdin=packed).stdout
    if packed.startswith(b"\x1f\x8b"):
        return gzip.decompress(packed)
    if packed.startswith(b"\xfd7zXZ\0"):
        return lzma.decompress(packed)
    return None


def _pack(archive: bytes, packed: bytes, tree: Path) -> bytes:
    if not packed:
        return b""
    if packed.startswith(_ZSTD):
        return proc.run(_in_tree(tree, "zstd", "-9", "-cq"), stdin=archive).stdout
    if packed.startswith(b"\x1f\x8b"):
        return gzip.compress(archive, 9, mtime=0)
    return lzma.compress(archive, check=lzma.CHECK_CRC32)  # the one check the kernel's decompressor knows


def _in_tree(tree: Path, *argv: str) -> list[str]:
    return ["chroot", os.fspath(tree), *argv]


def _unpacked_length(data: bytes) -> int:
    """The length of the archives that are not compressed, with the zeros behind each."""
    at = 0
    while data[at : at + 6] in _CPIO:
        name = b""
        while name != _TRAILER:
            name, at = _entry(data, at)
        while at < len(data) and data[at] == 0:
            at += 1
    return at


def _entry(data: bytes, at: int) -> tuple[bytes, int]:
    """(name, where the next entry begins) of the entry at `at`."""
    if data[at : at + 6] not in _CPIO:
        raise ValueError("not a cpio archive")
    size, name_size = _field(data, at, _SIZE), _field(data, at, _NAME_SIZE)
    content = _aligned(at + _HEADER + name_size)
    return data[at + _HEADER : at + _HEADER + name_size - 1], _aligned(content + size)


def _field(data: bytes | bytearray, at: int, number: int) -> int:
    return int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16)


def _normalised(archives: bytes, epoch: int) -> bytes:
    """The archives with inodes numbered in order (hard links keep sharing one), no device, no time after `epoch`."""
    out = bytearray(archives)
    numbers: dict[tuple[int, int, int], int] = {}
    at = 0
    while at < len(out):
        if out[at] == 0:
            at += 1
            continue
        _, following = _entry(archives, at)
        identity = (_field(out, at, _INODE), _field(out, at, _DEVICE[0]), _field(out, at, _DEVICE[1]))
        _set(out, at, _INODE, numbers.setdefault(identity, len(numbers) + 1))
        _set(out, at, _MTIME, min(_field(out, at, _MTIME), epoch))
        for device in _DEVICE:
            _set(out, at, device, 0)
        at = following
    return bytes(out)


def _set(data: bytearray, at: int, number: int, value: int) -> None:
    data[at + 6 + 8 * number : at + 14 + 8 * number] = b"%08X" % value


def _aligned(at: int) -> int:
    return at + 3 & ~3
