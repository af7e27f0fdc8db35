"""What verification is asked: one artifact, what is known about it, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.digest import Digest
from factory.disk.seal import SealFacts
from factory.verify.checks import Checks
from factory.vm.session import Way


@dataclass(frozen=True, kw_only=True)
class GuestRequest:
    """A disk to boot, read-only. All paths absolute.

    `artifact`, `format`: the file and its QEMU format. `work`: a folder that is there, private, removed by the caller.
    `way`: how to get in. `forward`: guest ports that this host's loopback leads to (22 is how we get in).
    """

    name: str
    artifact: Path
    format: str
    work: Path
    accelerator: str
    way: Way
    forward: tuple[int, ...] = (22,)
    memory_mib: int = 1024
    cpus: int = 2
    boot_deadline_s: float = 300


@dataclass(frozen=True, kw_only=True)
class VerifyRequest(GuestRequest):
    """One stored artifact to boot and check.

    `digest`: of the artifact's bytes. `manifest`: the sealed manifest's file. `logs`: the folder that keeps JUnit XML,
    console and screenshot. `facts`: what the seal wrote, judged as well where given. `secrets`: values by name, never
    printed; `secrets_not_given`: names of those that cannot be looked for. `host_files`: files and whole
    folders of this host that must not hold a secret either, as they are after the checks (run logs, lock, catalog).
    """

    digest: Digest
    manifest: Path
    logs: Path
    facts: SealFacts | None = None
    checks: tuple[Checks, ...] = ()
    skip_checks: tuple[str, ...] = ()
    state: tuple[str, ...] = ("/var/log",)
    ports: tuple[int, ...] = (22,)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    secrets_not_given: tuple[str, ...] = ()
    host_files: tuple[Path, ...] = ()
    checks_timeout_s: float = 1800
