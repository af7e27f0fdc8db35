"""Where a rollout's numbers come from: the sources, and one measurement by any of them.

A source is a module with `value(question) -> float`, which raises NoAnswerError where it has no number; it never
judges. What numbers mean is for `judgement.py`. Nothing here raises for what a server does, waits longer than
`timeout_s` for one answer, or tells a token.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from pathlib import Path

from factory.digest import Digest
from factory.rollout.analysis.asking import NoAnswerError, Question
from factory.rollout.analysis.judgement import Evidence, Measurement, finding
from factory.rollout.model import Analysis

SOURCES = {
    "prometheus": "factory.rollout.analysis.prometheus",
    "http_json": "factory.rollout.analysis.http_json",
}
"""Name in fleets.toml -> the module with its `value(question)`."""

PLACEHOLDERS = ("fleet", "generation", "digest")

__all__ = ["PLACEHOLDERS", "SOURCES", "Evidence", "Measurement", "Subject", "filled", "finding", "measure"]


@dataclass(frozen=True)
class Subject:
    """What a number is asked of."""

    fleet: str
    generation: int
    digest: Digest


def filled(text: str, subject: Subject) -> str:
    """`text` with the placeholders filled in; other braces (those of PromQL) stay."""
    for name in PLACEHOLDERS:
        text = text.replace("{" + name + "}", str(getattr(subject, name)))
    return text


def measure(analysis: Analysis, subject: Subject, baseline: Subject | None, at: float) -> Measurement:
    """Ask once for the subject's number and, where the analysis compares, at the same moment for the baseline's (None:
    there is none). Takes `timeout_s` at most."""
    if analysis.against is None or baseline is None:
        value, problem = _asked(analysis, subject)
        return Measurement(at, value, compared=False, problem=problem)
    found: list[tuple[float | None, str]] = []  # a thread of a pool would hold up the end of the program
    thread = threading.Thread(target=lambda: found.append(_asked(analysis, baseline)), name="baseline", daemon=True)
    thread.start()
    value, problem = _asked(analysis, subject)
    thread.join()
    other, why = found[0]
    return Measurement(at, value, other, problem=problem or (why and f"of the baseline: {why}"))


def _asked(analysis: Analysis, subject: Subject) -> tuple[float | None, str]:
    module = importlib.import_module(SOURCES[analysis.source])
    question = Question(
        url=filled(analysis.url, subject),
        query=filled(analysis.query, subject),
        timeout_s=analysis.timeout_s,
        token_file=None if analysis.token_file is None else Path(analysis.token_file),
    )
    try:
        return float(module.value(question)), ""
    except NoAnswerError as error:
        return None, str(error)
