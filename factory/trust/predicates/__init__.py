"""What is said of an image, one module a predicate type: `statement(…)` writes it, `read(statement)` takes it strictly.

Here is what they share: the subjects of an image, and readers of single values. Each reader raises a TamperedError that
names the field. Unlike statements, whose foreign fields are passed over, a predicate of ours holds what it must hold
and nothing else: a field that this version does not know could change what the others mean.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from factory.digest import Digest, hex_of, is_digest
from factory.errors import TamperedError
from factory.trust.facts import Artifact, ImageFacts
from factory.trust.statements import Subject

MAX_TEXT = 512

_NAME = re.compile(r"[a-z0-9-]{1,63}\Z", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def subjects_of(image: ImageFacts) -> tuple[Subject, ...]:
    """What every statement about an image speaks of: its raw disk first, then each artifact by its place."""
    disk = Subject(f"{image.name}/{image.arch}", image.digest)
    return (disk, *(_subject_of(artifact, image.digest) for artifact in image.artifacts))


def _subject_of(artifact: Artifact, raw: Digest) -> Subject:
    if is_digest(artifact.native):
        return Subject(artifact.place, Digest(artifact.native), size_bytes=artifact.size_bytes)
    return Subject(artifact.place, raw, artifact.native, artifact.size_bytes)


def artifacts_of(subjects: tuple[Subject, ...], what: str) -> tuple[Artifact, ...]:
    """The artifacts among the subjects of an image; one with a native id must have the digest of the raw disk."""
    found = []
    for subject in subjects[1:]:
        if subject.uri is not None and (subject.sha256 != subjects[0].sha256 or is_digest(subject.uri)):
            raise TamperedError(f"{what}: {subject.name[:80]!r} is an id of another disk")
        found.append(Artifact(subject.name, subject.uri or subject.sha256, subject.size_bytes))
    return tuple(found)


def image_of(subjects: tuple[Subject, ...], what: str) -> tuple[str, str]:
    """The image's name and architecture, which its first subject is called by."""
    image, slash, arch = subjects[0].name.partition("/")
    if not slash or subjects[0].uri is not None:
        raise TamperedError(f"{what}: its first subject is not called NAME/ARCH")
    return name(image, f"{what}: the image's name"), name(arch, f"{what}: the architecture")


def table(value: object, what: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """An object with just these fields."""
    if not isinstance(value, dict):
        raise TamperedError(f"{what} is not an object")
    for key in required:
        if key not in value:
            raise TamperedError(f"{what}: {key} is missing")
    if len(value) > len(required):
        for key in value:
            if key not in required and key not in optional:
                raise TamperedError(f"{what}: {key[:80]!r} is not known here")
    return value


def items(value: object, what: str, most: int) -> list[Any]:
    """A list of at most so many items."""
    if not isinstance(value, list):
        raise TamperedError(f"{what} is not a list")
    if len(value) > most:
        raise TamperedError(f"{what} is too long: at most {most} items are read")
    return value


def text(value: object, what: str) -> str:
    """A printable text, neither empty nor huge."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise TamperedError(f"{what} is no text of 1 to {MAX_TEXT} printable characters")
    return value


def texts(value: object, what: str, most: int) -> dict[str, str]:
    """An object of at most so many texts."""
    if not isinstance(value, dict) or len(value) > most:
        raise TamperedError(f"{what} is no object of at most {most} texts")
    return {text(key, what): text(item, f"{what}: {key}") for key, item in value.items()}


def name(value: object, what: str) -> str:
    """A name as images.toml takes them: 1 to 63 of a-z, 0-9 and -."""
    if not isinstance(value, str) or not _NAME.match(value):
        raise TamperedError(f"{what} is no name (1 to 63 of a-z, 0-9 and -)")
    return value


def whole(value: object, what: str) -> int:
    """A whole number, not negative."""
    if type(value) is not int or value < 0:
        raise TamperedError(f"{what} is no whole number from 0")
    return value


def word(value: object, what: str, wanted: str) -> None:
    """A text that can only be `wanted`."""
    if value != wanted:
        raise TamperedError(f"{what} is not {wanted!r}")


def digest(value: object, what: str) -> Digest:
    """A digest written `sha256:…`."""
    if not is_digest(value):
        raise TamperedError(f"{what} is no sha256")
    return Digest(str(value))


def digest_set(value: object, what: str, algorithm: str = "sha256") -> Digest:
    """The one digest of a DigestSet (in-toto/attestation, spec/v1/digest_set.md)."""
    found = table(value, what, (algorithm,))[algorithm]
    if not isinstance(found, str) or not _HEX.match(found):
        raise TamperedError(f"{what} is no whole {algorithm}")
    return Digest(f"sha256:{found}")


def as_set(value: Digest, algorithm: str = "sha256") -> dict[str, str]:
    """A digest as a DigestSet."""
    return {algorithm: hex_of(value)}
