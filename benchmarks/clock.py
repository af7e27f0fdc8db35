"""Time taken: by the clock on the wall, and by the processors (which other work on the machine disturbs less)."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Action = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """One measurement. `stages`: seconds of each part, by the wall clock; `load`: of the machine just before."""

    wall_s: float
    cpu_s: float
    load: float
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_mib: float | None = None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Measured:
        """What `as_json` gave, rounded."""
        return cls(**entry)

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
        self.load = load()
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


def median_time(times: int, action: Action) -> float:
    """The median of several wall-clock times of an action, in seconds."""
    return median_times(times, [action])[0]


def median_times(times: int, actions: Sequence[Action]) -> list[float]:
    """The median of each action, in seconds. They take turns, so that what slows the machine slows all of them."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(times):
        for action, times_of_it in zip(actions, taken, strict=True):
            began = time.monotonic()
            action()
            times_of_it.append(time.monotonic() - began)
    return [statistics.median(times_of_it) for times_of_it in taken]


def load() -> float:
    """The load of the machine over the last minute."""
    return os.getloadavg()[0]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
