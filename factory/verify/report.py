"""What verification found: frozen cases, the report, its JUnit XML, and the short text an error shows.

A secret's value never gets here: checks name the secret only.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUILT_IN_OWNER = "factory"

_MESSAGE_LINES = 3


@dataclass(frozen=True)
class Case:
    """One check. `owner` is the image whose check it is (`factory`: built in); `outcome` is passed,
    failed, skipped (by itself) or exempt.

    `where` is `file:line` of the check, empty for built-in ones; `message` says why, empty where it passed.
    """

    name: str
    owner: str
    outcome: str
    duration_s: float = 0.0
    message: str = ""
    where: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """The verdict on one artifact. `timings_s`: seconds by stage (boot, checks, compare, secrets, …)."""

    passed: bool
    cases: tuple[Case, ...]
    junit: Path
    console: Path
    screenshot: Path | None
    accelerator: str
    boot_s: float
    duration_s: float
    timings_s: tuple[tuple[str, float], ...] = ()

    @property
    def failures(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.outcome == "failed")


def render(report: VerifyReport) -> str:
    """The failing checks, each in a few lines, and where the logs are: the text of a VerifyError."""
    lines = [f"{len(report.failures)} of {len(report.cases)} checks failed"]
    for case in report.failures:
        lines.append(f"  {case.owner}: {case.name}" + (f" ({case.where})" if case.where else ""))
        lines += [f"    {line}" for line in _short(case.message)]
    lines.append(logs(report))
    return "\n".join(lines)


def logs(report: VerifyReport) -> str:
    """Where to look further."""
    named = [f"checks: {report.junit}", f"serial log: {report.console}"]
    if report.screenshot is not None:
        named.append(f"screenshot: {report.screenshot}")
    return ", ".join(named)


def _short(message: str) -> list[str]:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    more = len(lines) - _MESSAGE_LINES
    return lines[:_MESSAGE_LINES] + ([f"… {more} more lines in the report"] if more > 0 else [])


def add_to_junit(junit: Path, cases: Sequence[Case]) -> None:
    """Add `cases` as a suite of their own to pytest's JUnit file, which is made where there is none."""
    root = ET.parse(junit).getroot() if junit.exists() else ET.Element("testsuites")  # noqa: S314 (pytest wrote it)
    failed = sum(case.outcome == "failed" for case in cases)
    exempt = sum(case.outcome == "exempt" for case in cases)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=BUILT_IN_OWNER,
        tests=str(len(cases)),
        failures=str(failed),
        errors="0",
        skipped=str(exempt),
        time=f"{sum(case.duration_s for case in cases):.3f}",
    )
    for case in cases:
        element = ET.SubElement(suite, "testcase", classname=case.owner, name=case.name, time=f"{case.duration_s:.3f}")
        if case.outcome == "failed":
            first = _printable(case.message).partition("\n")[0]
            ET.SubElement(element, "failure", message=first).text = _printable(case.message)
        elif case.outcome == "exempt":
            ET.SubElement(element, "skipped", message="exempt by skip_checks")
    ET.ElementTree(root).write(junit, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """`text` without what XML cannot hold."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
