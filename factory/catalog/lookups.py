"""What the catalog knows of images: for `factory why`, `factory lock --repair`, and whoever has only a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory import lockfile
from factory.catalog.database import Catalog
from factory.catalog.record import InputFile, InstalledPackage
from factory.digest import Digest
from factory.model import Lock, LockedImage


@dataclass(frozen=True)
class KnownImage:
    """An image as it was recorded. `facts` is what images.toml said; `baked_at` the first time it was recorded."""

    digest: Digest
    name: str
    arch: str
    base: str
    base_kind: str
    tree: str
    builder: str
    facts: Mapping[str, Any]
    baked_at: str


def image(catalog: Catalog, digest: str) -> KnownImage | None:
    """What is known of a digest."""
    sql = "SELECT *, (SELECT min(baked_at) FROM bakes WHERE bakes.digest = images.digest) AS baked_at FROM images"
    rows = catalog.query(sql + " WHERE digest = ?", [digest])
    return KnownImage(**{**rows[0], "facts": json.loads(rows[0]["facts"])}) if rows else None


def packages(catalog: Catalog, digest: str) -> list[InstalledPackage]:
    """All packages that are installed in an image; empty where this catalog does not know it."""
    sql = "SELECT name, version, arch, source, source_version, sha256 FROM image_packages WHERE image = ?"
    return [InstalledPackage(**row) for row in catalog.query(sql + " ORDER BY name, arch", [digest])]


def input_files(catalog: Catalog, locked: LockedImage) -> list[InputFile]:
    """The files that went into the bake a lock entry is of; empty where this catalog has not seen that bake."""
    sql = (
        "SELECT input, path, digest FROM inputs WHERE bake = "
        "(SELECT max(id) FROM bakes WHERE digest = ? AND bake_key = ?) ORDER BY input, path"
    )
    return [InputFile(**row) for row in catalog.query(sql, [locked.digest, locked.bake_key])]


def relock(catalog: Catalog) -> Lock:
    """The lock as the catalog remembers it: of each base and image, the entry that was recorded last."""
    entries = [
        *catalog.query("SELECT entry FROM bases WHERE id IN (SELECT max(id) FROM bases GROUP BY name, arch)"),
        *catalog.query("SELECT entry FROM bakes WHERE id IN (SELECT max(id) FROM bakes GROUP BY name, arch)"),
    ]
    lock = Lock()
    for row in entries:
        alone = lockfile.loads(row["entry"], "the catalog")
        lock = Lock({**lock.bases, **alone.bases}, {**lock.images, **alone.images})
    return lock
