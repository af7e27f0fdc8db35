"""Whether the one judgement says yes only where every paper says so, in whatever way they are put together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import attested
import pytest
from attested import ALICE, AUTHORITY, NIGHTLY, POLICY, STRANGER, TESTER, VERIFIED_AT, Key, sha
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import ExpiredError, RevokedError, TamperedError, TrustError, UnsignedError
from factory.model import LockedImage
from factory.trust import heads, judgement, promotions, revocations, ticket
from factory.trust.heads import Head
from factory.trust.judgement import Papers
from factory.trust.policy import ChannelRule, TrustedKey
from factory.trust.promotions import Promotion
from factory.trust.revocations import Event, KeyRevocation, Revocation

NOW = VERIFIED_AT + timedelta(hours=1)
BOB = Key(4)
RULES = replace(
    POLICY,
    keys={**POLICY.keys, "bob": TrustedKey("bob", BOB.public, frozenset({"approver"}))},
    channels={"prod": ChannelRule("prod", 2), "dev": ChannelRule("dev", 0)},
)
FACTS = attested.image()
TICKETS = ticket.dumps([attested.make()])
LOCKED = LockedImage(
    "web", "amd64", FACTS.digest, FACTS.bake_key, FACTS.base, FACTS.tree,
    artifacts={item.place: item.native for item in FACTS.artifacts},
)  # fmt: skip


def revoked(*events: Event, by: Key = ALICE, **more: Any) -> bytes:
    listed: dict[str, bytes] = {event.digest: revocations.make(event, by).raw for event in events}
    issued = NOW - timedelta(minutes=1)
    head = Head(heads.REVOCATIONS, "", 1, issued, issued + timedelta(days=14), listed)
    return heads.make(replace(head, **more), TESTER).raw


def promoted(*by: Key, channel: str = "prod", **more: Any) -> bytes:
    from factory.trust import dsse

    made_at = NOW - timedelta(minutes=2)
    promotion = Promotion(channel, "web/amd64", FACTS.digest, 1, made_at, attested.BAKED_AT)
    envelope = promotions.make(replace(promotion, **more), by[0])
    for key in by[1:]:
        envelope = dsse.add_signature(envelope, key)
    issued = NOW - timedelta(minutes=1)
    head = Head(heads.CHANNEL, channel, 1, issued, issued + timedelta(days=14), {"web/amd64": envelope.raw})
    return heads.make(head, TESTER).raw


PAPERS = Papers("web", "amd64", LOCKED, TICKETS, revoked())


def judge(papers: Papers = PAPERS, **more: Any) -> judgement.Verdict:
    return judgement.judge(papers, RULES, more.pop("now", NOW), **more)


def test_good_papers_give_the_one_answer() -> None:
    verdict = judge()
    assert verdict.image == ticket.verify(attested.make(), FACTS.digest, AUTHORITY)
    assert (verdict.channel, verdict.head, verdict.development) == (None, None, False)
    assert verdict.artifact.place == "qcow2"


def test_every_missing_paper_has_its_own_words() -> None:
    for papers, said in (
        (replace(PAPERS, tickets=None), "has no deploy ticket"),
        (replace(PAPERS, revocations=None), "no signed set of revocations"),
        (replace(PAPERS, locked=None), "does not stand in images.lock"),
        (replace(PAPERS, tickets=b""), "nothing is signed for"),
    ):
        with pytest.raises(UnsignedError, match=said) as caught:
            judge(papers)
        assert caught.value.where
    with pytest.raises(UnsignedError, match="nothing was ever promoted to prod"):
        judge(channel="prod")


def test_channel_alone_is_enough_without_the_lock() -> None:
    verdict = judge(replace(PAPERS, locked=None, channel=promoted(ALICE, BOB)), channel="prod")
    assert verdict.image.digest == FACTS.digest
    assert verdict.head is not None
    assert verdict.head.promotions["web/amd64"].approvers == ("alice", "bob")


def test_lock_that_names_another_digest_is_no_matter_of_the_channel() -> None:
    """What the lock says of one digest is not held against another."""
    other = replace(LOCKED, digest=sha("newer"), tree=sha("newer tree"))
    verdict = judge(replace(PAPERS, locked=other, channel=promoted(ALICE, BOB)), channel="prod")
    assert verdict.image.digest == FACTS.digest
    with pytest.raises(UnsignedError):
        judge(replace(PAPERS, locked=other))


def test_channel_does_not_excuse_a_lock_that_was_edited() -> None:
    edited = replace(LOCKED, artifacts={"qcow2": sha("evil")})
    with pytest.raises(TamperedError, match="its qcow2 artifact"):
        judge(replace(PAPERS, locked=edited, channel=promoted(ALICE, BOB)), channel="prod")


def test_head_is_not_looked_at_where_no_channel_is_asked_for() -> None:
    judge(replace(PAPERS, channel=b"nonsense"))


def test_every_ancestor_is_looked_up() -> None:
    at = NOW - timedelta(hours=1)
    for ancestor in FACTS.ancestors:
        event = Revocation(ancestor.digest, ancestor.name, "CVE", at, at, 1)
        with pytest.raises(RevokedError, match=f"its ancestor {ancestor.name}"):
            judge(replace(PAPERS, revocations=revoked(event)))


def test_revocation_that_lies_ahead_begins_at_its_second() -> None:
    at = NOW + timedelta(days=1)
    event = Revocation(FACTS.digest, "web", "CVE", at, NOW - timedelta(hours=1), 1)
    papers = replace(PAPERS, revocations=revoked(event))
    judge(papers, now=at - timedelta(seconds=1))
    with pytest.raises(RevokedError):
        judge(papers, now=at)


def test_clock_may_stand_at_the_newest_statement_not_before() -> None:
    issued = NOW - timedelta(minutes=1)
    judge(now=issued)
    with pytest.raises(ExpiredError, match="clock says"):
        judge(now=issued - timedelta(seconds=1))
    papers = replace(PAPERS, revocations=revoked(issued_at=VERIFIED_AT - timedelta(hours=1)))
    judge(papers, now=VERIFIED_AT)
    with pytest.raises(ExpiredError, match="web/amd64 was spoken for"):
        judge(papers, now=VERIFIED_AT - timedelta(seconds=1))


def test_compromised_approver_leaves_too_few() -> None:
    papers = replace(PAPERS, channel=promoted(ALICE, BOB))
    judge(papers, channel="prod")
    event = KeyRevocation(BOB.public.fingerprint, "bob", "stolen", NOW - timedelta(hours=1), 1)
    with pytest.raises(RevokedError, match="bob, a key that was compromised"):
        judge(replace(papers, revocations=revoked(event)), channel="prod")


def test_promotion_that_only_a_development_key_makes_enough_is_told() -> None:
    development = Key(7)
    key = TrustedKey("dev", development.public, frozenset({"approver"}), development=True)
    rules = replace(RULES, keys={**RULES.keys, "dev": key}, allow_development=True)
    for signers, told in (((ALICE, development), True), ((ALICE, BOB, development), False)):
        papers = replace(PAPERS, channel=promoted(*signers))
        assert judgement.judge(papers, rules, NOW, channel="prod").development is told
    papers = replace(PAPERS, channel=promoted(development, channel="dev"))
    assert judgement.judge(papers, rules, NOW, channel="dev").development is True


def test_what_the_lock_says_cannot_play_tricks_on_a_terminal() -> None:
    with pytest.raises(TamperedError) as caught:
        judge(replace(PAPERS, locked=replace(LOCKED, artifacts={"\x1b]0;x\x07": "a\nhint: all is well"})))
    assert caught.value.message.isprintable()
    with pytest.raises(TrustError) as refused:
        judge(channel="\x1b[2J")
    assert refused.value.message.isprintable()


def test_declared_counts_only_what_the_deployers_people_signed() -> None:
    at = NOW - timedelta(hours=1)
    event = KeyRevocation(BOB.public.fingerprint, "bob", "stolen", at, 1, frozenset({sha("kept")}))
    assert revocations.declared(revoked(event), RULES) == {BOB.public.fingerprint: {sha("kept")}}
    assert revocations.declared(revoked(event, by=STRANGER), RULES) == {}
    assert revocations.declared(revoked(event, by=NIGHTLY), RULES) == {}
    assert revocations.declared(revoked(Revocation(sha("x"), "x", "CVE", at, at, 1)), RULES) == {}
    with pytest.raises(TamperedError):
        revocations.declared(promoted(ALICE), RULES)


@given(
    signed=st.sets(st.sampled_from([ALICE, BOB, STRANGER, TESTER]), min_size=1),
    stolen=st.sets(st.sampled_from([ALICE, BOB, NIGHTLY, STRANGER])),
    withdrawn=st.sets(st.sampled_from([FACTS.digest, FACTS.ancestors[-1].digest, sha("x")])),
    days=st.integers(-1, 20),
)
def test_yes_only_where_everything_says_yes(signed: set[Key], stolen: set[Key], withdrawn: set[Any], days: int) -> None:
    made_at = NOW - timedelta(minutes=5)
    events: list[Event] = [
        KeyRevocation(key.public.fingerprint, f"key-{key.number}", "stolen", made_at, number)
        for number, key in enumerate(sorted(stolen, key=lambda key: key.number), 1)
    ]
    events += [Revocation(one, "x", "CVE", made_at, made_at, 10 + n) for n, one in enumerate(sorted(withdrawn))]
    root = Key(8)
    rules = replace(RULES, keys={**RULES.keys, "root": TrustedKey("root", root.public, frozenset({"root"}))})
    papers = replace(PAPERS, revocations=revoked(*events, by=root), channel=promoted(*sorted(signed, key=_number)))
    good = {ALICE, BOB} <= signed and not stolen & {ALICE, BOB, NIGHTLY} and withdrawn <= {sha("x")} and 0 <= days < 14
    try:
        judgement.judge(papers, rules, NOW + timedelta(days=days), channel="prod")
    except TrustError:
        assert not good
    else:
        assert good


def _number(key: Key) -> int:
    return key.number
