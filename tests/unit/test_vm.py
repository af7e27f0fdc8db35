"""Guests: QEMU's argument list, ways in, what is read from consoles and QEMU."""

from __future__ import annotations

import base64
import dataclasses
import json
import stat
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import digest, proc
from factory.disk import seal
from factory.errors import BootError
from factory.vm import accel, entry
from factory.vm.guest import forwarded_ports, tail_of
from factory.vm.machine import KVM, TCG, Machine, arguments

GOLDEN = Path(__file__).parent.parent / "golden" / "qemu-arguments.txt"

MACHINE = Machine(
    disk=Path("/store/a,b.qcow2"),
    disk_format="qcow2",
    folder=Path("/bake/g"),
    accelerator=TCG,
    ports=(22, 80),
    credentials=(Path("/bake/g/keys/credential"),),
    seed=Path("/bake/g/seed.iso"),
)


def test_arguments_are_the_golden_ones() -> None:
    assert "\n".join(arguments(MACHINE)) + "\n" == GOLDEN.read_text()


def test_arguments_open_the_artifact_read_only_and_write_to_the_overlay() -> None:
    argv = arguments(MACHINE)
    nodes = [json.loads(value) for flag, value in pairwise(argv) if flag == "-blockdev"]
    by_name = {node["node-name"]: node for node in nodes}
    for name in ("artifact-file", "artifact"):
        assert by_name[name]["read-only"] is True
        assert by_name[name]["auto-read-only"] is False
    assert by_name["artifact-file"]["filename"] == "/store/a,b.qcow2"
    assert by_name["overlay"]["backing"] == "artifact"
    assert "virtio-blk-pci,drive=overlay,bootindex=0" in argv


def test_arguments_forward_on_loopback_only() -> None:
    (network,) = [value for value in arguments(MACHINE) if value.startswith("user,")]
    assert network == "user,id=net,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:80"


def test_arguments_use_the_hosts_processor_only_with_kvm() -> None:
    argv = arguments(dataclasses.replace(MACHINE, accelerator=KVM))
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-cpu") + 1] == "host"


@pytest.fixture
def keys(tmp_path: Path) -> entry.Keys:
    return entry.make_keys(tmp_path / "keys")


def test_make_keys_lets_nobody_else_read_them(keys: entry.Keys) -> None:
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(keys.identity.stat().st_mode) == 0o600
    assert keys.public.startswith("ssh-ed25519 ")
    assert keys.public != keys.host_public


def test_keys_are_known_to_the_seal_as_the_bakes(keys: entry.Keys) -> None:
    facts = seal.SealFacts("web", digest.of_bytes(b""), 0.0)
    assert seal._of_the_bake(keys.public, facts)


def test_remove_keys_leaves_nothing(keys: entry.Keys) -> None:
    entry.remove_keys(keys)
    entry.remove_keys(keys)
    assert not keys.folder.exists()


def placed(text: str) -> dict[str, tuple[str, str]]:
    """Path -> (mode, content) of the files that a credential places."""
    name, _, value = text.partition("=")
    assert name == "io.systemd.credential.binary:tmpfiles.extra"
    found = {}
    for line in base64.b64decode(value).decode().splitlines():
        kind, path, mode, user, group, _, *content = line.split(" ")
        assert (user, group) == ("root", "root")
        if kind == "f+~":
            found[path] = (mode, base64.b64decode(content[0]).decode())
        else:
            assert (kind, path, mode) == ("d", "/run/factory", "0700")
    return found


def test_credential_places_keys_and_configuration(keys: entry.Keys) -> None:
    files = placed(entry.credential(keys, "# theirs\nSSHD_OPTS='-4'\nOTHER=1\n"))
    assert files["/etc/default/ssh"] == (
        "0644",
        "# theirs\nSSHD_OPTS='-4'\nOTHER=1\nSSHD_OPTS=\"-4 -f /run/factory/sshd_config\"\n",
    )
    assert files["/run/factory/host_key"] == ("0600", keys.host_key.read_text())
    assert files["/run/factory/authorized_keys"] == ("0600", keys.public + "\n")


def test_write_credential_is_for_us_alone(keys: entry.Keys) -> None:
    path = entry.write_credential(keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert placed(path.read_text())["/etc/default/ssh"][1] == 'SSHD_OPTS="-f /run/factory/sshd_config"\n'


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", ""),
        ("SSHD_OPTS=\n", ""),
        ("#SSHD_OPTS=-6\n", ""),
        ('SSHD_OPTS="-4 -o X=y"\n', "-4 -o X=y"),
        ("SSHD_OPTS=-4\nSSHD_OPTS=-6\n", "-6"),
    ],
)
def test_sshd_options_are_those_of_the_image(text: str, options: str) -> None:
    assert entry.sshd_options(text) == options


@pytest.mark.parametrize("own", ["", "# theirs\n", 'SSHD_OPTS="-4"\nOTHER=1\n', "SSHD_OPTS=-4"])
def test_what_a_role_made_of_default_ssh_stays(own: str) -> None:
    entered = entry.entered(own)
    kept = f"{own.rstrip()}\n".lstrip()
    assert entry.left(entered, own) == kept
    assert entry.left(entered + "MORE=1\n", own) == kept + "MORE=1\n"
    assert entry.left('SSHD_OPTS="-6"\n', own) == 'SSHD_OPTS="-6"\n'
    changed = entered.replace("/run/factory/sshd_config", "/run/factory/sshd_config -D")
    assert entry.left(changed, own) == kept + f'SSHD_OPTS="{entry.sshd_options(own)} -D"\n'
    assert entry.left("SSHD_OPTS='-6 -f /run/factory/sshd_config'\n", own) == "SSHD_OPTS='-6'\n"


def test_seed_iso_is_a_nocloud_seed(keys: entry.Keys, tmp_path: Path) -> None:
    path = entry.seed_iso(keys, tmp_path / "seed.iso")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    proc.run(["xorriso", "-osirrox", "on", "-indev", str(path), "-extract", "/", str(tmp_path / "out")])
    user_data = (tmp_path / "out" / "user-data").read_text()
    config = json.loads(user_data.removeprefix("#cloud-config\n"))
    assert config["users"][0]["ssh_authorized_keys"] == [keys.public]
    assert config["ssh_keys"]["ed25519_private"] == keys.host_key.read_text()
    assert "instance-id: factory-" in (tmp_path / "out" / "meta-data").read_text()
    assert path.read_bytes()[32808:32840].strip() == b"cidata"


@pytest.mark.parametrize(
    ("systemd", "cloud_init", "way"), [(252, False, "smbios"), (257, True, "smbios"), (247, True, "nocloud")]
)
def test_entry_for_prefers_the_credential(systemd: int | None, cloud_init: bool, way: str) -> None:
    assert entry.entry_for(systemd, cloud_init) == way


@pytest.mark.parametrize("systemd", [251, None])
def test_entry_for_says_when_there_is_no_way_in(systemd: int | None) -> None:
    with pytest.raises(BootError, match="no cloud-init"):
        entry.entry_for(systemd, False)


@pytest.mark.parametrize(
    ("version", "number"), [("252.39-1~deb12u1", 252), ("1:257~rc1-2", 257), ("247.3-7+deb11u6", 247), ("x", None)]
)
def test_systemd_version_of_a_package_version(version: str, number: int | None) -> None:
    assert entry.systemd_version(version) == number


def test_ssh_config_is_strict_and_ours_alone(keys: entry.Keys) -> None:
    config = entry.ssh_config(keys, 40022)
    shown = proc.run(["ssh", "-G", "-F", str(config), "guest"]).text.splitlines()
    for line in (
        "hostname 127.0.0.1",
        "port 40022",
        "stricthostkeychecking true",
        "identitiesonly yes",
        "batchmode yes",
        "hostkeyalgorithms ssh-ed25519",
        "globalknownhostsfile /dev/null",
        "forwardagent no",
    ):
        assert line in shown
    assert (keys.folder / "known_hosts").read_text() == f"[127.0.0.1]:40022 {keys.host_public}\n"


def test_forwarded_ports_from_qemus_table() -> None:
    table = (
        "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 42303       10.0.2.15    22     0     0\r\n"
        "  TCP[ESTABLISHED]   15       127.0.0.1 42303       10.0.2.15    22     0     0\r\n"
        "  TCP[HOST_FORWARD]  11       127.0.0.1 35001       10.0.2.15    80     0     0\r\n"
    )
    assert forwarded_ports(table) == {22: 42303, 80: 35001}


def test_tail_of_removes_what_terminals_want() -> None:
    console = b"\x1b[2J\x1b[01;01Hone\r\n\r\n\x1b[0;32m OK \x1b[0m two\r\nthree\x00\xff"
    assert tail_of(console, 2) == " OK  two\nthree�"


@given(st.binary(max_size=400), st.integers(1, 5))
def test_tail_of_is_short_and_printable_whatever_the_guest_prints(console: bytes, lines: int) -> None:
    tail = tail_of(console, lines)
    assert len(tail.split("\n")) <= lines
    assert all(char == "\n" or char.isprintable() for char in tail)


def test_probe_answers_from_the_cache_only_for_this_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_DEVICE", tmp_path)
    asked: list[int] = []

    def no_kernel() -> None:
        asked.append(1)

    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = tmp_path / "kvm.json"
    known.write_text(json.dumps({"boot_id": boot_id, "works": True}))
    assert accel.accelerator(tmp_path, no_kernel) == KVM
    assert not asked
    for stale in (json.dumps({"boot_id": "other", "works": True}), "{", "[]"):
        known.write_text(stale)
        assert accel.accelerator(tmp_path, no_kernel) == TCG
    assert len(asked) == 3


def test_probe_without_the_device_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "none")
    assert not accel.probe_kvm(tmp_path, lambda: pytest.fail("asked for a kernel"))
