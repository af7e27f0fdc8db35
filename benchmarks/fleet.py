"""Whether anything is lost while a local fleet is replaced, and how quickly it is back: real guests, a real HAProxy.

A factory with two tiny images (tests/e2e/tiny_images.py bakes them) and a fleet of three guests. For each strategy the
fleet is rolled forward, and rolled again with a source whose numbers turn bad while the new generation has traffic, so
that it goes back by itself; all of it by the command line, under constant load.
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.load import PER_SECOND, Outcome, load
from benchmarks.scratch import FACTORY, REPOSITORY
from factory import proc
from factory.model import Layout
from factory.rollout import log

sys.path.append(str(REPOSITORY / "tests" / "e2e"))

import tiny_images

SIZE = 3
STRATEGIES = ("blue-green", "canary")
IMAGES = ("tiny-one", "tiny-two")
NAME = "bench"
WENT_BACK = 8
LIMIT_S = 900

FLEET = """\
[fleet.{name}]
provider = "local"
image = "{image}"
size = {size}
min = {size}
max = {most}
strategy = "{strategy}"
{steps}
bake_s = 5
listen = "127.0.0.1:{port}"
memory_mib = 256

[fleet.{name}.health]
http = {{ path = "/", port = 80 }}
deadline_s = 600

[fleet.{name}.analysis]
http_json = {{ url = "http://127.0.0.1:{source}/", value = "error_rate" }}
success = "< 0.01"
count = 3
interval_s = 1
"""
STEPS = "steps = [{ weight = 10, pause_s = 2, analyse = true }, { weight = 50, pause_s = 2, analyse = true }]"


@dataclass(frozen=True)
class Replaced:
    """One rollout. `direction`: `forward`, or `back`. `back_s`: from the engine's verdict until the last answer of the
    new image had come, and the time until the next request, as an upper bound; None where it went forward."""

    strategy: str
    direction: str
    wall_s: float
    requests: int
    lost: int
    back_s: float | None = None


def measure(folder: Path, say: Callable[[str], None] = lambda _: None) -> list[Replaced]:
    """Forward and back by each strategy."""
    tiny_images.bake(*IMAGES)
    with _source() as source:
        fleet = Fleet(_factory(folder), _free_port(), source, say)
        try:
            say(f"a local fleet of {SIZE} guests is brought up")
            fleet.write(STRATEGIES[0], IMAGES[0])
            fleet.factory("rollout", "apply", NAME)
            return list(_each(fleet, say))
        finally:
            fleet.factory("fleet", "destroy", NAME, "--yes")


def _each(fleet: Fleet, say: Callable[[str], None]) -> Iterator[Replaced]:
    """The fleet runs the first image before each, the second after the one that goes forward."""
    for place, strategy in enumerate(STRATEGIES):
        old, new = IMAGES[place % 2], IMAGES[1 - place % 2]
        say(f"  {strategy}, and back")
        yield fleet.replaced(strategy, new, is_good=False)
        say(f"  {strategy}, forward from {old} to {new}")
        yield fleet.replaced(strategy, new, is_good=True)


@dataclass(frozen=True)
class Fleet:
    """A fleet of a factory."""

    layout: Layout
    port: int
    source: Source
    say: Callable[[str], None]

    def write(self, strategy: str, image: str) -> None:
        """Its fleets.toml."""
        text = FLEET.format(
            name=NAME, image=image, size=SIZE, most=2 * SIZE, strategy=strategy, port=self.port,
            source=self.source.port, steps=STEPS if strategy == "canary" else "",
        )  # fmt: skip
        (self.layout.root / "fleets.toml").write_text(text)

    def factory(self, *arguments: str, expected: int = 0) -> None:
        """A command of the factory, which is to end with this exit code."""
        argv = [*FACTORY, "-C", str(self.layout.root), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode != expected:
            raise proc.failure(argv, proc.Completed(done.returncode, done.stdout.encode(), done.stderr.encode()))

    def replaced(self, strategy: str, image: str, *, is_good: bool) -> Replaced:
        """A rollout of an image under load; where it is not good, the numbers turn bad once it has half of it."""
        self.write(strategy, image)
        self.source.is_good = lambda: is_good or not self._has_half()
        with load(f"http://127.0.0.1:{self.port}/") as outcome:
            began = datetime.now().timestamp()
            self.factory("rollout", "apply", NAME, expected=0 if is_good else WENT_BACK)
            wall_s = datetime.now().timestamp() - began
        for at, why in outcome.lost:
            self.say(f"    lost at {at:.1f} s: {why}")
        direction, back_s = ("forward", None) if is_good else ("back", self._back_s(outcome, image))
        return Replaced(strategy, direction, wall_s, outcome.sent, len(outcome.lost), back_s)

    def _has_half(self) -> bool:
        """Whether the new generation has half of the traffic, or more."""
        shifts = [event for event in self._events() if event["event"] == "shift"]
        new = str(shifts[-1]["generation"])
        return int(shifts[-1]["weights"].get(new, 0)) >= 50

    def _back_s(self, outcome: Outcome, image: str) -> float:
        verdict = max(_moment(event) for event in self._events() if event.get("state") == "ROLLING_BACK")
        greeting = tiny_images.IMAGES[image][0]
        new = [at for body, at in outcome.last_at.items() if f"tiny {greeting}" in body]
        return max(0.0, max(new) - verdict) + 1 / PER_SECOND

    def _events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.path_of(self.layout, NAME).read_text().splitlines()]


def _moment(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"].replace("Z", "+00:00")).timestamp()


def _factory(folder: Path) -> Layout:
    """The factory of the tiny images, with a state of its own but for store and cache."""
    original, layout = Layout(tiny_images.CACHE / "tests" / "tiny"), Layout(folder)
    layout.state.mkdir(parents=True)
    for name in ("images.toml", "images.lock", "trust", "templates", "playbooks"):
        proc.run(["cp", "-a", "--", str(original.root / name), str(folder)])
    for path in (original.store, original.cache):
        (layout.state / path.name).symlink_to(path.resolve())
    return layout


class Source:
    """A source of numbers: the error rate of whoever is asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_good: Callable[[], bool] = lambda: True


@contextmanager
def _source() -> Iterator[Source]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps({"error_rate": 0.0 if source.is_good() else 0.5}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        source = Source(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield source
        finally:
            server.shutdown()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


__all__ = ["PER_SECOND", "SIZE", "Replaced", "measure"]
