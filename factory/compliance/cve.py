"""`factory cve`: the known vulnerabilities of images, and what people say of them; matched per distinct set.

Nothing is taken for clean that was not looked at: images whose packages or release are not known, or whose release no
source speaks of, are told apart (`unknown`). VEX statements may be about single images, so that a finding of one set
can be explained for some of its images and open for others: each has a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from factory import spec
from factory.catalog import holdings
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.compliance.holders import SHOWN_NAMES, Asked, Holder, Unknown, holders
from factory.cve import data, matching, severity, vex
from factory.cve.data import Knowledge
from factory.cve.matching import Finding
from factory.cve.vex import Explanation, Subject
from factory.errors import UsageError
from factory.model import CveSpec, Layout

OPEN, EXPLAINED, EXPIRED = "open", "explained", "expired"


@dataclass(frozen=True)
class Row:
    """A finding in `images` images, of which `some` are named (all, where they are few). `status`: open, explained (by
    a statement in force), expired (by one that has ended: it is open)."""

    finding: Finding
    some: tuple[KnownImage, ...]
    images: int
    status: str
    explanation: Explanation | None = None

    @property
    def who(self) -> tuple[str, ...]:
        """NAME/ARCH of `some`, each once."""
        return tuple(dict.fromkeys(image.who for image in self.some))


@dataclass(frozen=True)
class Answer:
    """`images`, `sets`: how many were looked at. `milder`: how many findings are below the severity asked for."""

    knowledge: Knowledge
    rows: tuple[Row, ...]
    images: int
    sets: int
    milder: int
    unknown: tuple[Unknown, ...]

    def reaching(self, threshold: str) -> list[Row]:
        """The rows that nobody explains, of that severity or worse."""
        return [
            row for row in self.rows if row.status != EXPLAINED and severity.reaches(row.finding.severity, threshold)
        ]


@dataclass(frozen=True)
class Question:
    """`sources`: what stands in place of images.toml's [cve]; None of a kind: what that says. Paths are absolute, or of
    the factory's folder."""

    asked: Asked
    tracker: tuple[str, ...] = ()
    osv: tuple[str, ...] = ()
    vex: tuple[str, ...] = ()
    severity: str = "low"
    offline: bool = False


def sources(layout: Layout, tracker: Iterable[str], osv: Iterable[str], statements: Iterable[str]) -> CveSpec:
    """What to look at: what options name, else what images.toml does. UsageError where that is nothing."""
    said = spec.load(layout.root).cve if layout.spec.is_file() else CveSpec()
    tracker, osv, statements = tuple(tracker), tuple(osv), tuple(statements)
    if tracker or osv:
        said = replace(said, tracker=tracker, osv=osv)
    if statements:
        said = replace(said, vex=statements)
    if not said.tracker and not said.osv:
        raise UsageError(
            "no source says which vulnerabilities there are",
            where="images.toml: cve",
            hint="name one: tracker = [...] or osv = [...] in [cve] of images.toml, or --tracker or --osv",
        )
    return said


def ask(catalog: Catalog, layout: Layout, question: Question, now: datetime, say: Callable[[str], None]) -> Answer:
    """The vulnerabilities of the images that are asked about. Raises UsageError, CveError, CatalogError."""
    said = sources(layout, question.tracker, question.osv, question.vex)
    found, unknown = holders(catalog, layout, question.asked)
    documents = data.statements(said, layout.root)
    local = data.fetch(said, layout.root, layout.cache / "cve", offline=question.offline, say=say)
    packages = [package for holder in found for package in holder.packages]
    asked = data.asked(packages, {holder.suite for holder in found if holder.suite})
    knowledge = data.load(local, documents, asked)
    known = []
    for holder in found:
        why = _not_known(holder, knowledge)
        if why is None:
            known.append(holder)
        else:
            unknown.append(Unknown(", ".join(holder.names), holder.images, why))
    units = _units(catalog, known, knowledge) if question.asked.everything else _each(known)
    rows = list(_merged(_rows(units, knowledge, now)) if question.asked.everything else _rows(units, knowledge, now))
    shown = [row for row in rows if severity.reaches(row.finding.severity, question.severity)]
    shown.sort(
        key=lambda row: (row.who if not question.asked.everything else (), matching.order(row.finding), row.status)
    )
    return Answer(
        knowledge, tuple(shown), sum(one.images for one in known), len(known), len(rows) - len(shown), tuple(unknown)
    )


def _not_known(holder: Holder, knowledge: Knowledge) -> str | None:
    if holder.suite is None:
        return "its packages do not say which Debian release it is of (--suite says it)"
    if not knowledge.speaks_of(holder.suite):
        return f"no source speaks of {holder.suite}"
    return None


@dataclass(frozen=True)
class _Unit:
    """Images of a set that statements cannot tell apart; `some` of them."""

    holder: Holder
    subject: Subject
    images: int
    some: tuple[KnownImage, ...]


def _each(found: Iterable[Holder]) -> Iterator[_Unit]:
    for holder in found:
        for image in holder.some:
            yield _Unit(holder, Subject(image.who, image.digest), 1, (image,))


def _units(catalog: Catalog, found: Iterable[Holder], knowledge: Knowledge) -> Iterator[_Unit]:
    """The images of each set, apart from the others where a statement is about them."""
    products = [product for statement in knowledge.statements for product in statement.products]
    digests = {product.digest for product in products if product.digest}
    single = holdings.of_digests(catalog, digests)
    named = holdings.of_names(catalog, {product.image.partition("/")[0] for product in products if product.image})
    apart = {one.who for one in named}
    for holder in found:
        mine = [one for one in single if one.package_set == holder.package_set]
        yield from (_Unit(holder, Subject(one.who, one.digest), 1, (one,)) for one in mine)
        rest, most = holder.images - len(mine), SHOWN_NAMES + len(mine)
        for group in named:
            if group.package_set == holder.package_set:
                count = group.images - sum(one.who == group.who for one in mine)
                rest -= count
                if count:
                    some = holdings.newest(catalog, holder.package_set, most, who=group.who)
                    yield _Unit(holder, Subject(group.who), count, _without(some, mine))
        if rest:
            some = holdings.newest(catalog, holder.package_set, most, without=apart)
            yield _Unit(holder, Subject(""), rest, _without(some, mine))


def _without(images: Iterable[KnownImage], others: Collection[KnownImage]) -> tuple[KnownImage, ...]:
    return tuple(image for image in images if image not in others)[:SHOWN_NAMES]


def _rows(units: Iterable[_Unit], knowledge: Knowledge, now: datetime) -> Iterator[Row]:
    known: dict[int, list[Finding]] = {}
    for unit in units:
        holder = unit.holder
        assert holder.suite is not None
        if holder.package_set not in known:
            known[holder.package_set] = knowledge.matcher.findings(holder.packages, holder.suite)
        for finding in known[holder.package_set]:
            explanation = vex.explain(knowledge.statements, finding, unit.subject, now)
            status = OPEN if explanation is None else EXPIRED if explanation.expired else EXPLAINED
            yield Row(finding, unit.some, unit.images, status, explanation)


def _merged(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows that say the same of different sets as one each, with a few of the images."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        one = row.finding
        by = None if row.explanation is None else id(row.explanation.by)
        key = (one.id, one.package, one.version, one.severity, one.fixed, one.undetermined, row.status, by)
        found.setdefault(key, []).append(row)
    for same in found.values():
        if len(same) == 1:
            yield same[0]
            continue
        binaries = {name for row in same for name in row.finding.binaries}
        some = dict.fromkeys(image for row in same for image in row.some)
        yield replace(
            same[0],
            finding=replace(same[0].finding, binaries=tuple(sorted(binaries))),
            some=tuple(some)[:SHOWN_NAMES],
            images=sum(row.images for row in same),
        )


def option_path(text: str) -> str:
    """A source as an option gives it: a URL as it is, a path of where the command was run as an absolute one."""
    return text if "://" in text else str(Path(text).absolute())
