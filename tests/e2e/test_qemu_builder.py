"""The qemu builder, and bases that are disks: a real guest provisioned over ssh, from a disk this factory baked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import workshop as workshops
from workshop import Workshop, gone_within

from factory import digest

pytestmark = pytest.mark.boots

GUEST = """\
- name: A booted machine
  hosts: all
  tasks:
    - name: Install a package through the proxy
      ansible.builtin.apt: {name: tree, update_cache: true}
    - name: Ask the init system, which a tree does not have
      ansible.builtin.command: systemctl is-active systemd-networkd
      changed_when: false
    - name: Write what only a machine knows
      ansible.builtin.copy: {dest: /etc/booted, content: "{{ ansible_facts.kernel }}\\n"}
"""
TREE = """\
- name: A tree taken out of a disk
  hosts: all
  gather_facts: false
  tasks:
    - name: Write something
      ansible.builtin.copy: {dest: /etc/said, content: "second\\n"}
"""
CHECK = "def test_kernel_was_running(host):\n    assert 'cloud' in host.file('/etc/booted').content_string\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    root = tmp_path_factory.mktemp("qemu")
    shop = workshops.set_up(root)
    images = (shop.root / "images.toml").read_text()
    shop.write("images.toml", images.partition("[image.child]")[0])
    done = shop.factory("bake", "--json")
    assert done.code == 0, done.err
    disk = root / "cloud.qcow2"
    disk.write_bytes(Path(done.images()["small"]["artifacts"]["qcow2"]["path"]).read_bytes())
    shop.write(
        "images.toml",
        (shop.root / "images.toml").read_text()
        + f'\n[base.cloud]\nkind = "disk"\narch = "amd64"\npath = "{disk}"\nsha256 = "{digest.of_file(disk)}"\n'
        + '[image.guest]\nbase = "cloud"\nbuilder = "qemu"\nplaybook = "playbooks/guest.yml"\n'
        + 'checks = ["checks/guest"]\n',
    )
    shop.write("playbooks/guest.yml", GUEST)
    shop.write("playbooks/tree.yml", TREE)
    shop.write("checks/guest/test_guest.py", CHECK)
    yield shop
    workshops.take_down(root)


def test_qemu_bakes_a_disk_base_end_to_end(shop: Workshop) -> None:
    done = shop.factory("bake", "guest", "--json")
    assert done.code == 0, done.err
    guest = done.images()["guest"]
    assert guest["status"] == "baked"
    assert set(guest["stages"]) == {"base", "provision", "seal", "disk", "verify", "record"}
    tasks = {task["task"]: task["outcome"] for task in shop.factory("logs", "--json").json["tasks"]}
    assert tasks["Install a package through the proxy"] in ("ok", "changed")
    assert gone_within(shop.processes)
    assert shop.factory("bake", "guest", "--json").json["run"] is None


def test_a_disk_base_with_the_wrong_sha256_is_refused(shop: Workshop) -> None:
    before = shop.lock
    text = (shop.root / "images.toml").read_text()
    shop.write("images.toml", text.replace('playbook = "playbooks/guest.yml"', 'playbook = "playbooks/tree.yml"'))
    disk = shop.root.parent / "cloud.qcow2"
    content = disk.read_bytes()
    cached = [path for path in (shop.root / ".factory/cache/disks").glob("*") if path.is_file()]
    disk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for path in cached:
        if path.read_bytes() == content:
            path.unlink()
    done = shop.factory("bake", "guest", "--json")
    assert done.code == 3
    error = done.images()["guest"]["error"]
    assert digest.of_bytes(content) in json.dumps(error)
    assert digest.of_file(disk) in json.dumps(error)
    assert shop.lock == before
    disk.write_bytes(content)
    shop.write("images.toml", text)


def test_a_guest_that_never_comes_up_is_a_clear_error(shop: Workshop) -> None:
    """A playbook takes the init away: the image cannot boot; nothing is recorded and the console is named."""
    text = (shop.root / "images.toml").read_text()
    broken = '\n[image.broken]\nbase = "cloud"\nplaybook = "playbooks/broken.yml"\nchecks = []\n'
    shop.write("images.toml", text + broken)
    shop.write(
        "playbooks/broken.yml",
        "- name: Break it\n  hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - name: Take the init away\n      ansible.builtin.command: rm /usr/lib/systemd/systemd /sbin/init\n",
    )
    before = shop.lock
    done = shop.factory("bake", "broken", "--json")
    assert done.code == 4, done.err
    error = done.images()["broken"]["error"]
    assert error["kind"] == "boot"
    assert "console.log" in error["where"]
    assert shop.lock == before
