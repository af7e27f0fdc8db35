"""Heads: what is read is what was signed, and for how long it may be believed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from attested import ALICE, AUTHORITY, BAKED_AT, NIGHTLY, STRANGER, TESTER
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import ExpiredError, TamperedError, TrustError, UnsignedError
from factory.trust import dsse, heads, strict

DAY = timedelta(days=1)
HEAD = heads.following(heads.nothing("channel", "prod"), {"web/amd64": b"\x00event"}, BAKED_AT, 14)


def changed(**fields: Any) -> bytes:
    """A head, well signed, that says something else."""
    said = {**json.loads(heads.make(HEAD, ALICE).payload), **fields}
    said = {key: value for key, value in said.items() if value is not None}
    return dsse.sign(heads.PAYLOAD_TYPE, strict.dumps(said), [ALICE]).raw


def test_head_read_back_is_the_head_that_was_signed() -> None:
    envelope, head = heads.loads(heads.make(HEAD, ALICE).raw, "channel", "prod")
    assert head == HEAD
    assert (head.version, head.expires_at) == (1, BAKED_AT + 14 * DAY)
    assert [key.name for key in heads.require_signed(envelope, head, AUTHORITY)] == ["alice"]


def test_head_that_follows_is_one_version_on_and_never_older() -> None:
    later = heads.following(HEAD, {}, BAKED_AT - DAY, 14)
    assert (later.version, later.issued_at, later.events) == (2, BAKED_AT, {})


@pytest.mark.parametrize("key", [NIGHTLY, STRANGER])
def test_head_signed_by_who_may_not_is_refused(key: dsse.Signer) -> None:
    envelope = heads.make(HEAD, key)
    with pytest.raises(UnsignedError):
        heads.require_signed(envelope, HEAD, AUTHORITY)


def test_head_may_be_signed_by_a_verifier() -> None:
    assert heads.require_signed(heads.make(HEAD, TESTER), HEAD, AUTHORITY)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "revocations"},
        {"kind": "other"},
        {"name": "staging"},
        {"name": ""},
        {"name": "../prod"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"version": None},
        {"issued_at": "yesterday"},
        {"expires_at": "2026-11-24T02:30:00Z"},
        {"events": []},
        {"events": {"web/amd64": "***"}},
        {"events": {"web/amd64": 3}},
        {"more": 1},
    ],
    ids=str,
)
def test_head_that_says_what_it_must_not_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TamperedError):
        heads.loads(changed(**fields), "channel", "prod")


def test_head_of_another_channel_is_named() -> None:
    with pytest.raises(TamperedError, match="that of another: the head of channel prod"):
        heads.loads(heads.make(HEAD, ALICE).raw, "channel", "staging")


def test_head_of_another_payload_type_is_refused() -> None:
    raw = dsse.sign("application/vnd.in-toto+json", heads.make(HEAD, ALICE).payload, [ALICE]).raw
    with pytest.raises(TamperedError, match="carries"):
        heads.loads(raw, "channel", "prod")


@pytest.mark.parametrize(
    ("after", "fresh_days", "said"),
    [
        (timedelta(0), 14, None),
        (14 * DAY - timedelta(seconds=1), 14, None),
        (14 * DAY, 14, "good until"),
        (3 * DAY, 3, "good until"),  # the reader's policy is stricter than the head's own word
        (14 * DAY, 30, "good until"),
        (timedelta(seconds=-1), 14, "clock"),
    ],
)
def test_head_is_believed_for_its_time_only(after: timedelta, fresh_days: int, said: str | None) -> None:
    now = BAKED_AT + after
    if said is None:
        heads.require_fresh(HEAD, fresh_days, now)
        return
    with pytest.raises(ExpiredError, match=said):
        heads.require_fresh(HEAD, fresh_days, now)


@pytest.mark.parametrize(("days", "is_due"), [(0, False), (9, False), (10, True), (14, True), (99, True)])
def test_head_is_due_in_the_last_third_of_its_life(days: int, is_due: bool) -> None:
    assert HEAD.is_due(14, BAKED_AT + days * DAY) == is_due


def test_head_that_would_live_for_ever_ends_with_the_calendar() -> None:
    assert heads.following(HEAD, {}, BAKED_AT, 10_000_000).expires_at.year == 9999


@given(raw=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_give_a_head_or_a_refusal(raw: bytes) -> None:
    with pytest.raises(TrustError):
        heads.loads(raw, "channel", "prod")


@given(at=st.integers(0, len(heads.make(HEAD, ALICE).raw) - 1), bit=st.integers(0, 7))
def test_head_with_any_bit_flipped_never_says_something_else(at: int, bit: int) -> None:
    raw = bytearray(heads.make(HEAD, ALICE).raw)
    raw[at] ^= 1 << bit
    try:
        envelope, head = heads.loads(bytes(raw), "channel", "prod")
        heads.require_signed(envelope, head, AUTHORITY)
    except TrustError:
        return
    assert head == HEAD


def test_event_newer_than_its_head_is_refused() -> None:
    heads.require_listed_in_time(HEAD, BAKED_AT, "it")
    with pytest.raises(TamperedError, match="after the head"):
        heads.require_listed_in_time(HEAD, BAKED_AT + timedelta(seconds=1), "it")


def test_files_of_heads() -> None:
    assert HEAD.file == "trust/channels/prod.dsse"
    assert heads.nothing("revocations").file == "trust/revocations.dsse"
