"""What the builders share: render the template, have Packer check it, run it, read what the provisioner left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from factory import packer, provision, render
from factory.builders import BuildJob
from factory.errors import ProvisionError
from factory.provision import Connection, ProvisionRequest, ProvisionResult
from factory.redact import Redactor


def write_provision_request(
    job: BuildJob, connection: Connection, files: Mapping[str, str] | None = None
) -> tuple[Path, ProvisionRequest]:
    """Put the provisioner's request, and its secrets, into the work folder. `files`: put into the guest first."""
    secrets_file = None
    if job.secrets:
        secrets_file = job.work / "secrets.json"
        secrets_file.touch(mode=0o600)
        secrets_file.write_text(json.dumps(dict(job.secrets)))
    request = ProvisionRequest(
        image=job.image.name,
        playbook=str(job.layout.root / job.image.playbook),
        folder=str(job.work),
        connection=connection,
        vars=job.image.vars,
        files=files or {},
        secrets_file=str(secrets_file) if secrets_file else None,
    )
    path = job.work / "provision.json"
    provision.write_request(path, request)
    return path, request


def render_template(job: BuildJob, request: Path, version: packer.PackerVersion, **values: Any) -> Path:
    """The builder's template, rendered into the work folder and accepted by Packer."""
    rendered = job.work / f"{job.image.name}.pkr.hcl"
    rendered.write_text(
        render.render(
            template_path(job.layout.templates, job.image.builder),
            template_values(job, request, version, **values),
        )
    )
    packer.validate(rendered, version)
    return rendered


def template_path(templates: Path, builder: str) -> Path:
    """Where a builder's template is."""
    return templates / f"{builder}.pkr.hcl.j2"


def template_values(job: BuildJob, request: Path, version: packer.PackerVersion, **values: Any) -> dict[str, Any]:
    """The names a template may use."""
    oldest = ".".join(map(str, packer.OLDEST))
    return {
        "image": {"name": job.image.name, "arch": job.image.arch},
        "manifest": job.work / "packer-manifest.json",
        "packer": {
            "needs_required_plugins": version.needs_required_plugins,
            "required_version": f">= {oldest}",
            "version": str(version),
        },
        "provision": {"command": provision.command(request)},
        "vars": job.image.vars,
        **values,
    }


def run_packer(
    job: BuildJob,
    command: list[str],
    request: ProvisionRequest,
    *,
    env: Mapping[str, str] | None = None,
) -> ProvisionResult:
    """Run Packer and tell how provisioning went. Raises ProvisionError: the failed task's, where one failed."""
    for name in ("result.json", "tasks.jsonl", "packer-manifest.json"):
        (job.work / name).unlink(missing_ok=True)
    redact = Redactor(job.secrets)
    try:
        with (job.work / "packer.log").open("w", buffering=1) as log:
            try:
                packer.build(
                    command,
                    folder=job.work,
                    env=env,
                    on_start=job.on_process,
                    on_output=_listener(job, redact, log.write),
                )
            except ProvisionError as error:
                raise _cause(job, request, redact, error) from error
        result = succeeded(job, request)
    finally:
        if request.secrets_file is not None:
            Path(request.secrets_file).unlink(missing_ok=True)
    packer.read_manifest(job.work / "packer-manifest.json")
    return result


def succeeded(job: BuildJob, request: ProvisionRequest) -> ProvisionResult:
    """What the provisioner left in the work folder. Raises ProvisionError where the playbook failed or did nothing."""
    result = provision.read_result(job.work)
    if result.status != "successful":
        raise provision.failure(result, request)
    if next(provision.read_tasks(job.work), None) is None:
        raise ProvisionError(
            "the playbook ran no task: none of its plays is for this image",
            where=request.playbook,
            hint="the play's `hosts` must match: use `hosts: all`",
        )
    return result


def _cause(job: BuildJob, request: ProvisionRequest, redact: Redactor, error: ProvisionError) -> ProvisionError:
    """The playbook's own failure where there is one; else Packer's, with its log named."""
    if (job.work / "result.json").exists():
        result = provision.read_result(job.work)
        if result.status != "successful":
            return provision.failure(result, request)
    return ProvisionError(redact(error.message), where=str(job.work / "packer.log"))


def _listener(job: BuildJob, redact: Redactor, write: Callable[[str], object]) -> Callable[[str], None]:
    def on_output(text: str) -> None:
        write(redact(text) + "\n")
        _, mark, task = text.partition("task: ")
        if mark:
            job.on_task(task.strip())

    return on_output
