"""Reads what is packed inside a disk's EFI system partition: the initial ramdisks of unified kernel images, unpacked.

Format knowledge: PE/COFF section headers (Microsoft's specification), cpio "newc" archives (the kernel's
buffer-format.rst: several archives in a row, each plain or compressed), compression by magic number.
"""

from __future__ import annotations

import lzma
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from factory import proc
from factory.disk import rootdisk
from factory.errors import DiskError

ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"

_ZSTD = b"\x28\xb5\x2f\xfd"
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\x00"
_CPIO = (b"070701", b"070702")


def initrds(raw: Path, work: Path) -> Iterator[tuple[str, bytes]]:
    """(name, unpacked content) of each initial ramdisk in the ESP of a raw disk; nothing where there is no ESP."""
    for name, image in _programs(raw, work):
        packed = section(image, b".initrd")
        if packed is not None:
            yield f"the initial ramdisk of {name}", unpack(packed)


def kernel(raw: Path, work: Path) -> Path | None:
    """A kernel of a raw disk's ESP, as a file in `work`; None where it has none. It serves to probe KVM."""
    for _, image in _programs(raw, work):
        if (found := section(image, b".linux")) is not None:
            path = work / "vmlinuz"
            path.write_bytes(found)
            return path
    return None


def _programs(raw: Path, work: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each .efi file in the ESP of a raw disk."""
    for part in rootdisk.partitions(raw):
        if part.type == ESP_TYPE:
            with tempfile.TemporaryDirectory(prefix="esp-", dir=work) as folder:
                proc.run(["mcopy", "-s", "-n", "-Q", "-i", f"{raw}@@{part.offset}", "::/", folder])
                for path in sorted(Path(folder).rglob("*")):
                    if path.is_file() and path.suffix.lower() == ".efi":
                        yield str(path.relative_to(folder)), path.read_bytes()


def section(image: bytes, name: bytes) -> bytes | None:
    """The content of a section of a PE image; None where there is none. DiskError for anything else than a PE image."""
    try:
        (header,) = struct.unpack_from("<I", image, 0x3C)
        if image[:2] != b"MZ" or image[header : header + 4] != b"PE\0\0":
            raise DiskError("an .efi file in the ESP is not a PE image")
        (count,) = struct.unpack_from("<H", image, header + 6)
        (optional,) = struct.unpack_from("<H", image, header + 20)
        for at in range(header + 24 + optional, header + 24 + optional + 40 * count, 40):
            label, length, _, size, offset = struct.unpack_from("<8sIIII", image, at)
            if label.rstrip(b"\0") == name:
                return image[offset : offset + min(length or size, size)]
    except struct.error as error:
        raise DiskError("an .efi file in the ESP is damaged") from error
    return None


def unpack(packed: bytes) -> bytes:
    """All archives of an initial ramdisk in a row, decompressed. DiskError where one cannot be read."""
    found = []
    rest = packed.lstrip(b"\0")
    while rest:
        plain, rest = _one(rest)
        found.append(plain)
        rest = rest.lstrip(b"\0")
    return b"".join(found)


def _one(data: bytes) -> tuple[bytes, bytes]:
    """(the first archive of `data` decompressed, what follows it)."""
    if data[:6] in _CPIO:
        end = _end_of_cpio(data)
        return data[:end], data[end:]
    try:
        if data.startswith(_GZIP):
            unzip = zlib.decompressobj(wbits=31)
            return unzip.decompress(data), unzip.unused_data
        if data.startswith(_XZ):
            unxz = lzma.LZMADecompressor()
            return unxz.decompress(data), unxz.unused_data
    except (zlib.error, lzma.LZMAError) as error:
        raise DiskError("the initial ramdisk is damaged") from error
    for magic, tool in ((_ZSTD, "zstd"), (_LZ4_LEGACY, "lz4")):
        if data.startswith(magic):
            return proc.run([tool, "-dc", "-q"], stdin=data).stdout, b""
    raise DiskError(f"the initial ramdisk is packed in a way that is not known (it begins with {data[:6].hex()})")


def _end_of_cpio(data: bytes) -> int:
    at = 0
    while data[at : at + 6] in _CPIO:
        size = int(data[at + 54 : at + 62], 16)
        name_size = int(data[at + 94 : at + 102], 16)
        name = data[at + 110 : at + 110 + name_size]
        at = _aligned(_aligned(at + 110 + name_size) + size)
        if name == b"TRAILER!!!\0":
            return at
    raise DiskError("the initial ramdisk's archive has no end")


def _aligned(at: int) -> int:
    return at + 3 & ~3
