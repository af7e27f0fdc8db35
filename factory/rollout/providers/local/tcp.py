"""Whether guests' TCP ports are open. QEMU's forward accepts every connection, so QEMU is asked how it went inside."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from factory.errors import ToolError
from factory.rollout.providers.local.guests import Guest, Guests

AT_ONCE = 256
"""So many guests are asked at once, each in a thread."""

_POLL_S = 0.05


def are_open(guests: Guests, asked: Iterable[Guest]) -> dict[str, bool | None]:
    """Id -> as `is_open`. All are asked at once, so that those that hang take as long as one of them does."""
    everyone = list(asked)
    if not everyone:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(everyone)), thread_name_prefix="tcp") as pool:
        answers = pool.map(lambda guest: is_open(guests, guest), everyone)
        return {guest.id: answer for guest, answer in zip(everyone, answers, strict=True)}


def is_open(guests: Guests, guest: Guest) -> bool | None:
    """Whether a connection to the guest's health port came to be inside; None where there is no port yet."""
    if guest.port is None:
        return None
    ends_at = time.monotonic() + min(guests.fleet.health.timeout_s, 2.0)
    try:
        with socket.create_connection(("127.0.0.1", guest.port), timeout=1) as connection:
            connection.setblocking(False)
            ours = connection.getsockname()[1]
            while time.monotonic() < ends_at and not _is_closed(connection):
                if state_in(guests.usernet(guest), ours) == "ESTABLISHED":
                    return True
                time.sleep(_POLL_S)
    except (OSError, ToolError):
        pass
    return False


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection; what it may have said stays unread."""
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def state_in(info_usernet: str, source_port: int) -> str | None:
    """The state of the connection that came from a port of the host (QEMU 7.2: `TCP[STATE] fd address port …`)."""
    found = re.search(rf"TCP\[(\w+)\]\s+\d+\s+\S+\s+{source_port}\s", info_usernet)
    return found.group(1) if found else None
