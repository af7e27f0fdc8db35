"""What running the image did to its disk: the overlay is read from the host and compared with the sealed manifest.

It compares contents, owners, modes, links and attributes, never times. It needs a guest that synced and has stopped;
it reads a copy, so that the overlay stays as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from factory import proc
from factory.disk import formats, rootdisk
from factory.disk.ext4 import FileSystem
from factory.disk.manifest import Change, Entry, compare
from factory.disk.seal import SealFacts, violations
from factory.verify.first_boot import allowed, patterns


def to_raw(disk: Path, disk_format: str, raw: Path) -> Path:
    """The raw content of a stored disk as a sparse file: `disk` itself where it is raw."""
    if disk_format == "raw":
        return disk
    formats.to_raw(disk, disk_format, raw)
    return raw


def unsealed(artifact_raw: Path, sealed: Sequence[Entry], facts: SealFacts | None) -> list[str]:
    """How the artifact's root file system differs from the sealed manifest, and what no sealed image may hold."""
    with FileSystem(artifact_raw, rootdisk.find_root(artifact_raw)) as file_system:
        entries = rootdisk.entries(file_system)
        found = [f"{change.path} {change.kind} since the seal ({change.what})" for change in compare(sealed, entries)]
        return found + violations(entries, lambda path: rootdisk.read(file_system, path), facts)


def changes(overlay: Path, artifact_raw: Path, sealed: Iterable[Entry], work: Path) -> list[Change]:
    """What differs between the sealed manifest and the root file system below `overlay`. Raises DiskError.

    The partition table is the artifact's. Only the root partition is copied out, to a file of its own: e2fsck 1.47
    replays a journal at an offset of a larger file but cannot open it again there.
    """
    offset = rootdisk.find_root(artifact_raw)
    size = next((part.size for part in rootdisk.partitions(artifact_raw) if part.offset == offset), None)
    root = work / "root.raw"
    try:
        _copy_part(overlay, offset, size, root)
        rootdisk.replay(root, 0)
        with FileSystem(root) as file_system:
            return compare(sealed, rootdisk.entries(file_system))
    finally:
        root.unlink(missing_ok=True)


def _copy_part(overlay: Path, offset: int, size: int | None, raw: Path) -> None:
    source: dict[str, object] = {
        "driver": "raw",
        "offset": offset,
        "file": {"driver": "qcow2", "file": {"driver": "file", "filename": str(overlay)}},
    }
    if size is not None:
        source["size"] = size
    proc.run(["qemu-img", "convert", "-q", "-W", "-m", "4", "-O", "raw", "json:" + json.dumps(source), str(raw)])


def judge(found: Iterable[Change], state: Sequence[str], placed: Sequence[str]) -> list[Change]:
    """The changes that nothing allows: not `state`, not the first-boot list, not what verification itself placed."""
    fits = (*patterns(), *placed)
    return [change for change in found if not allowed(change.path, fits, state)]


def written(overlay: Path) -> list[tuple[int, int]]:
    """(start, end) in bytes of what the guest wrote anywhere on its disk, in the overlay's clusters."""
    mapped = json.loads(proc.run(["qemu-img", "map", "--output=json", "-f", "qcow2", str(overlay)]).text)
    return [(part["start"], part["start"] + part["length"]) for part in mapped if part["depth"] == 0]


def outside_root(wrote: Iterable[tuple[int, int]], disk: Path) -> list[str]:
    """The parts of a raw disk other than its root file system that the guest wrote to, named."""
    root = rootdisk.find_root(disk)
    places = [(part.offset, part.offset + part.size, part.number) for part in rootdisk.partitions(disk)]
    named = set()
    for start, end in wrote:
        touched = [(low, number) for low, high, number in places if start < high and low < end]
        if not touched:
            named.add("the partition table or unused space")
        named |= {f"partition {number}" for low, number in touched if low != root}
    return sorted(named)
