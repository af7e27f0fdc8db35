"""Verification for real: a small image that passes, one that breaks every rule at once, and disks that never boot."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer

import guest_image
import pytest

from factory import digest, namespace, proc
from factory.disk import formats
from factory.errors import BootError
from factory.verify import boot_image, built_in, report
from factory.verify.checks import Checks
from factory.verify.report import VerifyReport
from factory.verify.request import VerifyRequest
from factory.verify.run import verify
from factory.verify.shell import look
from factory.vm import accel, entry
from factory.vm.machine import TCG
from factory.vm.session import Way

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".factory" / "cache" / "tests"
PACKAGES = "linux-image-cloud-amd64,systemd-sysv,dbus,udev,openssh-server,iproute2,zstd"

pytestmark = pytest.mark.boots

CHECKS = """\
def test_ssh_runs(host):
    assert host.service("ssh").is_running

def test_the_image_keeps_root_out(host):
    config = host.file("/etc/ssh/sshd_config").content_string
    assert "PermitRootLogin no" in config and "DenyUsers root" in config

def test_no_key_was_written(host):
    assert not host.file("/root/.ssh/authorized_keys").exists
"""
FAILING = '''\
def test_wanted(host):
    """A comment."""
    assert host.file("/etc/wanted").exists, "the role must write /etc/wanted"

def test_exempt(host):
    assert False
'''


@pytest.fixture(scope="module")
def tree_tar() -> Path:
    """The tar of a small Debian tree, kept in the checkout's cache."""
    tar = CACHE / f"guest-{digest.hex_of(digest.of_bytes(PACKAGES.encode()))[:12]}.tar"
    if not tar.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = tar.with_suffix(f".{os.getpid()}.tar")
        proc.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(fresh)])
        fresh.replace(tar)
    return tar


def in_namespace(tar: Path, folder: Path, what: str) -> Path:
    folder.mkdir(exist_ok=True)
    argv = [sys.executable, guest_image.__file__, str(tar), str(folder), what]
    proc.run(namespace.command(argv, network=False), env={"PYTHONPATH": str(ROOT)})
    return folder


@pytest.fixture(scope="module")
def clean(tree_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_namespace(tree_tar, tmp_path_factory.mktemp("clean"), "no")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "work"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def request_for(image: Path, tmp_path: Path, work: Path) -> VerifyRequest:
    checks = tmp_path / "checks"
    checks.mkdir()
    (checks / "test_ssh.py").write_text(CHECKS)
    artifact = image / "disk.qcow2"
    return VerifyRequest(
        name="test",
        artifact=artifact,
        format="qcow2",
        digest=digest.of_file(artifact),
        manifest=image / "manifest",
        work=work,
        logs=tmp_path / "logs",
        accelerator=TCG,
        facts=guest_image.FACTS,
        way=Way("smbios", (image / "default_ssh").read_text()),
        checks=(Checks("base", checks, "roles/base/checks"),),
        secrets={"TOKEN": b"never-seen-in-any-image"},
    )


def outcomes(found: VerifyReport) -> dict[str, str]:
    return {case.name: case.outcome for case in found.cases}


def test_verify_passes_a_clean_image_that_keeps_root_out(clean: Path, tmp_path: Path, work: Path) -> None:
    request = request_for(clean, tmp_path, work)
    started: list[tuple[int, int]] = []
    found = verify(request, lambda pid, ticks: started.append((pid, ticks)))
    assert found.passed, report.render(found)
    assert set(outcomes(found).values()) == {"passed"}
    assert set(outcomes(found)) == {
        "test_ssh_runs", "test_the_image_keeps_root_out", "test_no_key_was_written", *built_in.NAMES,
    }  # fmt: skip
    assert digest.of_file(request.artifact) == request.digest
    suites = [suite.get("name") for suite in ET.parse(found.junit).getroot()]
    assert suites == ["pytest", "factory"]
    assert b"Linux version" in found.console.read_bytes()
    assert found.screenshot is None
    ((pid, _),) = started
    assert not Path(f"/proc/{pid}").exists()
    assert sorted(path.name for path in work.iterdir()) == ["checks"]


def test_verify_names_every_rule_that_an_image_breaks(tree_tar: Path, tmp_path: Path, work: Path) -> None:
    image = in_namespace(tree_tar, tmp_path / "image", "yes")
    failing = tmp_path / "failing"
    failing.mkdir()
    (failing / "test_ssh.py").write_text(FAILING)
    log = tmp_path / "run.log"
    log.write_bytes(b"... " + base64.b64encode(guest_image.FILE_SECRET) + b" ...")
    request = request_for(image, tmp_path, work)
    request = replace(
        request,
        checks=(*request.checks, Checks("web", failing, "roles/web/checks")),
        skip_checks=("test_exempt",),
        secrets={
            "FREE": guest_image.FREE_SECRET,
            "FILE": guest_image.FILE_SECRET,
            "INITRD": guest_image.INITRD_SECRET,
        },
        host_files=(log, tmp_path / "none.log"),
    )

    def spoil(stage: str) -> None:
        if stage == "checking":
            request.artifact.chmod(0o644)
            with request.artifact.open("ab") as file:
                file.write(b"x")

    found = verify(request, progress=spoil)
    text = report.render(found)
    messages = {case.name: case.message for case in found.failures}
    assert not found.passed
    assert set(messages) == {
        "test_wanted", built_in.SEALED, built_in.SECRETS, built_in.UNITS, built_in.PORTS, built_in.STATE,
        built_in.UNCHANGED,
    }, text  # fmt: skip
    assert outcomes(found)["test_exempt"] == "exempt"
    assert "web: test_wanted (roles/web/checks/test_ssh.py:3)\n    the role must write /etc/wanted\n" in text
    assert messages[built_in.UNITS].startswith("broken.service failed: it broke\n")
    assert messages[built_in.PORTS] == "tcp 8099 on :: (systemd) listens and is not in ports"
    assert messages[built_in.STATE].splitlines() == ["/etc/issue removed (file)", "/opt/litter added (file)"]
    assert messages[built_in.SEALED] == "/root/.bash_history: a history"
    assert "changed while" in messages[built_in.UNCHANGED]
    secrets = messages[built_in.SECRETS]
    assert "the secret FREE (as it is) is in the disk at byte" in secrets
    assert "the secret FILE (in base64) is in the disk at byte" in secrets
    assert f"the secret FILE (in base64) is in {log}" in secrets
    assert "the secret INITRD (as it is) is in the initial ramdisk of EFI/BOOT/BOOTX64.EFI" in secrets
    for value in request.secrets.values():
        for kept in (text.encode(), found.junit.read_bytes(), repr(found).encode(), repr(request).encode()):
            assert value not in kept
    assert found.screenshot is not None
    assert found.screenshot.read_bytes().startswith(b"\x89PNG")


def test_verify_of_a_disk_of_zeros_is_a_boot_error(clean: Path, tmp_path: Path, work: Path) -> None:
    zeros = tmp_path / "disk.qcow2"
    proc.run(["qemu-img", "create", "-q", "-f", "qcow2", str(zeros), "64M"])
    request = replace(request_for(clean, tmp_path, work), artifact=zeros, boot_deadline_s=120)
    with pytest.raises(BootError, match="its disk is not bootable") as error:
        verify(request)
    assert error.value.exit_code == 4
    assert error.value.where is not None
    assert str(request.logs / "console.log") in error.value.where
    assert (request.logs / "console.log").exists()
    assert (request.logs / "screen.png").exists()
    assert not (work / "keys").exists()


def test_a_guest_whose_qemu_dies_is_a_boot_error(clean: Path, tmp_path: Path, work: Path) -> None:
    with pytest.raises(BootError, match="QEMU ended"):
        verify(request_for(clean, tmp_path, work), lambda pid, _: Timer(1, os.kill, (pid, signal.SIGKILL)).start())


def test_look_keeps_a_guest_until_it_ends(clean: Path, tmp_path: Path, work: Path) -> None:
    said: list[str] = []

    def enter() -> None:
        while not any("get in with" in line for line in said):
            time.sleep(0.2)
        command = next(line for line in said if "get in with" in line).splitlines()[1].split()
        proc.run([*command, "echo x > /opt/x && systemctl poweroff"], check=False, timeout_s=60)

    visitor = threading.Thread(target=enter, daemon=True)
    visitor.start()
    request = request_for(clean, tmp_path, work)
    look(request, said.append)
    visitor.join(60)
    assert not (work / "keys").exists()
    assert digest.of_file(request.artifact) == request.digest


def test_kernel_boots_under_emulation_and_a_file_of_zeros_does_not(clean: Path, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    formats.to_raw(clean / "disk.qcow2", "qcow2", raw)
    kernel = boot_image.kernel(raw, tmp_path)
    assert kernel is not None
    assert accel.kernel_boots(kernel, TCG, 120)
    zeros = tmp_path / "zeros"
    zeros.write_bytes(bytes(1 << 20))
    assert not accel.kernel_boots(zeros, TCG, 5)


HOSTILE = {
    "hardened": "PermitRootLogin no\nAllowUsers deploy\nDenyUsers root\nPubkeyAcceptedAlgorithms rsa-sha2-512\n",
    "groups": "AllowGroups wheel\nDenyGroups root\nAuthenticationMethods publickey,password\n",
    "match": "PasswordAuthentication no\nMatch User root\n  PermitRootLogin no\n  ForceCommand /bin/false\n",
    "empty": "",
}
OTHERS = HOSTILE["hardened"] + "X11Forwarding no\nMatch User deploy\n  X11Forwarding yes\n"


def test_sshd_lets_root_in_from_the_gateway_and_leaves_the_rest_to_the_image(tree_tar: Path, tmp_path: Path) -> None:
    keys = entry.make_keys(tmp_path / "keys")
    lines = base64.b64decode(entry.credential(keys).partition("=")[2]).decode().splitlines()
    ours = {
        fields[1]: base64.b64decode(fields[6]).decode()
        for fields in (line.split(" ") for line in lines)
        if fields[0] == "f+~"
    }
    asked = [(text, f"user=root,host=gateway,addr={entry.GATEWAY}") for text in HOSTILE.values()]
    asked += [(OTHERS, "user=root,host=x,addr=10.0.2.3"), (OTHERS, f"user=deploy,host=x,addr={entry.GATEWAY}")]
    folder = tmp_path / "sshd"
    folder.mkdir()
    cases = [{"files": {**ours, "/etc/ssh/sshd_config": text}, "spec": spec} for text, spec in asked]
    (folder / "cases.json").write_text(json.dumps(cases))
    in_namespace(tree_tar, folder, "sshd")
    answers = [answer.splitlines() for answer in json.loads((folder / "answers.json").read_text())]
    for found in answers[: len(HOSTILE)]:
        for line in (
            "permitrootlogin without-password",
            "pubkeyauthentication yes",
            "authenticationmethods publickey",
            "authorizedkeysfile /run/factory/authorized_keys",
            "allowusers root",
            "denyusers factory-denies-nobody",
            "allowgroups *",
            "denygroups factory-denies-nobody",
            "forcecommand none",
        ):
            assert line in found
        assert next(line for line in found if line.startswith("hostkey ")) == "hostkey /run/factory/host_key"
    for found, forwarding in zip(answers[len(HOSTILE) :], ("no", "yes"), strict=True):
        for line in ("permitrootlogin no", "allowusers deploy", "denyusers root", f"x11forwarding {forwarding}"):
            assert line in found
        assert not any(line.startswith("authorizedkeysfile /run") for line in found)
