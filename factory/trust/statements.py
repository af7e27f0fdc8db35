"""in-toto Statements v1 (in-toto/attestation, spec/v1/statement.md): who is spoken of, and what is said.

Refused: another `_type`, a predicate type that is not ours to read, a subject without a whole sha256, one name for two
subjects, names that are huge or could disturb a terminal. Fields that the standard does not name are passed over, as it
asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from factory.digest import Digest, hex_of
from factory.errors import TamperedError
from factory.trust import dsse, strict

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
SBOM = "https://cyclonedx.org/bom"
PROMOTION = "urn:x-factory:promotion:v1"
REVOCATION = "urn:x-factory:revocation:v1"
KEY_REVOCATION = "urn:x-factory:key-revocation:v1"
PREDICATE_TYPES = frozenset({PROVENANCE, TEST_RESULT, SUMMARY, SBOM, PROMOTION, REVOCATION, KEY_REVOCATION})

MAX_BYTES = 16 << 20
MAX_SUBJECTS = 1024
MAX_NAME = 512
MAX_URI = 2048

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)


@dataclass(frozen=True)
class Subject:
    """What is spoken of. `sha256` is of its content; `uri` a native id such as `ami-…` at the place `name` says.

    `size_bytes` is of the content; None where it is not said.
    """

    name: str
    sha256: Digest
    uri: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Statement:
    """`predicate` is JSON-able; each predicate type has a module of its own that reads it."""

    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate: Mapping[str, Any]


def signed(statement: Statement, signers: Sequence[dsse.Signer]) -> dsse.Envelope:
    """An envelope that says `statement`, signed by each of `signers`. Raises TrustError where a signer cannot."""
    return dsse.sign(PAYLOAD_TYPE, dumps(statement), signers)


def dumps(statement: Statement) -> bytes:
    """The payload that says `statement`: canonical JSON."""
    return strict.dumps(
        {
            "_type": STATEMENT_TYPE,
            "predicate": dict(statement.predicate),
            "predicateType": statement.predicate_type,
            "subject": [_subject_json(subject) for subject in statement.subjects],
        }
    )


def of_envelope(envelope: dsse.Envelope, predicate_type: str, what: str) -> Statement:
    """The statement an envelope carries, which must be of `predicate_type`. Raises TamperedError."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TamperedError(f"{what} carries {envelope.payload_type[:80]!r}, not an in-toto statement")
    statement = loads(envelope.payload, what)
    if statement.predicate_type != predicate_type:
        raise TamperedError(f"{what} says {statement.predicate_type[:80]!r}, not {predicate_type!r}")
    return statement


def loads(payload: bytes, what: str = "the statement") -> Statement:
    """The statement that a payload is; its predicate is not looked into. Raises TamperedError."""
    data = strict.loads(payload, what, max_bytes=MAX_BYTES)
    if not isinstance(data, dict) or data.get("_type") != STATEMENT_TYPE:
        raise TamperedError(f"{what} is no in-toto statement v1")
    kind, predicate, subjects = data.get("predicateType"), data.get("predicate"), data.get("subject")
    if not isinstance(kind, str) or kind not in PREDICATE_TYPES:
        raise TamperedError(f"{what} is of a type that is not known here: {str(kind)[:80]!r}")
    if not isinstance(predicate, dict):
        raise TamperedError(f"{what} says nothing: it has no predicate")
    if not isinstance(subjects, list) or not 0 < len(subjects) <= MAX_SUBJECTS:
        raise TamperedError(f"{what} must speak of 1 to {MAX_SUBJECTS} subjects")
    spoken_of = tuple(_subject(item, what) for item in subjects)
    if len({subject.name for subject in spoken_of}) != len(spoken_of):
        raise TamperedError(f"{what} names two subjects alike")
    return Statement(kind, spoken_of, predicate)


def time_of(value: object, what: str) -> datetime:
    """A time in a statement: UTC, whole seconds, `2026-11-24T00:00:00Z`. Raises TamperedError."""
    if isinstance(value, str) and _TIME.match(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise TamperedError(f"{what} is no time (UTC, like 2026-11-24T00:00:00Z)")


def time_text(moment: datetime) -> str:
    """A time as statements write it; parts of a second are cut off. ValueError where it says no offset from UTC."""
    if moment.tzinfo is None:
        raise ValueError("a time without an offset from UTC")
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _subject_json(subject: Subject) -> dict[str, Any]:
    plain: dict[str, Any] = {"digest": {"sha256": hex_of(subject.sha256)}, "name": subject.name}
    if subject.uri is not None:
        plain["uri"] = subject.uri
    if subject.size_bytes is not None:
        plain["annotations"] = {"sizeBytes": subject.size_bytes}
    return plain


def _subject(item: Any, what: str) -> Subject:
    if not isinstance(item, dict):
        raise TamperedError(f"{what}: a subject is not an object")
    name, digests, uri = item.get("name"), item.get("digest"), item.get("uri")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise TamperedError(f"{what}: a subject has no name, or none of 1 to {MAX_NAME} printable characters")
    found = digests.get("sha256") if isinstance(digests, dict) else None
    if not isinstance(found, str) or not _SHA256.match(found):
        raise TamperedError(f"{what}: the subject {name[:80]!r} has no whole sha256")
    if uri is not None and (not isinstance(uri, str) or not 0 < len(uri) <= MAX_URI or not uri.isprintable()):
        raise TamperedError(f"{what}: the uri of the subject {name[:80]!r} is no text of at most {MAX_URI} characters")
    annotations = item.get("annotations", {})
    size = annotations.get("sizeBytes") if isinstance(annotations, dict) else -1
    if size is not None and (type(size) is not int or size < 0):
        raise TamperedError(f"{what}: the size of the subject {name[:80]!r} is no number of bytes")
    return Subject(name, Digest(f"sha256:{found}"), uri, size)
