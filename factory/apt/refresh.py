"""`factory lock --refresh`: pin what the repositories offer now. Pure: lock and offers in, lock out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from factory.model import FactorySpec, ImageSpec, Lock, LockedBase, LockedImage, Package

Offered = Callable[[str, Iterable[str]], Mapping[str, Package]]
"""Of a base's name and package names: what its repositories offer (`Repositories.candidates`)."""


def refresh_pins(lock: Lock, spec: FactorySpec, bases: Iterable[LockedBase], offered: Offered) -> Lock:
    """The lock with these bases as they were resolved anew, and with new pins for every image that is made from one.

    An image's pins are the packages recorded for it, each in the version offered now; one that nobody offers stays as
    it was. `pins` is None where that changes nothing. Images that are not in the spec, or not locked, stay as they are.
    """
    fresh = {(base.name, base.arch): base for base in bases}
    images = dict(lock.images)
    for key, image in lock.images.items():
        image_spec = spec.images.get(image.name)
        base = None if image_spec is None else base_of(spec, image_spec)
        if base is not None and (base, image.arch) in fresh:
            images[key] = refreshed(image, offered(base, {package.name for package in image.packages}))
    return replace(lock, bases={**lock.bases, **fresh}, images=images)


def refreshed(image: LockedImage, offered: Mapping[str, Package]) -> LockedImage:
    """An image pinned to what is offered."""
    pins = tuple(sorted(offered.get(package.name, package) for package in image.packages))
    return replace(image, pins=None if pins == tuple(sorted(image.packages)) else pins)


def base_of(spec: FactorySpec, image: ImageSpec) -> str:
    """The name of the base at the bottom of an image's layers. The spec has no cycles."""
    while image.layered:
        image = spec.images[image.base]
    return image.base


def changed(before: Lock, after: Lock) -> list[tuple[str, Package | None, Package | None]]:
    """What a refresh changed, to be shown: the base's or image's name, the package before and after; sorted."""
    found: list[tuple[str, Package | None, Package | None]] = []
    for key, base in after.bases.items():
        old = before.bases.get(key)
        found += _differences(base.name, () if old is None else old.packages, base.packages)
    for image in after.images.values():
        found += _differences(image.name, image.packages, image.packages if image.pins is None else image.pins)
    return sorted(found, key=lambda item: (item[0], str(item[2] or item[1])))


def _differences(
    owner: str, before: tuple[Package, ...], after: tuple[Package, ...]
) -> list[tuple[str, Package | None, Package | None]]:
    old = {(package.name, package.arch): package for package in before}
    new = {(package.name, package.arch): package for package in after}
    return [
        (owner, old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    ]
