"""A factory of many images that are all baked already, made through the product's own code, and how long it then takes.

Each image has a playbook and a role of its own and adds packages to its parent; one in four is layered on another.
Inputs and keys are computed by `factory.bake`, the lock is written by `factory.lockfile`, each artifact is a small file
in the store, and each image has a ticket that is really signed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks import clock
from benchmarks.deploy import Signed
from benchmarks.scratch import FACTORY, REPOSITORY
from factory import digest, lockfile, proc, spec
from factory.bake import assess
from factory.digest import Digest
from factory.errors import ToolError
from factory.model import FactorySpec, ImageSpec, Layout, Lock, LockedBase, LockedImage, Package
from factory.store import Store
from factory.trust import ticket

BASE_PACKAGES = 160
IMAGE_PACKAGES = 25
_PATIENCE_S = 60  # longer only where something is baked after all

_TASKS = """---
- name: Install what {name} needs
  ansible.builtin.apt:
    name: package-{name}
    update_cache: true

- name: Configure it
  ansible.builtin.template:
    src: settings.j2
    dest: /etc/{name}.conf
    mode: "0644"
"""


def make(root: Path, count: int) -> Layout:
    """A factory in `root` whose `count` images are all baked and unchanged."""
    layout = Layout(root)
    root.mkdir(parents=True)
    proc.run(["cp", "-a", "--", str(REPOSITORY / "templates"), str(root)])
    names = [f"image-{number:03}" for number in range(count)]
    layout.spec.write_text(_images_toml(names))
    for name in names:
        _write_role(root, name)
    factory = spec.load(root)
    base = LockedBase("debian-12", "amd64", _digest("base"), tuple(_packages("base", BASE_PACKAGES)))
    lock = Lock(bases={("debian-12", "amd64"): base})
    for image in assess.with_ancestors(factory, spec.select(factory)):
        lock = lockfile.with_entries(lock, [_locked(layout, factory, image, lock)])
    lockfile.write(layout.lock, lock)
    signed = Signed()
    layout.tickets.mkdir(parents=True)
    layout.policy.write_text(signed.toml)
    layout.revocations.write_bytes(signed.revocations())
    for locked in lock.images.values():
        path = layout.tickets / f"{locked.name}-{locked.arch}.jsonl"
        path.write_bytes(ticket.dumps([signed.ticket(locked, len(f"{locked.name} disk"))]))
    return layout


def bake_s(layout: Layout, count: int, times: int) -> float:
    """Seconds that `factory bake` takes over them, nothing being changed (median). Raises ToolError where one is."""
    argv = [*FACTORY, "-C", str(layout.root), "bake"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    if said.returncode != 0 or f"{count} unchanged" not in said.stderr:
        raise ToolError(f"the {count} images should be unchanged:\n{said.stderr[-2000:]}")
    return process_s(argv, times)


def process_s(argv: list[str], times: int) -> float:
    """Seconds that a program takes from start to end (median)."""
    return clock.median_time(times, lambda: subprocess.run(argv, capture_output=True, check=True))


def _images_toml(names: list[str]) -> str:
    text = '[base.debian-12]\nkind = "debootstrap"\nsuite = "bookworm"\narch = "amd64"\n'
    for number, name in enumerate(names):
        base = f"image:{names[number - 1]}" if number % 4 == 3 else "debian-12"
        text += f'\n[image.{name}]\nbase = "{base}"\nplaybook = "playbooks/{name}.yml"\n'
        text += f"vars = {{ port = {8000 + number} }}\n"
    return text


def _write_role(root: Path, name: str) -> None:
    role = root / "playbooks" / "roles" / name
    for path, text in (
        (root / "playbooks" / f"{name}.yml", f"---\n- hosts: all\n  roles:\n    - {name}\n"),
        (role / "tasks" / "main.yml", _TASKS.format(name=name)),
        (role / "defaults" / "main.yml", "---\nport: 80\n"),
        (role / "templates" / "settings.j2", "port = {{ port }}\n"),
        (role / "checks" / f"test_{name.replace('-', '_')}.py", "def test_it(host):\n    assert host\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _locked(layout: Layout, factory: FactorySpec, image: ImageSpec, lock: Lock) -> LockedImage:
    """What a bake of `image` would have recorded, its parent being as the lock says."""
    packages = tuple(_packages(image.name, IMAGE_PACKAGES))
    inputs = assess.one_image(layout, factory, image, lock, forced=False).inputs.with_packages(packages)
    base = assess.base_digest(image, lock)
    assert base is not None
    store = Store(layout.store)
    artifact, tree = (store.put_bytes(f"{image.name} {part}".encode()) for part in ("disk", "manifest"))
    return LockedImage(
        image.name, image.arch, _digest(image.name), inputs.bake_key, base, tree, packages,
        inputs=inputs.digests, artifacts={"qcow2": artifact},
    )  # fmt: skip


def _packages(owner: str, count: int) -> list[Package]:
    return [Package(f"{owner}-{n:03}", "1.0-1", "amd64", _digest(f"{owner} {n}")) for n in range(count)]


def _digest(of: str) -> Digest:
    return digest.of_bytes(of.encode())
