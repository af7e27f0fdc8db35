"""Tiny images for fleets in tests, baked by the factory like any others: they serve HTTP ten seconds after a start.

The factory that bakes them lies in this checkout's cache and stays there: while nothing that they are made of changes,
baking them again takes a second.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from factory import files
from factory.digest import Digest
from factory.rollout.model import Image

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / ".factory/cache"
FIXTURES = Path(__file__).parent / "fixtures/tiny"
DEADLINE_S = 1400

BASE = """\
[base.debian-12]
kind = "debootstrap"
suite = "bookworm"
arch = "amd64"
"""
IMAGE = """
[image.{name}]
base = "debian-12"
playbook = "playbooks/tiny.yml"
vars = {{ greeting = "{greeting}", status = {status} }}
state = ["/var/log"]
ports = [22, 80]
skip_checks = ["test_address_comes_by_dhcp"]
disk_mib = 1024
"""
IMAGES = {"tiny-one": ("one", 200), "tiny-two": ("two", 200), "tiny-broken": ("broken", 500)}
"""Name -> what it greets with, and the status it answers with."""


def bake(*names: str) -> dict[str, Image]:
    """The images of these names, baked if they are not yet."""
    root = CACHE / "tests/tiny"
    with files.exclusive(CACHE / "tests/tiny.lock"):
        set_up(root)
        argv = [sys.executable, "-c", "from factory.cli import main; main()", "-C", str(root), "bake", *names, "--json"]
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return {told["name"]: _image(told) for told in json.loads(done.stdout)["images"]}


def set_up(root: Path) -> None:
    """Lay out the factory, or bring it to what is in the checkout."""
    (root / ".factory").mkdir(parents=True, exist_ok=True)
    text = BASE + "".join(
        IMAGE.format(name=name, greeting=greeting, status=status) for name, (greeting, status) in IMAGES.items()
    )
    (root / "images.toml").write_text(text)
    for name, source in {"templates": PROJECT / "templates", "playbooks": FIXTURES}.items():
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(source, root / name)
    shutil.copytree(PROJECT / "playbooks/roles/base", root / "playbooks/roles/base")
    if not (root / ".factory/cache").is_symlink():
        (root / ".factory/cache").symlink_to(CACHE)


def _image(told: dict[str, Any]) -> Image:
    return Image(told["name"], told["arch"], Digest(told["digest"]), {"local": told["artifacts"]["qcow2"]["path"]})
