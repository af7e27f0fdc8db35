"""Assessing images against the lock: facts read from the factory's files, the decision left to `plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from factory import bases, builders
from factory.bake import key
from factory.bake.plan import BAKE, UNCHANGED, Decision, decide
from factory.bake.report import ImageResult, StoredArtifact
from factory.digest import Digest, is_digest
from factory.model import FactorySpec, ImageSpec, Layout, Lock, LockedImage, Package
from factory.store import Store


@dataclass(frozen=True)
class Assessment:
    """One image: its inputs as they are now, its entry in the lock, and what is to be done."""

    inputs: key.Inputs
    locked: LockedImage | None
    decision: Decision


def with_ancestors(factory: FactorySpec, chosen: Iterable[ImageSpec]) -> list[ImageSpec]:
    """The chosen images and every image below them, parents first, each once."""
    ordered: list[ImageSpec] = []

    def add(image: ImageSpec) -> None:
        if image.layered:
            add(factory.images[image.base])
        if image not in ordered:
            ordered.append(image)

    for image in chosen:
        add(image)
    return ordered


Objection = Callable[[LockedImage], str | None]
"""Why what is signed for a locked image does not count; None where it does."""


def one_image(
    layout: Layout,
    factory: FactorySpec,
    image: ImageSpec,
    lock: Lock,
    *,
    forced: bool,
    objection: Objection | None = None,
) -> Assessment:
    """Assess an image whose parent is as the lock says. Without `objection` nobody asks what is signed."""
    locked = lock.images.get((image.name, image.arch))
    inputs = key.collect(
        layout,
        image,
        builder_version=builders.version(image.builder),
        base=key.base_parts(
            None if image.layered else bases.recipe(factory.bases[image.base]), base_digest(image, lock)
        ),
        packages=expected_packages(locked),
    )
    present = locked is not None and all_present(Store(layout.store), locked)
    objected = objection(locked) if locked is not None and objection is not None else None
    return Assessment(inputs, locked, decide(inputs, locked, present=present, forced=forced, objection=objected))


def all_images(
    layout: Layout,
    factory: FactorySpec,
    images: Sequence[ImageSpec],
    lock: Lock,
    *,
    force: frozenset[str],
    objection: Objection | None = None,
) -> dict[str, Assessment]:
    """Assess images (parents first). A child of an image that will be baked is known only when that is done."""
    found: dict[str, Assessment] = {}
    for image in images:
        assessment = one_image(layout, factory, image, lock, forced=image.name in force, objection=objection)
        parent = found.get(image.base) if image.layered else None
        if parent is not None and parent.decision.action == BAKE and assessment.decision.action != BAKE:
            reasons = (f"if its parent {image.base} turns out to have another digest",)
            assessment = Assessment(assessment.inputs, assessment.locked, Decision(BAKE, reasons))
        found[image.name] = assessment
    return found


def base_digest(image: ImageSpec, lock: Lock) -> Digest | None:
    """The digest of what an image is baked on, as the lock has it; None where nothing is locked yet."""
    base = (lock.images if image.layered else lock.bases).get((image.base, image.arch))
    return base.digest if base is not None else None


def expected_packages(locked: LockedImage | None) -> tuple[Package, ...]:
    """The packages an image's playbook is expected to install: those of last time, at the pinned versions."""
    if locked is None:
        return ()
    return locked.pins if locked.pins is not None else locked.packages


def all_present(store: Store, locked: LockedImage) -> bool:
    """Whether every locked artifact that is a file, and the sealed manifest, is in the store here."""
    files = [native for native in locked.artifacts.values() if is_digest(native)]
    return all(store.has(name) for name in (*files, locked.tree))


def stored(store: Store, locked: LockedImage) -> dict[str, StoredArtifact]:
    """The artifacts of a locked image, as the report names them."""
    return {
        place: StoredArtifact(native, str(store.path(native)), store.size_bytes(native))
        if is_digest(native) and store.has(native)
        else StoredArtifact(native, None, None)
        for place, native in sorted(locked.artifacts.items())
    }


def unchanged(layout: Layout, image: ImageSpec, lock: Lock) -> ImageResult:
    """The result of an image with nothing to do."""
    locked = lock.images[image.name, image.arch]
    return ImageResult(image, UNCHANGED, locked, stored(Store(layout.store), locked))
