"""Servers on loopback for tests: one that sends bytes as a script says, whatever HTTP thinks of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

Script = Sequence[bytes | float | None]
"""Bytes to send, seconds to wait, None: wait for the client to leave. In the end the connection is closed."""


class Scripted:
    """Plays a script to everyone who connects. `requests`: what came from each."""

    def __init__(self, script: Script, *, reads: bool = True) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self._reads = reads
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _play(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(20)
            if self._reads:
                received = b""
                while b"\r\n\r\n" not in received and (more := client.recv(65536)):
                    received += more
                self.requests.append(received)
            for part in self.script:
                if isinstance(part, bytes):
                    client.sendall(part)
                elif part is None:
                    client.recv(1)
                else:
                    time.sleep(part)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def scripted(*script: bytes | float | None, reads: bool = True) -> Iterator[Scripted]:
    server = Scripted(script, reads=reads)
    try:
        yield server
    finally:
        server.close()


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def closed_address() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"
