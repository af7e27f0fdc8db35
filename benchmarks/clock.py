"""Time taken: by the clock on the wall, and by the processors (which other work on the machine disturbs less)."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """One measurement. `stages`: seconds of each part, by the wall clock; `load`: of the machine just before."""

    wall_s: float
    cpu_s: float
    load: float
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_mib: float | None = None

    def as_json(self) -> dict[str, object]:
        """The entry of results.json."""
        return {
            "wall_s": round(self.wall_s, 3),
            "cpu_s": round(self.cpu_s, 3),
            "load": round(self.load, 2),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            **({"peak_mib": round(self.peak_mib, 1)} if self.peak_mib is not None else {}),
        }


class Measuring:
    """A measurement under way; see `measure`."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self._cpu = _cpu_s()
        self.began = time.monotonic()
        self._wall_s = self._cpu_s = 0.0

    def stop(self) -> None:
        """Stop the clock."""
        self._wall_s = time.monotonic() - self.began
        self._cpu_s = _cpu_s() - self._cpu

    def done(self, stages: Mapping[str, float] | None = None, peak_mib: float | None = None) -> Measured:
        """What was measured."""
        return Measured(self._wall_s, self._cpu_s, self.load, stages or {}, peak_mib)


@contextmanager
def measure() -> Iterator[Measuring]:
    """Time a block, with the processor time of this process and of the children it waited for."""
    measuring = Measuring()
    try:
        yield measuring
    finally:
        measuring.stop()


def median_time(times: int, action: Callable[[], object]) -> float:
    """The median of several wall-clock times of an action, in seconds."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        action()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
