"""Makes the small image that the boot tests use. Run in a namespace: `guest_image.py TREE.TAR FOLDER FAULTY`.

Writes FOLDER/disk.qcow2, manifest, default_ssh. With FAULTY = yes the image breaks every rule at once.
`guest_image.py TREE.TAR FOLDER sshd` asks the image's own sshd about the configurations in FOLDER/cases.json.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import sys
from pathlib import Path

from factory import proc
from factory.digest import of_bytes
from factory.disk import formats, image, manifest, rootdisk, seal

FREE_SECRET = b"free-space-secret-0123456789"
FILE_SECRET = b"base64-file-secret-0123456789"
INITRD_SECRET = b"initrd-secret-0123456789"

FACTS = seal.SealFacts("test", of_bytes(b"key"), started_at=1_700_000_000)

NETWORK = """\
[Match]
Name=en* eth*
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
HOST_KEY = """\
[Unit]
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
[Install]
WantedBy=multi-user.target
"""
SSHD_CONFIG = """\
PermitRootLogin no
PasswordAuthentication no
PubkeyAcceptedAlgorithms rsa-sha2-512
AllowUsers deploy
DenyUsers root
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM yes
"""
UNIT = "[Service]\nType=oneshot\nExecStart={}\n[Install]\nWantedBy=multi-user.target\n"
FAULTS = {
    "etc/systemd/system/broken.service": UNIT.format("/bin/sh -c 'echo it broke; exit 1'"),
    "etc/systemd/system/litter.service": UNIT.format("/bin/sh -c 'echo x > /opt/litter; rm /etc/issue'"),
    "etc/systemd/system/open.service": UNIT.format("/bin/sleep 1000"),
    "etc/systemd/system/open.socket": "[Socket]\nListenStream=8099\n[Install]\nWantedBy=sockets.target\n",
    "usr/share/encoded": base64.b64encode(b"ab" + FILE_SECRET + b"c").decode(),
}


def prepare(tree: Path) -> None:
    for path in (tree / "etc/resolv.conf", tree / "etc/ssh/sshd_config", *tree.glob("etc/ssh/*key*")):
        path.unlink(missing_ok=True)
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/ssh/sshd_config").write_text(SSHD_CONFIG)
    (tree / "etc/systemd/network/20-dhcp.network").write_text(NETWORK)
    (tree / "etc/systemd/system/host-key.service").write_text(HOST_KEY)
    enable(tree, "systemd-networkd", "ssh", "host-key")


def enable(tree: Path, *units: str) -> None:
    proc.run(["systemctl", f"--root={tree}", "enable", *units])


def spoil(tree: Path) -> None:
    for name, text in FAULTS.items():
        (tree / name).write_text(text)
    enable(tree, "broken.service", "litter.service", "open.socket")


def spoil_the_seal(tree: Path) -> None:
    (tree / "root/.bash_history").write_text("history")
    (initrd,) = tree.glob("boot/initrd.img-*")
    initrd.write_bytes(gzip.compress(cpio("secret", INITRD_SECRET)) + initrd.read_bytes())


def cpio(name: str, content: bytes) -> bytes:
    packed = b""
    for entry, data in ((name, content), ("TRAILER!!!", b"")):
        packed += b"070701" + b"".join(b"%08X" % n for n in (1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0))
        packed += b"%08X%08X" % (len(entry) + 1, 0) + entry.encode() + b"\0"
        packed += bytes(-len(packed) % 4) + data + bytes(-len(data) % 4)
    return packed


def hide_in_free_space(disk: Path) -> None:
    offset = rootdisk.find_root(disk)
    found = proc.run(["debugfs", "-R", "ffb 1 200000", f"{disk}?offset={offset}"]).text
    block = int(found.split(":")[1].split()[0])
    with disk.open("r+b") as file:
        file.seek(offset + block * 4096 + 100)
        file.write(FREE_SECRET)


def make(tree: Path, folder: Path, faulty: bool) -> None:
    prepare(tree)
    if faulty:
        spoil(tree)
    epoch = seal.seal(tree, FACTS)
    if faulty:
        spoil_the_seal(tree)
    entries = manifest.scan(tree)
    raw = folder / "disk.raw"
    plan = image.DiskPlan("test", "amd64", FACTS.bake_key, 1024, epoch)
    image.assemble(tree, entries, plan, raw)
    if faulty:
        hide_in_free_space(raw)
    formats.convert(raw, "qcow2", folder / "disk.qcow2")
    raw.unlink()
    (folder / "disk.qcow2").chmod(0o444)
    (folder / "manifest").write_bytes(manifest.dumps(entries))
    (folder / "default_ssh").write_bytes((tree / "etc/default/ssh").read_bytes())


def ask_sshd(tree: Path, folder: Path) -> None:
    """cases.json: [{"files": {path: text}, "spec": "user=…"}]; answers.json: what `sshd -T` printed for each."""
    null = tree / "dev/null"
    null.touch()
    proc.run(["mount", "--bind", "/dev/null", str(null)])
    answers = []
    for case in json.loads((folder / "cases.json").read_text()):
        for path, text in case["files"].items():
            target = tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o600)
        (tree / "run/sshd").mkdir(parents=True, exist_ok=True)
        argv = ["chroot", str(tree), "/usr/sbin/sshd", "-T", "-C", case["spec"], "-f", "/run/factory/sshd_config"]
        answers.append(proc.run(argv).text)
    proc.run(["umount", str(null)])
    (folder / "answers.json").write_text(json.dumps(answers))


def main(tar: str, folder: str, what: str) -> None:
    tree = Path(folder) / "tree"
    tree.mkdir()
    proc.run(["tar", "-xf", tar, "-C", str(tree), "--numeric-owner", "--xattrs", "--exclude=./dev/*"])
    os.umask(0o022)
    if what == "sshd":
        ask_sshd(tree, Path(folder))
    else:
        make(tree, Path(folder), what == "yes")
    shutil.rmtree(tree)


if __name__ == "__main__":
    main(*sys.argv[1:])
