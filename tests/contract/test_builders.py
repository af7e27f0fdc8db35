"""Every builder of the registry: it can be had by name, has a version and a template; and what their parts promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from factory import builders, packer
from factory.builders import BuildJob, Parent, packer_build, qemu, tree_env
from factory.digest import of_bytes
from factory.errors import ProvisionError, SpecError
from factory.model import ImageSpec, Layout
from factory.provision import Connection, ProvisionResult, TaskRecord, failure, records
from factory.spec import BUILDERS
from factory.vm import entry
from factory.vm.session import Way

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = ImageSpec("web", "amd64", "b", False, "rootfs", "playbooks/web.yml", vars={"motto": "${x} \" '"})


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return BuildJob(
        image=IMAGE,
        layout=Layout(tmp_path),
        work=tmp_path,
        parent=Parent(tmp_path / "tree.tar", of_bytes(b""), lambda: (tmp_path / "disk", "raw")),
        lent_files=lambda host: {"etc/apt/apt.conf.d/99factory-bake": f"proxy {host}\n"},
        secrets={"TOKEN": "secret-value-0123"},
    )


def test_registry_and_images_toml_know_the_same_builders() -> None:
    assert set(builders.NAMES) == set(BUILDERS)
    with pytest.raises(SpecError, match="no builder") as caught:
        builders.get("docker")
    assert "rootfs" in (caught.value.hint or "")


@pytest.mark.parametrize("name", builders.NAMES)
def test_builder_has_its_name_a_version_and_a_template_that_provisions(name: str) -> None:
    assert builders.get(name).name == name
    assert builders.version(name) >= 1
    template = packer_build.template_path(PROJECT / "templates", name).read_text()
    assert "provision.command" in template
    assert "<{ manifest }>" in template


def test_request_is_private_and_the_secret_is_in_its_own_private_file(job: BuildJob) -> None:
    path, request = packer_build.write_provision_request(job, Connection("tree", path="/tree"))
    assert path.stat().st_mode & 0o077 == 0
    assert "secret-value" not in path.read_text()
    assert records.read_request(path) == request
    assert request.secrets_file is not None
    secrets_file = Path(request.secrets_file)
    assert secrets_file.stat().st_mode & 0o077 == 0
    assert json.loads(secrets_file.read_text()) == job.secrets


def test_rendered_template_holds_no_secret_and_packer_takes_it(job: BuildJob) -> None:
    (job.layout.root / "templates").mkdir()
    for path in (PROJECT / "templates").iterdir():
        (job.layout.root / "templates" / path.name).write_text(path.read_text())
    request, _ = packer_build.write_provision_request(job, Connection("tree", path="/tree"))
    rendered = packer_build.render_template(job, request, packer.installed_version())
    assert "secret-value" not in rendered.read_text()
    assert str(request) in rendered.read_text()


@pytest.mark.parametrize("kind", ["smbios", "nocloud"])
def test_qemu_guest_is_entered_without_anything_private_on_a_command_line(job: BuildJob, kind: str) -> None:
    keys = entry.make_keys(job.work / "keys")
    guest = qemu._guest(job, keys, Way(kind), 2222, Path("/disk"), "raw", job.work / "out")
    text = json.dumps(guest["qemuargs"])
    assert keys.identity.read_text().splitlines()[1] not in text
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in text
    assert ["-machine", "q35"] in guest["qemuargs"]
    if kind == "smbios":
        assert f"type=11,path={keys.folder / 'credential'}" in text
    else:
        assert (job.work / "seed.iso").exists()
        assert f"readonly=on,file={job.work / 'seed.iso'}" in text
        assert "-smbios" not in text


def test_a_failed_task_becomes_an_error_with_play_task_place_and_message(job: BuildJob) -> None:
    _, request = packer_build.write_provision_request(job, Connection("tree", path="/tree"))
    task = TaskRecord("Web", "Install nginx", "playbooks/web.yml:7", "", 1.0, "failed", "No package")
    error = failure(ProvisionResult("failed", (), task), request)
    assert (error.exit_code, error.where) == (3, "playbooks/web.yml:7")
    assert "Install nginx" in error.message
    assert "Web" in error.message
    assert "No package" in error.message


def test_no_result_means_nothing_was_provisioned(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="nothing was provisioned"):
        records.read_result(tmp_path)


def test_task_line_cut_short_is_left_out(tmp_path: Path) -> None:
    task: dict[str, Any] = vars(TaskRecord("p", "t", "f:1", "", 0.0, "ok"))
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n" + '{"play": "p", "ta')
    assert [record.task for record in records.read_tasks(tmp_path)] == ["t"]


def test_a_tree_whose_folders_lead_out_of_it_is_refused(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (tree / "etc").symlink_to(outside)
    with pytest.raises(ProvisionError, match="leads out of it"):
        tree_env._lend(tree, Path("etc/hostname"), b"x", 0o644)
    assert list(outside.iterdir()) == []


def test_what_was_lent_is_taken_back_unless_the_role_changed_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/kept").write_text("the tree's own\n")
    loans = [
        tree_env._lend(tmp_path, Path("/etc/kept"), b"lent\n", 0o644),
        tree_env._lend(tmp_path, Path("etc/new"), b"lent\n", 0o644),
        tree_env._lend(tmp_path, Path("etc/changed"), b"lent\n", 0o644),
    ]
    (tmp_path / "etc/changed").write_text("the role's\n")
    for loan in loans:
        tree_env._take_back(loan)
    found = {path.name: path.read_text() for path in (tmp_path / "etc").iterdir()}
    assert found == {"kept": "the tree's own\n", "changed": "the role's\n"}
