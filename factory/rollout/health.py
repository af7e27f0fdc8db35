"""Whether instances can serve: probes over the network, and how many in a row said so.

A probe never raises for what a server does, reads at most `MAX_BYTES`, follows no redirect, and takes at most
`timeout_s` as a whole, however slowly a server speaks. At most `AT_ONCE` are open at a time. What is remembered of an
instance (`Record`) is pure; a single failure takes all of its successes away.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from factory import schema
from factory.rollout.model import Health, HttpProbe

MAX_BYTES = 1 << 18
"""Of an answer, its head included. What should be in the body must come before."""

AT_ONCE = 256
SETTLE_S = 0.2
"""A TCP connection must stay open for so long: a forwarder takes it, and drops it when nobody is behind."""

_BEGIN = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:[^\r\n]*\bchunked[ \t]*\r?$")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Answer:
    """What one probe found. `why`: the sentence that says it, in one line."""

    healthy: bool
    why: str = ""


@dataclass(frozen=True)
class Record:
    """What is known of one instance. `row`: how many probes in a row said the same. `flaps`: how often it fell from
    healthy to not. `at`: when it was last asked."""

    healthy: bool
    row: int = 1
    flaps: int = 0
    at: float = 0.0
    why: str = ""

    def can_serve(self, health: Health) -> bool:
        """Whether there were enough successes in a row."""
        return self.healthy and self.row >= health.successes


def due(records: Mapping[str, Record], instances: Iterable[str], health: Health, now: float) -> list[str]:
    """The instances whose next probe is due; also after a clock was set back."""
    return [one for one in instances if one not in records or abs(now - records[one].at) >= health.interval_s]


def after(
    records: Mapping[str, Record], present: Collection[str], answers: Mapping[str, Answer], health: Health, now: float
) -> dict[str, Record]:
    """The records of the instances that are `present`, with new answers; who was not asked keeps its own."""
    kept = {one: records[one] for one in present if one in records}
    for one, answer in answers.items():
        if one in present:
            kept[one] = _with(kept.get(one), answer, health, now)
    return kept


def _with(before: Record | None, answer: Answer, health: Health, now: float) -> Record:
    if before is None:
        return Record(answer.healthy, at=now, why=answer.why)
    row = before.row + 1 if before.healthy == answer.healthy else 1
    fell = not answer.healthy and before.can_serve(health)
    return Record(answer.healthy, row, before.flaps + fell, now, answer.why)


def probe(address: str, health: Health) -> Answer:
    """Ask one address (HOST:PORT) once."""
    return probe_all({"": address}, health)[""]


def probe_all(addresses: Mapping[str, str], health: Health) -> dict[str, Answer]:
    """Ask all addresses (key -> HOST:PORT, an IP address best: names are looked up one by one) once, at once."""
    return asyncio.run(_all(addresses, health)) if addresses else {}


async def _all(addresses: Mapping[str, str], health: Health) -> dict[str, Answer]:
    waiting = iter(addresses.items())
    answers: dict[str, Answer] = {}

    async def ask() -> None:
        for key, address in waiting:
            answers[key] = await _one(address, health)

    await asyncio.gather(*(ask() for _ in range(min(AT_ONCE, len(addresses)))))
    return answers


async def _one(address: str, health: Health) -> Answer:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16):
        return Answer(False, f"{schema.quoted(address)} is no address")
    judge = _Conversation(health.http, address)
    transport: asyncio.Transport | None = None
    try:
        async with asyncio.timeout(health.timeout_s):
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: judge, host.strip("[]"), int(port))
            if health.http is None:
                await asyncio.wait([judge.found], timeout=min(SETTLE_S, health.timeout_s / 2))
                return judge.found.result() if judge.found.done() else Answer(True, "it takes connections")
            return await judge.found
    except TimeoutError:
        return Answer(False, f"no {'answer' if transport else 'connection'} within {health.timeout_s:g} s")
    except (OSError, ValueError) as error:  # ValueError: a host that is none
        return Answer(False, (isinstance(error, OSError) and error.strerror) or schema.quoted(str(error)))
    finally:
        if transport is not None:
            transport.abort()


class _Conversation(asyncio.Protocol):
    """One connection of an HTTP probe: sends the request, and decides as soon as what has come suffices."""

    def __init__(self, wanted: HttpProbe | None, address: str) -> None:
        self.found: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._wanted = wanted
        self._address = address
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._wanted is not None and isinstance(transport, asyncio.Transport):
            transport.write(request(self._wanted, self._address))

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._decide(ended=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._decide(ended=True)

    def _decide(self, *, ended: bool) -> None:
        if self.found.done():
            return
        if self._wanted is None:
            answer: Answer | None = Answer(False, "it closed at once") if ended else Answer(True, "it speaks")
        else:
            answer = judged(bytes(self._received), self._wanted, ended=ended)
        if answer is not None:
            self.found.set_result(answer)


def request(wanted: HttpProbe, address: str) -> bytes:
    """The bytes of the request."""
    return (
        f"GET {wanted.path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: factory-health\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
    ).encode("ascii", "replace")


def judged(received: bytes, wanted: HttpProbe, *, ended: bool) -> Answer | None:
    """What the bytes of an answer say; None while more must come. `ended`: no more will."""
    ended = ended or len(received) >= MAX_BYTES
    status, start = _final_status(received)
    if status is None:
        begun = received[start : start + len(_BEGIN)]
        is_begun = b"\n" not in received[start:] and _BEGIN.startswith(begun)
        return None if is_begun and not ended else Answer(False, _no_http(received))
    code = int(status[1])
    if code != wanted.status:
        return None if _is_interim(code) and not ended else Answer(False, f"status {code}, not {wanted.status}")
    if wanted.body is None:
        return Answer(True, f"status {code}")
    head = _HEAD_END.search(received, start)
    body, is_whole = _body(received[start : head.end()], received[head.end() :]) if head else (b"", False)
    if wanted.body.encode() in body:
        return Answer(True, f"status {code}, with the text")
    return Answer(False, f"status {code}, without {schema.quoted(wanted.body)}") if is_whole or ended else None


def _final_status(received: bytes) -> tuple[re.Match[bytes] | None, int]:
    """The status line of the answer, and where it begins: interim answers (1xx) may stand before it."""
    start = 0
    while (status := _STATUS.match(received, start)) and _is_interim(int(status[1])):
        head = _HEAD_END.search(received, start)
        if head is None:
            break
        start = head.end()
    return status, start


def _is_interim(code: int) -> bool:
    return 100 <= code < 200 and code != 101


def _no_http(received: bytes) -> str:
    return "what came is no HTTP/1 answer" if received else "it closed without an answer"


def _body(head: bytes, rest: bytes) -> tuple[bytes, bool]:
    """What there is of a body, and whether that is all of it."""
    if _CHUNKED.search(head):
        return _joined(rest)
    length = _LENGTH.search(head)
    if length is None:
        return rest, False
    return rest[: int(length[1])], len(rest) >= int(length[1])


def _joined(rest: bytes) -> tuple[bytes, bool]:
    """The chunks that have come, put together; whether the last has come, or something that is no chunk."""
    parts: list[bytes] = []
    place = 0
    while found := _CHUNK.match(rest, place):
        size = int(found[1], 16)
        if not size:
            return b"".join(parts), True
        parts.append(rest[found.end() : found.end() + size])
        place = found.end() + size
        if place >= len(rest):
            return b"".join(parts), False
        if rest.startswith(b"\r\n"[: len(rest) - place], place):
            place += 2
        elif rest.startswith(b"\n", place):
            place += 1
        else:
            return b"".join(parts), True
    return b"".join(parts), b"\n" in rest[place : place + 64] or len(rest) - place > 64
