"""Runs inside Packer's provisioner: one playbook by ansible-runner, a record per task, a result at the end.

Never prints a wall of log: one line per task goes to standard output (Packer hands it on), the rest into records.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, TextIO

import yaml

from factory import proc
from factory.provision.records import (
    Connection,
    ProvisionRequest,
    ProvisionResult,
    TaskRecord,
    read_request,
    write_result,
)
from factory.redact import Redactor

_OUTCOMES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}
_MESSAGE_LINES = 20


def provision(request_path: Path) -> bool:
    """Run the playbook of a request; True where it succeeded. The result is in the request's folder either way."""
    request = read_request(request_path)
    folder = Path(request.folder)
    secrets = _secrets(request)
    private = folder / "ansible"
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o700)
    try:
        with (folder / "tasks.jsonl").open("w", buffering=1) as out:
            recorder = _Recorder(out, Redactor(secrets))
            if request.files:
                _place(request)
            status = _run_ansible(request, private, secrets, recorder)
        tail = "" if recorder.failed or status == "successful" else recorder.tail(private)
        write_result(folder, ProvisionResult(status, _ancestors(), recorder.failed, tail))
        return status == "successful"
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _run_ansible(request: ProvisionRequest, private: Path, secrets: dict[str, str], recorder: _Recorder) -> str:
    import ansible_runner

    (private / "ansible.cfg").touch()
    variables = private / "vars.yml"
    variables.write_text(yaml.dump(_unsafe(dict(request.vars)), Dumper=_UnsafeDumper, allow_unicode=True))
    # Into our own environment, not ansible-runner's `envvars`: those it would write to files.
    os.environ.update(_settings(request, private), **secrets)
    done = ansible_runner.run(
        private_data_dir=str(private),
        playbook=request.playbook,
        inventory={"all": {"hosts": {request.image: _host(request.connection)}}},
        cmdline=proc.paste(["-e", f"@{variables}"]),  # ansible-runner splits it like a shell
        event_handler=recorder.event,
        suppress_env_files=True,
        quiet=True,
    )
    return str(done.status)


def _place(request: ProvisionRequest) -> None:
    """Put the request's files into the guest, owned by root. Raises ToolError."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in request.files.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            data = text.encode()
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    connection = request.connection
    assert connection.private_key is not None
    command = ["ssh", *_ssh_options(connection), "-o", "BatchMode=yes", "-i", connection.private_key]
    command += ["-p", str(connection.port), f"{connection.user}@{connection.host}", "tar -x --no-same-owner -C / -f -"]
    proc.run(command, stdin=archive.getvalue())


def _ssh_options(connection: Connection) -> list[str]:
    known = f'UserKnownHostsFile="{connection.known_hosts}"'
    return ["-o", "IdentitiesOnly=yes", "-o", known, "-o", "StrictHostKeyChecking=yes"]


class _Recorder:
    """Takes ansible-runner's events; keeps the task that failed."""

    def __init__(self, out: TextIO, redact: Redactor) -> None:
        self._out = out
        self._redact = redact
        self.failed: TaskRecord | None = None

    def event(self, event: dict[str, Any]) -> bool:
        """Record a finished task. False: ansible-runner keeps no copy of the event on disk."""
        data = event.get("event_data") or {}
        if event.get("event") == "playbook_on_task_start":
            print(f"task: {self._redact(data.get('task', ''))}", flush=True)  # noqa: T201 - Packer reads it
        outcome = _OUTCOMES.get(event.get("event", ""))
        if outcome is not None:
            self._record(outcome, data)
        return False

    def _record(self, outcome: str, data: dict[str, Any]) -> None:
        result = data.get("res") or {}
        if outcome == "failed" and data.get("ignore_errors"):
            outcome = "ignored"
        elif outcome == "ok" and result.get("changed"):
            outcome = "changed"
        bad = outcome in ("failed", "ignored", "unreachable")
        record = TaskRecord(
            play=data.get("play", ""),
            task=self._redact(data.get("task", "")),
            path=data.get("task_path", ""),
            started_at=str(data.get("start", "")),
            duration_s=round(float(data.get("duration") or 0), 3),
            outcome=outcome,
            message=self._redact(_message(result, self._redact)) if bad else "",
        )
        if outcome in ("failed", "unreachable"):
            self.failed = record
        elif outcome == "ok" and self.failed is not None and data.get("rescued"):
            self.failed = None
        self._out.write(json.dumps(record.__dict__) + "\n")

    def tail(self, private: Path) -> str:
        """The last lines Ansible printed; for failures outside any task (a syntax error, say)."""
        said = [path.read_text(errors="replace") for path in private.glob("artifacts/*/stdout")]
        return "\n".join(self._redact("\n".join(said)).strip().splitlines()[-_MESSAGE_LINES:])


def _message(result: dict[str, Any], redact: Redactor) -> str:
    """What a failed task says: of a loop, its first failed item. Cut only after redaction: half a secret is one too."""
    for item in result.get("results") or ():
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            label = item.get("_ansible_item_label", item.get("item"))
            return f"item {label!r}: {_message(item, redact)}"
    said = redact(str(result.get("msg") or ""))
    for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):
        text = redact(str(result.get(stream) or "")).strip()
        if text and text not in said:
            return "\n".join([said, *text.splitlines()[-_MESSAGE_LINES:]]).strip()
    return said.strip() or "it gave no reason"


def _host(connection: Connection) -> dict[str, Any]:
    common = {"ansible_python_interpreter": "/usr/bin/python3"}
    if connection.kind == "tree":
        return {**common, "ansible_connection": "factory_tree", "ansible_host": connection.path}
    return {
        **common,
        "ansible_connection": "ssh",
        "ansible_host": connection.host,
        "ansible_port": connection.port,
        "ansible_user": connection.user,
        "ansible_ssh_private_key_file": connection.private_key,
        "ansible_ssh_common_args": proc.paste(_ssh_options(connection)),
    }


def _settings(request: ProvisionRequest, private: Path) -> dict[str, str]:
    """Ansible's settings, by environment: nothing of the user's own configuration changes a bake."""
    playbooks = Path(request.playbook).parent
    return {
        "ANSIBLE_CONFIG": str(private / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(playbooks / "collections"),
        "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection"),
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "ANSIBLE_HOME": str(private / "home"),
        "ANSIBLE_LOCAL_TEMP": str(private / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_REMOTE_TMP": "/tmp/.ansible",  # noqa: S108 - a tmpfs of the tree's own while it is provisioned
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_ROLES_PATH": str(playbooks / "roles"),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": tempfile.gettempdir(),  # short: a socket's path has at most 107 bytes
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }


def _secrets(request: ProvisionRequest) -> dict[str, str]:
    if request.secrets_file is None:
        return {}
    secrets: dict[str, str] = json.loads(Path(request.secrets_file).read_text())
    return secrets


class _Unsafe(str):
    """A string that Ansible must not take for a template: variables of images.toml are data."""

    __slots__ = ()


class _UnsafeDumper(yaml.SafeDumper):
    """Writes strings that look like templates with Ansible's `!unsafe` tag."""


_UnsafeDumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def _unsafe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unsafe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unsafe(item) for item in value]
    if isinstance(value, str) and "{" in value:
        return _Unsafe(value)
    return value


def _ancestors() -> tuple[str, ...]:
    """The names of our parent process and its parents, nearest first."""
    names: list[str] = []
    pid = os.getppid()
    while pid > 0 and len(names) < 32:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        name, _, rest = stat.partition("(")[2].rpartition(")")
        names.append(name)
        pid = int(rest.split()[1])
    return tuple(names)
