"""QMP over a socket: a guest that somebody else started, asked from outside. Never starts or waits for a guest.

One client at a time is served by QEMU, the others wait: every conversation here is one command long and has a
deadline. The socket is reached through its folder's descriptor, since a path of more than 107 bytes is no address
(unix(7)), and a factory may lie deep.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from factory.errors import ToolError


def connect(folder: Path, name: str, timeout_s: float) -> socket.socket:
    """A connection to the socket `name` in a folder. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.settimeout(timeout_s)
        connection.connect(f"/proc/self/fd/{descriptor}/{name}")
    except BaseException:
        connection.close()
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return connection


def ask(folder: Path, name: str, command: str, timeout_s: float, **arguments: Any) -> Any:
    """What QEMU returns for one command. Raises ToolError: refused, not there, no answer within `timeout_s`."""
    ends_at = time.monotonic() + timeout_s
    try:
        with connect(folder, name, timeout_s) as connection, connection.makefile("rb") as answers:
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = _answer(connection, answers, ends_at)
            return answer
    except (OSError, ValueError) as error:
        raise ToolError(f"QEMU does not answer {command}: {error}", where=str(folder / name)) from error


def _answer(connection: socket.socket, answers: Any, ends_at: float) -> Any:
    """The next message that answers a command; greeting and events are passed over."""
    while True:
        connection.settimeout(max(0.01, ends_at - time.monotonic()))
        raw = answers.readline()
        if not raw:
            raise OSError("it closed the connection")
        message = json.loads(raw)
        if "return" in message:
            return message["return"]
        if "error" in message:
            raise ToolError(f"QEMU refused: {message['error'].get('desc')}")
