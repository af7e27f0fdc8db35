"""What one source says of one source package in one suite: a vulnerability, and the versions that have it. Pure.

Versions are those of source packages, in dpkg's order. `Affected` is the one form that the tracker's fixed versions and
OSV's events are brought into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from factory.apt.version import version_key

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}\Z")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,199}\Z")
_VERSION = re.compile(r"(?:[0-9]{1,9}:[A-Za-z0-9.+~:-]{1,200}|[A-Za-z0-9.+~-]{1,200})\Z")
_DIGITS = re.compile(r"[0-9]{100}")
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}\Z")
_ORDER = {"fixed": 0, "introduced": 1, "last_affected": 2}


class Span(NamedTuple):
    """Versions from `first` (None: from the beginning) up to `last`, or below `fixed`; neither: to the end."""

    first: str | None = None
    fixed: str | None = None
    last: str | None = None

    def has(self, version: str) -> bool:
        """Whether a version lies in it."""
        key = version_key(version)
        if self.first is not None and key < version_key(self.first):
            return False
        if self.fixed is not None:
            return key < version_key(self.fixed)
        return self.last is None or key <= version_key(self.last)


@dataclass(frozen=True, slots=True)
class Affected:
    """Which versions have it: those of the spans (below one of `limits`, where there are any), and single ones."""

    spans: tuple[Span, ...] = ()
    versions: frozenset[str] = frozenset()
    limits: tuple[str, ...] = ()

    def has(self, version: str) -> bool:
        """Whether a version has it."""
        if version in self.versions:
            return True
        if self.limits and all(version_key(version) >= version_key(limit) for limit in self.limits):
            return False
        return any(span.has(version) for span in self.spans)

    def fixed_for(self, version: str) -> str | None:
        """The first fixed version above one that has it; None where no fix is known."""
        fixes = [span.fixed for span in self.spans if span.fixed is not None and span.has(version)]
        if not fixes and version in self.versions:
            fixes = [span.fixed for span in self.spans if span.fixed and version_key(version) < version_key(span.fixed)]
        return min(fixes, key=version_key, default=None)


EVERY_VERSION = Affected((Span(),))


@dataclass(frozen=True, slots=True)
class Advisory:
    """`id` is the vulnerability (a CVE where that is known), `others` what else it is called. `undetermined`: whether
    it concerns these versions at all is not known, which counts as if it did. `suite` None: every suite."""

    id: str
    package: str
    suite: str | None
    affected: Affected
    severity: str
    origin: str
    others: tuple[str, ...] = ()
    undetermined: bool = False


def is_version(text: object) -> bool:
    """Whether this is a version that dpkg could order."""
    return isinstance(text, str) and bool(_VERSION.match(text)) and not _DIGITS.search(text)


def is_cve(identifier: str) -> bool:
    """Whether an identifier is that of a CVE."""
    return bool(_CVE.match(identifier))


def spans_of(events: Iterable[tuple[str, str]]) -> tuple[Span, ...]:
    """OSV's events (`introduced`, `fixed`, `last_affected`; version) as spans. `introduced` 0 is the beginning.

    Of events at one version a fix counts first, so that what is introduced again there is not overlooked.
    """
    begun = [("introduced", version) for kind, version in events if (kind, version) == ("introduced", "0")]
    later = [event for event in events if event != ("introduced", "0")]
    later.sort(key=lambda event: _ORDER[event[0]])
    later.sort(key=lambda event: version_key(event[1]))
    spans: list[Span] = []
    is_open, first = bool(begun), None
    for kind, version in later:
        if kind == "introduced" and not is_open:
            is_open, first = True, version
        elif kind != "introduced" and is_open:
            spans.append(Span(first, fixed=version) if kind == "fixed" else Span(first, last=version))
            is_open = False
    return (*spans, *([Span(first)] if is_open else []))


def tracked(source: str, version: str) -> tuple[str, str]:
    """The source package and version that vulnerabilities are recorded for: of Debian's signed kernels and boot loaders
    the package that was signed (`linux-signed-amd64` 6.1.192+2 is `linux` 6.1.192-2)."""
    for pattern, name, prefix in _SIGNED:
        if pattern.fullmatch(source):
            plain = prefix.sub("", version) if prefix is not None else version
            return name, plain.replace("+", "-", 1)
    return source, version


_SIGNED = (
    (re.compile(r"linux-signed-[a-z0-9-]+"), "linux", None),
    (re.compile(r"grub-efi-[a-z0-9]+-signed"), "grub2", re.compile(r"\A[0-9]+\+")),
)
"""Sources that hold signed copies, what was signed, and what stands before its version; `+` stands for its `-`."""
