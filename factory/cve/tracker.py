"""Debian's security tracker as JSON: source package -> vulnerability -> release -> what is known of it there.

The format is what the tracker offers as `data/json`:
`{"openssl": {"CVE-2026-1": {"description": …, "releases": {"bookworm": {"status": "resolved", "fixed_version":
"3.0.15-1", "urgency": "not yet assigned", "nodsa": …, "repositories": {…}}}}}}`. `status` is `open`, `resolved` or
`undetermined`; `fixed_version` 0 means that the release was never affected; `nodsa` stands where the security team
decided that it needs no advisory. Read source by source; only what is asked for is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from factory.cve import severity
from factory.cve.advisory import EVERY_VERSION, IDENTIFIER, PACKAGE, Advisory, Affected, Span, is_version
from factory.cve.reading import Stream, refuse_other_than_json
from factory.digest import Digest
from factory.errors import CveError

ORIGIN = "tracker"
_STATUSES = ("open", "resolved", "undetermined")


@dataclass
class Contents:
    """What was read of a source of advisories. `suites`: all that it speaks of."""

    digest: Digest
    advisories: list[Advisory] = field(default_factory=list)
    suites: set[str] = field(default_factory=set)


def read(file: IO[bytes], what: str, sources: Collection[str], suites: Collection[str]) -> Contents:
    """What the tracker says of these source packages in these suites. Raises CveError where the file is not whole."""
    stream = Stream(file, what)
    refuse_other_than_json(stream)
    if stream.peek() == "[":
        raise CveError(
            f"{what} is a list, and no file of the tracker", where=what, hint="OSV files are given with --osv"
        )
    found = Contents(Digest(""))
    is_empty = True
    for source in stream.members():
        is_empty = False
        wanted = source in sources
        listed = stream.value(strict=wanted)
        _check(stream, source, listed, found.suites)
        if wanted:
            found.advisories += _of_source(stream, source, listed, suites)
    stream.end()
    if is_empty:
        raise CveError(f"{what} names no source package at all", where=what, hint="get the file anew, whole")
    found.digest = stream.digest
    return found


def _check(stream: Stream, source: str, listed: Any, suites: set[str]) -> None:
    """Whether a member of the file has the shape of a source package. Notes the suites."""
    if not PACKAGE.match(source):
        raise stream.fault(f"{source[:80]!r} is no source package")
    if not isinstance(listed, dict):
        hint = "; is it an OSV file (--osv)?" if source in ("id", "schema_version", "affected", "modified") else ""
        raise stream.fault(f"of {source} it gives no vulnerabilities{hint}")
    for identifier, entry in listed.items():
        releases = entry.get("releases") if isinstance(entry, dict) else None
        if not isinstance(releases, dict):
            raise stream.fault(f"{identifier[:80]!r} of {source} says nothing of releases")
        suites.update(releases)


def _of_source(stream: Stream, source: str, listed: dict[str, Any], suites: Collection[str]) -> Iterator[Advisory]:
    for identifier, entry in listed.items():
        if not IDENTIFIER.match(identifier):
            raise stream.fault(f"{identifier[:80]!r} of {source} is no name of a vulnerability")
        for suite in entry["releases"].keys() & set(suites):
            place = f"{identifier} of {source} in {suite}"
            advisory = _of_release(stream, place, source, identifier, suite, entry["releases"][suite])
            if advisory is not None:
                yield advisory


def _of_release(
    stream: Stream, place: str, source: str, identifier: str, suite: str, said: Any
) -> Advisory | None:  # fmt: skip
    if not isinstance(said, dict):
        raise stream.fault(f"{place} is no object")
    status, fixed = said.get("status"), said.get("fixed_version")
    urgency = said.get("urgency", "")
    if status not in _STATUSES:
        raise stream.fault(f"{place} has the status {str(status)[:40]!r}; known are {', '.join(_STATUSES)}")
    if not isinstance(urgency, str):
        raise stream.fault(f"the urgency of {place} is no text")
    if fixed is not None and not is_version(fixed):
        raise stream.fault(f"the fixed_version of {place} is no version")
    affected = EVERY_VERSION
    if status == "resolved":
        if fixed is None:
            raise stream.fault(f"{place} is resolved, and has no fixed_version")
        if fixed == "0":
            return None
        affected = Affected((Span(fixed=fixed),))
    return Advisory(
        identifier,
        source,
        suite,
        affected,
        severity.of_urgency(urgency, no_advisory="nodsa" in said),
        ORIGIN,
        undetermined=status == "undetermined",
    )
