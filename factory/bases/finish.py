"""Finishes a bootstrapped tree, inside the namespace: `python -m factory.bases.finish TREE TAR`.

Takes out what differs from one bootstrap of the same packages to the next and what belongs to one machine only, so
that the same pins give the same tree; then writes the tree's tar and prints its digest. Idempotent.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from factory import proc
from factory.apt import pins
from factory.bases import machine
from factory.disk import manifest

_EMPTIED = ("dev", "proc", "run", "sys", "tmp", "var/tmp", "var/cache/apt", "var/lib/apt/lists", "var/log/apt")
_REMOVED = (
    *pins.PATHS, "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/hostname", "etc/*-",
    "etc/.pwd.lock", "etc/ssh/ssh_host_*", "var/cache/debconf/*-old", "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id", "var/lib/dpkg/*-old", "var/lib/dpkg/lock*", "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret", "var/log/*.log", "var/log/alternatives.log*", "root/.bash_history",
)  # fmt: skip
_KEPT_EMPTY = ("etc/machine-id", "var/log/btmp", "var/log/faillog", "var/log/lastlog", "var/log/wtmp")
_WRITTEN = {
    "etc/fstab": "# The kernel mounts the root file system, as its command line says.\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
}
RULES = (_EMPTIED, _REMOVED, _KEPT_EMPTY, _WRITTEN)
"""What decides the tree here: part of the recipe."""


def finish(tree: Path) -> None:
    """Normalise the tree in place."""
    for name in _EMPTIED:
        _empty(tree / name)
    for pattern in _REMOVED:
        for path in tree.glob(pattern):
            path.unlink()
    for name in _KEPT_EMPTY:
        if (tree / name).exists():
            os.truncate(tree / name, 0)
    for name, text in _WRITTEN.items():
        (tree / name).write_text(text)
    for path in _left_out(tree, (tree / machine.SLIM).read_text()):
        path.unlink()
    for unit in machine.MASKED:
        _link(tree / "etc/systemd/system" / unit, "/dev/null")
    if (tree / "etc/systemd/resolved.conf").exists():
        _link(tree / "etc/resolv.conf", "../run/systemd/resolve/resolv.conf")


def _left_out(tree: Path, config: str) -> Iterator[Path]:
    """What dpkg's path-excludes name and is there all the same: mmdebstrap unpacks the first packages without dpkg."""
    rules = [line.removeprefix("path-").partition("=")[::2] for line in config.splitlines() if line.startswith("path-")]
    for folder in ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man"):
        for where, _, names in os.walk(tree / folder):
            for name in names:
                path = Path(where) / name
                inside = "/" + str(path.relative_to(tree))
                decided = [verb for verb, pattern in rules if fnmatch.fnmatchcase(inside, pattern)]
                if decided[-1:] == ["exclude"]:
                    yield path


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def write_tar(tree: Path, tar: Path) -> None:
    """The tree as a tar, owners by number, extended attributes kept, times clamped."""
    proc.run(
        [
            "tar", "--create", "--file", str(tar), "--directory", str(tree), "--format=pax", "--sort=name",
            "--numeric-owner", "--xattrs", "--xattrs-include=*", f"--mtime=@{machine.EPOCH}", "--clamp-mtime",
            "--pax-option=delete=atime,delete=ctime", ".",
        ]
    )  # fmt: skip


def main(tree: Path, tar: Path) -> None:
    """Finish the tree, write its tar, print its digest."""
    finish(tree)
    entries = manifest.scan(tree)
    write_tar(tree, tar)
    sys.stdout.write(manifest.digest(entries) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
