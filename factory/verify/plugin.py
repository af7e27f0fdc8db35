"""The pytest plugin of the subprocess that runs an image's checks: exempts by name, reports each check as a JSON line.

Loaded there with `-p factory.verify.plugin`; never imported by the factory itself.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("factory")
    group.addoption("--factory-report", help="file that takes one JSON line per check")
    group.addoption("--factory-skip", action="append", default=[], help="a check to exempt")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Reporter(config), "factory-reporter")


class _Reporter:
    def __init__(self, config: pytest.Config) -> None:
        self._report = Path(config.getoption("--factory-report"))
        self._skip = set(config.getoption("--factory-skip"))
        self._collect_only = bool(config.getoption("collectonly"))

    @pytest.hookimpl(trylast=True)  # after what a conftest.py deselects
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if self._collect_only:
                self._write(
                    kind="collected", nodeid=item.nodeid, name=_name(item.nodeid), names=sorted(_names(item.nodeid))
                )
            if self._skip & _names(item.nodeid):
                item.add_marker(pytest.mark.skip(reason="exempt by skip_checks"))
        if self._collect_only:
            self._write(kind="complete")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(kind="broken", nodeid=report.nodeid, message=_last_line(str(report.longrepr)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        self._write(
            kind="ran",
            nodeid=report.nodeid,
            name=_name(report.nodeid),
            outcome=report.outcome,
            duration_s=report.duration,
            message=_assertion(crash.message if crash else str(report.longrepr or "")),
            line=crash.lineno if crash else (report.location[1] or 0) + 1,
        )

    def pytest_sessionfinish(self) -> None:
        if not self._collect_only:
            self._write(kind="complete")

    def _write(self, **fields: object) -> None:
        with self._report.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")


def _name(nodeid: str) -> str:
    """`test_x[param]` of a node id, without the host that testinfra adds as a parameter."""
    name = nodeid.rpartition("::")[2] if "[" not in nodeid else nodeid.partition("[")[0].rpartition("::")[2]
    parameters = re.sub(r"-?ssh://guest-?", "", nodeid.partition("[")[2].rstrip("]"))
    return f"{name}[{parameters}]" if parameters else name


def _names(nodeid: str) -> set[str]:
    """The names an exemption may use for a check: with its parameters or without (then it exempts them all)."""
    name = _name(nodeid)
    return {name, name.partition("[")[0]}


def _assertion(message: str) -> str:
    return message.removeprefix("AssertionError: ").strip()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("E ").strip() if lines else ""
