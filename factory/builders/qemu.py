"""The builder for roles that a tree cannot serve: Packer's qemu builder boots the parent's disk, Ansible uses ssh.

The parent's disk is never written: Packer gives the guest a layer above it. The guest is entered by an SMBIOS
credential, or by a cloud-init seed where its systemd is too old; what apt needs to reach our proxy is copied in first.
When Packer is done the tree is taken out of the disk, what was placed is taken back (what a role made of it stays
the role's), and from there on it is a tree like any other. Packer and QEMU live in a process namespace that vanishes
with its first process.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from factory import namespace, packer, proc
from factory.builders import BuildJob, Provisioned, packer_build
from factory.disk import formats, rootdisk, work
from factory.disk.ext4 import FileSystem
from factory.errors import ProvisionError
from factory.provision import Connection, read_tasks
from factory.vm import accelerator, entry
from factory.vm.entry import GATEWAY, Keys
from factory.vm.machine import FIRMWARE_CODE, FIRMWARE_VARS, KVM, options, processor
from factory.vm.session import Way
from factory.vm.way import way_into

OUTPUT, DISK = "packer-output", "disk.qcow2"
"""The folder of the work folder in which Packer makes the guest's disk, and the disk in it."""

_TAKEN_BACK = {
    "smbios": (entry.DEFAULT_SSH,),
    "nocloud": (
        "/etc/netplan/50-cloud-init.yaml",
        "/etc/network/interfaces.d/50-cloud-init",
        "/etc/network/interfaces.d/50-cloud-init.cfg",
        "/etc/ssh/sshd_config.d/50-cloud-init.conf",
        "/etc/sudoers.d/90-cloud-init-users",
    ),
}
"""What each way in leaves on the disk for our guest alone, beyond what the seal takes out (host keys, our key)."""

Texts = Mapping[str, str | None]
"""Files by path: what they hold; None: there is none."""

_MEMORY_MIB = 1024
_CPUS = 2
_SSH_TIMEOUT = "10m"


class QemuBuilder:
    """Provisions a booted guest of the parent's disk."""

    name = "qemu"

    def provision(self, job: BuildJob) -> Provisioned:
        """Boot the parent's disk, provision it, take its tree out into the work folder."""
        version = packer.installed_version()
        disk, disk_format = job.parent.disk()
        way, before = _way(disk, disk_format, job.work)
        with ExitStack() as stack:
            keys = entry.make_keys(job.work / "keys")
            stack.callback(entry.remove_keys, keys)
            port = _free_port()
            request_path, request = packer_build.write_provision_request(
                job,
                Connection(
                    "ssh", port=port, private_key=str(keys.identity), known_hosts=str(entry.known_hosts(keys, port))
                ),
                job.lent_files(GATEWAY),
            )
            output = job.work / OUTPUT
            shutil.rmtree(output, ignore_errors=True)
            guest = _guest(job, keys, way, port, disk, disk_format, output)
            template = packer_build.render_template(job, request_path, version, guest=guest)
            command = namespace.command(packer.build_command(template, keep_failed=job.keep_failed))
            result = packer_build.run_packer(job, command, request)
        finished = output / DISK
        if not finished.exists():
            raise ProvisionError("Packer ended well but left no disk", where=str(output))
        tree = _take_out(job, finished, way, before)
        return Provisioned(tree, tuple(read_tasks(job.work)), result.via)


def _way(disk: Path, disk_format: str, work_folder: Path) -> tuple[Way, Texts]:
    """The way into the guest, and what the parent has where that way changes something."""
    raw = disk if disk_format == "raw" else work_folder / "parent.raw"
    try:
        if raw != disk:
            formats.to_raw(disk, disk_format, raw)
        way = way_into(raw)
        with FileSystem(raw, rootdisk.find_root(raw), dirty_ok=True) as fs:
            return way, _texts(fs, way)
    finally:
        if raw != disk:
            raw.unlink(missing_ok=True)


def _texts(fs: FileSystem, way: Way) -> Texts:
    found = {path: rootdisk.read(fs, path) for path in _TAKEN_BACK[way.kind]}
    return {path: None if data is None else data.decode("utf-8", "surrogateescape") for path, data in found.items()}


def _guest(
    job: BuildJob, keys: Keys, way: Way, port: int, disk: Path, disk_format: str, output: Path
) -> dict[str, Any]:
    """The `guest` values of the template."""
    acceleration = accelerator(job.layout.cache)
    variables = job.work / "efivars.fd"
    shutil.copyfile(FIRMWARE_VARS, variables)
    drives = [
        options("if=pflash", format="raw", unit=0, readonly="on", file=FIRMWARE_CODE),
        options("if=pflash", format="raw", unit=1, file=variables),
        options("if=virtio", format="qcow2", cache="unsafe", file=output / DISK),
    ]
    smbios = []
    if way.kind == "smbios":
        credential = entry.write_credential(keys, way.default_ssh)
        smbios = [["-smbios", options("type=11", path=credential)]]
    else:
        seed = entry.seed_iso(keys, job.work / "seed.iso")
        drives.append(options("if=virtio", format="raw", readonly="on", file=seed))
    return {
        "accelerator": "kvm" if acceleration == KVM else "tcg",
        "disk": disk,
        "disk_format": disk_format,
        "disk_size": f"{max(job.image.disk_mib, _size_mib(disk, disk_format))}M",
        "file": DISK,
        "output": output,
        "private_key": keys.identity,
        "qemu": proc.find("qemu-system-x86_64"),
        "qemuargs": [
            ["-machine", "q35"],
            ["-accel", acceleration],
            ["-cpu", processor(acceleration)],
            ["-smp", str(_CPUS)],
            ["-m", f"{_MEMORY_MIB}M"],
            *[["-drive", drive] for drive in drives],
            ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"],
            ["-device", "virtio-net-pci,netdev=net,romfile="],
            ["-device", "virtio-rng-pci"],
            ["-serial", f"file:{job.work / 'console.log'}"],
            *smbios,
        ],
        "boot_wait": "2s" if acceleration == KVM else "25s",  # an attempt before the network is up hangs for a minute
        "ssh_port": port,
        "ssh_timeout": _SSH_TIMEOUT,
    }


def _size_mib(disk: Path, disk_format: str) -> int:
    """The size that a guest sees of a disk, rounded up: a smaller layer above it would cut it off."""
    said = proc.run(["qemu-img", "info", "--output=json", "-f", disk_format, str(disk)])
    return -(-int(json.loads(said.stdout)["virtual-size"]) >> 20)


def _free_port() -> int:
    """A port of 127.0.0.1 that was free just now; Packer wants to be told one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _take_out(job: BuildJob, finished: Path, way: Way, before: Texts) -> Path:
    """The tree of the finished disk, with what was placed to get in taken back."""
    raw, tar, tree = job.work / "finished.raw", job.work / "finished.tar", job.work / "tree"
    formats.to_raw(finished, "qcow2", raw)
    shutil.rmtree(finished.parent)
    offset = rootdisk.find_root(raw)
    rootdisk.replay(raw, offset)
    with FileSystem(raw, offset) as fs, tar.open("wb") as out:
        found = _texts(fs, way)
        rootdisk.write_tar(fs, out)
    raw.unlink()
    namespace.remove(tree)
    work.unpack(tar, tree)
    tar.unlink()
    work.put_back(tree, {**_put_back(way, before, found), **dict.fromkeys(job.lent_files(GATEWAY))})
    return tree


def _put_back(way: Way, before: Texts, found: Texts) -> Texts:
    """What files that the way in changed must hold in the image: what a role removed stays away."""
    back = {path: before[path] for path, text in found.items() if text is not None}
    text = found.get(entry.DEFAULT_SSH)
    if text is not None and text != entry.entered(way.default_ssh):
        back[entry.DEFAULT_SSH] = entry.left(text, way.default_ssh)
    return back


BUILDER = QemuBuilder()
