"""The bill of materials: it is CycloneDX 1.6, the same bytes for the same image, and names packages as others do."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from datetime import timedelta
from typing import Any

import attested
import pytest
from attested import BAKED_AT, sha
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL

from factory import proc
from factory.catalog.contents import InstalledPackage
from factory.errors import TamperedError
from factory.trust import statements
from factory.trust.predicates import sbom
from factory.trust.statements import Statement

WEB = sbom.statement(attested.image(), attested.packages(), BAKED_AT)


def component(name: str) -> dict[str, Any]:
    (found,) = [item for item in WEB.predicate["components"] if item["name"] == name]
    return dict(found)


def test_sbom_describes_the_image_by_its_digest() -> None:
    metadata = WEB.predicate["metadata"]
    image = attested.image()
    assert metadata["component"] == {
        "bom-ref": "urn:x-factory:image:web/amd64",
        "hashes": [{"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}],
        "name": "web/amd64",
        "type": "operating-system",
        "version": image.bake_key.removeprefix("sha256:")[:12],
    }
    assert metadata["timestamp"] == "2026-11-24T02:30:00+00:00"
    assert [tool["name"] for tool in metadata["tools"]["components"]] == ["factory"]


def test_sbom_holds_every_package_once() -> None:
    twice = (*attested.packages(), *attested.packages())
    assert sbom.statement(attested.image(), twice, BAKED_AT) == WEB
    assert sorted(item["name"] for item in WEB.predicate["components"]) == ["bsdutils", "ca-certificates", "g++-12"]


def test_package_is_named_by_a_purl_that_gives_all_of_it_back() -> None:
    assert component("g++-12")["purl"] == "pkg:deb/debian/g%2B%2B-12@12.2.0-14%2Bdeb12u1?arch=amd64&upstream=gcc-12"
    found = PackageURL.from_string(component("bsdutils")["purl"])
    assert (found.name, found.version) == ("bsdutils", "1:2.38.1-5+deb12u3")
    assert found.qualifiers == {"arch": "amd64", "upstream": "util-linux@2.38.1-5+deb12u3"}
    assert component("ca-certificates")["purl"] == "pkg:deb/debian/ca-certificates@20250419~deb12u2?arch=all"


def test_hash_is_there_where_it_is_known() -> None:
    assert component("g++-12")["hashes"] == [{"alg": "SHA-256", "content": sha("g++-12").removeprefix("sha256:")}]
    assert "hashes" not in component("ca-certificates")


def test_sbom_of_the_same_image_is_the_same_to_the_byte() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/unit'); import attested; from factory.trust import statements\n"
        "from factory.trust.predicates import sbom\n"
        "said = sbom.statement(attested.image(), reversed(attested.packages()), attested.BAKED_AT)\n"
        "sys.stdout.buffer.write(statements.dumps(said))"
    )
    for seed in ("1", "2"):
        done = proc.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed})
        assert done.stdout == statements.dumps(WEB)


def test_serial_number_follows_from_the_digest_alone() -> None:
    later = sbom.statement(attested.image(), (), BAKED_AT + timedelta(days=1))
    other = sbom.statement(attested.image(digest=sha("other")), (), BAKED_AT)
    assert later.predicate["serialNumber"] == WEB.predicate["serialNumber"] != other.predicate["serialNumber"]
    assert WEB.predicate["serialNumber"].startswith("urn:uuid:")


def test_sbom_says_nothing_on_stderr_while_it_is_made() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sbom.statement(attested.image(), attested.packages(), BAKED_AT)


def test_sbom_is_valid_by_the_schema_of_cyclonedx() -> None:
    pytest.importorskip("jsonschema", reason="cyclonedx-python-lib[json-validation] is not installed")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(WEB.predicate)) is None
    assert validator.validate_str(json.dumps({**WEB.predicate, "colour": "red"})) is not None


# --- read


def test_sbom_is_read_by_its_digest_and_packages() -> None:
    read = sbom.read(statements.loads(statements.dumps(WEB)))
    assert (read.name, read.arch, read.digest) == ("web", "amd64", attested.image().digest)
    assert [PackageURL.from_string(purl).name for purl in read.purls] == ["bsdutils", "ca-certificates", "g++-12"]
    assert sbom.read(sbom.statement(attested.image(), (), BAKED_AT)).purls == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("bomFormat",), "SPDX"),
        (("specVersion",), "1.5"),
        (("serialNumber",), "urn:uuid:00000000-0000-0000-0000-000000000000"),
        (("metadata",), None),
        (("metadata", "component"), []),
        (("metadata", "component", "name"), "api/amd64"),
        (("metadata", "component", "hashes"), []),
        (("metadata", "component", "hashes", 0, "content"), "0" * 64),
        (("components",), {}),
        (("components",), ["nginx"]),
        (("components", 0, "purl"), None),
    ],
)
def test_sbom_of_something_else_is_refused(path: tuple[Any, ...], value: Any) -> None:
    changed = json.loads(statements.dumps(WEB))["predicate"]
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(TamperedError, match="the SBOM"):
        sbom.read(Statement(WEB.predicate_type, WEB.subjects, changed))


def test_sbom_under_other_subjects_is_refused() -> None:
    with pytest.raises(TamperedError):
        sbom.read(replace(WEB, subjects=sbom.statement(attested.image("api"), (), BAKED_AT).subjects))


_VERSION = st.from_regex(r"(?:[0-9]:)?[0-9][A-Za-z0-9.+~-]{0,20}", fullmatch=True)


@given(st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True), _VERSION,
       st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True), _VERSION)  # fmt: skip
def test_any_debian_package_can_be_had_back(name: str, version: str, source: str, source_version: str) -> None:
    package = InstalledPackage(name, version, "arm64", source, source_version)
    said = sbom.statement(attested.image(), [package], BAKED_AT)
    (purl,) = sbom.read(said).purls
    found = PackageURL.from_string(purl)
    assert (found.type, found.namespace, found.name, found.version) == ("deb", "debian", name, version)
    origin, _, number = str(found.qualifiers.get("upstream", name)).partition("@")
    assert (origin, number or version) == (source, source_version)
