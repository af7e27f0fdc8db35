"""What was looked at before a promotion says that an image is free of CVEs: a part of the signed promotion. Pure.

A claim without it counts for nothing, nor does one that rests on data older than MAX_DATA_DAYS when it was made. What
people explained away stands in it with its end: when the first of these has come, the claim ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from factory.digest import Digest
from factory.trust.fields import Fields
from factory.trust.statements import time_text

MAX_DATA_DAYS = 7
"""Older data are no good news: new CVEs come every day."""


@dataclass(frozen=True)
class Looked:
    """A source of vulnerabilities: the digest of all that was read, and the time it is of."""

    kind: str
    name: str
    digest: Digest
    as_of: datetime


@dataclass(frozen=True)
class Explained:
    """A vulnerability that would have counted, had `owner` not explained it until `until`."""

    id: str
    package: str
    owner: str
    until: datetime


@dataclass(frozen=True)
class Examined:
    """`suite`: the release that was matched; `packages`: the digest of the installed packages; `vex`: the digests of
    the documents with statements."""

    suite: str
    packages: Digest
    data: tuple[Looked, ...]
    vex: tuple[Digest, ...] = ()
    explained: tuple[Explained, ...] = ()

    @property
    def good_until(self) -> datetime | None:
        """When the first explanation ends; None where there is none."""
        return min((one.until for one in self.explained), default=None)

    def stale(self, at: datetime) -> Looked | None:
        """A source that was too old at a time; None where none was."""
        oldest = min(self.data, key=lambda one: one.as_of, default=None)
        return oldest if oldest is not None and at - oldest.as_of > timedelta(days=MAX_DATA_DAYS) else None

    def agrees_with(self, other: Examined) -> bool:
        """Whether somebody else came to the same with data of their own: the same packages, the same explanations."""
        mine = (self.suite, self.packages, self.vex, self.explained)
        return mine == (other.suite, other.packages, other.vex, other.explained)

    def plain(self) -> dict[str, Any]:
        """What is signed of it."""
        return {
            "suite": self.suite,
            "packages": self.packages,
            "data": [
                {"kind": one.kind, "name": one.name, "digest": one.digest, "as_of": time_text(one.as_of)}
                for one in self.data
            ],
            "vex": list(self.vex),
            "explained": [
                {"id": one.id, "package": one.package, "owner": one.owner, "until": time_text(one.until)}
                for one in self.explained
            ],
        }


def read(value: Any, what: str) -> Examined:
    """What `plain` made. Raises TamperedError."""
    said = Fields(value, what, ("suite", "packages", "data", "vex", "explained"))
    return Examined(
        said.text("suite"),
        said.digest("packages"),
        tuple(_looked(item, f"{what}: data") for item in said.items("data")),
        tuple(Fields({"digest": item}, f"{what}: vex", ("digest",)).digest("digest") for item in said.items("vex")),
        tuple(_explained(item, f"{what}: explained") for item in said.items("explained")),
    )


def _looked(item: Any, what: str) -> Looked:
    said = Fields(item, what, ("kind", "name", "digest", "as_of"))
    return Looked(said.text("kind"), said.text("name"), said.digest("digest"), said.time("as_of"))


def _explained(item: Any, what: str) -> Explained:
    said = Fields(item, what, ("id", "package", "owner", "until"))
    return Explained(said.text("id"), said.text("package"), said.text("owner"), said.time("until"))
