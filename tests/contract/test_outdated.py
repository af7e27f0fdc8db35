"""factory outdated as it is typed: a repository on loopback is asked anew; nothing here is changed by that."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from test_cve_commands import Asker, ask

from factory.apt.proxy import AptProxy

__all__ = ["ask"]
WEB = "web"
IN_FORCE = "1.22.1-9+deb12u11"


class Repository:
    """`http://127.0.0.1:PORT/debian` with the dists bookworm and bookworm-security, and one that is not Debian's."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"repository": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/debian/"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def offer(self, dist: str, *packages: tuple[str, str], origin: str = "Debian") -> None:
        """What a dist offers from now on."""
        stanzas = [
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            f"SHA256: {hashlib.sha256(name.encode()).hexdigest()}\nFilename: pool/{name}.deb\n"
            for name, version in packages
        ]
        index = "\n".join(stanzas).encode()
        path = "main/binary-amd64/Packages"
        self.files[f"/debian/dists/{dist}/{path}"] = index
        listed = f" {hashlib.sha256(index).hexdigest()} {len(index)} {path}\n"
        release = f"Origin: {origin}\nSuite: {dist}\nCodename: {dist}\nSHA256:\n{listed}"
        self.files[f"/debian/dists/{dist}/InRelease"] = release.encode()


class _Handler(BaseHTTPRequestHandler):
    repository: Repository

    def do_GET(self) -> None:
        data = self.repository.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def repository(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """One that a bake has asked: what it offered then is what `web` has."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Repository()
    made.offer("bookworm", ("nginx-light", IN_FORCE), ("zlib1g", "1:1.2.13.dfsg-1"), ("tar", "1.34+dfsg-1.2+deb12u1"))
    made.offer("bookworm-security", ("libssl3", "3.0.22-1~deb12u2"))
    made.offer("bookworm-backports-of-others", ("tar", "1.0"), origin="Somebody")
    with AptProxy(ask.layout.cache / "apt") as proxy:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url()}))
        for path in made.files:
            opener.open(made.url.removesuffix("/debian/") + path).read()
    yield made
    made.stop()


def state(ask: Asker) -> dict[str, bytes]:
    """The lock, the snapshot in force and what belongs to it."""
    apt = ask.layout.cache / "apt"
    files = [
        ask.layout.lock,
        apt / "current",
        *sorted(path for path in (apt / "snapshots").rglob("*") if path.is_file()),
    ]
    return {str(path): path.read_bytes() for path in files}


def found(ask: Asker, *arguments: str) -> dict[str, dict[str, Any]]:
    return {row["package"]: row for row in ask.json("outdated", WEB, *arguments)["outdated"]}


def test_nothing_is_outdated_where_nothing_newer_is_offered(ask: Asker, repository: Repository) -> None:
    assert found(ask) == {}
    assert "1 image: 0 packages outdated" in ask.err
    assert "2 installed packages are offered by none of them" in ask.err


def test_newer_versions_are_told_by_dpkgs_order_and_where_they_come_from(ask: Asker, repository: Repository) -> None:
    repository.offer("bookworm", ("nginx-light", "1.22.1-9+deb12u9"), ("zlib1g", "1:1.2.13.dfsg-1+deb12u1"))
    repository.offer("bookworm-security", ("libssl3", "3.0.22-1"), ("zlib1g", "1:1.2.13.dfsg-1"))
    before = state(ask)
    rows = found(ask)
    assert {name: (row["installed"], row["offered"], row["security"]) for name, row in rows.items()} == {
        "libssl3": ("3.0.22-1~deb12u2", "3.0.22-1", True),
        "zlib1g": ("1:1.2.13.dfsg-1", "1:1.2.13.dfsg-1+deb12u1", False),
    }
    assert (rows["libssl3"]["repository"], rows["libssl3"]["source"]) == ("bookworm-security", "openssl")
    assert "2 packages outdated, 1 with security fixes" in ask.err
    assert state(ask) == before


def test_fix_is_seen_also_where_a_later_version_hides_it(ask: Asker, repository: Repository) -> None:
    repository.offer("bookworm", ("libssl3", "3.0.23-1"))
    repository.offer("bookworm-security", ("libssl3", "3.0.22-1"))
    row = found(ask)["libssl3"]
    assert (row["offered"], row["security"], row["repository"]) == ("3.0.23-1", True, "bookworm")


def test_origin_that_does_not_tell_is_not_called_secure_or_not(ask: Asker, repository: Repository) -> None:
    repository.offer("bookworm-backports-of-others", ("tar", "99"), origin="Somebody")
    assert found(ask)["tar"]["security"] is None


def test_table_and_csv_of_all_images(ask: Asker, repository: Repository) -> None:
    repository.offer("bookworm", ("zlib1g", "1:2"))
    rows = list(csv.DictReader(io.StringIO(ask("outdated", "--all", "--csv"))))
    assert sorted((row["images"], row["package"], row["offered"]) for row in rows) == [
        ("1", "zlib1g", "1:2"), ("2", "zlib1g", "1:2"),
    ]  # fmt: skip
    assert ask("outdated").count("1:1.2.13.dfsg-1  1:2") == 2


def test_repository_that_is_gone_is_an_error_and_leaves_all_as_it_was(ask: Asker, repository: Repository) -> None:
    before = state(ask)
    repository.stop()
    ask("outdated", code=3)
    assert "cannot be read anew" in ask.err
    assert state(ask) == before


@pytest.mark.parametrize("content", [b"<html>please log in</html>", b"Origin: Debian\nSHA256:\n nothing\n"])
def test_repository_that_sends_nonsense_says_so_or_offers_nothing(
    ask: Asker, repository: Repository, content: bytes
) -> None:
    for path in repository.files:
        if path.endswith("InRelease"):
            repository.files[path] = content
    before = state(ask)
    if b"html" in content:
        ask("outdated", code=3)
    else:
        said = json.loads(ask("outdated", WEB, "--json"))
        assert said["unknown"] == [{"image": "web/amd64", "images": 1, "why": "no repository offers its packages"}]
    assert state(ask) == before


def test_factory_that_never_asked_a_repository_says_so(ask: Asker) -> None:
    ask("outdated", code=3)
    assert "nothing here knows the repositories" in ask.err
