"""Which packages somebody asks for: `openssl`, `openssl < 3.0.15`, `src:openssl >= 3.0, < 3.0.15`. Pure.

A name is that of a binary package; `src:` asks by the source package, with the version of the source. Versions compare
as dpkg's do. The signs are `<`, `<=`, `=`, `>=`, `>`, `!=`; Debian's `<<` and `>>` mean `<` and `>`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from factory.apt.version import VersionKey, version_key
from factory.errors import UsageError

_SIGNS: dict[str, Callable[[VersionKey, VersionKey], bool]] = {
    "<": operator.lt,
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
    ">>": operator.gt,
    "!=": operator.ne,
}
_SOURCE = "src:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*\Z")
_VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][0-9A-Za-z.+~-]*\Z")
"""As in deb-version(7): after the epoch a digit. Whatever else is ordered above or below all versions."""
_BOUND = re.compile(r"(<<|<=|<|>>|>=|>|==|=|!=)\s*(\S+)\Z")
_FORM = "like 'openssl', 'openssl < 3.0.15' or 'src:openssl >= 3.0, < 3.0.15'"


@dataclass(frozen=True)
class Relation:
    """Packages of a name whose version meets every bound. `by_source`: the name and version are of the source."""

    name: str
    by_source: bool = False
    bounds: tuple[tuple[str, str], ...] = ()

    def meets(self, version: str) -> bool:
        """Whether a version is within the bounds."""
        try:
            return all(_SIGNS[sign](version_key(version), version_key(bound)) for sign, bound in self.bounds)
        except ValueError:  # no version of Debian's: within no bound
            return False

    def __str__(self) -> str:
        bounds = ", ".join(f"{sign} {version}" for sign, version in self.bounds)
        return f"{_SOURCE if self.by_source else ''}{self.name}{f' {bounds}' if bounds else ''}"


def parse(text: str) -> Relation:
    """What an expression asks for. Raises UsageError."""
    head, *rest = text.strip().split(",")
    named = re.match(r"[^\s<>=!]*", head)
    called = named[0] if named else ""
    first = head[len(called) :].strip()
    name = called.removeprefix(_SOURCE)
    if not _NAME.match(name) or (rest and not first):
        raise UsageError(f"{text[:80]!r} does not say which package", hint=_FORM)
    bounds = tuple(_bound(part.strip(), text) for part in ([first] if first else []) + rest)
    return Relation(name, called.startswith(_SOURCE), bounds)


def _bound(part: str, text: str) -> tuple[str, str]:
    found = _BOUND.match(part)
    if not found:
        raise UsageError(f"{part[:80]!r} in {text[:80]!r} is no bound of a version", hint=_FORM)
    if not _VERSION.match(found[2]):
        raise UsageError(
            f"{found[2][:80]!r} in {text[:80]!r} is no version of a Debian package: it begins with a digit, after an"
            " epoch if it has one",
            hint=_FORM,
        )
    return found[1], found[2]
