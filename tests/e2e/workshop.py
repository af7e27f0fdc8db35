"""A factory to try things in: two small images on the project's own base, and the command line to bake them with.

The bootstrapped base and the packages are taken from the cache of this checkout, so that only the first run of the
suite bootstraps; everything else (store, catalog, lock, runs) is the workshop's own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory import namespace

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / ".factory/cache"
FIXTURES = Path(__file__).parent / "fixtures"
SECRET = "e2e-secret-value-0123456789"
DEADLINE_S = 900

IMAGES = """\
[store]
url = "file:{shared}"

[base.debian-12]
kind = "debootstrap"
suite = "bookworm"
arch = "amd64"

[image.small]
base = "debian-12"
playbook = "playbooks/small.yml"
vars = {{ motto = 'quotes " and ${{braces}} and {{{{ templates }}}}' }}
checks = ["checks/small"]
secrets = ["E2E_TOKEN"]

[image.child]
base = "image:small"
playbook = "playbooks/child.yml"
checks = ["checks/child"]
"""
SMALL = """\
- name: Small
  hosts: all
  gather_facts: false
  tasks:
    - name: Write the motto
      ansible.builtin.copy: {dest: /etc/motto, content: "{{ motto }}"}
    - name: Use the secret and leave nothing of it
      ansible.builtin.shell: test "$TOKEN" = e2e-secret-value-0123456789
      environment: {TOKEN: "{{ lookup('env', 'E2E_TOKEN') }}"}
      changed_when: false
    - name: Install a package
      ansible.builtin.apt: {name: tree, update_cache: true}
"""
CHILD = """\
- name: Child
  hosts: all
  gather_facts: false
  tasks:
    - name: Say something
      ansible.builtin.copy: {dest: /etc/said, content: "first\\n"}
"""
CHECK_SMALL = """\
def test_motto_is_what_images_toml_says(host):
    assert host.file("/etc/motto").content_string == 'quotes " and ${braces} and {{ templates }}'


def test_package_is_there(host):
    assert host.package("tree").is_installed
"""
CHECK_CHILD = """\
def test_it_says_something(host):
    assert host.file("/etc/said").content_string in ("first\\n", "second\\n")
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def images(self) -> dict[str, dict[str, Any]]:
        """The `images` of a bake's document, by name."""
        return {image["name"]: image for image in self.json["images"]}


@dataclass(frozen=True)
class Workshop:
    """A factory in a folder, driven through the real command line."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=lambda: {"E2E_TOKEN": SECRET})

    def factory(self, *arguments: str, prefix: tuple[str, ...] = (), timeout_s: float = DEADLINE_S) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            [*prefix, *self.command(*arguments)], capture_output=True, text=True, env=self.env, timeout=timeout_s
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command, in a session of its own as a terminal would."""
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env,
            start_new_session=True,
        )  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from factory.cli import main; main()", "-C", str(self.root), *arguments]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(PROJECT), **self.environment}

    @property
    def lock(self) -> str:
        path = self.root / "images.lock"
        return path.read_text() if path.exists() else ""

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def wait_for_stage(self, image: str, stage: str, process: subprocess.Popen[str]) -> None:
        """Wait until the journal of the run that `process` is says that an image has entered a stage."""
        ends_at = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends_at:
            for journal in (self.root / ".factory/runs").glob("*/journal.jsonl"):
                lines = filter(lambda line: line.endswith("}"), journal.read_text().splitlines())
                events = [json.loads(line) for line in lines]
                if events and events[0].get("pid") == process.pid and _entered(events, image, stage):
                    return
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        raise AssertionError(f"{image} never came to {stage}")

    def wait_for_file(self, path: str, process: subprocess.Popen[str]) -> None:
        """Wait until `process` has made `path`."""
        ends_at = time.monotonic() + DEADLINE_S
        while not (self.root / path).exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < ends_at, f"{path} never came"
            time.sleep(0.02)

    def processes(self) -> list[str]:
        """The command lines of all processes that have to do with this factory."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if str(self.root) in line and int(folder.name) != os.getpid():
                found.append(line)
        return found


def _entered(events: list[dict[str, Any]], image: str, stage: str) -> bool:
    return any(
        event["event"] == "stage" and event["image"].startswith(f"{image}-") and event["stage"] == stage
        for event in events
    )


def set_up(root: Path) -> Workshop:
    """A new workshop in `root`."""
    shared = root / "shared"
    shared.mkdir(parents=True)
    workshop = Workshop(root / "factory")
    for name, text in {
        "images.toml": IMAGES.format(shared=shared),
        "playbooks/small.yml": SMALL,
        "playbooks/child.yml": CHILD,
        "checks/small/test_small.py": CHECK_SMALL,
        "checks/child/test_child.py": CHECK_CHILD,
    }.items():
        workshop.write(name, text)
    shutil.copytree(PROJECT / "templates", workshop.root / "templates")
    CACHE.mkdir(parents=True, exist_ok=True)
    (workshop.root / ".factory").mkdir()
    (workshop.root / ".factory/cache").symlink_to(CACHE)
    return workshop


def take_down(root: Path) -> None:
    """Remove a workshop, whoever owns what is in it."""
    namespace.remove(root)


def gone_within(processes: Any, seconds: float = 60) -> bool:
    """Whether a list of processes becomes empty."""
    for _ in range(int(seconds * 5)):
        if not processes():
            return True
        time.sleep(0.2)
    return False


def interrupt(process: subprocess.Popen[str]) -> None:
    """What Ctrl-C does: SIGINT to everything in the terminal's foreground."""
    os.killpg(process.pid, signal.SIGINT)
