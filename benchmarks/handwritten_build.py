"""One build of `handwritten/web.pkr.hcl`: Packer alone, on the disk of the image that `web` is baked on.

Everything around it is prepared as an expert's pipeline would have it before the clock starts: the base as a plain
(not compressed) qcow2, a key and the credential that lets it in, a warm package cache.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import clock
from benchmarks.clock import Measured
from benchmarks.scratch import REPOSITORY
from factory import lockfile, namespace, proc, spec
from factory.apt import pins
from factory.apt.proxy import GUEST_HOST, AptProxy
from factory.bake.parents import artifact_of
from factory.disk import formats
from factory.errors import ToolError
from factory.model import Layout
from factory.store import Store
from factory.vm import entry
from factory.vm.accel import accelerator
from factory.vm.machine import FIRMWARE_CODE, FIRMWARE_VARS, KVM
from factory.vm.way import way_into

TEMPLATE = REPOSITORY / "benchmarks" / "handwritten" / "web.pkr.hcl"
IMAGE = "web"

# What Packer 1.6.6 says when the next part of its build begins.
_MARKS = (
    ("Waiting", "start"),
    ("Waiting for SSH", "boot"),
    ("Provisioning with Ansible", "ansible"),
    ("Provisioning with shell script", "tidy"),
    ("Gracefully halting", "halt"),
    ("Running post-processor", "pack"),
)


@dataclass(frozen=True)
class Prepared:
    """What is there before the clock starts: the base disk, what its /etc/default/ssh says, the scratch folder."""

    layout: Layout
    base: Path
    default_ssh: str
    folder: Path


def prepare(layout: Layout, folder: Path) -> Prepared:
    """Unpack the disk of the image below `web` as a plain qcow2. Raises StoreError, DiskError."""
    image = spec.load(layout.root).images[IMAGE]
    locked = lockfile.read(layout.lock).images[image.base, image.arch]
    artifact, format_ = artifact_of(Store(layout.store), locked)
    folder.mkdir()
    raw, base = folder / "base.raw", folder / "base.qcow2"
    formats.to_raw(artifact, format_, raw)
    proc.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(base)])
    default_ssh = way_into(raw).default_ssh
    raw.unlink()
    return Prepared(layout, base, default_ssh, folder)


def build(prepared: Prepared, number: int) -> Measured:
    """One whole build, timed from Packer's start to the packed disk. Raises ToolError."""
    folder = prepared.folder / f"run-{number}"
    folder.mkdir()
    keys = entry.make_keys(folder / "keys")
    try:
        with AptProxy(prepared.layout.cache) as proxy:
            apt_conf = folder / "apt.conf"
            apt_conf.write_text(pins.conf(proxy.url(GUEST_HOST)) + 'DPkg::Options:: "--force-unsafe-io";\n')
            credential = entry.write_credential(keys, prepared.default_ssh)
            measured = _packer(prepared, folder, keys, credential)
            if proxy.misses:
                raise ToolError(f"the package cache is not warm: {proxy.misses[0].url}")
        return measured
    finally:
        namespace.remove(folder)


def _packer(prepared: Prepared, folder: Path, keys: entry.Keys, credential: Path) -> Measured:
    accel = accelerator(prepared.layout.cache)
    efivars = folder / "efivars.fd"
    shutil.copyfile(FIRMWARE_VARS, efivars)
    image = spec.load(prepared.layout.root).images[IMAGE]
    variables = {
        "accel": accel,
        "apt_conf": folder / "apt.conf",
        "base": prepared.base,
        "boot_wait": "2s" if accel == KVM else "25s",
        "cpu": "host" if accel == KVM else "max",
        "credential": credential,
        "efivars": efivars,
        "firmware": FIRMWARE_CODE,
        "output": folder / "output",
        "playbook": prepared.layout.root / image.playbook,
        "playbook_vars": json.dumps(dict(image.vars)),
        "private_key": keys.identity,
        "ssh_port": _free_port(),
    }
    environment = {
        "CHECKPOINT_DISABLE": "1",
        "PACKER_CACHE_DIR": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{proc.environment()['PATH']}",
        **{f"PKR_VAR_{name}": str(value) for name, value in variables.items()},
    }
    said: list[tuple[float, str]] = []
    with clock.measure() as measuring:
        argv = ["packer", "build", "-color=false", str(TEMPLATE)]
        code = proc.stream(argv, lambda line: said.append((time.monotonic(), line)), env=environment, cwd=folder)
    packed = folder / "output" / "packed.qcow2"
    if code != 0 or not packed.is_file():
        tail = "\n".join(line for _, line in said[-25:])
        raise ToolError(f"the hand-written build failed (exit code {code}):\n{tail}", where=proc.paste(argv))
    return measuring.done(stages=_stages(measuring.began, said))


def _stages(began: float, said: list[tuple[float, str]]) -> dict[str, float]:
    """How long each part of the build took, by when Packer said that the next one begins."""
    stages: dict[str, float] = {}
    at, stage = began, "start"
    marks = list(_MARKS)
    for when, line in said:
        for index, (mark, name) in enumerate(marks):
            if mark in line and index >= 0:
                stages[stage] = stages.get(stage, 0) + when - at
                at, stage = when, name
                del marks[: index + 1]
                break
    stages[stage] = stages.get(stage, 0) + said[-1][0] - at
    return stages


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
