"""The order of Debian package versions, as in deb-version(7)."""

from __future__ import annotations

import functools
import itertools
import re

_DIGITS = re.compile(r"([0-9]+)")
_END = ((0,), 0)

Part = tuple[tuple[tuple[int, ...], int], ...]


@functools.total_ordering
class VersionKey:
    """A version as dpkg compares it: epoch, upstream version, Debian revision; each of the latter text and number in
    turn. A text ends in 0, which is above `~` and below everything else; an end counts as empty texts and 0 for ever.
    """

    def __init__(self, version: str) -> None:
        epoch, colon, rest = version.partition(":")
        upstream, dash, revision = (rest if colon else version).rpartition("-")
        self._epoch = int(epoch) if colon else 0
        self._parts = (_part(upstream), _part(revision)) if dash else (_part(revision), ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionKey) and self._compare(other) == 0

    def __lt__(self, other: VersionKey) -> bool:
        return self._compare(other) < 0

    def __hash__(self) -> int:
        return hash(self._epoch)

    def _compare(self, other: VersionKey) -> int:
        if self._epoch != other._epoch:
            return -1 if self._epoch < other._epoch else 1
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            for one, two in itertools.zip_longest(mine, theirs, fillvalue=_END):
                if one != two:
                    return -1 if one < two else 1
        return 0


@functools.lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey:
    """A key that sorts versions as `dpkg --compare-versions` does."""
    return VersionKey(version)


def _part(part: str) -> Part:
    pieces = [*_DIGITS.split(part), "0"]
    return tuple(
        ((*map(_weight, text), 0), int(number)) for text, number in zip(pieces[::2], pieces[1::2], strict=True)
    )


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256
