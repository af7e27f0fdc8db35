"""Bootstraps: offline, from pins, with pins that are gone, and what is in the tree.

A bootstrap takes most of a minute: there is one in the checkout's own cache (shared with the contract tests, and with
the bakes of this repository), and one more here, which must come out the same.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from factory import bases
from factory.apt import pins
from factory.apt.proxy import AptProxy
from factory.bases import BaseContext, PreparedBase
from factory.digest import Digest
from factory.errors import BaseError, FactoryError, LockMismatchError, SpecError
from factory.model import BaseSpec, LockedBase, Package

CACHE = Path(__file__).parents[2] / ".factory/cache"
ZERO = Digest("sha256:" + "0" * 64)
SPEC = BaseSpec("debian-12", "debootstrap", "amd64", suite="bookworm")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedBase:
    with AptProxy(CACHE / "apt") as proxy:
        return bases.prepare(SPEC, None, BaseContext(CACHE, tmp_path_factory.mktemp("bootstrap") / "work", proxy))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")


def context_of(tmp_path: Path, proxy: AptProxy) -> BaseContext:
    """A context without any tree in its cache."""
    return BaseContext(tmp_path / "cache", tmp_path / "work", proxy)


@pytest.fixture
def warm(tmp_path: Path, prepared: PreparedBase) -> Iterator[BaseContext]:
    """A context with packages in its cache, and no tree."""
    with AptProxy(CACHE / "apt") as proxy:
        yield context_of(tmp_path, proxy)


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[BaseContext]:
    """A context with nothing in its cache."""
    with AptProxy(tmp_path / "cache/apt") as proxy:
        yield context_of(tmp_path, proxy)


def fails(spec: BaseSpec, context: BaseContext, *locked: Package, kind: type[FactoryError]) -> FactoryError:
    entry = LockedBase(spec.name, spec.arch, ZERO, locked) if locked else None
    with pytest.raises(kind) as raised:
        bases.prepare(spec, entry, context)
    assert not context.work.exists()
    assert list((context.cache / "trees").glob("[0-9a-f]*")) == []
    return raised.value


def test_the_same_pins_give_the_same_tree_without_a_network(
    prepared: PreparedBase, offline: None, tmp_path: Path
) -> None:
    with AptProxy(CACHE / "apt") as proxy:
        again = bases.prepare(SPEC, prepared.locked, context_of(tmp_path, proxy))
        assert proxy.misses == []
    assert not again.cached
    assert again.locked == prepared.locked
    assert again.installed == prepared.installed


def test_the_tree_is_a_machine_without_an_identity(prepared: PreparedBase) -> None:
    with tarfile.open(prepared.tree) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}

        def text(path: str) -> str:
            file = tar.extractfile(members[path])
            assert file is not None
            return file.read().decode()

        assert members["etc/machine-id"].size == 0
        assert text("etc/apt/sources.list").startswith("deb ")
        assert "MODULES=list" in text("etc/initramfs-tools/conf.d/factory")
        assert "127.0.0.1 localhost" in text("etc/hosts")
        shadow = text("etc/shadow")
    assert all(line.split(":")[1] in ("*", "!", "!*") for line in shadow.splitlines())
    assert not [name for name in members if name.startswith("etc/ssh/ssh_host_")]
    assert not {*pins.PATHS, "etc/hostname", "var/lib/systemd/random-seed"} & members.keys()
    assert not [name for name in members if name.startswith(("dev/", "run/", "tmp/", "var/lib/apt/lists/"))]
    assert not [name for name in members if name.startswith("usr/share/man/") and name.endswith(".gz")]
    assert "usr/share/doc/systemd/copyright" in members
    wants = "etc/systemd/system/multi-user.target.wants"
    for unit in ("ssh", "systemd-networkd", "ssh-host-key"):
        assert f"{wants}/{unit}.service" in members
    assert members["etc/systemd/system/apt-daily.timer"].linkname == "/dev/null"
    assert members["etc/resolv.conf"].linkname == "../run/systemd/resolve/resolv.conf"
    assert [name for name in members if name.startswith("boot/initrd.img-")]
    assert [name for name in members if name.startswith("boot/vmlinuz-")]


def test_packages_come_with_their_source(prepared: PreparedBase) -> None:
    by_name = {item.package.name: item for item in prepared.installed}
    assert by_name["libc6"].source == "glibc"
    assert by_name["bsdutils"].source_version != by_name["bsdutils"].package.version  # its version has an epoch
    kernel = next(item for name, item in by_name.items() if name.startswith("linux-image-6"))
    assert kernel.source.startswith("linux")
    assert {item.package.arch for item in prepared.installed} == {"amd64", "all"}


def test_pins_that_are_gone_are_named_before_any_work(prepared: PreparedBase, warm: BaseContext) -> None:
    gone = Package("bash", "4.0-gone", "amd64", ZERO)
    others = [package for package in prepared.locked.packages if package.name != "bash"]
    error = fails(SPEC, warm, gone, *others, kind=LockMismatchError)
    assert error.exit_code == 5
    assert error.message.splitlines()[1:] == ["  bash 4.0-gone amd64"]
    assert error.hint is not None
    assert "factory lock --refresh debian-12" in error.hint


def test_no_network_and_no_cache_says_so(cold: BaseContext, offline: None) -> None:
    with AptProxy(cold.cache / "apt") as proxy:
        error = fails(SPEC, replace(cold, proxy=proxy), kind=BaseError)
    assert error.exit_code == 3
    assert "no network, and not cached" in error.message
    assert "/dists/bookworm/InRelease" in error.message


def test_a_suite_that_does_not_exist(cold: BaseContext) -> None:
    error = fails(replace(SPEC, suite="nosuchsuite"), cold, kind=SpecError)
    assert "nosuchsuite" in error.message
    assert error.where == "images.toml: base.debian-12.suite"


def test_a_package_that_does_not_exist(warm: BaseContext) -> None:
    error = fails(replace(SPEC, include=("no-such-package",)), warm, kind=SpecError)
    assert "no-such-package" in error.message
    assert error.where == "images.toml: base.debian-12.include"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"suite": None}, "suite"),
        ({"suite": "--help"}, "suite"),
        ({"suite": "../x"}, "suite"),
        ({"arch": "a b"}, "arch"),
        ({"include": ("x,y",)}, "include"),
        ({"include": ("--simulate",)}, "include"),
    ],
)
def test_what_is_no_name_is_refused(change: dict[str, object], where: str, cold: BaseContext) -> None:
    with pytest.raises(SpecError) as raised:
        bases.prepare(replace(SPEC, **change), None, cold)  # type: ignore[arg-type]
    assert raised.value.where == f"images.toml: base.debian-12.{where}"


def test_nothing_is_mounted_afterwards(prepared: PreparedBase) -> None:
    assert "/work/tree" not in Path("/proc/self/mounts").read_text()
