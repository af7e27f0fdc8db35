"""in-toto statements: what is read, and everything that is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attested import NIGHTLY, TESTER, sha
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import TamperedError
from factory.trust import dsse, statements
from factory.trust.statements import PREDICATE_TYPES, Statement, Subject

GOOD = Statement(
    statements.SUMMARY,
    (
        Subject("web/amd64", sha("disk")),
        Subject("qcow2", sha("file"), size_bytes=7),
        Subject("aws", sha("disk"), "ami-1"),
    ),
    {"said": [1, "ü", {"a": None}]},
)


def plain() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(statements.dumps(GOOD))
    return found


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_statement_is_read_as_it_was_written() -> None:
    assert statements.loads(statements.dumps(GOOD)) == GOOD
    assert statements.loads(json.dumps(plain(), indent=1).encode()) == GOOD


def test_statement_is_written_as_the_standard_says() -> None:
    assert statements.dumps(Statement(statements.SBOM, (Subject("a", sha("a")),), {"b": 1})) == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"b":1},"predicateType":"https://cyclonedx.org/bom",'
        b'"subject":[{"digest":{"sha256":"%b"},"name":"a"}]}' % sha("a").removeprefix("sha256:").encode()
    )


def test_fields_that_the_standard_does_not_name_are_passed_over() -> None:
    more = plain() | {"note": 1}
    more["subject"][0] |= {"mediaType": "x", "annotations": {"colour": "red"}}
    more["subject"][0]["digest"]["sha512"] = "00"
    assert statements.loads(dumped(more)) == GOOD


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1", "no in-toto statement v1"),
        ("_type", None, "no in-toto statement v1"),
        ("predicateType", "https://example.com/mine", "not known here"),
        ("predicateType", ["https://slsa.dev/provenance/v1"], "not known here"),
        ("predicate", None, "no predicate"),
        ("predicate", [], "no predicate"),
        ("subject", [], "1 to 1024 subjects"),
        ("subject", {}, "1 to 1024 subjects"),
        ("subject", [plain()["subject"][0]] * 1025, "1 to 1024 subjects"),
        ("subject", ["web"], "not an object"),
        ("subject", plain()["subject"][:1] * 2, "two subjects alike"),
    ],
)
def test_statement_with_a_wrong_field_is_refused(key: str, value: Any, match: str) -> None:
    with pytest.raises(TamperedError, match=match):
        statements.loads(dumped(plain() | {key: value}))
    with pytest.raises(TamperedError):
        statements.loads(dumped({name: item for name, item in plain().items() if name != key}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", 1),
        ("name", "a\u202eb"),
        ("name", "a\nb"),
        ("name", "x" * 513),
        ("digest", None),
        ("digest", {}),
        ("digest", {"sha256": "abc"}),
        ("digest", {"sha256": "A" * 64}),
        ("digest", {"sha256": "0" * 64 + "\n"}),
        ("digest", {"sha256": 0}),
        ("digest", {"sha512": "0" * 128}),
        ("uri", ""),
        ("uri", 1),
        ("uri", "x" * 2049),
        ("uri", "ami-\x1b[2J"),
        ("annotations", []),
        ("annotations", {"sizeBytes": -1}),
        ("annotations", {"sizeBytes": True}),
        ("annotations", {"sizeBytes": "7"}),
    ],
)
def test_subject_that_is_not_wholly_said_is_refused(key: str, value: Any) -> None:
    changed = plain()
    changed["subject"][0][key] = value
    with pytest.raises(TamperedError, match="subject"):
        statements.loads(dumped(changed))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        statements.dumps(GOOD)[:-1],
        statements.dumps(GOOD) + b"}",
        statements.dumps(GOOD).replace(b'"a":null', b'"a":null,"a":1'),
        statements.dumps(GOOD).replace(b'"a":null', b'"a":0.5'),
        statements.dumps(GOOD).replace(b'"a":null', b'"a":NaN'),
        statements.dumps(GOOD).replace(b'"a":null', b'"a":9007199254740993'),
        statements.dumps(GOOD).replace(b'"a":null', b'"a":' + b"9" * 5000),
        statements.dumps(GOOD).replace(b'"a":null', b'"a":"\\ud800"'),
        statements.dumps(GOOD).replace(b'"a":null', b'"\\udc00":1'),
        statements.dumps(GOOD).replace(b'"web/amd64"', b'"web/\\ud800"'),
        statements.dumps(GOOD).replace(b'"a":null', b'"a":' + b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=lambda raw: repr(raw[-70:]),
)
def test_payload_that_could_be_taken_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(TamperedError):
        statements.loads(raw)


def test_pair_of_surrogates_is_one_character() -> None:
    raw = statements.dumps(GOOD).replace("ü".encode(), b"\\ud83d\\ude00")
    assert statements.loads(raw).predicate["said"][1] == "\U0001f600"


def test_payload_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(TamperedError, match="too large"):
        statements.loads(b"x" * (statements.MAX_BYTES + 1))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_at_random_are_no_statement(raw: bytes) -> None:
    with pytest.raises(TamperedError):
        statements.loads(raw)


@given(
    st.sampled_from(sorted(PREDICATE_TYPES)),
    st.lists(
        st.builds(
            Subject,
            st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=50),
            st.binary().map(lambda data: sha(data.hex())),
            st.none() | st.text("ami-0123456789", min_size=1),
            st.none() | st.integers(0, 2**53 - 1),
        ),
        min_size=1,
        unique_by=lambda subject: subject.name,
    ),
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-(2**53) + 1, 2**53 - 1) | st.none()),
)
def test_whatever_is_written_can_be_read(kind: str, subjects: list[Subject], predicate: dict[str, Any]) -> None:
    statement = Statement(kind, tuple(subjects), predicate)
    assert statements.loads(statements.dumps(statement)) == statement


# --- envelopes


def test_envelope_says_the_statement_and_bears_each_signature() -> None:
    envelope = statements.signed(GOOD, [NIGHTLY, TESTER])
    assert statements.of_envelope(dsse.parse(envelope.raw), statements.SUMMARY, "it") == GOOD
    assert dsse.verify(envelope, [NIGHTLY.public, TESTER.public]) == {
        NIGHTLY.public.fingerprint, TESTER.public.fingerprint,
    }  # fmt: skip


def test_envelope_of_another_kind_is_refused() -> None:
    with pytest.raises(TamperedError, match="it says 'https://slsa.dev/verification_summary/v1', not"):
        statements.of_envelope(statements.signed(GOOD, [NIGHTLY]), statements.SBOM, "it")
    with pytest.raises(TamperedError, match="it carries 'text/plain'"):
        statements.of_envelope(dsse.sign("text/plain", statements.dumps(GOOD), [NIGHTLY]), statements.SUMMARY, "it")


# --- times


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_time_is_read_as_it_was_written_to_the_second(moment: datetime) -> None:
    assert statements.time_of(statements.time_text(moment), "it") == moment.replace(microsecond=0)


def test_time_is_written_in_utc() -> None:
    moment = datetime(2026, 11, 24, 1, 2, 3, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert statements.time_text(moment) == "2026-11-23T23:02:03Z"
    with pytest.raises(ValueError, match="offset"):
        statements.time_text(moment.replace(tzinfo=None))


@pytest.mark.parametrize(
    "text",
    [None, 1, "", "2026-11-24", "2026-11-24T01:02:03", "2026-11-24T01:02:03+00:00", "2026-11-24T01:02:03.5Z",
     "2026-11-24T01:02:03Z\n", "2026-13-24T01:02:03Z", "2026-02-30T01:02:03Z", "2026-11-24T24:00:00Z",
     "0000-11-24T01:02:03Z", "٢٠٢٦-11-24T01:02:03Z", "2026-11-24t01:02:03z"],
)  # fmt: skip
def test_time_in_another_form_is_refused(text: object) -> None:
    with pytest.raises(TamperedError, match="it is no time"):
        statements.time_of(text, "it")
