"""What makes a bootstrapped tree a machine: the packages, and the files we add. Data, and pure functions of it.

The tree is kept small, since every later step is proportional to it. Manual pages, translations and most of
/usr/share/doc are left out by dpkg's own path-excludes, which stay in force for what a playbook installs (people do
not read manuals on a machine that nobody changes); copyright files, which licences ask for, and examples, which
playbooks copy from, stay. /usr is merged from the start, so that `usrmerge` and the whole of Perl are not needed.

The initramfs loads drivers from a short list (virtio, NVMe, AHCI: QEMU, KVM clouds, AWS) instead of what a build host
happens to have. Times, addresses and keys come to be when a machine starts: DHCP on every wired interface, an ed25519
host key (RSA takes half a minute in an emulated guest), no hostname, no timer that would change packages.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from factory import digest
from factory.digest import Digest

EPOCH = 1672531200
"""SOURCE_DATE_EPOCH of a bootstrap, 2023-01-01. Not 0: /etc/shadow would say that passwords must be changed."""

_PACKAGES = (
    "ca-certificates", "dbus", "e2fsprogs", "initramfs-tools", "iproute2", "kmod", "netbase", "openssh-server",
    "procps", "python3", "python3-apt", "sudo", "systemd", "systemd-resolved", "systemd-sysv", "udev", "zstd",
)  # fmt: skip
_NOT_IN_SUITE = {"bullseye": ("systemd-resolved",)}  # part of systemd there
_CLOUD_KERNELS = ("amd64", "arm64")
_KERNEL_OF_ARCH = {"i386": "686-pae", "armhf": "armmp", "ppc64el": "powerpc64le"}

NEVER = ("usrmerge",)
"""Not to be chosen while bootstrapping: see above."""

ENABLED = ("systemd-networkd.service", "systemd-resolved.service", "ssh-host-key.service")
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
)
"""What would change, or make a copy of, what never changes."""

SLIM = "etc/dpkg/dpkg.cfg.d/factory-slim"
_FILES = {
    SLIM: """\
# factory: what is read by people and not by machines is left out of images
path-exclude=/usr/share/doc/*/*
path-include=/usr/share/doc/*/copyright
path-include=/usr/share/doc/*/examples*
path-exclude=/usr/share/man/*.gz
path-exclude=/usr/share/info/*.gz
path-exclude=/usr/share/locale/*/*
""",
    "etc/initramfs-tools/conf.d/factory": "MODULES=list\nCOMPRESS=zstd\n",
    "usr/share/initramfs-tools/modules.d/factory": "ahci\next4\nnvme\nsd_mod\nvirtio_blk\nvirtio_pci\nvirtio_scsi\n",
    "etc/systemd/network/80-factory.network": """\
[Match]
Type=ether
Name=en* eth*

[Network]
DHCP=yes

[DHCPv4]
UseDomains=yes
""",
    "etc/systemd/resolved.conf.d/factory.conf": """\
# The servers that DHCP names are asked directly: nothing listens.
[Resolve]
DNSStubListener=no
LLMNR=no
MulticastDNS=no
""",
    "etc/systemd/system/ssh-host-key.service": """\
[Unit]
Description=Make this machine's SSH host key
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
""",
}
_MERGED = {
    "amd64": ("bin", "sbin", "lib", "lib32", "lib64", "libx32"),
    "i386": ("bin", "sbin", "lib", "lib64", "libx32"),
}


def packages(arch: str, suite: str, include: tuple[str, ...]) -> tuple[str, ...]:
    """The packages to ask for, sorted: those of every machine, a kernel, and what the spec adds."""
    flavour = f"cloud-{arch}" if arch in _CLOUD_KERNELS else _KERNEL_OF_ARCH.get(arch, arch)
    left_out = _NOT_IN_SUITE.get(suite, ())
    return tuple(sorted(({*_PACKAGES, f"linux-image-{flavour}"} - {*left_out}) | {*include}))


def overlay(arch: str, more: Mapping[str, str]) -> bytes:
    """A tar of the files that are in the tree before any package is; `more` on top of ours, by path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in _MERGED.get(arch, ("bin", "sbin", "lib")):
            folder = _member(f"usr/{name}", tarfile.DIRTYPE, 0o755)
            archive.addfile(folder)
            link = _member(name, tarfile.SYMTYPE, 0o777)
            link.linkname = f"usr/{name}"
            archive.addfile(link)
        for path, text in sorted({**_FILES, **more}.items()):
            data = text.encode()
            member = _member(path, tarfile.REGTYPE, 0o644)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def recipe() -> Digest:
    """The digest of all that this module decides."""
    return digest.of_json([EPOCH, _PACKAGES, NEVER, ENABLED, MASKED, _FILES])


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, EPOCH
    return member
