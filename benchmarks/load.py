"""Constant HTTP requests to one address, and what came of each: no retries, a new connection every time.

    python -m benchmarks.load http://127.0.0.1:8080/ [--per-second 20] [--seconds N]

Goes on until --seconds are over, or Ctrl-C. Requests begin on time however slow the answers are. Exit 0 where none was
lost, 1 where one was: no connection, no answer within 10 s, an answer cut short, or another status than 200.
"""

from __future__ import annotations

import argparse
import http.client
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT_S = 10.0
PER_SECOND = 20.0


@dataclass
class Outcome:
    """What came of the requests so far. `answers`: how often each body came. `lost`: when a request was sent, in
    seconds since the first, and why it was lost. `last_at`: of each body, when its last answer ended; `began`: when
    the first request was sent; both as of time.time()."""

    answers: Counter[str] = field(default_factory=Counter)
    lost: list[tuple[float, str]] = field(default_factory=list)
    last_at: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    @property
    def sent(self) -> int:
        """How many requests have ended."""
        return self.answers.total() + len(self.lost)


def ask(url: str) -> str:
    """The body of one answer. Raises OSError or HTTPException where there is none of status 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return body
    finally:
        connection.close()


@contextmanager
def load(url: str, per_second: float = PER_SECOND) -> Iterator[Outcome]:
    """Requests at a constant rate while the context lasts; those under way are waited for at its end."""
    outcome, stop, guard = Outcome(), threading.Event(), threading.Lock()

    def one() -> None:
        asked_at = time.time() - outcome.began
        try:
            body = ask(url)
        except (OSError, http.client.HTTPException) as error:
            with guard:
                outcome.lost.append((asked_at, str(error) or type(error).__name__))
        else:
            with guard:
                outcome.answers[body] += 1
                outcome.last_at[body] = time.time()

    def send() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            pool.submit(one)
            due += 1 / per_second

    with ThreadPoolExecutor(max_workers=max(1, round(per_second * TIMEOUT_S))) as pool:
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield outcome
        finally:
            stop.set()
            sender.join()


def main() -> int:
    """Ask until told to stop; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--per-second", type=float, default=PER_SECOND)
    parser.add_argument("--seconds", type=float, help="how long  [default: until Ctrl-C]")
    chosen = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with load(chosen.url, chosen.per_second) as outcome:
        ended.wait(chosen.seconds)
    print(f"{outcome.sent} requests, {len(outcome.lost)} lost")
    for body, count in outcome.answers.most_common():
        print(f"{count:6} times: {_readable(body)}")
    for at, why in outcome.lost:
        print(f"  lost at {at:.1f} s: {why}")
    return 1 if outcome.lost else 0


def _readable(body: str) -> str:
    text = " ".join(re.sub(r"(?s)<head>.*</head>|<[^>]*>", " ", body).split())
    return text if len(text) <= 70 else text[:69] + "…"


if __name__ == "__main__":
    sys.exit(main())
