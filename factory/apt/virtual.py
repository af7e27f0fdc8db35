"""The repository that exists only on the proxy: pinned packages that are in the cache.

So a pin stays installable though the repository has moved on. It is flat (`deb URL ./`) and unsigned (`trusted=yes`);
its .debs came past apt's own signature check when they were first fetched, and are named here by digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from factory import digest
from factory.apt.index import fields
from factory.apt.store import Store
from factory.digest import Digest, hex_of
from factory.model import Package


@dataclass(frozen=True)
class Repository:
    """`files`: what it serves from memory (Packages, Release); `debs`: what it serves from the cache."""

    identifier: str
    files: Mapping[str, bytes]
    debs: Mapping[str, Digest]


def repository(store: Store, pins: Iterable[Package]) -> Repository:
    """The repository of those of `pins` whose very .deb is in the store."""
    stanzas, debs = [], {}
    for pin in sorted(set(pins)):
        stanza = cached_stanza(store, pin)
        if stanza is not None:
            filename = f"{hex_of(pin.sha256)}.deb"
            debs[filename] = pin.sha256
            stanzas.append(f"{stanza.rstrip()}\nFilename: ./{filename}\n")
    packages = "\n".join(stanzas).encode()
    listed = f" {hex_of(digest.of_bytes(packages))} {len(packages)} Packages\n"
    release = f"Origin: factory\nLabel: factory pins\nDescription: the pins of one bake\nSHA256:\n{listed}"
    identifier = hex_of(digest.of_bytes(packages))[:16]
    return Repository(identifier, {"Packages": packages, "Release": release.encode()}, debs)


def cached_stanza(store: Store, pin: Package) -> str | None:
    """The stanza of a pin's .deb where that is in the store and is what the pin says; else None."""
    for stanza in store.debs_named(pin.name):
        found = fields(stanza)
        if (found["SHA256"], found["Version"], found["Architecture"]) == (hex_of(pin.sha256), pin.version, pin.arch):
            return stanza
    return None
