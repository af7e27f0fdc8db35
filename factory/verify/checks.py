"""An image's own checks: its roles' `checks/` folders and its ancestors', run by testinfra in a process of its own.

The folders are copied first, so that nothing is written beside them, no configuration or conftest.py above them counts,
and what ran is what was there when verification began. Exemptions are by name and must name an existing check.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factory
from factory import proc
from factory.errors import SpecError, ToolError, VerifyError
from factory.verify.report import Case


@dataclass(frozen=True)
class Checks:
    """A folder of checks and the name of the image that brings it. `shown` is how messages call the folder."""

    owner: str
    folder: Path
    shown: str


@dataclass(frozen=True)
class Suite:
    """Checks copied to `folder`, one subfolder per `Checks`, ready to run."""

    folder: Path
    parts: tuple[Checks, ...]
    skip: tuple[str, ...]

    def exempts(self, name: str) -> bool:
        """Whether a check of this name (with its parameters or without) is exempt."""
        return name in self.skip or name.partition("[")[0] in self.skip


def stage(parts: Sequence[Checks], skip: Sequence[str], folder: Path) -> Suite:
    """Copy the checks to `folder`. SpecError where one of them is not a folder."""
    folder.mkdir(parents=True)
    for number, part in enumerate(parts):
        if not part.folder.is_dir():
            raise SpecError(f"there is no folder of checks at {part.shown}", where=f"image {part.owner}")
        shutil.copytree(part.folder, folder / _copy_of(number, part), ignore=shutil.ignore_patterns("__pycache__"))
    return Suite(folder, tuple(parts), tuple(skip))


def collect(suite: Suite, built_in: Sequence[str]) -> frozenset[str]:
    """The node ids of all checks, exempt ones too. SpecError where an exemption names none; VerifyError for a file that
    cannot load.
    """
    lines = _pytest(suite, ["--collect-only"], timeout_s=120) if suite.parts else []
    collected = [line for line in lines if line["kind"] == "collected"]
    known = {name for line in collected for name in line["names"]} | set(built_in)
    for name in suite.skip:
        if name not in known:
            raise SpecError(
                f"skip_checks names a check that does not exist: {name}",
                hint=f"the checks are: {', '.join(sorted(known))}",
                where="skip_checks",
            )
    return frozenset(line["nodeid"] for line in collected)


def run(suite: Suite, collected: frozenset[str], ssh_config: Path, junit: Path, *, timeout_s: float) -> list[Case]:
    """Run the checks against the host `guest` of `ssh_config`. VerifyError unless exactly those collected ran, to the
    end of the run.
    """
    if not suite.parts:
        return []
    arguments = [
        f"--ssh-config={ssh_config}",
        f"--junit-xml={junit}",
        "-o",
        "junit_family=xunit2",
        *(f"--factory-skip={name}" for name in suite.skip),
    ]
    lines = _pytest(suite, arguments, collected, cwd=ssh_config.parent, timeout_s=timeout_s)
    return [_case(suite, line) for line in lines if line["kind"] == "ran"]


def _pytest(
    suite: Suite,
    arguments: list[str],
    expected: frozenset[str] = frozenset(),
    *,
    timeout_s: float,
    cwd: Path | None = None,
) -> list[dict[str, Any]]:
    """The lines of the plugin's report. VerifyError where a file cannot load, where others than the
    `expected` checks ran, or where pytest did not come to its end.
    """
    report = suite.folder / "report.jsonl"
    report.unlink(missing_ok=True)
    folder = str(suite.folder)
    argv = [
        sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", folder, "--confcutdir", folder,
        "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "testinfra.plugin", "-p", "factory.verify.plugin",
        "--hosts=ssh://guest", f"--factory-report={report}", *arguments,
        *(str(suite.folder / _copy_of(number, part)) for number, part in enumerate(suite.parts)),
    ]  # fmt: skip
    environment = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(Path(factory.__file__).parent.parent),
    }
    try:
        done = proc.run(argv, env=environment, cwd=cwd or suite.folder, check=False, timeout_s=timeout_s)
    except ToolError as error:
        raise VerifyError(f"the checks did not end within {timeout_s:g} s", where=error.where) from error
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    if broken := [line for line in lines if line["kind"] == "broken"]:
        shown = "\n".join(f"{_place(suite, line['nodeid'])[1]}: {line['message']}" for line in broken)
        raise VerifyError(f"checks that cannot be loaded:\n{shown}", hint="mend these files")
    ran = {line["nodeid"] for line in lines if line["kind"] == "ran"}
    if apart := sorted(expected ^ ran):
        raise VerifyError(
            "the checks were cut short or changed while they ran:\n"
            + "\n".join(f"{_shown(suite, id_)} {'never ran' if id_ in expected else 'is new'}" for id_ in apart),
            where=proc.paste(argv),
            hint="a check must neither end the process nor stop pytest",
        )
    allowed = (0, 1) if expected else (0, 1, 5)  # 5: there are no checks
    if done.code not in allowed or all(line["kind"] != "complete" for line in lines):
        raise VerifyError(
            f"the checks did not come to their end:\n{proc.failure(argv, done).message}", where=proc.paste(argv)
        )
    return lines


def _case(suite: Suite, line: dict[str, Any]) -> Case:
    part, shown = _place(suite, line["nodeid"])
    outcome = line["outcome"]
    if outcome == "skipped" and suite.exempts(line["name"]):
        outcome = "exempt"
    return Case(
        name=line["name"],
        owner=part.owner,
        outcome=outcome,
        duration_s=line["duration_s"],
        message="" if outcome in ("exempt", "passed") else line["message"],
        where=f"{shown}:{line['line']}",
    )


def _shown(suite: Suite, nodeid: str) -> str:
    """A node id as people know it."""
    return f"{_place(suite, nodeid)[1]}::{nodeid.partition('::')[2]}"


def _place(suite: Suite, nodeid: str) -> tuple[Checks, str]:
    """Whose check a node id names, and the file as people know it."""
    path = nodeid.partition("::")[0]
    copied, _, rest = path.partition("/")
    part = suite.parts[int(copied.rpartition("-")[2])]
    return part, f"{part.shown}/{rest}"


def _copy_of(number: int, part: Checks) -> str:
    """The name of the copy of a folder of checks: it shows in pytest's own report."""
    return f"{part.owner}-{number}"
