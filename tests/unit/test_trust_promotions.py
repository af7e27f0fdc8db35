"""Promotions: how many must have approved, and what must hold when a deployer asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import attested
import pytest
from attested import ALICE, AUTHORITY, BAKED_AT, NIGHTLY, POLICY, STRANGER, TESTER, VERIFIED_AT, Key, sha
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import ExpiredError, RevokedError, TamperedError, UnsignedError
from factory.trust import dsse, heads, promotions, statements, ticket
from factory.trust.authority import Authority
from factory.trust.examined import Examined, Explained, Looked
from factory.trust.facts import CheckOutcome
from factory.trust.policy import ChannelRule, TrustedKey
from factory.trust.promotions import Promotion, Waiver

BOB = Key(5)
ALICE_AGAIN = TrustedKey("alice-again", ALICE.public, frozenset({"approver"}))
TRUSTED = Authority(
    replace(POLICY, keys={**POLICY.keys, "bob": TrustedKey("bob", BOB.public, frozenset({"approver"}))})
)
NOW = VERIFIED_AT + timedelta(hours=1)
WEB = ticket.verify(attested.make(), attested.image().digest, AUTHORITY)
PROMOTION = Promotion("prod", "web/amd64", WEB.digest, 1, VERIFIED_AT, BAKED_AT, requirements={"verified": "passed"})
TWO, NONE = ChannelRule("prod", approvals=2), ChannelRule("prod", approvals=0)
WAIVER = Waiver("no-cve:critical", "alice", "not reachable", NOW + timedelta(days=7))


def signed(promotion: Promotion = PROMOTION, by: Sequence[Key] = (ALICE, BOB)) -> dsse.Envelope:
    envelope = promotions.make(promotion, by[0])
    for key in by[1:]:
        envelope = dsse.add_signature(envelope, key)
    return envelope


def head(events: dict[str, bytes], by: Key = TESTER, **more: Any) -> bytes:
    made = heads.following(heads.nothing("channel", "prod"), events, VERIFIED_AT, 14)
    return heads.make(replace(made, **more), by).raw


def channel(events: dict[str, bytes], rule: ChannelRule = TWO) -> promotions.Channel:
    return promotions.verify(head(events), rule, TRUSTED, NOW)


@pytest.mark.parametrize(
    "promotion",
    [
        PROMOTION,
        replace(PROMOTION, number=3, previous=sha("p"), replaces=sha("r"), waivers=(WAIVER,), allow_older=True),
    ],
    ids=["first", "later"],
)
def test_promotion_read_back_is_the_promotion_that_was_signed(promotion: Promotion) -> None:
    assert promotions.read(signed(promotion)) == promotion


LOG = promotions.CatalogHead("4f" * 16, 12, sha("head"))


def test_promotion_read_back_has_the_head_of_the_log_that_was_signed() -> None:
    assert promotions.read(signed(replace(PROMOTION, log=LOG))).log == LOG
    assert promotions.read(signed()).log is None
    assert replace(PROMOTION, log=LOG).payload_digest != PROMOTION.payload_digest


def test_approver_with_another_catalog_finds_the_same_promotion() -> None:
    assert replace(PROMOTION, log=LOG) == replace(PROMOTION, log=replace(LOG, catalog="ab" * 16)) == PROMOTION


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"id": "a", "length": 1},
        {"id": "", "length": 1, "digest": sha("h")},
        {"id": "a", "length": 0, "digest": sha("h")},
        {"id": "a", "length": True, "digest": sha("h")},
        {"id": "a", "length": 1, "digest": "h"},
        {"id": "a", "length": 1, "digest": sha("h"), "more": 1},
    ],
    ids=str,
)
def test_promotion_with_a_head_of_the_log_that_is_none_is_refused(said: Any) -> None:
    statement = PROMOTION.statement()
    odd = replace(statement, predicate={**statement.predicate, "catalog": said})
    with pytest.raises(TamperedError, match="catalog"):
        promotions.read(statements.signed(odd, [ALICE]))


def test_channel_points_at_what_was_approved() -> None:
    found = channel({"web/amd64": signed().raw})
    assert found.promotions["web/amd64"] == PROMOTION
    assert found.promotions["web/amd64"].approvers == ("alice", "bob")
    assert (found.name, found.version, found.newest, list(found.promotions)) == ("prod", 1, VERIFIED_AT, ["web/amd64"])
    assert found.promotions.get("api/amd64") is None


@pytest.mark.parametrize(
    "by",
    [[ALICE], [ALICE, ALICE], [ALICE, TESTER], [ALICE, NIGHTLY], [ALICE, STRANGER], [TESTER, STRANGER]],
    ids=["one", "the same twice", "a verifier", "a builder", "a stranger", "none"],
)
def test_promotion_with_too_few_approvals_is_refused(by: list[Key]) -> None:
    with pytest.raises(UnsignedError, match="needs 2"):
        channel({"web/amd64": signed(by=by).raw}).promotions["web/amd64"]


def test_one_key_under_two_names_is_one_approver() -> None:
    twice = Authority(replace(POLICY, keys={**POLICY.keys, "alice-again": ALICE_AGAIN}))
    with pytest.raises(UnsignedError):
        promotions.verify_event(signed(by=[ALICE, ALICE]).raw, TWO, twice)


@pytest.mark.parametrize(("key", "counts"), [(TESTER, True), (ALICE, True), (NIGHTLY, False), (STRANGER, False)])
def test_channel_without_approvals_takes_a_verifier_or_an_approver(key: Key, counts: bool) -> None:
    found = channel({"web/amd64": signed(by=[key]).raw}, NONE)
    if counts:
        assert found.promotions["web/amd64"].digest == WEB.digest
        return
    with pytest.raises(UnsignedError):
        found.promotions["web/amd64"]


@pytest.mark.parametrize("rule", [NONE, ChannelRule("prod", approvals=1)])
def test_waiver_takes_an_approver_in_every_channel(rule: ChannelRule) -> None:
    waived = replace(PROMOTION, waivers=(WAIVER,))
    with pytest.raises(UnsignedError, match="is no approver"):
        promotions.verify_event(signed(waived, [TESTER]).raw, rule, TRUSTED)
    assert promotions.approvers(signed(waived, [TESTER]), waived, rule, TRUSTED) == ()
    assert promotions.verify_event(signed(waived, [TESTER, ALICE]).raw, rule, TRUSTED).approvers == ("alice",)


def test_only_signatures_that_count_are_carried_on() -> None:
    junk = [dsse.Signature(None, bytes([number])) for number in range(20)]
    envelope = dsse.only(signed(), [*junk, *signed(by=[STRANGER, ALICE, TESTER, BOB]).signatures])
    kept = promotions.only_counting(envelope, PROMOTION, TWO, TRUSTED)
    assert [item.keyid for item in kept.signatures] == [ALICE.public.fingerprint, BOB.public.fingerprint]
    assert promotions.verify_event(kept.raw, TWO, TRUSTED) == PROMOTION


def test_void_promotion_refuses_its_own_image_and_no_other() -> None:
    api = replace(PROMOTION, image="api/amd64", digest=sha("api"))
    found = channel({"web/amd64": signed().raw, "api/amd64": signed(api, [ALICE]).raw})
    assert found.promotions["web/amd64"].digest == WEB.digest
    with pytest.raises(UnsignedError):
        found.promotions["api/amd64"]


def test_promotion_by_a_compromised_key_is_void_unless_kept() -> None:
    envelope = signed()
    stolen = Authority(TRUSTED.policy, {BOB.public.fingerprint: frozenset()})
    with pytest.raises(RevokedError):
        promotions.verify_event(envelope.raw, TWO, stolen)
    kept = Authority(TRUSTED.policy, {BOB.public.fingerprint: frozenset({envelope.digest})})
    assert promotions.verify_event(envelope.raw, TWO, kept) == PROMOTION


def test_promotion_to_another_channel_is_refused() -> None:
    other = replace(PROMOTION, channel="staging")
    with pytest.raises(TamperedError, match="staging"):
        channel({"web/amd64": signed(other).raw}).promotions["web/amd64"]


def test_promotion_of_another_image_is_refused() -> None:
    with pytest.raises(TamperedError, match="lists"):
        channel({"api/amd64": signed().raw}).promotions["api/amd64"]


def test_promotion_newer_than_the_head_is_refused() -> None:
    later = replace(PROMOTION, made_at=VERIFIED_AT + timedelta(seconds=1))
    with pytest.raises(TamperedError, match="after the head"):
        channel({"web/amd64": signed(later).raw}).promotions["web/amd64"]


@pytest.mark.parametrize("image", ["web", "web/amd64/x", "../x/amd64", "Web/amd64"])
def test_promotion_of_what_is_no_name_is_refused(image: str) -> None:
    with pytest.raises(TamperedError):
        promotions.read(signed(replace(PROMOTION, image=image)))


def test_head_that_is_stale_or_ahead_is_refused() -> None:
    raw = head({})
    for now in (VERIFIED_AT + timedelta(days=14), VERIFIED_AT - timedelta(seconds=1)):
        with pytest.raises(ExpiredError):
            promotions.verify(raw, TWO, TRUSTED, now)


# --- what must hold


def judged(rule: ChannelRule, promotion: Promotion = PROMOTION, image: ticket.Vouched = WEB) -> None:
    promotions.judge(promotion, rule, image, NOW)


def rule(*requires: str, **more: Any) -> ChannelRule:
    return ChannelRule("prod", requires=requires, **more)


def test_verified_is_proven_by_the_ticket_alone() -> None:
    judged(rule("verified"), replace(PROMOTION, requirements={}))


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [(["passed"], None), (["passed", "passed"], None), (["passed", "skipped"], "skipped"), (["exempt"], "exempt"),
     ([], "was not run")],
)  # fmt: skip
def test_check_that_is_required_must_have_passed(outcomes: list[str], said: str | None) -> None:
    image = replace(WEB, checks=tuple(CheckOutcome("web", "test_tls", outcome) for outcome in outcomes))
    lying = replace(PROMOTION, requirements={"check:test_tls": "passed"})
    if said is None:
        judged(rule("check:test_tls"), lying, image)
        return
    with pytest.raises(UnsignedError, match=said):
        judged(rule("check:test_tls"), lying, image)


EXAMINED = Examined(
    "bookworm", sha("packages"), (Looked("tracker", "tracker.json", sha("data"), VERIFIED_AT - timedelta(days=1)),),
    (sha("vex"),), (Explained("CVE-2026-1", "zlib", "alice (security)", NOW + timedelta(days=3)),),
)  # fmt: skip
FREE = replace(PROMOTION, requirements={"no-cve:critical": "passed"}, cve=EXAMINED)


def test_no_cve_is_what_the_promotion_says_signed() -> None:
    judged(rule("no-cve:critical"), FREE)
    for said in ({}, {"no-cve:high": "passed"}, {"no-cve:critical": "waived"}):
        with pytest.raises(UnsignedError, match="free of critical CVEs"):
            judged(rule("no-cve:critical"), replace(FREE, requirements=said))


@pytest.mark.parametrize(
    "looked",
    [
        None,
        replace(EXAMINED, data=()),
        replace(EXAMINED, data=(replace(EXAMINED.data[0], as_of=VERIFIED_AT - timedelta(days=7, seconds=1)),)),
        replace(EXAMINED, data=(*EXAMINED.data, replace(EXAMINED.data[0], as_of=VERIFIED_AT - timedelta(days=30)))),
    ],
    ids=["nothing said", "no data", "old data", "one of two old"],
)
def test_no_cve_without_fresh_data_counts_for_nothing(looked: Examined | None) -> None:
    with pytest.raises(UnsignedError, match="free of critical CVEs"):
        judged(rule("no-cve:critical"), replace(FREE, cve=looked))


def test_no_cve_ends_with_the_first_explanation() -> None:
    rule_ = rule("no-cve:critical")
    promotions.judge(FREE, rule_, WEB, NOW + timedelta(days=3) - timedelta(seconds=1))
    with pytest.raises(ExpiredError, match="what explained its CVEs away ended"):
        promotions.judge(FREE, rule_, WEB, NOW + timedelta(days=3))
    promotions.judge(FREE, rule("verified"), WEB, NOW + timedelta(days=3))


def test_what_was_examined_is_signed_and_read_back() -> None:
    assert promotions.read(signed(FREE)).cve == EXAMINED
    assert promotions.read(signed(PROMOTION)).cve is None
    assert "cve" not in PROMOTION.statement().predicate


@pytest.mark.parametrize(
    "change",
    [
        {"suite": ""},
        {"packages": "sha256:1"},
        {"data": [{"kind": "tracker", "name": "x", "digest": sha("x"), "as_of": "yesterday"}]},
        {"data": [{"kind": "tracker", "name": "x", "digest": sha("x")}]},
        {"data": {}},
        {"vex": ["x"]},
        {"vex": None},
        {"explained": [{"id": "CVE-1", "package": "zlib", "owner": "", "until": "2026-12-31T00:00:00Z"}]},
        {"more": 1},
    ],
)
def test_what_was_examined_is_read_strictly(change: dict[str, Any]) -> None:
    statement = FREE.statement()
    said = {**statement.predicate, "cve": {**EXAMINED.plain(), **change}}
    with pytest.raises(TamperedError):
        promotions.read(statements.signed(replace(statement, predicate=said), [ALICE]))


def test_waiver_lets_pass_until_it_ends() -> None:
    waived = replace(PROMOTION, waivers=(WAIVER,))
    judged(rule("no-cve:critical"), waived)
    with pytest.raises(ExpiredError, match="waiver of no-cve:critical by alice ended"):
        promotions.judge(waived, rule("no-cve:critical"), WEB, WAIVER.expires_at)
    with pytest.raises(UnsignedError):
        judged(rule("no-cve:critical", "no-cve:high"), waived)


@pytest.mark.parametrize(("days", "fits"), [(1, True), (29, True), (30, True), (31, False)])
def test_image_older_than_the_rule_allows_is_refused(days: int, fits: bool) -> None:
    now = BAKED_AT + timedelta(days=days)
    if fits:
        promotions.judge(PROMOTION, rule(max_age_days=30), WEB, now)
        return
    with pytest.raises(ExpiredError, match="more than 30 days ago"):
        promotions.judge(PROMOTION, rule(max_age_days=30), WEB, now)


def test_results_leave_out_what_is_neither_met_nor_waived() -> None:
    wanted = rule("verified", "no-cve:critical", "check:test_something_of_some_length[3]", "check:none")
    assert promotions.results(wanted, WEB, (WAIVER,)) == {
        "verified": "passed",
        "no-cve:critical": "waived",
        "check:test_something_of_some_length[3]": "passed",
    }


@given(at=st.integers(0, len(signed().raw) - 1), bit=st.integers(0, 7))
def test_promotion_with_any_bit_flipped_is_refused_or_the_same(at: int, bit: int) -> None:
    raw = bytearray(signed().raw)
    raw[at] ^= 1 << bit
    try:
        found = promotions.verify_event(bytes(raw), TWO, TRUSTED)
    except (TamperedError, UnsignedError):
        return
    assert found == PROMOTION
