"""A shared store in a folder: `file:/srv/images`, often a network file system. It is a Store like the local one."""

from __future__ import annotations

from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from factory.digest import Digest
from factory.errors import StoreError
from factory.store import Store, copy_sparse


class FileStore:
    """Reads and writes the folder of a `file:` URL."""

    def __init__(self, url: str) -> None:
        self._root = Path(unquote(urlsplit(url).path))
        self._store = Store(self._root)

    def get(self, digest: Digest, target: IO[bytes]) -> None:
        """See SharedStore; always gives the whole."""
        if not self._store.has(digest):
            raise StoreError(f"the store {self._root} does not have {digest}", where=str(self._root))
        target.seek(0)
        target.truncate()
        with self._store.path(digest).open("rb") as source:
            copy_sparse(source, target)

    def put(self, digest: Digest, source: Path) -> None:
        """See SharedStore."""
        if not self._store.has(digest):
            self._store.put_copy(source, expected=digest)
