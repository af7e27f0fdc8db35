"""Envelopes: what is verified is what is handed on, signers are counted by key, and no damage passes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import TamperedError
from factory.trust import dsse, keys
from factory.trust.signers import file

ED, EC, OTHER = (file.signer(file.generate(kind)) for kind in (keys.ED25519, keys.ECDSA_P256, keys.ED25519))
KEYS = [ED.public, EC.public]
TYPE, PAYLOAD = "application/vnd.example+json", b'{"say": "hello", "to": "world"}'

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def signed(*signers: dsse.Signer, payload: bytes = PAYLOAD) -> dsse.Envelope:
    return dsse.sign(TYPE, payload, signers)


def fields(envelope: dsse.Envelope) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(envelope.raw)
    return data


def reparsed(change: Callable[[dict[str, Any]], None], envelope: dsse.Envelope | None = None) -> dsse.Envelope:
    data = fields(envelope or signed(ED))
    change(data)
    return dsse.parse(json.dumps(data).encode())


def test_pae_of_the_standard() -> None:
    """protocol.md of DSSE, test vectors."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_pae_counts_bytes_not_characters() -> None:
    assert dsse.pae("\u00e4", b"") == b"DSSEv1 2 \xc3\xa4 0 "
    assert dsse.pae("a 1 b", b"") != dsse.pae("a", b"b 0 ")


@given(TEXT, st.binary(max_size=300))
def test_envelope_is_read_as_it_was_signed(kind: str, payload: bytes) -> None:
    envelope = dsse.sign(kind, payload, [ED, EC])
    again = dsse.parse(envelope.raw)
    assert again == envelope
    assert (again.payload_type, again.payload) == (kind, payload)
    assert dsse.verify(again, [*KEYS, OTHER.public]) == {ED.public.fingerprint, EC.public.fingerprint}
    assert dsse.verify(again, [OTHER.public]) == frozenset()


@given(TEXT, TEXT, st.binary(max_size=60), st.binary(max_size=60))
def test_signature_is_of_this_type_and_payload_alone(kind: str, kind2: str, payload: bytes, payload2: bytes) -> None:
    mine, other = dsse.sign(kind, payload, [ED]), dsse.sign(kind2, payload2, [OTHER])
    swapped = dsse.Envelope(other.payload_type, other.payload, mine.signatures, b"")
    assert bool(dsse.verify(swapped, KEYS)) == ((kind, payload) == (kind2, payload2))


def test_envelope_of_nothing_is_one() -> None:
    envelope = dsse.parse(signed(ED, payload=b"").raw)
    assert envelope.payload == b""
    assert dsse.verify(envelope, KEYS) == {ED.public.fingerprint}


def test_envelope_without_signatures_has_no_signers() -> None:
    assert dsse.verify(reparsed(lambda data: data.update(signatures=[])), KEYS) == frozenset()
    assert dsse.verify(signed(), KEYS) == frozenset()


def test_envelope_has_the_digest_of_its_bytes() -> None:
    envelope = signed(ED)
    spaced = dsse.parse(json.dumps(fields(envelope), indent=1).encode())
    assert spaced.digest != envelope.digest
    assert dsse.verify(spaced, KEYS) == dsse.verify(envelope, KEYS) != frozenset()


def test_fields_that_the_standard_does_not_name_are_passed_over() -> None:
    def change(data: dict[str, Any]) -> None:
        data["more"] = {"a": [1]}
        data["signatures"][0]["extension"] = {"kind": "x"}

    assert dsse.verify(reparsed(change), KEYS) == {ED.public.fingerprint}


# -- who signed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyid", [None, ""])
def test_keyid_that_is_empty_is_none(keyid: str | None) -> None:
    envelope = reparsed(lambda data: data["signatures"][0].update(keyid=keyid))
    assert envelope.signatures[0].keyid is None
    assert dsse.verify(envelope, [*KEYS, OTHER.public]) == {ED.public.fingerprint}


def test_keyid_may_be_absent() -> None:
    assert dsse.verify(reparsed(lambda data: data["signatures"][0].pop("keyid")), KEYS) == {ED.public.fingerprint}


@pytest.mark.parametrize(
    "keyid",
    ["x", " ", "alice", OTHER.public.fingerprint, EC.public.fingerprint, ED.public.fingerprint.upper(),
     ED.public.fingerprint + " ", ED.public.fingerprint + "\x00", ED.public.fingerprint[:-1]],
    ids=["letter", "space", "name", "another's", "another kind's", "capitals", "with a space", "with a zero", "short"],
)  # fmt: skip
def test_keyid_that_does_not_fit_the_key_voids_its_signature(keyid: str) -> None:
    envelope = reparsed(lambda data: data["signatures"][0].update(keyid=keyid))
    assert dsse.verify(envelope, [*KEYS, OTHER.public]) == frozenset()


def test_one_key_under_many_ids_is_one_signer() -> None:
    def change(data: dict[str, Any]) -> None:
        (first,) = data["signatures"]
        data["signatures"] = [first, {**first, "keyid": ""}, {**first, "keyid": "b"}, {"sig": first["sig"]}, first]

    envelope = reparsed(change)
    assert len(envelope.signatures) == 5
    assert dsse.verify(envelope, [ED.public, ED.public]) == {ED.public.fingerprint}


def test_one_key_with_two_good_signatures_is_one_signer() -> None:
    first, second = fields(signed(EC))["signatures"][0], fields(signed(EC))["signatures"][0]
    assert first != second  # ECDSA draws a number for each
    envelope = reparsed(lambda data: data.update(signatures=[first, second]))
    assert dsse.verify(envelope, KEYS) == {EC.public.fingerprint}


def test_a_bad_signature_does_not_hide_a_good_one() -> None:
    bad = {"keyid": ED.public.fingerprint, "sig": base64.b64encode(bytes(64)).decode()}
    envelope = reparsed(lambda data: data["signatures"].insert(0, bad))
    assert dsse.verify(envelope, KEYS) == {ED.public.fingerprint}


def test_signatures_are_added_and_the_payload_stays() -> None:
    one = signed(ED)
    two = dsse.add_signature(one, EC)
    assert two.payload == one.payload
    assert two.raw != one.raw
    assert dsse.verify(dsse.parse(two.raw), KEYS) == {ED.public.fingerprint, EC.public.fingerprint}


def test_signing_again_replaces_ones_own_signature() -> None:
    twice = dsse.add_signature(dsse.add_signature(signed(EC), ED), EC)
    assert [item.keyid for item in twice.signatures] == [ED.public.fingerprint, EC.public.fingerprint]
    assert dsse.verify(dsse.parse(twice.raw), KEYS) == {ED.public.fingerprint, EC.public.fingerprint}


# -- base64 ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60))
def test_base64_is_read_in_either_alphabet_padded_or_not(payload: bytes) -> None:
    envelope = signed(ED, payload=payload)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for strip in ("", "="):
            text = encode(payload).decode().rstrip(strip or None) if strip else encode(payload).decode()
            again = reparsed(lambda data, text=text: data.update(payload=text), envelope)  # type: ignore[misc]
            assert again.payload == payload
            assert dsse.verify(again, KEYS) == {ED.public.fingerprint}


@pytest.mark.parametrize(
    "text",
    ["A", "AAAAA", "QQ=", "QQ===", "QUI==", "QUFB=", "QUFB====", "=", "====", "QR==", "QR", "QUJ", "Q Q=",
     "QQ==\n", " QQ==", "QQ\n==",
     "QQ==QQ==", "Q=Q=", "+-+-", "/_A=", "QQ==\x00", "\x00", "QQ\u00e9=", "\uff21\uff21==", "QQ.=", "!!!!", "QUFB*"],
)  # fmt: skip
@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_that_can_be_read_in_two_ways_is_refused(text: str, field: str) -> None:
    def change(data: dict[str, Any]) -> None:
        (data if field == "payload" else data["signatures"][0])[field] = text

    with pytest.raises(TamperedError, match=f"{field} is not base64"):
        reparsed(change)


# -- what is no envelope -----------------------------------------------------------------------------------------------

NO_ENVELOPES: dict[str, Callable[[dict[str, Any]], None]] = {
    "no payload": lambda data: data.pop("payload"),
    "null payload": lambda data: data.update(payload=None),
    "payload a number": lambda data: data.update(payload=1),
    "payload a list": lambda data: data.update(payload=["QQ=="]),
    "no type": lambda data: data.pop("payloadType"),
    "empty type": lambda data: data.update(payloadType=""),
    "type a number": lambda data: data.update(payloadType=1),
    "half a character as type": lambda data: data.update(payloadType="\ud800"),
    "no signatures": lambda data: data.pop("signatures"),
    "null signatures": lambda data: data.update(signatures=None),
    "signatures an object": lambda data: data.update(signatures={"a": data["signatures"][0]}),
    "signatures text": lambda data: data.update(signatures="[]"),
    "signature null": lambda data: data.update(signatures=[None]),
    "signature a list": lambda data: data.update(signatures=[[]]),
    "signature empty": lambda data: data.update(signatures=[{}]),
    "sig null": lambda data: data["signatures"][0].update(sig=None),
    "sig a number": lambda data: data["signatures"][0].update(sig=0),
    "keyid a number": lambda data: data["signatures"][0].update(keyid=0),
    "keyid false": lambda data: data["signatures"][0].update(keyid=False),
    "keyid a list": lambda data: data["signatures"][0].update(keyid=[]),
    "half a character as keyid": lambda data: data["signatures"][0].update(keyid="\udfff"),
    "good and bad": lambda data: data["signatures"].append({"keyid": "a"}),
    "33 signatures": lambda data: data.update(signatures=data["signatures"] * 33),
    "decimal in passing": lambda data: data.update(more=1.5),
    "large number in passing": lambda data: data.update(more=2**53),
}


@pytest.mark.parametrize("case", NO_ENVELOPES)
def test_what_is_no_envelope_is_refused(case: str) -> None:
    with pytest.raises(TamperedError, match="the envelope"):
        reparsed(NO_ENVELOPES[case])


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b'"x"', b"0", b"true", b"{}", b"\xef\xbb\xbf{}", b"{}\x00"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(TamperedError, match="this file"):
        dsse.parse(raw, "this file")


@pytest.mark.parametrize("key", ["payload", "payloadType", "signatures"])
def test_a_field_that_stands_twice_is_refused(key: str) -> None:
    data = fields(signed(ED))
    raw = b'{"%b": %b, %b' % (key.encode(), json.dumps(data[key]).encode(), signed(ED).raw[1:])
    with pytest.raises(TamperedError, match="stands twice"):
        dsse.parse(raw)


def test_what_is_too_large_is_refused() -> None:
    raw = signed(ED).raw
    assert dsse.parse(raw, max_bytes=len(raw)).raw == raw
    with pytest.raises(TamperedError, match="too large"):
        dsse.parse(raw, max_bytes=len(raw) - 1)
    with pytest.raises(TamperedError, match="too large"):
        dsse.parse(b" " * (dsse.MAX_BYTES + 1))


# -- damage ------------------------------------------------------------------------------------------------------------


def accepted(raw: bytes, least: int) -> dsse.Envelope | None:
    """The envelope if it can be read and `least` of our keys have signed it."""
    try:
        envelope = dsse.parse(raw)
    except TamperedError:
        return None
    return envelope if len(dsse.verify(envelope, KEYS)) >= least else None


@pytest.mark.parametrize("signers", [(ED,), (EC,), (ED, EC)])
def test_each_bit_turned_is_refused_or_changes_nothing_that_was_signed(signers: tuple[dsse.Signer, ...]) -> None:
    """All bits of all bytes. What may pass: a turned bit in the name `keyid`, which then is a field nobody reads."""
    whole = signed(*signers, payload=b'{"a": 1}').raw
    original = dsse.parse(whole)
    passed = set()
    for index in range(len(whole)):
        for bit in range(8):
            damaged = whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :]
            envelope = accepted(damaged, len(signers))
            if envelope is not None:
                assert (envelope.payload_type, envelope.payload) == (original.payload_type, original.payload)
                passed.add(index)
    names = {start + i for start in find_all(whole, b"keyid") for i in range(len(b"keyid"))}
    assert passed <= names
    assert passed  # else this test has not looked


@pytest.mark.parametrize("signer", [ED, EC])
def test_each_byte_replaced_is_refused_or_changes_nothing_that_was_signed(signer: dsse.Signer) -> None:
    whole = signed(signer, payload=b"hello").raw
    original = dsse.parse(whole)
    for index in range(len(whole)):
        for value in (0, 9, 10, 32, 34, 43, 45, 47, 48, 61, 65, 92, 95, 97, 123, 125, 127, 128, 194, 255):
            damaged = whole[:index] + bytes([value]) + whole[index + 1 :]
            envelope = accepted(damaged, 1)
            assert envelope is None or envelope.payload == original.payload == b"hello"


def test_every_truncation_is_refused() -> None:
    whole = signed(ED, EC).raw
    for length in range(len(whole)):
        assert accepted(whole[:length], 0) is None
        assert accepted(whole[length:], 0) is None or length == 0


def find_all(raw: bytes, part: bytes) -> list[int]:
    return [index for index in range(len(raw)) if raw.startswith(part, index)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("QQ=="),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["payload", "payloadType", "signatures", "sig", "keyid", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(TamperedError):
        dsse.parse(raw)


@given(JSON)
def test_random_json_is_refused_or_signed_by_nobody(data: Any) -> None:
    assert accepted(json.dumps(data).encode(), 1) is None


@given(JSON, JSON, JSON)
def test_random_fields_are_refused_or_signed_by_nobody(kind: Any, payload: Any, signatures: Any) -> None:
    raw = json.dumps({"payloadType": kind, "payload": payload, "signatures": signatures}).encode("utf-8")
    assert accepted(raw, 1) is None
