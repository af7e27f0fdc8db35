"""The way into the guests of an image, read from its disk: which systemd it has, cloud-init, its own ssh options."""

from __future__ import annotations

import re
from pathlib import Path

from factory.disk import rootdisk
from factory.disk.ext4 import FileSystem
from factory.vm.entry import entry_for, systemd_version
from factory.vm.session import Way


def way_into(disk: Path) -> Way:
    """The way into a guest of a raw disk. BootError where there is none; DiskError without an ext4 root."""
    with FileSystem(disk, rootdisk.find_root(disk), dirty_ok=True) as fs:
        status = (rootdisk.read(fs, "/var/lib/dpkg/status") or b"").decode("utf-8", "replace")
        default_ssh = (rootdisk.read(fs, "/etc/default/ssh") or b"").decode("utf-8", "replace")
    version = _installed_version(status, "systemd")
    kind = entry_for(
        systemd_version(version) if version else None, _installed_version(status, "cloud-init") is not None
    )
    return Way(kind, default_ssh)


def _installed_version(status: str, package: str) -> str | None:
    """The version of an installed package in dpkg's status file; None where it is not installed."""
    for stanza in status.split("\n\n"):
        if re.search(rf"^Package: {re.escape(package)}$", stanza, re.MULTILINE) and " installed\n" in stanza:
            found = re.search(r"^Version: (\S+)$", stanza, re.MULTILINE)
            return found.group(1) if found else None
    return None
