"""Which accelerator a guest gets: KVM where it really boots a kernel, else emulation. Never QEMU's own choice.

A /dev/kvm that opens proves nothing: on some hosts a machine can be created and its kernel then hangs in its first
instructions. So the probe boots a real Linux kernel (the host's own, or one the caller has from an image) without any
disk, and KVM counts only when that kernel got as far as missing its root file system: it has then run all of its
start-up, timers and interrupts included. With working KVM that takes about a second.

The answer is kept per boot of this host. Where no kernel is at hand the answer is no, and it is not kept.
"""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path

from factory import proc
from factory.vm.machine import KVM, TCG, processor

DEADLINE_S = 8
_PROOF = b"Kernel panic - not syncing: VFS: Unable to mount root fs"
_DEVICE = Path("/dev/kvm")

FindKernel = Callable[[], Path | None]


def host_kernel() -> Path | None:
    """The newest kernel of this host that can be read; None where there is none (in a container, say)."""
    kernels = [path for path in Path("/boot").glob("vmlinuz*") if os.access(path, os.R_OK)]
    return max(kernels, key=lambda path: path.stat().st_mtime, default=None)


def accelerator(cache: Path, find_kernel: FindKernel = host_kernel) -> str:
    """QEMU's `-accel` argument: `kvm`, or emulation with a thread per core and a large cache of translated code."""
    return KVM if probe_kvm(cache, find_kernel) else TCG


def probe_kvm(cache: Path, find_kernel: FindKernel = host_kernel) -> bool:
    """Whether KVM boots a kernel on this host, as the cache folder knows it for this boot, else as a probe finds.

    `find_kernel` is only asked when a probe is needed. Raises MissingToolError where there is no QEMU.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    known = cache / "kvm.json"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = _known(known, boot_id)
    if answer is None:
        kernel = find_kernel()
        if kernel is None:
            return False
        answer = kernel_boots(kernel, KVM)
        _remember(known, boot_id, answer)
    return answer


def kernel_boots(kernel: Path, accel: str, deadline_s: float = DEADLINE_S) -> bool:
    """Whether a Linux kernel runs through its start-up under an accelerator before the deadline."""
    process = proc.spawn(
        [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-machine", "q35", "-accel", accel, "-cpu", processor(accel), "-m", "512M",
            "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1", "-serial", "stdio",
        ],
        stdout=proc.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        return _appears(process.stdout.fileno(), _PROOF, deadline_s)
    finally:
        proc.end(process, grace_s=1)


def _appears(descriptor: int, wanted: bytes, deadline_s: float) -> bool:
    """Whether `wanted` is read from a pipe before the deadline or its end."""
    ends_at = time.monotonic() + deadline_s
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := ends_at - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return False
            seen += chunk
            if wanted in seen:
                return True
    return False


def _known(path: Path, boot_id: str) -> bool | None:
    try:
        kept = json.loads(path.read_text())
        return bool(kept["works"]) if kept["boot_id"] == boot_id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path, boot_id: str, works: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps({"boot_id": boot_id, "works": works}))
    fresh.replace(path)
