"""Whether an image meets `no-cve:SEVERITY` of a channel, looked at when it is promoted.

What counts are the packages that were signed: those of the SBOM where it is at hand, which the catalog's must then
equal. No source, no packages, no release, old data: not met, and it is said what is missing. `prepare` speaks to the
network and is called before anything is locked; what went wrong there is told only where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from factory import spec
from factory.catalog import lookups
from factory.catalog.database import Catalog
from factory.cve import data, matching, purls, severity, suites, vex
from factory.cve.data import Local
from factory.cve.matching import Finding
from factory.cve.vex import Document, Subject
from factory.errors import CveError, StoreError, TamperedError, TrustError, UnsignedError
from factory.model import CveSpec, Layout
from factory.release import dossier
from factory.release.standing import Standing
from factory.store import Store
from factory.trust import statements
from factory.trust.examined import MAX_DATA_DAYS, Examined, Explained, Looked
from factory.trust.fields import MAX_ITEMS
from factory.trust.policy import ChannelRule
from factory.trust.predicates import sbom, summary
from factory.trust.predicates.sbom import Package
from factory.trust.promotions import NO_CVE
from factory.trust.statements import time_text
from factory.trust.ticket import Vouched

_TOLD = 20


@dataclass(frozen=True)
class Prepared:
    """What there is to look at. `error`: why it is not to be had."""

    local: tuple[Local, ...] = ()
    documents: tuple[Document, ...] = ()
    error: CveError | None = None


@dataclass(frozen=True)
class Outcome:
    """`passed`: the requirements that are met. `examined`: what was looked at, where anything was."""

    passed: frozenset[str] = frozenset()
    examined: Examined | None = None


@dataclass(frozen=True)
class Candidate:
    """The image that is to be promoted, and under which rule. `waived`: requirements that need not be met."""

    who: str
    image: Vouched
    rule: ChannelRule
    waived: frozenset[str] = frozenset()

    @property
    def wanted(self) -> list[str]:
        """The requirements that are to be looked at."""
        return [name for name in self.rule.requires if name.startswith(NO_CVE) and name not in self.waived]

    def refusal(self, requirement: str, why: str, hint: str) -> TrustError:
        """Why it may not stand in the channel."""
        return UnsignedError(
            f"{self.who} ({self.image.digest[:19]}…) may not stand in {self.rule.name}: {why}",
            where=f"channel {self.rule.name}: {requirement}",
            hint=hint,
        )


def prepare(
    layout: Layout, rule: ChannelRule, given: CveSpec, say: Callable[[str], None], *, offline: bool
) -> Prepared:  # fmt: skip
    """Get what images.toml or `given` name, where the rule asks for it. Raises SpecError."""
    if not any(name.startswith(NO_CVE) for name in rule.requires):
        return Prepared()
    said = spec.load(layout.root).cve if layout.spec.is_file() else CveSpec()
    if given.tracker or given.osv:
        said = replace(said, tracker=given.tracker, osv=given.osv)
    if given.vex:
        said = replace(said, vex=given.vex)
    try:
        local = data.fetch(said, layout.root, layout.cache / "cve", offline=offline, say=say)
        documents = data.statements(said, layout.root)
    except CveError as error:
        return Prepared(error=error)
    for document in documents:
        for line in document.refused:
            say(line)
    return Prepared(local, documents)


def examine(
    prepared: Prepared, layout: Layout, catalog: Catalog, found: Standing, candidate: Candidate, now: datetime
) -> Outcome:  # fmt: skip
    """Look at the image. Raises TrustError where a requirement is not met; CveError: a source cannot be read."""
    wanted = candidate.wanted
    if not wanted:
        return Outcome()
    level = wanted[0].removeprefix(NO_CVE)
    lacking = f"nothing says that it is free of {level} CVEs: "
    if prepared.error is not None:
        raise prepared.error
    if not prepared.local:
        raise candidate.refusal(
            wanted[0],
            lacking + "no source of CVEs is configured, and that is not waived",
            "name one in [cve] of images.toml, or with --tracker or --osv; or have it waived (--waive)",
        )
    packages = _packages(layout, catalog, found, candidate)
    if not packages:
        raise candidate.refusal(
            wanted[0],
            lacking + "neither the catalog nor the store here knows its packages",
            "promote it where it was baked, or name in images.toml the [store] that has its SBOM",
        )
    suite = suites.of_packages(packages)
    if suite is None:
        raise candidate.refusal(
            wanted[0],
            lacking + "its packages do not say which Debian release it is of (base-files)",
            "have it waived: --waive of factory promote",
        )
    knowledge = data.load(prepared.local, prepared.documents, data.asked(packages, {suite}))
    if not knowledge.speaks_of(suite):
        raise candidate.refusal(
            wanted[0], lacking + f"no source speaks of {suite}", "name one that does in [cve] of images.toml"
        )
    examined = Examined(
        suite,
        matching.packages_digest(packages),
        tuple(Looked(one.kind, _shown(one.name), one.digest, one.as_of) for one in knowledge.sources),
        tuple(sorted({document.digest for document in knowledge.documents})),
    )
    if (old := examined.stale(now)) is not None:
        raise candidate.refusal(
            wanted[0],
            lacking + f"{old.name} is of {time_text(old.as_of)}, and news more than {MAX_DATA_DAYS} days old are none",
            "get it anew (a path: copy the file as it is now; a URL: without --offline)",
        )
    subject = Subject(candidate.who, candidate.image.digest)
    explained: list[Explained] = []
    open_: list[Finding] = []
    least = min((name.removeprefix(NO_CVE) for name in wanted), key=severity.SCALE.index)
    for finding in knowledge.matcher.findings(packages, suite):
        if severity.reaches(finding.severity, least):
            by = vex.explain(knowledge.statements, finding, subject, now)
            if by is None or by.expired or by.by.until is None:
                open_.append(finding)
            else:
                explained.append(Explained(finding.id, finding.package, by.by.owner, by.by.until))
    for requirement in wanted:
        _require_none(requirement, open_, candidate)
    if len(explained) > MAX_ITEMS:
        raise CveError(f"more than {MAX_ITEMS} CVEs of {candidate.who} are explained away", hint="bake it anew")
    return Outcome(frozenset(wanted), replace(examined, explained=tuple(explained)))


def _require_none(requirement: str, open_: Iterable[Finding], candidate: Candidate) -> None:
    level = requirement.removeprefix(NO_CVE)
    found = [finding for finding in open_ if severity.reaches(finding.severity, level)]
    if not found:
        return
    lines = [
        f"  {one.id}  {one.severity}  {one.package} {one.version}  "
        + (f"fixed in {one.fixed}" if one.fixed else "no fix is known")
        for one in found[:_TOLD]
    ]
    more = [f"  and {len(found) - _TOLD} more"] if len(found) > _TOLD else []
    count = f"{len(found)} vulnerabilit{'y' if len(found) == 1 else 'ies'}"
    name = candidate.who.partition("/")[0]
    raise candidate.refusal(
        requirement,
        "\n".join([f"nobody explains {count} of {level} severity, worse or unknown:", *lines, *more]),
        f"factory bake --refresh {name} takes in fixes; else explain them (VEX; factory cve {name} lists them), or have"
        f" it waived (--waive {requirement})",
    )


def _packages(layout: Layout, catalog: Catalog, found: Standing, candidate: Candidate) -> list[Package]:
    """The packages that count; none where they are not known. TamperedError: the catalog's are not those signed."""
    ticket = found.tickets(candidate.who)[candidate.image.digest]
    known: list[Package] = list(lookups.packages(catalog, candidate.image.digest))
    named = summary.read(statements.of_envelope(ticket.summary, statements.SUMMARY, "the summary")).inputs.sbom
    if known and not Store(layout.store).has(named):
        return known
    who = f"the SBOM of {candidate.who}"
    try:
        envelope, _ = dossier.read_sbom(layout, ticket, found.authority)
    except StoreError:
        return known
    said = sbom.read(statements.of_envelope(envelope, statements.SBOM, who), who)
    signed: list[Package] = list(purls.packages(said.purls, who))
    if known and matching.packages_digest(known) != matching.packages_digest(signed):
        raise TamperedError(
            f"the catalog says other packages of {candidate.who} than were signed",
            where=f"{layout.catalog.name}: {candidate.image.digest}",
            hint="factory catalog check looks for what was changed",
        )
    return signed


def _shown(name: str) -> str:
    """The name of a source as it is signed."""
    return "".join(character if character.isprintable() else "?" for character in name)[:512]
