"""VEX statements of people: why a finding is none. OpenVEX documents (openvex.dev, v0.2.0), one a file. Pure but for
reading the files.

A statement explains a finding away where its status is `not_affected` or `fixed`, and only if it has an owner (the
statement's `supplier`, else the document's `author`), a reason (`justification`, `impact_statement`; of one that is
fixed also `status_notes`) and an end. OpenVEX knows no end: it is said in `valid_until`, of a statement or for all of
its document, a time with its offset. A statement without one of these is refused: it explains nothing, and that is
told. Of several that speak of a finding the newest counts, and of equally new ones that which explains nothing.

A product is a source package (`pkg:deb/debian/NAME`, with `@VERSION` that version of it only; of a binary's purl its
`upstream`), or an image (`urn:x-factory:image:NAME` or `…:NAME/ARCH`, a digest as `@id` or in `hashes`), whose
`subcomponents` narrow it to source packages. Any other is not known here and told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from factory.cve.advisory import IDENTIFIER, PACKAGE, tracked
from factory.cve.matching import Finding
from factory.cve.reading import Stream, refuse_other_than_json
from factory.digest import Digest, is_digest
from factory.errors import CveError

NOT_AFFECTED, FIXED, AFFECTED, INVESTIGATED = "not_affected", "fixed", "affected", "under_investigation"
STATUSES = (NOT_AFFECTED, FIXED, AFFECTED, INVESTIGATED)
EXPLAINING = (NOT_AFFECTED, FIXED)
JUSTIFICATIONS = (
    "component_not_present", "vulnerable_code_not_present", "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary", "inline_mitigations_already_exist",
)  # fmt: skip
IMAGE_URN = "urn:x-factory:image:"
MAX_BYTES = 16 << 20
MAX_TEXT = 500
MAX_OWNER = 200

_CONTEXT = "https://openvex.dev/ns"
_IMAGE = re.compile(r"([a-z0-9-]{1,63})(?:/([a-z0-9-]{1,63}))?\Z")


@dataclass(frozen=True)
class Product:
    """What a statement is about; what is None is any. `image`: NAME or NAME/ARCH."""

    image: str | None = None
    digest: Digest | None = None
    package: str | None = None
    version: str | None = None

    def covers(self, finding: Finding, subject: Subject) -> bool:
        """Whether a finding in an image is within it."""
        return (
            self.package in (None, finding.package)
            and self.version in (None, finding.version)
            and self.digest in (None, subject.digest)
            and self.image in (None, subject.who, subject.who.partition("/")[0])
        )


@dataclass(frozen=True)
class Subject:
    """An image: NAME/ARCH, and its digest where one image is meant."""

    who: str
    digest: Digest | None = None


@dataclass(frozen=True)
class Statement:
    """`until`, `owner` and `reason` are there where it explains. `names`: what the vulnerability is called."""

    names: frozenset[str]
    products: tuple[Product, ...]
    status: str
    made_at: datetime
    owner: str
    reason: str
    until: datetime | None
    file: str

    def speaks_of(self, finding: Finding, subject: Subject) -> bool:
        """Whether it is about a finding in an image."""
        return not self.names.isdisjoint((finding.id, *finding.others)) and any(
            product.covers(finding, subject) for product in self.products
        )


@dataclass(frozen=True)
class Document:
    """A file of statements. `refused`: a line for each that does not count, and why."""

    file: str
    digest: Digest
    statements: tuple[Statement, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What statements come to for a finding: `by` explains it, or would (`expired`) had it not ended."""

    by: Statement
    expired: bool


def explain(
    statements: Iterable[Statement], finding: Finding, subject: Subject, now: datetime
) -> Explanation | None:  # fmt: skip
    """Whether somebody explains a finding away; None where nobody does, or the newest word is that it is one."""
    about = [one for one in statements if one.made_at <= now and one.speaks_of(finding, subject)]
    in_force = [one for one in about if one.until is None or one.until > now]
    if in_force:
        newest = max(in_force, key=lambda one: (one.made_at, one.status not in EXPLAINING))
        return Explanation(newest, expired=False) if newest.status in EXPLAINING else None
    ended = [one for one in about if one.status in EXPLAINING]
    return Explanation(max(ended, key=lambda one: one.made_at), expired=True) if ended else None


def read(path: Path, label: str) -> list[Document]:
    """The documents in a file, or in the *.json of a folder. Raises CveError."""
    try:
        if path.is_dir():
            return [_document(file, f"{label.rstrip('/')}/{file.name}") for file in sorted(path.glob("*.json"))]
        return [_document(path, label)]
    except OSError as error:
        raise CveError(
            f"the VEX statements {label} cannot be read: {error.strerror or error}",
            where=label,
            hint="name an OpenVEX file, or a folder of them, in [cve] vex or with --vex",
        ) from error


def _document(path: Path, label: str) -> Document:
    if path.stat().st_size > MAX_BYTES:
        raise CveError(f"{label} is too large: at most {MAX_BYTES} bytes are read", where=label)
    with path.open("rb") as file:
        stream = Stream(file, label)
        refuse_other_than_json(stream)
        said = stream.value()
        stream.end()
    context = said.get("@context") if isinstance(said, dict) else None
    contexts = context if isinstance(context, list) else [context]
    if not any(isinstance(one, str) and one.startswith(_CONTEXT) for one in contexts):
        raise CveError(
            f"{label} is no OpenVEX document", where=f"{label}: @context", hint=f"its @context is {_CONTEXT}/v0.2.0"
        )
    listed = said.get("statements")
    if not isinstance(listed, list):
        raise CveError(
            f"{label} has no list of statements", where=f"{label}: statements", hint="[] where there are none"
        )
    statements: list[Statement] = []
    refused: list[str] = []
    for number, item in enumerate(listed, start=1):
        try:
            statements.append(_Reader(said, item, label).statement())
        except ValueError as why:
            refused.append(f"{label}: statement {number} does not count: {why}")
    return Document(label, stream.digest, tuple(statements), tuple(refused))


class _Reader:
    """One statement, what it lacks taken from its document. ValueError says why it does not count."""

    def __init__(self, document: dict[str, Any], item: Any, label: str) -> None:
        if not isinstance(item, dict):
            raise ValueError("it is no object")
        self._document, self._item, self._label = document, item, label

    def statement(self) -> Statement:
        status = self._item.get("status")
        if status not in STATUSES:
            raise ValueError(f"its status is none of {', '.join(STATUSES)}")
        explains = status in EXPLAINING
        made_at = self._time("timestamp")
        if made_at is None:
            raise ValueError("it has no timestamp")
        until = self._time("valid_until")
        owner, reason = self._owner(), self._reason(status)
        if explains:
            if not owner:
                raise ValueError("nobody answers for it: the document's author, or its supplier")
            if not reason:
                raise ValueError("it gives no reason: a justification of OpenVEX's, or an impact_statement")
            if until is None:
                raise ValueError("it has no end: valid_until, such as 2026-12-31T00:00:00Z")
        names = frozenset(self._names())
        products = tuple(product for item in self._list(self._item, "products") for product in _products(item))
        if not products:
            raise ValueError("it names no product")
        return Statement(names, products, status, made_at, owner, reason, until, self._label)

    def _names(self) -> Iterator[str]:
        said = self._item.get("vulnerability")
        named = said if isinstance(said, dict) else {"name": said}
        for name in (named.get("name"), *self._list(named, "aliases")):
            if not isinstance(name, str) or not IDENTIFIER.match(name):
                raise ValueError("its vulnerability has no name, such as CVE-2026-1234")
            yield name

    def _owner(self) -> str:
        owner = self._text(self._item, "supplier", MAX_OWNER) or self._text(self._document, "author", MAX_OWNER)
        role = self._text(self._document, "role", MAX_OWNER)
        return f"{owner} ({role})" if owner and role and "supplier" not in self._item else owner

    def _reason(self, status: str) -> str:
        justification = self._text(self._item, "justification")
        if justification and justification not in JUSTIFICATIONS:
            raise ValueError(f"its justification is none of {', '.join(JUSTIFICATIONS)}")
        said = [justification, self._text(self._item, "impact_statement")]
        if status == FIXED:
            said.append(self._text(self._item, "status_notes"))
        return ": ".join(filter(None, said))

    def _time(self, key: str) -> datetime | None:
        said = self._item.get(key, self._document.get(key))
        if said is None:
            return None
        try:
            moment = datetime.fromisoformat(said)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC).replace(microsecond=0)
        except (TypeError, ValueError, OverflowError):
            pass
        raise ValueError(f"its {key} is no time with its offset, such as 2026-12-31T00:00:00Z")

    @staticmethod
    def _text(holder: dict[str, Any], key: str, most: int = MAX_TEXT) -> str:
        said = holder.get(key, "")
        if not isinstance(said, str) or len(said) > most or not said.isprintable():
            raise ValueError(f"its {key} is not one line of at most {most} printable characters")
        return said.strip()

    @staticmethod
    def _list(holder: dict[str, Any], key: str) -> list[Any]:
        said = holder.get(key, [])
        if not isinstance(said, list):
            raise ValueError(f"its {key} is no list")
        return said


def _products(item: Any) -> Iterator[Product]:
    """The products that an item of `products` names. ValueError where it is none that is known here."""
    holder = item if isinstance(item, dict) else {"@id": item}
    image, digest = _image(holder)
    packages = holder.get("subcomponents", [])
    if not isinstance(packages, list):
        raise ValueError("subcomponents of a product is no list")
    if image is None and digest is None:
        if packages:
            raise ValueError(f"subcomponents belong to an image: {IMAGE_URN}NAME, or its digest")
        yield Product(None, None, *_package(holder))
    elif not packages:
        yield Product(image, digest)
    for package in packages:
        yield Product(image, digest, *_package(package if isinstance(package, dict) else {"@id": package}))


def _image(holder: dict[str, Any]) -> tuple[str | None, Digest | None]:
    said = holder.get("@id")
    hashes = holder.get("hashes")
    digest = None
    if hashes is not None:
        by_hash = f"sha256:{hashes.get('sha-256')}" if isinstance(hashes, dict) else ""
        if not is_digest(by_hash):
            raise ValueError("hashes of a product has no sha-256")
        digest = Digest(by_hash)
    if isinstance(said, str):
        if is_digest(said):
            return None, Digest(said)
        if said.startswith(IMAGE_URN):
            name = said.removeprefix(IMAGE_URN)
            if not _IMAGE.match(name):
                raise ValueError(f"{said[:100]!r} names no image")
            return name, digest
    return None, digest


def _package(holder: dict[str, Any]) -> tuple[str, str | None]:
    """(source package, version or None) of a product or subcomponent."""
    from packageurl import PackageURL

    identifiers = holder.get("identifiers")
    said = identifiers.get("purl") if isinstance(identifiers, dict) else holder.get("@id")
    try:
        purl = PackageURL.from_string(said if isinstance(said, str) else "")
    except ValueError:
        purl = None
    if purl is None or (purl.type, purl.namespace) != ("deb", "debian"):
        known = f"pkg:deb/debian/SOURCE, {IMAGE_URN}NAME, a digest"
        raise ValueError(f"{str(said)[:100]!r} is no product known here ({known})")
    qualifiers = purl.qualifiers if isinstance(purl.qualifiers, dict) else {}
    name, _, version = str(qualifiers.get("upstream", "")).partition("@")
    name, version = name or purl.name, version or purl.version or ""
    if not PACKAGE.match(name):
        raise ValueError(f"{name[:80]!r} is no package")
    name, version = tracked(name, version)
    return name, version or None
