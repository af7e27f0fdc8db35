"""What the catalog knows of images: for `factory why`, `factory lock --repair`, and whoever has only a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory import lockfile
from factory.catalog import contents
from factory.catalog.contents import InputFile, InstalledPackage
from factory.catalog.database import Catalog
from factory.digest import Digest, packed, unpacked
from factory.model import Lock, LockedImage, Package


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
    """What is known of a digest; None for one that was never recorded here, only named as a parent."""
    sql = (
        "SELECT images.name, images.arch, parents.digest AS base, parents.kind AS base_kind, images.tree,"
        " images.builder, facts, images.recorded_at AS baked_at FROM images JOIN bakes ON bakes.image = images.id"
        " JOIN images AS parents ON parents.id = bakes.parent JOIN specs ON specs.id = images.spec"
        " WHERE images.digest = ? ORDER BY bakes.id LIMIT 1"
    )
    for row in catalog.query(sql, [packed(digest)]):
        base, tree = unpacked(row.pop("base")), unpacked(row.pop("tree"))
        return KnownImage(Digest(digest), base=base, tree=tree, **{**row, "facts": json.loads(row["facts"])})
    return None


def parents(catalog: Catalog) -> dict[Digest, tuple[str, set[Digest]]]:
    """Every image that is known here, bases among them: its digest -> its name (NAME/ARCH; of a base its name), and
    those it was baked on."""
    found: dict[Digest, tuple[str, set[Digest]]] = {}
    for row in catalog.query("SELECT digest, kind, name, arch FROM images"):
        name = f"{row['name']}/{row['arch']}" if row["kind"] == "image" else str(row["name"])
        found[unpacked(row["digest"])] = (name, set())
    edges = (
        "SELECT below.digest AS child, above.digest AS parent FROM edges"
        " JOIN images AS below ON below.id = child JOIN images AS above ON above.id = parent"
    )
    for row in catalog.query(edges):
        found[unpacked(row["child"])][1].add(unpacked(row["parent"]))
    return found


def packages(catalog: Catalog, digest: str) -> list[InstalledPackage]:
    """All packages that are installed in an image, sorted; empty where this catalog does not know it."""
    rows = catalog.query("SELECT package_set FROM images WHERE digest = ?", [packed(digest)])
    known = rows[0]["package_set"] if rows else None
    return [] if known is None else contents.members(catalog.connection, known)


def input_files(catalog: Catalog, locked: LockedImage) -> list[InputFile]:
    """The files that went into the bake a lock entry is of; empty where this catalog has not seen that bake."""
    sql = (
        "SELECT input, path, digest FROM input_files WHERE input_set = "
        "(SELECT inputs FROM bakes WHERE image = (SELECT id FROM images WHERE digest = ?) AND bake_key = ?"
        " ORDER BY id DESC LIMIT 1) ORDER BY input, path"
    )
    return [InputFile(**row) for row in catalog.query(sql, [packed(locked.digest), packed(locked.bake_key)])]


def relock(catalog: Catalog) -> Lock:
    """The lock as the catalog remembers it: of each base and image, the entry that was recorded last here."""
    lock = Lock()
    sql = "SELECT entry FROM bases WHERE id IN (SELECT max(id) FROM bases WHERE source = 1 GROUP BY name, arch)"
    for row in catalog.query(sql):
        alone = lockfile.loads(row["entry"], "the catalog")
        lock = Lock({**lock.bases, **alone.bases}, lock.images)
    last = catalog.query("SELECT max(id) AS id FROM bakes WHERE source = 1 GROUP BY name, arch")
    found = [_locked(catalog, row["id"]) for row in last]
    return Lock(lock.bases, {(image.name, image.arch): image for image in found})


def _locked(catalog: Catalog, bake: int) -> LockedImage:
    """The entry of images.lock that a bake made."""
    sql = (
        "SELECT bakes.name, bakes.arch, images.digest, bake_key, parents.digest AS base, images.tree, added, pins,"
        " named FROM bakes JOIN images ON images.id = bakes.image JOIN images AS parents ON parents.id = bakes.parent"
        " JOIN input_sets ON input_sets.id = bakes.inputs WHERE bakes.id = ?"
    )
    row = catalog.query(sql, [bake])[0]
    added = [] if row["added"] is None else contents.members(catalog.connection, row["added"])
    stored = catalog.query("SELECT format AS place, digest FROM artifacts WHERE bake = ?", [bake])
    published = catalog.query("SELECT place, native FROM locations WHERE bake = ?", [bake])
    return LockedImage(
        name=row["name"],
        arch=row["arch"],
        digest=unpacked(row["digest"]),
        bake_key=unpacked(row["bake_key"]),
        base=unpacked(row["base"]),
        tree=unpacked(row["tree"]),
        packages=tuple(sorted(Package(one.name, one.version, one.arch, Digest(str(one.sha256))) for one in added)),
        pins=None if row["pins"] is None else tuple(map(_pin, json.loads(row["pins"]))),
        inputs={name: Digest(digest) for name, digest in json.loads(row["named"]).items()},
        artifacts={
            **{one["place"]: unpacked(one["digest"]) for one in stored},
            **{one["place"]: one["native"] for one in published},
        },
    )


def _pin(text: str) -> Package:
    name, version, arch, sha256 = text.split(" ")
    return Package(name, version, arch, Digest(sha256))
