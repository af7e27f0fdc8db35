"""What holds for every kind of base.

The bootstrap is a real one; its result is kept in the checkout's own cache, so that it is made once.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from factory import bases, digest, lockfile, namespace, proc
from factory.apt.proxy import AptProxy
from factory.bases import BaseContext, PreparedBase
from factory.digest import Digest, is_digest
from factory.disk import work
from factory.errors import SpecError
from factory.model import BaseSpec, Lock

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".factory/cache"


def make_disk(folder: Path) -> Path:
    """A disk with nothing but a small ext4 file system."""
    tree = folder / "small"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=small\n")
    (tree / "var/lib/dpkg/info").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_text(
        "Package: web\nStatus: install ok installed\nVersion: 1.0\nArchitecture: amd64\nSource: site (0.9)\n"
    )
    disk = folder / "small.raw"
    proc.run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(tree), str(disk), "16M"])
    return disk


@pytest.fixture(scope="session")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseSpec]:
    disk = make_disk(tmp_path_factory.mktemp("disk"))
    return {
        "debootstrap": BaseSpec("debian-12", "debootstrap", "amd64", suite="bookworm"),
        "disk": BaseSpec("small", "disk", "amd64", path=disk, sha256=digest.of_file(disk)),
    }


KINDS = ("debootstrap", "disk")


def test_every_kind_is_under_this_contract(specs: dict[str, BaseSpec]) -> None:
    assert set(bases.KINDS) == set(KINDS) == set(specs)


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, specs: dict[str, BaseSpec]) -> BaseSpec:
    return specs[request.param]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[BaseContext]:
    with AptProxy(CACHE / "apt") as proxy:
        yield BaseContext(CACHE, tmp_path / "work", proxy)


@pytest.fixture
def prepared(spec: BaseSpec, context: BaseContext) -> PreparedBase:
    return bases.prepare(spec, None, context)


def test_a_base_is_a_tree_with_its_record(spec: BaseSpec, context: BaseContext, prepared: PreparedBase) -> None:
    assert is_digest(prepared.locked.digest)
    assert (prepared.locked.name, prepared.locked.arch) == (spec.name, spec.arch)
    assert prepared.locked.packages == tuple(item.package for item in prepared.installed)
    assert prepared.locked.packages == tuple(sorted(prepared.locked.packages)) != ()
    assert all(is_digest(package.sha256) for package in prepared.locked.packages)
    with tarfile.open(prepared.tree) as tar:
        names = {member.name: member for member in tar}
    assert any(name in names for name in ("./etc/os-release", "./usr/lib/os-release"))
    assert {(names["./etc"].uid, names["./etc"].gid, names["./etc"].mode)} == {(0, 0, 0o755)}
    assert not context.work.exists()


def test_the_tar_is_the_tree_with_that_digest(prepared: PreparedBase, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    try:
        work.unpack(prepared.tree, tree, prepared.tree_digest)  # refuses another
        assert tree.is_dir()
    finally:
        namespace.remove(tree)


def test_what_is_locked_can_be_written_to_the_lock(prepared: PreparedBase) -> None:
    lock = Lock(bases={(prepared.locked.name, prepared.locked.arch): prepared.locked})
    assert lockfile.loads(lockfile.dumps(lock)) == lock


@pytest.mark.parametrize("locked", [True, False])
def test_a_second_time_nothing_is_done_and_no_network_is_needed(
    spec: BaseSpec, context: BaseContext, prepared: PreparedBase, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with AptProxy(CACHE / "apt") as proxy:
        offline = replace(context, proxy=proxy)
        again = bases.prepare(spec, prepared.locked if locked else None, offline)
        assert again == replace(prepared, cached=True)
        assert bases.prepare(spec, prepared.locked, offline, refresh=True) == again
        assert proxy.misses == []


def test_the_recipe_tells_specs_apart(spec: BaseSpec, specs: dict[str, BaseSpec]) -> None:
    others = [replace(spec, sha256=Digest("sha256:" + "0" * 64))] if spec.kind == "disk" else []
    if spec.kind == "debootstrap":
        others = [replace(spec, suite="trixie"), replace(spec, include=("curl",)), replace(spec, arch="arm64")]
    assert bases.recipe(spec) == bases.recipe(replace(spec, name="renamed"))
    assert bases.recipe(spec) not in {bases.recipe(other) for other in others}


def test_an_unknown_kind_lists_those_there_are(specs: dict[str, BaseSpec]) -> None:
    with pytest.raises(SpecError, match="'ami'") as raised:
        bases.recipe(replace(specs["disk"], kind="ami"))
    assert raised.value.hint == "there are: debootstrap, disk"
    assert raised.value.where == "images.toml: base.small.kind"
