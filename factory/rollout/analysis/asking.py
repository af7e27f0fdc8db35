"""One GET of a source of numbers: bounded in time as a whole and in size, no redirect followed.

The request runs in a thread of its own, because only so is there one bound for looking up the name, connecting, the
handshake and a server that sends a byte now and then; a thread that is given up ends with its connection. The token
goes to the server and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from factory import schema
from factory.errors import TrustError
from factory.redact import url_without_secrets
from factory.trust import reading

MAX_BYTES = 1 << 20
_MAX_TOKEN_BYTES = 1 << 14
_TOKEN = re.compile(r"[\x21-\x7e]+")


class NoAnswerError(Exception):
    """A source has no number; the text says why, in one line, without secrets."""


@dataclass(frozen=True)
class Question:
    """What a source is asked; placeholders are filled in."""

    url: str
    query: str
    timeout_s: float
    token_file: Path | None = None


@dataclass(frozen=True)
class Reply:
    """An answer: HTTP status and the whole body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON. NoAnswerError where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NoAnswerError(f"status {self.status}, and what came is no JSON") from None


def get(url: str, question: Question) -> Reply:
    """Ask a URL for JSON. NoAnswerError: not reachable, too late, too large, a redirect, no HTTP."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    if question.token_file is not None:
        headers["Authorization"] = f"Bearer {_token(question.token_file)}"
    request = _Request(url, headers, question.timeout_s)
    thread = threading.Thread(target=request.run, name="analysis", daemon=True)
    thread.start()
    thread.join(question.timeout_s)
    if thread.is_alive():
        request.give_up()
        raise NoAnswerError(f"{url_without_secrets(url)}: no whole answer within {question.timeout_s:g} s")
    if request.reply is None:
        raise NoAnswerError(f"{url_without_secrets(url)}: {request.problem}")
    if 300 <= request.reply.status < 400:
        raise NoAnswerError(f"{url_without_secrets(url)}: redirects are not followed (status {request.reply.status})")
    return request.reply


def _token(token_file: Path) -> str:
    try:
        raw = reading.read_private_file(token_file, "the token", max_bytes=_MAX_TOKEN_BYTES)
    except FileNotFoundError:
        raise NoAnswerError(f"there is no token file {token_file}") from None
    except (OSError, TrustError) as error:
        raise NoAnswerError(str(error)) from None
    token = raw.decode("utf-8", "replace").strip()
    if not _TOKEN.fullmatch(token):
        raise NoAnswerError(f"{token_file} holds no token")
    return token


@dataclass
class _Request:
    url: str
    headers: dict[str, str]
    timeout_s: float
    reply: Reply | None = None
    problem: str = ""
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)
    _socket: socket.socket | None = field(default=None, repr=False)

    def run(self) -> None:
        try:
            self._connection = self._connect()
            self._connection.connect()
            self._socket = self._connection.sock  # http.client drops its own reference when it has read the headers
            self._ask(self._connection)
        except TimeoutError:
            self.problem = f"no answer within {self.timeout_s:g} s"
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # AttributeError: http.client's own, where the connection was given up under its hands
            self.problem = schema.quoted(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        finally:
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        parts = urlsplit(self.url)
        connection.request("GET", (parts.path or "/") + f"?{parts.query}" * bool(parts.query), headers=self.headers)
        response = connection.getresponse()
        body = response.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            self.problem = f"more than {MAX_BYTES} bytes"
        elif response.length:  # http.client tells only those who ask for all of a body that it was cut
            self.problem = "the answer broke off"
        else:
            self.reply = Reply(response.status, body)

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=self.timeout_s)

    def give_up(self) -> None:
        """End the connection, so that the thread ends too. Nothing to do where it has ended."""
        used = self._socket or getattr(self._connection, "sock", None)
        if used is not None:
            with suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)
