"""Reading the tracker and OSV: damage is told, nothing depends on where chunks end; ranges are those of the schema."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import proc
from factory.apt.version import version_key
from factory.cve import advisory, osv, reading, severity, suites, tracker
from factory.cve.advisory import Affected, Span, spans_of, tracked
from factory.cve.reading import Stream
from factory.cve.tracker import Contents
from factory.errors import CveError
from factory.trust import policy

VERSIONS = (
    "0", "1.0-1", "1.0-1~deb12u1", "1.0-1+deb12u1", "1.0-1+b1", "1.0-2", "1.0~rc1-1", "1.0.1-1", "1.10-1", "1.9-1",
    "1:0.1-1", "2:0.1", "1.0+dfsg-1", "20250419~deb12u2", "6.1.192-2", "6.1.192+2", "3.0.22-1~deb12u2",
)  # fmt: skip
OTHER = st.text("0123456789.~+a-", min_size=1, max_size=6).filter(lambda text: text[0].isdigit() and "--" not in text)


def tracked_json(**releases: Any) -> dict[str, Any]:
    return {"openssl": {"CVE-2026-1000": {"description": "x", "releases": releases}}}


def read_tracker(value: Any, sources: tuple[str, ...] = ("openssl",)) -> Contents:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return tracker.read(io.BytesIO(raw), "tracker.json", sources, ("bookworm",))


# --- values of a stream


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.integers(-99999, 99999) | st.text(max_size=6),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
)
def test_stream_gives_what_json_does_wherever_chunks_end(value: dict[str, Any], chunk: int, indent: int | None) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_CHUNK_BYTES", chunk)
        patch.setattr(Stream._more, "__defaults__", (chunk,))
        stream = Stream(io.BytesIO(raw), "x")
        assert {key: stream.value() for key in stream.members()} == value
        stream.end()
        again = Stream(io.BytesIO(raw + b" 12 \n[3]"), "x")
        assert [again.value(), again.value(), again.value(), again.peek()] == [value, 12, [3], ""]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cut_or_flipped_file_is_an_error_or_other_data_and_never_another_exception(data: st.DataObject) -> None:
    raw = json.dumps(tracked_json(bookworm={"status": "open", "urgency": "low", "repositories": {}})).encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(CveError):
        read_tracker(raw[:cut])
    flipped = bytearray(raw)
    flipped[cut] ^= data.draw(st.integers(1, 255))
    with suppress(CveError):
        assert read_tracker(bytes(flipped)).digest != read_tracker(raw).digest


# --- the tracker


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "is empty"),
        (b"  <!doctype html><title>log in</title>", "is a web page"),
        (b"{}", "names no source package at all"),
        (b"[]", "is a list"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"openssl": {}} x', "more after its end"),
        (b'{"openssl": {}, "openssl": {}}', "stands there twice"),
        (b'{"openssl": {"CVE-2026-1000": {"releases": {}}, "CVE-2026-1000": {"releases": {}}}}', "stands there twice"),
        (b'{"openssl": {"CVE-2026-1000": {"releases": {"sid": {"x": NaN}}}}}', "NaN"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"openssl": ' + b'{"x":' * 100_000, "nested too deeply"),
        ({"id": "CVE-2026-1"}, "OSV"),
        ({"../x": {}}, "is no source package"),
        ({"openssl": {"CVE-2026-1": {}}}, "says nothing of releases"),
        ({"other": {"CVE-2026-1": []}}, "says nothing of releases"),
        ({"openssl": {"\x1b[31m": {"releases": {}}}}, "is no name of a vulnerability"),
        (tracked_json(bookworm={"status": "fixed"}), "has the status 'fixed'"),
        (tracked_json(bookworm={"status": "resolved"}), "has no fixed_version"),
        (tracked_json(bookworm={"status": "resolved", "fixed_version": "a b"}), "is no version"),
        (tracked_json(bookworm={"status": "resolved", "fixed_version": "x:1"}), "is no version"),
        (tracked_json(bookworm={"status": "open", "urgency": 1}), "is no text"),
        (tracked_json(bookworm=[]), "is no object"),
    ],
)
def test_tracker_that_is_damaged_is_refused_with_the_reason(value: Any, said: str) -> None:
    with pytest.raises(CveError) as caught:
        read_tracker(value)
    assert said in caught.value.message
    assert caught.value.message.isprintable()


def test_tracker_keeps_what_was_asked_for_and_notes_every_suite() -> None:
    found = read_tracker(
        {
            **tracked_json(
                bookworm={"status": "resolved", "fixed_version": "3.0-1", "urgency": "high**"},
                sid={"status": "open", "urgency": "low"},
            ),
            "zlib": {"CVE-2026-2": {"releases": {"trixie": {"status": "open"}}}},
        }
    )
    (one,) = found.advisories
    assert (one.id, one.package, one.suite, one.severity) == ("CVE-2026-1000", "openssl", "bookworm", "high")
    assert one.affected.has("3.0-1~deb12u1")
    assert not one.affected.has("3.0-1")
    assert found.suites == {"bookworm", "sid", "trixie"}


@pytest.mark.parametrize(
    ("said", "has", "how_bad", "undetermined"),
    [
        ({"status": "resolved", "fixed_version": "0", "urgency": "low"}, None, None, None),
        ({"status": "open", "urgency": "unimportant"}, True, "unimportant", False),
        ({"status": "open", "urgency": "not yet assigned"}, True, "unknown", False),
        ({"status": "open", "urgency": "not yet assigned", "nodsa": "Minor issue"}, True, "medium", False),
        ({"status": "open", "urgency": "end-of-life", "nodsa": "x"}, True, "unknown", False),
        ({"status": "open", "urgency": "quite bad"}, True, "unknown", False),
        ({"status": "open"}, True, "unknown", False),
        ({"status": "undetermined", "urgency": "low"}, True, "low", True),
        ({"status": "resolved", "fixed_version": "1", "urgency": "medium*"}, False, "medium", False),
    ],
)
def test_tracker_status_and_urgency(said: dict[str, Any], has: bool, how_bad: str, undetermined: bool) -> None:
    found = read_tracker(tracked_json(bookworm=said)).advisories
    if has is None:
        assert found == []
    else:
        assert (found[0].affected.has("2.0-1"), found[0].severity, found[0].undetermined) == (
            has, how_bad, undetermined,
        )  # fmt: skip


# --- versions and ranges


def dpkg_less(one: str, other: str) -> bool:
    return proc.run(["dpkg", "--compare-versions", one, "lt", other], check=False).code == 0


def test_fixed_version_is_compared_as_dpkg_does() -> None:
    for fixed in VERSIONS[1::3]:
        for version in VERSIONS[::2]:
            assert Span(fixed=fixed).has(version) == dpkg_less(version, fixed), (version, fixed)


def by_the_schema(events: list[tuple[str, str]], version: str) -> bool:
    """The evaluation that OSV's schema describes, step by step."""
    rank = {"fixed": 0, "introduced": 1, "last_affected": 2}
    ordered = sorted(events, key=lambda event: (event[1] != "0", version_key(event[1]), rank[event[0]]))
    vulnerable = False
    for kind, at in ordered:
        if kind == "introduced" and (at == "0" or version_key(version) >= version_key(at)):
            vulnerable = True
        elif (kind == "fixed" and version_key(version) >= version_key(at)) or (
            kind == "last_affected" and version_key(version) > version_key(at)
        ):
            vulnerable = False
    return vulnerable


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["introduced", "fixed", "last_affected"]), st.sampled_from(VERSIONS[1:]) | OTHER),
        max_size=5,
    ),
    st.booleans(),
    st.sampled_from(VERSIONS[1:]) | OTHER,
)
def test_spans_are_what_the_schema_says(events: list[tuple[str, str]], from_start: bool, version: str) -> None:
    events = [event for event in events if event[1] != "0"] + [("introduced", "0")] * from_start
    affected = Affected(spans_of(events))
    assert affected.has(version) == by_the_schema(events, version)
    if (fixed := affected.fixed_for(version)) is not None:
        assert version_key(version) < version_key(fixed)
        assert affected.has(version)


@pytest.mark.parametrize(
    ("text", "good"),
    [("1.0-1", True), ("1:2.3~rc1+b1", True), ("", False), ("a:1", False), ("1 2", False), ("1\n", False),
     ("9" * 300, False), ("1." + "9" * 150, False), (None, False), (1, False)],
)  # fmt: skip
def test_version_that_dpkg_could_not_order_is_none(text: object, good: bool) -> None:
    assert advisory.is_version(text) is good


@pytest.mark.parametrize(
    ("source", "version", "wanted"),
    [
        ("linux-signed-amd64", "6.1.192+2", ("linux", "6.1.192-2")),
        ("linux-signed-arm64", "6.12.9+1~bpo12+1", ("linux", "6.12.9-1~bpo12+1")),
        ("grub-efi-amd64-signed", "1+2.06+13+deb12u1", ("grub2", "2.06-13+deb12u1")),
        ("linux", "6.1.192-2", ("linux", "6.1.192-2")),
        ("linux-base", "4.12.1~deb12u1", ("linux-base", "4.12.1~deb12u1")),
    ],
)
def test_signed_copies_are_looked_up_as_what_was_signed(source: str, version: str, wanted: tuple[str, str]) -> None:
    assert tracked(source, version) == wanted


# --- severities


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (["unknown"], "unknown"), ([], "unknown"), (["unknown", "low"], "low"), (["medium", "critical"], "critical"),
        (["unimportant", "critical"], "unimportant"), (["unknown", "unimportant"], "unimportant"),
    ],
)  # fmt: skip
def test_severities_of_several_sources_come_to_the_worst_that_is_known(said: list[str], wanted: str) -> None:
    assert severity.combined(said) == wanted


def test_unknown_reaches_every_threshold_and_unimportant_none() -> None:
    for threshold in policy.SEVERITIES:
        assert severity.reaches("unknown", threshold)
        assert not severity.reaches("unimportant", threshold)
    assert [severity.reaches(word, "high") for word in policy.SEVERITIES] == [False, False, True, True]


@pytest.mark.parametrize(
    ("vector", "wanted"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "critical"),  # 9.8
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", "high"),  # 7.5
        ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H", "medium"),  # 5.5
        ("CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N", "low"),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", "critical"),  # 9.3
        ("CVSS:3.1/AV:N", "unknown"),
        ("", "unknown"),
        ("CVSS:4.0/" + "x" * 100_000, "unknown"),
    ],
)
def test_cvss_vector_becomes_a_severity(vector: str, wanted: str) -> None:
    assert severity.of_cvss([vector]) == wanted


# --- OSV


def record(**more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.0-1"}]}]
    affected = {"package": {"ecosystem": "Debian:12", "name": "openssl"}, "ranges": ranges}
    return {"id": "CVE-2026-1", "modified": "2026-01-01T00:00:00Z", "affected": [affected], **more}


def read_osv(path: Path, value: Any = None) -> Contents:
    if value is not None:
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return osv.read(path, path.name, ("openssl",), ("bookworm",))


def test_osv_says_the_same_in_every_form(tmp_path: Path) -> None:
    records = [record(id=f"CVE-2026-100{number}") for number in range(3)]
    wanted = read_osv(tmp_path / "list.json", records).advisories
    assert len(wanted) == 3
    lines = "\n".join(map(json.dumps, records)).encode()
    assert read_osv(tmp_path / "lines.jsonl", lines).advisories == wanted
    folder = tmp_path / "folder" / "below"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, one in enumerate(records):
            (folder / f"{number}.json").write_text(json.dumps(one))
            archive.writestr(f"{number}.json", json.dumps(one))
    assert read_osv(tmp_path / "folder").advisories == wanted
    assert read_osv(tmp_path / "all.zip").advisories == wanted
    assert read_osv(tmp_path / "one.json", records[0]).advisories == wanted[:1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "holds no OSV record"),
        ({"openssl": {}}, "no OSV record: it has no id"),
        ([1], "no OSV record"),
        (record(id="a b"), "is no id"),
        (record(affected={}), "is no list"),
        (record(affected=[1]), "is no package"),
        (record(affected=[{"package": {"ecosystem": "Debian:12"}}]), "without a name"),
        (record(affected=[{"package": {"ecosystem": "Debian:12", "name": "a/../b"}}]), "without a name"),
        (record(aliases=["<script>"]), "names nothing"),
        (record(severity=[{"type": "CVSS_V3"}]), "has no score"),
        (b"PK\x03\x04 and no more", "damaged zip"),
        (b'{"id": "CVE-2026-1"', "cannot be read"),
        (b"<html>", "is a web page"),
    ],
)
def test_osv_that_is_damaged_is_refused_with_the_reason(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(CveError, match=said):
        read_osv(tmp_path / "osv.json", value)


@pytest.mark.parametrize(
    "events",
    [[], [{"fixed": "1"}], [{"introduced": "0", "fixed": "1"}], [{"introduced": "a b"}], [{"begun": "1"}], [1], [{}]],
)
def test_osv_range_that_the_schema_does_not_allow_is_refused(tmp_path: Path, events: list[Any]) -> None:
    package = {"ecosystem": "Debian:12", "name": "openssl"}
    bad = record(affected=[{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}])
    with pytest.raises(CveError, match="osv.json"):
        read_osv(tmp_path / "osv.json", bad)


def test_osv_versions_limits_and_what_cannot_be_told(tmp_path: Path) -> None:
    def affected(**said: Any) -> tuple[Affected, bool]:
        package = {"ecosystem": "Debian:12", "name": "openssl"}
        (one,) = read_osv(tmp_path / "o.json", record(affected=[{"package": package, **said}])).advisories
        return one.affected, one.undetermined

    listed, _ = affected(versions=["1.0-1", "2.0-1"])
    assert [listed.has(version) for version in ("1.0-1", "1.5-1", "2.0-1")] == [True, False, True]
    events = [{"introduced": "1"}, {"limit": "2"}]
    limited, _ = affected(ranges=[{"type": "ECOSYSTEM", "events": events}])
    assert [limited.has(version) for version in ("0.9", "1.5", "2.0")] == [False, True, False]
    anything, undetermined = affected(ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}])
    assert anything.has("1.0")
    assert undetermined


def test_osv_records_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    other = {"package": {"ecosystem": "PyPI", "name": "openssl"}}
    older = {"package": {"ecosystem": "Debian:11", "name": "openssl"}, "versions": ["1"]}
    found = read_osv(
        tmp_path / "o.json", [record(withdrawn="2026-01-01T00:00:00Z"), record(affected=[other, older])]
    )  # fmt: skip
    assert (found.advisories, found.suites) == ([], {"bullseye"})


def test_osv_advisory_of_several_cves_speaks_of_each_and_joins_none(tmp_path: Path) -> None:
    found = read_osv(tmp_path / "o.json", record(id="DSA-1-1", upstream=["CVE-2026-10001", "CVE-2026-10002"]))
    assert [(one.id, one.others) for one in found.advisories] == [
        ("CVE-2026-10001", ("DSA-1-1",)), ("CVE-2026-10002", ("DSA-1-1",)),
    ]  # fmt: skip


def test_osv_severity_of_the_entry_goes_before_the_records(tmp_path: Path) -> None:
    bad = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]
    mild = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N"}]

    def of(entry: dict[str, Any], **top: Any) -> str:
        affected = {**record()["affected"][0], **entry}
        return read_osv(tmp_path / "o.json", record(affected=[affected], **top)).advisories[0].severity

    assert of({}, severity=bad) == "critical"
    assert of({"severity": mild}, severity=bad) == "low"
    assert of({"ecosystem_specific": {"urgency": "high"}}) == "high"
    assert of({"ecosystem_specific": {"urgency": "unimportant"}}, severity=bad) == "unimportant"
    assert of({"ecosystem_specific": {"urgency": "not yet assigned"}}) == "unknown"
    assert of({}, severity=[{"type": "CVSS_V3", "score": "x"}]) == "unknown"


@pytest.mark.parametrize(
    ("ecosystem", "wanted"),
    [
        ("Debian:12", (True, "bookworm")),
        ("Debian", (True, None)),
        ("Debian:99", (True, "99")),
        ("Alpine", (False, None)),
    ],
)
def test_ecosystem_names_a_suite(ecosystem: str, wanted: tuple[bool, str | None]) -> None:
    assert suites.of_ecosystem(ecosystem) == wanted
