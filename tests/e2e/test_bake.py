"""A bake from images.toml to the lock, and everything that may happen to it, with the real tools.

The tests of this file go on from one another's state: one workshop, in order, so that few guests are booted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import workshop as workshops
from workshop import FIXTURES, SECRET, Workshop, gone_within

from factory import store
from factory.disk import formats

pytestmark = pytest.mark.boots


LEAKY = """\
- name: Leaky
  hosts: all
  gather_facts: false
  tasks:
    - name: Leak
      ansible.builtin.copy:
        dest: /opt/leak
        content: "{{ lookup('env', 'E2E_TOKEN') | b64encode }}"
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    root = tmp_path_factory.mktemp("bake")
    yield workshops.set_up(root)
    workshops.take_down(root)


def _images(shop: Workshop) -> dict[str, dict[str, object]]:
    return {image["name"]: image for image in tomllib.loads(shop.lock)["image"]}


def _leftovers(shop: Workshop) -> list[str]:
    """What must not be there between runs: mounts, and files of a bake other than finished stages."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(shop.root) in line]
    work = shop.root / ".factory/work"
    files = [str(path) for path in work.glob("*/*") if path.name not in ("stages.json", "kept")]
    return [*mounts, *files, *shop.processes()]


# --- from nothing to the lock


def test_a_missing_secret_is_said_before_any_work(shop: Workshop) -> None:
    done = Workshop(shop.root, {}).factory("bake", "small", "--json")
    assert done.code == 2
    assert "E2E_TOKEN is not given" in done.images()["small"]["error"]["message"]
    assert shop.lock == ""


def test_bake_makes_verifies_and_records_both_images(shop: Workshop) -> None:
    done = shop.factory("bake", "--json", "-j", "2")
    assert done.code == 0, done.err
    images = done.images()
    assert {name: image["status"] for name, image in images.items()} == {"small": "baked", "child": "baked"}
    locked = _images(shop)
    assert locked["child"]["base"] == locked["small"]["digest"] == images["small"]["digest"]
    for name, image in images.items():
        assert locked[name]["bake-key"] == image["bake_key"]
        artifact = image["artifacts"]["qcow2"]
        assert formats.raw_digest(Path(artifact["path"]), "qcow2") == image["digest"]
        assert Path(artifact["path"]).stat().st_mode & 0o222 == 0
        assert set(image["stages"]) == {"base", "provision", "seal", "disk", "verify", "record"}
    assert any(package.startswith("tree ") for package in locked["small"]["packages"])  # type: ignore[attr-defined]
    assert locked["child"]["packages"] == []
    assert _leftovers(shop) == []


def test_ansible_ran_below_packer(shop: Workshop) -> None:
    journals = "".join(path.read_text() for path in (shop.root / ".factory/runs").glob("*/journal.jsonl"))
    assert re.search(r'"event": "provisioned".*"via": \["sh", "packer"', journals)


def test_logs_tell_tasks_and_checks_and_no_secret(shop: Workshop) -> None:
    done = shop.factory("logs", "--json")
    told = done.json
    assert {"Write the motto", "Say something"} <= {task["task"] for task in told["tasks"]}
    assert {check["outcome"] for check in told["checks"]} == {"passed"}
    child = {check["test"] for check in told["checks"] if check["image"] == "child"}
    assert "small: test_package_is_there" in child, "a child runs its ancestors' checks"
    assert any(path.endswith("junit.xml") for path in told["files"])
    for path in (shop.root / ".factory").rglob("*"):
        if path.is_file() and "cache" not in path.parts and "store" not in path.parts:
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in shop.factory("logs").out


def test_second_bake_has_nothing_to_do(shop: Workshop) -> None:
    before, runs = shop.lock, len(list((shop.root / ".factory/runs").iterdir()))
    done = shop.factory("bake", "--json")
    assert done.code == 0
    assert {image["status"] for image in done.json["images"]} == {"unchanged"}
    assert done.json["run"] is None
    assert (shop.lock, len(list((shop.root / ".factory/runs").iterdir()))) == (before, runs)
    assert shop.factory("lock", "--check").code == 0


# --- what changes what


def test_a_changed_task_bakes_that_image_only_and_why_names_the_file(shop: Workshop) -> None:
    before = _images(shop)
    shop.replace("playbooks/child.yml", "first", "second")
    assert shop.factory("lock", "--check").code == 5
    changed = shop.factory("why", "child", "--json").json["changed"]
    assert [(change["input"], change["path"]) for change in changed] == [("playbook", "playbooks/child.yml")]
    assert shop.factory("why", "small", "--json").json["changed"] == []
    done = shop.factory("bake", "--json")
    assert {name: image["status"] for name, image in done.images().items()} == {"small": "unchanged", "child": "baked"}
    assert done.images()["child"]["reasons"] == ["playbook changed"]
    assert _images(shop)["small"] == before["small"]
    assert _images(shop)["child"]["digest"] != before["child"]["digest"]


def test_a_failing_check_exits_4_and_records_nothing(shop: Workshop) -> None:
    before = shop.lock
    shop.write("checks/child/test_more.py", "def test_never(host):\n    assert host.file('/nowhere').exists\n")
    done = shop.factory("bake", "--json")
    assert done.code == 4
    error = done.images()["child"]["error"]
    assert "test_never" in error["message"]
    assert "console.log" in error["message"]
    assert "screen.png" in error["message"]
    assert done.images()["small"]["status"] == "unchanged"
    assert shop.lock == before


def test_changed_checks_verify_without_baking(shop: Workshop) -> None:
    before = _images(shop)["child"]
    shop.write("checks/child/test_more.py", "def test_now_it_does(host):\n    assert host.file('/etc/said').exists\n")
    done = shop.factory("bake", "--json")
    assert done.code == 0, done.err
    child = done.images()["child"]
    assert (child["status"], child["digest"]) == ("verified", before["digest"])
    assert set(child["stages"]) == {"verify", "record"}
    assert _images(shop)["child"]["inputs"] != before["inputs"]
    assert {**_images(shop)["child"], "inputs": 0} == {**before, "inputs": 0}


# --- when something is not there


def test_a_missing_artifact_is_fetched_from_the_shared_store(shop: Workshop) -> None:
    local = store.Store(shop.root / ".factory/store")
    native = _images(shop)["child"]["artifacts"]["qcow2"]  # type: ignore[index]
    local.remove(native)
    done = shop.factory("bake", "--json")
    assert (done.code, done.images()["child"]["status"]) == (0, "unchanged")
    assert done.images()["child"]["reasons"][-1] == "fetched"
    assert local.has(native)


def test_a_bake_offline_gives_the_same_bytes_from_the_artifacts_tree(shop: Workshop) -> None:
    """No network, the shared store empty, the artifact gone, and the parent's tree no longer cached."""
    before = _images(shop)["child"]
    local = store.Store(shop.root / ".factory/store")
    local.remove(before["artifacts"]["qcow2"])  # type: ignore[index]
    subprocess.run(["rm", "-rf", str(shop.root.parent / "shared/sha256")], check=True)
    (shop.root / ".factory/cache/image-trees" / f"{str(_images(shop)['small']['tree'])[7:]}.tar").unlink()
    offline = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    done = shop.factory("bake", "--json", "--locked", prefix=offline)
    assert done.code == 0, done.err
    assert done.images()["child"]["status"] == "baked"
    assert _images(shop)["child"] == before, "the same inputs give the same bytes"


# --- when it goes wrong


def test_a_failing_playbook_is_shown_with_its_task_and_line(shop: Workshop) -> None:
    before = shop.lock
    shop.replace("playbooks/small.yml", "name: tree,", "name: no-such-package,")
    done = shop.factory("bake", "--json", "--keep-failed")
    assert done.code == 3
    small, child = done.images()["small"], done.images()["child"]
    assert small["error"]["kind"] == "provision"
    assert "Install a package" in small["error"]["message"]
    assert "no-such-package" in small["error"]["message"]
    assert re.search(r"playbooks/small.yml:\d+$", small["error"]["where"])
    assert (child["status"], child["reasons"]) == ("skipped", ["its parent small failed"])
    assert SECRET not in done.out + done.err
    assert shop.lock == before
    enter = small["error"]["hint"].partition(": ")[2]
    inside = subprocess.run(
        ["sh", "-c", f"printf 'cat /etc/motto; exit\\n' | {enter}"], capture_output=True, text=True, env=shop.env
    )
    assert "${braces}" in inside.stdout
    shop.replace("playbooks/small.yml", "no-such-package", "tree")
    assert shop.factory("bake", "--json").images()["small"]["status"] == "unchanged"
    assert _leftovers(shop) == []


def test_a_template_without_the_provisioner_bakes_nothing(shop: Workshop) -> None:
    """Packer is no ornament: take the provisioner out of its template and there is no bake."""
    template = "templates/rootfs.pkr.hcl.j2"
    text = (shop.root / template).read_text()
    without = re.sub(r"  provisioner .*?\n  \}\n", "", text, flags=re.DOTALL)
    assert without != text
    shop.write(template, without)
    done = shop.factory("bake", "small", "--json")
    assert done.code == 3
    assert "nothing was provisioned" in done.images()["small"]["error"]["message"]
    shop.write(template, text.replace("communicator", "comunicator"))
    done = shop.factory("bake", "small", "--json")
    assert done.code == 2
    assert "comunicator" in done.images()["small"]["error"]["message"]
    shop.write(template, text.replace("<{ manifest }>", "<{ manifesto }>"))
    done = shop.factory("bake", "small", "--json")
    assert done.code == 2
    assert "manifesto" in done.images()["small"]["error"]["message"]
    shop.write(template, text)


def test_a_full_disk_is_said_and_nothing_is_half_written(shop: Workshop) -> None:
    before = shop.lock
    work = shop.root / ".factory/work"
    small_disk = f'mount -t tmpfs -o size=200m tmpfs {work} && exec "$@"'
    done = shop.factory(
        "bake", "child", "--force", "--json", prefix=("unshare", "--mount", "--", "sh", "-c", small_disk, "sh")
    )
    assert done.code == 3
    assert "No space left" in done.images()["child"]["error"]["message"]
    assert shop.lock == before


def test_an_image_that_holds_a_secret_is_refused_and_destroyed(shop: Workshop) -> None:
    """Not even a run with another secret goes on with what was made of the leaked one."""
    before = shop.lock
    shop.write("playbooks/leak.yml", LEAKY)
    images = (shop.root / "images.toml").read_text()
    leaky = '\n[image.leaky]\nbase = "debian-12"\nplaybook = "playbooks/leak.yml"\nchecks = []\n'
    shop.write("images.toml", images + leaky + 'secrets = ["E2E_TOKEN"]\n')
    stored = set((shop.root / ".factory/store/sha256").iterdir())
    done = shop.factory("bake", "leaky", "--json")
    assert done.code == 4, done.err
    message = done.images()["leaky"]["error"]["message"]
    assert "secrets-absent" in message
    assert "E2E_TOKEN" in message
    assert SECRET not in done.out + done.err
    assert shop.lock == before
    assert set((shop.root / ".factory/store/sha256").iterdir()) == stored, "the leaked bytes are gone"
    stages = json.loads((shop.root / ".factory/work/leaky-amd64/stages.json").read_text())
    assert stages["done"] == {}
    shop.write("images.toml", images)


# --- kill -9, Ctrl-C, two at once


def test_kill_9_at_every_stage_leaves_nothing_and_the_next_run_goes_on(shop: Workshop) -> None:
    before = shop.lock
    shop.replace("playbooks/child.yml", "second", "first")
    for stage in ("base", "provision", "seal", "disk", "verify"):
        process = shop.start("bake", "child", "--json")
        shop.wait_for_stage("child", stage, process)
        if stage == "verify":  # until there is something that the next run has to clean up
            shop.wait_for_file(".factory/work/child-amd64/verify", process)
        process.kill()
        process.communicate()
        assert gone_within(shop.processes), f"{stage}: {shop.processes()}"
        assert shop.lock == before, stage
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(shop.root) in line]
    assert mounts == []
    done = shop.factory("bake", "--json")
    assert done.code == 0, done.err
    child = done.images()["child"]
    assert child["status"] == "baked"
    assert not {"provision", "seal", "disk"} & set(child["stages"]), "these had finished before the last kill"
    assert any("cleaned up after a run of child" in note for note in done.json["notes"])
    assert _leftovers(shop) == []


def test_two_runs_at_once_one_waits_or_conflicts(shop: Workshop) -> None:
    shop.replace("playbooks/child.yml", "first", "second")
    first = shop.start("bake", "child", "--json")
    shop.wait_for_stage("child", "provision", first)
    refused = shop.factory("bake", "child", "--no-wait", "--json")
    assert refused.code == 7
    assert refused.images()["child"]["error"]["kind"] == "conflict"
    second = shop.start("bake", "child", "--json")
    out, err = first.communicate(timeout=workshops.DEADLINE_S)
    assert first.returncode == 0, err
    assert '"status": "baked"' in out
    out, err = second.communicate(timeout=workshops.DEADLINE_S)
    assert second.returncode == 0, err
    assert '"status": "unchanged"' in out
    assert '"status": "baked"' not in out


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_an_interrupt_is_tidy(shop: Workshop, sign: signal.Signals) -> None:
    before = shop.lock
    process = shop.start("bake", "child", "--force", "--json")
    shop.wait_for_stage("child", "provision", process)
    if sign is signal.SIGINT:
        workshops.interrupt(process)
    else:
        os.kill(process.pid, sign)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert '"kind": "interrupted"' in out
    assert "Traceback" not in err
    assert gone_within(shop.processes)
    assert shop.lock == before
    assert _leftovers(shop) == []


# --- roles written for machines


def test_a_community_role_runs_as_it_is_and_cannot_reach_the_host(shop: Workshop) -> None:
    settings = [Path("/proc/sys/vm/swappiness"), Path("/proc/sys/net/core/somaxconn")]
    before = [path.read_text() for path in settings]
    subprocess.run(["cp", "-r", str(FIXTURES / "roles"), str(shop.root / "playbooks")], check=True)
    shop.write("playbooks/community.yml", (FIXTURES / "community.yml").read_text())
    with (shop.root / "images.toml").open("a") as file:
        file.write('\n[image.community]\nbase = "debian-12"\nplaybook = "playbooks/community.yml"\n')
        file.write('ports = [22, 80]\nstate = ["/var/log", "/var/lib"]\nformats = ["raw", "vmdk"]\n')
    done = shop.factory("bake", "community", "--json")
    assert done.code == 0, done.err
    image = done.images()["community"]
    assert image["status"] == "baked"
    for format_, artifact in image["artifacts"].items():
        assert formats.raw_digest(Path(artifact["path"]), format_) == image["digest"]
    assert [path.read_text() for path in settings] == before


# --- what is done with baked images


def test_verify_and_boot_leave_the_image_as_it_was(shop: Workshop) -> None:
    before = shop.lock
    done = shop.factory("verify", "small", "--json")
    assert done.code == 0, done.err
    assert done.json["passed"]
    assert {"sealed", "nothing-written-outside-state"} <= {check["name"] for check in done.json["checks"]}
    process = shop.start("boot", "small", "--json")
    assert process.stderr is not None
    said = ""
    while "nothing done in it is kept" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    command = next(line.strip() for line in said.splitlines() if line.strip().startswith("ssh "))
    inside = subprocess.run(
        f"{command} 'touch /etc/touched; cat /etc/motto'", shell=True, capture_output=True, text=True
    )
    assert "${braces}" in inside.stdout, inside.stderr
    workshops.interrupt(process)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert json.loads(out)["ssh"] == shlex.split(command)
    assert gone_within(shop.processes)
    assert shop.lock == before
    locked = _images(shop)["small"]
    artifact = store.Store(shop.root / ".factory/store").verify(locked["artifacts"]["qcow2"])  # type: ignore[index]
    assert formats.raw_digest(artifact, "qcow2") == locked["digest"]


def test_a_merge_conflict_is_refused_and_repaired_from_the_catalog(shop: Workshop) -> None:
    before = shop.lock
    shop.write("images.lock", before.replace("[[image]]", "<<<<<<< ours\n[[image]]", 1))
    refused = shop.factory("bake", "--json")
    assert refused.code == 5
    assert "lock --repair" in refused.json["error"]["hint"]
    assert shop.factory("lock", "--repair").code == 0
    assert shop.lock == before


def test_refresh_of_what_has_not_moved_changes_nothing(shop: Workshop) -> None:
    before = shop.lock
    done = shop.factory("lock", "--refresh", "--json")
    assert done.code == 0, done.err
    assert (shop.lock == before) == (done.json["changes"] == [])


def test_prune_drops_what_is_gone_from_images_toml(shop: Workshop) -> None:
    shop.write("images.toml", (shop.root / "images.toml").read_text().partition("[image.child]")[0])
    assert "child" in shop.factory("lock", "--check").out
    assert shop.factory("bake", "--json").json["run"] is None, "an image that is gone stays until it is pruned"
    assert "child" in _images(shop)
    assert "dropped child/amd64" in shop.factory("lock", "--prune").out
    assert set(_images(shop)) == {"small"}
