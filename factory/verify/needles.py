"""Looks for secrets: as they are and in base64 in each of its three alignments, in files and in raw disk content.

A secret's value never leaves this module: findings name the secret, the place and the byte offset.
Not found are other encodings (hex, compressed, encrypted, base64 broken into lines within the secret).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory import redact
from factory.errors import SpecError

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, repr=False)
class Needle:
    """One form of one secret. Not printable on purpose."""

    secret: str
    form: str
    data: bytes


@dataclass(frozen=True, order=True)
class Finding:
    """A secret (by name) found at a byte offset of a place."""

    secret: str
    form: str
    place: str
    offset: int

    def __str__(self) -> str:
        return f"the secret {self.secret} ({self.form}) is in {self.place} at byte {self.offset}"


def needles(secrets: Mapping[str, bytes]) -> list[Needle]:
    """Each secret as it is and in base64 (both alphabets). SpecError where one is too short to be told from chance."""
    found: dict[bytes, Needle] = {}
    for name, value in secrets.items():
        if len(value) < redact.SHORTEST:
            raise SpecError(
                f"the secret {name} is shorter than {redact.SHORTEST} bytes: its absence could not be proven",
                hint="use a longer one",
                where=f"secrets.{name}",
            )
        for data, form in redact.patterns(value).items():
            found.setdefault(data, Needle(name, form, data))
    return list(found.values())


def in_bytes(wanted: list[Needle], data: bytes, place: str) -> list[Finding]:
    """What is found in `data`: the first place of each needle."""
    return [Finding(needle.secret, needle.form, place, at) for needle in wanted if (at := data.find(needle.data)) >= 0]


def in_file(wanted: list[Needle], path: Path, place: str) -> list[Finding]:
    """What is found in a file, holes skipped: the first place of each needle. Raises OSError."""
    left = list(wanted)
    longest = max((len(needle.data) for needle in wanted), default=0)
    found: list[Finding] = []
    with path.open("rb", buffering=0) as file:
        for start, end in _written(file.fileno()):
            before = b""
            at = start
            while at < end and left:
                chunk = os.pread(file.fileno(), min(_CHUNK_BYTES, end - at), at)
                if not chunk:
                    break
                window = before + chunk
                hits = in_bytes(left, window, place)
                found += [Finding(hit.secret, hit.form, place, at - len(before) + hit.offset) for hit in hits]
                left = [needle for needle in left if needle.data not in window] if hits else left
                before = window[-(longest - 1) :] if longest > 1 else b""
                at += len(chunk)
    return found


def _written(descriptor: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the stretches of a file that are not holes."""
    size = os.fstat(descriptor).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at
