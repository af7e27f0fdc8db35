"""Runs the pages until somebody ends them: the address, the first copy, the server, the refreshing beside it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from factory.catalog.copies import Watch
from factory.errors import UsageError
from factory.model import Layout
from factory.pages import folder
from factory.pages.edition import Edition
from factory.pages.refresh import Refresher, Say
from factory.pages.site import Site

GRACE_S = 3
"""So long an answer that has begun may take to end when the server is told to."""


@dataclass(frozen=True)
class Address:
    """Where the server listens; port 0 is any that is free."""

    host: str
    port: int


def serve(layout: Layout, address: Address, say: Say, ready: Callable[[str], None]) -> None:
    """Serve until interrupted (KeyboardInterrupt). `ready` is told the URL once it answers.

    Raises UsageError where the address cannot be had, CatalogError where there is no catalog that can be read.
    """
    with (
        _listening(address) as listener,
        folder.mine(layout.cache / "pages") as copies,
        closing(Watch(layout.catalog)) as watch,
    ):
        asyncio.run(_serve(Refresher(layout, copies, watch, say), address, listener, ready))
    raise KeyboardInterrupt  # the only way that serving ends; of SIGINT asyncio makes a plain return


async def _serve(refresher: Refresher, address: Address, listener: socket.socket, ready: Callable[[str], None]) -> None:
    try:
        first = await asyncio.to_thread(refresher.copy)
        await _answer(refresher, Site(await Edition.of(refresher.layout, first), address.host), listener, ready)
    finally:
        refresher.end()


async def _answer(refresher: Refresher, site: Site, listener: socket.socket, ready: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        site, log_config=None, access_log=False, lifespan="off", server_header=False, proxy_headers=False,
        ws="none", timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    beside = [asyncio.create_task(refresher.run(site)), asyncio.create_task(_tell(server, listener, ready))]
    try:
        await server.serve(sockets=[listener])
    finally:
        refresher.end()
        for task in beside:
            task.cancel()
        for task in beside:
            with suppress(asyncio.CancelledError):
                await task
        await site.edition.retire()


async def _tell(server: uvicorn.Server, listener: socket.socket, ready: Callable[[str], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.02)
    ready(url_of(listener))


def url_of(listener: socket.socket) -> str:
    """The URL of what listens on a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    """A socket that listens there. UsageError where it cannot be had."""
    where = f"{address.host}:{address.port}"
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "no name of a machine"
        raise UsageError(
            f"{address.host[:80]!r} is no address of this machine: {said}", where="--host",
            hint="--host 127.0.0.1 serves this machine alone",
        ) from error  # fmt: skip
    with socket.socket(family, kind, protocol) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(target)
            listener.listen(128)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise UsageError(
                f"something else listens on {where}" if taken else f"cannot listen on {where}: {error.strerror}",
                where="--port" if taken or error.errno == errno.EACCES else "--host",
                hint="--port 0 takes any that is free",
            ) from error
        yield listener
