"""A read-only view of an ext4 file system inside a disk file: no mount, no root, no other program.

Format knowledge: the Linux kernel's documentation of the ext4 data structures, checked against e2fsprogs 1.47. Read are
extents and the older block maps, folders block by block (a hash index looks like an empty entry there, so it need not
be understood), extended attributes in the inode and in a block of their own, POSIX ACLs, 64-bit block numbers. A
feature that is not known and would change the meaning of what is read (inline data, encryption, …) is refused.
It never writes, and refuses a file system whose journal must be replayed first (`rootdisk.replay` does that).
"""

from __future__ import annotations

import mmap
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from factory.errors import DiskError

ROOT_INODE = 2
_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_NEEDS_RECOVERY = 0x4
_BIT64 = 0x80
_KNOWN_INCOMPAT = {
    0x2: "filetype",
    _NEEDS_RECOVERY: "recover",
    0x40: "extents",
    _BIT64: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x2000: "csum_seed",
    0x4000: "large_dir",
    0x20000: "casefold",
}
_REFUSED_INCOMPAT = {
    0x1: "compression",
    0x8: "journal_dev",
    0x10: "meta_bg",
    0x400: "ea_inode",
    0x8000: "inline_data",
    0x10000: "encrypt",
}
_EXTENTS_FLAG = 0x80000
_EXTENT_MAGIC = 0xF30A
_UNWRITTEN = 32768
_XATTR_MAGIC = 0xEA020000
_XATTR_PREFIX = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
}
_ACL_WITH_ID = (0x02, 0x08)  # a named user, a named group
_NO_ID = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Inode:
    """What an inode says. `block` is its 60 bytes of extents, block map, device number or short link target."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    acl_block: int
    block: bytes
    extra: bytes

    @property
    def kind(self) -> int:
        """The type bits of the mode."""
        return stat.S_IFMT(self.mode)


_FORGET_AFTER = 16 << 20


class FileSystem:
    """An ext4 file system at a byte offset of a file; a context manager. DiskError where there is none to be read.

    `dirty_ok` accepts a journal that was not replayed: what is read may then be out of date.
    """

    def __init__(self, path: Path, offset: int = 0, *, dirty_ok: bool = False) -> None:
        self.path = path
        self.offset = offset
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise DiskError(f"the disk cannot be read: {error}", where=str(path)) from error
        self._view = memoryview(self._map)
        self._read_bytes = 0
        try:
            self._read_superblock(dirty_ok)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FileSystem:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file: at once, or with the last view that was handed out."""
        self._view.release()
        with suppress(BufferError):
            self._map.close()

    def _read_superblock(self, dirty_ok: bool) -> None:
        sb = bytes(self._view[self.offset + _SUPERBLOCK : self.offset + _SUPERBLOCK + 1024])
        if len(sb) < 1024 or struct.unpack_from("<H", sb, 0x38)[0] != _MAGIC:
            raise self._damaged("there is no ext4 file system here")
        (incompat,) = struct.unpack_from("<I", sb, 0x60)
        for bit in (1 << n for n in range(32)):
            if incompat & bit and bit not in _KNOWN_INCOMPAT:
                name = _REFUSED_INCOMPAT.get(bit, f"0x{bit:x}")
                raise DiskError(
                    f"the ext4 file system uses the feature {name}, which cannot be read",
                    where=f"{self.path} at byte {self.offset}",
                    hint=f"make the disk's root file system without it (mke2fs -O ^{name})",
                )
        self.dirty = bool(incompat & _NEEDS_RECOVERY)
        if self.dirty and not dirty_ok:
            raise DiskError(
                "the file system was not unmounted: its journal must be replayed before it is read",
                where=f"{self.path} at byte {self.offset}",
            )
        self.block_size: int = 1024 << struct.unpack_from("<I", sb, 0x18)[0]
        (self._inodes, blocks) = struct.unpack_from("<II", sb, 0)
        (first_data_block,) = struct.unpack_from("<I", sb, 0x14)
        (self._inodes_per_group,) = struct.unpack_from("<I", sb, 0x28)
        self._inode_size = struct.unpack_from("<H", sb, 0x58)[0] or 128
        descriptor_size = struct.unpack_from("<H", sb, 0xFE)[0] if incompat & _BIT64 else 32
        if incompat & _BIT64:
            blocks |= struct.unpack_from("<I", sb, 0x150)[0] << 32
        self._blocks: int = blocks
        if self.block_size > 65536 or not self._inodes_per_group or descriptor_size < 32:
            raise self._damaged("the superblock makes no sense")
        groups = -(-self._inodes // self._inodes_per_group)
        table = self.offset + (first_data_block + 1) * self.block_size
        self._tables = []
        for number in range(groups):
            at = table + number * descriptor_size
            (block,) = struct.unpack_from("<I", self._view, at + 8)
            if descriptor_size >= 64:
                block |= struct.unpack_from("<I", self._view, at + 0x28)[0] << 32
            self._tables.append(block)

    @property
    def size(self) -> int:
        """The bytes the file system takes."""
        return self._blocks * self.block_size

    def inode(self, number: int) -> Inode:
        """One inode. DiskError where the number is none of this file system's."""
        if not 1 <= number <= self._inodes:
            raise self._damaged(f"inode {number} does not exist")
        group, index = divmod(number - 1, self._inodes_per_group)
        at = self.offset + self._tables[group] * self.block_size + index * self._inode_size
        raw = bytes(self._view[at : at + self._inode_size])
        mode, uid, size, _, _, mtime, _, gid, links, _, flags = struct.unpack_from("<HHIIIIIHHII", raw, 0)
        (acl, size_high) = struct.unpack_from("<II", raw, 0x68)
        acl_high, uid_high, gid_high = struct.unpack_from("<HHH", raw, 0x76)
        if stat.S_ISREG(mode):
            size |= size_high << 32
        extra = b""
        if self._inode_size > 128:
            (extra_size,) = struct.unpack_from("<H", raw, 0x80)
            extra = raw[128 + extra_size :]
            if extra_size >= 12:  # i_mtime_extra: the two low bits count 2**32 s
                mtime = _signed(mtime) + ((struct.unpack_from("<I", raw, 0x88)[0] & 3) << 32)
        return Inode(
            number, mode, uid | uid_high << 16, gid | gid_high << 16, size, mtime, links, flags,
            acl | acl_high << 32, raw[0x28:0x64], extra,
        )  # fmt: skip

    def chunks(self, inode: Inode) -> Iterator[tuple[int, memoryview | None]]:
        """The content in order: (bytes, their view), or (bytes, None) for a hole. The sizes add up to the file's."""
        done = 0
        for logical, physical, count in sorted(self._extents(inode)):
            start = logical * self.block_size
            if start >= inode.size:
                break
            if start < done:
                raise self._damaged(f"extents of inode {inode.number} overlap")
            if start > done:
                yield start - done, None
            length = min(count * self.block_size, inode.size - start)
            yield length, self._blocks_at(physical, length)
            done = start + length
            self._forget(length)
        if done < inode.size:
            yield inode.size - done, None

    def _forget(self, length: int) -> None:
        """Let the kernel take back the pages that were read, every now and then: a whole disk is not for our memory."""
        self._read_bytes += length
        if self._read_bytes > _FORGET_AFTER:
            self._read_bytes = 0
            self._map.madvise(mmap.MADV_DONTNEED)

    def content(self, inode: Inode) -> bytes:
        """The whole content of a small file, folder or link."""
        return b"".join(bytes(length) if view is None else bytes(view) for length, view in self.chunks(inode))

    def target(self, inode: Inode) -> str:
        """Where a symbolic link points to."""
        fast = inode.size < 60 and not inode.flags & _EXTENTS_FLAG
        raw = inode.block[: inode.size] if fast else self.content(inode)
        return raw.decode("utf-8", "surrogateescape")

    def children(self, inode: Inode) -> Iterator[tuple[str, int]]:
        """(name, inode number) of what is in a folder, in no order, without . and .."""
        data = self.content(inode)
        for block in range(0, len(data), self.block_size):
            at, end = block, min(block + self.block_size, len(data))
            while at < end:
                number, length, name_length = struct.unpack_from("<IHB", data, at)
                if length < 8 or length % 4 or at + length > end:
                    raise self._damaged(f"folder inode {inode.number} is damaged")
                name = data[at + 8 : at + 8 + name_length]
                if number and name not in (b"", b".", b".."):
                    yield name.decode("utf-8", "surrogateescape"), number
                at += length

    def device(self, inode: Inode) -> tuple[int, int]:
        """Major and minor number of a device node, in the old or the new encoding."""
        old, new = struct.unpack_from("<II", inode.block)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00

    def xattrs(self, inode: Inode) -> dict[str, bytes]:
        """The extended attributes, as the kernel would give them to a program."""
        found: dict[str, bytes] = {}
        if len(inode.extra) > 4 and struct.unpack_from("<I", inode.extra)[0] == _XATTR_MAGIC:
            self._read_xattrs(inode.extra[4:], 0, found)
        if inode.acl_block:
            block = bytes(self._blocks_at(inode.acl_block, self.block_size))
            if struct.unpack_from("<I", block)[0] != _XATTR_MAGIC:
                raise self._damaged(f"the attributes of inode {inode.number} are damaged")
            self._read_xattrs(block, 32, found)
        return found

    def _read_xattrs(self, data: bytes, at: int, found: dict[str, bytes]) -> None:
        while at + 16 <= len(data) and data[at : at + 4] != bytes(4):
            length, index, offset, in_inode, size = struct.unpack_from("<BBHII", data, at)
            prefix = _XATTR_PREFIX.get(index)
            if prefix is None or in_inode or offset + size > len(data):
                raise self._damaged(f"an extended attribute of kind {index} cannot be read")
            value = data[offset : offset + size]
            name = prefix + data[at + 16 : at + 16 + length].decode("utf-8", "surrogateescape")
            found[name] = _acl_for_programs(value) if index in (2, 3) else value
            at += 16 + (length + 3 & ~3)

    def _extents(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """(first logical block, first physical block, blocks) of what is written."""
        if inode.flags & _EXTENTS_FLAG:
            yield from self._extent_node(inode.block, inode.number, 6)
        else:
            yield from self._block_map(inode)

    def _extent_node(self, node: bytes | memoryview, number: int, depth_left: int) -> Iterator[tuple[int, int, int]]:
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or not depth_left or 12 + count * 12 > len(node):
            raise self._damaged(f"the extents of inode {number} are damaged")
        for at in range(12, 12 + count * 12, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._extent_node(self._blocks_at(low | high << 32, self.block_size), number, depth_left - 1)
            else:
                logical, length, high, low = struct.unpack_from("<IHHI", node, at)
                if length <= _UNWRITTEN:  # more: allocated but never written, so it reads as zeros
                    yield logical, low | high << 32, length

    def _block_map(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        per_block = self.block_size // 4
        pointers = struct.unpack("<15I", inode.block)
        needed = -(-inode.size // self.block_size)
        logical = 0
        for slot, pointer in enumerate(pointers):
            span = per_block ** max(0, slot - 11)
            if logical < needed:
                yield from self._mapped(pointer, logical, span)
            logical += span

    def _mapped(self, pointer: int, logical: int, span: int) -> Iterator[tuple[int, int, int]]:
        if not pointer:
            return
        if span == 1:
            yield logical, pointer, 1
            return
        span //= self.block_size // 4
        view = self._blocks_at(pointer, self.block_size)
        for slot, (inner,) in enumerate(struct.iter_unpack("<I", view)):
            yield from self._mapped(inner, logical + slot * span, span)

    def _blocks_at(self, block: int, length: int) -> memoryview:
        if block + -(-length // self.block_size) > self._blocks:
            raise self._damaged(f"block {block} lies outside the file system")
        at = self.offset + block * self.block_size
        view = self._view[at : at + length]
        if len(view) != length:
            raise self._damaged("the disk ends before its file system does")
        return view

    def _damaged(self, what: str) -> DiskError:
        return DiskError(what, where=f"{self.path} at byte {self.offset}")


def _signed(seconds: int) -> int:
    return seconds - (1 << 32) if seconds & 0x80000000 else seconds


def _acl_for_programs(value: bytes) -> bytes:
    """An ACL from its form on disk (version 1, ids only where needed) to the kernel's form for programs (version 2)."""
    found = [struct.pack("<I", 2)]
    at = 4
    while at + 4 <= len(value):
        tag, permissions = struct.unpack_from("<HH", value, at)
        at += 4
        identity = _NO_ID
        if tag in _ACL_WITH_ID:
            (identity,) = struct.unpack_from("<I", value, at)
            at += 4
        found.append(struct.pack("<HHI", tag, permissions, identity))
    return b"".join(found)
