"""factory cve as it is typed: over a catalog, with files and a web server on loopback that behaves as it is told."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cve_data as data
import pytest
from catalogued import deb, put
from signed_factory import ARCH, SignedFactory, sha

from factory import cli, lockfile
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.model import Layout, Lock, LockedImage

BASE = (
    deb("base-files", "12.4+deb12u15", arch="all"), deb("zlib1g", "1:1.2.13.dfsg-1", "zlib"),
    deb("libssl3", "3.0.22-1~deb12u2", "openssl"), deb("tar", "1.34+dfsg-1.2+deb12u1"),
    InstalledPackage("linux-image-cloud-amd64", "6.1.192-2", ARCH, "linux-signed-amd64", "6.1.192+2"),
)  # fmt: skip
WEB = (*BASE, deb("nginx-light", "1.22.1-9+deb12u11", "nginx"))
OPEN = {"CVE-2023-45853", "CVE-2024-21803", "CVE-2025-99999", "CVE-2026-90002"}


class Asker:
    """Types commands in a factory with two images, `base` and `web`, an older `web` among them."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.layout, self._capsys = Layout(root), capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        got = cli.run(["-C", str(self.layout.root), *arguments])
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert got == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def found(self, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """The findings of `cve web` by CVE."""
        return {row["cve"]: row for row in self.json("cve", "web", *arguments, code=code)["findings"]}

    def write(self, name: str, value: Any) -> Path:
        return data.write(self.layout.root / name, value)

    def configure(self, **said: list[str]) -> None:
        """[cve] of images.toml."""
        keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in said.items())
        self.layout.spec.write_text(f"[cve]\n{keys}\n")


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asker:
    made = Asker(tmp_path / "factory", capsys)
    factory = SignedFactory(made.layout, tmp_path / "policy.toml", datetime.now(UTC))
    images = [
        image("base", "1", sha("debian tree")),
        image("web", "old", sha("base 1")),
        image("web", "1", sha("base 1")),
    ]
    with Catalog.open(made.layout.catalog) as catalog:
        for number, (one, packages) in enumerate(zip(images, (BASE, BASE, WEB), strict=True), start=1):
            put(catalog, factory, one, number, packages)
    lockfile.write(made.layout.lock, lockfile.with_entries(Lock(), [images[0], images[2]]))
    made.write("cve/tracker.json", data.tracker())
    made.write("cve/osv.json", data.records())
    made.configure(tracker=["cve/tracker.json"], osv=["cve/osv.json"], vex=["trust/vex"])
    (made.layout.trust / "vex").mkdir(parents=True)
    return made


def image(name: str, version: str, parent: Any) -> LockedImage:
    disk = sha(f"{name} {version}")
    return LockedImage(name, ARCH, disk, sha(f"key {disk}"), parent, sha(f"tree {disk}"))


# --- what is found


def test_findings_of_the_locked_images_need_no_options(ask: Asker) -> None:
    rows = ask.json("cve")["findings"]
    assert {row["cve"] for row in rows if row["image"] == [f"base/{ARCH}"]} == OPEN
    assert {row["cve"] for row in rows if row["image"] == [f"web/{ARCH}"]} == OPEN | {"CVE-2026-90001"}
    assert "2 images (2 different sets of packages): 9 open; 2 less severe are not shown" in ask.err


def test_findings_say_what_is_installed_fixed_and_how_bad(ask: Asker) -> None:
    found = ask.found()
    nginx = found["CVE-2026-90001"]
    assert (nginx["source"], nginx["installed"], nginx["fixed"]) == ("nginx", "1.22.1-9+deb12u11", "1.22.1-9+deb12u99")
    assert (nginx["severity"], nginx["packages"], nginx["status"]) == ("high", ["nginx-light"], "open")
    zlib = found["CVE-2023-45853"]
    assert (zlib["severity"], zlib["origins"], zlib["others"]) == (
        "critical", ["osv", "tracker"], ["DEBIAN-CVE-2023-45853"],
    )  # fmt: skip
    assert found["CVE-2025-99999"]["installed"] == "6.1.192-2"


def test_severity_leaves_out_what_is_milder_and_keeps_what_is_unknown(ask: Asker) -> None:
    everything = ask.found("--severity", "unimportant")
    assert everything["CVE-2005-2541"]["severity"] == "unimportant"
    assert ask.found("--severity", "high").keys() == {"CVE-2023-45853", "CVE-2025-99999", "CVE-2026-90001"}
    alone = ask.found("--severity", "critical", "--tracker", str(ask.layout.root / "cve/tracker.json"))
    assert alone["CVE-2023-45853"]["severity"] == "unknown"


def test_table_and_csv_say_the_same(ask: Asker) -> None:
    table = ask("cve", "web")
    rows = list(csv.DictReader(io.StringIO(ask("cve", "web", "--csv"))))
    assert [row["cve"] for row in rows] == [line.split()[1] for line in table.splitlines()[1:]]
    assert rows[0]["severity"] == "critical"
    assert rows[0]["image"] == f"web/{ARCH}"


def test_images_of_all_times_are_counted_by_set(ask: Asker) -> None:
    said = ask.json("cve", "--all")
    assert (said["images"], said["package_sets"]) == (3, 2)
    counts = {row["cve"]: row["images"] for row in said["findings"]}
    assert counts == {**dict.fromkeys(OPEN, 3), "CVE-2026-90001": 1}


def test_fail_on_is_met_only_by_what_nobody_explains(ask: Asker) -> None:
    ask("cve", "base", "--fail-on", "high", code=4)
    assert "2 that nobody explains are high or worse" in ask.err
    ask.write("trust/vex/zlib.json", data.vex("CVE-2023-45853", "pkg:deb/debian/zlib"))
    ask("cve", "base", "--fail-on", "critical")
    assert ask.found("--severity", "critical", "--fail-on", "high", code=4).keys() >= {"CVE-2026-90001"}


def test_image_of_another_suite_is_not_taken_for_clean(ask: Asker) -> None:
    said = ask.json("cve", "web", "--suite", "buster", "--fail-on", "critical", code=4)
    assert said["findings"] == []
    assert said["unknown"] == [{"image": f"web/{ARCH}", "images": 1, "why": "no source speaks of buster"}]
    assert "not looked at: web/amd64" in ask.err
    trixie = ask.found("--suite", "trixie")
    assert trixie.keys() == {"CVE-2023-45853", "CVE-2024-5535"}
    assert trixie["CVE-2024-5535"]["fixed"] == "3.3"


# --- explained


def test_explained_finding_names_owner_and_end(ask: Asker) -> None:
    ask.write("trust/vex/a.json", data.vex("CVE-2026-90001", "pkg:deb/debian/nginx"))
    row = ask.found()["CVE-2026-90001"]
    assert (row["status"], row["owner"], row["until"], row["file"]) == (
        "explained", "alice", "2099-12-31T00:00:00Z", "trust/vex/a.json",
    )  # fmt: skip
    assert row["reason"] == "vulnerable_code_not_in_execute_path: we do not call it"


def test_explanation_that_has_ended_is_shown_and_explains_nothing(ask: Asker) -> None:
    ask.write(
        "trust/vex/a.json", data.vex("CVE-2026-90001", "pkg:deb/debian/nginx", valid_until="2026-11-02T00:00:00Z")
    )
    assert ask.found()["CVE-2026-90001"]["status"] == "expired"
    ask("cve", "web", "--fail-on", "high", code=4)


def test_statement_without_an_end_is_told(ask: Asker) -> None:
    ask.write("trust/vex/a.json", data.vex("CVE-2026-90001", "pkg:deb/debian/nginx", valid_until=None))
    assert ask.found()["CVE-2026-90001"]["status"] == "open"
    assert "trust/vex/a.json: statement 1 does not count: it has no end" in ask.err


def test_statement_on_one_image_does_not_explain_its_twin(ask: Asker) -> None:
    """`base` and the old `web` have one set of packages; a statement speaks of one of them."""
    product = {"@id": f"urn:x-factory:image:web/{ARCH}", "subcomponents": [{"@id": "pkg:deb/debian/zlib"}]}
    ask.write("trust/vex/a.json", data.vex("CVE-2023-45853", product))
    rows = [row for row in ask.json("cve", "--all")["findings"] if row["cve"] == "CVE-2023-45853"]
    assert sorted((row["status"], row["images"], row["image"]) for row in rows) == [
        ("explained", 2, [f"web/{ARCH}"]), ("open", 1, [f"base/{ARCH}"]),
    ]  # fmt: skip
    ask.write("trust/vex/a.json", data.vex("CVE-2023-45853", sha("web old")))
    rows = [row for row in ask.json("cve", "--all")["findings"] if row["cve"] == "CVE-2023-45853"]
    assert sorted((row["status"], row["images"]) for row in rows) == [("explained", 1), ("open", 2)]


def test_each_of_two_images_with_one_name_is_told_apart(ask: Asker) -> None:
    new, old = sha("web 1"), sha("web old")
    ask.write("trust/vex/a.json", data.vex("CVE-2023-45853", old))
    rows = [row for row in ask.json("cve", "--all")["findings"] if row["cve"] == "CVE-2023-45853"]
    digests = {row["status"]: row["digests"] for row in rows}
    assert digests == {"explained": [old], "open": [sha("base 1"), new]}
    said = [row for row in csv.DictReader(io.StringIO(ask("cve", "--all", "--csv"))) if row["status"] == "explained"]
    assert [(row["digests"], row["file"]) for row in said] == [(old, "trust/vex/a.json")]
    assert said[0]["reason"] == "vulnerable_code_not_in_execute_path: we do not call it"
    table = ask("cve", "--all")
    assert f"base/{ARCH}, web/{ARCH} {new[7:19]} " in table
    assert f"web/{ARCH} {old[7:19]} " in table


def test_statement_on_a_name_leaves_the_others_named(ask: Asker) -> None:
    ask.write("trust/vex/a.json", data.vex("CVE-2023-45853", "urn:x-factory:image:web"))
    rows = [row for row in ask.json("cve", "--all")["findings"] if row["cve"] == "CVE-2023-45853"]
    digests = {row["status"]: set(row["digests"]) for row in rows}
    assert digests == {"explained": {sha("web 1"), sha("web old")}, "open": {sha("base 1")}}


# --- what cannot be had or read


@pytest.mark.parametrize(
    ("said", "arguments", "code", "told"),
    [
        ({}, [], 2, "no source says which vulnerabilities there are"),
        ({"tracker": ["none.json"]}, [], 3, "none.json cannot be read"),
        ({"osv": ["cve/tracker.json"]}, [], 3, "no OSV record"),
        ({"tracker": ["cve/osv.json"]}, [], 3, "is a list"),
        ({"tracker": ["cve"]}, [], 3, "cannot be read"),
        ({"tracker": ["cve/tracker.json"], "vex": ["none"]}, [], 3, "VEX statements none cannot be read"),
        ({"tracker": ["https://user:secret@example/"]}, [], 2, "must hold no user and no password"),
        ({"osv": ["http://example/all.zip"]}, [], 2, "must begin with https://"),
        ({"vex": ["https://example/vex.json"]}, [], 2, "must be a path"),
        ({"trackr": ["x"]}, [], 2, 'did you mean "tracker"?'),
        ({"tracker": ["cve/tracker.json"]}, ["none"], 2, "knows no image"),
        ({"tracker": ["cve/tracker.json"]}, ["web", "--all"], 2, "an image or --all"),
        ({"tracker": ["cve/tracker.json"]}, ["--json", "--csv"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_asked_is_a_clear_error(
    ask: Asker, said: dict[str, list[str]], arguments: list[str], code: int, told: str
) -> None:
    ask.configure(**said)
    out = ask("cve", *arguments, code=code)
    assert told in out + ask.err


def test_hostile_names_are_shown_and_not_run(ask: Asker) -> None:
    ask.write("trust/vex/a.json", data.vex("CVE-2026-90001", "pkg:deb/debian/nginx", author="=cmd|'x'!A1"))
    document = data.vex("CVE-2026-90001", "pkg:deb/debian/nginx")
    ask.write("trust/vex/a.json", {**document, "author": "=cmd|'<script>'!A1"})
    (row,) = [row for row in csv.DictReader(io.StringIO(ask("cve", "web", "--csv"))) if row["status"] == "explained"]
    assert row["owner"] == "'=cmd|'<script>'!A1"
    ask.write("trust/vex/a.json", {**document, "author": "a\x1b[31mb"})
    assert ask.found()["CVE-2026-90001"]["status"] == "open"
    assert "\x1b" not in ask.err


# --- over the network


class Server:
    """Serves one file at /data.json as it is told: its bytes, its ETag, a status instead."""

    def __init__(self) -> None:
        self.body, self.etag, self.status, self.location = b"", '"1"', 200, ""
        self.modified: str | None = None
        self.cut = 0
        self.requests: list[dict[str, str]] = []
        handler = type("Handler", (_Handler,), {"told": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/data.json"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    told: Server

    def do_GET(self) -> None:
        told = self.told
        told.requests.append(dict(self.headers))
        if told.status == 200 and self.headers.get("If-None-Match") == told.etag:
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(told.status)
        self.send_header("ETag", told.etag)
        if told.modified:
            self.send_header("Last-Modified", told.modified)
        if told.location:
            self.send_header("Location", told.location)
        self.send_header("Content-Length", str(len(told.body)))
        self.end_headers()
        self.wfile.write(told.body[: len(told.body) - told.cut])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(ask: Asker) -> Iterator[Server]:
    made = Server()
    made.body = json.dumps(data.tracker()).encode()
    ask.configure(tracker=[made.url])
    yield made
    made.stop()


def test_url_is_fetched_once_and_then_only_asked_after(ask: Asker, server: Server) -> None:
    first = ask.found()
    assert first.keys() == OPEN | {"CVE-2026-90001"}
    assert ask.found() == first
    assert [request.get("If-None-Match") for request in server.requests] == [None, '"1"']
    server.body, server.etag = json.dumps({"tar": data.tracker()["tar"]}).encode(), '"2"'
    assert ask.found("--severity", "unimportant").keys() == {"CVE-2005-2541"}


def test_url_that_is_out_of_reach_is_answered_from_the_copy_and_its_age_told(ask: Asker, server: Server) -> None:
    first = ask.found()
    server.status = 503
    assert ask.found() == first
    assert "the server answers 503" in ask.err
    server.stop()
    assert ask.found() == first
    assert "cannot be had now" in ask.err
    assert "less than an hour old" in ask.err
    (notes,) = (ask.layout.cache / "cve").glob("*.json")
    copy = json.loads(notes.read_bytes())
    copy["checked_at"] = (datetime.now(UTC) - timedelta(days=3, hours=1)).isoformat(timespec="seconds")
    notes.write_text(json.dumps(copy))
    assert ask.found("--offline") == first
    assert "3 days old, as --offline asks" in ask.err


def test_offline_or_unreachable_without_a_copy_is_an_error(ask: Asker, server: Server) -> None:
    ask("cve", "--offline", code=3)
    assert "there is no copy of" in ask.err
    assert server.requests == []
    server.stop()
    ask("cve", code=3)
    assert "cannot get http://127.0.0.1" in ask.err


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"status": 404}, "there is no such file"),
        ({"status": 403}, "the server answers 403"),
        ({"body": b"<!doctype html><title>please log in</title>"}, "is a web page"),
        ({"body": b""}, "is empty"),
        ({"body": b'{"tar": {'}, "cannot be read"),
        ({"cut": 10}, "broke off"),
        ({"status": 302, "location": "http://example.invalid/x"}, "redirects to where no data are taken from"),
        ({"status": 302, "location": "file:///etc/passwd"}, "the server answers 302"),
    ],
)
def test_url_that_gives_something_else_is_an_error(ask: Asker, server: Server, told: dict[str, Any], said: str) -> None:
    for key, value in told.items():
        setattr(server, key, value)
    ask("cve", code=3)
    assert said in ask.err
    assert not list((ask.layout.cache / "cve").glob(".*"))


def test_damaged_copy_is_fetched_anew_and_a_good_one_outlives_an_error(ask: Asker, server: Server) -> None:
    good = server.body
    server.body = b'{"tar": {'
    ask("cve", code=3)
    server.body = good
    first = ask.found()
    server.status = 404
    ask("cve", code=3)
    server.status = 200
    server.body = b"<html>"
    server.etag = '"3"'
    ask("cve", code=3)
    assert ask.found("--offline") == first


def test_data_are_of_the_time_the_server_says(ask: Asker, server: Server) -> None:
    server.modified = "Mon, 02 Nov 2026 10:00:00 GMT"
    (source,) = ask.json("cve")["sources"]
    assert source["as_of"] == "2026-11-02T10:00:00Z"
    server.modified, server.etag = "Fri, 01 Jan 2100 10:00:00 GMT", '"4"'
    (source,) = ask.json("cve")["sources"]
    assert source["as_of"] < "2099"


def test_file_is_of_the_time_it_was_changed(ask: Asker) -> None:
    at = datetime(2026, 11, 2, 10, tzinfo=UTC).timestamp()
    os.utime(ask.layout.root / "cve/tracker.json", (at, at))
    assert ask.json("cve")["sources"][0]["as_of"] == "2026-11-02T10:00:00Z"
