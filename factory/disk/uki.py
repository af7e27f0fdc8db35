"""The unified kernel image: kernel, initrd, command line and os-release in one EFI program, on systemd's stub.

Owns which kernel of a tree boots (the newest by version) and the layout of the sections: each begins on the first page
that is free, so neither a large kernel nor a large initrd can overlap the next. The bytes depend on the inputs and
on the stub only. Format knowledge: systemd-stub(7) of systemd 252, binutils 2.40.
"""

from __future__ import annotations

import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from factory import proc
from factory.errors import DiskError, MissingToolError

EFI_PATH = {"amd64": "EFI/BOOT/BOOTX64.EFI", "arm64": "EFI/BOOT/BOOTAA64.EFI"}
_STUB = {"amd64": "linuxx64.efi.stub", "arm64": "linuxaa64.efi.stub"}
_STUB_FOLDER = Path("/usr/lib/systemd/boot/efi")
_PAGE = 4096
_SECTION = re.compile(r"\s*\d+\s+(\.\S+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s")


@dataclass(frozen=True)
class Kernel:
    """The kernel a tree boots with: its version, and where kernel and initrd are in the tree."""

    version: str
    image: str
    initrd: str


def find_kernel(tree: Path) -> Kernel:
    """The newest kernel in /boot that has an initrd. DiskError where there is none."""
    boot = tree / "boot"
    names = {path.name for path in boot.iterdir()} if boot.is_dir() else set()
    versions = [
        name.removeprefix("vmlinuz-")
        for name in names
        if name.startswith("vmlinuz-") and f"initrd.img-{name.removeprefix('vmlinuz-')}" in names
    ]
    if not versions:
        raise DiskError(
            "the tree has no kernel with an initrd in /boot",
            hint="the base must bring one, such as the packages linux-image-cloud-amd64 and initramfs-tools",
            where="/boot",
        )
    newest = max(versions, key=version_key)
    return Kernel(newest, f"/boot/vmlinuz-{newest}", f"/boot/initrd.img-{newest}")


def build(tree: Path, kernel: Kernel, cmdline: str, out: Path, arch: str = "amd64") -> None:
    """Write the unified kernel image of a tree to `out`."""
    stub = _STUB_FOLDER / _STUB[arch]
    if not stub.exists():
        raise MissingToolError(
            f"{stub.name} is not installed", hint="install it: apt-get install systemd-boot-efi", where=str(stub)
        )
    with tempfile.TemporaryDirectory(prefix="factory-uki-") as folder:
        line, release = Path(folder) / "cmdline", Path(folder) / "osrel"
        line.write_text(cmdline + "\0")
        release.write_bytes(_os_release(tree))
        sections = {
            ".osrel": release,
            ".cmdline": line,
            ".linux": tree / kernel.image[1:],
            ".initrd": tree / kernel.initrd[1:],
        }
        argv = ["objcopy"]
        at = _end_of(stub)
        for name, file in sections.items():
            at = -(-at // _PAGE) * _PAGE
            argv += ["--add-section", f"{name}={file}", "--change-section-vma", f"{name}=0x{at:x}"]
            at += file.stat().st_size
        proc.run([*argv, str(stub), str(out)])
    _clear_build_time(out)


def _os_release(tree: Path) -> bytes:
    for name in ("usr/lib/os-release", "etc/os-release"):
        path = tree / name
        if path.is_file() and not path.is_symlink():
            return path.read_bytes()
    raise DiskError("the tree has no os-release", where="/usr/lib/os-release")


def _end_of(stub: Path) -> int:
    """The first address behind the sections of the stub."""
    ends = [
        int(found[2], 16) + int(found[3], 16)
        for found in map(_SECTION.match, proc.run(["objdump", "-h", str(stub)]).text.splitlines())
        if found is not None
    ]
    if not ends:
        raise DiskError("the sections of the EFI stub cannot be read", where=str(stub))
    return max(ends)


def _clear_build_time(image: Path) -> None:
    """Zero the link time, which objcopy sets to now, and the checksum, which covers it and no firmware reads."""
    with image.open("r+b") as file:
        file.seek(0x3C)
        (header,) = struct.unpack("<I", file.read(4))
        file.seek(header)
        if file.read(4) != b"PE\0\0":
            raise DiskError("the unified kernel image is not an EFI program", where=str(image))
        for field in (8, 0x58):
            file.seek(header + field)
            file.write(bytes(4))


def version_key(version: str) -> list[tuple[list[int], int]]:
    """Orders kernel versions: text and number in turn; a text's end comes before all but a tilde, which is first."""
    return [
        ([-1 if char == "~" else ord(char) for char in text] + [0], int(number or 0))
        for text, number in re.findall(r"(\D*)(\d*)", version)
    ]
