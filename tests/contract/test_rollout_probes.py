"""Probes against servers that misbehave; nothing here may raise, hang or grow."""

from __future__ import annotations

import time

import pytest
from loopback import closed_address, reply, scripted

from factory.rollout import health
from factory.rollout.model import Health, HttpProbe

HTTP = Health(http=HttpProbe(80), timeout_s=5.0)
TEXT = Health(http=HttpProbe(80, body="hello"), timeout_s=5.0)
TCP = Health(tcp=80, timeout_s=5.0)
BRIEF = Health(http=HttpProbe(80, body="hello"), timeout_s=0.3)


@pytest.mark.parametrize(
    ("script", "how", "healthy", "why"),
    [
        ((reply(b"x"),), HTTP, True, "status 200"),
        ((reply(b"x", "503 Busy"),), HTTP, False, "status 503, not 200"),
        ((reply(b"", "302 Found", "Location: /ok"),), HTTP, False, "status 302, not 200"),
        ((reply(b"well hello"), None), TEXT, True, "with the text"),
        ((b"HTTP/1.1 200 OK\r\n\r\nhel", 0.05, b"lo", None), TEXT, True, "with the text"),
        ((reply(b"bye"),), TEXT, False, 'without "hello"'),
        ((b"\x00\xff" * 5000,), HTTP, False, "no HTTP/1 answer"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * (1 << 20),), TEXT, False, 'without "hello"'),
        ((), HTTP, False, "closed without an answer"),
    ],
)
def test_http_probe_says_what_came(script: tuple[bytes | None, ...], how: Health, healthy: bool, why: str) -> None:
    with scripted(*script) as server:
        answer = health.probe(server.address, how)
    assert (answer.healthy, why in answer.why) == (healthy, True), answer


def test_probe_where_nobody_listens_says_so() -> None:
    for how in (HTTP, TCP):
        answer = health.probe(closed_address(), how)
        assert not answer.healthy
        assert answer.why


@pytest.mark.parametrize("address", ["", "nonsense", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "[::1", "\x00:1"])
def test_probe_of_no_address_is_unhealthy(address: str) -> None:
    assert not health.probe(address, HTTP).healthy


@pytest.mark.parametrize(
    "script",
    [
        (None,),
        (b"HTTP/1.1 200 OK\r\n", None),
        tuple(x for _ in range(100) for x in (b"HTTP/1.1 200 OK\r\nX: y\r\n", 0.05)),
    ],
)
def test_time_out_is_for_the_probe_as_a_whole(script: tuple[bytes | float | None, ...]) -> None:
    with scripted(*script) as server:
        begun = time.monotonic()
        answer = health.probe(server.address, BRIEF)
        took = time.monotonic() - begun
    assert answer == health.Answer(False, "no answer within 0.3 s")
    assert took < 4.0  # the script takes 5 s; the machine may be busy


def test_tcp_probe_needs_a_connection_that_stays() -> None:
    with scripted(None, reads=False) as server:
        assert health.probe(server.address, TCP).healthy
    with scripted(reads=False) as server:
        assert health.probe(server.address, TCP) == health.Answer(False, "it closed at once")
    with scripted(b"SSH-2.0-x\r\n", None, reads=False) as server:
        assert health.probe(server.address, TCP) == health.Answer(True, "it speaks")


def test_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "AT_ONCE", 32)
    with scripted(0.01, reply(b"x")) as good, scripted(reply(b"", "500 Broken")) as bad:
        ill = closed_address()
        wanted = {f"{kind}{number}": address for number in range(60)
                  for kind, address in (("good", good.address), ("bad", bad.address), ("ill", ill))}  # fmt: skip
        found = health.probe_all(wanted, HTTP)
    assert set(found) == set(wanted)
    assert {key.rstrip("0123456789") for key, answer in found.items() if answer.healthy} == {"good"}
    assert sum(answer.healthy for answer in found.values()) == 60


def test_nobody_is_asked_of_nothing() -> None:
    assert health.probe_all({}, HTTP) == {}
