"""Strict JSON: read in one way or refused, and nothing comes out but TamperedError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import TamperedError
from factory.trust import strict

LARGEST = 2**53 - 1
LIMIT = 1 << 20


def loads(raw: bytes) -> Any:
    return strict.loads(raw, "the thing", max_bytes=LIMIT)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)

REFUSED = {
    "empty": (b"", "no JSON"),
    "space": (b"  ", "no JSON"),
    "two values": (b"{} {}", "no JSON"),
    "cut": (b'{"a": ', "no JSON"),
    "comma": (b"[1,]", "no JSON"),
    "comment": (b"{} // a", "no JSON"),
    "not UTF-8": (b'"\xff"', "not UTF-8"),
    "overlong NUL": (b'"\xc0\x80"', "not UTF-8"),
    "surrogate in UTF-8": (b'"\xed\xa0\x80"', "not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "no JSON"),
    "byte order mark": (b"\xef\xbb\xbf{}", "no JSON"),
    "NUL": (b"{}\x00", "no JSON"),
    "NUL in text": (b'"\x00"', "no JSON"),
    "line break in text": (b'"\n"', "no JSON"),
    "key twice": (b'{"a": 1, "a": 1}', "stands twice"),
    "key twice, escaped": (b'{"a": 1, "\\u0061": 2}', "stands twice"),
    "key twice, deep": (b'[{"x": {"a": 1, "b": 2, "a": 3}}]', "stands twice"),
    "decimal": (b"1.0", "no whole number"),
    "exponent": (b"1e2", "no whole number"),
    "huge exponent": (b"1e999999999", "no whole number"),
    "NaN": (b"NaN", "no whole number"),
    "infinity": (b'{"a": -Infinity}', "no whole number"),
    "large": (b"9007199254740992", "number that is too large"),
    "large negative": (b"-9007199254740992", "number that is too large"),
    "ten thousand digits": (b"1" * 10_000, "no JSON"),
    "nested": (b"[" * 34 + b"]" * 34, "nested too deep"),
    "nested objects": (b'{"a":' * 34 + b"1" + b"}" * 34, "nested too deep"),
    "depth bomb": (b"[" * 500_000, "nested too deep"),
    "depth bomb of objects": (b'{"a":' * 200_000, "nested too deep"),
    "lone surrogate": (rb'"\ud800"', "half a character"),
    "lone low surrogate": (rb'["x\udfff"]', "half a character"),
    "surrogates in the wrong order": (rb'"\udc00\ud800"', "half a character"),
    "surrogate as key": (rb'{"\ud800": 1}', "half a character"),
    "surrogate as deep key": (rb'{"a": [{"b": {"\udc80": 1}}]}', "half a character"),
    "too large": (b" " * (LIMIT + 1), "too large"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_strict_refuses_and_names_what_it_read(case: str) -> None:
    raw, why = REFUSED[case]
    with pytest.raises(TamperedError, match=why) as refused:
        loads(raw)
    assert refused.value.message.startswith("the thing ")
    assert len(refused.value.message) < 300


def test_strict_takes_what_is_just_allowed() -> None:
    assert loads(b"[9007199254740991, -9007199254740991]") == [LARGEST, -LARGEST]
    assert loads(rb'"\ud83d\ude00 \u0000"') == "\U0001f600 \x00"
    deep = loads(b"[" * 33 + b"]" * 33)
    for _ in range(32):
        (deep,) = deep
    assert deep == []
    assert loads(b" " * (LIMIT - 2) + b"{}") == {}


def test_strict_refuses_a_bomb_of_small_parts() -> None:
    raw = b"[" + b"[]," * strict.MAX_CONTAINERS + b"[]]"
    with pytest.raises(TamperedError, match="too many parts"):
        strict.loads(raw, "the thing", max_bytes=len(raw))


@given(VALUES)
def test_strict_reads_what_it_writes(value: Any) -> None:
    assert loads(strict.dumps(value)) == value


@given(VALUES)
def test_strict_writes_canonical_json(value: Any) -> None:
    again = json.dumps(value, ensure_ascii=True, indent=1).encode()
    assert strict.dumps(loads(again)) == strict.dumps(value)


@given(st.binary(max_size=200))
def test_strict_lets_nothing_out_but_its_own_error(raw: bytes) -> None:
    try:
        value = loads(raw)
    except TamperedError:
        return
    json.dumps(value, ensure_ascii=False).encode("utf-8")


@given(st.lists(st.sampled_from([*b'{}[]:,"\\u019eEdDfF-. \n', 0xEF, 0xBB, 0xBF, 0]), max_size=60))
def test_strict_lets_nothing_out_but_its_own_error_near_json(raw: list[int]) -> None:
    try:
        value = loads(bytes(raw))
    except TamperedError:
        return
    assert strict.dumps(value)
