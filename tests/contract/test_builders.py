"""Every builder of the registry: it can be had by name, has a version and a template; and what their parts promise."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from factory import builders, namespace, packer, proc
from factory.builders import BuildJob, Parent, packer_build, qemu, rootfs, tree_env
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


def disk_of(folder: Path, size: int) -> Path:
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_qemu_guest_takes_a_work_folder_with_a_comma_and_a_larger_parent(job: BuildJob) -> None:
    work = job.work / "a,b"
    work.mkdir()
    job = dataclasses.replace(job, work=work, image=dataclasses.replace(job.image, disk_mib=64))
    keys = entry.make_keys(work / "keys")

    def guest(size: int) -> dict[str, Any]:
        (work / "seed.iso").unlink(missing_ok=True)
        (keys.folder / "credential").unlink(missing_ok=True)
        return qemu._guest(job, keys, Way("smbios"), 2222, disk_of(work, size), "raw", work / "out")

    assert guest(64 << 20)["disk_size"] == "64M"
    assert guest((100 << 20) + 512)["disk_size"] == "101M"
    drives = [value for name, value in guest(1)["qemuargs"] if name in ("-drive", "-smbios")]
    assert len([drive for drive in drives if "/a,,b/" in drive]) == 3
    assert not [drive for drive in drives if "/a,b/" in drive]


def test_what_the_way_in_left_is_taken_back_and_a_roles_change_stays() -> None:
    way = Way("smbios", "# theirs\n")
    before = {entry.DEFAULT_SSH: "# theirs\n"}
    entered = entry.entered("# theirs\n")
    assert qemu._put_back(way, before, {entry.DEFAULT_SSH: entered}) == before
    changed = {entry.DEFAULT_SSH: entered + "MORE=1\n"}
    assert qemu._put_back(way, before, changed) == {entry.DEFAULT_SSH: "# theirs\nMORE=1\n"}
    assert qemu._put_back(way, before, {entry.DEFAULT_SSH: None}) == {}
    nothing = {entry.DEFAULT_SSH: None}
    assert qemu._put_back(Way("smbios"), nothing, {entry.DEFAULT_SSH: entry.entered("")}) == nothing
    netplan, sudoers = "/etc/netplan/50-cloud-init.yaml", "/etc/sudoers.d/90-cloud-init-users"
    assert {netplan, sudoers} <= set(qemu._TAKEN_BACK["nocloud"])
    found = {netplan: "ours", sudoers: "ours"}
    assert qemu._put_back(Way("nocloud"), {netplan: None, sudoers: "theirs"}, found) == {
        netplan: None,
        sudoers: "theirs",
    }


@pytest.mark.parametrize("kind", ["smbios", "nocloud"])
def test_qemu_guest_is_entered_without_anything_private_on_a_command_line(job: BuildJob, kind: str) -> None:
    keys = entry.make_keys(job.work / "keys")
    guest = qemu._guest(job, keys, Way(kind), 2222, disk_of(job.work, 1 << 20), "raw", job.work / "out")
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


def test_a_link_in_a_tree_does_not_make_us_write_where_it_leads(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "etc").mkdir(parents=True)
    outside.mkdir()
    (outside / "hostname").write_text("the host's\n")
    (tree / "etc/hostname").symlink_to(outside / "hostname")
    tree_env._loans(tree, tree_env.TreeRequest(str(tree), "web", ["true"]))
    assert (tree / "etc/hostname").read_text() == "web\n"
    assert (outside / "hostname").read_text() == "the host's\n"
    (tree / "etc/ssh").symlink_to(outside)
    with pytest.raises(ProvisionError, match="etc/ssh of the base leads out of it"):
        tree_env._host_keys(tree)
    assert [path.name for path in outside.iterdir()] == ["hostname"]


def test_packer_finds_its_own_settings_in_a_tree_where_all_of_sys_is_read_only(job: BuildJob) -> None:
    tree = job.work / "a tree"
    tree.mkdir()
    request = rootfs._tree_request(job, tree, job.work / "web.pkr.hcl")
    assert request.env == packer.settings(job.work)
    path = job.work / "tree-env.json"
    script = "env; cat /proc/self/mountinfo"
    tree_env.write_request(path, dataclasses.replace(request, command=["sh", "-c", script]))
    said = proc.run(tree_env.command(path), cwd=PROJECT).text.splitlines()
    for name in ("CHECKPOINT_DISABLE", "PACKER_CACHE_DIR", "PACKER_NO_COLOR"):
        assert f"{name}={request.env[name]}" in said
    mounts = [line.split() for line in said if "\\040tree/sys" in line]
    assert len(mounts) >= 1
    assert [fields[4] for fields in mounts if "ro" not in fields[5].split(",")] == []
    namespace.remove(tree)


def test_mounts_below_a_folder_are_found_with_their_names_unescaped() -> None:
    table = "".join(
        f"1 1 0:1 / {path} rw - sysfs sysfs rw\n" for path in ("/t\\040x/sys", "/t\\040x/sys/fs/a\\011b", "/t")
    )
    assert tree_env._mounts_below(Path("/t x/sys"), table) == [Path("/t x/sys/fs/a\tb")]


def provision(job: BuildJob, hosts: str, task: str) -> proc.Completed:
    """The provisioner on a playbook whose one task needs no guest."""
    (job.layout.root / "playbooks").mkdir(parents=True)
    (job.layout.root / job.image.playbook).write_text(
        f"- name: Play\n  hosts: {hosts}\n  gather_facts: false\n  tasks:\n    - name: Task\n      {task}\n"
    )
    path, _ = packer_build.write_provision_request(job, Connection("tree", path="/nowhere"))
    return proc.run([sys.executable, "-m", "factory.provision", str(path)], cwd=PROJECT, check=False)


def in_folder(job: BuildJob, name: str) -> BuildJob:
    folder = job.work / name
    folder.mkdir()
    return dataclasses.replace(job, layout=Layout(folder), work=folder)


def test_a_work_folder_may_have_spaces_and_a_long_secret_is_struck_before_it_is_cut(job: BuildJob) -> None:
    lines = [f"{number:04}{'k' * 60}" for number in range(52)]
    job = dataclasses.replace(in_folder(job, "a b"), secrets={"TOKEN": "\n".join(lines)})
    done = provision(job, "all", "ansible.builtin.fail: {msg: \"{{ motto }} {{ lookup('env', 'TOKEN') }}\"}")
    assert done.code != 0
    (record,) = records.read_tasks(job.work)
    assert record.outcome == "failed"
    assert str(IMAGE.vars["motto"]) in record.message
    assert "kkkkkkkk" not in (job.work / "tasks.jsonl").read_text() + (job.work / "result.json").read_text() + done.text


def test_a_playbook_that_is_for_no_host_of_ours_is_an_error(job: BuildJob) -> None:
    done = provision(job, "webservers", "ansible.builtin.debug:")
    assert done.code == 0
    assert records.read_result(job.work).status == "successful"
    request = records.read_request(job.work / "provision.json")
    with pytest.raises(ProvisionError, match="ran no task") as caught:
        packer_build.succeeded(job, request)
    assert caught.value.where == request.playbook
    assert "hosts: all" in (caught.value.hint or "")


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
