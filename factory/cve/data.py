"""The sources of a question: what images.toml or options name, read once for all packages that are asked about.

`fetch` gets what is at URLs, `load` reads. A source that speaks of none of the suites that are asked for is an error of
the asker: `Knowledge.speaks_of` tells. Paths are relative to the factory's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from factory.cve import fetching, osv, tracker, vex
from factory.cve.advisory import tracked
from factory.cve.matching import Matcher
from factory.cve.vex import Document, Statement
from factory.digest import Digest
from factory.errors import CveError
from factory.model import CveSpec
from factory.trust.predicates.sbom import Package


@dataclass(frozen=True)
class Local:
    """A source whose file is here. `kind`: tracker or osv; `name`: as it was written; `as_of`: the time it is of."""

    kind: str
    name: str
    path: Path
    as_of: datetime
    cache: Path | None = None

    @property
    def label(self) -> str:
        """What it is called where others read it: never a path of this machine."""
        return self.name if fetching.is_url(self.name) else label_of(self.name)


@dataclass(frozen=True)
class Source:
    """A source that was read. `suites`: those it speaks of."""

    kind: str
    name: str
    digest: Digest
    as_of: datetime
    suites: frozenset[str]


@dataclass(frozen=True)
class Knowledge:
    """What all sources say, and what people say of it."""

    sources: tuple[Source, ...]
    matcher: Matcher
    documents: tuple[Document, ...] = ()
    statements: tuple[Statement, ...] = field(default=())

    def speaks_of(self, suite: str) -> bool:
        """Whether any source has something to say of a suite."""
        return any(suite in source.suites for source in self.sources)


def fetch(
    said: CveSpec, root: Path, cache: Path, *, offline: bool, say: Callable[[str], None]
) -> tuple[Local, ...]:  # fmt: skip
    """The sources, their files here. Raises CveError."""
    named = [*((tracker.ORIGIN, name) for name in said.tracker), *((osv.ORIGIN, name) for name in said.osv)]
    return tuple(_local(kind, name, root, cache, offline=offline, say=say) for kind, name in dict.fromkeys(named))


def load(sources: Iterable[Local], documents: Iterable[Document], asked: Asked) -> Knowledge:
    """What the sources say of the packages and suites that are asked about. Raises CveError."""
    read = []
    advisories = []
    for source in sources:
        contents = _read(source, asked)
        advisories += contents.advisories
        suites = frozenset(contents.suites)
        read.append(Source(source.kind, source.label, contents.digest, source.as_of, suites))
    found = tuple(documents)
    return Knowledge(
        tuple(read), Matcher(advisories), found, tuple(one for document in found for one in document.statements)
    )


def statements(said: CveSpec, root: Path) -> tuple[Document, ...]:
    """The VEX documents that are named. Raises CveError."""
    return tuple(document for name in dict.fromkeys(said.vex) for document in vex.read(root / name, label_of(name)))


def label_of(path: str) -> str:
    """A path as others may read it: as it was written where that is within the factory, else only its name; what cannot
    be printed is a question mark."""
    shown = Path(path).name if Path(path).is_absolute() or ".." in Path(path).parts else path
    return "".join(character if character.isprintable() else "?" for character in shown)


@dataclass(frozen=True)
class Asked:
    """What is asked about: source packages as advisories call them, and suites."""

    sources: frozenset[str]
    suites: frozenset[str]


def asked(packages: Iterable[Package], suites: Collection[str]) -> Asked:
    """What a question about these packages asks of its sources."""
    return Asked(frozenset(tracked(one.source, one.source_version)[0] for one in packages), frozenset(suites))


def _local(
    kind: str, name: str, root: Path, cache: Path, *, offline: bool, say: Callable[[str], None]
) -> Local:  # fmt: skip
    if fetching.is_url(name):
        path, copy = fetching.fetch(name, cache, offline=offline, say=say)
        return Local(kind, name, path, copy.as_of, cache)
    path = root / name
    try:
        changed = max([path.stat().st_mtime] if path.is_file() else _times_in(path))
        at = min(datetime.fromtimestamp(changed, UTC), datetime.now(UTC)).replace(microsecond=0)
        return Local(kind, name, path, at)
    except OSError as error:
        raise CveError(
            f"{name} cannot be read: {error.strerror or error}",
            where=name,
            hint="see [cve] of images.toml, or the options --tracker and --osv",
        ) from error


def _times_in(folder: Path) -> list[float]:
    """When the files of a folder were changed; that of the folder itself where it has none."""
    return [file.stat().st_mtime for file in folder.rglob("*.json")] or [folder.stat().st_mtime]


def _read(source: Local, asked: Asked) -> tracker.Contents:
    try:
        if source.kind == osv.ORIGIN:
            return osv.read(source.path, source.name, asked.sources, asked.suites)
        with source.path.open("rb") as file:
            return tracker.read(file, source.name, asked.sources, asked.suites)
    except OSError as error:
        raise CveError(f"{source.name} cannot be read: {error.strerror or error}", where=source.name) from error
    except CveError:
        if source.cache is not None:
            fetching.discard(source.name, source.cache)
        raise
