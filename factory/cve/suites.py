"""Debian's releases: codename and number, and which one an image is of, by the packages it holds. Pure.

An image says itself what it is of: its package base-files has the number of the release in front of its version. So old
images are told apart from new ones though images.toml speaks of one base only, and what was signed (the SBOM) says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from factory.trust.predicates.sbom import Package

RELEASES = {
    "9": "stretch", "10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky", "15": "duke",
}  # fmt: skip
"""Debian's releases by number, those to come included."""

_BASE_FILES = re.compile(r"([0-9]+)(?:\.[0-9]+)*(?:\+deb[0-9]+u[0-9]+)?\Z")


def of_packages(packages: Iterable[Package]) -> str | None:
    """The codename of the release that packages are of; None where they do not say, or are of no Debian."""
    for package in packages:
        if package.name == "base-files" and (found := _BASE_FILES.match(package.version)):
            return RELEASES.get(found[1])
    return None


def of_ecosystem(ecosystem: str) -> tuple[bool, str | None]:
    """(whether an ecosystem of OSV is Debian, the suite it names): `Debian:12` is bookworm, `Debian` every suite."""
    name, _, release = ecosystem.partition(":")
    return name == "Debian", RELEASES.get(release, release) or None
