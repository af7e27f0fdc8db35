"""images.lock on two branches, merged by the real git."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory import lockfile, proc
from factory.digest import Digest, of_bytes
from factory.errors import LockError
from factory.model import Lock, LockedBase, LockedImage, Package

_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    **{f"GIT_{who}_{what}": "x@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def image(name: str, salt: str = "") -> LockedImage:
    """An image that has all in common with the others that images can: base, packages, templates, variables."""

    def of(text: str) -> Digest:
        return of_bytes(text.encode())

    return LockedImage(
        name, "amd64", of(f"{name}{salt}"), of(f"key {name}{salt}"), of("base"), of(f"tree {name}{salt}"),
        packages=tuple(Package(f"p{n:02}", "1", "amd64", of(f"p{n}")) for n in range(12)),
        inputs={key: of(key) for key in ("builder", "checks", "packages", "playbook", "template", "vars")},
        artifacts={"qcow2": of(f"qcow2 {name}{salt}")},
    )  # fmt: skip


def lock_of(*images: LockedImage) -> Lock:
    base = LockedBase("debian-12", "amd64", of_bytes(b""), (Package("apt", "2.6.1", "amd64", of_bytes(b"apt")),))
    return lockfile.with_entries(Lock(), [base, *images])


def merged(folder: Path, ancestor: Lock, ours: Lock, theirs: Lock, *, attributes: bool = True) -> Path:
    """Commit a lock, two branches of it, and merge them; the merged file."""

    def git(*arguments: str, check: bool = True) -> None:
        proc.run(["git", *arguments], cwd=folder, env=_ENV, check=check)

    def commit(lock: Lock) -> None:
        lockfile.write(path, lock)
        git("add", "--all")
        git("commit", "--quiet", "--allow-empty", "--message", "x")

    path = folder / "images.lock"
    git("init", "--quiet", "--initial-branch", "ours")
    if attributes:
        (folder / ".gitattributes").write_text(lockfile.ATTRIBUTES)
    commit(ancestor)
    git("branch", "theirs")
    commit(ours)
    git("checkout", "--quiet", "theirs")
    commit(theirs)
    git("checkout", "--quiet", "ours")
    git("merge", "--quiet", "--no-edit", "theirs", check=False)
    return path


@pytest.mark.parametrize(
    ("there", "ours", "theirs"),
    [
        ("aa zz", "bar", "baz"),
        ("aa zz", "baz", "bar"),
        ("aa", "b", "c"),
        ("zz", "b", "c"),
        ("", "b", "c"),
        ("aa mm zz", "b", "n"),
        ("aa zz", "b d f", "c e g"),
    ],
)
def test_merge_of_different_new_images_has_no_conflict(tmp_path: Path, there: str, ours: str, theirs: str) -> None:
    old = [image(name) for name in there.split()]
    left, right = ([image(name) for name in names.split()] for names in (ours, theirs))
    path = merged(tmp_path, lock_of(*old), lock_of(*old, *left), lock_of(*old, *right))
    assert lockfile.read(path) == lock_of(*old, *left, *right)


@pytest.mark.parametrize("attributes", [True, False])
def test_merge_of_rebaked_neighbours_has_no_conflict(tmp_path: Path, attributes: bool) -> None:
    a, b = image("a"), image("b")
    new_a, new_b = image("a", "2"), replace(image("b", "2"), packages=image("b").packages[1:], pins=())
    path = merged(tmp_path, lock_of(a, b), lock_of(new_a, b), lock_of(a, new_b), attributes=attributes)
    assert lockfile.read(path) == lock_of(new_a, new_b)


def test_merge_of_new_images_in_a_first_lock_has_no_conflict(tmp_path: Path) -> None:
    path = merged(tmp_path, Lock(), lock_of(image("a")), lock_of(image("b")))
    assert lockfile.read(path) == lock_of(image("a"), image("b"))


@pytest.mark.parametrize("attributes", [True, False])
def test_merge_of_one_image_baked_on_both_sides_is_refused_by_the_reader(tmp_path: Path, attributes: bool) -> None:
    sides = lock_of(image("a", "2")), lock_of(image("a", "3"))
    path = merged(tmp_path, lock_of(image("a")), *sides, attributes=attributes)
    with pytest.raises(LockError) as caught:
        lockfile.read(path)
    assert "factory lock --repair" in str(caught.value.hint)


def test_merge_of_pins_refreshed_on_both_sides_is_refused_by_the_reader(tmp_path: Path) -> None:
    pinned = [
        replace(image("a"), pins=(Package("p1", version, "amd64", of_bytes(version.encode())),)) for version in "23"
    ]
    path = merged(tmp_path, lock_of(image("a")), *map(lock_of, pinned))
    with pytest.raises(LockError):
        lockfile.read(path)
