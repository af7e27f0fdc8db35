"""What answers a request: the gate (which paths, which methods, which hosts), and behind it the edition of the moment.

Only what is listed here is served. Every answer carries headers that let a browser run nothing: no script at all, no
style but ours, no frame. Where only this machine is served, a request must also name this machine, so that a page from
elsewhere that points its own name here (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import re
from typing import Any

from factory.pages.edition import Edition
from factory.pages.plugin.tables import SHOWN

_METHODS = ("GET", "HEAD")
_PATHS = re.compile(
    r"/|/image/[0-9a-f]{64}(?:/packages(?:\.csv|\.json)?|/lineage(?:\.svg)?)?|/search|/package|/catalog"
    rf"|/catalog/(?:{'|'.join(SHOWN)})(?:\.json|\.csv)?|/-/lineage\.css"
    r"|/-/static-plugins/factory\.pages\.plugin/[a-z.-]+"
)
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
        b" frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Site:
    """An ASGI application. `edition` is what it serves; `host` the address it listens on."""

    def __init__(self, edition: Edition, host: str) -> None:
        self.edition = edition
        self._is_local = is_loopback(host)

    async def swap(self, edition: Edition) -> None:
        """Serve another edition from now on; what is being answered ends on the old one."""
        old, self.edition = self.edition, edition
        await old.retire()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"this server does not speak {scope['type']}")

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in _HEADERS}
                kept = [item for item in message.get("headers", []) if item[0].lower() not in names]
                message = {**message, "headers": [*kept, *_HEADERS]}
            await send(message)

        if scope["method"] not in _METHODS:
            await _refuse(sent, 405, "Only GET: nothing can be changed here.", ((b"allow", b"GET, HEAD"),))
        elif self._is_local and not _names_this_machine(scope):
            await _refuse(sent, 421, "This server answers only to the name localhost.")
        else:
            if not _PATHS.fullmatch(scope["path"]):
                scope = {**scope, "path": "/nothing-here", "raw_path": b"/nothing-here", "query_string": b""}
            await self.edition(scope, receive, sent)


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    return host in _LOCAL or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host) is not None


def _names_this_machine(scope: Any) -> bool:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
    found = [re.fullmatch(r"\[?([0-9a-zA-Z.:-]+?)\]?(?::[0-9]+)?", host) for host in hosts]
    return len(found) == 1 and found[0] is not None and is_loopback(found[0][1].lower())


async def _refuse(send: Any, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = f"{text}\n".encode()
    plain = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *headers]})
    await send({"type": "http.response.body", "body": body})
