"""Questions about the state of images that need no bake: why one would be baked, whether the lock is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory import lockfile, spec
from factory.bake import assess
from factory.bake.plan import Change, changes
from factory.model import Layout, LockedImage


@dataclass(frozen=True)
class Answer:
    """What differs between an image's inputs now and its locked bake."""

    name: str
    baked: bool
    changes: tuple[Change, ...]

    def as_json(self) -> dict[str, object]:
        """The document of `why --json`."""
        return {"name": self.name, "baked": self.baked, "changed": [change.as_json() for change in self.changes]}


def why(layout: Layout, name: str) -> Answer:
    """Which inputs of an image differ from the lock. Raises UsageError, SpecError, LockError."""
    factory = spec.load(layout.root)
    image = spec.find(factory, name)
    lock = lockfile.read(layout.lock)
    found = assess.one_image(layout, factory, image, lock, forced=False)
    if found.locked is None:
        return Answer(image.name, baked=False, changes=())
    return Answer(image.name, True, tuple(changes(found.inputs, found.locked, _recorded(layout, found.locked))))


def untrue(layout: Layout) -> dict[str, tuple[str, ...]]:
    """The images whose lock is not true to their inputs, with those that differ; images gone from images.toml too."""
    factory = spec.load(layout.root)
    lock = lockfile.read(layout.lock)
    found: dict[str, tuple[str, ...]] = {}
    for image in assess.with_ancestors(factory, spec.select(factory)):
        assessment = assess.one_image(layout, factory, image, lock, forced=False)
        if assessment.locked is None:
            found[image.name] = ("never baked",)
        elif differing := changes(assessment.inputs, assessment.locked, None):
            found[image.name] = tuple(change.input for change in differing)
    gone = {name for name, _ in lock.images} - set(factory.images)
    return {**found, **dict.fromkeys(sorted(gone), ("gone from images.toml: factory lock --prune",))}


def _recorded(layout: Layout, locked: LockedImage) -> Mapping[str, Mapping[str, str]] | None:
    """The parts of each input as the catalog recorded them for the locked bake; None where it did not see that bake."""
    if not layout.catalog.is_file():
        return None
    from factory.catalog import lookups
    from factory.catalog.database import Catalog

    with Catalog.open(layout.catalog) as catalog:
        rows = lookups.input_files(catalog, locked)
    recorded: dict[str, dict[str, str]] = {name: {} for name in locked.inputs}
    for row in rows:
        recorded.setdefault(row.input, {})[row.path] = row.digest
    return recorded if rows else None
