"""What a bake does with trees and disks, from the host's side; each function is one process inside the namespace.

In order: `unpack` the parent's tar; [provision]; `seal_tree`; `build_disk`; then `formats.convert` and
`formats.digest_and_scan`. Every output is either whole or not there, and an output's folder must exist.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import factory
from factory import namespace, proc
from factory.digest import Digest
from factory.disk.image import DiskPlan
from factory.disk.manifest import Entry, loads
from factory.disk.seal import SealFacts
from factory.errors import DiskError


@dataclass(frozen=True)
class SealedTree:
    """A sealed tree: its tar and manifest as files, its digest, the second its times end at, its kernel's version."""

    tar: Path
    manifest: Path
    tree_digest: Digest
    epoch: int
    kernel: str


def unpack(tar: Path, tree: Path, expected: Digest | None = None) -> None:
    """Unpack a tree's tar into `tree`, which must not exist. Raises DiskError, also where it is not the tree with the
    digest `expected`."""
    _inside("unpack", tar=str(tar), tree=str(tree), expected=expected)


def pack(tree: Path, tar: Path) -> None:
    """Pack a tree as a tar. Raises DiskError."""
    _inside("pack", tree=str(tree), tar=str(tar))


def put_back(tree: Path, files: Mapping[str, str | None]) -> None:
    """Give files (paths relative to the tree) the text they had before the bake; None: there was none."""
    _inside("put_back", tree=str(tree), files=dict(files))


def scan(tree: Path) -> list[Entry]:
    """The manifest of a tree. Raises DiskError."""
    with tempfile.TemporaryDirectory(prefix="factory-scan-") as folder:
        path = Path(folder) / "manifest"
        _inside("scan", tree=str(tree), manifest=str(path))
        return loads(path.read_bytes())


def seal_tree(tree: Path, out: Path, facts: SealFacts) -> SealedTree:
    """Seal a provisioned tree in place, and write `tree.tar` and `manifest.jsonl` into the folder `out`.

    Raises DiskError, also where something is left that must not be in an image.
    """
    tar, listing = out / "tree.tar", out / "manifest.jsonl"
    said = _inside("seal", tree=str(tree), tar=str(tar), manifest=str(listing), facts=asdict(facts))
    return SealedTree(tar, listing, Digest(said["tree_digest"]), int(said["epoch"]), str(said["kernel"]))


def build_disk(tree: Path, listing: Path, plan: DiskPlan, raw: Path) -> None:
    """Write the disk of a sealed tree with the manifest `listing` to `raw`, which must not exist. Raises DiskError."""
    _inside("disk", tree=str(tree), manifest=str(listing), plan=asdict(plan), raw=str(raw))


def _inside(operation: str, **request: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="factory-request-") as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps({"operation": operation, **request}), "utf-8")
        argv = namespace.command(namespace.python("factory.disk.inner", str(path)), network=False)
        done = proc.run(argv, cwd=Path(factory.__file__).parent.parent, check=False)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise proc.failure(argv, done) from None
    if "error" in said:
        error = said["error"]
        raise DiskError(error["message"], hint=error["hint"], where=error["where"])
    if not isinstance(said, dict):
        raise proc.failure(argv, done)
    return said
