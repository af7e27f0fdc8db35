"""What repositories offer, and what is installed: Debian's control files (deb822, deb-control(5)) as records.

Owns the reading of Packages, Release and dpkg's status; pure functions from text to records. A Packages file of 60,000
stanzas is turned once into a *listing* (one line of tab-separated fields per package) that is read in milliseconds.
"""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from factory.apt.version import version_key
from factory.digest import Digest
from factory.errors import BaseError
from factory.model import Package

_FIELDS = re.compile(rb"^(Package|Version|Architecture|SHA256|Source|Filename): *(.*)$", re.MULTILINE)
_SOURCE = re.compile(r"(\S+)(?:\s+\((\S+)\))?\Z")
_CHUNK_BYTES = 1 << 20
_MAGIC_GZIP, _MAGIC_XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"


@dataclass(frozen=True)
class Offer:
    """One package of a repository. `filename` is relative to the repository's root."""

    package: Package
    source: str
    source_version: str
    filename: str


@dataclass(frozen=True)
class Release:
    """What a Release file says: its suite, codename and origin, and the digests of the index files by path."""

    suite: str
    codename: str
    origin: str
    by_default: bool  # not NotAutomatic, as backports and experimental are
    by_hash: bool
    digests: dict[str, Digest]


def fields(stanza: str) -> dict[str, str]:
    """The fields of one stanza; continuation lines keep their newline."""
    found: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t"):
            if name:
                found[name] += "\n" + line[1:]
        elif ":" in line:
            name, _, value = line.partition(":")
            found[name] = value.strip()
    return found


def source_of(name: str, version: str, source: str | None) -> tuple[str, str]:
    """Source name and version of a binary package: they are its own unless its Source field says otherwise."""
    match = _SOURCE.match((source or "").strip())
    if match is None:
        return name, version
    return match[1], match[2] or version


def parse_release(text: str) -> Release:
    """A Release or InRelease file (the signature around it is left out, and is apt's to check)."""
    if text.startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        text = text.partition("\n\n")[2].partition("\n-----BEGIN PGP SIGNATURE-----")[0]
    found = fields(text)
    digests = {}
    for line in found.get("SHA256", "").splitlines():
        parts = line.split()
        if len(parts) == 3 and len(parts[0]) == 64:
            digests[parts[2]] = Digest(f"sha256:{parts[0].lower()}")
    return Release(
        suite=found.get("Suite", ""),
        codename=found.get("Codename", ""),
        origin=found.get("Origin", ""),
        by_default=found.get("NotAutomatic", "no").lower() != "yes",
        by_hash=found.get("Acquire-By-Hash", "no").lower() == "yes",
        digests=digests,
    )


def write_listing(packages: Path, listing: IO[bytes]) -> None:
    """Turn a Packages file (plain, gzip or xz, told by its content) into a listing. BaseError where it is damaged."""
    try:
        with _open(packages) as file:
            for stanza in _stanzas(file):
                line = _listing_line(stanza)
                if line is not None:
                    listing.write(line)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise BaseError(
            f"a package index of the cache cannot be read: {error}",
            where=str(packages),
            hint="start a new snapshot of the repository: factory lock --refresh",
        ) from error


def read_listing(listing: Path, names: Iterable[str] | None = None) -> Iterator[Offer]:
    """The offers of a listing, of these packages only where names are given."""
    wanted = None if names is None else {name.encode() for name in names}
    with listing.open("rb") as file:
        for line in file:
            if wanted is not None and line[: line.index(b"\t")] not in wanted:
                continue
            name, version, arch, digest, source, source_version, filename = line.decode().rstrip("\n").split("\t")
            yield Offer(Package(name, version, arch, Digest(f"sha256:{digest}")), source, source_version, filename)


def newest(offers: Iterable[Offer]) -> dict[str, Offer]:
    """The offer with the highest version of each package name; of equal versions the first."""
    best: dict[str, Offer] = {}
    for offer in offers:
        known = best.get(offer.package.name)
        if known is None or version_key(offer.package.version) > version_key(known.package.version):
            best[offer.package.name] = offer
    return best


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(_MAGIC_GZIP):
        return gzip.open(path)  # type: ignore[return-value]  # it reads as one
    return lzma.open(path) if head == _MAGIC_XZ else path.open("rb")


def _stanzas(file: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n\n")
        yield from whole
    yield rest


def _listing_line(stanza: bytes) -> bytes | None:
    found = dict(_FIELDS.findall(stanza))
    try:
        name, version, arch = found[b"Package"], found[b"Version"], found[b"Architecture"]
        digest, filename = found[b"SHA256"], found[b"Filename"]
    except KeyError:
        return None  # an empty stanza, or one that apt would not install from either
    source, source_version = source_of(name.decode(), version.decode(), found.get(b"Source", b"").decode())
    columns = (name, version, arch, digest.lower(), source.encode(), source_version.encode(), filename)
    return b"\t".join(column.strip() for column in columns) + b"\n"
