"""What every shared store does, over each scheme of the registry, for real: a folder, a web server with TLS."""

from __future__ import annotations

import functools
import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from factory import proc, stores
from factory.digest import Digest, of_bytes
from factory.errors import StoreError, UsageError
from factory.store import Store

DATA = bytes(range(256)) * 20000
DIGEST = of_bytes(DATA)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files with Range, as web servers do; breaks off, ignores Range or redirects where told to."""

    break_after: int | None = None
    ranges = True
    redirect: str | None = None
    asked: ClassVar[list[str | None]]

    def do_GET(self) -> None:
        type(self).asked.append(self.headers["Range"])
        if self.redirect:
            self.send_response(302)
            self.send_header("Location", self.redirect)
            self.end_headers()
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if match and self.ranges:
            start = int(match[1])
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:] if self.break_after is None else data[start : self.break_after])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    proc.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    )  # fmt: skip
    return folder


@pytest.fixture
def served(tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Handler]]]:
    """The URL of a web server over `tmp_path/shared`, trusted, and its handler to misbehave with."""

    class Fresh(Handler):
        asked: ClassVar[list[str | None]] = []

    (tmp_path / "shared").mkdir(exist_ok=True)
    handler = functools.partial(Fresh, directory=str(tmp_path / "shared"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}", Fresh
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(params=sorted(stores.REGISTRY))
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> stores.SharedStore:
    """A shared store of each kind whose files are those of `tmp_path/shared`."""
    makers: dict[str, Callable[[], str]] = {
        "file": lambda: (tmp_path / "shared").as_uri(),
        "https": lambda: str(request.getfixturevalue("served")[0]),
    }
    return stores.connect(makers[request.param]())


def leave_partial(local: Store, data: bytes) -> None:
    """A fetch of DIGEST that the user interrupted when `data` had come."""
    with suppress(KeyboardInterrupt), local.receiving(DIGEST) as file:
        assert file is not None
        file.write(data)
        raise KeyboardInterrupt


@pytest.fixture
def origin(tmp_path: Path) -> Store:
    return Store(tmp_path / "shared")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(tmp_path / "local")


def test_fetch_brings_the_bytes(shared: stores.SharedStore, origin: Store, local: Store) -> None:
    origin.put_bytes(DATA)
    assert stores.fetch(local, shared, DIGEST).read_bytes() == DATA
    origin.remove(DIGEST)
    assert stores.fetch(local, shared, DIGEST) == local.path(DIGEST)


def test_fetch_of_what_is_not_there_says_so(shared: stores.SharedStore, local: Store) -> None:
    with pytest.raises(StoreError):
        stores.fetch(local, shared, DIGEST)
    assert not local.has(DIGEST)


@pytest.mark.parametrize("wrong", [b"", b"x", DATA[:-1] + b"x", DATA + b"x", DATA[:-1]])
def test_fetch_of_the_wrong_bytes_is_refused(
    shared: stores.SharedStore, origin: Store, local: Store, wrong: bytes
) -> None:
    origin.put_bytes(b"")
    origin.path(DIGEST).write_bytes(wrong)
    with pytest.raises(StoreError, match="refused and dropped"):
        stores.fetch(local, shared, DIGEST)
    assert not local.has(DIGEST)
    assert not any(path.suffix == ".part" for path in local.path(DIGEST).parent.parent.rglob("*"))


def test_fetch_with_wrong_bytes_from_before_ends_well_at_the_latest_the_second_time(
    shared: stores.SharedStore, origin: Store, local: Store
) -> None:
    origin.put_bytes(DATA)
    leave_partial(local, b"old and wrong")
    try:
        stores.fetch(local, shared, DIGEST)
    except StoreError:
        stores.fetch(local, shared, DIGEST)
    assert local.path(DIGEST).read_bytes() == DATA


def test_push_puts_the_bytes_or_says_that_it_cannot(shared: stores.SharedStore, origin: Store, local: Store) -> None:
    local.put_bytes(DATA)
    try:
        stores.push(local, shared, DIGEST)
    except StoreError as error:
        assert "read only" in error.message  # noqa: PT017
    else:
        assert origin.verify(DIGEST).read_bytes() == DATA
        stores.push(local, shared, DIGEST)


def test_push_of_a_damaged_file_is_refused(tmp_path: Path, local: Store, origin: Store) -> None:
    local.put_bytes(DATA)
    local.path(DIGEST).chmod(0o644)
    local.path(DIGEST).write_bytes(b"rot")
    with pytest.raises(StoreError, match="damaged"):
        stores.push(local, stores.connect(f"file:{tmp_path}/shared"), DIGEST)
    assert not origin.has(DIGEST)


def test_fetch_over_https_goes_on_where_it_broke_off(
    served: tuple[str, type[Handler]], origin: Store, local: Store
) -> None:
    url, handler = served
    origin.put_bytes(DATA)
    handler.break_after = 1_000_000
    with pytest.raises(StoreError) as caught:
        stores.fetch(local, stores.connect(url), DIGEST)
    assert "goes on" in str(caught.value.hint)
    handler.break_after = None
    stores.fetch(local, stores.connect(url), DIGEST)
    assert handler.asked == [None, "bytes=1000000-"]
    assert local.path(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize("have", [1000, len(DATA)])
@pytest.mark.parametrize("ranges", [True, False])
def test_fetch_over_https_works_with_and_without_ranges(
    served: tuple[str, type[Handler]], origin: Store, local: Store, have: int, ranges: bool
) -> None:
    url, handler = served
    origin.put_bytes(DATA)
    handler.ranges = ranges
    leave_partial(local, DATA[:have])
    stores.fetch(local, stores.connect(url), DIGEST)
    assert local.path(DIGEST).read_bytes() == DATA


def test_fetch_over_https_refuses_a_redirect_away_from_it(
    served: tuple[str, type[Handler]], origin: Store, local: Store
) -> None:
    url, handler = served
    origin.put_bytes(DATA)
    handler.redirect = "http://127.0.0.1:9/x"
    with pytest.raises(StoreError, match="away from https"):
        stores.fetch(local, stores.connect(url), DIGEST)


def test_fetch_over_https_refuses_an_untrusted_host(
    served: tuple[str, type[Handler]], origin: Store, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.put_bytes(DATA)
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    with pytest.raises(StoreError, match="(?i)certificate"):
        stores.fetch(local, stores.connect(served[0]), DIGEST)
    assert not local.has(DIGEST)


def test_fetch_from_a_host_that_is_not_there_says_so(local: Store) -> None:
    with pytest.raises(StoreError, match="cannot fetch"):
        stores.fetch(local, stores.connect("https://127.0.0.1:9/x"), Digest(DIGEST))


def test_connect_of_an_unknown_scheme_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="s3:"):
        stores.connect("s3://bucket/x")
