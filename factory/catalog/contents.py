"""What a bake recorded, into the tables and as one value: the image, its lineage, and what it shares with others.

A package, a set of packages, a set of input files and what images.toml said are stored once; an image refers to them.
The digest of a set is that of its members as canonical JSON, so the same set is found again whoever recorded it. All of
a bake that is recorded here also has a digest (`digest_of`), which its event in the log carries: `catalog check` reads
the bake back and compares. Every function works in the transaction that is open.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from factory import digest as digests
from factory.catalog import chain
from factory.catalog.clock import now, text
from factory.digest import Digest, is_digest, packed, unpacked
from factory.model import LockedImage, Package
from factory.trust.predicates.sbom import purl_of

PACKAGE_TYPE = "deb"


@dataclass(frozen=True)
class InstalledPackage:
    """A package of an image. `sha256` is of its file, None where that is not known (a disk made elsewhere)."""

    name: str
    version: str
    arch: str
    source: str
    source_version: str
    sha256: str | None = None


@dataclass(frozen=True)
class InputFile:
    """One file (or other part) of a named input of a bake, and the digest it had."""

    input: str
    path: str
    digest: str


@dataclass(frozen=True)
class Recorded:
    """One bake, as it goes into the tables. `parent_kind`: `image`, or the kind of the base. `kind`: baked, verified.

    `baked_at`: ISO 8601 with its offset. `sizes`: size in bytes of each artifact whose size is known, by its digest.
    `signers`: fingerprints of who signed it, where that was verified.
    """

    image: LockedImage
    parent_kind: str
    parent_name: str
    builder: str
    run: str
    kind: str
    baked_at: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[InstalledPackage, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    signers: tuple[str, ...] = ()


def put_bake(connection: sqlite3.Connection, made: Recorded) -> int:
    """Record a bake with all that belongs to it, and its event; the number of the bake."""
    locked = made.image
    parent = _put_parent(connection, made)
    package_set = put_package_set(connection, made.packages) if made.packages else None
    image = _put_image(connection, made, package_set)
    connection.execute("INSERT OR IGNORE INTO edges VALUES (?, ?)", [image, parent])
    added = _installed(locked.packages, made.packages)
    row = {
        "source": chain.OWN,
        "image": image,
        "name": locked.name,
        "arch": locked.arch,
        "parent": parent,
        "bake_key": packed(locked.bake_key),
        "run": made.run,
        "kind": made.kind,
        "baked_at": _time(made.baked_at),
        "added": put_package_set(connection, added) if added else None,
        "inputs": _put_inputs(connection, locked.inputs, made.inputs),
        "pins": None if locked.pins is None else json.dumps([str(pin) for pin in locked.pins]),
    }
    event = chain.head(connection).length + 1
    bake = _insert(connection, "bakes", {**row, "event": event})
    for place, native in sorted(locked.artifacts.items()):
        if is_digest(native):
            values = [bake, place, packed(native), made.sizes.get(native)]
            connection.execute("INSERT INTO artifacts VALUES (?, ?, ?, ?)", values)
        else:
            connection.execute("INSERT INTO locations VALUES (?, ?, ?)", [bake, place, native])
    chain.append(
        connection,
        chain.Entry(
            made.kind,
            f"{locked.name}/{locked.arch}",
            image=locked.digest,
            record=digest_of(connection, bake),
            signers=made.signers,
        ),
    )
    return bake


def digest_of(connection: sqlite3.Connection, bake: int) -> Digest:
    """The digest of a bake as it stands in the tables, and of the image and the sets it refers to."""
    return digests.of_json(as_plain(connection, bake))


def as_plain(connection: sqlite3.Connection, bake: int) -> dict[str, Any]:
    """A bake as it stands in the tables: JSON-able, digests as text, the same in every catalog that has it."""
    sql = (
        "SELECT images.digest, images.kind AS image_kind, images.builder, images.tree, specs.digest AS spec,"
        " sets.digest AS packages, bakes.name, bakes.arch, parents.digest AS parent, parents.kind AS parent_kind,"
        " parents.name AS parent_name, bake_key, run, bakes.kind, baked_at, added.digest AS added,"
        " input_sets.digest AS inputs, pins FROM bakes JOIN images ON images.id = bakes.image"
        " JOIN images AS parents ON parents.id = bakes.parent LEFT JOIN specs ON specs.id = images.spec"
        " LEFT JOIN package_sets AS sets ON sets.id = images.package_set"
        " LEFT JOIN package_sets AS added ON added.id = bakes.added"
        " LEFT JOIN input_sets ON input_sets.id = bakes.inputs WHERE bakes.id = ?"
    )
    cursor = connection.execute(sql, [bake])
    names = [column[0] for column in cursor.description]
    plain = {
        name: str(unpacked(value)) if isinstance(value, bytes) else value
        for name, value in zip(names, cursor.fetchone(), strict=True)
    }
    plain["artifacts"] = [
        {"format": form, "digest": unpacked(digest), "size_bytes": size}
        for form, digest, size in connection.execute(
            "SELECT format, digest, size_bytes FROM artifacts WHERE bake = ? ORDER BY format", [bake]
        )
    ]
    plain["locations"] = [
        {"place": place, "native": native}
        for place, native in connection.execute(
            "SELECT place, native FROM locations WHERE bake = ? ORDER BY place", [bake]
        )
    ]
    return plain


def put_package_set(connection: sqlite3.Connection, packages: Iterable[InstalledPackage]) -> int:
    """The number of a set of packages, stored where it is not yet."""
    members = sorted(set(packages), key=_order)
    digest = set_digest(members)
    known = connection.execute("SELECT id FROM package_sets WHERE digest = ?", [packed(digest)]).fetchone()
    if known is not None:
        return int(known[0])
    row = _insert(connection, "package_sets", {"digest": packed(digest), "size": len(members)})
    numbers = [[row, put_package(connection, package)] for package in members]
    connection.executemany("INSERT INTO package_set_members VALUES (?, ?)", sorted(numbers))
    return row


def set_digest(packages: Iterable[InstalledPackage]) -> Digest:
    """The digest of a set of packages: of the RFC 8785 JSON of its members, sorted, each once."""
    said = [[PACKAGE_TYPE, *_order(package)] for package in sorted(set(packages), key=_order)]
    return digests.of_bytes(_encode(said).encode())


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Of lists of texts it makes what RFC 8785 asks for, and ten times faster."""


def members(connection: sqlite3.Connection, package_set: int) -> list[InstalledPackage]:
    """The packages of a set, sorted."""
    sql = (
        "SELECT name, version, arch, source, source_version, sha256 FROM package_set_members"
        " JOIN packages ON packages.id = package WHERE package_set = ?"
    )
    found = [
        InstalledPackage(name, version, arch, source, source_version, None if sha256 is None else unpacked(sha256))
        for name, version, arch, source, source_version, sha256 in connection.execute(sql, [package_set])
    ]
    return sorted(found, key=_order)


def _order(package: InstalledPackage) -> tuple[str, ...]:
    return (
        package.name,
        package.arch,
        package.version,
        package.source,
        package.source_version,
        package.sha256 or "",
    )


def put_package(connection: sqlite3.Connection, package: InstalledPackage) -> int:
    """The number of a package, stored where it is not yet."""
    sha256 = None if package.sha256 is None else packed(package.sha256)
    sql = (
        "SELECT id FROM packages WHERE name = ? AND version = ? AND arch = ? AND source = ? AND source_version = ?"
        " AND type = ? AND ifnull(sha256, x'') = ?"
    )
    key = [package.name, package.version, package.arch, package.source, package.source_version, PACKAGE_TYPE]
    known = connection.execute(sql, [*key, sha256 or b""]).fetchone()
    if known is not None:
        return int(known[0])
    return _insert(
        connection,
        "packages",
        {**asdict(package), "sha256": sha256, "type": PACKAGE_TYPE, "purl": purl_of(package).to_string()},
    )


def misnamed_packages(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """(number, name) of each package whose type or purl, which no digest has, is not what follows from the rest."""
    sql = "SELECT id, type, purl, name, version, arch, source, source_version FROM packages ORDER BY id"
    for number, kind, purl, *said in connection.execute(sql):
        if (kind, purl) != (PACKAGE_TYPE, purl_of(InstalledPackage(*said)).to_string()):
            yield number, said[0]


def _installed(pins: Iterable[Package], installed: Iterable[InstalledPackage]) -> list[InstalledPackage]:
    """The installed packages that pins of the lock are of; of one that is not among them, what the pin says."""
    known = {(package.name, package.version, package.arch, package.sha256): package for package in installed}
    return [
        known.get((pin.name, pin.version, pin.arch, pin.sha256))
        or InstalledPackage(pin.name, pin.version, pin.arch, pin.name, pin.version, pin.sha256)
        for pin in pins
    ]


def _put_parent(connection: sqlite3.Connection, made: Recorded) -> int:
    """The number of the parent; where it was never recorded here, what the bake knows of it."""
    base = packed(made.image.base)
    known = connection.execute("SELECT id FROM images WHERE digest = ?", [base]).fetchone()
    if known is not None:
        return int(known[0])
    is_base = made.parent_kind != "image"
    row = {"digest": base, "kind": made.parent_kind, "name": made.parent_name, "arch": made.image.arch}
    parent = _insert(connection, "images", {**row, "recorded_at": now() if is_base else None})
    connection.execute("INSERT INTO image_sources VALUES (?, ?)", [parent, chain.OWN])
    return parent


def _put_image(connection: sqlite3.Connection, made: Recorded, package_set: int | None) -> int:
    locked = made.image
    digest = packed(locked.digest)
    found = connection.execute("SELECT id, recorded_at FROM images WHERE digest = ?", [digest]).fetchone()
    if found is not None and found[1] is not None:
        image = int(found[0])
    else:
        row = {
            "digest": digest,
            "kind": "image",
            "name": locked.name,
            "arch": locked.arch,
            "recorded_at": _time(made.baked_at),
            "builder": made.builder,
            "tree": packed(locked.tree),
            "spec": _put_spec(connection, made.facts),
            "package_set": package_set,
        }
        if found is None:
            image = _insert(connection, "images", row)
        else:
            image = int(found[0])
            columns = ", ".join(f"{column} = ?" for column in row)
            connection.execute(f"UPDATE images SET {columns} WHERE id = ?", [*row.values(), image])
    connection.execute("INSERT OR IGNORE INTO image_sources VALUES (?, ?)", [image, chain.OWN])
    return image


def _put_spec(connection: sqlite3.Connection, facts: Mapping[str, Any]) -> int:
    written = json.dumps(facts, sort_keys=True)
    return _put_once(connection, "specs", digests.of_bytes(written.encode()), {"facts": written})


def _put_inputs(connection: sqlite3.Connection, named: Mapping[str, Digest], files: Iterable[InputFile]) -> int:
    parts = sorted({(file.input, file.path, file.digest) for file in files})
    written = json.dumps(named, sort_keys=True)
    digest = digests.of_json([written, parts])
    known = connection.execute("SELECT id FROM input_sets WHERE digest = ?", [packed(digest)]).fetchone()
    if known is not None:
        return int(known[0])
    row = _insert(connection, "input_sets", {"digest": packed(digest), "named": written})
    connection.executemany("INSERT INTO input_files VALUES (?, ?, ?, ?)", [[row, *part] for part in parts])
    return row


def _put_once(connection: sqlite3.Connection, table: str, digest: Digest, row: Mapping[str, Any]) -> int:
    known = connection.execute(f"SELECT id FROM {table} WHERE digest = ?", [packed(digest)]).fetchone()
    return int(known[0]) if known is not None else _insert(connection, table, {"digest": packed(digest), **row})


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> int:
    marks = ", ".join("?" * len(row))
    sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
    number = connection.execute(sql, list(row.values())).lastrowid
    assert number is not None
    return number


def _time(moment: str) -> str:
    return text(datetime.fromisoformat(moment))
