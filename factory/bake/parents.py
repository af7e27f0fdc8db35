"""What an image is baked on, at hand: its parent's tree as a tar, its packages, and its disk for builders that boot it.

An image's sealed tree is kept in `.factory/cache/image-trees/<tree digest>.tar`. It is only a cache: whoever unpacks it
recomputes the tree digest, and a tree that is not there is taken out of the parent's artifact. Either way it is proven
to be the one inside the parent's digest, because verification compared the disk with that very tree digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory import bases, digest, files, namespace
from factory.bake import key
from factory.bake.session import Session
from factory.bases.disk import disk_format
from factory.digest import Digest, hex_of
from factory.disk import formats, manifest, rootdisk, work
from factory.disk.ext4 import FileSystem
from factory.disk.image import DiskPlan
from factory.disk.seal import SealFacts
from factory.errors import DiskError, StoreError
from factory.model import ImageSpec, Layout, Lock, LockedBase, LockedImage, Package
from factory.store import Store

BOOTABLE = ("qcow2", "raw", "vmdk")
"""The stored forms a guest can be started from, the best first."""


@dataclass(frozen=True)
class Parent:
    """What a bake starts from.

    `tree` is a tar with the tree digest `tree_digest`; `disk` makes or finds a bootable disk and names its format;
    `locked_base` is what the lock is to say of a base, None above another image.
    """

    digest: Digest
    tree: Path
    tree_digest: Digest
    packages: tuple[Package, ...]
    key_parts: dict[str, str]
    locked_base: LockedBase | None
    disk: Callable[[], tuple[Path, str]]


def parent_of(session: Session, image: ImageSpec, scratch: Path) -> Parent:
    """The parent of `image`; `scratch`: a folder of the image's own. Raises BaseError, LockMismatchError, DiskError."""
    return _image_below(session, image, scratch) if image.layered else _base_below(session, image, scratch)


def tree_path(layout: Layout, tree: Digest) -> Path:
    """Where the tar of an image's sealed tree is, or would be."""
    return layout.image_trees / f"{hex_of(tree)}.tar"


def artifact_of(store: Store, locked: LockedImage) -> tuple[Path, str]:
    """A stored form of an image that can be booted, and its format. StoreError where there is none here."""
    for format_ in BOOTABLE:
        native = locked.artifacts.get(format_)
        if native is not None and store.has(native):
            return store.path(native), format_
    raise StoreError(
        f"no bootable artifact of {locked.name} is in the store here",
        where=f"images.lock: image {locked.name}",
        hint=f"factory fetch {locked.name}, or factory bake {locked.name}",
    )


def packages_of(lock: Lock, image: ImageSpec, images: dict[str, ImageSpec]) -> tuple[Package, ...]:
    """The packages in an image, by the lock: those of its base, with what each layer adds or changes."""
    layers: list[Sequence[Package]] = []
    while True:
        locked = lock.images.get((image.name, image.arch))
        layers.append(locked.packages if locked is not None else ())
        if not image.layered:
            break
        image = images[image.base]
    base = lock.bases.get((image.base, image.arch))
    layers.append(base.packages if base is not None else ())
    found = {(package.name, package.arch): package for layer in reversed(layers) for package in layer}
    return tuple(sorted(found.values()))


def _image_below(session: Session, image: ImageSpec, scratch: Path) -> Parent:
    lock = session.lock()
    locked = lock.images[image.base, image.arch]
    tar = tree_path(session.layout, locked.tree)
    if not tar.exists():
        with files.exclusive(session.layout.locks / f"tree_{hex_of(locked.tree)}"):
            if not tar.exists():
                _take_tree_out(session, locked, tar, scratch)
    spec = session.factory.images[image.base]
    return Parent(
        digest=locked.digest,
        tree=tar,
        tree_digest=locked.tree,
        packages=packages_of(lock, spec, dict(session.factory.images)),
        key_parts=key.base_parts(None, locked.digest),
        locked_base=None,
        disk=lambda: _proven_disk(session, locked),
    )


def _proven_disk(session: Session, locked: LockedImage) -> tuple[Path, str]:
    """The parent's artifact, read again: a guest is booted from it. StoreError where it is not what its name says."""
    path, format_ = artifact_of(session.store, locked)
    session.store.verify(locked.artifacts[format_])
    return path, format_


def _take_tree_out(session: Session, locked: LockedImage, tar: Path, scratch: Path) -> None:
    """Take an image's tree out of its artifact. DiskError where it is not the tree the lock names."""
    for native in locked.artifacts.values():
        if digest.is_digest(native):
            session.fetch(Digest(native))
    artifact, format_ = artifact_of(session.store, locked)
    raw, partial = scratch / "parent.raw", scratch / "parent.tar"
    try:
        formats.to_raw(artifact, format_, raw)
        with FileSystem(raw, rootdisk.find_root(raw)) as fs, partial.open("wb") as out:
            found = manifest.digest(rootdisk.write_tar(fs, out))
        if found != locked.tree:
            raise DiskError(
                f"the artifact of {locked.name} does not hold the tree that images.lock names",
                where=str(artifact),
                hint=f"remove that file and bake {locked.name} again",
            )
        tar.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(tar)
    finally:
        raw.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def _base_below(session: Session, image: ImageSpec, scratch: Path) -> Parent:
    spec = session.factory.bases[image.base]
    prepared = session.prepare_base(spec)
    locked = prepared.locked

    def disk() -> tuple[Path, str]:
        if prepared.disk is not None:
            return prepared.disk, disk_format(prepared.disk)
        return _disk_of_tree(image, locked.digest, prepared.tree, scratch), "raw"

    return Parent(
        digest=locked.digest,
        tree=prepared.tree,
        tree_digest=prepared.tree_digest,
        packages=locked.packages,
        key_parts=key.base_parts(bases.recipe(spec), locked.digest),
        locked_base=locked,
        disk=disk,
    )


def _disk_of_tree(image: ImageSpec, base: Digest, tar: Path, scratch: Path) -> Path:
    """A disk of a bootstrapped tree, for a builder that boots its parent."""
    tree, raw = scratch / "base-tree", scratch / "base.raw"
    namespace.remove(tree)
    raw.unlink(missing_ok=True)
    work.unpack(tar, tree)
    out = scratch / "base-sealed"
    out.mkdir(exist_ok=True)
    sealed = work.seal_tree(tree, out, SealFacts(image.base, base, started_at=tar.stat().st_mtime))
    work.build_disk(tree, sealed.manifest, DiskPlan(image.base, image.arch, base, image.disk_mib, sealed.epoch), raw)
    namespace.remove(tree)
    return raw
