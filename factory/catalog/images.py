"""The images that were recorded, with where they stand: a page at a time, the newest first.

Whatever is said beside an image is asked for a page of images at once and through indexes, so that a page costs the
same in a catalog of ten images and of a million.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory.catalog import lineage
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage
from factory.catalog.lineage import batches, marks
from factory.catalog.state import Withdrawal
from factory.digest import packed, unpacked

PAGE = 200

STANDING = (
    "SELECT digest, channel FROM channel_assignments AS held WHERE digest IN ({marks})"
    " AND (:as_of IS NULL OR made_at <= :as_of) AND number = (SELECT max(number) FROM channel_assignments"
    " WHERE source = held.source AND channel = held.channel AND name = held.name AND arch = held.arch"
    " AND (:as_of IS NULL OR made_at <= :as_of))"
)
"""Which channels point at some images: theirs is the promotion with the highest number there."""


@dataclass(frozen=True)
class Wanted:
    """Which images are asked for; None: all. `as_of`: those recorded by then, and what held then."""

    name: str | None = None
    arch: str | None = None
    channel: str | None = None
    as_of: str | None = None


@dataclass(frozen=True)
class Listed:
    """An image and where it stands. `base`: NAME/ARCH of the image it was baked on, or the name of a base.

    `checks`: outcome -> how many, of the last time it was verified. `packages`: how many are installed. `instances`:
    how many run. `sources`: the catalogs that know it (`here` is this one).
    """

    image: KnownImage
    base: str
    packages: int
    channels: tuple[str, ...]
    checks: Mapping[str, int]
    instances: int
    withdrawn: Withdrawal | None
    sources: tuple[str, ...]


def listed(catalog: Catalog, wanted: Wanted, limit: int | None = None) -> Iterator[Listed]:
    """The images that are asked for, the newest first, `limit` at most."""
    before: int | None = None
    remaining = limit
    while remaining is None or remaining > 0:
        page = listed_page(catalog, wanted, before, min(PAGE, remaining) if remaining is not None else PAGE)
        yield from page
        if not page:
            return
        before = page[-1].image.id
        remaining = None if remaining is None else remaining - len(page)


def listed_page(catalog: Catalog, wanted: Wanted, before: int | None = None, limit: int = PAGE) -> list[Listed]:
    """The next `limit` images whose row id is below `before`, the newest first."""
    where, parameters = ["kind = 'image'", "recorded_at IS NOT NULL"], dict[str, Any](vars(wanted))
    if before is not None:
        where.append("id < :before")
    if wanted.name is not None:
        where.append("name = :name")
    if wanted.arch is not None:
        where.append("arch = :arch")
    if wanted.as_of is not None:
        where.append("recorded_at <= :as_of")
    if wanted.channel is not None:
        where.append(
            "digest IN (SELECT digest FROM (SELECT digest, max(number) FROM channel_assignments"
            " WHERE channel = :channel AND (:as_of IS NULL OR made_at <= :as_of) GROUP BY source, name, arch))"
        )
    sql = f"SELECT {COLUMNS} FROM images WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT :limit"
    rows = catalog.connection.execute(sql, {**parameters, "before": before, "limit": limit})
    found = [KnownImage(identity, unpacked(digest), *rest) for identity, digest, *rest in rows]
    return with_standing(catalog, found, wanted.as_of)


def with_standing(catalog: Catalog, images: Sequence[KnownImage], as_of: str | None = None) -> list[Listed]:
    """These images, in this order, with where each stands (`as_of`: stood then)."""
    standing = channels_of(catalog, images, as_of)
    withdrawn = lineage.withdrawn(catalog, [image.id for image in images], as_of)
    running = running_of(catalog, images, as_of)
    bakes = _last_bakes(catalog, images, as_of)
    sizes = _sizes(catalog, images)
    sources = _sources(catalog, images)
    return [
        Listed(
            image,
            base=bakes[image.id][0] if image.id in bakes else "",
            packages=sizes.get(image.package_set, 0),
            channels=tuple(sorted(standing.get(image.id, ()))),
            checks=_checks(catalog, bakes[image.id][1]) if image.id in bakes else {},
            instances=running.get(image.id, 0),
            withdrawn=withdrawn.get(image.id),
            sources=tuple(sources.get(image.id, ())),
        )
        for image in images
    ]


def channels_of(catalog: Catalog, images: Sequence[KnownImage], as_of: str | None = None) -> dict[int, set[str]]:
    """Row id of an image -> the channels that point at it (pointed, at `as_of`)."""
    found: dict[int, set[str]] = {}
    numbers = {packed(image.digest): image.id for image in images}
    for part in batches(list(numbers)):
        named = {f"d{index}": digest for index, digest in enumerate(part)}
        sql = STANDING.format(marks=", ".join(f":{name}" for name in named))
        for digest, channel in catalog.connection.execute(sql, {**named, "as_of": as_of}):
            found.setdefault(numbers[digest], set()).add(channel)
    return found


def running_of(catalog: Catalog, images: Sequence[KnownImage], as_of: str | None) -> dict[int, int]:
    """Row id of an image -> how many instances of it run (ran, at `as_of`)."""
    found: dict[int, int] = {}
    numbers = {packed(image.digest): image.id for image in images}
    for part in batches(list(numbers)):
        sql = (
            "SELECT digest, count(*) FROM instances LEFT JOIN instance_ends ON instance = instances.id"
            f" WHERE digest IN ({marks(part)}) AND (ended_at IS NULL OR ended_at > ?)"
            " AND (? IS NULL OR launched_at <= ?) GROUP BY digest"
        )
        for digest, count in catalog.connection.execute(sql, [*part, as_of, as_of, as_of]):
            found[numbers[digest]] = count
    return found


def _last_bakes(
    catalog: Catalog, images: Sequence[KnownImage], as_of: str | None
) -> dict[int, tuple[str, tuple[Any, ...]]]:
    """Row id of an image -> what it was baked on, and (source, run, name, arch) of the last time it was verified."""
    found: dict[int, tuple[str, tuple[Any, ...]]] = {}
    for part in batches([image.id for image in images]):
        sql = (
            "SELECT image, parents.kind, parents.name, parents.arch, bakes.source, run, bakes.name, bakes.arch"
            f" FROM bakes JOIN images AS parents ON parents.id = parent WHERE image IN ({marks(part)})"
            " AND (? IS NULL OR baked_at <= ?) ORDER BY bakes.id"
        )
        for image, kind, name, arch, *run in catalog.connection.execute(sql, [*part, as_of, as_of]):
            found[image] = (f"{name}/{arch}" if kind == "image" else name, tuple(run))
    return found


def _checks(catalog: Catalog, run: tuple[Any, ...]) -> dict[str, int]:
    sql = (
        "SELECT outcome, count(*) FROM checks WHERE source = ? AND run = ? AND image = ? AND arch = ?"
        " GROUP BY outcome ORDER BY outcome"
    )
    return dict(catalog.connection.execute(sql, run).fetchall())


def _sizes(catalog: Catalog, images: Sequence[KnownImage]) -> dict[int | None, int]:
    found: dict[int | None, int] = {}
    for part in batches(sorted({image.package_set for image in images if image.package_set is not None})):
        sql = f"SELECT id, size FROM package_sets WHERE id IN ({marks(part)})"
        found.update(catalog.connection.execute(sql, part).fetchall())
    return found


def _sources(catalog: Catalog, images: Sequence[KnownImage]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for part in batches([image.id for image in images]):
        sql = (
            "SELECT image, sources.name FROM image_sources JOIN sources ON sources.id = source"
            f" WHERE image IN ({marks(part)}) ORDER BY image, source"
        )
        for image, source in catalog.connection.execute(sql, part):
            found.setdefault(image, []).append(source)
    return found
