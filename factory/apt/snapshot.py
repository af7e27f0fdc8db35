"""A snapshot: the index files of repositories as they were at one time, and what they say.

Owns which URL has which content in a snapshot, and the questions to it: which digest a URL should have, what is
offered. Never speaks to a network itself: `refetch` is given what does.
"""

from __future__ import annotations

import mmap
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from factory.apt import index
from factory.apt.index import Offer, Release
from factory.apt.store import Entry, Store, write_through
from factory.digest import Digest, hex_of, is_digest
from factory.errors import BaseError

_RELEASE_NAMES = ("InRelease", "Release", "Release.gpg")
_PACKAGES = re.compile(r"(?:(?P<folder>.*)/)?Packages(?:\.xz|\.gz)?\Z")
_BY_HASH = re.compile(r"(?P<folder>.*/)by-hash/SHA256/(?P<hex>[0-9a-f]{64})\Z")


@dataclass(frozen=True)
class Dist:
    """One repository as a snapshot has it: the folder its Release file is in (a URL that ends in /), what that says,
    and the digests of its Packages files that are here."""

    url: str
    release: Release
    packages: tuple[Digest, ...]

    @property
    def name(self) -> str:
        """The suite's name in the URL (`bookworm-security`); empty for a flat repository."""
        return self.url.rpartition("/dists/")[2].rstrip("/") if "/dists/" in self.url else ""

    def paths_of(self, url: str) -> list[str]:
        """What a package at `url` may be called in this repository's Packages (Filename)."""
        root, dists, _ = self.url.rpartition("dists/")
        roots = [root] if dists else _parents(self.url)
        return [url.removeprefix(root) for root in roots if url.startswith(root)]


class Snapshot:
    """One snapshot of the store. Other threads and processes may add to it at any time."""

    def __init__(self, store: Store, identifier: str) -> None:
        self._store = store
        self._shelf = store.snapshot(identifier)
        self._lock = threading.Lock()
        self._dists: tuple[Dist, ...] = ()
        self._seen: frozenset[str] = frozenset()

    def get(self, url: str) -> Entry | None:
        """What the snapshot has for a URL, None if it was never asked for (or its content is lost)."""
        entry = self._shelf.get(url)
        return entry if entry is None or entry.digest is None or self._store.has(entry.digest) else None

    def put(self, entry: Entry) -> None:
        """Remember what a URL had; it stays so in this snapshot."""
        self._shelf.put(entry)

    def forget(self, url: str) -> None:
        """Forget all below a URL, in a snapshot that is not in force yet."""
        self._shelf.remove(entry.url for entry in self._shelf.entries() if entry.url.startswith(url))

    def entries(self) -> list[Entry]:
        """All entries whose content is here."""
        return [entry for entry in self._shelf.entries() if entry.digest is None or self._store.has(entry.digest)]

    def dists(self) -> tuple[Dist, ...]:
        """The repositories in the snapshot, by URL."""
        names = self._shelf.names()
        with self._lock:
            if names != self._seen:
                self._dists, self._seen = tuple(self._read_dists()), names
            return self._dists

    def expected(self, url: str) -> Digest | None:
        """The digest that the snapshot's own indexes give the content of an index file's URL; None: they do not say."""
        by_hash = _BY_HASH.match(url)
        if by_hash is not None:
            return Digest(f"sha256:{by_hash['hex']}")
        for dist in self.dists():
            if url.startswith(dist.url):
                return dist.release.digests.get(_plain(url.removeprefix(dist.url)))
        return None

    def expected_deb(self, url: str) -> Digest | None:
        """The digest that the snapshot's indexes give a .deb's URL; None: none of them names it."""
        plain = _plain(urllib.parse.unquote(url))
        for dist in self.dists():
            paths = dist.paths_of(plain)
            for digest in dist.packages if paths else ():
                found = _find_filename(self._listing(digest), paths)
                if found is not None:
                    return found
        return None

    def offers(self, dists: Iterable[Dist], names: Iterable[str] | None = None) -> Iterator[Offer]:
        """What these repositories offer: all, or the packages of these names."""
        wanted = None if names is None else frozenset(names)
        for dist in dists:
            for digest in dist.packages:
                yield from index.read_listing(self._listing(digest), wanted)

    def _listing(self, packages: Digest) -> Path:
        path = self._store.folder / "listings" / hex_of(packages)
        with self._lock:
            if not path.exists():
                write_through(path, lambda file: index.write_listing(self._store.blob(packages), file))
        return path

    def _read_dists(self) -> Iterator[Dist]:
        entries = [entry for entry in self.entries() if entry.digest is not None]
        here = {entry.digest for entry in entries}
        seen: set[str] = set()
        for entry in entries:  # InRelease sorts before Release
            folder, _, name = entry.url.rpartition("/")
            url = _plain(folder + "/")
            if name not in _RELEASE_NAMES[:2] or url in seen:
                continue
            seen.add(url)
            assert entry.digest is not None
            release = index.parse_release(self._store.blob(entry.digest).read_text("utf-8", "replace"))
            yield Dist(url, release, tuple(_one_of_each(release, here)))


def is_release(url: str) -> bool:
    """Whether a URL is that of a Release file or its signature."""
    return url.rpartition("/")[2] in _RELEASE_NAMES


def refetch(old: Snapshot, fresh: Snapshot, fetch: Callable[[str, Digest | None], Entry]) -> list[str]:
    """Put into `fresh` every index of `old` as it is now; the repositories that were left out.

    `fetch` gets a URL and the digest it must have, if known, and raises BaseError. A repository that is not to be had
    ends this with one, unless no bake asked for it since the last refresh: it may be gone for good.
    """
    before = old.entries()
    left_out = []
    for dist in old.dists():
        own = [entry for entry in before if entry.url.startswith(dist.url)]
        try:
            for entry in filter(lambda entry: is_release(entry.url), own):
                now = fetch(entry.url, None)
                if now.digest is None and entry.digest is not None:
                    raise BaseError(
                        f"a package repository is no longer where it was: {entry.url}",
                        where=entry.url,
                        hint="the snapshot of before stays in force; name another suite or repository",
                    )
                fresh.put(replace(now, used=False))
            after = next(found for found in fresh.dists() if found.url == dist.url)
            for entry in filter(lambda entry: entry.digest is not None and not is_release(entry.url), own):
                target = _successor(entry, dist, after)
                if target is not None:
                    fresh.put(replace(fetch(*target), used=False))
        except BaseError:
            if any(entry.used for entry in own):
                raise
            fresh.forget(dist.url)
            left_out.append(dist.url)
    return left_out


def _successor(entry: Entry, before: Dist, after: Dist) -> tuple[str, Digest] | None:
    """Where the index file is now that was `entry`, and its digest; None where there is none any more."""
    by_hash = _BY_HASH.match(entry.url)
    if by_hash is None:
        digest = after.release.digests.get(_plain(entry.url).removeprefix(before.url))
        return None if digest is None else (entry.url, digest)
    folder = by_hash["folder"].removeprefix(before.url)
    for path, digest in before.release.digests.items():
        if digest == entry.digest and path.rpartition("/")[0] + "/" == folder:
            successor = after.release.digests.get(path)
            if successor is not None:
                return f"{by_hash['folder']}by-hash/SHA256/{hex_of(successor)}", successor
    return None


def _one_of_each(release: Release, here: set[Digest | None]) -> Iterator[Digest]:
    """Of the Packages files of a release that are here, one per folder, whatever its compression."""
    folders: set[str] = set()
    for path, digest in sorted(release.digests.items()):
        match = _PACKAGES.match(path)
        if match is not None and digest in here and (folder := match["folder"] or "") not in folders:
            folders.add(folder)
            yield digest


def _find_filename(listing: Path, filenames: Iterable[str]) -> Digest | None:
    if listing.stat().st_size == 0:
        return None
    with listing.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for filename in filenames:
            for written in (filename, f"./{filename}"):
                end = text.find(f"\t{written}\n".encode())
                if end >= 0:
                    line = text[text.rfind(b"\n", 0, end) + 1 : end].decode()
                    digest = f"sha256:{line.split(chr(9))[3]}"
                    return Digest(digest) if is_digest(digest) else None
    return None


def _plain(url: str) -> str:
    return url.replace("/./", "/")


def _parents(url: str) -> list[str]:
    """A folder's URL and those of the folders above it, up to the host's."""
    found = [url]
    while found[-1].count("/") > 3:
        found.append(found[-1].rstrip("/").rpartition("/")[0] + "/")
    return found
