"""The images a question about packages is about, by their distinct sets of packages: one, those of the lock, or all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory import lockfile, spec
from factory.catalog import finding, holdings, lineage
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.cve import suites
from factory.errors import UsageError
from factory.model import BaseSpec, Layout

SHOWN_NAMES = 3


@dataclass(frozen=True)
class Holder:
    """A set of packages, and the images that have it: how many, and some of them (all where they were named).

    `suite`: the Debian release it is of; `base`: that of images.toml at the bottom of its images, where it is there.
    """

    package_set: int
    packages: tuple[InstalledPackage, ...]
    images: int
    some: tuple[KnownImage, ...]
    suite: str | None
    base: BaseSpec | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """NAME/ARCH of some of its images, each once."""
        return tuple(dict.fromkeys(image.who for image in self.some))


@dataclass(frozen=True)
class Unknown:
    """Images that there is no answer for, and why."""

    who: str
    images: int
    why: str


@dataclass(frozen=True)
class Asked:
    """`target`: NAME, NAME/ARCH or DIGEST; None: the images of images.lock. `everything`: all that the catalog knows.
    `suite`: what people say the images are of, in place of what the images say."""

    target: str | None = None
    everything: bool = False
    suite: str | None = None


def holders(catalog: Catalog, layout: Layout, asked: Asked) -> tuple[list[Holder], list[Unknown]]:
    """The sets of packages that are asked about. Raises UsageError, LockError, SpecError."""
    if asked.everything and asked.target is not None:
        raise UsageError("an image or --all", where="--all", hint="leave one of them out")
    bases = spec.load(layout.root).bases if layout.spec.is_file() else {}
    if asked.everything:
        unknown = holdings.without(catalog)
        lacking = [Unknown("images", unknown, "the catalog does not know their packages")] if unknown else []
        counts = holdings.every(catalog).items()
        return [
            _holder(catalog, asked, bases, number, count, tuple(holdings.newest(catalog, number, SHOWN_NAMES)))
            for number, count in counts
        ], lacking
    named, lacking = _named(catalog, layout, asked.target)
    by_set: dict[int, list[KnownImage]] = {}
    for image in named:
        if image.package_set is None:
            lacking.append(Unknown(image.who, 1, "the catalog does not know its packages"))
        else:
            by_set.setdefault(image.package_set, []).append(image)
    found = [_holder(catalog, asked, bases, number, len(images), tuple(images)) for number, images in by_set.items()]
    return found, lacking


def _named(catalog: Catalog, layout: Layout, target: str | None) -> tuple[list[KnownImage], list[Unknown]]:
    if target is not None:
        return [finding.one(catalog, target)], []
    lock = lockfile.read(layout.lock)
    if not lock.images:
        raise UsageError(
            "images.lock holds no image", where=str(layout.lock), hint="name an image, or --all that the catalog knows"
        )
    found, lacking = [], []
    for locked in sorted(lock.images.values(), key=lambda one: (one.name, one.arch)):
        try:
            found.append(finding.one(catalog, locked.digest))
        except UsageError:
            lacking.append(Unknown(f"{locked.name}/{locked.arch}", 1, "the catalog here does not know it"))
    return found, lacking


def _holder(
    catalog: Catalog,
    asked: Asked,
    bases: Mapping[str, BaseSpec],
    package_set: int,
    count: int,
    some: tuple[KnownImage, ...],
) -> Holder:
    packages = tuple(holdings.packages(catalog, package_set))
    base = None
    if some:
        line = [relative.image for relative in lineage.ancestors(catalog, some[0].id)]
        base = bases.get(line[-1].name) if line and line[-1].role == "base" else None
    suite = asked.suite or suites.of_packages(packages) or (base.suite if base else None)
    return Holder(package_set, packages, count, some, suite, base)
