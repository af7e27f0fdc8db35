"""What a guest is made of, and QEMU's argument list for it. Pure: nothing here starts or writes anything.

Invariants: the artifact is opened read-only and every write goes to a throw-away qcow2 overlay; forwarded ports
listen on 127.0.0.1 only; secrets (the SMBIOS credential) travel in files, never in the argument list; the accelerator
is ours to choose, never QEMU's. QMP is QEMU's own standard input and output (no socket for others to find), or, for a
guest that outlives us, a socket in its private folder, named relative to it (no path to be too long).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FIRMWARE_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
FIRMWARE_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

TCG = "tcg,thread=multi,tb-size=512"
KVM = "kvm"

QMP = "qmp"
"""The name of a detached guest's QMP socket in its folder."""


@dataclass(frozen=True)
class Machine:
    """A guest to start. `folder` (there already, private) takes what is made while it runs.

    `ports`: guest ports to forward; QEMU lets the kernel choose the host's port, so that there is no race.
    `credentials`: 0600 files with one SMBIOS type 11 string each. `seed`: a cloud-init seed ISO. `detached`: QMP is a
    socket in the folder (QEMU must be started there) and the serial log can be cut while QEMU writes it.
    """

    disk: Path
    disk_format: str
    folder: Path
    accelerator: str
    memory_mib: int = 1024
    cpus: int = 2
    ports: tuple[int, ...] = (22,)
    credentials: tuple[Path, ...] = ()
    seed: Path | None = None
    name: str = "factory"
    detached: bool = False
    firmware: Path = FIRMWARE_CODE

    @property
    def overlay(self) -> Path:
        """Takes every write of the guest."""
        return self.folder / "overlay.qcow2"

    @property
    def variables(self) -> Path:
        """The firmware's own variables: a copy of the empty ones."""
        return self.folder / "efivars.fd"

    @property
    def console(self) -> Path:
        """What the guest printed on its serial port."""
        return self.folder / "console.log"


def arguments(machine: Machine) -> list[str]:
    """QEMU's whole argument list."""
    return [
        "qemu-system-x86_64",
        "-name", options(machine.name, **{"debug-threads": "off"}),
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        "-machine", "q35,smm=off,hpet=off,vmport=off",
        "-accel", machine.accelerator,
        "-cpu", processor(machine.accelerator),
        "-smp", str(machine.cpus),
        "-m", f"{machine.memory_mib}M",
        *_firmware(machine),
        *_disk(machine),
        *_seed(machine),
        *_network(machine),
        "-device", "virtio-rng-pci",
        "-device", "VGA,romfile=",
        *_outlets(machine),
        "-mon", "chardev=qmp,mode=control",
        *(word for path in machine.credentials for word in ("-smbios", options("type=11", path=path))),
    ]  # fmt: skip


def processor(accelerator: str) -> str:
    """QEMU's `-cpu` argument: with KVM the host's processor, else all that emulation can do, less what makes it slow.

    Fast string moves are slow when emulated (byte by byte), and protection keys, SMAP and five-level page tables cost
    more there than anywhere: without them a Debian guest boots with a tenth to a fifth less work. AVX2 stays.
    """
    return "host" if accelerator == KVM else "max,erms=off,fsrm=off,smap=off,pku=off,la57=off"


def _outlets(machine: Machine) -> list[str]:
    # What appends can be cut while it is written.
    serial = options("file", id="serial", path=machine.console, **({"append": "on"} if machine.detached else {}))
    qmp = options("socket", id="qmp", path=QMP, server="on", wait="off")
    return [
        "-chardev", serial,
        "-serial", "chardev:serial",
        "-chardev", qmp if machine.detached else "stdio,id=qmp,signal=off",
    ]  # fmt: skip


def _firmware(machine: Machine) -> list[str]:
    return [
        "-drive", options("if=pflash", format="raw", unit=0, readonly="on", file=machine.firmware),
        "-drive", options("if=pflash", format="raw", unit=1, file=machine.variables),
    ]  # fmt: skip


def _disk(machine: Machine) -> list[str]:
    return [
        *_blockdev("artifact-file", driver="file", filename=str(machine.disk), **_READ_ONLY),
        *_blockdev("artifact", driver=machine.disk_format, file="artifact-file", **_READ_ONLY),
        *_blockdev("overlay-file", driver="file", filename=str(machine.overlay), **_UNSAFE),
        *_blockdev("overlay", driver="qcow2", file="overlay-file", backing="artifact", **_UNSAFE),
        "-device", "virtio-blk-pci,drive=overlay,bootindex=0",
    ]  # fmt: skip


def _seed(machine: Machine) -> list[str]:
    if machine.seed is None:
        return []
    return [
        *_blockdev("seed-file", driver="file", filename=str(machine.seed), **_READ_ONLY),
        *_blockdev("seed", driver="raw", file="seed-file", **_READ_ONLY),
        "-device", "virtio-blk-pci,drive=seed",
    ]  # fmt: skip


def _network(machine: Machine) -> list[str]:
    forwards = [f"hostfwd=tcp:127.0.0.1:0-:{port}" for port in machine.ports]
    return [
        "-netdev", ",".join(["user", "id=net", *forwards]),
        "-device", "virtio-net-pci,netdev=net,romfile=",
    ]  # fmt: skip


_READ_ONLY = {"read-only": True, "auto-read-only": False}
_UNSAFE = {"cache": {"no-flush": True}}


def _blockdev(node: str, **fields: object) -> list[str]:
    return ["-blockdev", json.dumps({"node-name": node, **fields}, sort_keys=True)]


def options(first: str, **fields: object) -> str:
    """QEMU's `a,b=c` syntax; a comma in a value is doubled."""
    return ",".join([first, *(f"{name}={str(value).replace(',', ',,')}" for name, value in fields.items())])
