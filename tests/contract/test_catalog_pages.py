"""The pages, asked in this process through the same gate as over the network."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import catalogued
import httpx
import pytest
from catalogued import HOSTILE, Catalogued, deb, put
from signed_factory import sha

from factory import files
from factory.catalog import copies, fleets
from factory.catalog.copies import Watch
from factory.catalog.database import Catalog
from factory.catalog.fleets import Instance
from factory.catalog.reader import Reader
from factory.cli import run
from factory.errors import CatalogError
from factory.pages import folder as folders
from factory.pages.edition import Edition, Making, make_copy
from factory.pages.folder import Copies
from factory.pages.plugin import holding, table_file, views, words
from factory.pages.refresh import Refresher
from factory.pages.site import Site

# the thread of an edition that is retired ends by SystemExit: Datasette has no other way to end it
REASON = HOSTILE.replace("\x1b[31m", "")
"""A reason that holds what acts on a terminal is refused when it is read."""

pytestmark = pytest.mark.filterwarnings("ignore:Exception in thread .*_execute_writes")


@dataclass
class Server:
    """A site on a copy of a catalogued factory, and a loop to ask it in."""

    made: Catalogued
    site: Site
    runner: asyncio.Runner
    watch: Watch

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return self.runner.run(ask(self.site, path, method, **headers))


async def ask(site: Site, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=site)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, headers=headers)


@contextmanager
def serving(made: Catalogued, folder: Path) -> Iterator[Server]:
    folder.mkdir()
    with asyncio.Runner() as runner, closing(Watch(made.layout.catalog)) as watch:
        copy = make_copy(made.layout, folder / "catalog-1.db", Making(watch, pytest.fail))
        site = Site(runner.run(Edition.of(made.layout, copy)), "127.0.0.1")
        yield Server(made, site, runner, watch)
        runner.run(site.edition.retire())


def hostile_factory(folder: Path) -> Catalogued:
    """The catalogued factory, with an image and a package of hostile names, and `old` revoked for a hostile reason."""
    made = catalogued.build(folder)
    locked = replace(made.factory.locked("web"), name=HOSTILE, digest=sha("hostile"), bake_key=sha("hostile key"))
    made.digests["hostile"] = locked.digest
    with made.catalog() as catalog:
        put(catalog, made.factory, locked, 20, (deb(HOSTILE, HOSTILE, HOSTILE), deb("openssl", "1:0.9-1")), HOSTILE)
    made.factory.revoke(replace(made.factory.revocation(made.digests["old"], "web/amd64"), reason=REASON))
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pages")
    with serving(hostile_factory(folder), folder / "copies") as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server of a test's own, whose factory it may change."""
    with serving(catalogued.build(tmp_path), tmp_path / "copies") as made:
        yield made


def image(server: Server, name: str) -> str:
    return f"/image/{server.made.digests[name].removeprefix('sha256:')}"


@dataclass
class Page(HTMLParser):
    """What a test wants to know of a page."""

    text: str = ""
    links: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        href = dict(attrs).get("href")
        if tag in ("a", "link") and href:
            self.links.append(href)

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.tags)


def read(answer: httpx.Response) -> Page:
    assert answer.status_code == 200, answer.text
    page = Page()
    page.feed(answer.text)
    page.text = re.sub(r"\s+", " ", page.text)
    return page


def names_in(page: Page) -> list[str]:
    """The images of a table, in their order."""
    return [str(attrs["href"]) for tag, attrs in page.tags if tag == "a" and attrs.get("class") == "named"]


# --- the whole of it


def crawl(server: Server) -> dict[str, httpx.Response]:
    """Every page that a link leads to, and what it answers; of a table filtered by a facet not the next facets."""
    found: dict[str, httpx.Response] = {}
    waiting = ["/", "/search?q=openssl", "/search?q=scr"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = server.get(path)
        if "html" not in found[path].headers["content-type"] or (path.startswith("/catalog/") and "?" in path):
            continue
        links = [urljoin(f"http://localhost{path}", link) for link in read(found[path]).links]
        assert all(link.startswith("http://localhost/") for link in links), (path, links)
        paths = [link.removeprefix("http://localhost").partition("#")[0] for link in links]
        waiting += [one for one in paths if "_sort" not in one]
    return found


@pytest.fixture(scope="module")
def crawled(server: Server) -> dict[str, httpx.Response]:
    return crawl(server)


def test_every_link_leads_somewhere(crawled: dict[str, httpx.Response]) -> None:
    assert {path: answer.status_code for path, answer in crawled.items() if answer.status_code != 200} == {}
    kinds = {re.sub(r"[0-9a-f]{64}", "HEX", path.partition("?")[0]) for path in crawled}
    assert {"/", "/image/HEX", "/image/HEX/packages", "/image/HEX/lineage", "/image/HEX/lineage.svg", "/search",
            "/package", "/catalog", "/catalog/event_log.csv", "/catalog/image_list.json",
            "/image/HEX/packages.csv", "/image/HEX/packages.json"} <= kinds  # fmt: skip


def test_nothing_hostile_is_run_and_all_of_it_is_shown(crawled: dict[str, httpx.Response]) -> None:
    pages = {path: answer for path, answer in crawled.items() if "html" in answer.headers["content-type"]}
    for path, answer in pages.items():
        assert "<script" not in answer.text, path
        assert "\x1b" not in answer.text, path
        assert read(answer).count("script") == 0, path
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert sum(shown in read(answer).text for answer in pages.values()) >= 6
    assert "DROP TABLE" in read(pages["/"]).text


def test_every_answer_forbids_the_browser_to_run_anything(crawled: dict[str, httpx.Response]) -> None:
    for answer in crawled.values():
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers


def test_every_page_can_be_used_by_keyboard_and_read_aloud(crawled: dict[str, httpx.Response]) -> None:
    for path, answer in crawled.items():
        if "html" not in answer.headers["content-type"]:
            continue
        page = read(answer)
        assert page.links[3 if page.links[0].endswith("svg") else 0] == "#content", path
        assert [page.count(tag) for tag in ("h1", "main", "header", "footer", "title")][:4] == [1, 1, 1, 1], path
        assert page.count("caption") == page.count("table"), path
        assert any(tag == "html" and attrs.get("lang") == "en" for tag, attrs in page.tags)
        fields = [a for tag, a in page.tags if tag in ("input", "select") and a.get("type") != "hidden"]
        assert len(fields) == page.count("label"), path
        headings = [a.get("scope") for tag, a in page.tags if tag == "th"]
        assert set(headings) <= {"col", "row"}, path
        assert not any("style" in attrs or any(name.startswith("on") for name in attrs) for _, attrs in page.tags), path


# --- pages


def test_overview_says_where_each_image_stands(server: Server) -> None:
    page = read(server.get("/"))
    assert names_in(page) == [image(server, name) for name in ("hostile", "web", "old", "hardened", "base")]
    for said in ("1 passed", "1 skipped", "prod", "dev", "hardened/amd64", "revoked"):
        assert said in page.text
    assert re.search(r"Running instances ?3", page.text)
    assert re.search(r"Revoked images ?1", page.text)
    assert re.search(r"Images ?5", page.text)


def test_overview_is_filtered_by_name_and_channel(server: Server) -> None:
    assert names_in(read(server.get("/?name=base"))) == [image(server, "base")]
    assert names_in(read(server.get("/?name=web/amd64"))) == [image(server, "web"), image(server, "old")]
    assert names_in(read(server.get("/?channel=prod"))) == [image(server, "web")]
    assert names_in(read(server.get("/?name=base&channel=prod"))) == []
    assert read(server.get("/")).count("datalist") == 1
    assert "No image is named nothing and stands in <b>." in read(server.get("/?name=nothing&channel=<b>")).text


def test_overview_gives_each_image_once_over_its_pages(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "PAGE", 2)
    seen, path = [], "/"
    while path:
        page = read(server.get(path))
        seen.append(len(names_in(page)))
        older = [str(a["href"]) for tag, a in page.tags if tag == "a" and a.get("rel") == "next"]
        path = older[0] if older else ""
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "1.5", ""])
def test_overview_with_a_place_that_is_none_begins_at_the_start(server: Server, before: str) -> None:
    assert len(names_in(read(server.get(f"/?before={before}")))) == 5


def test_image_page_tells_all_that_is_known(server: Server) -> None:
    page = read(server.get(image(server, "web")))
    facts = server.made.factory.images["web"]
    for said in (facts.digest, facts.bake_key, "rootfs", "run-10", "playbook", "qcow2", "test_old", "exempted",
                 "promotion to prod", "alice", "bob", "i-4", "shop", "5 packages", "ami-"):  # fmt: skip
        assert said in page.text, said
    assert "Not verified: SBOM" not in page.text
    assert "Verified by trust/policy.toml" in page.text
    assert image(server, "hardened") in page.links


def test_revoked_image_says_so_first_and_why(server: Server) -> None:
    page = read(server.get(image(server, "old")))
    assert "Revoked: <script>alert(1)" in page.text
    assert "ended 2026-01-06 12:00 UTC: scaled down" in page.text
    assert page.text.count("running") == 2
    assert "not in force" not in page.text  # the revocation is


def test_descendant_of_a_revoked_image_names_what_revoked_it(own: Server) -> None:
    own.made.factory.revoke(own.made.factory.revocation(own.made.digests["base"], "base/amd64"))
    refresh(own)
    page = read(own.get(image(own, "web")))
    assert "with base/amd64, which it descends from" in page.text
    assert "Verified by trust/policy.toml" in page.text  # its signatures are
    assert "was revoked from" in page.text
    overview = read(own.get("/"))
    assert re.search(r"Revoked images ?4 by 1 revocation", overview.text)
    assert "/catalog/revoked" in overview.links


def test_waiver_and_signers_stand_beside_a_promotion(own: Server) -> None:
    catalogued.waive(own.made)
    refresh(own)
    page = read(own.get(image(own, "web"))).text
    assert "no-cve:low bob, until 2030-01-01 00:00 UTC: <b>because</b>" in page
    assert re.search(r"prod *[-0-9]+ [:0-9]+ UTC *2 *in force *alice *bob *verified *[0-9a-f]{12} *no-cve", page)


def test_image_without_a_signature_is_not_verified(server: Server) -> None:
    assert "No ticket: nothing here is signed for it" in read(server.get(image(server, "hostile"))).text


def test_signature_is_judged_by_the_policy_that_is_there_now(own: Server) -> None:
    assert "Verified by trust/policy.toml" in read(own.get(image(own, "web"))).text
    policy = own.made.layout.policy
    policy.write_text(policy.read_text().replace('roles = ["builder"', 'roles = ["verifier"'))
    page = read(own.get(image(own, "web"))).text
    assert "Not verified:" in page
    policy.unlink()
    page = read(own.get(image(own, "web"))).text
    assert "Not verified: there is no trust/policy.toml here" in page
    assert "nobody can judge it" in page
    assert "Verified by" not in page


def test_tampered_ticket_is_not_verified(own: Server) -> None:
    (path,) = own.made.layout.tickets.glob("web-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"payload":"', b'"payload":"QQ', 1))
    assert "Not verified:" in read(own.get(image(own, "web"))).text


def test_base_page_does_not_pretend_to_a_bake(server: Server) -> None:
    (base,) = [
        row["digest"]
        for row in Catalog.read(server.made.layout.catalog).query(
            "SELECT digest FROM image_list WHERE kind = 'debootstrap'"
        )
    ]
    page = read(server.get(f"/image/{base.removeprefix('sha256:')}"))
    assert "debootstrap" in page.text
    assert "Bake key" not in page.text


def test_lineage_can_be_clicked_through_and_saved(server: Server) -> None:
    page = read(server.get(f"{image(server, 'hardened')}/lineage"))
    assert {image(server, name) for name in ("base", "hardened", "web", "old")} <= set(page.links)
    saved = server.get(f"{image(server, 'hardened')}/lineage.svg")
    assert saved.headers["content-disposition"].startswith("attachment")
    assert "prefers-color-scheme: dark" in saved.text
    assert "href" not in saved.text


def test_packages_of_an_image_are_listed_and_filtered(server: Server) -> None:
    page = read(server.get(f"{image(server, 'old')}/packages"))
    assert "5 packages" in page.text
    page = read(server.get(f"{image(server, 'old')}/packages?q=OpenSSL"))
    assert "2 of 5 packages" in page.text  # libssl3 by its source
    assert "adduser" not in page.text


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("ssl", {"openssl", "libssl3"}),
        ("OPENSSL", {"openssl", "libssl3"}),
        ("glibc", {"libc6"}),
        ("ng", {"nginx", "nginx-light"}),
        ("n", {"nginx", "nginx-light"}),
        ("no-such-thing", set()),
        ('"', set()),
        ('ssl" OR "libc', set()),
        ("ssl*", set()),
        ("%", set()),
        ("\x00", set()),
        ("   ", set()),
        ("é" * 300, set()),
    ],
)
def test_search_finds_packages(server: Server, asked: str, found: set[str]) -> None:
    page = read(server.get("/search?" + httpx.QueryParams({"q": asked}).__str__()))
    names = {link.partition("name=")[2] for link in page.links if link.startswith("/package?")}
    assert names == found


def test_search_finds_images_by_name_and_digest(server: Server) -> None:
    digest = server.made.digests["old"]
    for asked in (digest, digest[:19], digest.removeprefix("sha256:")[:6]):
        assert names_in(read(server.get(f"/search?q={asked}"))) == [image(server, "old")]
    assert len(names_in(read(server.get("/search?q=web")))) == 2


def test_package_page_orders_versions_as_dpkg_does(server: Server) -> None:
    text = read(server.get("/package?name=openssl")).text
    assert text.index("1:0.9-1") < text.index("3.0.15-1") < text.index("3.0.11-1")
    assert "3 versions" in text


def test_page_of_a_version_says_where_it_is_and_runs(server: Server) -> None:
    page = read(server.get("/package?name=openssl&version=3.0.11-1"))
    assert names_in(page) == [image(server, "old"), image(server, "old"), image(server, "old")]
    assert "i-1" in page.text
    assert "i-3" not in page.text
    assert re.search(r"Running instances ?2", page.text)
    page = read(server.get("/package?name=openssl&version=3.0.15-1"))
    assert "prod" in page.text
    assert server.get("/package?name=openssl&version=9").status_code == 404
    assert server.get("/package?name=none").status_code == 404


def test_page_of_a_version_says_what_is_not_known(own: Server) -> None:
    path = "/package?name=openssl&version=3.0.11-1"
    assert "not known here" not in read(own.get(path)).text
    with own.made.catalog() as catalog:
        fleets.add_instance(catalog, Instance("shop", 1, "local", "i-9", sha("baked elsewhere"), catalogued.day(5)))
    refresh(own)
    assert "1 running instance and 0 channels are of an image whose packages are not known" in read(own.get(path)).text


def test_page_of_a_version_gives_each_image_once_over_its_pages(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "MOST", 1)
    seen, path = [], "/package?name=adduser&version=3.134"
    while path:
        page = read(server.get(path))
        table = page.links
        seen += [link for link in names_in(page) if link in table][-1:]
        older = [str(a["href"]) for tag, a in page.tags if tag == "a" and a.get("rel") == "next"]
        path = older[0] if older else ""
    assert sorted(seen) == sorted(image(server, name) for name in ("web", "old", "hardened", "base"))


def test_exports_hold_the_rows(server: Server) -> None:
    rows = list(csv.DictReader(server.get("/catalog/image_list.csv").text.splitlines()))
    assert {row["digest"] for row in rows} >= set(server.made.digests.values())
    names = {"libc6", "adduser", "openssl", "libssl3", "nginx-light"}
    document = server.get(f"{image(server, 'old')}/packages.json").json()
    assert document["digest"] == server.made.digests["old"]
    assert {row["name"] for row in document["packages"]} == names
    lines = csv.DictReader(server.get(f"{image(server, 'old')}/packages.csv").text.splitlines())
    assert {row["name"] for row in lines} == names


def test_export_of_a_table_has_every_row_that_its_filters_leave(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "ROWS", 3)
    with server.made.catalog() as catalog:
        expected = [row["seq"] for row in catalog.query("SELECT seq FROM event_log ORDER BY seq")]
        promoted = [row["seq"] for row in catalog.query("SELECT seq FROM event_log WHERE action = 'promoted'")]
    assert len(expected) > 10
    for path, wanted in (("", expected), ("?action=promoted", promoted), ("?seq__lte=4", expected[:4])):
        answer = server.get(f"/catalog/event_log.csv{path}")
        assert answer.headers["content-disposition"] == 'attachment; filename="event_log.csv"'
        assert [int(row["seq"]) for row in csv.DictReader(answer.text.splitlines())] == wanted
    assert "this table has no column" in server.get("/catalog/event_log.csv?nothing=1").text
    assert server.get("/catalog/event_log.csv", "HEAD").text == ""


def sent_of_log(server: Server, ends: asyncio.Event | None = None) -> list[dict[str, Any]]:
    """What is sent of the log as CSV to one who hangs up at once where `ends` is set."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        await asyncio.sleep(0)

    async def receive() -> dict[str, Any]:
        await (ends or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/catalog/event_log.csv", "raw_path": b"/catalog/event_log.csv",
             "query_string": b"", "headers": [(b"host", b"localhost")], "scheme": "http"}  # fmt: skip
    server.runner.run(server.site(scope, receive, send))
    assert sent[0]["status"] == 200
    return sent[1:]


def test_export_that_breaks_off_is_not_ended(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    read_next, told = Reader.next, list[int]()

    def fails_later(reader: Reader, most: int) -> list[tuple[Any, ...]]:
        told.append(most)
        if len(told) > 1:
            raise CatalogError("the copy is gone")
        return read_next(reader, most)

    monkeypatch.setattr(Reader, "next", fails_later)
    (only,) = sent_of_log(own)
    assert only["more_body"]


def test_export_ends_when_nobody_wants_it_any_more(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "ROWS", 1)
    assert len(sent_of_log(own)) > 10
    hung_up = asyncio.Event()
    hung_up.set()
    sent = sent_of_log(own, hung_up)
    assert len(sent) < 4
    assert all(message["more_body"] for message in sent)


def test_log_is_shown_from_its_end(server: Server) -> None:
    rows = server.get("/catalog/event_log.json?_shape=array").json()
    assert [row["seq"] for row in rows] == sorted((row["seq"] for row in rows), reverse=True)
    database = server.site.edition.datasette.get_database("catalog")
    sql = "EXPLAIN QUERY PLAN SELECT * FROM event_log ORDER BY source DESC LIMIT 51 OFFSET 100"
    plan = [row[3] for row in server.runner.run(database.execute(sql)).rows]
    assert plan == ["SCAN events"]


@pytest.mark.parametrize("form", ["", ".json"])
def test_table_that_takes_too_long_says_so(own: Server, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    own.site.edition.datasette.sql_time_limit_ms = 0
    answer = own.get(f"/catalog/event_log{form}")
    assert answer.status_code == 503
    assert "takes too long" in answer.text
    assert "sql_time_limit" not in answer.text
    assert capfd.readouterr() == ("", "")


def test_export_that_takes_too_long_says_so(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "LIMIT_S", -1.0)
    monkeypatch.setattr(copies, "STEPS", 1)
    answer = own.get("/catalog/event_log.csv")
    assert answer.status_code == 503
    assert "did not answer within" in answer.text


def test_tables_have_facets(server: Server) -> None:
    page = read(server.get("/catalog/check_results"))
    assert "By outcome" in [str(a.get("aria-label")) for tag, a in page.tags if tag == "section"]
    (skipped,) = [link for link in page.links if "outcome=skipped" in link]
    assert "5 rows" in read(server.get(skipped)).text


# --- what is not served


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/image/1234", f"/image/{'0' * 64}", "/catalog.db", "/catalog/intents", "/catalog/attestations",
        "/catalog/images", "/catalog/image_list/1", "/_internal", "/_internal/databases", "/_memory",
        "/-/metadata.json", "/-/databases.json", "/-/threads.json",
        "/-/plugins", "/-/auth-token?token=x", "/-/permissions",
        "/-/static-plugins/factory.pages.plugin/../plugin/__init__.py", "/-/static/table.js", "/catalog.json",
        "/catalog/%2e%2e/x", "/image/%00", "/catalog/image_list.blob",
    ],
)  # fmt: skip
def test_what_is_not_a_page_is_not_found(server: Server, path: str) -> None:
    answer = server.get(path)
    assert answer.status_code == 404
    assert "sqlite" not in answer.text.lower()


def test_sql_of_a_visitor_is_not_run(server: Server) -> None:
    assert server.get("/catalog?sql=select+1").status_code == 403
    assert server.get("/catalog/image_list?_where=1=1").status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_method_that_could_change_something_is_refused(server: Server, method: str) -> None:
    assert server.get("/", method).status_code == 405


def test_head_is_answered(server: Server) -> None:
    assert server.get("/", "HEAD").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8001", 200), ("[::1]:8001", 200), ("evil.example", 421), ("localhost.evil", 421),
     ("127.0.0.1.evil.example", 421), ("", 421)],
)  # fmt: skip
def test_request_that_names_another_host_is_refused_on_loopback(server: Server, host: str, status: int) -> None:
    assert server.get("/", host=host).status_code == status


def test_request_that_names_any_host_is_answered_elsewhere(server: Server) -> None:
    site = Site(server.site.edition, "0.0.0.0")
    assert server.runner.run(ask(site, "/", host="catalog.example")).status_code == 200


def test_copy_cannot_be_written(server: Server) -> None:
    def write(connection: Any) -> None:
        connection.execute("DELETE FROM packages")

    database = server.site.edition.datasette.get_database("catalog")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        server.runner.run(database.execute_fn(write))


def test_question_that_takes_too_long_is_given_up(server: Server) -> None:
    with closing(sqlite3.connect(server.site.edition.copy.path)) as connection:
        slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        with pytest.raises(CatalogError, match="within"), copies.asked(connection, Path("x"), 0.05) as catalog:
            catalog.query(slow)
        with copies.asked(connection, Path("x"), 5) as catalog:
            assert catalog.query("SELECT 1 AS one") == [{"one": 1}]


# --- copies and their refreshing


def refresher(server: Server, say: Callable[[str], None] = pytest.fail) -> Refresher:
    copies = Copies(server.site.edition.copy.path.parent)
    copies.next()  # the one that is served
    made = Refresher(server.made.layout, copies, server.watch, say, pause_s=0.02)
    made._trust = made._trust_state()
    return made


def refresh(server: Server) -> None:
    """Another edition, as the catalog is now."""
    copy = refresher(server).copy()
    server.runner.run(server.site.swap(server.runner.run(Edition.of(server.made.layout, copy))))


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


def test_page_shows_what_was_written_since_with_no_request_failed(own: Server) -> None:
    before = own.site.edition
    threads = threading.active_count()

    async def scenario() -> tuple[list[int], str]:
        made = refresher(own)
        running = asyncio.create_task(made.run(own.site))
        statuses: list[int] = []

        async def visitor() -> None:
            while own.site.edition is before:
                statuses.append((await ask(own.site, "/")).status_code)

        visitors = [asyncio.create_task(visitor()) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert own.site.edition is before  # nothing changed, so no copy was made
        with own.made.catalog() as catalog:
            put(catalog, own.made.factory, replace(own.made.factory.locked("web"), digest=sha("new")), 21, ())
        await until(lambda: own.site.edition is not before)
        await asyncio.gather(*visitors)
        running.cancel()
        return statuses, (await ask(own.site, "/")).text

    statuses, text = own.runner.run(scenario())
    assert set(statuses) == {200}
    assert sha("new").removeprefix("sha256:") in text
    own.runner.run(until(lambda: not before.copy.path.exists()))
    own.runner.run(until(lambda: threading.active_count() <= threads + 2))
    assert sorted(path.suffix for path in own.site.edition.copy.path.parent.iterdir()) == [".db"]


def test_paper_that_comes_into_trust_is_shown(own: Server) -> None:
    async def scenario() -> str:
        made = refresher(own)
        before = own.site.edition
        running = asyncio.create_task(made.run(own.site))
        own.made.factory.revoke(own.made.factory.revocation(own.made.digests["web"], "web/amd64"))
        await until(lambda: own.site.edition is not before)
        running.cancel()
        return (await ask(own.site, image(own, "web"))).text

    assert "CVE-2026-1" in own.runner.run(scenario())


@pytest.mark.parametrize("path", ["/", "/catalog/event_log"])
def test_page_says_whether_the_log_is_as_it_was_written(own: Server, path: str) -> None:
    assert "The log is being followed" in read(own.get(path)).text
    assert not own.site.edition.is_looked_over
    own.site.edition.look_over()
    assert "The log is unbroken; no promotion proves any of it" in read(own.get(path)).text
    with closing(sqlite3.connect(own.made.layout.catalog)) as connection:
        connection.executescript("DROP TRIGGER events_no_update; UPDATE events SET actor = '<b>' WHERE seq = 15")

    async def scenario() -> None:
        running = asyncio.create_task(refresher(own).run(own.site))
        await until(lambda: own.site.edition.is_looked_over and bool(own.site.edition.datasette.pages.log.faults))
        running.cancel()

    own.runner.run(scenario())
    page = read(own.get(path)).text
    assert "The log is not as it was written: what is shown here is not to be believed." in page
    assert "event 16: it does not follow event 15" in page


def test_look_over_that_is_unwanted_says_nothing(own: Server) -> None:
    own.site.edition.look_over(lambda: True)
    own.site.edition.look_over()
    assert own.site.edition.is_looked_over


def test_request_that_is_being_answered_ends_on_the_edition_it_began_with(own: Server) -> None:
    async def scenario() -> None:
        old = own.site.edition
        began, go_on = asyncio.Event(), asyncio.Event()
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            began.set()
            await go_on.wait()
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "http",
                 "headers": [(b"host", b"localhost")], "http_version": "1.1"}  # fmt: skip
        request = asyncio.create_task(own.site(scope, receive, send))
        await began.wait()
        made = refresher(own)
        await own.site.swap(await Edition.of(own.made.layout, await asyncio.to_thread(made.copy)))
        assert old.copy.path.exists()
        go_on.set()
        await request
        assert sent[0]["status"] == 200
        assert not old.copy.path.exists()

    own.runner.run(scenario())


def test_catalog_that_cannot_be_copied_leaves_the_old_pages_and_is_told_once(own: Server) -> None:
    said: list[str] = []

    async def scenario() -> int:
        made = refresher(own, said.append)
        running = asyncio.create_task(made.run(own.site))
        with closing(sqlite3.connect(own.made.layout.catalog)) as connection:
            connection.execute("PRAGMA user_version = 99")
        await until(lambda: bool(said))
        await asyncio.sleep(0.3)
        running.cancel()
        return (await ask(own.site, "/")).status_code

    assert own.runner.run(scenario()) == 200
    told = [line for line in said if "stay as of" in line]
    assert len(told) == 1
    assert "version 99" in told[0]
    assert len(list(own.site.edition.copy.path.parent.iterdir())) == 1


def test_copy_that_is_unwanted_leaves_nothing(own: Server, tmp_path: Path) -> None:
    with Catalog.read(own.made.layout.catalog) as catalog, pytest.raises(CatalogError):
        copies.copy(catalog, tmp_path / "copy.db", lambda: True)
    assert not (tmp_path / "copy.db").exists()


def test_copies_are_for_their_owner_alone_and_go_with_the_server(own: Server, tmp_path: Path) -> None:
    assert own.site.edition.copy.path.stat().st_mode & 0o777 == 0o600
    with folders.mine(tmp_path / "pages") as mine:
        assert mine.folder.stat().st_mode & 0o777 == 0o700
        assert mine.folder.parent.stat().st_mode & 0o777 == 0o700
        mine.next().write_text("a copy")
    assert list((tmp_path / "pages").iterdir()) == []


def test_what_a_killed_server_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    above = tmp_path / "pages"
    for name in ("dead", "alive"):
        (above / name).mkdir(parents=True)
        (above / name / "catalog-1.db").write_text("a copy")
    (above / "dead" / "lock").touch()
    with files.exclusive(above / "alive" / "lock"), folders.mine(above) as mine:
        assert {path.name for path in above.iterdir()} == {"alive", mine.folder.name}


# --- the command


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run(list(arguments))
    return code, capsys.readouterr().err


def test_serve_without_a_catalog_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "-C", str(tmp_path), "catalog", "serve", "--port", "0")
    assert code == 3
    assert "there is no catalog" in said
    assert not (tmp_path / ".factory" / "cache" / "pages").exists() or not list(
        (tmp_path / ".factory" / "cache" / "pages").iterdir()
    )


@pytest.mark.parametrize("fault", ["newer", "truncated", "none of SQLite's"])
def test_serve_of_a_catalog_that_cannot_be_read_is_refused(
    own: Server, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own.made.layout.catalog
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if fault == "newer":
            connection.execute("PRAGMA user_version = 99")
    if fault == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif fault != "newer":
        path.write_bytes(b"no database at all" * 1000)
    code, said = refused(capsys, "-C", str(own.made.root), "catalog", "serve", "--port", "0")
    assert code == 3
    assert "error:" in said
    assert "Traceback" not in said
    assert list((own.made.layout.cache / "pages").iterdir()) == []


def test_serve_on_a_port_that_is_taken_is_refused(own: Server, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = refused(capsys, "-C", str(own.made.root), "catalog", "serve", "--port", port)
    assert code == 2
    assert f"something else listens on 127.0.0.1:{port}" in said
    assert "--port 0" in said


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "x" * 300])
def test_serve_on_an_address_that_is_not_ours_is_refused(
    own: Server, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refused(capsys, "-C", str(own.made.root), "catalog", "serve", "--port", "0", "--host", host)
    assert code == 2
    assert "--host" in said


# --- words


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("2026-11-25T11:59:50.000Z", "just now"), ("2026-11-25T11:58:00.000Z", "2 minutes ago"),
        ("2026-11-25T11:00:00.000Z", "1 hour ago"), ("2026-11-22T12:00:00.000Z", "3 days ago"),
        ("2026-09-20T12:00:00.000Z", "2 months ago"), ("2024-11-20T12:00:00.000Z", "2 years ago"),
        ("2026-11-25T14:00:00.000Z", "in 2 hours"), ("yesterday", "yesterday"), ("", ""), (None, ""),
    ],
)  # fmt: skip
def test_age_is_said_in_one_unit(moment: str | None, said: str) -> None:
    from datetime import UTC, datetime

    assert words.ago(moment, datetime(2026, 11, 25, 12, tzinfo=UTC)) == said


def test_sizes_and_counts_are_said_for_people() -> None:
    assert [words.size(one) for one in (None, 12, 2048, 129_400_000, 3 << 30)] == [
        "", "12 B", "2.0 KiB", "123.4 MiB", "3.0 GiB",
    ]  # fmt: skip
    assert words.plural(1, "image") == "1 image"
    assert words.plural(12_345, "image") == "12,345 images"
