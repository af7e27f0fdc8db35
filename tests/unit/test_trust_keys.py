"""Public keys: one key has one material, one text and one fingerprint; a signature is read in one way."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from factory.trust import keys
from factory.trust.signers import file

P = 2**255 - 19
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED_PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EC_PRIVATE = ec.derive_private_key(7, ec.SECP256R1())  # the same in every process: tests are named after their text
BOTH = (ED_PRIVATE, EC_PRIVATE)
ED, EC = (keys.from_cryptography(private.public_key()) for private in BOTH)


def raw_form(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def ec_signature(message: bytes) -> bytes:
    return EC_PRIVATE.sign(message, ec.ECDSA(SHA256()))


@pytest.mark.parametrize("private", BOTH)
def test_key_has_the_fingerprint_of_its_public_key_info(private: file.PrivateKey) -> None:
    public = keys.from_cryptography(private.public_key())
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert public.spki == der
    assert public.fingerprint == f"sha256:{hashlib.sha256(der).hexdigest()}"
    assert keys.from_spki(der) == public


@pytest.mark.parametrize("public", [ED, EC])
def test_key_is_read_as_it_is_written(public: keys.PublicKey) -> None:
    assert keys.parse(str(public)) == public
    assert keys.from_material(public.algorithm, public.material) == public


def test_key_of_rfc_8032_verifies_its_own_vector() -> None:
    """RFC 8032, 7.1, test 2."""
    public = keys.from_material(
        keys.ED25519, bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    )
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert public.verify(signature, b"\x72")
    assert not public.verify(signature, b"\x73")


def test_key_written_as_a_whole_point_is_the_same_key() -> None:
    whole = EC_PRIVATE.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    assert keys.parse(f"ecdsa-p256:{base64.b64encode(whole).decode()}") == EC


@pytest.mark.parametrize(
    "text",
    [
        "", "ed25519", "ed25519:", "ed25519:AAAA", "ED25519:" + str(ED)[8:], str(ED)[8:], "rsa:AAAA", str(ED) + "AAAA",
        "ed25519: " + str(ED)[8:], str(ED)[:-1], "ecdsa-p256:" + str(ED)[8:], "ecdsa-p256:",
        "ed25519:\u00e9", "ed25519:\ud800",
        "ecdsa-p256:" + base64.b64encode(b"\x02" + b"\xff" * 32).decode(),
        "ecdsa-p256:" + base64.b64encode(b"\x00").decode(),
    ],
)  # fmt: skip
def test_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"public key|point of P-256"):
        keys.parse(text)


def small_order_points() -> list[int]:
    """The y of every point of order 1, 2, 4 and 8, found by arithmetic of its own: by doubling all the way back."""
    d = -121665 * pow(121666, -1, P) % P
    root = pow(2, (P - 1) // 4, P)  # of -1
    ys = {0, 1, P - 1}
    inverse = pow(d, -1, P)
    for sign in (1, -1):  # d*y^4 + 2*y^2 - 1 = 0, a quadratic in y^2
        discriminant = (1 + d) % P
        square = pow(discriminant, (P + 3) // 8, P)
        for candidate in (square, square * root % P):
            if candidate * candidate % P != discriminant:
                continue
            y2 = (-1 + sign * candidate) * inverse % P
            y = pow(y2, (P + 3) // 8, P)
            for guess in (y, y * root % P):
                if guess * guess % P == y2:
                    ys |= {guess, P - guess}
    return sorted(ys)


def test_keys_that_anybody_can_sign_for_are_refused() -> None:
    ys = small_order_points()
    assert len(ys) == 5
    for y in ys:
        for sign in (0, 1 << 255):
            with pytest.raises(ValueError, match="anybody can sign"):
                keys.from_material(keys.ED25519, (y | sign).to_bytes(32, "little"))


def test_key_that_anybody_can_sign_for_really_is_one() -> None:
    """Why the test above matters: to OpenSSL the identity is a key, and this signature is good for every message."""
    identity = (1).to_bytes(32, "little")
    forged = identity + bytes(32)
    ed25519.Ed25519PublicKey.from_public_bytes(identity).verify(forged, b"whatever")


@pytest.mark.parametrize("y", [P, P + 1, P + 3, P + 18, 2**255 - 1])
def test_key_written_in_a_second_way_is_refused(y: int) -> None:
    with pytest.raises(ValueError, match="ed25519 public key"):
        keys.from_material(keys.ED25519, y.to_bytes(32, "little"))


@pytest.mark.parametrize("private", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_key_of_another_kind_is_refused(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(ValueError, match="only Ed25519 and ECDSA P-256"):
        keys.from_cryptography(private.public_key())


@given(st.binary(max_size=120))
def test_key_of_any_der_is_refused_politely(der: bytes) -> None:
    with pytest.raises(ValueError):
        keys.from_spki(der)


def test_key_info_of_an_unknown_algorithm_is_refused() -> None:
    unknown = bytes.fromhex("302a300506032b6579032100") + bytes(32)
    with pytest.raises(ValueError):
        keys.from_spki(unknown)


def test_ecdsa_signature_is_taken_in_both_forms() -> None:
    der = ec_signature(b"hello")
    assert EC.verify(der, b"hello")
    assert EC.verify(raw_form(der), b"hello")
    assert not EC.verify(raw_form(der), b"hellp")
    r, s = decode_dss_signature(der)
    assert EC.verify(encode_dss_signature(r, P256_ORDER - s), b"hello")  # the other half: as good, says the docstring


def test_ecdsa_signature_in_other_forms_is_refused() -> None:
    der = ec_signature(b"hello")
    r, s = decode_dss_signature(der)
    long_form = b"\x30\x81" + der[1:]
    for other in (der + b"\x00", der[:-1], b"\x00" + der, long_form, raw_form(der) + b"\x00", raw_form(der)[1:]):
        assert not EC.verify(other, b"hello")
    for r_, s_ in ((0, 0), (r, 0), (0, s), (r + P256_ORDER, s), (r, s + P256_ORDER), (s, r)):
        assert not EC.verify(encode_dss_signature(r_, s_), b"hello")
    assert not EC.verify(bytes(64), b"hello")
    assert not EC.verify(b"\xff" * 64, b"hello")


@pytest.mark.parametrize("public", [ED, EC])
@given(signature=st.binary(max_size=80), message=st.binary(max_size=20))
def test_key_refuses_any_other_bytes(public: keys.PublicKey, signature: bytes, message: bytes) -> None:
    assert not public.verify(signature, message)


@given(st.binary(max_size=300), st.integers(min_value=0))
def test_key_refuses_a_signature_with_any_bit_turned(message: bytes, place: int) -> None:
    for public, signature in ((ED, ED_PRIVATE.sign(message)), (EC, raw_form(ec_signature(message)))):
        assert public.verify(signature, message)
        turned = bytearray(signature)
        turned[place // 8 % len(turned)] ^= 1 << place % 8
        assert not public.verify(bytes(turned), message)


def test_ed25519_signature_with_a_second_s_is_refused() -> None:
    """RFC 8032 asks for s < L; OpenSSL holds to it, so an ed25519 signature cannot be written in a second way."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = ED_PRIVATE.sign(b"hello")
    second = int.from_bytes(signature[32:], "little") + order
    assert not ED.verify(signature[:32] + second.to_bytes(32, "little"), b"hello")


def test_key_made_by_hand_of_nonsense_verifies_nothing() -> None:
    for algorithm in keys.ALGORITHMS:
        assert not keys.PublicKey(algorithm, b"short").verify(bytes(64), b"hello")
