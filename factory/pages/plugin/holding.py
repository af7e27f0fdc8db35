"""Which images hold a package and where it runs, as the pages ask it: a page of images at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from factory.apt.version import version_key
from factory.catalog import finding, images, overview, packages, state
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.catalog.images import Listed, Wanted
from factory.catalog.packages import KnownPackage
from factory.catalog.state import Running
from factory.compliance import where
from factory.compliance.where import Unknown

MOST = 100
"""So many names, or images, are on a page."""


@dataclass(frozen=True)
class Holders:
    """The images that hold a package: how many, a page of them, and what begins the next (`after`).

    `running`: each instance that has it, with its image. `channels`: name -> images there that have it. `unknown`: what
    may have it.
    """

    packages: tuple[KnownPackage, ...]
    image_count: int
    rows: tuple[Listed, ...]
    after: str | None
    running: tuple[tuple[Running, KnownImage], ...]
    channels: dict[str, tuple[KnownImage, ...]]
    unknown: Unknown


def versions(catalog: Catalog, name: str) -> list[tuple[KnownPackage, int]]:
    """Each version of a package that images have, with how many, the newest first, as dpkg orders them.

    The same version from files that differ is told once.
    """
    found: dict[tuple[str, ...], tuple[KnownPackage, int]] = {}
    for one, count in overview.versions(catalog, name):
        key = (one.version, one.arch, one.source, one.source_version)
        found[key] = (one, count + (found[key][1] if key in found else 0))

    def order(item: tuple[KnownPackage, int]) -> tuple[object, ...]:
        try:
            return True, version_key(item[0].version)
        except ValueError:
            return False, item[0].version

    return sorted((item for item in found.values() if item[1]), key=order, reverse=True)


def holders(catalog: Catalog, name: str, version: str, after: str) -> Holders | None:
    """The images that hold a version of a package. `after`: as an earlier answer gave it. None: there is no such."""
    wanted = [one for one, _ in overview.versions(catalog, name) if one.version == version]
    if not wanted:
        return None
    found = packages.holding(catalog, wanted)
    page, then = _page(catalog, list(found.sets), after)

    def holds(image: KnownImage) -> bool:
        return image.package_set in found.sets

    channels: dict[str, tuple[KnownImage, ...]] = {}
    assigned = state.assignments(catalog)
    known = finding.by_digests(catalog, {one.digest for one in assigned})
    for one in assigned:
        image = known.get(one.digest)
        if image is not None and holds(image):
            channels[one.channel] = (*channels.get(one.channel, ()), image)
    return Holders(
        tuple(wanted),
        found.images,
        tuple(images.with_standing(catalog, page)),
        then,
        _running(catalog, holds),
        channels,
        where.lacking_packages(catalog),
    )


def _running(catalog: Catalog, holds: Callable[[KnownImage], bool]) -> tuple[tuple[Running, KnownImage], ...]:
    running = state.running(catalog)
    known = finding.by_digests(catalog, {one.digest for one in running})
    pairs = [(one, known[one.digest]) for one in running if one.digest in known]
    return tuple((one, image) for one, image in pairs if holds(image))


def _page(catalog: Catalog, sets: list[int], after: str) -> tuple[list[KnownImage], str | None]:
    """The next images that have one of the sets, set by set, the newest first in each."""
    place = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", after)
    start, before = (int(place[1]), int(place[2])) if place else (None, None)
    found: list[KnownImage] = []
    for package_set in sets:
        if start is not None and package_set > start:
            continue
        below = before if package_set == start else None
        found += overview.of_package_set(catalog, package_set, below, MOST + 1 - len(found))
        if len(found) > MOST:
            last = found[MOST - 1]
            return found[:MOST], f"{last.package_set}-{last.id}"
    return found, None


def images_called(catalog: Catalog, asked: str) -> list[Listed]:
    """Images of a name, or whose digest begins so; the newest first."""
    if re.fullmatch(r"(?:sha256:)?[0-9a-f]{6,64}", asked):
        found = overview.beginning(catalog, asked.removeprefix("sha256:"))
        return images.with_standing(catalog, found)
    name, _, arch = asked.partition("/")
    return images.listed_page(catalog, Wanted(name, arch or None), None, 20)
