"""What packages an image holds: a CycloneDX 1.6 bill of materials (cyclonedx.org/docs/1.6/json), as a predicate.

The same image and packages give the same bytes: the serial number follows from the image's digest, the time is that of
the bake. A package is named by its purl (package-url/purl-spec, type deb), whose `upstream` qualifier gives the source
package where it is called, or numbered, otherwise. CycloneDX's library is loaded only to write one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from factory import __version__
from factory.digest import Digest, hex_of
from factory.errors import TamperedError
from factory.trust import strict
from factory.trust.facts import ImageFacts
from factory.trust.predicates import image_of, items, subjects_of, text, word
from factory.trust.statements import MAX_BYTES, SBOM, Statement

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

MAX_PACKAGES = 100_000

_SPEC_VERSION = "1.6"


class Package(Protocol):
    """A package that is installed. `sha256` is of its file (`sha256:…`), None where that is not known."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def source_version(self) -> str: ...
    @property
    def sha256(self) -> str | None: ...


class Sbom(NamedTuple):
    """What is taken from a bill of materials here. `purls`: of the packages, sorted."""

    name: str
    arch: str
    digest: Digest
    purls: tuple[str, ...]


def statement(image: ImageFacts, packages: Iterable[Package], baked_at: datetime) -> Statement:
    """The SBOM of an image with all its packages, those of its ancestors among them."""
    return Statement(SBOM, subjects_of(image), _document(image, packages, baked_at))


def read(statement: Statement, what: str = "the SBOM") -> Sbom:
    """What an SBOM of ours says. Raises TamperedError."""
    said = statement.predicate
    word(said.get("bomFormat"), f"{what}: bomFormat", "CycloneDX")
    word(said.get("specVersion"), f"{what}: specVersion", _SPEC_VERSION)
    word(said.get("serialNumber"), f"{what}: serialNumber", _serial(statement.subjects[0].sha256).urn)
    metadata = said.get("metadata")
    described = metadata.get("component") if isinstance(metadata, dict) else None
    if not isinstance(described, dict):
        raise TamperedError(f"{what} does not say what it describes")
    name, arch = image_of(statement.subjects, what)
    word(described.get("name"), f"{what}: the name of what it describes", f"{name}/{arch}")
    digest = statement.subjects[0].sha256
    if described.get("hashes") != [{"alg": "SHA-256", "content": hex_of(digest)}]:
        raise TamperedError(f"{what} describes another disk than it speaks of")
    components = items(said.get("components", []), f"{what}: components", MAX_PACKAGES)
    return Sbom(name, arch, digest, tuple(sorted(_purl_in(item, what) for item in components)))


def purl_of(package: Package) -> PackageURL:
    """The purl of a Debian package."""
    from packageurl import PackageURL

    return PackageURL("deb", "debian", package.name, package.version, _qualifiers(package))


def _document(image: ImageFacts, packages: Iterable[Package], baked_at: datetime) -> dict[str, Any]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    described = Component(
        name=f"{image.name}/{image.arch}",
        type=ComponentType.OPERATING_SYSTEM,
        version=hex_of(image.bake_key)[:12],
        bom_ref=f"urn:x-factory:image:{image.name}/{image.arch}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hex_of(image.digest))],
    )
    tool = Component(name="factory", type=ComponentType.APPLICATION, version=__version__)
    tools = ToolRepository(components=[tool])
    components = {component.bom_ref.value: component for component in map(_component, packages)}
    bom = Bom(
        serial_number=_serial(image.digest),
        metadata=BomMetaData(component=described, timestamp=baked_at.replace(microsecond=0), tools=tools),
        components=components.values(),
    )
    bom.register_dependency(described, components.values())
    written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    document: dict[str, Any] = strict.loads(written.encode("utf-8"), "the SBOM", max_bytes=MAX_BYTES)
    return document


def _component(package: Package) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    known = purl_of(package)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=hex_of(Digest(package.sha256)))] if package.sha256 else []
    return Component(
        name=package.name,
        type=ComponentType.LIBRARY,
        version=package.version,
        bom_ref=known.to_string(),
        hashes=hashes,
        purl=known,
    )


def _qualifiers(package: Package) -> dict[str, str]:
    qualifiers = {"arch": package.arch}
    if (package.source, package.source_version) != (package.name, package.version):
        same_version = package.source_version == package.version
        qualifiers["upstream"] = package.source + ("" if same_version else f"@{package.source_version}")
    return qualifiers


def _serial(digest: Digest) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"urn:x-factory:sbom:{digest}")


def _purl_in(item: object, what: str) -> str:
    if not isinstance(item, dict):
        raise TamperedError(f"{what}: a component is not an object")
    return text(item.get("purl"), f"{what}: the purl of a component")
