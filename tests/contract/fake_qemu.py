"""What runs in QEMU's place in quick tests: takes its arguments, and behaves like it where the provider looks.

A real process with a real HTTP server on the forwarded port and QMP on the socket; the "disk" is a JSON file that says
how its machine behaves: `boot_s` (until then connections are taken, and closed after `closes_s`, as QEMU's forward
does; soon, unless told otherwise), `status` and `body` of /, `starts` (false: QEMU itself fails). A file `sick` in its
folder makes it answer 500, a file `hung` not at all.
A disk of other text answers with it. `/slow?1.5` takes so many seconds; `/credentials` says what SMBIOS was given.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from factory.vm.machine import Machine, arguments

BEGAN = time.monotonic()


def command(machine: Machine) -> list[str]:
    """The command line, in the place of QEMU's."""
    return [sys.executable, __file__, *arguments(machine)[1:]]


def disk(path: Path, **behaviour: Any) -> Path:
    """A golden image that behaves so, whole at any moment: a machine that was started before may still read it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps(behaviour))
    return fresh.replace(path)


def main(argv: list[str]) -> None:
    given = " ".join(argv)
    (filename,) = re.findall(r'"filename": "([^"]+)", "node-name": "artifact-file"', given)
    text = Path(filename).read_text()
    behaves = json.loads(text) if text.startswith("{") else {"body": text}
    if not behaves.get("starts", True):
        sys.exit("qemu-system-x86_64: this disk is not for me")
    credentials = [Path(path).read_text() for path in re.findall(r"type=11,path=(\S+)", given)]
    server = Server(("127.0.0.1", 0), handler(behaves, credentials))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (guest_port,) = re.findall(r"hostfwd=tcp:127\.0\.0\.1:0-:(\d+)", given)

    def usernet() -> str:
        rows = [
            ("HOST_FORWARD", server.server_port),
            *((state, port) for port, state in list(server.connections.items())),
        ]
        return "".join(f"  TCP[{state}]  13  127.0.0.1 {port}  10.0.2.15 {guest_port}  0  0\n" for state, port in rows)

    Path("console.log").write_text("booting\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("qmp")
        listener.listen(4)
        while True:
            with listener.accept()[0] as connection:
                converse(connection, usernet)


def converse(connection: socket.socket, usernet: Callable[[], str]) -> None:
    file = connection.makefile("rw")
    try:
        print(json.dumps({"QMP": {"version": {}}}), file=file, flush=True)
        for line in file:
            asked = json.loads(line)["execute"]
            said = usernet() if asked == "human-monitor-command" else {}
            print(json.dumps({"event": "NOISE"}), json.dumps({"return": said}), sep="\n", file=file, flush=True)
            if asked == "quit":
                os._exit(0)
    except (OSError, ValueError):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1  # as libslirp listens: connections that it is too slow for are dropped

    def __init__(self, *how: Any) -> None:
        self.connections: dict[int, str] = {}
        super().__init__(*how)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections[client_address[1]] = "SYN_SENT"
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            self.connections.pop(request.getpeername()[1], None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def handler(behaves: dict[str, Any], credentials: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            if time.monotonic() - BEGAN < behaves.get("boot_s", 0):
                time.sleep(behaves.get("closes_s", 0.3))
                return
            self.server.connections[self.client_address[1]] = "ESTABLISHED"  # type: ignore[attr-defined]
            super().handle()

        def do_GET(self) -> None:
            status, body = behaves.get("status", 200), behaves.get("body", "")
            if self.path.startswith("/slow?"):
                time.sleep(float(self.path.partition("?")[2]))
            if self.path == "/credentials":
                body = "\n".join(credentials)
            while Path("hung").exists():
                time.sleep(0.1)
            if Path("sick").exists():
                status = 500
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


if __name__ == "__main__":
    main(sys.argv[1:])
