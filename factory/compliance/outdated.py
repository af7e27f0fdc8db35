"""`factory outdated`: what is installed in images, against what the repositories of their bases offer now.

The repositories are those that bakes here have asked, their indexes read anew through the cache of the proxy; only what
changed is fetched. Nothing is pinned, no snapshot put in force, no lock touched. A repository that cannot be reached is
an error: what was offered once is not what is offered now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from factory.apt.proxy import AptProxy
from factory.apt.questions import Repositories
from factory.apt.snapshot import Dist, Snapshot
from factory.apt.version import version_key
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.compliance.holders import Asked, Holder, Unknown, holders
from factory.errors import BaseError
from factory.model import Layout

DEBIAN = "Debian"


@dataclass(frozen=True)
class Row:
    """A package that is offered in a higher version. `repository`: the suite that offers it, else the URL.

    `security`: whether a repository of security fixes offers a higher version; None where its origin does not tell.
    """

    who: tuple[str, ...]
    images: int
    package: InstalledPackage
    offered: str
    security: bool | None
    repository: str


@dataclass(frozen=True)
class Answer:
    """`repositories`: what was asked. `not_offered`: how many packages no repository offers in any version."""

    rows: tuple[Row, ...]
    images: int
    repositories: tuple[str, ...]
    not_offered: int
    unknown: tuple[Unknown, ...]


def ask(catalog: Catalog, layout: Layout, asked: Asked, say: Callable[[str], None]) -> Answer:
    """What could be newer. Raises BaseError where the repositories cannot be had; UsageError, SpecError."""
    found, unknown = holders(catalog, layout, asked)
    proxy = AptProxy(layout.cache / "apt")
    if not proxy.snapshot.dists():
        raise BaseError(
            "nothing here knows the repositories: no bake has asked them yet",
            where=str(layout.cache / "apt"),
            hint="factory lock --refresh asks them once, or ask where the images were baked",
        )
    rows: list[Row] = []
    not_offered = images = 0
    with proxy.looking() as (now, left_out):
        for url in left_out:
            say(f"{url} cannot be had, and no bake asked for it lately: left out")
        for holder in found:
            candidates = _candidates(holder, proxy, now)
            if not candidates:
                unknown.append(Unknown(", ".join(holder.names), holder.images, "no repository offers its packages"))
                continue
            images += holder.images
            not_offered += sum(package.name not in candidates for package in holder.packages)
            rows += _outdated(holder, candidates)
        repositories = tuple(sorted(_named(dist) for dist in now.dists()))
    rows.sort(key=lambda row: (row.who, not row.security, row.package.name))
    return Answer(tuple(rows), images, repositories, not_offered, tuple(unknown))


@dataclass(frozen=True)
class _Candidate:
    """The highest version offered of a package, by whom, and the highest one with security fixes."""

    version: str
    dist: Dist
    security: str | None = None


def _candidates(holder: Holder, proxy: AptProxy, now: Snapshot) -> dict[str, _Candidate]:
    suite = (holder.base.suite if holder.base else None) or holder.suite
    arch = holder.some[0].arch
    best: dict[str, _Candidate] = {}
    offers = Repositories(proxy.store, now, arch, suite).offers(package.name for package in holder.packages)
    for dist, offer in offers:
        name, version = offer.package.name, offer.package.version
        known = best.get(name, _Candidate(version, dist))
        fixes = known.security
        if _is_security(dist) and (fixes is None or version_key(version) > version_key(fixes)):
            fixes = version
        higher = version_key(version) > version_key(known.version)
        best[name] = _Candidate(version if higher else known.version, dist if higher else known.dist, fixes)
    return best


def _outdated(holder: Holder, candidates: dict[str, _Candidate]) -> Iterator[Row]:
    for package in holder.packages:
        candidate = candidates.get(package.name)
        if candidate is None or version_key(candidate.version) <= version_key(package.version):
            continue
        fixes = candidate.security
        security: bool | None = fixes is not None and version_key(fixes) > version_key(package.version)
        if not security and candidate.dist.release.origin != DEBIAN:
            security = None
        yield Row(holder.names, holder.images, package, candidate.version, security, _named(candidate.dist))


def _is_security(dist: Dist) -> bool:
    release = dist.release
    names = (dist.name.replace("/", "-"), release.suite, release.codename)
    return release.origin == DEBIAN and any(name.endswith("-security") for name in names)


def _named(dist: Dist) -> str:
    return dist.name or dist.url
