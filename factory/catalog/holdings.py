"""Which distinct sets of packages the images have, and how many images each: questions about packages are per set.

Counts come from what the triggers keep, so that a million images with two hundred sets are two hundred rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from factory.catalog import contents
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage, by_digests, of_row
from factory.catalog.lineage import batches, marks
from factory.digest import Digest


@dataclass(frozen=True)
class Counted:
    """So many images of a set that have one name: `who` (NAME/ARCH)."""

    package_set: int
    who: str
    images: int


def every(catalog: Catalog) -> dict[int, int]:
    """The sets that images have, each with how many."""
    rows = catalog.query("SELECT package_set, images FROM package_set_counts ORDER BY package_set")
    return {row["package_set"]: row["images"] for row in rows}


def without(catalog: Catalog) -> int:
    """How many images there are whose packages are not known."""
    sql = "SELECT count(*) AS n FROM images WHERE package_set IS NULL AND kind = 'image'"
    return int(catalog.query(sql)[0]["n"])


def packages(catalog: Catalog, package_set: int) -> list[InstalledPackage]:
    """The packages of a set."""
    return contents.members(catalog.connection, package_set)


def newest(
    catalog: Catalog, package_set: int, most: int, *, who: str = "", without: Collection[str] = ()
) -> list[KnownImage]:
    """Images that have a set, those recorded last first: of `who` (NAME/ARCH) if it is given, of none of `without`."""
    name, _, arch = who.partition("/")
    sql = (
        f"SELECT {COLUMNS} FROM images WHERE package_set = :package_set"
        " AND (:who = '' OR name = :name AND arch = :arch)"
        " AND name || '/' || arch NOT IN (SELECT value FROM json_each(:without)) ORDER BY id DESC LIMIT :most"
    )
    wanted = {"package_set": package_set, "who": who, "name": name, "arch": arch, "most": most}
    return [of_row(row) for row in catalog.query(sql, {**wanted, "without": json.dumps(sorted(without))})]


def of_names(catalog: Catalog, names: Iterable[str]) -> list[Counted]:
    """The images with these names (without an architecture), counted by set and architecture."""
    found = []
    for part in batches(sorted(set(names))):
        sql = (
            "SELECT package_set, name, arch, count(*) AS images FROM images"
            f" WHERE package_set IS NOT NULL AND name IN ({marks(part)}) GROUP BY package_set, name, arch"
        )
        found += [
            Counted(row["package_set"], f"{row['name']}/{row['arch']}", row["images"])
            for row in catalog.query(sql, part)
        ]
    return found


def of_digests(catalog: Catalog, digests: Collection[Digest]) -> list[KnownImage]:
    """The images with these digests whose packages are known."""
    return [image for image in by_digests(catalog, digests).values() if image.package_set is not None]
