"""The root file system: a tree written as ext4 into a disk file, the same bytes from the same tree on every host.

mke2fs makes an empty file system (its options are all given here; the host's mke2fs.conf is not read), then one debugfs
script fills it in the order of the manifest. mke2fs could copy the tree itself, but it takes folders in the order
the host's file system lists them. Every time of an inode is the file's own mtime, in whole seconds. Runs inside the
namespace, because it reads every file of the tree. Checked with e2fsprogs 1.47.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from factory import proc
from factory.disk.manifest import LOST_AND_FOUND, Entry
from factory.errors import DiskError

BLOCK = 4096
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
_JOURNAL_MIB = 32
_BYTES_PER_INODE = 16384
_INODE = 256
_NOT_IN_A_SCRIPT = ("\n", "\r")
_LONGEST_LINE = 8000  # debugfs reads lines into a buffer of BUFSIZ (8192) bytes


@dataclass(frozen=True)
class Geometry:
    """Where a file system goes: byte offset and size in a disk file, its UUID, its label, the second it was made."""

    offset: int
    size: int
    uuid: str
    label: str
    epoch: int


def needed_bytes(entries: Sequence[Entry]) -> int:
    """How large a file system must be to hold a tree, with a little air (2 %)."""
    blocks = 0
    for entry in entries:
        if entry.type == "file" and entry.hardlink in (None, entry.path):
            blocks += -(-entry.size // BLOCK)
        elif entry.type == "dir" or (entry.type == "link" and len(entry.content) > 59):
            blocks += 1
        blocks += bool(entry.xattrs)
        blocks += len(os.fsencode(entry.path)) // 128  # room for its name in a folder, on the generous side
    inodes = max(len(entries) * _INODE * 2, blocks * BLOCK // _BYTES_PER_INODE * _INODE)
    return int((blocks * BLOCK + inodes + (_JOURNAL_MIB << 20)) * 1.02) + (4 << 20)


def write(tree: Path, entries: Sequence[Entry], disk: Path, geometry: Geometry) -> None:
    """Write `tree`, whose manifest is `entries`, into `disk`. DiskError where it does not fit or cannot be written."""
    _refuse_unwritable(tree, entries)
    env = {"MKE2FS_CONFIG": os.devnull, "E2FSPROGS_FAKE_TIME": str(geometry.epoch)}
    proc.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", _FEATURES, "-b", str(BLOCK), "-I", str(_INODE),
         "-i", str(_BYTES_PER_INODE), "-m", "1", "-J", f"size={_JOURNAL_MIB}",
         "-L", geometry.label, "-U", geometry.uuid, "-E",
         f"hash_seed={geometry.uuid},offset={geometry.offset},root_owner=0:0,assume_storage_prezeroed=1",
         str(disk), f"{geometry.size // 1024}K"],
        env=env,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="factory-ext4-") as folder:
        script = Path(folder) / "script"
        lines = _script(tree, entries, Path(folder))
        script.write_bytes(os.fsencode("\n".join(lines) + "\n"))
        argv = ["debugfs", "-w", "-f", str(script), f"{disk}?offset={geometry.offset}"]
        done = proc.run(argv, env=env, check=False)
    said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if done.code != 0 or said[1:]:  # the first line is debugfs's version
        if any("allocate" in line or "No space" in line or "not enough" in line.lower() for line in said):
            raise DiskError(
                "the tree does not fit in its root file system:\n" + "\n".join(said[1:4]),
                where=str(disk),
                hint="raise the image's disk_mib in images.toml",
            )
        raise DiskError("the root file system cannot be written:\n" + "\n".join(said[1:12]), where=proc.paste(argv))


def _refuse_unwritable(tree: Path, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if any(char in entry.path + entry.content for char in _NOT_IN_A_SCRIPT):
            raise DiskError(
                "a name or link target with a line break cannot be put on a disk",
                where=repr(entry.path),
                hint="let the role that makes it choose another name",
            )
        if 2 * len(os.fsencode(entry.path)) + len(os.fsencode(tree)) > _LONGEST_LINE:
            raise DiskError("a path is too long to be put on a disk", where=repr(entry.path))
        if entry.type == "socket":
            raise DiskError("a socket cannot be put on a disk", where=entry.path, hint="the role must not leave it")


def _script(tree: Path, entries: Sequence[Entry], folder: Path) -> Iterator[str]:
    """The debugfs commands, folder by folder. Attribute values go through files in `folder`."""
    values = 0
    # A stable sort: folders in the order of their own paths, so that each exists when it is entered.
    ordered = sorted(entries, key=lambda entry: os.fsencode(os.path.dirname(entry.path)))
    links = Counter(entry.hardlink for entry in entries if entry.hardlink is not None)
    written: dict[str, str] = {}  # the path under which a group of hard links was written, by the group's name
    for parent, group in groupby(ordered, key=lambda entry: os.path.dirname(entry.path)):
        yield f"cd {_quoted(parent)}"
        for entry in group:
            if entry.path == LOST_AND_FOUND:
                raise DiskError("files in /lost+found cannot be put on a disk", where=entry.path)
            name = _quoted(os.path.basename(entry.path) or ".")
            if entry.hardlink in written:
                yield f"ln {_quoted(written[entry.hardlink])} {name}"
                continue
            if entry.hardlink is not None:
                written[entry.hardlink] = entry.path
            yield from _made(tree, entry, name, links[entry.hardlink] if entry.hardlink is not None else 1)
            for attribute, value in entry.xattrs:
                values += 1
                file = folder / str(values)
                file.write_bytes(bytes.fromhex(value))
                yield f"ea_set -f {_quoted(str(file))} {name} {_quoted(attribute)}"


def _made(tree: Path, entry: Entry, name: str, links: int) -> Iterator[str]:
    """The commands that make one entry in the current folder with its owner, mode, times and link count."""
    source = os.fspath(tree) + entry.path
    status = os.lstat(source)
    seconds = int(status.st_mtime_ns // 1_000_000_000)
    yield f"set_current_time @{seconds}"
    mode_made = stat.S_IMODE(status.st_mode)
    if entry.path == "/":
        mode_made = -1
        for field in ("atime", "ctime", "mtime", "crtime"):
            yield f"sif {name} {field} @{seconds}"
    elif entry.type == "file":
        yield f"write {_quoted(source)} {name}"
    elif entry.type == "dir":
        yield f"mkdir {name}"
        mode_made = 0o755
    elif entry.type == "link":
        yield f"symlink {name} {_quoted(entry.content)}"
        mode_made = entry.mode
    elif entry.type == "fifo":
        yield f"mknod {name} p"
        mode_made = -1
    else:
        yield f"mknod {name} {entry.type[0]} " + entry.content.replace(":", " ")
        mode_made = -1
    if mode_made != entry.mode:
        yield f"sif {name} mode 0{stat.S_IFMT(status.st_mode) | entry.mode:o}"
    if entry.uid:
        yield f"sif {name} uid {entry.uid}"
    if entry.gid:
        yield f"sif {name} gid {entry.gid}"
    if links > 1:
        yield f"sif {name} links_count {links}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
