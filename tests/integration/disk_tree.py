"""A small tree with everything that is awkward to put on a disk, made in any order.

Run inside a namespace: `disk_tree.py TREE forward|backward` makes it; the names are the same, the order is not.
The word `plain` leaves out attributes of users, which a tmpfs of older kernels has not; `small` the folder of many.
"""

from __future__ import annotations

import gzip
import os
import random
import struct
import sys
from pathlib import Path

EPOCH = 1_700_000_000
KERNEL = b"MZ" + random.Random(1).randbytes(300_000)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, identity)
    for tag, permissions, identity in [(1, 7, 2**32 - 1), (2, 5, 33), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1),
                                       (32, 0, 2**32 - 1)]
)  # fmt: skip
ODD_NAMES = (
    "with space", 'with "quotes"', "with 'single' $dollar `tick` \\ back", "#comment", "<12>", "-dash", "täb\tin it",
    "umläut", os.fsdecode(b"not utf-8 \xff\xfe"), "x" * 255, "*?[a]", ";semi",
)  # fmt: skip
FILES: dict[str, bytes] = {
    "usr/lib/os-release": b'ID=debian\nPRETTY_NAME="Test"\n',
    "etc/hostname": b"builder\n",
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
    "etc/shadow": b"root:*:19000:0:99999:7:::\nnew:!:30000:0:99999:7:::\n",
    "etc/ssh/sshd_config": b"PermitRootLogin no\n",
    "boot/vmlinuz-6.1.0-1-test": b"MZ old kernel",
    "boot/initrd.img-6.1.0-1-test": b"old",
    "boot/vmlinuz-6.1.0-10-test": KERNEL,
    "boot/vmlinuz-6.1.0-11-broken": b"MZ has no initrd",
    "usr/bin/su": b"#!/bin/sh\n" * 900,
    "usr/bin/bind": b"capable" * 3000,
    "usr/bin/one name": b"linked" * 2000,
    "home/alice/.ssh/authorized_keys": b"ssh-ed25519 AAAArole alice\n",
    "usr/lib/zeros": bytes(40_000) + b"end",
    "usr/lib/empty": b"",
    "usr/lib/acl": b"with an acl",
    "usr/lib/user": b"with a large attribute",
    "var/cache/debconf/config.dat": b"debconf\n",
    **{f"opt/odd/{name}": name.encode("utf-8", "surrogateescape") for name in ODD_NAMES},
    **{f"opt/many/{number:04}": bytes([number % 251]) * (number * 7) for number in range(1500)},
}
FOLDERS = ("dev", "proc", "sys", "run", "tmp", "var/log/nginx", "var/tmp", "root", "srv/empty")
LINKS = {
    "etc/os-release": "../usr/lib/os-release",
    "usr/lib/long": "/" + "long/" * 200 + 'target with "quotes"',
    "usr/lib/59": "y" * 59,
    "usr/lib/60": "z" * 60,
    "opt/odd/link <to>": "with space",
}


def cpio(names: dict[str, bytes], mtime: int, first_inode: int) -> bytes:
    """A newc archive, as mkinitramfs would make it at `mtime` where inode numbers begin at `first_inode`."""
    out = b""
    for number, (name, data) in enumerate([*names.items(), ("TRAILER!!!", b"")]):
        fields = (first_inode + number, 0o100644, 0, 0, 1, mtime, len(data), 8, 1, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return out + bytes(-len(out) % 512)


def initrd(mtime: int, first_inode: int) -> bytes:
    """An early archive that is not compressed, and a compressed one, as Debian's microcode packages lead to."""
    early = cpio({"kernel/x86/microcode": b"code"}, mtime, first_inode)
    return early + gzip.compress(cpio({"init": b"#!/bin/sh\n", "bin/x": b"x" * 999}, mtime, first_inode), mtime=mtime)


def make(tree: Path, *, backward: bool, plain: bool, small: bool) -> None:
    """Make the tree; only the order differs, and the times of what a bake would have made."""
    files = {name: data for name, data in FILES.items() if not (small and name.startswith("opt/many/"))}
    baked = EPOCH + (5000 if backward else 9000)
    files["boot/initrd.img-6.1.0-10-test"] = initrd(baked, 77 if backward else 1234)
    tree.mkdir()
    made = sorted([*files, *LINKS, *FOLDERS], reverse=backward)
    for name in made:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in LINKS:
            path.symlink_to(LINKS[name])
        elif name in files:
            path.write_bytes(files[name])
        else:
            path.mkdir(exist_ok=True)
    with (tree / "usr/lib/sparse").open("wb") as file:
        for number in range(0, 900, 3):  # more extents than an inode holds
            file.seek(number * 4096)
            file.write(b"data")
        file.truncate(40 << 20)
    for name in ("z last", "usr/bin/a first", "opt/middle"):
        (tree / name).hardlink_to(tree / "usr/bin/one name")
    os.mkfifo(tree / "opt/fifo", 0o640)
    _attributes(tree, plain=plain)
    for path in sorted(tree.rglob("*"), reverse=True):
        os.utime(path, (EPOCH - 100, EPOCH - 100), follow_symlinks=False)
    os.utime(tree, (EPOCH, EPOCH))
    for name in ("etc/shadow", "boot/initrd.img-6.1.0-10-test", "opt"):
        os.utime(tree / name, (baked, baked))


def _attributes(tree: Path, *, plain: bool) -> None:
    for name, mode in (("usr/bin/su", 0o4755), ("usr/bin/bind", 0o755), ("var/tmp", 0o1777), ("tmp", 0o1777),
                       ("etc/shadow", 0o640), ("root", 0o700), ("usr/lib/empty", 0o2600)):  # fmt: skip
        (tree / name).chmod(mode)
    os.chown(tree / "var/log/nginx", 33, 4)
    os.chown(tree / "opt/fifo", 1000, 60000)
    os.chown(tree / "usr/lib/60", 5, 6, follow_symlinks=False)
    os.chown(tree / "etc/shadow", 0, 42)
    os.setxattr(tree / "usr/bin/bind", "security.capability", CAPABILITY)
    os.setxattr(tree / "usr/lib/acl", "system.posix_acl_access", ACL)
    if not plain:
        os.setxattr(tree / "usr/lib/user", "user.large", b"v\0\n" * 300)
        os.setxattr(tree / "usr/lib/user", "user.small", b"")


if __name__ == "__main__":
    words = sys.argv[2:]
    make(Path(sys.argv[1]), backward="backward" in words, plain="plain" in words, small="small" in words)
