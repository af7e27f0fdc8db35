"""The machine that was measured on, in general words: nothing that names a host, a user or a path."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass

from factory import packer, proc
from factory.model import Layout
from factory.vm.accel import probe_kvm


@dataclass(frozen=True)
class Machine:
    """What of a machine decides how long a bake takes."""

    cores: int
    memory_gib: int
    kvm: bool
    system: str
    python: str
    packer: str
    qemu: str
    ansible: str

    def as_json(self) -> dict[str, object]:
        """The entry of results.json."""
        return asdict(self)

    def __str__(self) -> str:
        guests = "KVM" if self.kvm else "no KVM (guests are emulated)"
        return (
            f"{self.cores} cores, {self.memory_gib} GiB of memory, {guests}; {self.system}, Python {self.python}, "
            f"Packer {self.packer}, QEMU {self.qemu}, ansible-core {self.ansible}"
        )


def describe(layout: Layout) -> Machine:
    """This machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory / 2**30),
        kvm=probe_kvm(layout.cache),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        python=platform.python_version(),
        packer=str(packer.installed_version()),
        qemu=_version(["qemu-system-x86_64", "--version"]),
        ansible=_ansible(),
    )


def _version(argv: list[str]) -> str:
    found = re.search(r"\d+(\.\d+)+", proc.run(argv).text)
    return found.group() if found else "?"


def _ansible() -> str:
    from importlib.metadata import version

    return version("ansible-core")
