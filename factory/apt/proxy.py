"""The caching HTTP proxy that all apt traffic of a bake goes through, a thread of this process on 127.0.0.1.

Owns what apt is told:

- A `.deb` is kept for ever. One that a repository's index names by digest is served by that digest, wherever it came
  from, and is kept only if it has it.
- Anything else (`dists/…`) belongs to a *snapshot*: asked for once, then always answered the same, also that it does
  not exist, so that every bake sees the repository as of the last refresh and works offline. `refresh` fetches all of a
  new snapshot before it puts it in force; one that fails or is killed leaves the old one in force.
- What is neither here nor to be had is answered 503 and remembered in `misses`.
- `/factory/pins/<id>/` is a repository that exists only here: the pinned packages that are in the cache.

GET and HEAD of http URLs only; contents are streamed, never held in memory.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO

from factory.apt import deb, virtual
from factory.apt.snapshot import Snapshot, is_release, refetch
from factory.apt.store import Entry, Incoming, Store, remove_stale
from factory.digest import Digest
from factory.errors import BaseError
from factory.model import Package

GUEST_HOST = "10.0.2.2"
"""Where a guest on QEMU's user network reaches this host."""

_OWN_HOSTS = ("127.0.0.1", "localhost", GUEST_HOST)
_CHUNK_BYTES = 1 << 18
_UPSTREAM_TIMEOUT_S = 60
_HEAD_BYTES = 4096
_RELEASE_MARKS = (b"-----BEGIN PGP ", b"Origin:", b"Suite:", b"Codename:", b"MD5Sum:", b"SHA256:", b"Date:")
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


@dataclass(frozen=True)
class Expected:
    """What is known of a content before it comes."""

    url: str
    size: int | None
    digest: Digest | None


@dataclass(frozen=True)
class Miss:
    """A URL that could not be served, and why. `offline`: no server answered at all."""

    url: str
    reason: str
    offline: bool


class UpstreamError(Exception):
    """A repository cannot be reached (`offline`), broke off, or sent what it should not."""

    def __init__(self, message: str, *, offline: bool = False) -> None:
        super().__init__(message)
        self.offline = offline


class AptProxy:
    """A context manager: the proxy serves while it is entered, on `port`. `cache` is a folder of its own, `cache/apt`.

    A proxy stays with the snapshot that was in force when it was made until its own `refresh`. `misses`: what could
    not be served because no network (or server) answered. `absent`: what the servers said does not exist.
    """

    def __init__(self, cache: Path) -> None:
        self.store = Store(cache)
        remove_stale(self.store.incoming, "*")
        self.snapshot = Snapshot(self.store, self.store.current())
        self.misses: list[Miss] = []
        self.absent: list[str] = []
        self._pins: dict[str, virtual.Repository] = {}
        self._server: ThreadingHTTPServer | None = None
        self._opener = urllib.request.build_opener()

    def __enter__(self) -> AptProxy:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, name="apt-proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    @property
    def port(self) -> int:
        assert self._server is not None, "the proxy has not been entered"
        return int(self._server.server_address[1])

    def url(self, host: str = "127.0.0.1") -> str:
        """The address of the proxy as seen from here, or from a guest (GUEST_HOST)."""
        return f"http://{host}:{self.port}"

    def offer_pins(self, pins: Iterable[Package]) -> str:
        """Serve those of `pins` that are in the cache as a repository; its path on this proxy, which ends in /."""
        repository = virtual.repository(self.store, pins)
        self._pins[repository.identifier] = repository
        return f"/factory/pins/{repository.identifier}/"

    def why_not(self, since: int = 0) -> str | None:
        """What to tell where a bake failed that went through this proxy: what it could not get, of the misses from
        number `since` on. None: nothing was missing."""
        misses = self.misses[since:]
        if not misses:
            return None
        lines = list(dict.fromkeys(f"{miss.url}: {miss.reason}" for miss in misses))
        more = f"\nand {len(lines) - 5} more" if len(lines) > 5 else ""
        what = "no network, and not cached" if misses[0].offline else "not cached, and not to be had"
        return f"{what}:\n" + "\n".join(lines[:5]) + more

    def refresh(self) -> list[str]:
        """Start a new snapshot: every index of the old one as it is now. BaseError where that cannot be had.

        Returns what was left out: repositories that are not to be had, and that no bake asked for since the last time.
        """
        identifier = self.store.new_snapshot_id()
        fresh = Snapshot(self.store, identifier)
        left_out = refetch(self.snapshot, fresh, self._fetch_now)
        self.store.switch(identifier)
        self.snapshot = fresh
        return left_out

    @contextlib.contextmanager
    def looking(self) -> Iterator[tuple[Snapshot, list[str]]]:
        """The repositories as they are now, and which were left out; nothing is put in force, and it is forgotten at
        the end. Needs no server, so not entered either. BaseError where they cannot be had."""
        identifier = self.store.new_snapshot_id()
        fresh = Snapshot(self.store, identifier)
        try:
            yield fresh, refetch(self.snapshot, fresh, self._fetch_now)
        finally:
            shutil.rmtree(self.store.snapshot(identifier).folder, ignore_errors=True)

    def fetch(self, url: str, client: Client) -> None:
        """Answer a request for `url`: from the cache, else from upstream, once however many ask."""
        found = self._cached(url)
        if found is None:
            with self.store.locked(url):
                found = self._cached(url)  # another may have fetched it while we waited
                if found is None:
                    self._fetch_through(url, client)
                    return
        if not found.used:
            self.snapshot.put(replace(found, used=True))
        if found.digest is None:
            client.refuse(HTTPStatus.NOT_FOUND, f"{url} does not exist in the snapshot of its repository")
        else:
            client.send_file(self.store.blob(found.digest))

    def _cached(self, url: str) -> Entry | None:
        if not deb.is_deb_url(url):
            return self.snapshot.get(url)
        expected = self.snapshot.expected_deb(url)
        if expected is not None:
            return Entry(url, expected) if self.store.has(expected) else None
        entry = self.store.pool.get(url)
        return entry if entry is not None and entry.digest is not None and self.store.has(entry.digest) else None

    def _fetch_through(self, url: str, client: Client) -> None:
        """Fetch from upstream into the cache and to the client at the same time."""
        is_deb = deb.is_deb_url(url)
        expected = self.snapshot.expected_deb(url) if is_deb else self.snapshot.expected(url)
        try:
            entry = self._download(url, expected, client)
            if is_deb and entry.digest is not None:
                self.store.describe_deb(*deb.describe(self.store.blob(entry.digest), entry.digest), entry.digest)
        except (UpstreamError, BaseError) as error:
            self.misses.append(Miss(url, str(error), offline=isinstance(error, UpstreamError) and error.offline))
            client.refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"factory: not cached, and cannot be fetched: {error}")
            return
        if not is_deb:
            self.snapshot.put(entry)
        elif entry.digest is not None:
            self.store.pool.put(entry)
        if entry.digest is None:
            self.absent.append(url)
            client.refuse(HTTPStatus.NOT_FOUND, f"{url} does not exist")

    def _fetch_now(self, url: str, expected: Digest | None) -> Entry:
        if expected is not None and self.store.has(expected):
            return Entry(url, expected, self.store.blob(expected).stat().st_size)
        try:
            return self._download(url, expected, None)
        except UpstreamError as error:
            raise BaseError(
                f"the package repositories cannot be read anew: {url}: {error}",
                where=url,
                hint="the snapshot of before stays in force; try again when the repository can be reached",
            ) from error

    def _download(self, url: str, expected: Digest | None, client: Client | None) -> Entry:
        """The content of `url` into the blobs; an entry without a digest where the server has none."""
        try:
            with self._opener.open(url, timeout=_UPSTREAM_TIMEOUT_S) as response:
                length = response.headers.get("Content-Length")
                size = int(length) if length and length.isdigit() else None
                return self._receive(Expected(url, size, expected), response, client)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _GONE:
                return Entry(url, None)
            raise UpstreamError(f"the server answered {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise UpstreamError(str(error.reason), offline=True) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UpstreamError(str(error) or type(error).__name__) from error

    def _receive(self, wanted: Expected, response: IO[bytes], client: Client | None) -> Entry:
        """Hand a content on as it comes, a chunk late: what fits one chunk is answered only once it is known to be
        right, of what is larger the end is held back until then."""
        with Incoming(self.store) as incoming:
            head = held = b""
            while chunk := response.read(_CHUNK_BYTES):
                head = head or chunk[:_HEAD_BYTES]
                incoming.write(chunk)
                if client is not None and held:
                    client.begin(wanted.size)
                    client.send(held)
                held = chunk
            if wanted.size not in (None, incoming.size):
                raise UpstreamError(f"broke off after {incoming.size} of {wanted.size} bytes")
            if wanted.digest not in (None, incoming.digest):
                raise UpstreamError(f"sent {incoming.digest} and not {wanted.digest}, as its index says")
            if is_release(wanted.url) and not any(mark in head for mark in _RELEASE_MARKS):
                raise UpstreamError("sent something that is no Release file")
            entry = Entry(wanted.url, incoming.keep(), incoming.size)
        if client is not None:
            client.begin(wanted.size)
            client.send(held)
        return entry

    def own(self, path: str, client: Client) -> None:
        """Answer a request for something of this proxy's own."""
        parts = path.removeprefix("/factory/pins/").replace("/./", "/").split("/", 1)
        repository = self._pins.get(parts[0])
        name = parts[1] if len(parts) == 2 else ""
        if not path.startswith("/factory/pins/") or repository is None:
            client.refuse(HTTPStatus.NOT_FOUND, f"this proxy has no {path}")
        elif name in repository.files:
            client.send_bytes(repository.files[name])
        elif name in repository.debs:
            client.send_file(self.store.blob(repository.debs[name]))
        else:
            client.refuse(HTTPStatus.NOT_FOUND, f"no {name} among these pins")

    def is_own(self, address: urllib.parse.SplitResult) -> bool:
        """Whether a request is for this proxy itself and not to be handed on."""
        try:
            if not address.netloc:
                return not address.scheme
            return address.hostname in _OWN_HOSTS and address.port == self.port
        except ValueError:
            return False


class Client:
    """The answer to one request. A client that went away does not stop the download it began."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self._begun = False
        self._body = handler.command != "HEAD"

    def begin(self, size: int | None) -> None:
        """The head of an answer of `size` bytes, once; not known: the connection's end is its end."""
        if self._begun:
            return
        self._begun = True
        if size is None:
            self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.send_response(HTTPStatus.OK)
            self._handler.send_header("Content-Type", "application/octet-stream")
            if size is None:
                self._handler.send_header("Connection", "close")
            else:
                self._handler.send_header("Content-Length", str(size))
            self._handler.end_headers()

    def send(self, data: bytes) -> None:
        if self._body:
            try:
                self._handler.wfile.write(data)
            except OSError:
                self._body = False
                self._handler.close_connection = True

    def send_bytes(self, data: bytes) -> None:
        self.begin(len(data))
        self.send(data)

    def send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            self.begin(path.stat().st_size)
            while self._body and (chunk := file.read(_CHUNK_BYTES)):
                self.send(chunk)

    def refuse(self, status: HTTPStatus, text: str) -> None:
        """An error; where an answer has begun, all that can be done is to break it off."""
        if self._begun:
            self._handler.close_connection = True
            return
        data = (text + "\n").encode()
        with contextlib.suppress(OSError):
            self._handler.send_response(status, text.encode("ascii", "replace").decode().replace("\n", " "))
            self._handler.send_header("Content-Type", "text/plain; charset=utf-8")
            self._handler.send_header("Content-Length", str(len(data)))
            self._handler.end_headers()
        self._begun = True
        self.send(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: AptProxy

    def do_GET(self) -> None:
        client = Client(self)
        try:
            self._answer(client)
        except Exception as error:  # a full disk, or a bug of ours: the bake is to say so, not this thread's stderr
            self.proxy.misses.append(Miss(self.path, f"{type(error).__name__}: {error}", offline=False))
            client.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"factory: {error}")

    def _answer(self, client: Client) -> None:
        address = urllib.parse.urlsplit(self.path)
        if self.proxy.is_own(address):
            self.proxy.own(address.path, client)
        elif address.scheme != "http":
            client.refuse(HTTPStatus.NOT_IMPLEMENTED, "factory's proxy fetches http: URLs only")
        else:
            self.proxy.fetch(self.path, client)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what matters is in `misses`."""
