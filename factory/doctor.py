"""What this host can do: each tool and its version, namespaces, KVM, firmware, space; and what to install."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from factory import namespace, packer, proc
from factory.errors import FactoryError, MissingToolError
from factory.model import Layout

_VERSION_FLAGS = {
    "debugfs": "-V",
    "mke2fs": "-V",
    "mcopy": "--version",
    "mmdebstrap": "--version",
    "objcopy": "--version",
    "qemu-img": "--version",
    "qemu-system-x86_64": "--version",
    "sfdisk": "--version",
    "ssh": "-V",
    "unshare": "--version",
    "xorriso": "--version",
}
_FILES = {
    "UEFI firmware": ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    "UEFI boot stub": ("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi"),
}
_NEEDED_FREE_GIB = 10


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `install`: Debian packages that would mend it; `needed`: nothing bakes without."""

    name: str
    ok: bool
    detail: str
    install: tuple[str, ...] = ()
    needed: bool = True


def examine(layout: Layout) -> list[Finding]:
    """Look at everything. Quick but for the probe of KVM, which is remembered for this boot of the host."""
    return [
        Finding("python", sys.version_info >= (3, 11), sys.version.split()[0]),
        _packer(),
        *[_tool(name, flag) for name, flag in _VERSION_FLAGS.items()],
        *[
            Finding(name, Path(path).exists(), path if Path(path).exists() else f"{path} is missing", (package,))
            for name, (path, package) in _FILES.items()
        ],
        _namespaces(),
        _kvm(layout),
        _haproxy(),
        _space(layout),
    ]


def _packer() -> Finding:
    try:
        return Finding("packer", True, str(packer.installed_version()))
    except MissingToolError as error:
        return Finding("packer", False, error.message, ("packer",))
    except FactoryError as error:
        return Finding("packer", False, error.message)


def _tool(name: str, flag: str) -> Finding:
    package = proc.PACKAGE_OF_TOOL[name]
    try:
        done = proc.run([name, flag], check=False)
    except MissingToolError:
        return Finding(name, False, "not installed", (package,))
    found = re.search(r"\d+(\.\d+)+\w*", (done.stdout + done.stderr).decode("utf-8", "replace"))
    return Finding(name, True, found.group() if found else "installed")


def _namespaces() -> Finding:
    name = "namespaces (root)" if namespace.is_root() else "namespaces (as an ordinary user)"
    return _attempt(
        name,
        lambda: proc.run(namespace.command(["true"])),
        "work",
        "an ordinary user needs the package uidmap and lines in /etc/subuid and /etc/subgid",
        () if namespace.is_root() else ("uidmap",),
    )


def _attempt(name: str, probe: Callable[[], object], good: str, bad: str, install: tuple[str, ...]) -> Finding:
    try:
        probe()
    except FactoryError as error:
        return Finding(name, False, f"{error.message.splitlines()[-1]} ({bad})", install)
    return Finding(name, True, good)


def _kvm(layout: Layout) -> Finding:
    from factory import vm

    works = vm.probe_kvm(layout.cache)
    return Finding("KVM", works, "boots a guest" if works else "boots no guest here: guests are emulated", needed=False)


def _haproxy() -> Finding:
    found = _tool("haproxy", "-v")
    how = "" if found.ok else f" (apt-get install {' '.join(found.install)})"
    return replace(found, detail=f"{found.detail}: for fleets on this machine, nothing else{how}", needed=False)


def _space(layout: Layout) -> Finding:
    folder = layout.root
    while not folder.exists():
        folder = folder.parent
    free_gib = shutil.disk_usage(folder).free / 2**30
    return Finding("disk", free_gib >= _NEEDED_FREE_GIB, f"{free_gib:.0f} GiB free at {folder}")
