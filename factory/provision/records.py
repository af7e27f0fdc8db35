"""What passes between the bake and the provisioner it has Packer run: a request, task records, a result.

All of it is plain JSON in the image's work folder: `request.json` (0600), `tasks.jsonl` (a line per finished task,
appended as it finishes, so that progress can be followed) and `result.json` (written last: no result, no provisioning).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from factory import namespace, proc
from factory.errors import ProvisionError


@dataclass(frozen=True)
class Connection:
    """How Ansible reaches what it provisions: `tree` is a folder, `ssh` a guest on loopback."""

    kind: str  # tree | ssh
    path: str | None = None
    host: str = "127.0.0.1"
    port: int = 22
    user: str = "root"
    private_key: str | None = None
    known_hosts: str | None = None


@dataclass(frozen=True)
class ProvisionRequest:
    """One playbook run. Paths are absolute; `folder` takes tasks.jsonl and result.json.

    `files`: put into a guest before the playbook runs, path relative to its root -> text.
    """

    image: str
    playbook: str
    folder: str
    connection: Connection
    vars: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    secrets_file: str | None = None  # 0600, JSON {NAME: value}


@dataclass(frozen=True)
class TaskRecord:
    """One finished task. `started_at` is ISO 8601 UTC; `outcome`: ok, changed, skipped, failed, ignored or
    unreachable."""

    play: str
    task: str
    path: str  # file:line
    started_at: str
    duration_s: float
    outcome: str
    message: str = ""


@dataclass(frozen=True)
class ProvisionResult:
    """How the playbook ended: `successful`, `failed`, or what ansible-runner calls it. `via`: our ancestors' names."""

    status: str
    via: tuple[str, ...]
    failed: TaskRecord | None = None
    tail: str = ""  # the last lines Ansible printed, where it failed outside a task


def command(request: Path) -> str:
    """The shell command that Packer's provisioner runs for `request`."""
    return "exec " + proc.paste(namespace.python("factory.provision", str(request)))


def write_request(path: Path, request: ProvisionRequest) -> None:
    """Write `request` for the provisioner, readable by the owner only."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(request), indent=1))


def read_request(path: Path) -> ProvisionRequest:
    """The request written by `write_request`."""
    data = json.loads(path.read_text())
    return ProvisionRequest(**{**data, "connection": Connection(**data["connection"])})


def write_result(folder: Path, result: ProvisionResult) -> None:
    """Write the result where `read_result` finds it, whole or not at all."""
    partial = folder / "result.json.new"
    partial.write_text(json.dumps(asdict(result), indent=1))
    partial.rename(folder / "result.json")


def read_tasks(folder: Path) -> Iterator[TaskRecord]:
    """The tasks that have finished so far; a line being written is left out."""
    try:
        lines = (folder / "tasks.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return
    for line in lines:
        yield TaskRecord(**json.loads(line))


def read_result(folder: Path) -> ProvisionResult:
    """How provisioning ended. Raises ProvisionError where it never ran: a template without its provisioner, say."""
    try:
        data = json.loads((folder / "result.json").read_text())
    except FileNotFoundError as error:
        raise ProvisionError(
            "nothing was provisioned: Packer ran, but not the provisioner",
            hint="the template needs the shell-local provisioner that runs <{ provision.command }>",
            where=str(folder),
        ) from error
    failed = data["failed"]
    return ProvisionResult(**{**data, "via": tuple(data["via"]), "failed": TaskRecord(**failed) if failed else None})


def failure(result: ProvisionResult, request: ProvisionRequest) -> ProvisionError:
    """The error for a playbook that did not succeed: its play, task, file:line and message."""
    task = result.failed
    if task is None:
        return ProvisionError(
            f"Ansible ended with status {result.status}" + (f":\n{result.tail}" if result.tail else ""),
            where=request.playbook,
        )
    word = "the guest could not be reached in" if task.outcome == "unreachable" else "failed:"
    return ProvisionError(
        f"{word} task '{task.task}' of play '{task.play}'\n{task.message}",
        where=task.path,
        hint="mend the task; --keep-failed keeps what was built so far to look around in",
    )
