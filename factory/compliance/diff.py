"""What differs between two images: packages, inputs of the bake down to the file, what images.toml said, files.

`difference` asks; what it compares with are pure functions. The files of an image are those of its sealed manifest,
which is in the store of the factory that baked it: where it is not, the answer says so and has the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from factory import digest as digests
from factory.apt.version import version_key
from factory.catalog import contents, details
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.catalog.details import Details
from factory.catalog.finding import KnownImage
from factory.digest import Digest, is_digest
from factory.disk import manifest
from factory.disk.manifest import Entry
from factory.errors import DiskError
from factory.store import Store

Kind = Literal["added", "removed", "newer", "older", "changed"]


@dataclass(frozen=True)
class Change:
    """One difference. `what`: package (`name` is NAME:ARCH, the values versions), input (the name of an input, or
    INPUT: PATH, and digests), setting (a key of images.toml, and JSON) or file (a path, and what is different of it).
    `old` and `new` are None where there is nothing."""

    what: Literal["package", "input", "setting", "file"]
    name: str
    kind: Kind
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Difference:
    """`files_unknown`: why the files could not be compared; None where they were."""

    before: KnownImage
    after: KnownImage
    changes: tuple[Change, ...]
    files_unknown: str | None

    def of(self, what: str) -> list[Change]:
        """The changes of one sort."""
        return [change for change in self.changes if change.what == what]


def difference(catalog: Catalog, store: Store, before: KnownImage, after: KnownImage) -> Difference:
    """What changed from one image to another. Raises CatalogError."""
    old, new = details.details(catalog, before), details.details(catalog, after)
    unknown, files = None, list[Change]()
    if old.tree != new.tree:
        try:
            files = list(of_files(_manifest(store, old), _manifest(store, new)))
        except DiskError as error:
            unknown = error.message
    return Difference(
        before,
        after,
        (
            *of_packages(_installed(catalog, before), _installed(catalog, after)),
            *of_values("input", _inputs(catalog, old), _inputs(catalog, new)),
            *of_values("setting", _settings(old.spec), _settings(new.spec)),
            *files,
        ),
        unknown,
    )


def of_packages(before: Iterable[InstalledPackage], after: Iterable[InstalledPackage]) -> Iterator[Change]:
    """The packages that came, went, or have another version; one of another file alone has changed too."""
    old, new = _versions(before), _versions(after)
    for name in sorted(old.keys() | new.keys()):
        had, has = old.get(name), new.get(name)
        if had != has:
            yield Change("package", name, _kind_of(had, has), _said(had), _said(has))


def of_values(
    what: Literal["input", "setting"], before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[Change]:
    """The names whose value came, went or is another."""
    for name in sorted(before.keys() | after.keys()):
        had, has = before.get(name), after.get(name)
        if had != has:
            yield Change(what, name, "added" if had is None else "removed" if has is None else "changed", had, has)


def of_files(before: Iterable[Entry], after: Iterable[Entry]) -> Iterator[Change]:
    """The paths that came, went or differ."""
    old, new = list(before), list(after)
    had, has = ({entry.path: entry for entry in entries} for entries in (old, new))
    for change in manifest.compare(old, new):
        path, shown = change.path, os.fsencode(change.path).decode("utf-8", "backslashreplace")
        aspects = change.what.split(", ") if change.kind == "changed" else None
        yield Change("file", shown, change.kind, _aspects(had.get(path), aspects), _aspects(has.get(path), aspects))


def markdown(found: Difference) -> str:
    """A changelog: one table for packages, lists for the rest."""
    packages, files = found.of("package"), found.of("file")
    lines = [
        f"# {_plain(found.after.who)}: what changed",
        "",
        f"From `{found.before.digest}` ({_plain(found.before.who)}, {found.before.recorded_at or 'unknown'})  ",
        f"to `{found.after.digest}` ({_plain(found.after.who)}, {found.after.recorded_at or 'unknown'})",
        "",
        f"## Packages ({_counts(packages)})",
        "",
    ]
    if packages:
        lines += ["| package | before | after | |", "| --- | --- | --- | --- |"]
        rows = ((change.name, change.old or "", change.new or "", change.kind) for change in packages)
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in rows] + [""]
    for what, title in (("input", "Inputs"), ("setting", "Settings of images.toml"), ("file", "Files")):
        changes = found.of(what)
        counts = "not compared" if what == "file" and found.files_unknown else _counts(changes)
        lines += [f"## {title} ({counts})", ""]
        lines += [f"- {change.kind}: {_plain(change.name)}{_values(change)}" for change in changes]
        lines += [""] if changes else []
    if found.files_unknown:
        lines += [f"The files were not compared: {_plain(found.files_unknown)}.", ""]
    elif not files:
        lines += ["Every file is the same.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _values(change: Change) -> str:
    """What it was and is, as Markdown shows it; a digest is shortened."""
    values = (value for value in (change.old, change.new) if value is not None)
    return ": " + " → ".join(_plain(f"{one[:19]}…" if is_digest(one) else one) for one in values)


def _counts(changes: list[Change]) -> str:
    counts = {
        kind: sum(change.kind == kind for change in changes)
        for kind in ("added", "removed", "newer", "older", "changed")
    }
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none"


def _plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"\\{character}" if character in "\\`*_[]<>|~&#" else character for character in shown)


def _installed(catalog: Catalog, image: KnownImage) -> list[InstalledPackage]:
    return [] if image.package_set is None else contents.members(catalog.connection, image.package_set)


def _versions(packages: Iterable[InstalledPackage]) -> dict[str, list[tuple[str, str | None]]]:
    """NAME:ARCH -> its versions, each with the digest of its file."""
    found: dict[str, list[tuple[str, str | None]]] = {}
    for package in packages:
        found.setdefault(f"{package.name}:{package.arch}", []).append((package.version, package.sha256))
    return found


def _kind_of(had: list[tuple[str, str | None]] | None, has: list[tuple[str, str | None]] | None) -> Kind:
    if had is None or has is None:
        return "added" if had is None else "removed"
    try:
        old, new = (max(version_key(version) for version, _ in side) for side in (had, has))
    except ValueError:  # no versions of Debian's
        return "changed"
    return "newer" if old < new else "older" if new < old else "changed"


def _said(side: list[tuple[str, str | None]] | None) -> str | None:
    return None if side is None else ", ".join(version for version, _ in side)


def _inputs(catalog: Catalog, image: Details) -> dict[str, str]:
    """Name of an input, or INPUT: PATH -> its digest, as of the last bake; packages are compared as such."""
    if not image.bakes:
        return {}
    parts = details.input_files(catalog, image.bakes[0].id)
    files = {f"{part.input}: {part.path}": part.digest for part in parts if part.input != "packages"}
    return {**dict(image.bakes[0].inputs), **files}


def _settings(spec: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in spec.items()}


def _manifest(store: Store, image: Details) -> list[Entry]:
    """The sealed manifest. Raises DiskError where it is not here, or is not what its digest says."""
    who = f"{image.image.who} {image.image.digest[:19]}…"
    if image.tree is None:
        raise DiskError(f"the catalog has no manifest of {who}")
    if not store.has(image.tree):
        raise DiskError(f"the manifest of {who} is not in the store here")
    data = store.path(image.tree).read_bytes()
    if digests.of_bytes(data) != image.tree:
        raise DiskError(f"the manifest of {who} in the store is damaged (factory bake makes it anew)")
    return manifest.loads(data)


def _aspects(entry: Entry | None, names: list[str] | None) -> str | None:
    """What is said of one side of a file that changed: the fields that differ; of one that came or went, its type."""
    if entry is None:
        return None
    if names is None:
        return entry.type
    return ", ".join(f"{name} {_shown(entry, name)}" for name in names)


def _shown(entry: Entry, name: str) -> str:
    value = getattr(entry, name)
    if name == "mode":
        return f"{value:04o}"
    if name == "content" and entry.type == "file":
        return Digest("sha256:" + value)[:19]
    return os.fsencode(str(value)).decode("utf-8", "backslashreplace")
