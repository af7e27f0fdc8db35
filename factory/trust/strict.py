"""Reads JSON that others may have tampered with. What two parsers could take in two ways is refused.

Refused: more bytes than allowed, text that is not UTF-8 or begins with a byte order mark, escapes that are half a
character (a lone surrogate), a key that stands twice in one object, numbers that are not whole or too large to be exact
(beyond 2**53 - 1: RFC 8785 and RFC 7493), NaN and infinities, nesting deeper than MAX_DEPTH, more than MAX_CONTAINERS
objects and lists (each takes thirty times its two bytes in memory).
Every refusal is a TamperedError that names what was read; no other exception comes out of `loads`.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import rfc8785

from factory.errors import TamperedError

MAX_DEPTH = 32
MAX_CONTAINERS = 1 << 20
_LARGEST = 2**53 - 1


def loads(raw: bytes, what: str, *, max_bytes: int) -> Any:
    """The JSON value that `raw` is; `what` names it in errors. Raises TamperedError."""
    if len(raw) > max_bytes:
        raise TamperedError(f"{what} is too large: {len(raw)} bytes, at most {max_bytes} are read")
    if raw.count(b"{") + raw.count(b"[") > MAX_CONTAINERS:
        raise TamperedError(f"{what} has too many parts: at most {MAX_CONTAINERS} objects and lists are read")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_object, parse_float=_no_float, parse_constant=_no_float
        )
    except UnicodeDecodeError as error:
        raise TamperedError(f"{what} is not UTF-8 text") from error
    except RecursionError as error:
        raise TamperedError(f"{what} is nested too deep") from error
    except ValueError as error:
        raise TamperedError(f"{what} is no JSON we read: {error}") from error
    _check(value, what, 0)
    if b"\\u" in raw:  # the only way to a lone surrogate, which no UTF-8 can say
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise TamperedError(f"{what} is not UTF-8 text: half of a surrogate pair") from error
    return value


def dumps(value: Any) -> bytes:
    """Canonical JSON (RFC 8785)."""
    return rfc8785.dumps(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no whole number")


def _check(value: Any, what: str, depth: int) -> None:
    """Refuse what Python's reader lets through. Recursion ends at MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise TamperedError(f"{what} is nested too deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, what, depth)
            _check(item, what, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, what, depth + 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise TamperedError(f"{what} holds half a character")
    elif type(value) is int and abs(value) > _LARGEST:
        raise TamperedError(f"{what} holds a number that is too large")
