"""The seal on a tree that a careless bake left: each thing is found before, gone after, and the rest is untouched."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import socket
import struct
import sys
from pathlib import Path

import disk_tree
import pytest

from factory import digest, namespace, proc
from factory.disk import initrd, manifest, seal

STARTED = disk_tree.EPOCH + 1000
FACTS = seal.SealFacts("web", digest.of_bytes(b"a bake key"), STARTED, ("ssh-ed25519 AAAAbake comment",))
JUNK = (
    "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "var/lib/systemd/random-seed", "var/log/dpkg.log",
    "var/log/nginx/access.log.2.gz", "var/log/journal/abc/system.journal", "root/.bash_history", "root/.ansible/tmp/x",
    "home/alice/.python_history", "var/cache/apt/archives/x.deb", "var/cache/ldconfig/aux-cache", "etc/passwd-",
    "var/cache/debconf/config.dat-old", "var/lib/apt/lists/partial/x", "tmp/a/b", "var/tmp/x", "run/x/pid", "dev/kmsg",
    "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/99factory-bake", "etc/apt/preferences.d/99factory-bake",
    "etc/apt/sources.list.d/factory-bake.list", "etc/dpkg/dpkg.cfg.d/99factory-bake", "var/lib/cloud/instances/i/x",
    "var/lib/dhcp/dhclient.eth0.leases", ".dockerenv", "var/lib/dbus/machine-id", "proc/1", "sys/x", "lost+found/x",
)  # fmt: skip
KEPT = {
    "etc/apt/apt.conf.d/50role": b"role",
    "var/lib/app/state": b"state",
    "var/cache/debconf/templates.dat": b"templates",
    "etc/ssh/ssh_known_hosts": b"known",
}
ROLE_KEY = b"# the role's\nssh-ed25519 AAAArole deploy\n"
BAKE_KEY = b"ssh-ed25519 AAAAbake comment\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    if not namespace.is_root():
        pytest.skip("works on the tree directly; as an ordinary user test_disk.py seals in a namespace")
    path = tmp_path / "tree"
    proc.run([sys.executable, str(Path(disk_tree.__file__)), str(path), "forward", "plain", "small"])
    for name, data in {**dict.fromkeys(JUNK, b"left behind"), **KEPT}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    os.utime(path / "srv/empty", (disk_tree.EPOCH, disk_tree.EPOCH))
    (path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return path


def sealed(tree: Path) -> list[manifest.Entry]:
    seal.seal(tree, FACTS)
    return manifest.scan(tree)


def reader(tree: Path) -> seal.Reader:
    return lambda path: Path(f"{tree}{path}").read_bytes() if Path(f"{tree}{path}").is_file() else None


def test_seal_takes_out_what_each_rule_names_and_nothing_else(tree: Path) -> None:
    before = manifest.scan(tree)
    said = seal.violations(before, reader(tree), FACTS)
    assert {line.split(": ")[0] for line in said} >= {f"/{name}" for name in JUNK}
    after = sealed(tree)
    assert seal.violations(after, reader(tree), FACTS) == []
    gone = {change.path for change in manifest.compare(before, after) if change.kind == "removed"}
    below = tuple(f"/{name}" for name in JUNK)
    assert all(path in below or any(name.startswith(path + "/") for name in below) for path in gone)
    for name, data in KEPT.items():
        assert (tree / name).read_bytes() == data
    assert (tree / "var/log/dpkg.log").read_bytes() == b""
    assert (tree / "var/log/nginx").stat().st_uid == 33


def test_seal_names_the_image_through_the_link(tree: Path) -> None:
    sealed(tree)
    assert (tree / "etc/os-release").is_symlink()
    text = (tree / "usr/lib/os-release").read_text()
    assert text.endswith(f"IMAGE_ID=web\nIMAGE_VERSION={FACTS.bake_key[7:19]}\n")
    assert (tree / "etc/hostname").read_text() == "web\n"
    assert (tree / "etc/machine-id").read_bytes() == b""
    assert str((tree / "var/lib/dbus/machine-id").readlink()) == "/etc/machine-id"
    seal.seal(tree, seal.SealFacts("child", digest.of_bytes(b"another"), STARTED))
    assert (tree / "usr/lib/os-release").read_text().count("IMAGE_ID=") == 1


@pytest.mark.parametrize(
    ("content", "left"),
    [(BAKE_KEY, None), (ROLE_KEY, ROLE_KEY), (ROLE_KEY + BAKE_KEY, ROLE_KEY),
     (b'from="10.0.0.1" ' + BAKE_KEY, None), (b"ssh-rsa AAAAother x factory-bake\n", None)],
)  # fmt: skip
def test_seal_takes_only_the_keys_of_the_bake(tree: Path, content: bytes, left: bytes | None) -> None:
    keys = tree / "root/.ssh/authorized_keys"
    keys.parent.mkdir()
    keys.write_bytes(content)
    sealed(tree)
    assert (keys.read_bytes() if keys.exists() else None) == left
    assert (tree / "home/alice/.ssh/authorized_keys").read_bytes() == b"ssh-ed25519 AAAArole alice\n"


def test_seal_clamps_times_and_dates_of_passwords(tree: Path) -> None:
    package = tree / "usr/bin/su"
    sealed(tree)
    assert package.stat().st_mtime == disk_tree.EPOCH - 100
    newest = max(os.lstat(path).st_mtime for path in [tree, *tree.rglob("*")])
    assert newest == disk_tree.EPOCH
    day = disk_tree.EPOCH // 86400
    assert (tree / "etc/shadow").read_text() == f"root:*:19000:0:99999:7:::\nnew:!:{day}:0:99999:7:::\n"
    assert (tree / "etc/shadow").stat().st_gid == 42


def test_seal_keeps_compiled_python_valid_and_drops_what_is_stale(tree: Path) -> None:
    folder = tree / "opt/python"
    folder.mkdir()
    compiled = {}
    for name in ("packaged", "baked", "stale"):
        source = folder / f"{name}.py"
        source.write_text("X = 1\n")
        time = disk_tree.EPOCH - 50 if name == "packaged" else STARTED + 50
        os.utime(source, (time, time))
        compiled[name] = Path(py_compile.compile(str(source), doraise=True) or "")
    (folder / "stale.py").write_text("X = 2222\n")
    orphan = folder / "__pycache__/gone.cpython-311.pyc"
    orphan.write_bytes(compiled["packaged"].read_bytes())
    sealed(tree)
    for name in ("packaged", "baked"):
        (written,) = struct.unpack_from("<I", compiled[name].read_bytes(), 8)
        assert written == int((folder / f"{name}.py").stat().st_mtime)
        assert importlib.util.cache_from_source(str(folder / f"{name}.py")) == str(compiled[name])
    assert not compiled["stale"].exists()
    assert not orphan.exists()


def test_seal_never_follows_a_link_out_of_the_tree(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    for name in ("tmp/link", "var/log/link", "var/cache/link"):
        (tree / name).symlink_to(outside)
    (tree / "etc/hostname").unlink()
    (tree / "etc/hostname").symlink_to(outside / "precious")
    sealed(tree)
    assert (outside / "precious").read_text() == "precious"
    assert not (tree / "etc/hostname").is_symlink()


def test_seal_removes_sockets(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tree / "srv")
        listener.bind("left.sock")
        os.chdir("/")
        assert any("socket" in line for line in seal.violations(manifest.scan(tree)))
        assert not any(entry.type == "socket" for entry in sealed(tree))


def test_initrd_has_the_same_bytes_whenever_it_was_packed(tmp_path: Path) -> None:
    found = []
    for mtime, inode in ((STARTED, 5), (STARTED + 777, 4000)):
        path = tmp_path / f"initrd{inode}"
        path.write_bytes(disk_tree.initrd(mtime, inode))
        initrd.normalise(path, disk_tree.EPOCH, Path("/"))
        found.append(path.read_bytes())
        initrd.normalise(path, disk_tree.EPOCH, Path("/"))
        assert path.read_bytes() == found[-1]
    assert found[0] == found[1]
    assert found[0].startswith(b"070701")
