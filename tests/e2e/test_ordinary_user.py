"""A whole bake as an ordinary user with subuids: user namespaces instead of root, and kill -9 there too.

As root this makes a user to be; as an ordinary user the other tests of this folder are this test already.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import workshop as workshops
from workshop import CACHE, PROJECT, Workshop, gone_within

pytestmark = [
    pytest.mark.boots,
    pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite runs as an ordinary user already"),
]

USER = "factory-e2e"
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class UserShop(Workshop):
    """A workshop of another user's, who has a Python of its own with our packages copied in."""

    python: str = ""

    def command(self, *arguments: str) -> list[str]:
        inner = [self.python, "-c", "from factory.cli import main; main()", "-C", str(self.root), *arguments]
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--", *inner]

    @property
    def env(self) -> dict[str, str]:
        entry = pwd.getpwnam(USER)
        return {"PATH": "/usr/bin:/bin", "HOME": entry.pw_dir, "USER": USER, "LANG": "C.UTF-8", **self.environment}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserShop]:
    made = _make_user()
    root = Path("/var/tmp") / f"factory-e2e-{os.getpid()}"  # where another user can go, unlike pytest's folders
    try:
        workshop = workshops.set_up(root)
        _own_cache(workshop)
        python = _own_python(root)
        subprocess.run(["chown", "-R", f"{USER}:", str(root)], check=True)
        yield UserShop(workshop.root, workshop.environment, python)
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)
        if made:
            subprocess.run(["userdel", "--remove", USER], check=True, capture_output=True)


def _make_user() -> bool:
    """See that the user is there, with subuids; whether it had to be made."""
    made = False
    try:
        pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
        made = True
    for name in ("/etc/subuid", "/etc/subgid"):
        path = Path(name)
        if f"{USER}:" not in (path.read_text() if path.exists() else ""):
            with path.open("a") as file:
                file.write(f"{USER}:1000000:65536\n")
    return made


def _own_cache(workshop: Workshop) -> None:
    """The user's own copy of what is cached: another user's files are not for it to lock or write."""
    cache = workshop.root / ".factory/cache"
    cache.unlink()
    cache.mkdir()
    for name in ("apt", "trees"):
        if (CACHE / name).exists():
            subprocess.run(["cp", "-r", "--reflink=auto", str(CACHE / name), str(cache)], check=True)


def _own_python(root: Path) -> str:
    """A Python that the user can run: the system's, with copies of our packages."""
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
    packages = next((root / "venv/lib").glob("python3*/site-packages"))
    assert packages.parent.name == f"python3.{sys.version_info.minor}", "compiled packages fit one version of Python"
    installed = next(path for path in map(Path, sys.path) if (path / "ansible").is_dir())
    subprocess.run(["cp", "-r", f"{installed}/.", str(packages)], check=True)
    for editable in packages.glob("__editable__*factory*"):
        editable.unlink()
    shutil.copytree(
        PROJECT / "factory", packages / "factory", ignore=shutil.ignore_patterns("role", "templates", "__pycache__")
    )
    script = root / "venv/bin/ansible-playbook"
    script.write_text(f"#!{root}/venv/bin/python\nfrom ansible.cli.playbook import main\n\nmain()\n")
    script.chmod(0o755)
    return str(root / "venv/bin/python")


def test_kill_9_while_provisioning_leaves_nothing(shop: UserShop) -> None:
    process = shop.start("bake", "small", "--json")
    shop.wait_for_stage("small", "provision", process)
    time.sleep(3)
    # The process we started became the factory itself: setpriv executes it.
    process.kill()
    process.communicate()
    assert gone_within(shop.processes), shop.processes()
    assert shop.lock == ""


def test_bake_as_an_ordinary_user(shop: UserShop) -> None:
    done = shop.factory("bake", "small", "--json")
    assert done.code == 0, done.err
    small = done.images()["small"]
    assert small["status"] == "baked"
    assert any("cleaned up" in note for note in done.json["notes"])
    owners = {path.stat().st_uid for path in (shop.root / ".factory").rglob("*")}
    assert owners == {pwd.getpwnam(USER).pw_uid}, "nothing of a subuid is left"
    assert gone_within(shop.processes)
    assert shop.factory("bake", "small", "--json").json["run"] is None


def test_doctor_as_an_ordinary_user(shop: UserShop) -> None:
    done = shop.factory("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.out)["findings"]}
    assert findings["namespaces (as an ordinary user)"]["ok"]
    assert done.code == 0
