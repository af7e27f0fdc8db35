"""Revocations: who may withdraw what, and what a compromised key can no longer say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import attested
import pytest
from attested import ALICE, BAKED_AT, NIGHTLY, POLICY, STRANGER, TESTER, Key, sha

from factory.digest import Digest
from factory.errors import ExpiredError, RevokedError, TamperedError, TrustError, UnsignedError
from factory.trust import dsse, heads, revocations
from factory.trust.facts import Ancestor
from factory.trust.policy import Policy, TrustedKey
from factory.trust.revocations import Event, KeyRevocation, Revocation, Revocations

ROOT, BOB = Key(4), Key(5)
TRUSTED = replace(
    POLICY,
    keys={
        **POLICY.keys,
        "bob": TrustedKey("bob", BOB.public, frozenset({"approver"})),
        "root": TrustedKey("root", ROOT.public, frozenset({"root"})),
    },
)
NOW = BAKED_AT + timedelta(days=1)
WEB = attested.image()


def withdrawn(digest: Digest = WEB.digest, number: int = 1, after: timedelta = timedelta(0)) -> Revocation:
    return Revocation(digest, "web", "CVE-2026-1", at=BAKED_AT + after, made_at=BAKED_AT, number=number)


def stolen(key: Key, number: int = 2, *keep: dsse.Envelope) -> KeyRevocation:
    kept = frozenset(envelope.digest for envelope in keep)
    return KeyRevocation(key.public.fingerprint, "key", "stolen", BAKED_AT, number, kept)


def as_set(*events: tuple[Event, dsse.Envelope], by: Key = ROOT) -> bytes:
    listed: dict[str, bytes] = {event.digest: envelope.raw for event, envelope in events}
    return heads.make(heads.following(heads.nothing("revocations"), listed, BAKED_AT, 14), by).raw


def signed(event: Event, key: Key = ALICE) -> tuple[Event, dsse.Envelope]:
    return event, revocations.make(event, key)


def verified(*events: tuple[Event, dsse.Envelope], by: Key = ROOT, policy: Policy = TRUSTED) -> Revocations:
    return revocations.verify(as_set(*events, by=by), policy, NOW)


@pytest.mark.parametrize("event", [withdrawn(), stolen(BOB, 7)], ids=["image", "key"])
def test_event_read_back_is_the_event_that_was_signed(event: Event) -> None:
    assert revocations.read(revocations.make(event, ALICE)) == event


def test_empty_set_revokes_nothing() -> None:
    found = verified()
    found.refuse_revoked(WEB.digest, WEB.ancestors, NOW)
    assert (found.last_number, found.compromised, found.version, found.newest) == (0, {}, 1, BAKED_AT)


def test_revoked_image_is_refused_with_reason_and_time() -> None:
    with pytest.raises(RevokedError, match=r"it was revoked from 2026-11-24T02:30:00Z on: CVE-2026-1"):
        verified(signed(withdrawn())).refuse_revoked(WEB.digest, WEB.ancestors, NOW)


@pytest.mark.parametrize("ancestor", WEB.ancestors, ids=lambda ancestor: ancestor.name)
def test_descendant_of_a_revoked_image_or_base_is_refused_naming_it(ancestor: Ancestor) -> None:
    event = replace(withdrawn(ancestor.digest), name=ancestor.name)
    with pytest.raises(RevokedError, match=f"its ancestor {ancestor.name} .{ancestor.digest}. was revoked"):
        verified(signed(event)).refuse_revoked(WEB.digest, WEB.ancestors, NOW)


def test_revocation_that_lies_ahead_holds_from_then_on() -> None:
    found = verified(signed(withdrawn(after=timedelta(days=2))))
    found.refuse_revoked(WEB.digest, (), BAKED_AT + timedelta(days=2, seconds=-1))
    with pytest.raises(RevokedError):
        found.refuse_revoked(WEB.digest, (), BAKED_AT + timedelta(days=2))


@pytest.mark.parametrize("key", [NIGHTLY, TESTER, STRANGER], ids=["builder", "verifier", "stranger"])
def test_event_by_who_may_not_revoke_refuses_the_set(key: Key) -> None:
    for event in (withdrawn(), stolen(BOB)):
        with pytest.raises(UnsignedError):
            verified(signed(event, key))


@pytest.mark.parametrize("key", [NIGHTLY, STRANGER], ids=["builder", "stranger"])
def test_set_signed_by_who_may_not_is_refused(key: Key) -> None:
    with pytest.raises(UnsignedError):
        verified(signed(withdrawn()), by=key)


def test_expired_set_and_clock_behind_it_are_refused() -> None:
    raw = as_set()
    for now in (BAKED_AT + timedelta(days=14), BAKED_AT - timedelta(seconds=1)):
        with pytest.raises(ExpiredError):
            revocations.verify(raw, TRUSTED, now)
        assert revocations.verify_unsafe_stale(raw, TRUSTED).version == 1


def test_event_newer_than_the_set_is_refused() -> None:
    for event in (withdrawn(), stolen(BOB)):
        with pytest.raises(TamperedError, match="after the head"):
            verified(signed(replace(event, made_at=BAKED_AT + timedelta(seconds=1))))


def test_event_under_another_digest_is_refused() -> None:
    event, envelope = signed(withdrawn())
    with pytest.raises(TamperedError, match="lists"):
        verified((replace(withdrawn(), digest=sha("other")), envelope))
    assert event.digest != sha("other")


def test_two_events_of_one_number_are_refused() -> None:
    with pytest.raises(TamperedError, match="one number"):
        verified(signed(withdrawn(number=2)), signed(stolen(BOB, 2)))


def test_last_number_is_over_both_kinds() -> None:
    assert verified(signed(withdrawn(number=2)), signed(stolen(BOB, 5), ROOT)).last_number == 5


# --- keys that the set itself calls compromised


def test_head_by_a_compromised_key_is_refused() -> None:
    with pytest.raises(RevokedError, match="compromised"):
        verified(signed(stolen(TESTER)), by=TESTER)


def test_revocation_by_a_compromised_key_refuses_the_set_unless_kept() -> None:
    event, envelope = signed(withdrawn(), BOB)
    with pytest.raises(RevokedError, match="compromised"):
        verified((event, envelope), signed(stolen(BOB)))
    found = verified((event, envelope), signed(stolen(BOB, 2, envelope)))
    assert found.images[WEB.digest] == event
    assert found.compromised == {BOB.public.fingerprint: frozenset({envelope.digest})}


def test_kept_envelope_with_other_bytes_counts_no_more() -> None:
    event, envelope = signed(withdrawn(), BOB)
    with pytest.raises(RevokedError):
        verified((event, dsse.add_signature(envelope, STRANGER)), signed(stolen(BOB, 2, envelope)))


def test_key_that_says_itself_that_it_is_compromised_is_believed() -> None:
    found = verified(signed(stolen(BOB), BOB))
    assert BOB.public.fingerprint in found.compromised


def test_two_keys_that_withdraw_each_other_refuse_the_set() -> None:
    with pytest.raises(RevokedError):
        verified(signed(stolen(ALICE, 1), BOB), signed(stolen(BOB, 2), ALICE))


def test_compromised_root_cannot_take_back_its_withdrawal() -> None:
    with pytest.raises(TrustError):
        verified(signed(stolen(ROOT, 1), ALICE), signed(stolen(ALICE, 2), ROOT), by=ROOT)


def test_number_or_reason_that_is_none_is_refused() -> None:
    for odd in (replace(withdrawn(), number=0), replace(withdrawn(), reason=""), replace(withdrawn(), reason="a\nb")):
        with pytest.raises(TamperedError):
            verified(signed(odd))
