"""The operations on trees, inside the namespace: `python -m factory.disk.inner REQUEST.json`.

`work` starts it and is the only caller. The request is one JSON object, the answer one JSON object on standard output:
the result, or `{"error": …}` with what the error says. It writes only what the request names.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from factory import proc
from factory.disk import image, manifest, seal, uki
from factory.errors import DiskError, FactoryError, ToolError

_ATTRIBUTES = ("--xattrs", "--xattrs-include=*", "--numeric-owner")


def unpack(tar: Path, tree: Path) -> None:
    """Unpack a tar into a new folder. /dev stays empty: a device there is the running kernel's, not the tree's."""
    tree.mkdir(parents=True)
    proc.run(
        ["tar", "--extract", "--file", str(tar), "--directory", str(tree), "--preserve-permissions", "--same-owner",
         *_ATTRIBUTES, "--exclude=./dev/*"],
    )  # fmt: skip


def pack(tree: Path, tar: Path) -> None:
    """Pack a tree: sorted, owners by number, attributes kept, holes of files kept."""
    proc.run(
        ["tar", "--create", "--file", str(tar), "--directory", str(tree), "--format=posix", "--sort=name", "--sparse",
         *_ATTRIBUTES, "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "."],
    )  # fmt: skip


def seal_tree(tree: Path, tar: Path, listing: Path, facts: seal.SealFacts) -> dict[str, Any]:
    """Seal a tree, judge it, write its manifest and its tar."""
    epoch = seal.seal(tree, facts)
    kernel = uki.find_kernel(tree)
    with ThreadPoolExecutor(1) as pool:
        packing = pool.submit(pack, tree, tar)
        entries = manifest.scan(tree)
        data = manifest.dumps(entries)
        listing.write_bytes(data)
        packing.result()
    broken = seal.violations(entries, lambda path: _read(tree, path), facts)
    if broken:
        raise DiskError(
            f"the tree of {facts.name} is not sealed:\n{seal.describe(broken)}",
            hint="a role leaves what the seal cannot take out; let it not",
        )
    return {"epoch": epoch, "kernel": kernel.version, "tree_digest": manifest.digest(entries)}


def put_back(tree: Path, files: Mapping[str, str | None]) -> None:
    """Give files of a tree the text they had, or take them out where they had none."""
    for name, text in files.items():
        path = seal.inside(tree, "/" + name.lstrip("/"))
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text, "utf-8", "surrogateescape")


def _read(tree: Path, path: str) -> bytes | None:
    file = Path(f"{tree}{path}")
    return file.read_bytes() if file.is_file() and not file.is_symlink() else None


def _seal(request: dict[str, Any]) -> dict[str, Any]:
    facts = dict(request["facts"], authorized_keys=tuple(request["facts"]["authorized_keys"]))
    outputs = Path(request["tar"]), Path(request["manifest"])
    try:
        return seal_tree(Path(request["tree"]), *outputs, seal.SealFacts(**facts))
    except BaseException:
        for path in outputs:
            path.unlink(missing_ok=True)
        raise


def _unpack(request: dict[str, Any]) -> dict[str, Any]:
    tree = Path(request["tree"])
    if tree.exists():
        raise DiskError("a tree is unpacked where there is one already", where=str(tree))
    try:
        unpack(Path(request["tar"]), tree)
        if request["expected"] is not None:
            _prove(tree, Path(request["tar"]), request["expected"])
    except BaseException:
        shutil.rmtree(tree, ignore_errors=True)
        raise
    return {}


def _prove(tree: Path, tar: Path, expected: str) -> None:
    found = manifest.digest(manifest.scan(tree))
    if found != expected:
        raise DiskError(
            f"the cached tree is not the one it should be: {found}, not {expected}",
            where=str(tar),
            hint="remove that file; the tree is then made again, or taken out of its image",
        )


def _pack(request: dict[str, Any]) -> dict[str, Any]:
    tar = Path(request["tar"])
    try:
        pack(Path(request["tree"]), tar)
    except BaseException:
        tar.unlink(missing_ok=True)
        raise
    return {}


def _scan(request: dict[str, Any]) -> dict[str, Any]:
    Path(request["manifest"]).write_bytes(manifest.dumps(manifest.scan(Path(request["tree"]))))
    return {}


def _disk(request: dict[str, Any]) -> dict[str, Any]:
    entries = manifest.loads(Path(request["manifest"]).read_bytes())
    image.assemble(Path(request["tree"]), entries, image.DiskPlan(**request["plan"]), Path(request["raw"]))
    return {}


def _put_back(request: dict[str, Any]) -> dict[str, Any]:
    put_back(Path(request["tree"]), request["files"])
    return {}


OPERATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "disk": _disk,
    "pack": _pack,
    "put_back": _put_back,
    "scan": _scan,
    "seal": _seal,
    "unpack": _unpack,
}


def main(request_path: Path) -> int:
    """Carry out one request; the exit code."""
    request = json.loads(request_path.read_text("utf-8"))
    try:
        answer = OPERATIONS[request["operation"]](request)
    except (FactoryError, OSError) as error:
        if isinstance(error, OSError):
            error = DiskError(f"{error.strerror}", where=str(error.filename))
        elif isinstance(error, ToolError) and b"No space left" in error.message.encode():
            error = DiskError(error.message, where=error.where, hint="make room on the disk (df)")
        sys.stdout.write(json.dumps({"error": error.as_json()}))
        return 3
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
