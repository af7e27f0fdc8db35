"""The seal: takes out of a provisioned tree what belongs to the bake or to one machine, and clamps its times.

What must go is data (`rules`); `violations` judges a sealed state from its manifest alone, so that it also finds what a
seal forgot or what came later. `seal` runs inside the namespace and changes the tree in place; it never follows a
link, so that no link of the tree leads it out of the tree. Sealing a sealed tree again changes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory import digest as digests
from factory.digest import Digest
from factory.disk import initrd, rules
from factory.disk.manifest import EMPTY_CONTENT, Entry
from factory.errors import DiskError

KEY_COMMENT = "factory-bake"
"""A public key whose line ends with this word is the bake's own."""

_DAY_S = 86400
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_MACHINE_ID = "/etc/machine-id"
_DBUS_ID = "/var/lib/dbus/machine-id"
_AUTHORIZED_KEYS = re.compile(r"/(root|home/[^/]+)/\.ssh/authorized_keys2?")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (OPENSSH|RSA|DSA|EC) PRIVATE KEY-----")
_SMALL_BYTES = 1 << 16

Reader = Callable[[str], bytes | None]
"""The content of a small file of a tree or disk by its path; None where there is none."""


@dataclass(frozen=True)
class SealFacts:
    """What the seal must know: the image's name and bake key, when its bake began (seconds since 1970), and the lines
    of authorized_keys that the bake put there (those whose comment is KEY_COMMENT are known without)."""

    name: str
    bake_key: Digest
    started_at: float
    authorized_keys: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """IMAGE_VERSION: the first 12 hex digits of the bake key."""
        return digests.hex_of(self.bake_key)[:12]


def seal(tree: Path, facts: SealFacts) -> int:
    """Seal a tree in place; the epoch: the second to which times were clamped. Raises DiskError."""
    try:
        _apply_rules(tree)
        _take_keys_back(tree, facts)
        _name_it(tree, facts)
        epoch = _epoch(tree, facts.started_at)
        _clamp_password_dates(tree, epoch)
        for path in sorted(tree.glob("boot/initrd.img-*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_mtime > epoch:
                initrd.normalise(path, epoch, tree)
        _clamp(tree, epoch)
    except OSError as error:
        raise DiskError(
            f"the tree cannot be sealed: {error.strerror}", where=os.fspath(error.filename or tree),
            hint="is something still mounted or running in the tree?",
        ) from error  # fmt: skip
    return epoch


def violations(entries: Iterable[Entry], read: Reader | None = None, facts: SealFacts | None = None) -> list[str]:
    """What must not be in a sealed image and is, one sentence each, from its manifest.

    With `read`, small files are looked into as well: names, keys. With `facts`, whether they say what they should.
    """
    by_path = {entry.path: entry for entry in entries}
    found = []
    for entry in by_path.values():
        rule = rules.rule_for(entry.path)
        if rule is not None and _breaks(rule, entry):
            found.append(f"{entry.path}: {rule.what}")
        if entry.type == "socket":
            found.append(f"{entry.path}: a socket of a program that is not running")
    identity = by_path.get(_MACHINE_ID)
    if identity is None or identity.type != "file" or identity.content != EMPTY_CONTENT:
        found.append(f"{_MACHINE_ID}: not an empty file")
    bus = by_path.get(_DBUS_ID)
    if bus is not None and bus.type != "link":
        found.append(f"{_DBUS_ID}: the identity of one machine")
    if read is not None:
        found += _content_violations(by_path, read, facts)
    return sorted(found)


def _breaks(rule: rules.Rule, entry: Entry) -> bool:
    if rule.action == "remove":
        return True
    return entry.type not in ("dir", "link") and (rule.action == "files" or entry.size > 0)


def _content_violations(by_path: dict[str, Entry], read: Reader, facts: SealFacts | None) -> Iterator[str]:
    for path, entry in by_path.items():
        if entry.type != "file" or entry.size > _SMALL_BYTES:
            continue
        if path.startswith("/etc/ssh/") and _PRIVATE_KEY.search(read(path) or b""):
            yield f"{path}: a private key"
        if _AUTHORIZED_KEYS.fullmatch(path):
            lines = (read(path) or b"").decode("utf-8", "replace").splitlines()
            if any(_of_the_bake(line, facts) for line in lines):
                yield f"{path}: the bake's key"
    if facts is None:
        return
    for path in _OS_RELEASE:
        if path in by_path and by_path[path].type == "file":
            lines = (read(path) or b"").decode("utf-8", "replace").splitlines()
            for wanted in (f"IMAGE_ID={facts.name}", f"IMAGE_VERSION={facts.version}"):
                if wanted not in lines:
                    yield f"{path}: {wanted} is missing"
    if (read("/etc/hostname") or b"").decode("utf-8", "replace").strip() != facts.name:
        yield f"/etc/hostname: not {facts.name}"


def _apply_rules(tree: Path) -> None:
    root = os.fspath(tree)
    for path, status in list(_walk(root)):
        rule = rules.rule_for(path)
        is_folder = stat.S_ISDIR(status.st_mode)
        if stat.S_ISSOCK(status.st_mode):
            _remove(root + path)
        elif rule is None:
            continue
        elif rule.action == "remove" or (rule.action == "files" and not is_folder and not stat.S_ISLNK(status.st_mode)):
            _remove(root + path)
        elif rule.action == "truncate" and stat.S_ISREG(status.st_mode) and status.st_size:
            os.truncate(root + path, 0)


def _take_keys_back(tree: Path, facts: SealFacts) -> None:
    root = os.fspath(tree)
    for path, status in list(_walk(root)):
        if _AUTHORIZED_KEYS.fullmatch(path) is None or not stat.S_ISREG(status.st_mode):
            continue
        file = Path(root + path)
        lines = file.read_bytes().decode("utf-8", "surrogateescape").splitlines(keepends=True)
        kept = [line for line in lines if not _of_the_bake(line, facts)]
        if kept == lines:
            continue
        if any(line.strip() and not line.startswith("#") for line in kept):
            file.write_bytes("".join(kept).encode("utf-8", "surrogateescape"))
        else:
            file.unlink()


def _of_the_bake(line: str, facts: SealFacts | None) -> bool:
    words = line.split()
    if len(words) > 1 and words[-1] == KEY_COMMENT:
        return True
    placed = [set(known.split()[:2]) for known in facts.authorized_keys] if facts is not None else []
    return bool(words) and any(known and known <= set(words) for known in placed)


def _name_it(tree: Path, facts: SealFacts) -> None:
    stamped = False
    for name in _OS_RELEASE:
        path = inside(tree, name)
        if path.is_file() and not path.is_symlink():
            lines = path.read_text("utf-8").splitlines()
            kept = [line for line in lines if not line.startswith(("IMAGE_ID=", "IMAGE_VERSION="))]
            path.write_text("\n".join([*kept, f"IMAGE_ID={facts.name}", f"IMAGE_VERSION={facts.version}"]) + "\n")
            stamped = True
    if not stamped:
        raise DiskError("the tree has no os-release", where="/usr/lib/os-release", hint="is it a Linux system's tree?")
    _write(inside(tree, "/etc/hostname"), facts.name + "\n")
    _write(inside(tree, _MACHINE_ID), "")
    bus = inside(tree, _DBUS_ID)
    if bus.parent.is_dir() and not bus.is_symlink():
        bus.unlink(missing_ok=True)
        bus.symlink_to(_MACHINE_ID)


def _write(path: Path, text: str) -> None:
    """Make `path` a file of root's with this content, whatever it was: a link, too, is replaced and not followed."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    os.chown(path, 0, 0)
    path.chmod(0o644)


def inside(tree: Path, name: str) -> Path:
    """A path of the tree none of whose folders is a link. Raises DiskError."""
    path = tree
    for part in Path(name).parts[1:-1]:
        path /= part
        if path.is_symlink():
            raise DiskError(f"{name} is not where it should be: a folder on the way is a link", where=str(path))
    return path / Path(name).name


def _epoch(tree: Path, started_at: float) -> int:
    """The newest time of the tree from before the bake: the same for every bake of the same inputs."""
    before = (int(status.st_mtime) for _, status in _walk(os.fspath(tree)) if status.st_mtime < started_at)
    return max(before, default=int(started_at))


def _clamp_password_dates(tree: Path, epoch: int) -> None:
    """An account made by the bake has today's day as its last change of password: clamp it like any other time."""
    path = inside(tree, "/etc/shadow")
    if not path.is_file() or path.is_symlink():
        return
    lines = []
    for line in path.read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit():
            fields[2] = str(min(int(fields[2]), epoch // _DAY_S))
        lines.append(":".join(fields))
    text = "".join(line + "\n" for line in lines)
    if text != path.read_text("utf-8", "surrogateescape"):
        path.write_text(text, "utf-8", "surrogateescape")


def _clamp(tree: Path, epoch: int) -> None:
    """Set every time after the epoch to it, in compiled Python too, which names the time of its source."""
    root = os.fspath(tree)
    found = list(_walk(root))
    times = {path: status.st_mtime for path, status in found}
    for path, status in found:
        if path.endswith(".pyc") and "/__pycache__/" in path and stat.S_ISREG(status.st_mode):
            _clamp_bytecode(root, path, times, epoch)
    for path, _ in found:
        if os.path.lexists(root + path) and os.lstat(root + path).st_mtime > epoch:
            os.utime(root + path, (epoch, epoch), follow_symlinks=False)


def _clamp_bytecode(root: str, path: str, times: dict[str, float], epoch: int) -> None:
    """Keep compiled Python valid for its clamped source; remove what is stale, which Python would write anew."""
    folder, _, name = path.rpartition("/__pycache__/")
    written = times.get(f"{folder}/{name.split('.')[0]}.py")
    with open(root + path, "r+b") as file:
        header = file.read(16)
        if len(header) < 16:
            written = None
        elif struct.unpack_from("<I", header, 4)[0]:
            return  # checked by the hash of the source, not by its time
        elif written is not None and int(written) & 0xFFFFFFFF == struct.unpack_from("<I", header, 8)[0]:
            if written > epoch:
                file.seek(8)
                file.write(struct.pack("<I", epoch & 0xFFFFFFFF))
            return
    os.unlink(root + path)


def _walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """(path within the tree, status) of everything, the root and folders before what is in them, links not followed."""
    yield "", os.lstat(root)
    below = [""]
    while below:
        prefix = below.pop()
        with os.scandir(root + prefix) as listing:
            for item in listing:
                path = f"{prefix}/{item.name}"
                yield path, item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    below.append(path)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def describe(found: Sequence[str], limit: int = 10) -> str:
    """Violations as lines for an error message."""
    more = [f"… and {len(found) - limit} more"] if len(found) > limit else []
    return "\n".join([*found[:limit], *more])
