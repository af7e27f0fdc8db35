"""What a sealed image must not hold: the data that the seal acts on, and that a sealed tree is judged by.

A pattern is an absolute path: `*` stands for anything within one name, a final `/**` for everything below a folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Action = Literal["remove", "files", "truncate"]


@dataclass(frozen=True)
class Rule:
    """`remove`: these paths go. `files`: the folders among them stay, with owner and mode. `truncate`: files are
    made empty. `what` is said of a path that is found there (with `truncate`: of a file that is not empty)."""

    action: Action
    what: str
    patterns: tuple[str, ...]
    kept: tuple[str, ...] = ()


HOMES = ("/root", "/home/*")


def _in_homes(*names: str) -> tuple[str, ...]:
    return tuple(f"{home}/{name}" for home in HOMES for name in names)


RULES: tuple[Rule, ...] = (
    Rule("remove", "an SSH host key", ("/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub")),
    Rule(
        "remove",
        "a random seed or a secret of one machine",
        (
            "/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/urandom/random-seed",
            "/boot/efi/loader/random-seed",
        ),
    ),
    Rule(
        "remove",
        "a rotated log",
        ("/var/log/journal/*/**", "/var/log/journal/*", "/var/log/*.gz", "/var/log/*.xz", "/var/log/*.old",
         "/var/log/*.[0-9]", "/var/log/*/*.gz", "/var/log/*/*.[0-9]", "/var/log/installer/**"),
    ),
    Rule("truncate", "a log that is not empty", ("/var/log/**",)),
    Rule(
        "remove",
        "a history",
        _in_homes(".bash_history", ".ash_history", ".sh_history", ".zsh_history", ".python_history", ".lesshst",
                  ".viminfo", ".mysql_history", ".psql_history", ".sqlite_history", ".wget-hsts",
                  ".sudo_as_admin_successful"),
    ),
    Rule("remove", "a trace of Ansible", _in_homes(".ansible", ".ansible/**", ".ansible_async", ".ansible_async/**")),
    Rule("files", "a cache", _in_homes(".cache/**")),
    Rule("files", "a cache", ("/var/cache/**",),
         kept=tuple(f"/var/cache/debconf/{name}.dat" for name in ("config", "passwords", "templates"))),
    Rule("files", "apt's lists", ("/var/lib/apt/lists/**", "/var/lib/apt/mirrors/**", "/var/lib/apt/periodic/**")),
    Rule("remove", "a backup copy", ("/var/backups/**", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-",
                                     "/etc/subuid-", "/etc/subgid-", "/var/lib/dpkg/*-old", "/etc/ld.so.cache~")),
    Rule("remove", "a lock", ("/etc/.pwd.lock", "/var/lib/dpkg/lock", "/var/lib/dpkg/lock-frontend",
                              "/var/lib/dpkg/triggers/Lock")),
    Rule("remove", "a temporary file", ("/tmp/**", "/var/tmp/**")),  # noqa: S108
    Rule("remove", "a running system's state", ("/run/**", "/dev/**", "/proc/**", "/sys/**")),
    Rule("remove", "a file system's own folder", ("/lost+found", "/lost+found/**")),
    Rule("remove", "the bake's policy-rc.d", ("/usr/sbin/policy-rc.d",)),
    Rule(
        "remove",
        "the bake's package configuration",
        ("/etc/apt/apt.conf.d/*factory-bake*", "/etc/apt/preferences.d/*factory-bake*",
         "/etc/apt/sources.list.d/*factory-bake*", "/etc/dpkg/dpkg.cfg.d/*factory-bake*",
         "/etc/apt/apt.conf.d/99mmdebstrap", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap"),
    ),
    Rule("files", "cloud-init's memory of an instance", ("/var/lib/cloud/**",)),
    Rule("remove", "cloud-init's network of an instance", ("/etc/systemd/network/10-cloud-init-*",)),
    Rule("files", "a lease", ("/var/lib/dhcp/**", "/var/lib/NetworkManager/**", "/var/lib/systemd/network/**",
                              "/var/lib/dhcpcd/**")),
    Rule("files", "the memory of one machine", ("/var/lib/systemd/timers/**", "/var/lib/systemd/timesync/**",
                                                "/var/lib/systemd/coredump/**", "/var/lib/systemd/pstore/**",
                                                "/var/lib/private/systemd/**")),
    Rule("remove", "a container's mark", ("/.dockerenv", "/run/.containerenv")),
)  # fmt: skip


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path fits one of the patterns."""
    return _compiled(tuple(patterns)).fullmatch(path) is not None


def rule_for(path: str) -> Rule | None:
    """The first rule that covers a path; None where it may stay as it is."""
    if _ANY.fullmatch(path) is None:
        return None
    for rule in RULES:
        if matches(path, rule.patterns):
            return None if matches(path, rule.kept) else rule
    return None


@cache
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL)


def _expression(pattern: str) -> str:
    below = pattern.endswith("/**")
    parts = re.split(r"(\*|\[0-9\])", pattern.removesuffix("/**"))
    body = "".join({"*": "[^/]*", "[0-9]": "[0-9]+"}.get(part, re.escape(part)) for part in parts)
    return body + ("/.+" if below else "")


_ANY = _compiled(tuple(pattern for rule in RULES for pattern in rule.patterns))
