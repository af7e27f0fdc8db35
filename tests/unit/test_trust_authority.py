"""Whose signature counts, and what is said where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.digest import Digest
from factory.errors import ExpiredError, RevokedError, TrustError, UnsignedError
from factory.trust import dsse, keys
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope, Signature
from factory.trust.policy import ROLES, Policy, TrustedKey

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KIND = "application/x-test"
WHAT = "web/amd64's provenance"


@dataclass(frozen=True)
class _Key:
    """A signer of its own: what a key file is to the product."""

    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @property
    def public(self) -> keys.PublicKey:
        return keys.from_cryptography(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        return self.private.sign(message, ec.ECDSA(SHA256()))


def _ed(number: int) -> _Key:
    return _Key(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


ALICE, BOB, NIGHTLY, STRANGER = _ed(1), _ed(2), _ed(3), _ed(9)
CAROL = _Key(ec.derive_private_key(4, ec.SECP256R1()))


def _trusted(name: str, key: _Key, *roles: str, **more: object) -> TrustedKey:
    return replace(TrustedKey(name, key.public, frozenset(roles)), **more)  # type: ignore[arg-type]


def _authority(*trusted: TrustedKey, **more: object) -> Authority:
    policy = Policy(1, Digest("sha256:" + "0" * 64), {key.name: key for key in trusted})
    return Authority(replace(policy, **more))  # type: ignore[arg-type]


PEOPLE = (_trusted("alice", ALICE, "approver"), _trusted("bob", BOB, "approver", "root"),
          _trusted("carol", CAROL, "approver"), _trusted("nightly", NIGHTLY, "builder", "verifier"))  # fmt: skip


def _signed(*signers: _Key, payload: bytes = b"it") -> Envelope:
    return dsse.sign(KIND, payload, signers)


def _without_ids(envelope: Envelope) -> Envelope:
    return replace(envelope, signatures=tuple(replace(each, keyid=None) for each in envelope.signatures))


def _refused(authority: Authority, envelope: Envelope, *roles: str, threshold: int = 1) -> TrustError:
    with pytest.raises(TrustError) as raised:
        authority.require(envelope, roles, NOW, WHAT, threshold=threshold)
    assert raised.value.hint
    return raised.value


# --- who counts


def test_signature_by_a_key_with_the_role_counts() -> None:
    found = _authority(*PEOPLE).require(_signed(NIGHTLY), ["builder"], NOW, WHAT)
    assert [key.name for key in found] == ["nightly"]


def test_signers_are_sorted_by_name_and_only_those_with_a_role() -> None:
    found = _authority(*PEOPLE).signers(_signed(NIGHTLY, CAROL, BOB, ALICE), ["approver"], NOW)
    assert [key.name for key in found] == ["alice", "bob", "carol"]


def test_signature_without_a_keyid_counts() -> None:
    assert _authority(*PEOPLE).require(_without_ids(_signed(ALICE)), ["approver"], NOW, WHAT)


def test_signature_of_other_bytes_does_not_count() -> None:
    moved = replace(_signed(ALICE), payload=b"other")
    error = _refused(_authority(*PEOPLE), moved, "approver")
    assert isinstance(error, UnsignedError)
    assert "said to be alice's, which is not" in error.message


def test_signature_under_another_type_does_not_count() -> None:
    assert isinstance(
        _refused(_authority(*PEOPLE), replace(_signed(ALICE), payload_type="other"), "approver"), UnsignedError
    )


@pytest.mark.parametrize(
    ("after", "counts"),
    [
        (timedelta(seconds=-1), False),
        (timedelta(0), True),
        (timedelta(days=9), True),
        (timedelta(days=9, seconds=1), False),
    ],
)
def test_window_holds_both_its_ends(after: timedelta, counts: bool) -> None:
    key = _trusted("alice", ALICE, "approver", not_before=NOW, not_after=NOW + timedelta(days=9))
    assert bool(_authority(key).signers(_signed(ALICE), ["approver"], NOW + after)) is counts


def test_development_key_counts_only_where_it_is_allowed() -> None:
    key = _trusted("development-1", ALICE, *ROLES, development=True)
    assert _authority(key, allow_development=True).signers(_signed(ALICE), ["root"], NOW)
    error = _refused(_authority(key), _signed(ALICE), "root")
    assert isinstance(error, UnsignedError)
    assert "development-1, a development key, which the policy does not allow" in error.message


def test_compromised_key_counts_only_on_the_envelopes_that_are_kept() -> None:
    kept, other = _signed(ALICE), _signed(ALICE, payload=b"backdated")
    plain = _authority(*PEOPLE)
    authority = replace(plain, compromised={ALICE.public.fingerprint: frozenset({kept.digest})})
    assert authority.require(kept, ["approver"], NOW, WHAT)
    error = _refused(authority, other, "approver")
    assert isinstance(error, RevokedError)
    assert "is signed by alice, a key that was compromised" in error.message
    assert authority.require(_signed(ALICE, BOB, payload=b"backdated"), ["approver"], NOW, WHAT)[0].name == "bob"


def test_kept_envelope_with_one_more_signature_is_another_envelope() -> None:
    kept = _signed(ALICE)
    authority = replace(_authority(*PEOPLE), compromised={ALICE.public.fingerprint: frozenset({kept.digest})})
    added = dsse.add_signature(kept, NIGHTLY)
    assert authority.signers(kept, ["approver"], NOW)
    assert not authority.signers(added, ["approver"], NOW)


def test_kept_envelope_of_a_compromised_key_still_needs_its_window() -> None:
    envelope = _signed(ALICE)
    key = _trusted("alice", ALICE, "approver", not_after=NOW - timedelta(days=1))
    authority = replace(_authority(key), compromised={ALICE.public.fingerprint: frozenset({envelope.digest})})
    assert isinstance(_refused(authority, envelope, "approver"), ExpiredError)


# --- what is said


@pytest.mark.parametrize(
    ("envelope", "roles", "kind", "said"),
    [
        (_signed(), ["builder"], UnsignedError, "web/amd64's provenance is not signed"),
        (_signed(ALICE), ["verifier"], UnsignedError, "is signed by alice, who is no verifier (roles: approver)"),
        (_signed(STRANGER), ["builder"], UnsignedError,
         f"is signed by a key that the policy does not know ({STRANGER.public.fingerprint})"),
        (_without_ids(_signed(STRANGER)), ["builder"], UnsignedError, "a signature that no key of the policy made"),
        (replace(_signed(), signatures=(Signature("x\x1b[31m" * 99, b""),)), ["builder"], UnsignedError, "'x\\x1b[31m"),
    ],
)  # fmt: skip
def test_refusal_says_which_signature_does_not_count(
    envelope: Envelope, roles: Sequence[str], kind: type[TrustError], said: str
) -> None:
    error = _refused(_authority(*PEOPLE), envelope, *roles)
    assert type(error) is kind
    assert error.message.startswith(WHAT)
    assert said in error.message
    assert error.message.isprintable()


def test_refusal_names_the_end_of_a_window() -> None:
    key = _trusted("nightly", NIGHTLY, "builder", not_after=datetime(2026, 10, 1, tzinfo=UTC))
    error = _refused(_authority(key), _signed(NIGHTLY), "builder")
    assert isinstance(error, ExpiredError)
    assert "web/amd64's provenance is signed by nightly, whose window ended 2026-10-01" in error.message


def test_refusal_names_the_beginning_of_a_window() -> None:
    key = _trusted("nightly", NIGHTLY, "builder", not_before=datetime(2026, 12, 1, 12, tzinfo=UTC))
    error = _refused(_authority(key), _signed(NIGHTLY), "builder")
    assert isinstance(error, ExpiredError)
    assert "whose window begins 2026-12-01T12:00:00Z" in error.message


def test_refusal_counts_the_approvers() -> None:
    error = _refused(_authority(*PEOPLE), _signed(ALICE, STRANGER), "approver", threshold=2)
    assert "needs 2 approvers, has 1 (alice)" in error.message
    assert "does not know" in error.message
    assert "needs 2 approvers, has none" in _refused(_authority(*PEOPLE), _signed(), "approver", threshold=2).message


def test_refusal_tells_the_worst_first_and_not_everything() -> None:
    key = _trusted("alice", ALICE, "builder", not_after=NOW - timedelta(days=1))
    strangers = [_ed(number) for number in range(20, 40)]
    authority = replace(_authority(key, *PEOPLE[1:]), compromised={BOB.public.fingerprint: frozenset()})
    error = _refused(authority, _signed(*strangers, ALICE, BOB), "builder")
    assert isinstance(error, RevokedError)
    assert error.message.index("bob") < error.message.index("alice") < error.message.index("does not know")
    assert "and 18 more signatures" in error.message


@pytest.mark.parametrize("threshold", [0, -1])
def test_threshold_of_nothing_still_needs_a_signature(threshold: int) -> None:
    _refused(_authority(*PEOPLE), _signed(), "approver", threshold=threshold)
    _refused(_authority(*PEOPLE), _signed(STRANGER), "approver", threshold=threshold)


# --- what holds always

_MAKERS = st.sampled_from([ALICE, BOB, CAROL, NIGHTLY, STRANGER])


@st.composite
def _envelopes(draw: st.DrawFn) -> Envelope:
    """An envelope with signatures by anybody, several by one key, under any id or none."""
    made = []
    for key in draw(st.lists(_MAKERS, max_size=6)):
        (signature,) = _signed(key).signatures
        keyid = draw(st.sampled_from([signature.keyid, None, "other"]))
        made.append(replace(signature, keyid=keyid))
    return replace(_signed(), signatures=tuple(made))


@settings(max_examples=60, deadline=None)
@given(_envelopes(), st.integers(1, 4))
def test_threshold_is_never_reached_by_one_key_many_times(envelope: Envelope, threshold: int) -> None:
    twice = [replace(key, name=f"{key.name}-again") for key in PEOPLE]  # even were a policy to name a key twice
    authority = _authority(*PEOPLE, *twice)
    makers = {
        key.public.fingerprint
        for key in (ALICE, BOB, CAROL)
        for signature in envelope.signatures
        if signature.keyid in (None, key.public.fingerprint) and key.public.verify(signature.sig, dsse.pae(KIND, b"it"))
    }
    try:
        counted = authority.require(envelope, ["approver"], NOW, WHAT, threshold=threshold)
    except UnsignedError:
        assert len(makers) < threshold
    else:
        assert {key.public.fingerprint for key in counted} == makers
        assert len(counted) == len(makers) >= threshold


@settings(max_examples=40, deadline=None)
@given(_envelopes(), st.randoms())
def test_order_of_signatures_does_not_matter(envelope: Envelope, random: object) -> None:
    shuffled = list(envelope.signatures)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    authority = _authority(*PEOPLE)
    other = replace(envelope, signatures=tuple(shuffled))
    assert authority.signers(other, ["approver"], NOW) == authority.signers(envelope, ["approver"], NOW)


@settings(max_examples=40, deadline=None)
@given(_envelopes(), st.lists(st.builds(Signature, st.none() | st.text(), st.binary(max_size=80)), max_size=4))
def test_unknown_signatures_never_help_nor_harm(envelope: Envelope, unknown: list[Signature]) -> None:
    authority = _authority(*PEOPLE)
    more = replace(envelope, signatures=(*unknown, *envelope.signatures))
    assert authority.signers(more, ["approver"], NOW) == authority.signers(envelope, ["approver"], NOW)


@settings(max_examples=30, deadline=None)
@given(_envelopes(), st.sampled_from(ROLES))
def test_refusal_is_told_exactly_where_nobody_counts(envelope: Envelope, role: str) -> None:
    authority = _authority(*PEOPLE)
    if authority.signers(envelope, [role], NOW):
        assert authority.require(envelope, [role], NOW, WHAT)
    else:
        assert _refused(authority, envelope, role).message.startswith(f"{WHAT} ")
