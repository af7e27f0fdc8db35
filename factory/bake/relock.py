"""`factory lock`: refresh the pins, make the lock anew from the catalog, drop what is gone from images.toml."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from factory import files, lockfile, spec
from factory.bake import assess, journal, reaper
from factory.bake.options import Listener, Options
from factory.bake.session import Session, refresh_bases
from factory.catalog import lookups
from factory.catalog.database import Catalog
from factory.errors import LockError, UsageError
from factory.model import Layout, Lock


def refresh(layout: Layout, bases: Sequence[str], listener: Listener) -> list[str]:
    """Pin what is offered now for the named bases, or all; a line per change. Raises UsageError, BaseError."""
    factory = spec.load(layout.root)
    for name in bases:
        if name not in factory.bases:
            close = difflib.get_close_matches(name, factory.bases, 1)
            raise UsageError(
                f"there is no base {name}",
                where="images.toml",
                hint=f"did you mean {close[0]}?" if close else "bases: " + ", ".join(sorted(factory.bases)),
            )
    with journal.Run(layout, "lock --refresh") as run:
        reaper.reap(layout)
        with Session.open(layout, factory, run, listener, Options(command=run.command)) as session:
            lines = refresh_bases(session, [factory.bases[name] for name in bases or sorted(factory.bases)])
            session.finish(0)
            return lines


def repair(layout: Layout) -> list[str]:
    """Make images.lock anew from the catalog: of each image, what was recorded last. Raises LockError without one."""
    if not layout.catalog.is_file():
        raise LockError(
            "there is no catalog here to make images.lock from",
            where=str(layout.catalog),
            hint="take one side of the conflict: git checkout --ours images.lock (or --theirs), then factory bake",
        )
    with Catalog.open(layout.catalog) as catalog:
        lock = lookups.relock(catalog)
    if not lock.images:
        raise LockError(
            "the catalog here has seen no bake to make images.lock from; it was left as it is",
            where=str(layout.catalog),
            hint="take one side of the conflict: git checkout --ours images.lock (or --theirs), then factory bake",
        )
    with files.exclusive(layout.locks / "images.lock"):
        lockfile.write(layout.lock, lock)
    return [f"{name}/{arch}: {image.digest}" for (name, arch), image in sorted(lock.images.items())]


def prune(layout: Layout) -> list[str]:
    """Drop the images and bases that are gone from images.toml; a line for each."""
    factory = spec.load(layout.root)
    images = {(image.name, image.arch) for image in assess.with_ancestors(factory, spec.select(factory))}
    bases = {(base.name, base.arch) for base in factory.bases.values()}
    gone: list[str] = []

    def change(lock: Lock) -> Lock:
        gone.extend(f"{name}/{arch}" for name, arch in sorted({*lock.images} - images))
        gone.extend(f"base {name}/{arch}" for name, arch in sorted({*lock.bases} - bases))
        return replace(
            lock,
            images={key: image for key, image in lock.images.items() if key in images},
            bases={key: base for key, base in lock.bases.items() if key in bases},
        )

    lockfile.update(layout.lock, layout.locks / "images.lock", change)
    return [f"dropped {name}" for name in gone]
