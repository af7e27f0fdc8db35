"""Which vulnerabilities a set of packages has: advisories against source packages and their versions. Pure.

What any source calls affected is a finding; one that says otherwise does not take it away. The same vulnerability of
one source package is one finding, whoever tells of it: a record without a CVE joins the CVE that another record calls
it. Distinct CVEs are never joined. Each (source, version, suite) is matched once, however many sets of packages share
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from factory import digest as digests
from factory.apt.version import version_key
from factory.cve import severity
from factory.cve.advisory import Advisory, is_cve, is_version, tracked
from factory.digest import Digest
from factory.errors import CveError
from factory.trust.predicates.sbom import Package


@dataclass(frozen=True)
class Finding:
    """A vulnerability that a source package has in the version that is installed.

    `package`, `version`: the source, as the advisories call it. `binaries`: which of its packages are installed.
    `fixed`: the version that mends it, None where there is none. `origins`: who says so.
    """

    id: str
    package: str
    version: str
    severity: str
    fixed: str | None = None
    others: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    undetermined: bool = False
    binaries: tuple[str, ...] = ()


class Matcher:
    """Advisories, ready to be asked."""

    def __init__(self, advisories: Iterable[Advisory]) -> None:
        self._of: dict[tuple[str | None, str], list[Advisory]] = defaultdict(list)
        self._known: dict[tuple[str, str, str, tuple[str, ...]], tuple[Finding, ...]] = {}
        for advisory in advisories:
            self._of[advisory.suite, advisory.package].append(advisory)

    def findings(self, packages: Iterable[Package], suite: str) -> list[Finding]:
        """What the packages of an image of this suite have; the worst first. CveError: a version that is none."""
        binaries: dict[tuple[str, str], set[str]] = defaultdict(set)
        for package in packages:
            binaries[tracked(package.source, package.source_version)].add(package.name)
        found = [
            finding
            for (source, version), names in binaries.items()
            for finding in self._of_source(source, version, suite, tuple(sorted(names)))
        ]
        return sorted(found, key=order)

    def _of_source(self, source: str, version: str, suite: str, binaries: tuple[str, ...]) -> tuple[Finding, ...]:
        key = (source, version, suite, binaries)
        if key not in self._known:
            found = self._match(source, version, suite)
            self._known[key] = tuple(replace(finding, binaries=binaries) for finding in found)
        return self._known[key]

    def _match(self, source: str, version: str, suite: str) -> Iterable[Finding]:
        advisories = [*self._of[suite, source], *self._of[None, source]]
        if advisories and not is_version(version):
            raise CveError(
                f"the version of {source} cannot be compared: {version[:80]!r}",
                where=f"package {source}",
                hint="factory catalog check looks whether the catalog is as it was written",
            )
        called = _cves(advisories)
        groups: dict[str, list[Advisory]] = defaultdict(list)
        for advisory in advisories:
            if advisory.affected.has(version):
                for name in _named(advisory, called):
                    groups[name].append(advisory)
        return [_merged(name, source, version, group) for name, group in groups.items()]


def order(finding: Finding) -> tuple[int, str, str, str]:
    """The order in which findings are shown."""
    return severity.SHOWN.index(finding.severity), finding.package, finding.id, finding.version


def packages_digest(packages: Iterable[Package]) -> Digest:
    """The digest of what was looked at: name, architecture and version of each package and of its source, sorted."""
    rows = {(one.name, one.arch, one.version, one.source, one.source_version) for one in packages}
    return digests.of_json([list(row) for row in sorted(rows)])


def _cves(advisories: Iterable[Advisory]) -> dict[str, set[str]]:
    """What records without a CVE are called by others -> the CVEs of those."""
    called: dict[str, set[str]] = defaultdict(set)
    for advisory in advisories:
        if is_cve(advisory.id):
            for other in advisory.others:
                called[other].add(advisory.id)
    return called


def _named(advisory: Advisory, called: dict[str, set[str]]) -> set[str]:
    """What a finding from this advisory is called."""
    if is_cve(advisory.id):
        return {advisory.id}
    names = {advisory.id, *advisory.others}
    return set().union(*(called.get(name, set()) for name in names)) or {min(names)}


def _merged(name: str, source: str, version: str, group: list[Advisory]) -> Finding:
    fixes = [fixed for advisory in group if (fixed := advisory.affected.fixed_for(version)) is not None]
    names = {advisory.id for advisory in group}.union(*(advisory.others for advisory in group)) - {name}
    return Finding(
        name,
        source,
        version,
        severity.combined(advisory.severity for advisory in group),
        fixed=max(fixes, key=version_key, default=None),
        others=tuple(sorted(other for other in names if not is_cve(other))),
        origins=tuple(sorted({advisory.origin for advisory in group})),
        undetermined=all(advisory.undetermined for advisory in group),
    )
