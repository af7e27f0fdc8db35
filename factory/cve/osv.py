"""OSV records (ossf.github.io/osv-schema) of Debian's packages: a file of one, a list, lines; a folder or zip of files.

A record that is called or aliased as several CVEs (an advisory of Debian) speaks of each. What has neither ranges nor
versions that can be used counts as undetermined. Withdrawn records and other ecosystems are left out; records of
shapes that the schema does not allow are refused.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from factory import digest as digests
from factory.cve import severity, suites
from factory.cve.advisory import (
    EVERY_VERSION,
    IDENTIFIER,
    PACKAGE,
    Advisory,
    Affected,
    is_cve,
    is_version,
    spans_of,
)
from factory.cve.reading import Stream, refuse_other_than_json
from factory.cve.tracker import Contents
from factory.digest import Digest
from factory.errors import CveError

ORIGIN = "osv"
MAX_RECORD_BYTES = 64 << 20
MAX_FILES = 2_000_000
_EVENTS = ("introduced", "fixed", "last_affected", "limit")
_CVSS = ("CVSS_V3", "CVSS_V4")
_ZIP = b"PK\x03\x04"


def read(path: Path, what: str, sources: Collection[str], wanted_suites: Collection[str]) -> Contents:
    """What the records of a file, a folder or a zip say of these source packages in these suites. Raises CveError,
    OSError."""
    found = Contents(Digest(""))
    collector = _Collector(found, sources, wanted_suites)
    if path.is_dir():
        found.digest = _folder(path, what, collector)
    else:
        with path.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                found.digest = _zip(file, what, collector)
            else:
                file.seek(0)
                found.digest = collector.file(file, what)
    if not collector.records:
        raise CveError(f"{what} holds no OSV record", where=what, hint="records are JSON, one or more a file")
    return found


def _folder(path: Path, what: str, collector: _Collector) -> Digest:
    listed = []
    for file in sorted(path.rglob("*.json")):
        name = str(file.relative_to(path))
        with file.open("rb") as opened:
            listed.append([name, collector.file(opened, f"{what}/{name}")])
    return digests.of_json(listed)


def _zip(file: IO[bytes], what: str, collector: _Collector) -> Digest:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".json")]
            if len(members) > MAX_FILES:
                raise CveError(f"{what} holds too many files: at most {MAX_FILES} are read", where=what)
            for member in members:
                name = member.filename.encode("ascii", "backslashreplace").decode()[:200]
                with archive.open(member) as opened:
                    raw = opened.read(MAX_RECORD_BYTES + 1)
                if len(raw) > MAX_RECORD_BYTES:
                    raise CveError(f"{what}: {name} is too large", where=what)
                collector.file(io.BytesIO(raw), f"{what}: {name}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CveError(f"{what} is a damaged zip file: {error}", where=what, hint="get the file anew") from error
    file.seek(0)
    hasher = hashlib.sha256()
    while data := file.read(1 << 20):
        hasher.update(data)
    return Digest(f"sha256:{hasher.hexdigest()}")


class _Collector:
    """Takes records in, and keeps of them what was asked for."""

    def __init__(self, found: Contents, sources: Collection[str], wanted_suites: Collection[str]) -> None:
        self.records = 0
        self._found = found
        self._sources, self._suites = sources, wanted_suites

    def file(self, file: IO[bytes], what: str) -> Digest:
        """Every record of a file; the file's digest."""
        stream = Stream(file, what)
        refuse_other_than_json(stream)
        while stream.peek():
            value = stream.value()
            for record in value if isinstance(value, list) else [value]:
                self._record(record, stream.fault, what)
        return stream.digest

    def _record(self, record: Any, fault: Callable[[str], CveError], what: str) -> None:
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            hint = "is it the tracker's file (--tracker)?" if isinstance(record, dict) else "get the file anew"
            raise CveError(f"{what} holds something that is no OSV record: it has no id", where=what, hint=hint)
        self.records += 1
        name = str(record["id"])
        if not IDENTIFIER.match(name):
            raise fault(f"{name[:80]!r} is no id of a record")
        if "withdrawn" in record and _is_past(record["withdrawn"]):
            return
        for affected in _list(record, "affected", name, fault):
            self._affected(record, name, affected, fault)

    def _affected(self, record: dict[str, Any], name: str, affected: Any, fault: Callable[[str], CveError]) -> None:
        package = affected.get("package", {}) if isinstance(affected, dict) else None
        if not isinstance(package, dict) or not isinstance(package.get("ecosystem", ""), str):
            raise fault(f"{name} affects something that is no package")
        is_debian, suite = suites.of_ecosystem(package.get("ecosystem", ""))
        if not is_debian:
            return
        source = package.get("name") or _name_in(package.get("purl"))
        if not isinstance(source, str) or not PACKAGE.match(source):
            raise fault(f"{name} affects a Debian package without a name")
        if suite is not None:
            self._found.suites.add(suite)
        if source not in self._sources or (suite is not None and suite not in self._suites):
            return
        versions, undetermined = _versions(affected, name, fault)
        names = _names(record, name, fault)
        how_bad = _severity(record, affected, name, fault)
        for identifier in sorted(filter(is_cve, names)) or [name]:
            others = tuple(sorted(other for other in names if other != identifier and not is_cve(other)))
            self._found.advisories.append(
                Advisory(identifier, source, suite, versions, how_bad, ORIGIN, others, undetermined)
            )


def _names(record: dict[str, Any], name: str, fault: Callable[[str], CveError]) -> set[str]:
    """What a record is called. `upstream` names what it is Debian's record of."""
    found = {name}
    for key in ("aliases", "upstream"):
        for other in _list(record, key, name, fault):
            if not isinstance(other, str) or not IDENTIFIER.match(other):
                raise fault(f"{key} of {name} holds {str(other)[:80]!r}, which names nothing")
            found.add(other)
    return found


def _versions(affected: dict[str, Any], name: str, fault: Callable[[str], CveError]) -> tuple[Affected, bool]:
    """The versions that an entry of `affected` speaks of, and whether they are undetermined."""
    listed = _list(affected, "versions", name, fault)
    if bad := next((version for version in listed if not is_version(version)), None):
        raise fault(f"versions of {name} holds {str(bad)[:80]!r}, which is no version")
    events: list[list[tuple[str, str]]] = []
    limits: list[str] = []
    for one in _list(affected, "ranges", name, fault):
        if not isinstance(one, dict):
            raise fault(f"a range of {name} is no object")
        if one.get("type") == "ECOSYSTEM":
            found = [_event(event, name, fault) for event in _list(one, "events", name, fault)]
            if not any(kind == "introduced" for kind, _ in found):
                raise fault(f"a range of {name} does not say where it was introduced")
            limits += [version for kind, version in found if kind == "limit" and version != "*"]
            events.append([event for event in found if event[0] != "limit"])
    if not events and not listed:
        return EVERY_VERSION, True
    spans = tuple(span for found in events for span in spans_of(found))
    return Affected(spans, frozenset(listed), tuple(limits) if len(events) == 1 else ()), False


def _event(event: Any, name: str, fault: Callable[[str], CveError]) -> tuple[str, str]:
    if not isinstance(event, dict) or len(event) != 1 or next(iter(event)) not in _EVENTS:
        raise fault(f"an event of {name} is not one of {', '.join(_EVENTS)}")
    ((kind, version),) = event.items()
    if not is_version(version) and (kind, version) != ("limit", "*"):
        raise fault(f"an event of {name} names {str(version)[:80]!r}, which is no version")
    return kind, version


def _severity(
    record: dict[str, Any], affected: dict[str, Any], name: str, fault: Callable[[str], CveError]
) -> str:  # fmt: skip
    """Debian's urgency and the CVSS vectors of a record together; those of the entry itself go before the record's."""
    vectors: list[str] = []
    for item in _list(affected, "severity", name, fault) or _list(record, "severity", name, fault):
        if not isinstance(item, dict) or not isinstance(item.get("score"), str):
            raise fault(f"a severity of {name} has no score")
        if item.get("type") in _CVSS:
            vectors.append(item["score"])
    said = [severity.of_cvss(vectors)]
    specific = affected.get("ecosystem_specific")
    urgency = specific.get("urgency") if isinstance(specific, dict) else None
    if isinstance(urgency, str):
        said.append(severity.of_urgency(urgency))
    return severity.combined(said)


def _list(holder: dict[str, Any], key: str, name: str, fault: Callable[[str], CveError]) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fault(f"{key} of {name} is no list")
    return value


def _name_in(purl: Any) -> str:
    """The package's name in a purl of Debian's; empty where it is none."""
    if not isinstance(purl, str) or not purl.startswith("pkg:deb/debian/"):
        return ""
    return unquote(purl.removeprefix("pkg:deb/debian/").partition("?")[0].partition("@")[0])


def _is_past(text: Any) -> bool:
    """Whether a record is withdrawn: a time that cannot be read does not take it out."""
    try:
        return isinstance(text, str) and bool(datetime.fromisoformat(text))
    except ValueError:
        return False
