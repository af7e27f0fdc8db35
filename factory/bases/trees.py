"""The cache of base trees: `trees/<the base's digest>.tar`, and beside it what it holds and how it was made.

A tree is there only with its `.json`, which is written last; both atomically.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from factory.apt.questions import Installed
from factory.apt.store import remove_stale, write_atomically
from factory.digest import Digest, hex_of, parse_digest
from factory.model import Package


@dataclass(frozen=True)
class CachedTree:
    """A tree in the cache. `digest`: the base's, under which it is filed; `tree_digest`: of the tree's manifest;
    `recipe`: how its kind of base made it; `tar` is there."""

    digest: Digest
    tree_digest: Digest
    recipe: Digest
    installed: tuple[Installed, ...]
    tar: Path

    @property
    def packages(self) -> tuple[Package, ...]:
        """What is installed in it, sorted."""
        return tuple(item.package for item in self.installed)


class TreeCache:
    """A folder of trees. Two processes may add the same tree: the later one wins, with the same content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, digest: Digest, recipe: Digest) -> CachedTree | None:
        """The tree with this digest, if it is here and was made by this recipe."""
        tree = self._read(self.folder / f"{hex_of(digest)}.json")
        return tree if tree is not None and tree.recipe == recipe else None

    def made_by(self, recipe: Digest) -> Iterator[CachedTree]:
        """The trees made by a recipe, the newest first."""
        paths = sorted(self.folder.glob("[0-9a-f]*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in paths:
            tree = self._read(path)
            if tree is not None and tree.recipe == recipe:
                yield tree

    def new_tar(self) -> Path:
        """A path in the cache's file system to write a tar to, for `add`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.folder, ".*.tar")
        return self.folder / f".{secrets.token_hex(8)}.tar"

    def add(self, tar: Path, tree: CachedTree) -> CachedTree:
        """Take a tar made at `new_tar` as this tree, whose own `tar` says nothing yet."""
        target = self.folder / f"{hex_of(tree.digest)}.tar"
        with tar.open("rb") as file:
            os.fsync(file.fileno())
        size = tar.stat().st_size
        tar.replace(target)
        data = {
            "digest": tree.digest,
            "tree-digest": tree.tree_digest,
            "recipe": tree.recipe,
            "size": size,
            "packages": [[str(item.package), item.source, item.source_version] for item in tree.installed],
        }
        write_atomically(target.with_suffix(".json"), json.dumps(data, indent=1).encode())
        return replace(tree, tar=target)

    def _read(self, path: Path) -> CachedTree | None:
        """A tree; None where it is not here, or not as it was put here (a copied cache, a full disk)."""
        try:
            data = json.loads(path.read_bytes())
            tar = path.with_suffix(".tar")
            if tar.stat().st_size != data["size"]:
                return None
            digest, tree, recipe = (parse_digest(data[name]) for name in ("digest", "tree-digest", "recipe"))
            return CachedTree(digest, tree, recipe, tuple(_installed(*item) for item in data["packages"]), tar)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _installed(package: str, source: str, source_version: str) -> Installed:
    name, version, arch, sha256 = package.split(" ")
    return Installed(Package(name, version, arch, Digest(sha256)), source, source_version)
