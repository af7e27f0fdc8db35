"""How we get into a sealed guest without writing to its image: keys, an SMBIOS credential, or a NoCloud seed.

Owns the files that verification places in a *running, disposable* guest and the client's side of them. The private
halves are made per guest in a 0700 folder and travel in 0600 files, never in an argument list; the guest's host key
is ours, so the client checks it strictly and nobody on this host can stand in for the guest.

With systemd 252 or later the credential `tmpfiles.extra` (systemd-tmpfiles-setup.service, before sysinit.target)
writes, before any ssh unit starts:

    /etc/default/ssh        SSHD_OPTS gains `-f /run/factory/sshd_config`; Debian's ssh.service reads it when it
                            starts sshd, whether by itself or through ssh.socket
    /run/factory/...        that configuration, one authorized key, our host key

The configuration includes ours first and then the image's own /etc/ssh/sshd_config, both at top level. sshd keeps the
first value it meets, and an Include restores the Match context it was called in (servconf.c, OpenSSH 9.2), so a
root login from the QEMU gateway gets ours whatever the image says, and everybody else gets the image's own.

Limits: sshd must listen on port 22 and be started by a unit that reads /etc/default/ssh; root must have a real shell;
a `Match` block of the image with DenyUsers, or PAM modules such as pam_access, can still refuse root.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from factory import proc
from factory.digest import hex_of, of_bytes
from factory.disk.seal import KEY_COMMENT
from factory.errors import BootError

GATEWAY = "10.0.2.2"
"""Where forwarded connections come from, as the guest sees it (QEMU's user network)."""

DEFAULT_SSH = "/etc/default/ssh"

PLACED = {
    "smbios": (DEFAULT_SSH,),
    "nocloud": (
        "/var/lib/cloud/**",
        "/etc/cloud/**",
        "/etc/ssh/ssh_host_*",
        "/etc/ssh/sshd_config",
        "/etc/ssh/sshd_config.d/*",
        "/etc/sudoers.d/90-cloud-init-users",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/netplan/*",
        "/etc/network/interfaces.d/*",
        "/etc/systemd/network/10-cloud-init-*",
        "/etc/udev/rules.d/70-persistent-net.rules",
        "/root/.ssh/**",
        "/var/log/cloud-init*",
    ),
}
"""What each way in changes on the guest's disk (patterns); everything else the credential places is in /run."""

_FOLDER = "/run/factory"
_OPTION = f"-f {_FOLDER}/sshd_config"
_SYSTEMD_WITH_SMBIOS = 252

_SSHD_CONFIG = f"""\
HostKey {_FOLDER}/host_key
HostKeyAlgorithms ssh-ed25519
UsePAM yes
MaxStartups 100
Include {_FOLDER}/sshd_root.conf
Include /etc/ssh/sshd_config
"""

_SSHD_ROOT = f"""\
Match User root Address {GATEWAY}
    PermitRootLogin prohibit-password
    PubkeyAuthentication yes
    PubkeyAcceptedAlgorithms ssh-ed25519
    AuthenticationMethods publickey
    AuthorizedKeysFile {_FOLDER}/authorized_keys
    AuthorizedKeysCommand none
    AllowUsers root
    AllowGroups *
    DenyUsers factory-denies-nobody
    DenyGroups factory-denies-nobody
    ForceCommand none
    ChrootDirectory none
    Banner none
    PermitTTY yes
    MaxSessions 100
    ClientAliveInterval 0
"""


@dataclass(frozen=True)
class Keys:
    """The key pairs of one guest: a folder (0700) with `id` (ours), `host_key` (the guest's), each with `.pub`."""

    folder: Path

    @property
    def identity(self) -> Path:
        return self.folder / "id"

    @property
    def host_key(self) -> Path:
        return self.folder / "host_key"

    @property
    def public(self) -> str:
        return (self.folder / "id.pub").read_text().strip()

    @property
    def host_public(self) -> str:
        return (self.folder / "host_key.pub").read_text().strip()


def make_keys(folder: Path) -> Keys:
    """Two fresh ed25519 pairs in `folder`, which is created with mode 0700. By their comment the seal knows them."""
    folder.mkdir(mode=0o700, parents=True)
    for name in ("id", "host_key"):
        proc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", KEY_COMMENT, "-f", str(folder / name)])
    return Keys(folder)


def remove_keys(keys: Keys) -> None:
    """Remove the keys and all that was made from them. Nothing there is fine."""
    shutil.rmtree(keys.folder, ignore_errors=True)


def systemd_version(version: str) -> int | None:
    """The major systemd version in a Debian package version such as `252.39-1~deb12u1`; None where there is none."""
    found = re.match(r"(?:\d+:)?(\d+)", version)
    return int(found.group(1)) if found else None


def entry_for(systemd: int | None, has_cloud_init: bool) -> str:
    """`smbios` or `nocloud`: the way into a guest with this systemd (None: not there). BootError for none."""
    if systemd is not None and systemd >= _SYSTEMD_WITH_SMBIOS:
        return "smbios"
    if has_cloud_init:
        return "nocloud"
    found = f"systemd {systemd}" if systemd is not None else "no systemd"
    raise BootError(
        f"there is no way into this guest: it has {found} and no cloud-init",
        hint=f"use a base with systemd {_SYSTEMD_WITH_SMBIOS} or later, or install cloud-init in the image",
    )


def sshd_options(default_ssh: str) -> str:
    """The value of SSHD_OPTS in an image's /etc/default/ssh (the last assignment counts), unquoted."""
    value = ""
    for line in default_ssh.splitlines():
        if match := re.match(r"\s*SSHD_OPTS=(.*)$", line):
            value = match.group(1).strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
    return value


def entered(default_ssh: str) -> str:
    """The text that the credential makes of an image's /etc/default/ssh."""
    options = f"{sshd_options(default_ssh)} {_OPTION}".strip()
    return f'{default_ssh.rstrip()}\nSSHD_OPTS="{options}"\n'.lstrip()


def left(found: str, default_ssh: str) -> str:
    """What a guest made of `entered(default_ssh)`, without what was ours: our line, or our option in a changed one."""
    ours = entered(default_ssh).splitlines()[-1]
    kept = "".join(line for line in found.splitlines(keepends=True) if line.rstrip("\n") != ours)
    return re.sub(rf"^(\s*SSHD_OPTS=.*?) ?{re.escape(_OPTION)}(?![\w./-])", r"\1", kept, flags=re.MULTILINE)


def credential(keys: Keys, default_ssh: str = "") -> str:
    """The SMBIOS type 11 string that lets `keys` in; `default_ssh` is the image's own /etc/default/ssh.

    It holds the guest's private host key: write it to a 0600 file (`write_credential`).
    """
    return "io.systemd.credential.binary:tmpfiles.extra=" + _base64(_tmpfiles(keys, default_ssh).encode())


def write_credential(keys: Keys, default_ssh: str = "") -> Path:
    """`credential` in a 0600 file beside the keys, for `-smbios type=11,path=`."""
    path = keys.folder / "credential"
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(credential(keys, default_ssh))
    return path


def _tmpfiles(keys: Keys, default_ssh: str) -> str:
    """The tmpfiles.d lines (systemd 250 or later: `~` decodes base64)."""
    files = (
        (DEFAULT_SSH, "0644", entered(default_ssh)),
        (f"{_FOLDER}/sshd_config", "0600", _SSHD_CONFIG),
        (f"{_FOLDER}/sshd_root.conf", "0600", _SSHD_ROOT),
        (f"{_FOLDER}/authorized_keys", "0600", keys.public + "\n"),
        (f"{_FOLDER}/host_key", "0600", keys.host_key.read_text()),
    )
    lines = [f"d {_FOLDER} 0700 root root -"]
    lines += [f"f+~ {path} {mode} root root - {_base64(text.encode())}" for path, mode, text in files]
    return "\n".join(lines) + "\n"


def seed_iso(keys: Keys, path: Path) -> Path:
    """A cloud-init NoCloud seed (volume `cidata`) that lets `keys` in as root, at `path` (0600).

    As with the credential the guest's host key is ours. For guests whose systemd has no SMBIOS credentials.
    """
    folder = keys.folder / "cidata"
    folder.mkdir(mode=0o700)
    (folder / "meta-data").write_text(
        f"instance-id: factory-{hex_of(of_bytes(keys.public.encode()))[:12]}\nlocal-hostname: guest\n"
    )
    (folder / "user-data").write_text(_user_data(keys))
    path.touch(mode=0o600)
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock"]
    proc.run([*command, "-output", str(path), str(folder)])
    return path


def _user_data(keys: Keys) -> str:
    """cloud-config as JSON, which is YAML."""
    config = {
        "disable_root": False,
        "ssh_deletekeys": False,
        "ssh_genkeytypes": ["ed25519"],
        "ssh_keys": {"ed25519_private": keys.host_key.read_text(), "ed25519_public": keys.host_public},
        "users": [{"name": "root", "lock_passwd": False, "ssh_authorized_keys": [keys.public]}],
        # What cloud-init would set up unasked is the image's own to decide.
        "apt": {"preserve_sources_list": True},
        "grub_dpkg": {"enabled": False},
        "locale": False,
    }
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"


def known_hosts(keys: Keys, port: int) -> Path:
    """A known_hosts file that accepts the guest on this port of 127.0.0.1 and nobody else."""
    path = keys.folder / "known_hosts"
    path.write_text(f"[127.0.0.1]:{port} {keys.host_public}\n")
    return path


def ssh_config(keys: Keys, port: int) -> Path:
    """An ssh client configuration for the host alias `guest`: strict, our key only, one shared connection.

    The connection's socket is relative to the current folder (a socket's path may have at most 107 bytes): run ssh in
    `keys.folder`.
    """
    path = keys.folder / "ssh_config"
    path.write_text(
        f"""\
Host guest
    HostName 127.0.0.1
    Port {port}
    User root
    IdentityFile "{keys.identity}"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{known_hosts(keys, port)}"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    HostKeyAlgorithms ssh-ed25519
    PreferredAuthentications publickey
    BatchMode yes
    ForwardAgent no
    ForwardX11 no
    ControlMaster auto
    ControlPath mux
    ControlPersist 60
    ServerAliveInterval 30
    ServerAliveCountMax 10
    LogLevel ERROR
"""
    )
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
