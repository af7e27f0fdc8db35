"""Reads JSON that others may have tampered with. What two parsers could take in two ways is refused.

Refused: more bytes than allowed, text that is not UTF-8, a key that stands twice in one object, numbers that are not
whole or too large to be exact (RFC 8785 takes 2**53), NaN and infinities, nesting deeper than MAX_DEPTH.
Every refusal is a TamperedError that names what was read.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import rfc8785

from factory.errors import TamperedError

MAX_DEPTH = 32
_LARGEST = 2**53 - 1


def loads(raw: bytes, what: str, *, max_bytes: int) -> Any:
    """The JSON value that `raw` is; `what` names it in errors. Raises TamperedError."""
    if len(raw) > max_bytes:
        raise TamperedError(f"{what} is too large: {len(raw)} bytes, at most {max_bytes} are read")
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
    if depth > MAX_DEPTH:
        raise TamperedError(f"{what} is nested too deep")
    if isinstance(value, dict):
        for item in value.values():
            _check(item, what, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, what, depth + 1)
    elif type(value) is int and abs(value) > _LARGEST:
        raise TamperedError(f"{what} holds a number that is too large")
