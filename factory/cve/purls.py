"""The packages that a bill of materials names: purls of Debian packages, as trust/predicates/sbom.py writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from packageurl import PackageURL

from factory.errors import TamperedError


class Named(NamedTuple):
    """An installed package. A purl says nothing of its file."""

    name: str
    version: str
    arch: str
    source: str
    source_version: str
    sha256: str | None = None


def packages(purls: Iterable[str], what: str) -> list[Named]:
    """The packages that purls name. Raises TamperedError."""
    return [_package(purl, what) for purl in purls]


def _package(text: str, what: str) -> Named:
    try:
        purl = PackageURL.from_string(text)
    except ValueError as error:
        raise TamperedError(f"{what} names a package by {text[:100]!r}, which is no purl") from error
    qualifiers = purl.qualifiers if isinstance(purl.qualifiers, dict) else {}
    arch, version = qualifiers.get("arch"), purl.version
    if (purl.type, purl.namespace) != ("deb", "debian") or not arch or not version:
        raise TamperedError(f"{what} names {text[:100]!r}, which is no installed package of Debian")
    source, _, source_version = str(qualifiers.get("upstream", "")).partition("@")
    return Named(purl.name, version, str(arch), source or purl.name, source_version or version)
