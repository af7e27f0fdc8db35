"""Closures, keys and decisions: what makes an image be baked again, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import digest
from factory.apt.refresh import refreshed
from factory.bake import assess, closure, key, plan
from factory.digest import Digest
from factory.errors import SpecError
from factory.model import ImageSpec, Layout, LockedImage, Package

BASE = digest.of_bytes(b"base")
NGINX = Package("nginx-light", "1.22.1-9", "amd64", digest.of_bytes(b"nginx"))
IMAGE = ImageSpec("web", "amd64", "debian", False, "rootfs", "playbooks/web.yml", vars={"name": "x"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "templates/rootfs.pkr.hcl.j2": "t",
        "playbooks/web.yml": "- hosts: all\n  roles: [web, {role: dep}]\n  vars_files: [more.yml]\n",
        "playbooks/more.yml": "a: 1\n",
        "playbooks/unrelated.yml": "a: 1\n",
        "playbooks/group_vars/all.yml": "g: 1\n",
        "playbooks/roles/web/tasks/main.yml": "- include_role: {name: inner}\n- x.y.z: {}\n",
        "playbooks/roles/web/files/page.html": "hi\n",
        "playbooks/roles/web/meta/main.yml": "dependencies: [{role: metadep}]\n",
        "playbooks/roles/web/checks/test_web.py": "def test(): ...\n",
        "playbooks/roles/dep/tasks/main.yml": "- copy: {src: '{{ lookup(''file'', ''extra.txt'') }}', dest: /etc/x}\n",
        "playbooks/roles/dep/files/extra.txt": "e\n",
        "playbooks/roles/inner/tasks/main.yml": "[]\n",
        "playbooks/roles/metadep/tasks/main.yml": "[]\n",
        "playbooks/roles/other/tasks/main.yml": "[]\n",
        "playbooks/collections/ansible_collections/x/y/galaxy.yml": "version: 1.0.0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    _forget()
    return tmp_path


def _forget() -> None:
    closure.forget()


def _inputs(root: Path, image: ImageSpec = IMAGE, **changes: Any) -> key.Inputs:
    _forget()
    arguments = {"builder_version": 1, "base": {"digest": BASE}, "packages": (NGINX,), **changes}
    return key.collect(Layout(root), image, **arguments)


def _locked(inputs: key.Inputs) -> LockedImage:
    return LockedImage(
        "web",
        "amd64",
        digest.of_bytes(b"d"),
        inputs.bake_key,
        BASE,
        BASE,
        (NGINX,),
        None,
        inputs.digests,
        {"qcow2": BASE},
    )


def test_closure_follows_roles_files_collections_and_nothing_else(root: Path) -> None:
    found = closure.of_playbook(root, "playbooks/web.yml")
    names = {name.removeprefix("playbooks/") for name in found.files}
    assert names >= {
        "web.yml", "more.yml", "group_vars/all.yml", "roles/web/files/page.html", "roles/dep/files/extra.txt",
        "roles/inner/tasks/main.yml", "roles/metadep/tasks/main.yml", "collections/ansible_collections/x/y/galaxy.yml",
    }  # fmt: skip
    assert not names & {"unrelated.yml", "roles/other/tasks/main.yml", "roles/web/checks/test_web.py"}
    assert [role.name for role in found.roles] == ["web", "inner", "metadep", "dep"]


def test_templated_role_name_means_every_role(root: Path) -> None:
    (root / "playbooks/web.yml").write_text("- hosts: all\n  tasks:\n  - include_role: {name: '{{ x }}'}\n")
    assert {role.name for role in closure.of_playbook(root, "playbooks/web.yml").roles} >= {"other", "web", "dep"}


def test_missing_role_is_named_with_its_playbook(root: Path) -> None:
    (root / "playbooks/web.yml").write_text("- hosts: all\n  roles: [nope]\n")
    with pytest.raises(SpecError, match="no role nope") as caught:
        closure.of_playbook(root, "playbooks/web.yml")
    assert caught.value.where == "playbooks/web.yml"


@pytest.mark.parametrize(
    ("name", "text", "input_", "part"),
    [
        ("playbooks/roles/inner/tasks/main.yml", "- debug: {}\n", "playbook", "playbooks/roles/inner/tasks/main.yml"),
        ("playbooks/roles/web/files/page.html", "ho\n", "playbook", "playbooks/roles/web/files/page.html"),
        ("playbooks/roles/dep/files/extra.txt", "f\n", "playbook", "playbooks/roles/dep/files/extra.txt"),
        ("templates/rootfs.pkr.hcl.j2", "u", "template", "templates/rootfs.pkr.hcl.j2"),
    ],
)
def test_a_changed_file_changes_the_key_and_is_named(root: Path, name: str, text: str, input_: str, part: str) -> None:
    before = _inputs(root)
    (root / name).write_text(text)
    after = _inputs(root)
    assert after.bake_key != before.bake_key
    assert [(c.input, c.part) for c in plan.changes(after, _locked(before), before.parts)] == [(input_, part)]
    assert [(c.input, c.part) for c in plan.changes(after, _locked(before), None)] == [(input_, None)]
    decision = plan.decide(after, _locked(before), present=True, forced=False)
    assert decision == plan.Decision("bake", (f"{input_} changed",))


def test_checks_change_verifies_without_baking(root: Path) -> None:
    before = _inputs(root)
    (root / "playbooks/roles/web/checks/test_web.py").write_text("def test_more(): ...\n")
    after = _inputs(root)
    assert after.bake_key == before.bake_key
    assert plan.decide(after, _locked(before), present=True, forced=False).action == "verify"
    ports = _inputs(root, replace(IMAGE, ports=(22, 80)))
    assert plan.decide(ports, _locked(after), present=True, forced=False).action == "verify"


@pytest.mark.parametrize(
    ("change", "input_"),
    [
        ({"base": {"digest": digest.of_bytes(b"other")}}, "base"),
        ({"builder_version": 2}, "builder"),
        ({"packages": (replace(NGINX, version="1.22.1-10"),)}, "packages"),
        ({"image": replace(IMAGE, vars={"name": "y"})}, "vars"),
        ({"image": replace(IMAGE, disk_mib=3072)}, "disk"),
        ({"image": replace(IMAGE, formats=("raw",))}, "disk"),
    ],
)
def test_each_input_counts(root: Path, change: dict[str, Any], input_: str) -> None:
    before, after = _inputs(root), _inputs(root, **change)
    assert plan.changed_inputs(after, _locked(before)) == (input_,)
    assert after.bake_key != before.bake_key


def test_unchanged_absent_and_forced(root: Path) -> None:
    inputs = _inputs(root)
    locked = _locked(inputs)
    assert plan.decide(inputs, None, present=False, forced=False).action == "bake"
    assert plan.decide(inputs, locked, present=True, forced=False).action == "unchanged"
    assert plan.decide(inputs, locked, present=False, forced=False).action == "fetch"
    assert plan.decide(inputs, locked, present=True, forced=True).action == "bake"


def test_after_a_refresh_a_newer_package_bakes_the_image_that_installs_it_and_no_other(root: Path) -> None:
    newer = replace(NGINX, version="1.22.1-10", sha256=digest.of_bytes(b"newer"))
    web, hardened = _locked(_inputs(root)), _locked(_inputs(root, packages=()))
    hardened = replace(hardened, packages=())
    web, hardened = refreshed(web, {"nginx-light": newer}), refreshed(hardened, {})
    assert (web.pins, hardened.pins) == ((newer,), None)
    for locked, action in ((web, "bake"), (hardened, "unchanged")):
        inputs = _inputs(root, packages=assess.expected_packages(locked))
        decision = plan.decide(inputs, locked, present=True, forced=False)
        assert decision.action == action
    inputs = _inputs(root, packages=assess.expected_packages(web))
    (change,) = plan.changes(inputs, web, _inputs(root).parts)
    assert (change.input, change.part) == ("packages", "nginx-light:amd64")


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_key_is_a_function_of_the_parts(one: dict[str, str], other: dict[str, str]) -> None:
    first, second = key.Inputs({"vars": one}), key.Inputs({"vars": other})
    assert (first.bake_key == second.bake_key) == (one == other)
    assert key.Inputs({"vars": dict(reversed(one.items()))}).bake_key == first.bake_key
    assert key.Inputs({"vars": one, "checks": other}).bake_key == first.bake_key


def test_order_of_packages_does_not_matter(root: Path) -> None:
    other = Package("curl", "1", "amd64", Digest(BASE))
    assert _inputs(root, packages=(NGINX, other)).bake_key == _inputs(root, packages=(other, NGINX)).bake_key


def test_task_files_outside_roles_are_followed(root: Path) -> None:
    (root / "playbooks/tasks").mkdir()
    (root / "playbooks/web.yml").write_text("- hosts: all\n  tasks: [{import_tasks: tasks/x.yml}]\n")
    (root / "playbooks/tasks/x.yml").write_text("- include_role: {name: other}\n- include_tasks: y.yml\n")
    (root / "playbooks/tasks/y.yml").write_text("- name: " + "я" * 200 + "\n  debug: {}\n")
    (root / "playbooks/roles/other/files/checks").mkdir(parents=True)
    (root / "playbooks/roles/other/files/checks/data").write_text("x")
    closure.forget()
    names = {name.removeprefix("playbooks/") for name in closure.of_playbook(root, "playbooks/web.yml").files}
    assert {"tasks/x.yml", "tasks/y.yml", "roles/other/tasks/main.yml", "roles/other/files/checks/data"} <= names


def test_ansible_and_installed_collections_count_by_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _inputs(root)
    assert before.parts["playbook"]["ansible-core"].startswith("2.")
    (root / "playbooks/web.yml").write_text("- hosts: all\n  tasks: [{some.where.module: {}}]\n")
    assert _inputs(root).parts["playbook"]["collection some.where"] == "not installed"
    manifest = root / "lib/ansible_collections/some/where/MANIFEST.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"collection_info": {"version": "1.2.3"}}')
    monkeypatch.syspath_prepend(str(root / "lib"))
    closure._installed.cache_clear()
    parts = _inputs(root).parts["playbook"]
    assert parts["collection some.where"] == "1.2.3"
    assert parts["collection some.where: MANIFEST.json"] == closure.file_digest(manifest)
