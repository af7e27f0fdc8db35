"""Digests: `sha256:<64 hex>` of bytes, files and canonical JSON (RFC 8785).

Hashing happens in this process: hashlib with a large buffer is several times faster than the sha256sum program.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NewType

import rfc8785

try:  # for what is small, CPython's own: hashlib loads OpenSSL first, which takes longer than all sums of a `resolve`
    from _sha256 import sha256 as _small  # type: ignore[import-not-found]
except ImportError:  # a Python that calls it otherwise
    from hashlib import sha256 as _small

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hex digits."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_BUFFER_BYTES = 1 << 20


def is_digest(text: object) -> bool:
    """Whether `text` is a well-formed digest."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


def parse_digest(text: str) -> Digest:
    """`text` as a Digest; ValueError where it is not one."""
    if not is_digest(text):
        raise ValueError(f"not a digest (sha256: and 64 hex digits): {text!r}")
    return Digest(text)


def hex_of(digest: Digest) -> str:
    """The 64 hex digits of a digest."""
    return digest.removeprefix("sha256:")


def packed(digest: str) -> bytes:
    """The 32 bytes of a digest. ValueError where `digest` is not one."""
    return bytes.fromhex(hex_of(parse_digest(digest)))


def unpacked(data: bytes) -> Digest:
    """The digest of 32 bytes."""
    return Digest(f"sha256:{data.hex()}")


def of_bytes(data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest("sha256:" + _small(data).hexdigest())


def of_json(value: Any) -> Digest:
    """The digest of `value` as canonical JSON (RFC 8785)."""
    return of_bytes(rfc8785.dumps(value))


def of_file(path: Path) -> Digest:
    """The digest of a file's bytes. Raises OSError."""
    import hashlib  # OpenSSL's is several times as fast

    hasher = hashlib.sha256()
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return Digest("sha256:" + hasher.hexdigest())
