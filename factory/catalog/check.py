"""Is the catalog whole, and as it was written? Every problem is told, one line each; nothing is ever repaired.

Two kinds of problems: what is *damaged* (the file, the schema, what can be derived anew) and what was *tampered* with
(the log, what it has a digest of, signed envelopes). What cannot be asked any more is a problem of its own, so that one
broken table does not hide the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from factory.catalog import attestations, audit, contents, faults, migrations, records, signed, told
from factory.catalog.audit import Log
from factory.digest import of_bytes, of_json, unpacked
from factory.errors import FactoryError
from factory.trust import dsse

DAMAGED, TAMPERED = "damaged", "tampered"
_TOLD_BY_SQLITE = 100


@dataclass(frozen=True)
class Problem:
    """`kind`: damaged or tampered. `where`: the part of the catalog."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


_Check = Callable[[sqlite3.Connection], Iterator[str]]


def problems(connection: sqlite3.Connection, path: Path, logs: Callable[[], list[Log]]) -> Iterator[Problem]:
    """All that is wrong. `logs`: follows the logs, as `audit.logs` does."""
    for kind, where, check in _CHECKS:
        yield from _guarded(connection, path, kind, where, check)

    def breaks(_: sqlite3.Connection) -> Iterator[str]:
        for log in logs():
            yield from (f"{log.name}: {fault}" for fault in log.breaks)
            if log.more_breaks:
                yield f"{log.name}: {log.more_breaks} more breaks"

    yield from _guarded(connection, path, TAMPERED, "log", breaks)


def first_problem(connection: sqlite3.Connection, path: Path) -> Problem | None:
    """One thing that is wrong, the first that is found; None where nothing is."""
    return next(problems(connection, path, lambda: audit.logs(connection)), None)


def _guarded(connection: sqlite3.Connection, path: Path, kind: str, where: str, check: _Check) -> Iterator[Problem]:
    """What a check finds; where it cannot be made, that."""
    try:
        with faults.told(path):
            for what in check(connection):
                yield Problem(kind, where, what)
    except FactoryError as error:
        yield Problem(DAMAGED, where, f"cannot be checked: {error.message}")
    except (ValueError, TypeError) as error:
        yield Problem(DAMAGED, where, f"cannot be checked: a value in it is none of ours ({error})")


def _file(connection: sqlite3.Connection) -> Iterator[str]:
    said = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_TOLD_BY_SQLITE})")]
    yield from (line for line in said if line != "ok")


def _references(connection: sqlite3.Connection) -> Iterator[str]:
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} names one of {parent} that is not there"


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    """What a fresh catalog of this version has and this one has not, or has otherwise; and triggers of nobody's."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        for migration in migrations.MIGRATIONS:
            migration(fresh)
        wanted = _parts(fresh)
    found = _parts(connection)
    for (kind, name), sql in wanted.items():
        if (kind, name) not in found:
            yield f"the {kind} {name} is missing"
        elif found[kind, name] != sql:
            yield f"the {kind} {name} is not as it was made"
    for kind, name in found.keys() - wanted.keys():
        yield f"there is a {kind} {name}, which is not one of ours"


def _parts(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    sql = (
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_stat%'"
        r" AND name NOT LIKE '\_litestream\_%' ESCAPE '\'"  # Litestream makes such, empty ones
    )
    return {(kind, name): text for kind, name, text in connection.execute(sql)}


def _records(connection: sqlite3.Connection) -> Iterator[str]:
    for (source,) in connection.execute("SELECT id FROM sources ORDER BY id").fetchall():
        yield from records.faults(connection, source)


def _images(connection: sqlite3.Connection) -> Iterator[str]:
    """An image is called, and was recorded, as its first bake says; a base is of the architecture of a child."""
    sql = (
        "SELECT name, digest FROM images WHERE kind = 'image' AND recorded_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM"
        " bakes WHERE image = images.id AND baked_at = recorded_at AND bakes.name = images.name"
        " AND bakes.arch = images.arch) UNION ALL SELECT name, digest FROM images WHERE (kind <> 'image' OR recorded_at"
        " IS NULL) AND (coalesce(builder, tree, spec, package_set) IS NOT NULL OR NOT EXISTS (SELECT 1 FROM edges"
        " JOIN bakes ON bakes.image = child WHERE edges.parent = images.id AND bakes.arch = images.arch))"
    )
    for name, digest in connection.execute(sql):
        yield f"no bake says of {unpacked(digest)} what the catalog says of it ({name[:80]})"


def _contents(connection: sqlite3.Connection) -> Iterator[str]:
    """What is stored once under its digest has that digest."""
    for identity, digest, size in connection.execute("SELECT id, digest, size FROM package_sets"):
        members = contents.members(connection, identity)
        if contents.set_digest(members) != unpacked(digest) or len(members) != size:
            yield f"the package set {unpacked(digest)} does not have its digest"
    for number, name in contents.misnamed_packages(connection):
        yield f"package {number} ({name[:80]}) has another type or purl than what it is made of gives"
    for digest, facts in connection.execute("SELECT digest, facts FROM specs"):
        if of_bytes(facts.encode()) != unpacked(digest):
            yield f"what images.toml said, {unpacked(digest)}, does not have its digest"
    for identity, digest, named in connection.execute("SELECT id, digest, named FROM input_sets"):
        files = "SELECT input, path, digest FROM input_files WHERE input_set = ? ORDER BY input, path, digest"
        if of_json([named, [list(row) for row in connection.execute(files, [identity])]]) != unpacked(digest):
            yield f"the inputs {unpacked(digest)} do not have their digest"


def _signed(connection: sqlite3.Connection) -> Iterator[str]:
    """Each envelope is the one its row and its event name, and the tables say of it what it says itself."""
    columns = "digest, predicate_type, subject, image, number, made_at, signers"
    for raw, *stands in connection.execute(f"SELECT envelope, {columns} FROM attestations ORDER BY id"):
        try:
            row = attestations.row_of(dsse.parse(raw))
        except FactoryError:
            yield f"the envelope {stands[0]} cannot be read"
            continue
        if stands != [row[name] for name in columns.split(", ")]:
            yield f"the envelope {stands[0]} is another, or does not say what its row says"
    for faults_of in (signed.assignment_faults, signed.revocation_faults):
        yield from faults_of(connection)
    sql = (
        "SELECT sources.name, seq, attestation FROM events JOIN sources ON sources.id = source"
        " WHERE attestation IS NOT NULL AND attestation NOT IN (SELECT digest FROM attestations) ORDER BY source, seq"
    )
    for name, seq, digest in connection.execute(sql):
        yield f"the envelope {digest}, which event {seq} of {name} tells of, is not there"
    sql = (
        "SELECT digest FROM attestations WHERE digest NOT IN (SELECT attestation FROM events"
        " WHERE attestation IS NOT NULL) ORDER BY id"
    )
    for (digest,) in connection.execute(sql):
        yield f"no event tells of the envelope {digest}"


def _counts(connection: sqlite3.Connection) -> Iterator[str]:
    counted = "SELECT package_set, count(*) FROM images WHERE package_set IS NOT NULL GROUP BY package_set"
    said = "SELECT package_set, images FROM package_set_counts"
    for package_set, images in connection.execute(f"{counted} EXCEPT {said}"):
        yield f"package set {package_set} has {images} images, and is counted otherwise"
    for package_set, images in connection.execute(f"{said} EXCEPT {counted}"):
        yield f"package set {package_set} is counted as having {images} images, and has not"


def _search(connection: sqlite3.Connection) -> Iterator[str]:
    """The full-text index has every package, and no other. (SQLite's own check of it needs to write.)"""
    sql = (
        "SELECT id FROM packages WHERE id NOT IN (SELECT id FROM package_search_docsize) UNION"
        " SELECT id FROM package_search_docsize WHERE id NOT IN (SELECT id FROM packages)"
    )
    for (package,) in connection.execute(sql):
        yield f"package {package} and the index do not agree"


def _lineage(connection: sqlite3.Connection) -> Iterator[str]:
    missing = "SELECT DISTINCT image, parent FROM bakes EXCEPT SELECT child, parent FROM edges"
    for image, parent in connection.execute(missing):
        yield f"image {image} was baked on {parent}, and no edge says so"
    for image, parent in connection.execute("SELECT child, parent FROM edges EXCEPT SELECT image, parent FROM bakes"):
        yield f"an edge says that image {image} was baked on {parent}, and no bake does"
    yield from _cycles(connection)
    for (image,) in connection.execute("SELECT id FROM images WHERE id NOT IN (SELECT image FROM image_sources)"):
        yield f"no source knows image {image}"


def _cycles(connection: sqlite3.Connection) -> Iterator[str]:
    """Takes away, again and again, whatever has no parent left; what then remains descends from itself."""
    parents: dict[int, int] = {}
    below: dict[int, list[int]] = {}
    for child, parent in connection.execute("SELECT child, parent FROM edges"):
        parents[child] = parents.get(child, 0) + 1
        below.setdefault(parent, []).append(child)
    free = [parent for parent in below if parent not in parents]
    while free:
        for child in below.get(free.pop(), ()):
            parents[child] -= 1
            if not parents[child]:
                del parents[child]
                free.append(child)
    if parents:
        yield f"{len(parents)} images descend from themselves, or from one that does; among them image {min(parents)}"


_CHECKS: tuple[tuple[str, str, _Check], ...] = (
    (DAMAGED, "file", _file),
    (DAMAGED, "references", _references),
    (DAMAGED, "schema", _schema),
    (TAMPERED, "records", _records),
    (TAMPERED, "images", _images),
    (TAMPERED, "contents", _contents),
    (TAMPERED, "signed", _signed),
    (TAMPERED, "rows", told.faults),
    (DAMAGED, "counts", _counts),
    (DAMAGED, "search", _search),
    (DAMAGED, "lineage", _lineage),
)
