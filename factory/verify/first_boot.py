"""What any machine may write when it boots for the first time: a fixed list, each place with its reason.

Beyond it and an image's own `state`, nothing on the disk may change while it runs.

A pattern is an absolute path: `*` stands for anything within one name, a final `/**` for everything below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

FIRST_BOOT: tuple[tuple[str, str], ...] = (
    ("/etc/machine-id", "systemd gives the machine its identity"),
    ("/var/lib/dbus/machine-id", "D-Bus's copy of it"),
    ("/etc/ssh/ssh_host_ed25519_key*", "the machine makes its own ssh host key"),
    ("/etc/resolv.conf", "the network's name servers"),
    ("/etc/.updated", "systemd-update-done notes that /etc fits /usr"),
    ("/var/.updated", "systemd-update-done notes that /var fits /usr"),
    ("/etc/.pwd.lock", "systemd-sysusers and passwd lock the accounts"),
    ("/var/lib/systemd/random-seed", "entropy for the next boot"),
    ("/var/lib/systemd/timers/**", "when persistent timers last ran"),
    ("/var/lib/systemd/timesync/**", "the last known time"),
    ("/var/lib/systemd/network/**", "systemd-networkd's leases"),
    ("/var/lib/systemd/catalog/database", "the index of the journal's messages"),
    ("/var/lib/systemd/*", "folders that systemd makes (coredump, linger, pstore, …)"),
    ("/var/lib/private", "systemd-tmpfiles makes the folder for DynamicUser= services"),
    ("/var/cache/private", "systemd-tmpfiles makes the folder for DynamicUser= services"),
    ("/var/log/private", "systemd-tmpfiles makes the folder for DynamicUser= services"),
    ("/var/log/journal/**", "the journal"),
    ("/var/log/wtmp", "who logged in"),
    ("/var/log/btmp", "who failed to log in"),
    ("/var/log/lastlog", "when accounts last logged in"),
    ("/var/log/README", "systemd-tmpfiles explains where the logs went"),
    ("/var/lib/dhcp/**", "leases of dhclient"),
    ("/tmp/.*-unix", "systemd-tmpfiles makes the folders for X11's sockets"),  # noqa: S108
    ("/tmp/systemd-private-*/**", "private temporary folders of services"),  # noqa: S108
    ("/var/tmp/systemd-private-*/**", "private temporary folders of services"),  # noqa: S108
    ("/root/.ssh", "systemd's provision.conf makes the folder"),
)


def allowed(path: str, patterns: Iterable[str], state: Sequence[str]) -> bool:
    """Whether `path` may change: it is in a `state` folder (or is it), or fits one of the patterns."""
    if any(f"{path}/".startswith(place.rstrip("/") + "/") for place in state):
        return True
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)


def patterns() -> tuple[str, ...]:
    """The patterns of FIRST_BOOT."""
    return tuple(pattern for pattern, _ in FIRST_BOOT)


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    below = pattern.endswith("/**")
    body = "[^/]*".join(re.escape(part) for part in pattern.removesuffix("/**").split("*"))
    return re.compile(body + ("(/.*)?" if below else ""), re.DOTALL)
