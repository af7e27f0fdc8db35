"""How bad a vulnerability is, in one scale for all sources; the words of a channel's `no-cve:SEVERITY` are its middle.

Debian's `unimportant` is an assessment (the binary packages are not concerned) and stands below the scale. What nobody
has assessed stands above it: it counts as worse than `critical`, so that it is never taken for harmless.
"""

from __future__ import annotations

from collections.abc import Iterable

from factory.trust.policy import SEVERITIES

UNIMPORTANT, UNKNOWN = "unimportant", "unknown"
SCALE = (UNIMPORTANT, *SEVERITIES, UNKNOWN)
"""From harmless to what has to be taken for the worst."""

SHOWN = ("critical", "high", UNKNOWN, "medium", "low", UNIMPORTANT)
"""The order in which people read them."""

NO_ADVISORY = "medium"
"""What has no urgency, but was judged by Debian's security team to need no advisory of its own (`nodsa`)."""

_URGENCIES = (UNIMPORTANT, "low", "medium", "high")
_UNASSESSED = ("not yet assigned", "end-of-life", "")
_CVSS_STEPS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"))
_MAX_VECTOR = 400


def reaches(severity: str, threshold: str) -> bool:
    """Whether a severity is as bad as a threshold, or worse."""
    return SCALE.index(severity) >= SCALE.index(threshold)


def combined(said: Iterable[str]) -> str:
    """What several sources come to: `unimportant` where one says so (only Debian does, of its own binary packages),
    else the worst that anybody knows."""
    known = set(said)
    if UNIMPORTANT in known:
        return UNIMPORTANT
    return max(known - {UNKNOWN}, key=SCALE.index, default=UNKNOWN)


def of_urgency(text: str, *, no_advisory: bool = False) -> str:
    """The severity of an urgency; one that is not assigned, not supported any more or no word we know is unknown."""
    word = text.rstrip("*")
    if word in _URGENCIES:
        return word
    return NO_ADVISORY if no_advisory and word in _UNASSESSED[:1] else UNKNOWN


def of_cvss(vectors: Iterable[str]) -> str:
    """The worst base score of CVSS vectors (versions 3.0, 3.1 and 4.0) as a severity, by FIRST's qualitative scale.
    Unknown where there is none, or one is no vector at all."""
    found: set[str] = set()
    for vector in vectors:
        found.add(_of_vector(vector))
    return UNKNOWN if UNKNOWN in found else combined(found)


def _of_vector(vector: str) -> str:
    from cvss import CVSS3, CVSS4, CVSSError

    if len(vector) > _MAX_VECTOR:
        return UNKNOWN
    try:
        score = float((CVSS4 if vector.startswith("CVSS:4") else CVSS3)(vector).base_score)
    except CVSSError:
        return UNKNOWN
    return next((word for least, word in _CVSS_STEPS if score >= least), "low")
