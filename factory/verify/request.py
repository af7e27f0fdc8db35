"""What verification is asked: one artifact, what is known about it, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.digest import Digest
from factory.disk.seal import SealFacts
from factory.verify.checks import Checks
from factory.vm.session import Way


@dataclass(frozen=True)
class VerifyRequest:
    """One stored artifact to boot and check. All paths absolute.

    `artifact`, `format`, `digest`: the file in the store, its QEMU format, the digest of its bytes. `manifest`: the
    sealed manifest's file. `work`: a folder that is there, private, removed by the caller; `logs`: the folder that
    keeps JUnit XML, console and screenshot. `facts`: what the seal wrote, judged as well where given. `secrets`: values
    by name, never printed. `forward`: guest ports that this host's loopback leads to (22 is how we get in).
    `host_files`: files of this host that must not hold a secret either (run logs, journal, lock, catalog).
    """

    name: str
    artifact: Path
    format: str
    digest: Digest
    manifest: Path
    work: Path
    logs: Path
    accelerator: str
    way: Way
    facts: SealFacts | None = None
    checks: tuple[Checks, ...] = ()
    skip_checks: tuple[str, ...] = ()
    state: tuple[str, ...] = ("/var/log",)
    ports: tuple[int, ...] = (22,)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    host_files: tuple[Path, ...] = ()
    forward: tuple[int, ...] = (22,)
    memory_mib: int = 1024
    cpus: int = 2
    boot_deadline_s: float = 300
    checks_timeout_s: float = 1800
