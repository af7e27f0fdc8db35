"""images.lock <-> Lock: what was baked.

Owns the file's format, its reader and its only writer. Invariants: equal locks give equal bytes; what is written can be
read back; a file that is not wholly understood is refused, never half read. Nothing in it is to be trusted:
its readers check the signatures for the digests.

So that branches which bake or add different images merge without a conflict, every line that neighbours may have in
common ends with a comment naming its image: with ATTRIBUTES in .gitattributes, git then puts both additions one after
the other. Where both branches changed the same image, that leaves a key there twice, which no reader takes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from factory import files
from factory.digest import Digest, is_digest
from factory.errors import LockError
from factory.model import Lock, LockedBase, LockedImage, Package

VERSION = 1
ATTRIBUTES = "images.lock merge=union\n"
REPAIR_HINT = "make it anew from the catalog: factory lock --repair (or take one side: git checkout --ours images.lock)"

_MARKER = re.compile(r"^(?:<{7}|\|{7}|>{7})(?: .*)?$|^={7}$", re.MULTILINE)
_SHA = r"sha256:[0-9a-f]{64}"
_WORD = r"[!#-\[\]-~]+"  # printable ASCII without space, quote and backslash
_NAME = r"[a-z0-9-]{1,63}"
_HEADERS = re.compile(rb"\n(?=[^\S\n]*(?:\[\[|image|base[^ ]|[<=>|]{7}))")  # what may begin an entry, or is a conflict
_ENTRIES = re.compile(rb'\n\[\[(?:image|base)\]\](?:  #[^\n]*)?\nname = "[a-z0-9-]+"\n')
_PACKAGE = re.compile(rf"({_WORD}) ({_WORD}) ({_WORD}) ({_SHA})")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read(path: Path) -> Lock:
    """The lock in a file; an empty one where there is no file. LockError where it is not wholly understood."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise LockError(f"cannot read {path.name}: {error.strerror}", where=str(path)) from error
    return loads(decoded(raw, path.name), path.name)


def find(path: Path, name: str) -> list[LockedImage]:
    """As `find_in`, in a file; nothing where there is none. LockError."""
    try:
        return find_in(path.read_bytes(), name, path.name)
    except OSError:
        return _of_name(read(path), name)


def find_in(raw: bytes, name: str, file: str = "images.lock") -> list[LockedImage]:
    """The entries of one image, an architecture each, without reading those of others: for a deploy job's quick answer.

    A lock whose lines are not as `dumps` writes them is read as a whole. LockError as by `read`, but faults inside
    other entries are not seen.
    """
    alone = _entries_alone(raw, name) if is_name(name) else raw
    return _of_name(loads(decoded(alone, file), file), name)


def decoded(raw: bytes, name: str) -> str:
    """The text of a lock. LockError where it is none."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LockError(f"{name} is not UTF-8 text", where=name, hint=REPAIR_HINT) from error


def _of_name(lock: Lock, name: str) -> list[LockedImage]:
    return [image for (found, _), image in sorted(lock.images.items()) if found == name]


def _entries_alone(raw: bytes, name: str) -> bytes:
    """A lock without the entries of other images and bases; all of it where it is not in the form we write.

    In that form each table header stands alone on its line but for a comment, and the line after it gives the name.
    """
    starts = [match.start() for match in _HEADERS.finditer(raw)]
    if not starts or len(starts) != len(_ENTRIES.findall(raw)):
        return raw
    wanted = b'\nname = "%s"\n' % name.encode()
    found = [raw[: starts[0]]]
    for start, end in zip(starts, [*starts[1:], len(raw)], strict=True):
        if raw.startswith(b"\n[[image]]", start) and raw.startswith(wanted, raw.index(b"\n", start + 1)):
            found.append(raw[start:end])
    return b"".join(found)


def loads(text: str, name: str = "images.lock") -> Lock:
    """The lock that a text says; `name` is for messages. LockError where it is not wholly understood."""
    if marker := _MARKER.search(text):
        line = text.count("\n", 0, marker.start()) + 1
        raise LockError(
            f"{name}:{line}: it holds conflict markers of a merge", where=f"{name}:{line}", hint=REPAIR_HINT
        )
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise LockError(
            f"{name} is damaged, or two branches changed one image: {error}", where=name, hint=REPAIR_HINT
        ) from error
    version = data.pop("lock-version", None)
    if type(version) is not int or version != VERSION:
        raise LockError(
            f"{name} is of lock-version {version!r}; this factory knows {VERSION}",
            where=f"{name}: lock-version",
            hint="use the version of factory that wrote it" if type(version) is int else REPAIR_HINT,
        )
    entries = _Entries(name)
    bases, images = entries.read("base", data.pop("base", [])), entries.read("image", data.pop("image", []))
    entries.refuse(data, "")
    return Lock(bases, images)


def write(path: Path, lock: Lock) -> None:
    """Make a file say `lock`, in one step. One writer at a time: see `update`. LockError, OSError."""
    data = dumps(lock).encode("utf-8")
    if not path.is_file() or path.read_bytes() != data:
        files.replace(path, data)


def update(path: Path, guard: Path, change: Callable[[Lock], Lock]) -> Lock:
    """Read, change and write the lock while holding the lock file `guard`; the lock as it then is."""
    with files.exclusive(guard):
        before = read(path)
        lock = change(before)
        if lock != before:
            write(path, lock)
        return lock


def is_name(text: str) -> bool:
    """Whether `text` can name an image, an architecture, a channel: never a path."""
    return re.fullmatch(_NAME, text) is not None


def with_entries(lock: Lock, entries: Iterable[LockedBase | LockedImage]) -> Lock:
    """The lock with entries put in, each in the place of the one with its name and architecture."""
    bases, images = dict(lock.bases), dict(lock.images)
    for entry in entries:
        if isinstance(entry, LockedBase):
            bases[entry.name, entry.arch] = entry
        else:
            images[entry.name, entry.arch] = entry
    return replace(lock, bases=bases, images=images)


# --- writing


def dumps(lock: Lock) -> str:
    """The text of a lock: the same for equal locks, to the byte. LockError where something in it cannot be written."""
    lines = [f"lock-version = {VERSION}"]
    for _, base in sorted(lock.bases.items()):
        lines += _base_lines(base)
    for _, image in sorted(lock.images.items()):
        lines += _image_lines(image)
    return "\n".join(lines) + "\n"


def _base_lines(base: LockedBase) -> list[str]:
    return [*_head_lines("base", base), *_package_lines("packages", base.packages, _comment(base))]


def _image_lines(image: LockedImage) -> list[str]:
    of = _comment(image)
    for digest in (image.bake_key, image.base, image.tree, *image.inputs.values()):
        _require(is_digest(digest), f"{digest!r} is no digest", image)
    return [
        *_head_lines("image", image),
        f'bake-key = "{image.bake_key}"',
        f'base = "{image.base}"',
        f'tree = "{image.tree}"',
        *_package_lines("packages", image.packages, of),
        *(() if image.pins is None else _package_lines("pins", image.pins, of)),
        f"[image.inputs]{of}",
        *(f'{_key(name)} = "{digest}"{of}' for name, digest in sorted(image.inputs.items())),
        f"[image.artifacts]{of}",
        *(f"{_string(place)} = {_string(native)}" for place, native in sorted(image.artifacts.items())),
    ]


def _head_lines(kind: str, entry: LockedBase | LockedImage) -> list[str]:
    for word in (entry.name, entry.arch):
        _require(re.fullmatch(_NAME, word) is not None, f"{word!r} is no name", entry)
    _require(is_digest(entry.digest), f"{entry.digest!r} is no digest", entry)
    return [
        "",
        f"[[{kind}]]{_comment(entry)}",
        f'name = "{entry.name}"',
        f'arch = "{entry.arch}"',
        f'digest = "{entry.digest}"',
    ]


def _package_lines(key: str, packages: tuple[Package, ...], of: str) -> list[str]:
    if not packages:
        return [f"{key} = []"]
    for package in packages:
        if not _PACKAGE.fullmatch(str(package)):
            raise LockError(f"a package cannot be written in images.lock: {str(package)!r}", where=of.strip(" #"))
    if _repeated(packages):
        raise LockError(f"a package is twice in {key}", where=of.strip(" #"))
    return [f"{key} = [", *(f'  "{package}",{of}' for package in sorted(packages)), "]"]


def _comment(entry: LockedBase | LockedImage) -> str:
    return f"  # {entry.name}/{entry.arch}"


def _require(sound: bool, problem: str, entry: LockedBase | LockedImage) -> None:
    if not sound:
        raise LockError(f"this cannot be written in images.lock: {problem}", where=f"{entry.name}/{entry.arch}")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    """A TOML basic string (TOML 1.0.0, section String): quote, backslash and control characters escaped."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise LockError(f"this cannot be written in images.lock: {text!r} is no Unicode text")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(char):04X}" if char < " " or char == "\x7f" else char for char in escaped) + '"'


# --- reading


def _repeated(packages: tuple[Package, ...]) -> bool:
    return len({(package.name, package.arch) for package in packages}) < len(packages)


class _Entries:
    """Reads the entries of one lock, each value checked; the first fault is raised."""

    def __init__(self, file: str) -> None:
        self._file = file

    def read(self, kind: str, tables: object) -> dict[tuple[str, str], Any]:
        found: dict[tuple[str, str], Any] = {}
        for index, table in enumerate(self._check(tables, list, kind)):
            where = f"{kind}[{index}]"
            data = dict(self._check(table, dict, where))
            name, arch = self._name(data, "name", where), self._name(data, "arch", where)
            if (name, arch) in found:
                raise self._fault(f"{kind}.{name}", f"{name}/{arch} stands there twice")
            found[name, arch] = (self._base if kind == "base" else self._image)(name, arch, data)
            self.refuse(data, f"{kind}.{name}.")
        return found

    def refuse(self, rest: Mapping[str, Any], prefix: str) -> None:
        for key in rest:
            raise self._fault(f"{prefix}{key}", "unknown key")

    def _base(self, name: str, arch: str, data: dict[str, Any]) -> LockedBase:
        where = f"base.{name}"
        return LockedBase(name, arch, self._digest(data, "digest", where), self._packages(data, "packages", where))

    def _image(self, name: str, arch: str, data: dict[str, Any]) -> LockedImage:
        where = f"image.{name}"
        inputs = self._check(data.pop("inputs", {}), dict, f"{where}.inputs")
        artifacts = self._check(data.pop("artifacts", {}), dict, f"{where}.artifacts")
        return LockedImage(
            name, arch,
            digest=self._digest(data, "digest", where),
            bake_key=self._digest(data, "bake-key", where),
            base=self._digest(data, "base", where),
            tree=self._digest(data, "tree", where),
            packages=self._packages(data, "packages", where),
            pins=self._packages(data, "pins", where) if "pins" in data else None,
            inputs={key: self._digest(inputs, key, f"{where}.inputs") for key in list(inputs)},
            artifacts={key: self._check(value, str, f"{where}.artifacts.{key}") for key, value in artifacts.items()},
        )  # fmt: skip

    def _packages(self, data: dict[str, Any], key: str, where: str) -> tuple[Package, ...]:
        found = []
        for item in self._check(data.pop(key, None), list, f"{where}.{key}"):
            match = _PACKAGE.fullmatch(item) if isinstance(item, str) else None
            if match is None:
                raise self._fault(f"{where}.{key}", f'{item!r} is not "name version arch sha256:…"')
            found.append(Package(match[1], match[2], match[3], Digest(match[4])))
        if _repeated(tuple(found)):
            raise self._fault(f"{where}.{key}", "a package stands there twice")
        return tuple(sorted(found))

    def _name(self, data: dict[str, Any], key: str, where: str) -> str:
        value = self._check(data.pop(key, None), str, f"{where}.{key}")
        if not re.fullmatch(_NAME, value):
            raise self._fault(f"{where}.{key}", f"{value!r} is no name")
        return str(value)

    def _digest(self, data: dict[str, Any], key: str, where: str) -> Digest:
        value = self._check(data.pop(key, None), str, f"{where}.{key}")
        if not is_digest(value):
            raise self._fault(f"{where}.{key}", f"{value!r} is no digest (sha256: and 64 hex digits)")
        return Digest(value)

    def _check(self, value: object, kind: type, where: str) -> Any:
        if not isinstance(value, kind):
            said = "is missing" if value is None else f"is a {type(value).__name__}, not a {kind.__name__}"
            raise self._fault(where, said)
        return value

    def _fault(self, path: str, problem: str) -> LockError:
        return LockError(f"{self._file}: {path}: {problem}", where=f"{self._file}: {path}", hint=REPAIR_HINT)
