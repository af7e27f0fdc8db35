"""Which images hold a package: found by the sets that images share, so that it costs what sets there are, not images.

Packages of a name are few, the sets that hold them too; how many images have a set is kept by triggers. Images come
last, one by one, for whoever wants them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from factory.apt.relation import Relation
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage
from factory.catalog.lineage import batches, marks
from factory.digest import Digest, packed, unpacked


@dataclass(frozen=True)
class KnownPackage:
    """One row of `packages`. `sha256`: of its file, None where that is not known."""

    id: int
    name: str
    version: str
    arch: str
    source: str
    source_version: str
    sha256: Digest | None

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.arch}"


@dataclass(frozen=True)
class Holding:
    """The sets that hold one of `packages`. `sets`: row id of the set -> those of the packages in it.

    `images`: how many images have one of the sets (by then).
    """

    packages: tuple[KnownPackage, ...]
    sets: dict[int, tuple[KnownPackage, ...]]
    images: int


def matching(catalog: Catalog, relation: Relation) -> list[KnownPackage]:
    """The packages that a relation asks for, whichever images they are in."""
    column = "source" if relation.by_source else "name"
    found = _packages(catalog, f"{column} = ?", [relation.name])
    return [one for one in found if relation.meets(one.source_version if relation.by_source else one.version)]


def is_known(catalog: Catalog, name: str, *, by_source: bool = False) -> bool:
    """Whether there is a package of this name, or one whose source is called so."""
    column = "source" if by_source else "name"
    sql = f"SELECT EXISTS (SELECT 1 FROM packages WHERE {column} = ?) AS there"
    return bool(catalog.query(sql, [name])[0]["there"])


def of_file(catalog: Catalog, digest: Digest) -> list[KnownPackage]:
    """The packages whose file has this digest."""
    return _packages(catalog, "sha256 = ?", [packed(digest)])


def holding(catalog: Catalog, packages: list[KnownPackage], as_of: str | None = None) -> Holding:
    """Which sets hold one of these packages, and how many images have those sets."""
    known = {one.id: one for one in packages}
    sets: dict[int, list[KnownPackage]] = {}
    for part in batches(known):
        sql = f"SELECT package_set, package FROM package_set_members WHERE package IN ({marks(part)})"
        for package_set, package in catalog.connection.execute(sql, part):
            sets.setdefault(package_set, []).append(known[package])
    counts = {one: _count(catalog, one, as_of) for one in sets}
    kept = {one: tuple(sets[one]) for one in sorted(sets, reverse=True) if counts[one]}
    return Holding(tuple(packages), kept, sum(counts.values()))


def images(
    catalog: Catalog, found: Holding, as_of: str | None = None
) -> Iterator[tuple[KnownImage, tuple[KnownPackage, ...]]]:
    """Each image that holds one of the packages, with those it holds; set by set, the newest first in each."""
    sql = f"SELECT {COLUMNS} FROM images WHERE package_set = ? AND (?2 IS NULL OR recorded_at <= ?2) ORDER BY id DESC"
    for package_set, packages in found.sets.items():
        for identity, digest, *rest in catalog.connection.execute(sql, [package_set, as_of]):
            yield KnownImage(identity, unpacked(digest), *rest), packages


def search(catalog: Catalog, text: str, limit: int = 100) -> list[str]:
    """Names of packages, or of their sources, that contain `text`; the shortest first."""
    wanted = text.strip().lower()
    if len(wanted) < 3:  # shorter than what the index knows
        sql = (
            "SELECT DISTINCT name FROM packages WHERE name >= ?1 AND name < ?1 || char(1114111) ORDER BY name LIMIT ?2"
        )
        return [row[0] for row in catalog.connection.execute(sql, [wanted, limit])] if wanted else []
    sql = (
        "SELECT DISTINCT packages.name FROM package_search JOIN packages ON packages.id = package_search.rowid"
        " WHERE package_search MATCH ? ORDER BY length(packages.name), packages.name LIMIT ?"
    )
    quoted = '"' + wanted.replace('"', '""') + '"'
    return [row[0] for row in catalog.connection.execute(sql, [quoted, limit])]


def _packages(catalog: Catalog, where: str, parameters: list[object]) -> list[KnownPackage]:
    sql = f"SELECT id, name, version, arch, source, source_version, sha256 FROM packages WHERE {where}"
    rows = catalog.query(f"{sql} ORDER BY name, arch, id", parameters)
    return [KnownPackage(**{**row, "sha256": row["sha256"] and unpacked(row["sha256"])}) for row in rows]


def _count(catalog: Catalog, package_set: int, as_of: str | None) -> int:
    if as_of is None:
        sql = "SELECT ifnull((SELECT images FROM package_set_counts WHERE package_set = ?), 0)"
        return int(catalog.connection.execute(sql, [package_set]).fetchone()[0])
    sql = "SELECT count(*) FROM images WHERE package_set = ? AND recorded_at <= ?"
    return int(catalog.connection.execute(sql, [package_set, as_of]).fetchone()[0])
