"""Damage for parsers: bytes in, other bytes out, by a random generator that is given. Knows bytes and JSON alone.

Always: the same generator in the same state gives the same damage.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Seeds = Sequence[bytes]

TOKENS = (
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b'"', b"\\", b"\\u0000", b"\\ud800",
    b"\\udfff", b"{", b"}", b"[", b"]", b",", b":", b"=", b"==", b"+", b"-", b"_", b"/", b"\n", b"\r\n", b"#", b"null",
    b"true", b"-0", b"1.5", b"1e400", b"NaN", b"-Infinity", b"9007199254740992", b"9" * 5000, b"[" * 40, b"[" * 3000,
    b'{"a":' * 1200, b'"keyid": "",', b'"sig": "",', b'"payload": "",', b"../", b"'''", b'"""',
)  # fmt: skip


class Verbatim(str):
    """Text that is written into JSON as it stands."""


class Pairs(list[list[Any]]):
    """A JSON object as [key, value] pairs, so that a key can stand there twice."""


VALUES: tuple[bool | int | str | None, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**64, "", "x", " ", "\x00", "a/b", "..", "A" * 5000,
    "sha256:", "sha256:" + "0" * 64, "sha256:" + "0" * 3, "0" * 64, "QQ==", "QR==", "Q Q=",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-01-01T00:00:60Z",
    "\u0662026-01-01T00:00:00Z",
    *map(Verbatim, ("[]", "[[]]", "[null]", "{}", '{"a": 1}', "1.5", "1e400", "-0", "NaN", "1" * 5000)),
    *map(Verbatim, ('"\\ud800"', '"\\udc00\\ud800"', "[" * 31 + "]" * 31, "[" * 2000 + "]" * 2000)),
    Verbatim('{"a":' * 1500 + "1" + "}" * 1500),
)  # fmt: skip
"""None of them can be changed by what changes the tree that it stands in."""


def mutated(seeds: Seeds, random: Random) -> bytes:
    """One of `seeds`, damaged once to four times."""
    raw = random.choice(seeds)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        raw = random.choice(_WAYS)(raw, seeds, random)
    return raw


def _place(raw: bytes, random: Random) -> int:
    return random.randint(0, len(raw))


def _span(raw: bytes, random: Random) -> tuple[int, int]:
    start = _place(raw, random)
    return start, min(len(raw), start + random.choice((1, 1, 2, 4, 16, 64, 1000)))


def _flip(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    if not raw:
        return raw
    index = random.randrange(len(raw))
    return raw[:index] + bytes([raw[index] ^ 1 << random.randrange(8)]) + raw[index + 1 :]


def _replace(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    start, end = _span(raw, random)
    return raw[:start] + random.randbytes(end - start) + raw[end:]


def _remove(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    start, end = _span(raw, random)
    return raw[:start] + raw[end:]


def _repeat(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    start, end = _span(raw, random)
    return raw[:end] + raw[start:end] * random.choice((1, 1, 2, 40)) + raw[end:]


def _insert(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    index = _place(raw, random)
    return raw[:index] + random.choice(TOKENS) + raw[index:]


def _truncate(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    index = _place(raw, random)
    return raw[:index] if random.random() < 0.8 else raw[index:]


def _splice(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    other = random.choice(seeds)
    start, end = _span(other, random)
    index = _place(raw, random)
    return random.choice((raw[:index] + other[_place(other, random) :], raw[:index] + other[start:end] + raw[index:]))


def _lines(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    """Lines swapped, doubled, dropped, taken from another seed."""
    lines = raw.split(b"\n") + random.choice(([], random.choice(seeds).split(b"\n")))
    return b"\n".join(
        random.choices(lines, k=len(lines)) if random.random() < 0.5 else random.sample(lines, len(lines))
    )


def _in_json(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    """A line of JSON with one node changed: another value, a key doubled, renamed, dropped, two nodes swapped."""
    lines = raw.split(b"\n")
    index = random.randrange(len(lines)) if random.random() < 0.5 and len(lines) > 1 else -1
    tree = _tree(raw if index < 0 else lines[index])
    if tree is None:
        return _flip(raw, seeds, random)
    for _ in range(random.choice((1, 1, 2))):
        _change(random.choice(_slots(tree)), tree, random)
    written = _text(tree[0]).encode("utf-8", "surrogatepass")
    if index < 0:
        return written
    return b"\n".join([*lines[:index], written, *lines[index + 1 :]])


def _in_base64(raw: bytes, seeds: Seeds, random: Random) -> bytes:
    """JSON with one text that is base64 damaged inside, or written in another way."""
    tree = _tree(raw)
    if tree is None:
        return _in_json(raw, seeds, random)
    texts = [slot for slot in _slots(tree) if isinstance(slot[0][slot[1]], str) and len(slot[0][slot[1]]) % 4 == 0]
    if not texts:
        return _flip(raw, seeds, random)
    holder, key = random.choice(texts)
    try:
        inside = base64.b64decode(holder[key], validate=True)
    except ValueError:
        return _flip(raw, seeds, random)
    how = random.randrange(5)
    if how == 0:
        holder[key] = base64.urlsafe_b64encode(inside).decode()
    elif how == 1:
        holder[key] = holder[key].rstrip("=")
    else:
        way = random.choice((_flip, _remove, _insert, _in_json, _in_base64 if len(raw) > len(inside) > 0 else _flip))
        holder[key] = base64.b64encode(way(inside, [inside], random)).decode()
    return _text(tree[0]).encode("utf-8", "surrogatepass")


_WAYS: tuple[Callable[[bytes, Seeds, Random], bytes], ...] = (
    _flip, _replace, _remove, _repeat, _insert, _truncate, _splice, _lines, _in_json, _in_json, _in_json,
    _in_base64, _in_base64,
)  # fmt: skip


def _tree(raw: bytes) -> list[Any] | None:
    """JSON as the one item of a list; None where it is none, or so deep that damaging it on is of no use."""
    if b"[" * 31 in raw or raw.count(b'{"a":') > 100:
        return None
    try:
        return [json.loads(raw, object_pairs_hook=_pairs)]
    except ValueError:
        return None


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    return Pairs([key, value] for key, value in pairs)


def _slots(node: list[Any]) -> list[tuple[list[Any], int]]:
    """Every place in a tree that holds a value: a list and the index in it."""
    found: list[tuple[list[Any], int]] = []
    waiting: list[Any] = [node]
    while waiting:
        holder = waiting.pop()
        places = (
            [(pair, 1) for pair in holder] if isinstance(holder, Pairs) else [(holder, i) for i in range(len(holder))]
        )
        found += places
        waiting += [inner for owner, key in places if isinstance(inner := owner[key], list)]
    return found


def _change(slot: tuple[list[Any], int], tree: list[Any], random: Random) -> None:
    holder, key = slot
    value, how = holder[key], random.randrange(6)
    if isinstance(value, Pairs) and value and how < 4:
        pair = random.choice(value)
        if how == 0:
            value.append([pair[0], random.choice((pair[1], random.choice(VALUES)))])
        elif how == 1:
            value.remove(pair)
        elif how == 2:
            pair[0] = random.choice(("", "x", pair[0] + " ", pair[0].upper(), "\x00", "\ud800"))
        else:
            value.insert(0, ["another", random.choice(VALUES)])
    elif isinstance(value, list) and value and how < 3:
        value.append(random.choice(value)) if how else value.pop(random.randrange(len(value)))
    elif how == 5:
        other, place = random.choice(_slots(tree))
        holder[key] = json.loads(_text(other[place]), object_pairs_hook=_pairs) if _is_plain(other[place]) else None
    else:
        holder[key] = random.choice(VALUES)


def _is_plain(node: Any) -> bool:
    """Whether what is written of a node can be read again: nothing in it is verbatim, and it is not long."""
    return not isinstance(node, Verbatim) and not (
        isinstance(node, list) and any(isinstance(owner[key], Verbatim) for owner, key in _slots(node))
    )


def _text(node: Any) -> str:
    """A tree as JSON; half characters are escaped."""
    if isinstance(node, Verbatim):
        return str(node)
    if isinstance(node, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{_text(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(_text(item) for item in node) + "]"
    return json.dumps(node)
