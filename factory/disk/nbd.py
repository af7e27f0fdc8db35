"""The content of a stored disk image, read through `qemu-nbd` on a private socket: no second copy on the disk.

Owns one small client of the NBD protocol (fixed newstyle handshake, simple replies; proto.md of the NBD project) with a
few reads in flight. The server is opened read-only, dies with the thread that started it, and serves one client.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from factory import proc
from factory.errors import DiskError

_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_IN_FLIGHT = 8
_START_S = 20.0


def read(image: Path, format_: str, ranges: Iterable[tuple[int, int]]) -> Generator[bytearray, None, None]:
    """The bytes of each (offset, length) of the image's raw content, in the order asked. Raises DiskError."""
    with tempfile.TemporaryDirectory(prefix="factory-nbd-") as folder:
        path, log = Path(folder) / "socket", Path(folder) / "log"
        argv = [
            "qemu-nbd",
            "--read-only",
            "--format",
            format_,
            "--socket",
            str(path),
            "--cache",
            "writeback",
            str(image),
        ]
        with log.open("wb") as output:
            server = proc.spawn(argv, stdout=output)
        try:
            with socket.socket(socket.AF_UNIX) as link:
                _connect(link, path, lambda: server.poll() is None)
                _handshake(link)
                yield from _pipelined(link, ranges)
        except OSError as error:
            said = log.read_text("utf-8", "replace").strip()
            raise DiskError(f"the image cannot be read: {said or error}", where=str(image)) from error
        finally:
            proc.end(server)


def _connect(link: socket.socket, path: Path, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            link.connect(str(path))
            return
        except OSError:
            if not alive() or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _handshake(link: socket.socket) -> None:
    if _exactly(link, 18)[:16] != b"NBDMAGICIHAVEOPT":
        raise OSError("the server does not speak NBD")
    link.sendall(struct.pack(">I", 3))  # fixed newstyle, no zeroes
    link.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 0))  # the export with the empty name
    _exactly(link, 10)  # its size and flags


def _pipelined(link: socket.socket, ranges: Iterable[tuple[int, int]]) -> Generator[bytearray, None, None]:
    waiting: deque[int] = deque()  # handles, in the order asked
    arrived: dict[int, bytearray] = {}
    lengths: dict[int, int] = {}
    for handle, (offset, length) in enumerate(ranges):
        link.sendall(_REQUEST.pack(0x25609513, 0, 0, handle, offset, length))
        waiting.append(handle)
        lengths[handle] = length
        if len(waiting) >= _IN_FLIGHT:
            yield _next(link, waiting, arrived, lengths)
    while waiting:
        yield _next(link, waiting, arrived, lengths)
    link.sendall(_REQUEST.pack(0x25609513, 0, 2, 0, 0, 0))


def _next(
    link: socket.socket, waiting: deque[int], arrived: dict[int, bytearray], lengths: dict[int, int]
) -> bytearray:
    wanted = waiting.popleft()
    while wanted not in arrived:
        magic, failed, handle = _REPLY.unpack(_exactly(link, _REPLY.size))
        if magic != 0x67446698 or handle not in lengths:
            raise OSError("the server's answer makes no sense")
        if failed:
            raise OSError(failed, "a part of the image cannot be read; it is damaged")
        arrived[handle] = _exactly(link, lengths.pop(handle))
    return arrived.pop(wanted)


def _exactly(link: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = link.recv_into(view)
        if not got:
            raise OSError("the server went away")
        view = view[got:]
    return data
