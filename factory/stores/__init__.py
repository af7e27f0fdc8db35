"""Shared stores: where `[store]` of images.toml says artifacts come from and go to.

Holds the Protocol, the registry by URL scheme, and the two ways between a shared store and the local one. A shared
store has the local one's layout: `URL/sha256/<hex>`. It is never believed: bytes count when the local store has hashed
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol

from factory.digest import Digest
from factory.errors import UsageError
from factory.store import Store
from factory.stores import file, https


class SharedStore(Protocol):
    """A store somewhere else."""

    def get(self, digest: Digest, target: IO[bytes]) -> None:
        """Append to `target`, which stands at its end, the bytes of a digest from that offset on.

        A store that can only give the whole empties `target` first. StoreError: not there, not reachable, broke off.
        """

    def put(self, digest: Digest, source: Path) -> None:
        """Store a file; nothing to do where it is there. StoreError: not writable, or another file's bytes."""


REGISTRY: Mapping[str, Callable[[str], SharedStore]] = {
    "file": file.FileStore,
    "https": https.HttpsStore,
}


def connect(url: str) -> SharedStore:
    """The shared store at a URL. UsageError where its scheme is not supported."""
    scheme = url.partition(":")[0]
    if scheme not in REGISTRY:
        raise UsageError(
            f"stores at {scheme}: are not supported",
            where="images.toml: store.url",
            hint="use " + ": or ".join(REGISTRY),
        )
    return REGISTRY[scheme](url)


def fetch(store: Store, shared: SharedStore, digest: Digest) -> Path:
    """Get a digest's bytes into the local store, verified; where they are. StoreError where they cannot be had."""
    with store.receiving(digest) as target:
        if target is not None:
            shared.get(digest, target)
    return store.path(digest)


def push(store: Store, shared: SharedStore, digest: Digest) -> None:
    """Put a digest's bytes, verified once more, into a shared store. StoreError."""
    shared.put(digest, store.verify(digest))
