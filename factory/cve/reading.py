"""JSON from elsewhere, read in steps: large files are never in memory as a whole, damage is told with its place.

Refused, each as a CveError that names the file: what is no JSON or no UTF-8, a key that stands twice in an object that
counts, NaN and infinities, nesting deeper than Python reads, a single value of more than MAX_VALUE_CHARS, an end in the
middle.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from factory.digest import Digest
from factory.errors import CveError

MAX_VALUE_CHARS = 256 << 20
_CHUNK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


class Stream:
    """The JSON values of a file, one after the other. `what` names the file in errors."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self.what = what
        self._file = file
        self._hasher = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._gone = "", 0, 0
        self._ended = False
        self._strict = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)
        self._quick = json.JSONDecoder(parse_constant=_no_number)

    @property
    def digest(self) -> Digest:
        """The digest of the whole file, once its end was reached."""
        return Digest(f"sha256:{self._hasher.hexdigest()}")

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> None:
        """Go past a character that must come next."""
        found = self.peek()
        if found != wanted:
            raise self.fault(f"{found!r} where {wanted!r} should be" if found else "it ends in the middle")
        self._at += 1

    def value(self, *, strict: bool = True) -> Any:
        """The next value. Not `strict`: a key that stands twice is not looked for."""
        if not self.peek():
            raise self.fault("it ends in the middle")
        decoder = self._strict if strict else self._quick
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
                length = end - self._at
                if end < len(self._text) or not self._more():  # a number may go on
                    self._at += length
                    return value
            except RecursionError:
                raise self.fault("its values are nested too deeply") from None
            except ValueError as error:
                fault = self.fault(_reason(error), getattr(error, "pos", None))
                if not self._double():
                    raise fault from None

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next, each once; whoever iterates reads its `value` before going on."""
        seen: set[str] = set()
        self.take("{")
        while self.peek() != "}":
            if seen:
                self.take(",")
            if self.peek() != '"':
                raise self.fault("a key must come here" if self.peek() else "it ends in the middle")
            key = str(self.value())
            if key in seen:
                raise self.fault(f"the key {key[:80]!r} stands there twice")
            seen.add(key)
            self.take(":")
            yield key
        self.take("}")

    def end(self) -> None:
        """There must be nothing more."""
        if self.peek():
            raise self.fault("there is more after its end")

    def fault(self, why: str, at: int | None = None) -> CveError:
        """What is wrong, and where."""
        place = self._gone + (self._at if at is None else at) + 1
        return CveError(
            f"{self.what} cannot be read: {why}", where=f"character {place}", hint="get the file anew, whole"
        )

    def _more(self, size: int = _CHUNK_BYTES) -> bool:
        """Read on, and forget what was gone past; whether there was more."""
        if self._ended:
            return False
        data = self._file.read(size)
        self._hasher.update(data)
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise CveError(f"{self.what} cannot be read: it is not UTF-8 text", where=self.what) from error
        self._gone += self._at
        self._text, self._at = self._text[self._at :] + text, 0
        self._ended = not data
        return bool(data)

    def _double(self) -> bool:
        """Read as much again as there is, since the value seems to go on; whether there was more."""
        held = len(self._text) - self._at
        if held > MAX_VALUE_CHARS:
            raise self.fault("one of its values is too large, or has no end")
        return self._more(max(held, _CHUNK_BYTES))


def refuse_other_than_json(stream: Stream) -> None:
    """Tell apart what people often get instead of JSON. Raises CveError."""
    first = stream.peek()
    if not first:
        raise CveError(f"{stream.what} is empty", where=stream.what, hint="get the file anew")
    if first == "<":
        raise CveError(
            f"{stream.what} is a web page (HTML or XML), not JSON",
            where=stream.what,
            hint="is that the address of the data itself, or does somebody ask for a login?",
        )
    if first == "\ufeff":
        raise stream.fault("it begins with a byte order mark")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} stands there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:200]
