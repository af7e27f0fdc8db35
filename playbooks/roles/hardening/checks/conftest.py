"""What the checks of this role look at, fetched from the machine by one remote command for all of them.

In an emulated guest each command costs a good part of a second. It writes nothing.
"""

from dataclasses import dataclass

import pytest

COMMANDS = {
    "sshd": "sshd -T",
    "sysctl": "cd /proc/sys && grep -Hs '' kernel/randomize_va_space kernel/yama/ptrace_scope kernel/core_pattern"
    " fs/suid_dumpable net/ipv4/ip_forward net/ipv4/icmp_* net/ipv4/tcp_syncookies"
    " net/ipv[46]/conf/{all,default}/{forwarding,send_redirects,accept_redirects,secure_redirects,rp_filter}"
    " net/ipv[46]/conf/{all,default}/{accept_source_route,log_martians}",
    "modprobe": "modprobe --showconfig",
    "modules": "cat /proc/modules",
    "mounts": "cat /proc/self/mounts",
    "modes": "stat -c '%n %a %U:%G' /etc/{passwd,group,shadow,gshadow,shells} /etc/cron.* /etc/at.*"
    " /etc/ssh/sshd_config /etc/security/opasswd /etc/motd /etc/issue /etc/issue.net",
    "text": "cd /etc && grep -H '' motd issue issue.net cron.allow at.allow passwd shadow login.defs default/useradd"
    " pam.d/su pam.d/common-auth profile.d/*.sh security/limits.d/* /root/.profile",
    "journald": "systemd-analyze cat-config systemd/journald.conf",
}

_guests = {}


@dataclass(frozen=True)
class Guest:
    """What a booted machine said. `sshd`, `sysctl`, `journald`: settings in force. `modes`: `640 root:shadow` by path.
    `text`: the lines of a file, by its path below /etc. `mounts`: options by mount point."""

    sshd: dict
    sysctl: dict
    journald: dict
    modprobe: list
    modules: set
    mounts: dict
    modes: dict
    text: dict

    def is_out_of_reach(self, module):
        """Whether a kernel module is not loaded and cannot be."""
        return module not in self.modules and f"install {module} /bin/false" in self.modprobe


@pytest.fixture
def guest(host):
    """The machine that is being checked."""
    if repr(host) not in _guests:
        _guests[repr(host)] = _look(host)
    return _guests[repr(host)]


def _look(host):
    script = "\n".join(f"echo '==> {name}'; ( {command} ) 2>/dev/null" for name, command in COMMANDS.items())
    sections = host.run("bash -c %s", script).stdout.split("==> ")[1:]
    said = {name: lines for name, *lines in (section.splitlines() for section in sections)}
    text = {}
    for line in said["text"]:
        path, _, content = line.partition(":")
        text.setdefault(path, []).append(content)
    return Guest(
        sshd=dict(line.partition(" ")[::2] for line in said["sshd"]),
        sysctl={path.replace("/", "."): value for path, _, value in (line.partition(":") for line in said["sysctl"])},
        journald=dict(line.split("=", 1) for line in said["journald"] if "=" in line and not line.startswith("#")),
        modprobe=said["modprobe"],
        modules={line.split()[0] for line in said["modules"]},
        mounts={line.split()[1]: set(line.split()[3].split(",")) for line in said["mounts"]},
        modes=dict(line.split(" ", 1) for line in said["modes"]),
        text=text,
    )
