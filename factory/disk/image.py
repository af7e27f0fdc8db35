"""The disk: GPT with an EFI system partition and an ext4 root, in a sparse plain file; nothing is mounted.

Every identifier (disk, partitions, file systems) is derived from the bake key, every time is the sealed tree's epoch,
so that the same tree and key give the same bytes. The root partition is last, so that it can grow where it runs.
Runs inside the namespace. A disk that could not be finished is removed.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory import proc
from factory.digest import Digest
from factory.disk import filesystem, uki
from factory.disk.manifest import Entry
from factory.errors import DiskError, ToolError

MIB = 1 << 20
_SECTORS_PER_MIB = 2048
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_ROOT_TYPE = {
    "amd64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "arm64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}
_SMALLEST_ESP_MIB = 64
_NAMESPACE = uuid.UUID("6f0f4d8e-1d55-5b0b-9c0e-0b0f2f8a5a11")
CMDLINE = "root=PARTUUID={root} rw console=tty0 console=ttyS0"


@dataclass(frozen=True)
class DiskPlan:
    """What a disk is made from besides its tree. `epoch`: the second every derived time has; `size_mib`: its size."""

    name: str
    arch: str
    bake_key: Digest
    size_mib: int
    epoch: int


def identifier(bake_key: Digest, what: str) -> str:
    """A UUID for one part of the disk, derived from the bake key."""
    return str(uuid.uuid5(_NAMESPACE, f"{bake_key} {what}"))


def assemble(tree: Path, entries: Sequence[Entry], plan: DiskPlan, out: Path) -> None:
    """Write the disk of a sealed tree (its manifest is `entries`) to `out`, which must not exist yet.

    DiskError where the tree does not fit (it says how much is needed), or the host's disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="factory-disk-") as folder, out.open("xb") as file:
            kernel = Path(folder) / uki.EFI_PATH[plan.arch]
            kernel.parent.mkdir(parents=True)
            root = identifier(plan.bake_key, "root partition")
            uki.build(tree, uki.find_kernel(tree), CMDLINE.format(root=root), kernel, plan.arch)
            esp_mib = _esp_mib(kernel.stat().st_size)
            root_mib = plan.size_mib - esp_mib - 2
            _check_it_fits(entries, plan, esp_mib, root_mib)
            file.truncate(plan.size_mib * MIB)
            _partition(out, plan, esp_mib, root_mib)
            _write_esp(out, Path(folder), plan, esp_mib)
            geometry = filesystem.Geometry(
                (1 + esp_mib) * MIB, root_mib * MIB, identifier(plan.bake_key, "root"), "root", plan.epoch
            )
            filesystem.write(tree, entries, out, geometry)
            os.fsync(file.fileno())
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            out.unlink(missing_ok=True)
        if isinstance(error, OSError | ToolError):
            raise DiskError(
                f"the disk cannot be written: {error}", where=str(out), hint="is there room for it? (df)"
            ) from error
        raise


def _esp_mib(kernel_bytes: int) -> int:
    """The size of the EFI system partition: the kernel, room for FAT, at least what FAT32 wants; steps of 32 MiB."""
    wanted = -(-kernel_bytes * 103 // 100 // MIB) + 4
    return max(_SMALLEST_ESP_MIB, -(-wanted // 32) * 32)


def _check_it_fits(entries: Sequence[Entry], plan: DiskPlan, esp_mib: int, root_mib: int) -> None:
    needed = -(-filesystem.needed_bytes(entries) // MIB)
    if needed > root_mib:
        total = -(-(needed + esp_mib + 2) // 1024) * 1024
        raise DiskError(
            f"the tree of {plan.name} does not fit on a disk of {plan.size_mib} MiB: its root file system needs "
            f"{needed} MiB and would have {root_mib} MiB",
            where=f"images.toml: image.{plan.name}.disk_mib",
            hint=f"set disk_mib = {total} (a multiple of 1024) or more",
        )


def _partition(disk: Path, plan: DiskPlan, esp_mib: int, root_mib: int) -> None:
    esp_sectors, root_sectors = esp_mib * _SECTORS_PER_MIB, root_mib * _SECTORS_PER_MIB
    esp, root = identifier(plan.bake_key, "esp partition"), identifier(plan.bake_key, "root partition")
    start = _SECTORS_PER_MIB
    script = (
        f"label: gpt\nlabel-id: {identifier(plan.bake_key, 'disk')}\nunit: sectors\nfirst-lba: {start}\n"
        f'start={start}, size={esp_sectors}, type={_ESP_TYPE}, uuid={esp}, name="esp"\n'
        f'start={start + esp_sectors}, size={root_sectors}, type={_ROOT_TYPE[plan.arch]}, uuid={root}, name="root"\n'
    )
    proc.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)], stdin=script.encode())


def _write_esp(disk: Path, folder: Path, plan: DiskPlan, esp_mib: int) -> None:
    kernel = folder / uki.EFI_PATH[plan.arch]
    volume = identifier(plan.bake_key, "esp")[:8]
    proc.run(
        ["mkfs.fat", "--invariant", "-F", "32", "-s", "1", "-S", "512", "-i", volume, "-n", "ESP",
         "--offset", str(_SECTORS_PER_MIB), str(disk), str(esp_mib * 1024)],
    )  # fmt: skip
    env = {"SOURCE_DATE_EPOCH": str(plan.epoch), "TZ": "UTC"}
    # A folder is copied, not made with mmd: mmd puts the current hundredths of a second into its entry.
    for path in (kernel, *kernel.parents):
        if path == folder:
            break
        os.utime(path, (plan.epoch, plan.epoch))
    proc.run(["mcopy", "-s", "-m", "-i", f"{disk}@@{MIB}", str(folder / "EFI"), "::"], env=env)
