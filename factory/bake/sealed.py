"""What the provision and seal stages leave: the packages, the key that is complete now, the sealed tree's digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from factory.apt.questions import Installed
from factory.bake.key import Inputs
from factory.catalog.contents import InstalledPackage
from factory.digest import Digest
from factory.disk.work import SealedTree
from factory.model import Package


@dataclass(frozen=True)
class Sealed:
    """Kept in the stages file, so that a later run can go on from here. `added`: what it adds to its parent."""

    bake_key: Digest
    tree_digest: Digest
    epoch: int
    added: tuple[Package, ...]
    installed: tuple[InstalledPackage, ...]
    inputs: dict[str, dict[str, str]]

    def as_json(self) -> dict[str, Any]:
        """Plain values for the stages file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Sealed:
        """What `as_json` gave, read back."""
        added = tuple(Package(**package) for package in data["added"])
        installed = tuple(InstalledPackage(**package) for package in data["installed"])
        return cls(**{**data, "added": added, "installed": installed})


def sealed_of(tree: SealedTree, inputs: Inputs, added: Sequence[Package], installed: Sequence[Installed]) -> Sealed:
    """The record of a sealed tree whose inputs are complete."""
    return Sealed(
        bake_key=inputs.bake_key,
        tree_digest=tree.tree_digest,
        epoch=tree.epoch,
        added=tuple(added),
        installed=tuple(
            InstalledPackage(
                item.package.name,
                item.package.version,
                item.package.arch,
                item.source,
                item.source_version,
                item.package.sha256,
            )
            for item in installed
        ),
        inputs={name: dict(parts) for name, parts in inputs.parts.items()},
    )
