"""What measurements come to: pure functions of numbers. No data is not good news.

A measurement says one of four things: SUCCESS, FAILURE, UNDECIDED (a number that meets neither condition), or NOTHING
(no number, NaN, an infinity, a baseline without a number). SUCCESS of the whole rests on the last `count` measurements
that said something, of which at most `failure_limit` were no success. What says nothing never counts towards it.
More failures than `failure_limit`, whenever they were, are FAILED, and stay so.

The value is held against the baseline's as a ratio. A baseline of exactly zero has none: the conditions decide alone
there, and where there are none, only a value of zero or less is a success, any other is UNDECIDED. A baseline below
zero says nothing.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from factory.rollout.model import Analysis, Finding, Verdict

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_CONDITION = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*")


@dataclass(frozen=True)
class Condition:
    """An operator and a number, such as `< 0.01`."""

    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether it is true of a value. Of NaN nothing is, not even `!=`."""
        return not math.isnan(value) and _OPERATORS[self.sign](value, self.bound)

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


def condition(text: str) -> Condition:
    """Read a condition. ValueError where it is none, or its number is too large."""
    found = _CONDITION.fullmatch(text)
    if not found or not math.isfinite(float(found[2])):
        raise ValueError("must be <, <=, >, >=, == or != and a number, such as < 0.01")
    return Condition(found[1], float(found[2]))


class Said(StrEnum):
    """What one measurement says."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNDECIDED = "undecided"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Measurement:
    """`value` of the generation that is judged, `baseline` of the one it is held against; None where there is no
    number, and then `problem` says why. `compared`: there is a baseline to hold it against."""

    at: float
    value: float | None
    baseline: float | None = None
    compared: bool = True
    problem: str = ""


def said_by(analysis: Analysis, measurement: Measurement) -> tuple[Said, str]:
    """What one measurement says, and the sentence that explains it."""
    value = _number(measurement.value)
    if value is None:
        return Said.NOTHING, measurement.problem or f"the value is {_shown(measurement.value)}"
    found = [*_by_conditions(analysis, value), *_by_comparison(analysis, measurement, value)]
    for what in (Said.FAILURE, Said.NOTHING, Said.UNDECIDED, Said.SUCCESS):
        reasons = [why for said, why in found if said == what]
        if reasons:
            return what, "; ".join(reasons)
    return Said.UNDECIDED, f"{value:g} has nothing to be held against"


def _by_conditions(analysis: Analysis, value: float) -> list[tuple[Said, str]]:
    success, failure = (text and condition(text) for text in (analysis.success, analysis.failure))
    if failure and failure.holds(value):
        return [(Said.FAILURE, f"{value:g} is {failure}")]
    if success and success.holds(value):
        return [(Said.SUCCESS, f"{value:g} is {success}")]
    if success:
        return [(Said.UNDECIDED if failure else Said.FAILURE, f"{value:g} is not {success}")]
    return [(Said.SUCCESS, f"{value:g} is not {failure}")] if failure else []


def _by_comparison(analysis: Analysis, measurement: Measurement, value: float) -> list[tuple[Said, str]]:
    if analysis.against is None or not measurement.compared:
        return []
    baseline = _number(measurement.baseline)
    if baseline is None or baseline < 0 or not math.isfinite(baseline * analysis.against):
        why = measurement.problem if measurement.baseline is None else ""
        return [(Said.NOTHING, why or f"the baseline's value is {_shown(measurement.baseline)}")]
    if value <= baseline * analysis.against:
        return [(Said.SUCCESS, f"{value:g} is at most {analysis.against:g} times the baseline's {baseline:g}")]
    if baseline > 0:
        return [(Said.FAILURE, f"{value:g} is more than {analysis.against:g} times the baseline's {baseline:g}")]
    if analysis.success or analysis.failure:
        return []
    return [(Said.UNDECIDED, f"{value:g} cannot be held against a baseline of 0")]


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "missing" if value is None else "not a number" if math.isnan(value) else f"{value:g}"


@dataclass(frozen=True)
class Evidence:
    """What the measurements of one subject have said so far. `subject`: what was measured (generation and step, say).
    `recent`: the last `count` that said something. `silent`: how many in a row said nothing. `last_at`: of the last."""

    subject: str
    taken: int = 0
    failures: int = 0
    recent: tuple[Said, ...] = ()
    silent: int = 0
    last_at: float | None = None
    why: str = ""

    def about(self, subject: str) -> Evidence:
        """This evidence where it is about that subject; else none yet: what was said of another does not count."""
        return self if self.subject == subject else Evidence(subject)

    def plus(self, analysis: Analysis, measurement: Measurement) -> Evidence:
        """With one measurement more."""
        said, why = said_by(analysis, measurement)
        after = replace(self, taken=self.taken + 1, last_at=measurement.at, why=why)
        if said == Said.NOTHING:
            return replace(after, silent=self.silent + 1)
        failures = self.failures + (said == Said.FAILURE)
        return replace(after, failures=failures, silent=0, recent=(*self.recent, said)[-analysis.count :])

    def is_due(self, analysis: Analysis, now: float) -> bool:
        """Whether it is time for the next measurement; also after a clock was set back."""
        return self.last_at is None or abs(now - self.last_at) >= analysis.interval_s


def finding(analysis: Analysis, evidence: Evidence) -> Finding:
    """What the evidence comes to."""
    others = sum(said != Said.SUCCESS for said in evidence.recent)
    if evidence.failures > analysis.failure_limit:
        allowed = f", {analysis.failure_limit} allowed" if analysis.failure_limit else ""
        return Finding(Verdict.FAILED, f"{evidence.why} ({evidence.failures} failed{allowed})")
    if evidence.silent >= analysis.error_limit:
        return Finding(Verdict.INCONCLUSIVE, f"{evidence.why} ({evidence.silent} measurements in a row)")
    if len(evidence.recent) < analysis.count or evidence.silent:
        return Finding(
            Verdict.RUNNING, f"{len(evidence.recent)} of {analysis.count} measured; {evidence.why or 'none'}"
        )
    if others <= analysis.failure_limit:
        return Finding(Verdict.SUCCESS, f"{evidence.why} ({analysis.count} measured, {others} no success)")
    return Finding(Verdict.INCONCLUSIVE, f"{evidence.why} ({others} of {analysis.count} no success)")


def judge(analysis: Analysis, measurements: Iterable[Measurement]) -> Finding:
    """What measurements, in the order they were made, come to."""
    evidence = Evidence("")
    for measurement in measurements:
        evidence = evidence.plus(analysis, measurement)
    return finding(analysis, evidence)
