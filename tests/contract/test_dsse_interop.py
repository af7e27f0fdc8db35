"""Envelopes between us and others: the standard's own vector, and securesystemslib in both directions."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]

from factory.trust import dsse, keys
from factory.trust.signers import file

TYPE, PAYLOAD = "application/vnd.in-toto+json", b'{"_type": "https://in-toto.io/Statement/v1"}'

# secure-systems-lab/dsse, protocol.md, "Test Vectors"
VECTOR_X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
VECTOR_Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
VECTOR = b"""{"payload": "aGVsbG8gd29ybGQ=",
 "payloadType": "http://example.com/HelloWorld",
 "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}
"""


@pytest.fixture(params=keys.ALGORITHMS)
def private(request: pytest.FixtureRequest) -> file.PrivateKey:
    return file.generate(request.param)


def theirs(public: keys.PublicKey, private: file.PrivateKey, keyid: str | None = None) -> Key:
    return SSlibKey.from_crypto(private.public_key(), keyid or public.fingerprint)


def their_signer(private: file.PrivateKey, keyid: str | None = None) -> CryptoSigner:
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), keyid))


def read_by_them(envelope: dsse.Envelope) -> TheirEnvelope:
    return TheirEnvelope.from_dict(json.loads(envelope.raw))


def signed_by_them(*signers: CryptoSigner) -> dict[str, Any]:
    envelope = TheirEnvelope(PAYLOAD, TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    return deepcopy(envelope.to_dict())


def test_the_vector_of_the_standard_is_accepted() -> None:
    public = keys.from_cryptography(ec.EllipticCurvePublicNumbers(VECTOR_X, VECTOR_Y, ec.SECP256R1()).public_key())
    envelope = dsse.parse(VECTOR)
    assert (envelope.payload_type, envelope.payload) == ("http://example.com/HelloWorld", b"hello world")
    assert dsse.verify(envelope, [public]) == {public.fingerprint}


def test_the_vector_of_the_standard_damaged_is_not() -> None:
    public = keys.from_cryptography(ec.EllipticCurvePublicNumbers(VECTOR_X, VECTOR_Y, ec.SECP256R1()).public_key())
    for old, new in ((b"aGVs", b"aGVt"), (b"/HelloWorld", b"/HelloWorlds"), (b"A3Jq", b"A3Jr")):
        assert dsse.verify(dsse.parse(VECTOR.replace(old, new)), [public]) == frozenset()


def test_our_envelope_is_accepted_by_securesystemslib(private: file.PrivateKey) -> None:
    signer = file.signer(private)
    envelope = dsse.sign(TYPE, PAYLOAD, [signer])
    accepted = read_by_them(envelope).verify([theirs(signer.public, private)], 1)
    assert set(accepted) == {signer.public.fingerprint}
    other = file.generate(signer.public.algorithm)
    with pytest.raises(VerificationError):
        read_by_them(envelope).verify([theirs(signer.public, other)], 1)


def test_our_envelope_of_two_signers_reaches_their_threshold() -> None:
    both = [file.generate(algorithm) for algorithm in keys.ALGORITHMS]
    signers = [file.signer(private) for private in both]
    their_keys = [theirs(signer.public, private) for signer, private in zip(signers, both, strict=True)]
    assert len(read_by_them(dsse.sign(TYPE, PAYLOAD, signers)).verify(their_keys, 2)) == 2
    with pytest.raises(VerificationError):
        read_by_them(dsse.sign(TYPE, PAYLOAD, signers[:1])).verify(their_keys, 2)


def test_our_envelope_is_the_same_message_to_them() -> None:
    envelope = dsse.sign("text/\u00e4", b"\x00\xff", [file.signer(file.generate())])
    assert read_by_them(envelope).pae() == dsse.pae("text/\u00e4", b"\x00\xff")


def test_their_envelope_is_accepted_by_us(private: file.PrivateKey) -> None:
    public = file.signer(private).public
    envelope = dsse.parse(json.dumps(signed_by_them(their_signer(private, public.fingerprint))).encode())
    assert envelope.payload == PAYLOAD
    assert dsse.verify(envelope, [public]) == {public.fingerprint}
    assert dsse.verify(envelope, [file.signer(file.generate()).public]) == frozenset()


def test_their_own_kind_of_keyid_does_not_fit_ours(private: file.PrivateKey) -> None:
    """securesystemslib names a key otherwise than by its fingerprint; without that name the signature counts."""
    public = file.signer(private).public
    data = signed_by_them(their_signer(private))
    assert data["signatures"][0]["keyid"] != public.fingerprint
    assert dsse.verify(dsse.parse(json.dumps(data).encode()), [public]) == frozenset()
    data["signatures"][0]["keyid"] = ""
    assert dsse.verify(dsse.parse(json.dumps(data).encode()), [public]) == {public.fingerprint}


def test_one_key_under_two_ids_is_two_signers_to_them_and_one_to_us(private: file.PrivateKey) -> None:
    public = file.signer(private).public
    data = signed_by_them(their_signer(private, "alice"), their_signer(private, "bob"))
    two_names = [theirs(public, private, "alice"), theirs(public, private, "bob")]
    assert len(TheirEnvelope.from_dict(deepcopy(data)).verify(two_names, 2)) == 2  # the trap
    for keyids in (("", ""), (public.fingerprint, ""), (public.fingerprint, public.fingerprint)):
        for signature, keyid in zip(data["signatures"], keyids, strict=True):
            signature["keyid"] = keyid
        envelope = dsse.parse(json.dumps(data).encode())
        assert len(envelope.signatures) == 2
        assert dsse.verify(envelope, [public, public]) == {public.fingerprint}
