"""`factory catalog serve` as a process, in Debian's Chromium: clicked through by mouse, and by keyboard alone.

Screenshots of what was seen are kept in build/screenshots.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import catalogued
import pytest
from catalogued import Catalogued, put
from playwright.sync_api import Browser, Page, expect, sync_playwright
from signed_factory import sha

PROJECT = Path(__file__).resolve().parents[2]
SHOTS = PROJECT / "build/screenshots"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic",
]  # fmt: skip
STATES = [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
expect.set_options(timeout=60_000)


@dataclass
class Server:
    """A running `factory catalog serve`. `url` ends in a slash."""

    made: Catalogued
    process: subprocess.Popen[str]
    url: str

    def image(self, name: str) -> str:
        return f"{self.url}image/{self.made.digests[name].removeprefix('sha256:')}"

    def folders(self) -> list[Path]:
        return sorted((self.made.layout.cache / "pages").iterdir())


def start(made: Catalogued, *options: str) -> Server:
    factory = str(Path(sys.executable).with_name("factory"))
    command = [factory, "-C", str(made.root), "catalog", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.readline()
    found = re.search(r"http://[0-9.]+:[0-9]+/", said)
    assert found, said + process.stderr.read()
    return Server(made, process, found[0])


def end(server: Server, how: signal.Signals = signal.SIGINT) -> int:
    """End it; its exit code."""
    if server.process.poll() is None:
        server.process.send_signal(how)
    try:
        return server.process.wait(30)
    finally:
        server.process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = catalogued.build(tmp_path_factory.mktemp("pages"))
    made.factory.revoke(made.factory.revocation(made.digests["old"], "web/amd64"))
    running = start(made)
    yield running
    end(running)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    running = start(catalogued.build(tmp_path))
    yield running
    end(running)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may go wrong: no error on the console, no request that fails, none to elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("response", lambda answer: faults.extend([answer.url] if answer.status >= 400 else []))
    opened.on("request", lambda request: faults.extend([] if "//127.0.0.1:" in request.url else [request.url]))
    yield opened
    context.close()
    assert faults == []


def test_clicked_through_from_the_overview_to_a_package_and_a_search(server: Server, page: Page) -> None:
    page.goto(server.url)
    assert page.title() == "Images · factory"
    page.screenshot(path=SHOTS / "overview.png")
    page.get_by_role("row", name="hardened/amd64").get_by_role("link", name="hardened/amd64", exact=True).click()
    page.wait_for_url(server.image("hardened"))
    page.screenshot(path=SHOTS / "image.png", full_page=True)
    drawing = page.get_by_role("group", name="Lineage of hardened/amd64")
    expect(drawing.get_by_role("link")).to_have_count(5)
    drawing.get_by_role("link", name=f"image web/amd64; {server.made.digests['old']}").click()
    page.wait_for_url(server.image("old"))
    expect(page.get_by_role("main")).to_contain_text("Revoked: CVE-2026-1")
    page.get_by_role("link", name="All of the lineage").click()
    page.screenshot(path=SHOTS / "lineage.png")
    page.get_by_role("link", name="base debian-12/amd64").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("debian-12/amd64")
    page.go_back()
    page.go_back()
    page.get_by_role("link", name="5 packages").click()
    page.get_by_role("row", name="nginx-light").get_by_role("link", name="nginx-light").click()
    page.get_by_role("link", name="1.22.1-9").click()
    expect(page.get_by_role("main")).to_contain_text("i-1")
    page.screenshot(path=SHOTS / "package.png", full_page=True)
    page.get_by_role("searchbox", name="Search packages and images").fill("ssl")
    page.get_by_role("banner").get_by_role("button", name="Search").click()
    page.screenshot(path=SHOTS / "search.png")
    page.get_by_role("link", name="openssl", exact=True).click()
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_role("link", name="Data").click()
    page.get_by_role("link", name="Checks").click()
    page.get_by_role("region", name="By outcome").get_by_role("link", name="skipped").click()
    expect(page.get_by_role("main")).to_contain_text("4 rows")
    page.screenshot(path=SHOTS / "table.png")


def test_overview_is_filtered_by_its_form(server: Server, page: Page) -> None:
    page.goto(server.url)
    page.get_by_label("Channel").select_option("prod")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("a.named")).to_have_count(1)
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Name").fill("base")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?name=base&channel=")
    expect(page.locator("a.named")).to_have_text(["base/amd64"])


def focused(page: Page) -> str:
    """What has the focus: its name and address."""
    return str(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"))


def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until what begins with this has the focus, which then shows."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page).strip().startswith(wanted):
            shows = page.evaluate(
                """() => { const one = document.activeElement, style = getComputedStyle(one);
                const box = one.querySelector('rect');
                return style.outlineStyle !== 'none' || (box && getComputedStyle(box).strokeWidth === '3px') }"""
            )
            assert shows, f"one does not see that {wanted} has the focus"
            return
    raise AssertionError(f"Tab never comes to {wanted}")


def test_gone_through_by_keyboard_alone(server: Server, page: Page) -> None:
    page.goto(server.url)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    assert page.get_by_role("link", name="Skip to the content").bounding_box()["y"] >= 0  # type: ignore[index]
    page.screenshot(path=SHOTS / "skip-link.png")
    page.keyboard.press("Enter")
    tab_to(page, "hardened/amd64")
    page.keyboard.press("Enter")
    page.wait_for_url(server.image("hardened"))
    tab_to(page, f"image web/amd64; {server.made.digests['web']}")
    page.screenshot(path=SHOTS / "focus.png")
    page.keyboard.press("Enter")
    page.wait_for_url(server.image("web"))
    tab_to(page, "5 packages")
    page.keyboard.press("Enter")
    page.wait_for_url("**/packages")
    tab_to(page, "openssl")
    page.keyboard.press("Enter")
    page.wait_for_url("**/package?name=openssl")
    tab_to(page, "3.0.11-1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("i-1")
    page.keyboard.press("Tab")
    page.get_by_role("searchbox", name="Search packages and images").focus()
    page.keyboard.type("nginx")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=nginx")
    assert page.get_by_role("link", name="nginx-light").is_visible()


CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = one => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll('body *')) {
    const has = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!has || !one.checkVisibility() || one.closest('option, style, title, .skip')) continue;
    const style = getComputedStyle(one);
    let behind = ground(one), colour = parse(style.color);
    if (one.closest('svg')) {
      colour = parse(style.fill);
      behind = parse(getComputedStyle(one.closest('.node').querySelector('rect')).fill);
    }
    const [a, b] = [light(colour), light(behind)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), one.tagName + ' ' + one.textContent.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.parametrize(("scheme", "width"), STATES)
def test_every_page_is_readable_and_fits_the_screen(server: Server, browser: Browser, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    paths = {
        "overview": server.url, "image": server.image("old"), "signed": server.image("web"),
        "packages": f"{server.image('web')}/packages", "lineage": f"{server.image('hardened')}/lineage",
        "search": f"{server.url}search?q=web", "package": f"{server.url}package?name=openssl",
        "version": f"{server.url}package?name=openssl&version=3.0.11-1", "data": f"{server.url}catalog",
        "table": f"{server.url}catalog/event_log", "missing": f"{server.url}nothing",
    }  # fmt: skip
    for name, path in paths.items():
        page.goto(path)
        page.screenshot(path=SHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        seen = page.evaluate(CONTRAST)
        assert len(seen) > 5
        assert seen[0][0] >= 4.5, (name, seen[:5])
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark is (scheme == "dark") is (sum(map(int, re.findall(r"\d+", ground))) < 300)
    context.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_links_are_large_enough_to_be_touched(server: Server, browser: Browser, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 740})
    page = context.new_page()
    page.goto(server.url)
    boxes = page.evaluate(
        "[...document.querySelectorAll('header a:not(.skip), button, input, select, main .named')]"
        ".map(one => [one.getBoundingClientRect().height, one.outerHTML.slice(0, 60)])"
    )
    assert [box for box in boxes if box[0] < 18] == []
    assert [box for box in boxes if box[0] < 38 and ("<button" in box[1] or "<input" in box[1])] == []
    context.close()


def test_page_shows_what_another_process_wrote(own: Server, page: Page) -> None:
    page.goto(own.url)
    expect(page.locator("a.named")).to_have_count(4)
    with own.made.catalog() as catalog:
        put(catalog, own.made.factory, replace(own.made.factory.locked("web"), digest=sha("new")), 21, ())
    deadline = time.monotonic() + 60
    while page.locator("a.named").count() == 4 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
        page.reload()
    expect(page.locator("a.named")).to_have_count(5)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_server_that_is_ended_leaves_nothing(own: Server, how: signal.Signals) -> None:
    with urllib.request.urlopen(own.url) as answer:
        assert answer.status == 200
    assert len(own.folders()) == 1
    code = end(own, how)
    assert own.process.stderr is not None
    said = own.process.stderr.read()
    assert code == 130
    assert "Traceback" not in said
    assert own.folders() == []


def test_copy_of_a_killed_server_is_removed_by_the_next(own: Server) -> None:
    (left,) = own.folders()
    assert end(own, signal.SIGKILL) == -signal.SIGKILL
    assert left.is_dir()
    second = start(own.made)
    try:
        assert left not in own.folders()
        assert len(own.folders()) == 1
    finally:
        end(second)


def test_server_that_others_can_reach_says_so(tmp_path: Path) -> None:
    running = start(catalogued.build(tmp_path), "--host", "0.0.0.0")
    assert running.process.stderr is not None
    assert "whoever reaches this address can read all of the catalog" in running.process.stderr.readline()
    assert end(running) == 130
