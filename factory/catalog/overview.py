"""What a catalog holds, in numbers, for the top of a page; and the versions of a package, each with its images counted.

The numbers are counted over whole tables, so they are asked for once per copy of the catalog and not per page.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory.catalog import state
from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage, of_row
from factory.catalog.packages import KnownPackage
from factory.digest import packed, unpacked

_MOST_NAMES = 2000


@dataclass(frozen=True)
class Numbers:
    """`withdrawn`: golden images that are revoked, themselves or by an ancestor; `revocations`: how many rows the view
    `revoked` has. `channels`: name -> how many images
    stand there. `names`: of golden images, the first 2,000. `sources`: the catalogs whose rows are here."""

    images: int
    packages: int
    withdrawn: int
    revocations: int
    running: int
    events: int
    last_event_at: str | None
    channels: dict[str, int]
    names: tuple[str, ...]
    sources: tuple[str, ...]


def numbers(catalog: Catalog) -> Numbers:
    """All of them, as of now. Takes as long as counting does: a second for a million images."""
    channels: dict[str, int] = {}
    for assignment in state.assignments(catalog):
        channels[assignment.channel] = channels.get(assignment.channel, 0) + 1
    last = catalog.query("SELECT count(*) AS events, max(at) AS last FROM events")[0]
    names = catalog.query("SELECT DISTINCT name FROM images WHERE kind = 'image' ORDER BY name LIMIT ?", [_MOST_NAMES])
    return Numbers(
        images=_count(catalog, "SELECT count(*) AS n FROM images WHERE kind = 'image' AND recorded_at IS NOT NULL"),
        packages=_count(catalog, "SELECT count(*) AS n FROM packages"),
        withdrawn=_withdrawn(catalog),
        revocations=_count(catalog, "SELECT count(*) AS n FROM revoked"),
        running=_count(
            catalog,
            "SELECT count(*) AS n FROM instances"
            " WHERE NOT EXISTS (SELECT 1 FROM instance_ends WHERE instance = instances.id)",
        ),
        events=last["events"],
        last_event_at=last["last"],
        channels=channels,
        names=tuple(row["name"] for row in names),
        sources=tuple(row["name"] for row in catalog.query("SELECT name FROM sources ORDER BY id")),
    )


def _withdrawn(catalog: Catalog) -> int:
    sql = (
        "WITH RECURSIVE gone(id) AS (SELECT images.id FROM revocations JOIN images USING (digest)"
        " WHERE at <= :now AND revocations.made_at <= :now"
        " UNION SELECT child FROM edges JOIN gone ON parent = gone.id)"
        " SELECT count(*) AS n FROM gone JOIN images USING (id) WHERE kind = 'image' AND recorded_at IS NOT NULL"
    )
    return int(catalog.query(sql, {"now": now()})[0]["n"])


def _count(catalog: Catalog, sql: str) -> int:
    return int(catalog.query(sql)[0]["n"])


def versions(catalog: Catalog, name: str) -> list[tuple[KnownPackage, int]]:
    """Each package of a name that is known, in every version and architecture, with how many images have it."""
    sql = (
        "SELECT packages.id, name, version, arch, source, source_version, sha256, total(images) AS images FROM packages"
        " LEFT JOIN package_set_members ON package = packages.id LEFT JOIN package_set_counts USING (package_set)"
        " WHERE name = ? GROUP BY packages.id ORDER BY arch, packages.id"
    )
    found = []
    for row in catalog.query(sql, [name]):
        images = int(row.pop("images"))
        found.append((KnownPackage(**{**row, "sha256": row["sha256"] and unpacked(row["sha256"])}), images))
    return found


def of_package_set(catalog: Catalog, package_set: int, before: int | None, limit: int) -> list[KnownImage]:
    """Images that have a set of packages and whose row id is below `before`, the newest first."""
    sql = f"SELECT {COLUMNS} FROM images WHERE package_set = ? AND id < ? ORDER BY id DESC LIMIT ?"
    most = (1 << 63) - 1
    return [of_row(row) for row in catalog.query(sql, [package_set, most if before is None else before, limit])]


def beginning(catalog: Catalog, digits: str, limit: int = 20) -> list[KnownImage]:
    """Images and bases whose digest begins with these hex digits."""
    low, high = packed("sha256:" + digits.ljust(64, "0")), packed("sha256:" + digits.ljust(64, "f"))
    sql = f"SELECT {COLUMNS} FROM images WHERE digest BETWEEN ? AND ? ORDER BY digest LIMIT ?"
    return [of_row(row) for row in catalog.query(sql, [low, high, limit])]
