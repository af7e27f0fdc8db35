"""Deploy tickets: what a good one says, and that nothing that was tampered with is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import attested
import pytest
from attested import ALICE, AUTHORITY, BAKED_AT, NIGHTLY, POLICY, STRANGER, TESTER, VERIFIED_AT, sha
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import VerificationError

from factory.digest import Digest
from factory.errors import ExpiredError, RevokedError, TamperedError, TrustError, UnsignedError, VerifyError
from factory.trust import dsse, statements, strict, ticket
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope
from factory.trust.facts import Artifact, CheckOutcome
from factory.trust.predicates import subjects_of, summary, test_result
from factory.trust.ticket import Ticket

WEB = attested.make()
API = attested.make("api")
DIGEST = attested.image().digest

Change = Callable[[dict[str, Any]], object]


def resigned(envelope: Envelope, change: Change, key: attested.Key) -> Envelope:
    """The envelope of another payload, well signed."""
    said = json.loads(envelope.payload)
    change(said)
    return dsse.sign(envelope.payload_type, strict.dumps(said), [key])


def rebound(parts: Ticket, **inputs: Digest) -> Ticket:
    """The ticket with a summary by the true verifier of just these envelopes."""
    bound = summary.Inputs(parts.provenance.digest, parts.test_result.digest, sha("web sbom"))
    said = summary.statement(
        subjects_of(attested.image()), bound._replace(**inputs), POLICY.digest, VERIFIED_AT
    )  # fmt: skip
    return replace(parts, summary=statements.signed(said, [TESTER]))


def with_provenance(change: Change, key: attested.Key = NIGHTLY) -> Ticket:
    return rebound(replace(WEB, provenance=resigned(WEB.provenance, change, key)))


def with_tests(change: Change, key: attested.Key = TESTER) -> Ticket:
    return rebound(replace(WEB, test_result=resigned(WEB.test_result, change, key)))


def with_summary(change: Change, key: attested.Key = TESTER) -> Ticket:
    return replace(WEB, summary=resigned(WEB.summary, change, key))


# --- a good ticket


def test_ticket_says_what_was_attested() -> None:
    image, vouched = attested.image(), ticket.verify(WEB, DIGEST, AUTHORITY)
    assert (vouched.name, vouched.arch, vouched.digest) == ("web", "amd64", image.digest)
    assert (vouched.bake_key, vouched.base, vouched.tree) == (image.bake_key, image.base, image.tree)
    assert vouched.ancestors == image.ancestors
    assert vouched.artifacts == image.artifacts
    assert (vouched.baked_at, vouched.verified_at, vouched.newest) == (BAKED_AT, VERIFIED_AT, VERIFIED_AT)
    assert set(vouched.checks) == set(attested.verification().checks)
    assert vouched.sbom == sha("web sbom")
    assert vouched.policy == POLICY.digest
    assert [key.name for key in vouched.signers] == ["nightly", "tester"]
    assert not vouched.development


def test_ticket_survives_its_file_byte_for_byte() -> None:
    raw = ticket.dumps([WEB, API])
    assert raw == ticket.dumps([API, WEB])
    assert ticket.loads(raw) == {WEB.digest: WEB, API.digest: API}
    assert ticket.loads(b"\n".join(reversed(raw.splitlines()))) == ticket.loads(raw)
    assert ticket.loads(b"") == {}


def test_ticket_is_a_few_kilobytes() -> None:
    assert len(ticket.dumps([WEB])) < 16 << 10


def test_ticket_of_the_same_facts_is_the_same() -> None:
    assert attested.make() == WEB


def test_renewed_ticket_keeps_provenance_and_sbom() -> None:
    later = VERIFIED_AT + timedelta(days=30)
    fewer = (CheckOutcome("factory", "boots", "passed"),)
    renewed = ticket.renew(WEB, attested.verification(verified_at=later, checks=fewer), verifier=TESTER)
    vouched = ticket.verify(renewed, DIGEST, AUTHORITY)
    assert renewed.provenance == WEB.provenance
    assert (vouched.verified_at, vouched.baked_at, vouched.sbom) == (later, BAKED_AT, sha("web sbom"))
    assert vouched.checks == fewer


def test_development_key_shows_where_nobody_else_signed() -> None:
    tester = replace(POLICY.keys["tester"], development=True)
    policy = replace(POLICY, keys={**POLICY.keys, "tester": tester}, allow_development=True)
    assert ticket.verify(WEB, DIGEST, Authority(policy)).development
    with pytest.raises(UnsignedError, match="test result .*development"):
        ticket.verify(WEB, DIGEST, Authority(replace(policy, allow_development=False)))


@pytest.mark.parametrize("outcomes", [["failed", "passed"], ["exempt", "skipped"], []])
def test_ticket_of_a_failed_verification_is_never_made(outcomes: list[str]) -> None:
    checks = tuple(CheckOutcome("web", f"test_{outcome}", outcome) for outcome in outcomes)
    failed = attested.verification(checks=checks)
    with pytest.raises(VerifyError, match="web/amd64 did not pass"):
        ticket.make(attested.bake(), failed, sha("sbom"), builder=NIGHTLY, verifier=TESTER)
    with pytest.raises(VerifyError):
        ticket.renew(WEB, failed, verifier=TESTER)


def test_ticket_of_facts_that_cannot_be_said_is_never_made() -> None:
    with pytest.raises(ValueError, match="first ancestor"):
        attested.make(base=sha("another"))
    with pytest.raises(TamperedError, match="two subjects alike"):
        attested.make(artifacts=(Artifact("raw", sha("a")), Artifact("raw", sha("b"))))
    with pytest.raises(TamperedError, match="no name"):
        attested.make("Web")


# --- who signed


@pytest.mark.parametrize(
    ("tampered", "error", "match"),
    [
        (with_provenance(lambda said: None, STRANGER), UnsignedError, "provenance of web/amd64 .*not know"),
        (with_provenance(lambda said: None, TESTER), UnsignedError, "provenance .*tester, who is no builder"),
        (with_tests(lambda said: None, NIGHTLY), UnsignedError, "test result .*nightly, who is no verifier"),
        (with_tests(lambda said: None, ALICE), UnsignedError, "alice, who is no verifier"),
        (with_summary(lambda said: None, NIGHTLY), UnsignedError, "summary .*nightly, who is no verifier"),
        (with_summary(lambda said: None, STRANGER), UnsignedError, "summary .*not know"),
    ],
    ids=["stranger", "builder-role", "verifier-role", "approver", "summary-role", "summary-stranger"],
)
def test_ticket_signed_by_the_wrong_key_is_refused(tampered: Ticket, error: type[TrustError], match: str) -> None:
    with pytest.raises(error, match=match):
        ticket.verify(tampered, DIGEST, AUTHORITY)


@pytest.mark.parametrize("part", ["provenance", "test_result", "summary"])
def test_ticket_without_a_signature_is_refused(part: str) -> None:
    envelope = getattr(WEB, part)
    bare = replace(WEB, **{part: dsse.sign(envelope.payload_type, envelope.payload, [])})
    with pytest.raises(UnsignedError, match="is not signed"):
        ticket.verify(rebound(bare) if part != "summary" else bare, DIGEST, AUTHORITY)


@pytest.mark.parametrize(
    ("name", "at", "match"), [("nightly", BAKED_AT, "provenance"), ("tester", VERIFIED_AT, "test result")]
)
def test_each_statement_is_judged_at_its_own_time(name: str, at: Any, match: str) -> None:
    def until(end: Any) -> Authority:
        return Authority(replace(POLICY, keys={**POLICY.keys, name: replace(POLICY.keys[name], not_after=end)}))

    assert ticket.verify(WEB, DIGEST, until(at)).name == "web"
    with pytest.raises(ExpiredError, match=match):
        ticket.verify(WEB, DIGEST, until(at - timedelta(seconds=1)))


def test_compromised_key_counts_only_for_what_is_kept() -> None:
    def authority(*kept: Digest) -> Authority:
        return Authority(POLICY, {TESTER.public.fingerprint: frozenset(kept)})

    assert ticket.verify(WEB, DIGEST, authority(WEB.test_result.digest, WEB.summary.digest)).name == "web"
    with pytest.raises(RevokedError, match="summary"):
        ticket.verify(WEB, DIGEST, authority(WEB.test_result.digest))


# --- what was said


def _subject_sha(said: dict[str, Any]) -> None:
    said["subject"][0]["digest"]["sha256"] = "0" * 64


TAMPERED: dict[str, tuple[Ticket, type[TrustError], str]] = {
    "ticket of another image": (API, TamperedError, "speaks of"),
    "test result of another image": (
        rebound(replace(WEB, test_result=API.test_result)), TamperedError, "test result speaks of other subjects",
    ),
    "provenance of another image": (
        rebound(replace(WEB, provenance=API.provenance)), TamperedError, "other subjects than the provenance",
    ),
    "summary of another image": (replace(WEB, summary=API.summary), TamperedError, "summary speaks of other subjects"),
    "summary of another provenance": (
        rebound(WEB, provenance=sha("another")), TamperedError, "of another provenance",
    ),
    "summary of another test result": (
        rebound(WEB, test_result=sha("another")), TamperedError, "of another test result",
    ),
    "earlier test result under a later summary": (
        replace(WEB, test_result=ticket.renew(WEB, attested.verification(verified_at=BAKED_AT), verifier=TESTER)
                .test_result), TamperedError, "of another test result",
    ),
    "kinds in each other's place": (
        replace(WEB, test_result=WEB.summary, summary=WEB.test_result), TamperedError, "the test result says",
    ),
    "signature added to the provenance": (
        replace(WEB, provenance=dsse.add_signature(WEB.provenance, STRANGER)), TamperedError, "another provenance",
    ),
    "failed check": (
        with_tests(lambda said: said["predicate"].update(
            failedTests=["web: test_x"], result="FAILED")), TrustError, "did not pass its checks",
    ),
    "failed check that is called passed": (
        with_tests(lambda said: said["predicate"].update(failedTests=["web: test_x"])), TamperedError, "its result",
    ),
    "nothing was checked": (
        with_tests(lambda said: said["predicate"].update(passedTests=[])), TamperedError, "its result",
    ),
    "summary of a failed verification": (
        with_summary(lambda said: said["predicate"].update(verificationResult="FAILED")), TamperedError, "'PASSED'",
    ),
    "summary of another resource": (
        with_summary(lambda said: said["predicate"].update(resourceUri="urn:x-factory:image:api/amd64")),
        TamperedError, "resourceUri",
    ),
    "summary that claims a higher level": (
        with_summary(lambda said: said["predicate"].update(verifiedLevels=["SLSA_BUILD_LEVEL_3"])),
        TamperedError, "verifiedLevels",
    ),
    "subject changed in one statement": (with_tests(_subject_sha), TamperedError, "other subjects"),
    "subject left out of one statement": (
        with_tests(lambda said: said["subject"].pop()), TamperedError, "other subjects",
    ),
    "native id changed in one statement": (
        with_tests(lambda said: said["subject"][3].update(uri="ami-0000000000000000")), TamperedError, "other subjects",
    ),
    "size changed in one statement": (
        with_tests(lambda said: said["subject"][1].pop("annotations")), TamperedError, "other subjects",
    ),
    "subjects in another order": (
        with_tests(lambda said: said["subject"].reverse()), TamperedError, "other subjects",
    ),
    "provenance of another name": (
        with_provenance(lambda said: said["predicate"]["buildDefinition"]["externalParameters"].update(name="api")),
        TamperedError, "is of api/amd64, but speaks of web/amd64",
    ),
    "field that is not known": (
        with_provenance(lambda said: said["predicate"].update(note="")), TamperedError, "'note' is not known",
    ),
    "field that is missing": (
        with_provenance(lambda said: said["predicate"]["runDetails"].pop("metadata")), TamperedError, "metadata",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_ticket_that_was_tampered_with_is_refused(case: str) -> None:
    tampered, error, match = TAMPERED[case]
    with pytest.raises(error, match=match) as raised:
        ticket.verify(tampered, DIGEST, AUTHORITY)
    assert type(raised.value) is error


def test_ticket_for_another_digest_is_refused() -> None:
    with pytest.raises(TamperedError, match="speaks of"):
        ticket.verify(WEB, sha("another"), AUTHORITY)


def test_wellformed_changes_pass_so_that_the_cases_above_can_fail() -> None:
    for unchanged in (with_provenance(lambda said: None), with_tests(lambda said: None), rebound(WEB)):
        assert ticket.verify(unchanged, DIGEST, AUTHORITY).name == "web"
    more = with_tests(lambda said: said["predicate"]["exemptTests"].append("web: test_x"))
    assert CheckOutcome("web", "test_x", "exempt") in ticket.verify(more, DIGEST, AUTHORITY).checks


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(ticket.dumps([WEB])) - 2), st.integers(1, 255))
def test_any_byte_changed_is_refused(place: int, flip: int) -> None:
    raw = bytearray(ticket.dumps([WEB]))
    raw[place] ^= flip
    with pytest.raises(TrustError):
        ticket.verify(ticket.loads(bytes(raw))[DIGEST], DIGEST, AUTHORITY)


# --- files of tickets


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (WEB.envelopes[:2], "verification summary of sha256:[0-9a-f]{64} is missing"),
        (WEB.envelopes[1:], "provenance of .* is missing"),
        ((*WEB.envelopes, WEB.provenance), "line 4: the provenance of .* stands there twice"),
        ((*WEB.envelopes, *with_tests(lambda said: None).envelopes[1:2]), "stands there twice"),
        ((*WEB.envelopes, attested.signed_sbom()), "line 4 is no part of a ticket"),
        ((*WEB.envelopes, dsse.sign("application/x-other", b"{}", [NIGHTLY])), "not an in-toto statement"),
    ],
    ids=["no summary", "no provenance", "line twice", "kind twice", "another kind", "another payload type"],
)
def test_file_that_is_not_whole_tickets_is_refused(lines: tuple[Envelope, ...], match: str) -> None:
    with pytest.raises(TamperedError, match=match):
        ticket.loads(b"".join(envelope.raw + b"\n" for envelope in lines))


@pytest.mark.parametrize("added", [b"\n", b"<<<<<<< ours\n", b" \n", b"{}\n", b"[]\n", b"\xff\n", b"\x00"])
def test_file_with_a_line_that_is_no_envelope_is_refused(added: bytes) -> None:
    with pytest.raises(TamperedError, match="tickets/web-amd64.jsonl, line 4"):
        ticket.loads(ticket.dumps([WEB]) + added, "tickets/web-amd64.jsonl")


def test_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(TamperedError, match="too large"):
        ticket.loads(b"x" * (ticket.MAX_BYTES + 1))
    with pytest.raises(TamperedError, match="too many lines"):
        ticket.loads(b"\n" * (ticket.MAX_LINES + 1))


def test_envelope_of_several_lines_never_reaches_a_file() -> None:
    pretty = json.dumps(json.loads(WEB.summary.raw), indent=1).encode()
    with pytest.raises(TamperedError, match="several lines"):
        ticket.dumps([replace(WEB, summary=dsse.parse(pretty))])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_at_random_are_refused_or_hold_no_ticket(raw: bytes) -> None:
    with suppress(TamperedError):
        assert ticket.loads(raw) == {}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, item in inner for found in _places(item, (*path, key)))]


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["provenance", "test_result", "summary"]), st.data())
def test_any_value_in_any_place_is_taken_or_refused_but_never_crashes(part: str, data: st.DataObject) -> None:
    envelope: Envelope = getattr(WEB, part)
    path = data.draw(st.sampled_from(_places(json.loads(envelope.payload))))
    new = data.draw(_JSON)
    changed = resigned(envelope, lambda said: _put(said, path, new), NIGHTLY if part == "provenance" else TESTER)
    parts = replace(WEB, **{part: changed})
    try:
        vouched = ticket.verify(parts if part == "summary" else rebound(parts), DIGEST, AUTHORITY)
    except TrustError:
        return
    assert vouched.digest == DIGEST
    assert vouched.name == "web"
    assert vouched.artifacts == attested.image().artifacts


def test_test_result_by_itself_can_say_that_it_failed() -> None:
    failed = attested.verification(checks=(CheckOutcome("web", "test_x", "failed"),))
    said = test_result.statement(subjects_of(attested.image()), failed)
    assert said.predicate["result"] == "FAILED"
    assert not test_result.read(said).passed


def test_documented_check_by_a_third_party_runs_as_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/attestations.md").read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "web-amd64.jsonl"
    script = script.replace("ed25519:…", str(NIGHTLY.public)).replace("trust/tickets/web-amd64.jsonl", str(file))
    one = ticket.make(
        attested.bake(), attested.verification(), sha("sbom"), builder=NIGHTLY, verifier=NIGHTLY
    )  # fmt: skip
    file.write_bytes(ticket.dumps([one]))
    exec(compile(script, "docs/attestations.md", "exec"), {})
    assert capsys.readouterr().out.split() == [statements.PROVENANCE, statements.TEST_RESULT, statements.SUMMARY]
    file.write_bytes(ticket.dumps([WEB]))
    with pytest.raises(VerificationError):
        exec(compile(script, "docs/attestations.md", "exec"), {})
