"""Kind `disk`: a disk image, raw or qcow2, by path or URL and sha256.

`sha256` is of the file; the base's digest is of the disk's **raw content**, the same however it is stored, and its tree
is filed under that. Its packages are those of the dpkg database in it, if there is one; they are a record, not pins:
the disk brings them. What is fetched is not trusted: a qcow2 file that refers to other files of this host is refused.
"""

from __future__ import annotations

import struct
from pathlib import Path

from factory import digest, proc
from factory.bases import BaseContext, PreparedBase
from factory.bases.fetch import fetch
from factory.bases.trees import CachedTree, TreeCache
from factory.digest import Digest
from factory.disk import manifest, rootdisk
from factory.disk.ext4 import FileSystem
from factory.errors import BaseError, DiskError, SpecError, ToolError
from factory.model import BaseSpec, LockedBase, Package

_QCOW2 = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_HEAD_BYTES = 104
_OTHER_FORMATS = {
    b"KDMV": "a VMDK file", b"vhdxfile": "a VHDX file", b"conectix": "a VHD file", b"<<< ": "a VDI file",
    b"\x1f\x8b": "compressed with gzip", b"\xfd7zXZ": "compressed with xz", b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2", b"PK\x03\x04": "a zip archive",
}  # fmt: skip


class Disk:
    """A disk image."""

    def recipe(self, spec: BaseSpec) -> Digest:
        """The file's sha256: it decides all."""
        return digest.of_json(["disk", _checked(spec)[1]])

    def prepare(
        self, spec: BaseSpec, locked: LockedBase | None, context: BaseContext, *, refresh: bool
    ) -> PreparedBase:
        """See `Base.prepare`. There is nothing to refresh: the spec says which bytes."""
        source, sha256 = _checked(spec)
        disk = fetch(source, sha256, context.cache / "disks")
        trees, recipe = TreeCache(context.cache / "trees"), self.recipe(spec)
        found = next(trees.made_by(recipe), None)
        if found is None:
            context.say(f"taking the tree out of the disk of {spec.name}")
            tree = self._take_out(spec, disk, trees, context, () if locked is None else locked.packages)
        else:
            tree = found
        entry = LockedBase(spec.name, spec.arch, tree.digest, tree.packages)
        return PreparedBase(entry, tree.tar, tree.tree_digest, tree.installed, found is not None, disk)

    def _take_out(
        self, spec: BaseSpec, disk: Path, trees: TreeCache, context: BaseContext, known: tuple[Package, ...]
    ) -> CachedTree:
        tar = trees.new_tar()
        try:
            raw = _raw(disk, context.work)
            raw_digest = digest.of_file(raw)
            offset = rootdisk.find_root(raw)
            rootdisk.replay(raw, offset)
            with FileSystem(raw, offset) as system, tar.open("xb") as out:
                entries = [entry for entry in rootdisk.write_tar(system, out) if entry.type != "socket"]
            database = _unpack_database(tar, context.work)
            installed = context.repositories(spec.arch).installed(database, known)
            tree_digest = manifest.digest(entries)
            return trees.add(tar, CachedTree(raw_digest, tree_digest, self.recipe(spec), tuple(installed), tar))
        except (DiskError, ToolError) as error:
            raise BaseError(f"base {spec.name}: {error.message}", where=error.where, hint=error.hint) from error
        finally:
            tar.unlink(missing_ok=True)


def disk_format(disk: Path, *, layered: bool = False) -> str:
    """`raw` or `qcow2`, by what is in the file. BaseError for other formats, and for a qcow2 file that needs others,
    unless `layered` allows that: only for files of our own."""
    with disk.open("rb") as file:
        head = file.read(_HEAD_BYTES).ljust(_HEAD_BYTES, b"\0")
    if head.startswith(_QCOW2):
        version, backing = struct.unpack_from(">IQ", head, 4)
        features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
        if (backing and not layered) or features & _EXTERNAL_DATA:
            raise BaseError(
                "the disk is only the upper layer of another file", where=str(disk),
                hint="make it whole: qemu-img convert -O qcow2 FILE WHOLE",
            )  # fmt: skip
        return "qcow2"
    for magic, what in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise BaseError(
                f"the disk is {what}, and a base is raw or qcow2", where=str(disk),
                hint="unpack it, or convert it: qemu-img convert -O qcow2 FILE DISK",
            )  # fmt: skip
    return "raw"


def _checked(spec: BaseSpec) -> tuple[str, Digest]:
    where = f"images.toml: base.{spec.name}"
    if (spec.path is None) == (spec.url is None):
        raise SpecError("a base of kind disk has a path or a url", where=where)
    if spec.sha256 is None:
        raise SpecError("a base of kind disk has the sha256 of its file", where=f"{where}.sha256")
    return str(spec.path) if spec.path is not None else str(spec.url), spec.sha256


def _raw(disk: Path, work: Path) -> Path:
    """The raw content of a disk as a file of our own, which may be written to."""
    raw = work / "disk.raw"
    if disk_format(disk) == "qcow2":
        proc.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(raw)])
    else:
        proc.run(["cp", "--sparse=always", "--reflink=auto", "--no-preserve=mode", str(disk), str(raw)])
    return raw


def _unpack_database(tar: Path, work: Path) -> Path:
    """A folder with nothing of the tree but dpkg's database, if it has one."""
    folder = work / "database"
    folder.mkdir()
    members = ["./var/lib/dpkg/status", "./var/lib/dpkg/info"]
    argv = ["tar", "--extract", "--no-same-owner", "--file", str(tar), "--directory", str(folder), *members]
    proc.run(argv, check=False)  # what is not there cannot be unpacked, and that is fine
    return folder


BASE = Disk()
