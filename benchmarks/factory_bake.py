"""One forced bake of `web` by the factory, with its stages as `bake --json` tells them and its own peak memory."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from benchmarks import clock
from benchmarks.clock import Measured
from benchmarks.scratch import FACTORY
from factory.errors import ToolError
from factory.model import Layout

TO_DISK = ("base", "provision", "seal", "disk")
"""The stages from render to disk; what is left is `verify` and `record`."""

_SAMPLE_S = 0.2


def warm_up(layout: Layout, name: str) -> None:
    """Bake whatever `name` still lacks, itself included. Raises ToolError."""
    _bake(layout, name)


def bake(layout: Layout, name: str) -> Measured:
    """One forced bake of the image `name` on a warm base. Raises ToolError."""
    with clock.measure() as measuring:
        image, peak_mib = _bake(layout, name, "--force")
    if image["status"] != "baked":
        raise ToolError(f"{name} was not baked: {image['status']}")
    return measuring.done(stages=image["stages"], peak_mib=peak_mib)


def _bake(layout: Layout, name: str, *options: str) -> tuple[dict[str, Any], float]:
    """Run `factory bake`; its entry for the image, and the peak memory of its process (not its children's) in MiB."""
    argv = [*FACTORY, "-C", str(layout.root), "bake", name, "--json", *options]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process, PeakMemory(process.pid) as memory:
        out, err = process.communicate()
    if process.returncode != 0:
        raise ToolError(f"factory bake {name} failed:\n{err.decode('utf-8', 'replace')[-3000:]}")
    images: list[dict[str, Any]] = json.loads(out)["images"]
    return next(image for image in images if image["name"] == name), memory.peak_mib


class PeakMemory:
    """The largest resident size a process reached, read from the kernel's own high-water mark while it lives."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mib = 0.0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("VmHWM:"):
                    self.peak_mib = max(self.peak_mib, int(line.split()[1]) / 1024)
