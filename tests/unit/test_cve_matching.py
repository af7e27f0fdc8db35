"""Matching advisories with packages, merging what several say, and what VEX statements explain."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attested import sha
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.catalog.contents import InstalledPackage
from factory.cve import matching, suites, vex
from factory.cve.advisory import EVERY_VERSION, Advisory, Affected, Span
from factory.cve.matching import Finding, Matcher
from factory.cve.vex import Product, Statement, Subject
from factory.errors import CveError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WEB = Subject("web/amd64", sha("web"))


def package(name: str, version: str = "1.0-1", source: str = "", source_version: str = "") -> InstalledPackage:
    return InstalledPackage(name, version, "amd64", source or name, source_version or version)


def said(identifier: str, source: str = "openssl", **more: Any) -> Advisory:
    values = {"suite": "bookworm", "affected": EVERY_VERSION, "severity": "unknown", "origin": "tracker", **more}
    return Advisory(identifier, source, **values)


def found(advisories: list[Advisory], *packages: InstalledPackage, suite: str = "bookworm") -> list[Finding]:
    return Matcher(advisories).findings(packages or [package("openssl")], suite)


# --- matching


def test_findings_are_of_the_source_and_its_version() -> None:
    fixed = said("CVE-2026-1000", affected=Affected((Span(fixed="3.0-2"),)))
    binaries = [
        package("libssl3", "1:9-9", "openssl", "3.0-1"), package("openssl", "1:9-9", "openssl", "3.0-1"),
        package("libother", "3.0-1", "other"),
    ]  # fmt: skip
    (one,) = found([fixed], *binaries)
    assert (one.package, one.version, one.fixed, one.binaries) == ("openssl", "3.0-1", "3.0-2", ("libssl3", "openssl"))
    assert found([fixed], package("libssl3", "1.0", "openssl", "3.0-2")) == []


def test_other_suites_do_not_count_and_those_without_do() -> None:
    assert found([said("CVE-2026-1000", suite="trixie")]) == []
    assert len(found([said("CVE-2026-1000", suite=None)], suite="trixie")) == 1


def test_kernel_is_found_though_it_is_called_by_its_signed_copy() -> None:
    kernel = package("linux-image-cloud-amd64", "6.1.192-2", "linux-signed-amd64", "6.1.192+2")
    advisory = said("CVE-2026-1000", "linux", affected=Affected((Span(fixed="6.1.192-3"),)))
    (one,) = found([advisory], kernel)
    assert (one.package, one.version) == ("linux", "6.1.192-2")


def test_same_cve_of_two_sources_is_one_finding_with_the_worst_severity_known() -> None:
    (one,) = found(
        [
            said("CVE-2026-1000", severity="low", affected=Affected((Span(fixed="1.0-2"),))),
            said("CVE-2026-1000", severity="high", origin="osv", affected=Affected((Span(fixed="1.0-3"),))),
            said("GHSA-1", origin="osv", others=("DSA-1",)),
            said("CVE-2026-1000", origin="osv", others=("GHSA-1",)),
        ]
    )
    assert (one.severity, one.fixed, one.others, one.origins) == (
        "high",
        "1.0-3",
        ("DSA-1", "GHSA-1"),
        ("osv", "tracker"),
    )


def test_one_that_says_it_is_fixed_does_not_take_away_anothers_finding() -> None:
    mended = said("CVE-2026-1000", affected=Affected((Span(fixed="0.1"),)), origin="osv")
    assert len(found([mended, said("CVE-2026-1000")])) == 1


def test_alias_never_joins_two_cves() -> None:
    both = [said("CVE-2026-1000", others=("GHSA-1",)), said("CVE-2026-2000", others=("GHSA-1",)), said("GHSA-1")]
    assert [one.id for one in found(both)] == ["CVE-2026-1000", "CVE-2026-2000"]


def test_what_only_some_determine_is_determined() -> None:
    unsure = said("CVE-2026-1000", undetermined=True)
    assert found([unsure])[0].undetermined
    assert not found([unsure, said("CVE-2026-1000")])[0].undetermined


def test_installed_version_that_is_none_is_an_error_where_it_matters() -> None:
    with pytest.raises(CveError, match="cannot be compared"):
        found([said("CVE-2026-1000")], package("openssl", "x:1"))
    assert found([], package("openssl", "x:1")) == []


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("12.4+deb12u15", "bookworm"), ("13.8", "trixie"), ("12ubuntu4.6", None), ("99", None), ("", None), ("12x", None)],
)
def test_release_is_told_by_base_files(version: str, wanted: str | None) -> None:
    assert suites.of_packages([package("openssl"), package("base-files", version or "x")]) == wanted
    assert suites.of_packages([]) is None


def test_digest_of_packages_is_of_what_counts_and_not_of_their_order() -> None:
    one, other = package("a"), package("b")
    digest = matching.packages_digest([one, other])
    assert matching.packages_digest([other, one, one]) == digest
    assert matching.packages_digest([other, package("a", "1.0-2")]) != digest


# --- statements


FINDING = Finding("CVE-2026-1000", "openssl", "3.0-1", "high", others=("GHSA-1",))


def statement(**more: Any) -> Statement:
    values = {
        "names": frozenset({"CVE-2026-1000"}), "products": (Product(package="openssl"),), "status": "not_affected",
        "made_at": NOW - timedelta(days=9), "owner": "alice", "reason": "x", "until": NOW + timedelta(days=9),
        "file": "a.json",
    }  # fmt: skip
    return Statement(**{**values, **more})


@pytest.mark.parametrize(
    ("more", "speaks"),
    [
        ({}, True),
        ({"names": frozenset({"GHSA-1"})}, True),
        ({"names": frozenset({"CVE-2026-1001"})}, False),
        ({"products": (Product(package="zlib"),)}, False),
        ({"products": (Product(package="openssl", version="3.0-1"),)}, True),
        ({"products": (Product(package="openssl", version="3.0-2"),)}, False),
        ({"products": (Product(image="web"),)}, True),
        ({"products": (Product(image="web/arm64"),)}, False),
        ({"products": (Product(image="base"), Product(digest=sha("web")))}, True),
        ({"products": (Product(digest=sha("other")),)}, False),
        ({"products": (Product(image="web", digest=sha("other")),)}, False),
        ({"products": (Product(image="web", package="zlib"),)}, False),
        ({"made_at": NOW + timedelta(seconds=1)}, False),
    ],
)
def test_statement_speaks_only_of_what_it_names(more: dict[str, Any], speaks: bool) -> None:
    explanation = vex.explain([statement(**more)], FINDING, WEB, NOW)
    assert (explanation is not None and not explanation.expired) is speaks


def test_statement_that_has_ended_explains_nothing_and_is_shown() -> None:
    until = NOW + timedelta(days=9)
    assert vex.explain([statement()], FINDING, WEB, until - timedelta(seconds=1)).expired is False  # type: ignore[union-attr]
    ended = vex.explain([statement()], FINDING, WEB, until)
    assert ended is not None
    assert ended.expired


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(vex.STATUSES), st.one_of(st.none(), st.integers(-2, 2))),
        max_size=5,
    )
)
def test_newest_statement_in_force_decides(said: list[tuple[int, str, int | None]]) -> None:
    made = [
        statement(made_at=NOW - timedelta(days=age), status=status,
                  until=None if days is None else NOW + timedelta(days=days))
        for age, status, days in said
    ]  # fmt: skip
    explanation = vex.explain(made, FINDING, WEB, NOW)
    in_force = [one for one in made if one.until is None or one.until > NOW]
    newest = [one for one in in_force if one.made_at == max(other.made_at for other in in_force)]
    explains = bool(newest) and all(one.status in vex.EXPLAINING for one in newest)
    assert (explanation is not None and not explanation.expired) is explains


def document(**more: Any) -> dict[str, Any]:
    one = {
        "vulnerability": {"name": "CVE-2026-1000"}, "products": [{"@id": "pkg:deb/debian/openssl"}],
        "status": "not_affected", "justification": "inline_mitigations_already_exist",
        "valid_until": "2026-12-31T00:00:00Z",
    }  # fmt: skip
    whole = {
        "@context": "https://openvex.dev/ns/v0.2.0", "author": "alice", "role": "security",
        "timestamp": "2026-11-01T00:00:00Z", "version": 1,
    }  # fmt: skip
    top = {key: value for key, value in more.items() if key in (*whole, "supplier_of_all", "statements")}
    merged = {**one, **{key: value for key, value in more.items() if key not in top}}
    return {**whole, "statements": [{key: value for key, value in merged.items() if value is not None}], **top}


def read(tmp_path: Path, value: Any) -> vex.Document:
    path = tmp_path / "a.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    (found,) = vex.read(path, "vex/a.json")
    return found


def test_document_is_read(tmp_path: Path) -> None:
    (one,) = read(tmp_path, document(impact_statement="we do not call it")).statements
    assert one.names == {"CVE-2026-1000"}
    assert one.products == (Product(package="openssl"),)
    assert (one.owner, one.reason) == ("alice (security)", "inline_mitigations_already_exist: we do not call it")
    assert one.until == datetime(2026, 12, 31, tzinfo=UTC)
    assert read(tmp_path, document(supplier="bob")).statements[0].owner == "bob"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"valid_until": None}, "has no end"),
        ({"valid_until": "2026-12-31"}, "no time with its offset"),
        ({"valid_until": 5}, "no time with its offset"),
        ({"author": ""}, "nobody answers for it"),
        ({"justification": None}, "gives no reason"),
        ({"justification": "because"}, "justification is none of"),
        ({"status": "fine"}, "status is none of"),
        ({"vulnerability": {}}, "has no name"),
        ({"vulnerability": "CVE 1"}, "has no name"),
        ({"products": []}, "names no product"),
        ({"products": {}}, "is no list"),
        ({"products": [{"@id": "pkg:npm/openssl"}]}, "is no product known here"),
        ({"products": [{"@id": "urn:x-factory:image:../x"}]}, "names no image"),
        ({"products": [{"@id": "urn:x-factory:image:web", "hashes": {"sha-512": "x"}}]}, "has no sha-256"),
        ({"products": [{"@id": "pkg:deb/debian/x", "subcomponents": ["pkg:deb/debian/y"]}]}, "belong to an image"),
        ({"impact_statement": "a\nb"}, "is not one line"),
        ({"author": "a" * 201}, "is not one line"),
        ({"timestamp": None}, "has no timestamp"),
    ],
)
def test_statement_that_lacks_something_does_not_count_and_is_told(
    tmp_path: Path, more: dict[str, Any], why: str
) -> None:
    found = read(tmp_path, document(**more))
    assert found.statements == ()
    (line,) = found.refused
    assert line.startswith("vex/a.json: statement 1 does not count: ")
    assert why in line


def test_statement_that_explains_nothing_needs_no_end(tmp_path: Path) -> None:
    said = document(status="affected", valid_until=None, justification=None)
    assert read(tmp_path, said).statements[0].status == "affected"


@pytest.mark.parametrize(
    ("product", "wanted"),
    [
        ("pkg:deb/debian/openssl", Product(package="openssl")),
        ("pkg:deb/debian/openssl@3.0-1?arch=source", Product(package="openssl", version="3.0-1")),
        ("pkg:deb/debian/libssl3@3.0-1?arch=amd64&upstream=openssl", Product(package="openssl", version="3.0-1")),
        ("pkg:deb/debian/bsdutils@1:2.38-1?arch=amd64&upstream=util-linux%402.38-1",
         Product(package="util-linux", version="2.38-1")),
        ("urn:x-factory:image:web/amd64", Product(image="web/amd64")),
        (sha("web"), Product(digest=sha("web"))),
        ({"@id": "urn:x-factory:image:web", "hashes": {"sha-256": sha("web")[7:]}},
         Product(image="web", digest=sha("web"))),
        ({"@id": "urn:x-factory:image:web", "subcomponents": [{"@id": "pkg:deb/debian/zlib"}]},
         Product(image="web", package="zlib")),
        ({"identifiers": {"purl": "pkg:deb/debian/zlib"}}, Product(package="zlib")),
    ],
)  # fmt: skip
def test_product_is_a_source_package_or_an_image(tmp_path: Path, product: Any, wanted: Product) -> None:
    (one,) = read(tmp_path, document(products=[product])).statements
    assert one.products == (wanted,)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is empty"), ("<html>", "is a web page"), ("[]", "is no OpenVEX document"),
        ("{}", "is no OpenVEX document"),
        ('{"@context": "https://openvex.dev/ns/v0.2.0"}', "has no list of statements"), ("{", "cannot be read"),
        ('{"@context": "https://openvex.dev/ns", "statements": [], "statements": []}', "stands there twice"),
    ],
)  # fmt: skip
def test_document_that_is_damaged_is_an_error(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(CveError, match=said):
        read(tmp_path, value)
    with pytest.raises(CveError, match="cannot be read"):
        vex.read(tmp_path / "none.json", "none.json")
