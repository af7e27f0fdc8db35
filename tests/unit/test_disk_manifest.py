"""Manifests and the rules of the seal: pure parts of factory.disk."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import digest
from factory.disk import manifest, rules, uki
from factory.disk.manifest import Entry
from factory.disk.seal import SealFacts, violations
from factory.errors import DiskError

names = st.binary(min_size=1, max_size=20).filter(lambda raw: b"/" not in raw and b"\0" not in raw).map(os.fsdecode)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
entries = st.builds(
    Entry,
    path=paths,
    type=st.sampled_from(["file", "dir", "link", "char", "block", "fifo", "socket"]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**40),
    content=names,
    xattrs=st.lists(st.tuples(names, st.binary(max_size=9).map(bytes.hex)), max_size=2).map(tuple),
    hardlink=st.none() | paths,
)


@given(st.lists(entries, max_size=8))
def test_manifest_round_trips_whatever_the_names(found: list[Entry]) -> None:
    data = manifest.dumps(found)
    assert manifest.loads(data) == found
    assert manifest.dumps(manifest.loads(data)) == data
    assert data.count(b"\n") == len(found)


@given(st.lists(entries, max_size=6, unique_by=lambda entry: entry.path), st.lists(entries, max_size=6))
def test_compare_names_exactly_the_paths_that_differ(sealed: list[Entry], other: list[Entry]) -> None:
    found = list({entry.path: entry for entry in [*sealed, *other]}.values())
    before = {entry.path: entry for entry in sealed}
    differing = {entry.path for entry in found if before.get(entry.path) != entry}
    assert {change.path for change in manifest.compare(sealed, found)} == differing
    assert manifest.compare(sealed, sealed) == []


def test_compare_says_what_changed() -> None:
    entry = Entry("/a", "file", 0o644, 0, 0, 1, "x")
    (change,) = manifest.compare([entry], [replace(entry, mode=0o4755, content="y")])
    assert (change.kind, change.what) == ("changed", "mode, content")


def test_manifest_that_is_damaged_names_the_line() -> None:
    good = manifest.dumps([Entry("/", "dir", 0o755, 0, 0)])
    with pytest.raises(DiskError, match="line 2"):
        manifest.loads(good + b"[1]\n")


def test_lost_and_found_is_listed_only_with_content() -> None:
    root, lost = Entry("/", "dir", 0o755, 0, 0), Entry("/lost+found", "dir", 0o700, 0, 0)
    hidden = Entry("/lost+found/x", "file", 0o644, 0, 0)
    assert manifest.without_lost_and_found([root, lost]) == [root]
    assert manifest.without_lost_and_found([root, lost, hidden]) == [root, lost, hidden]


SEALED = [Entry("/", "dir", 0o755, 0, 0), Entry("/etc/machine-id", "file", 0o644, 0, 0, 0, manifest.EMPTY_CONTENT)]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/var/lib/systemd/random-seed",
        "/var/log/dpkg.log", "/var/log/journal/0123/system.journal", "/var/log/nginx/error.log.1",
        "/root/.bash_history", "/home/alice/.python_history", "/root/.ansible/tmp",
        "/root/.cache/pip/x", "/var/cache/apt/pkgcache.bin",
        "/var/cache/ldconfig/aux-cache", "/var/cache/debconf/config.dat-old", "/var/lib/apt/lists/x_InRelease",
        "/etc/passwd-", "/etc/shadow-", "/tmp/x", "/var/tmp/x", "/run/x", "/dev/null", "/proc/1", "/sys/x",
        "/usr/sbin/policy-rc.d", "/etc/apt/apt.conf.d/99factory-bake", "/etc/apt/sources.list.d/factory-bake.list",
        "/etc/dpkg/dpkg.cfg.d/99factory-bake", "/var/lib/cloud/instance/user-data.txt", "/var/lib/dhcp/dhclient.leases",
        "/.dockerenv", "/var/lib/dpkg/status-old", "/var/lib/NetworkManager/secret_key",
    ],
)  # fmt: skip
def test_violation_is_found_for_each_category(path: str) -> None:
    assert violations(SEALED) == []
    (said,) = violations([*SEALED, Entry(path, "file", 0o644, 0, 0, 5, "ab" * 32)])
    assert said.startswith(f"{path}: ")


@pytest.mark.parametrize(
    "entry",
    [
        Entry("/var/log/nginx", "dir", 0o755, 33, 4),
        Entry("/var/log/wtmp", "file", 0o664, 0, 43, 0, manifest.EMPTY_CONTENT),
        Entry("/var/cache/debconf/config.dat", "file", 0o644, 0, 0, 9, "ab" * 32),
        Entry("/etc/dpkg/dpkg.cfg.d/factory-slim", "file", 0o644, 0, 0, 9, "ab" * 32),
        Entry("/home/alice/.ssh/authorized_keys", "file", 0o600, 1000, 1000, 9, "ab" * 32),
        Entry("/var/lib/dbus/machine-id", "link", 0o777, 0, 0, 0, "/etc/machine-id"),
        Entry("/var/cache/nginx", "dir", 0o700, 33, 33),
    ],
)
def test_violation_is_not_found_in_what_may_stay(entry: Entry) -> None:
    assert violations([*SEALED, entry]) == []


def test_violation_of_an_identity_and_of_sockets() -> None:
    with_identity = replace(SEALED[1], size=33, content="ab" * 32)
    assert violations([SEALED[0], with_identity]) == ["/etc/machine-id: not an empty file"]
    assert violations(SEALED[:1]) == ["/etc/machine-id: not an empty file"]
    assert violations([*SEALED, Entry("/opt/s", "socket", 0o755, 0, 0)])[0].startswith("/opt/s: a socket")


def test_violation_in_the_content_of_small_files() -> None:
    facts = SealFacts("web", digest.of_bytes(b"key"), 0.0, ("ssh-ed25519 AAAAbake",))
    contents = {
        "/usr/lib/os-release": b"IMAGE_ID=other\n",
        "/etc/hostname": b"builder\n",
        "/etc/ssh/odd": b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "/root/.ssh/authorized_keys": b"ssh-ed25519 AAAAbake someone\n",
        "/home/a/.ssh/authorized_keys": b"ssh-ed25519 AAAArole alice\n",
    }
    listed = [*SEALED, *(Entry(path, "file", 0o600, 0, 0, len(text), "ab" * 32) for path, text in contents.items())]
    said = violations(listed, contents.get, facts)
    assert [line.split(":")[0] for line in said] == [
        "/etc/hostname", "/etc/ssh/odd", "/root/.ssh/authorized_keys", "/usr/lib/os-release", "/usr/lib/os-release",
    ]  # fmt: skip


def test_rules_star_stays_within_a_name() -> None:
    assert rules.matches("/home/a/.bash_history", ["/home/*/.bash_history"])
    assert not rules.matches("/home/a/b/.bash_history", ["/home/*/.bash_history"])
    assert rules.matches("/tmp/a/b\nc", ["/tmp/**"])
    assert not rules.matches("/tmp", ["/tmp/**"])


def test_newest_kernel_is_the_highest_number() -> None:
    versions = ["6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.1.0-10~rc1-cloud-amd64", "5.10.0-99-amd64"]
    assert max(versions, key=uki.version_key) == "6.1.0-10-cloud-amd64"
