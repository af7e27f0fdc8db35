"""One figure of a measurement: a number with its unit, beside its target. Pure."""

from __future__ import annotations

from dataclasses import dataclass

PER_SECOND = "/s"


@dataclass(frozen=True)
class Figure:
    """One line of the table. `target` is an upper bound (a rate's: a lower one); None where there is none."""

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.unit == PER_SECOND else self.value <= self.target

    @property
    def cells(self) -> tuple[str, str, str]:
        bound = ">=" if self.unit == PER_SECOND else "<="
        target = "" if self.target is None else f"{bound} {_number(self.target, self.unit)}"
        verdict = {None: "", True: "reached", False: "MISSED"}[self.reached]
        return _number(self.value, self.unit), target, verdict


def _number(value: float, unit: str) -> str:
    if unit == "s":
        if value < 0.01:
            return f"{value * 1000:.2f} ms"
        return f"{value * 1000:.0f} ms" if value < 2 else f"{value:.1f} s"
    if unit == PER_SECOND:
        return f"{value:.0f}{unit}"
    if unit in ("MiB", "bytes", "requests", "bakes", "failures"):
        return f"{value:.0f} {unit}"
    return f"{value:.2f}{unit}" if unit != "x" else f"{value:.1f}x"
