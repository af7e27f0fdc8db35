"""Public keys: Ed25519 (RFC 8032) and ECDSA on P-256 with SHA-256. Never holds a private one (see signers).

A key is its material. Written `ed25519:<base64 of the 32 bytes>` or `ecdsa-p256:<base64 of the compressed SEC 1
point>`; its fingerprint is the SHA-256 of its SubjectPublicKeyInfo (RFC 5280), DER. So that one key has one material,
an ed25519 key that is written in another way than RFC 8032 does is refused; so is one of small order, for which
anybody can sign. The arithmetic of signatures is OpenSSL's. An ECDSA signature (r, s) is as good as (r, -s): it shows
who signed what, but is no name for an envelope.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from factory import digest
from factory.digest import Digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519, ECDSA_P256 = "ed25519", "ecdsa-p256"
ALGORITHMS = (ED25519, ECDSA_P256)

_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: all of it but the 32 bytes of the key
_P256_BYTES = 32
_P = 2**255 - 19  # RFC 8032, 5.1: the field of Ed25519


@dataclass(frozen=True)
class PublicKey:
    """`material`: 32 bytes for ed25519, the 33 bytes of the compressed point for ecdsa-p256. Made by `parse`."""

    algorithm: str
    material: bytes

    @cached_property
    def fingerprint(self) -> Digest:
        """The key id: SHA-256 of the SubjectPublicKeyInfo."""
        return digest.of_bytes(self.spki)

    @cached_property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo, DER."""
        if self.algorithm == ED25519:
            return _ED25519_SPKI + self.material
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return _p256(self.material).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's of `message`. ECDSA as DER or as the 64 bytes r||s. Never raises."""
        from cryptography.exceptions import InvalidSignature

        try:
            if self.algorithm == ED25519:
                _ed25519(self.material).verify(signature, message)
            else:
                self._verify_ecdsa(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def _verify_ecdsa(self, signature: bytes, message: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        from cryptography.hazmat.primitives.hashes import SHA256

        if len(signature) == 2 * _P256_BYTES:  # its length says how it is written: DER is 70 to 72 bytes long
            r, s = signature[:_P256_BYTES], signature[_P256_BYTES:]
            signature = utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        _p256(self.material).verify(signature, message, ec.ECDSA(SHA256()))

    def __str__(self) -> str:
        return f"{self.algorithm}:{base64.b64encode(self.material).decode()}"


def parse(text: str) -> PublicKey:
    """The key that a text of the form above is. Raises ValueError with what is wrong."""
    algorithm, colon, encoded = text.partition(":")
    if not colon or algorithm not in ALGORITHMS:
        raise ValueError(f"a public key begins with {' or '.join(f'{name}:' for name in ALGORITHMS)}")
    try:
        material = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a public key is base64 after its algorithm") from error
    return from_material(algorithm, material)


def from_material(algorithm: str, material: bytes) -> PublicKey:
    """A key of raw bytes: 32 for ed25519, a SEC 1 point (compressed or not) for ecdsa-p256. Raises ValueError."""
    if algorithm == ED25519:
        if len(material) != 32:
            raise ValueError(f"an ed25519 public key is 32 bytes, not {len(material)}")
        if not _is_sound(material):
            raise ValueError("this is no ed25519 public key that one could trust: anybody can sign for it")
        return PublicKey(algorithm, material)
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        return from_cryptography(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), material))
    except ValueError as error:
        raise ValueError("this is no point of P-256") from error


def from_spki(der: bytes) -> PublicKey:
    """A key of a SubjectPublicKeyInfo, DER. Raises ValueError where it is of another kind."""
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(der)
    except (UnsupportedAlgorithm, InternalError) as error:  # the second: of a kind, and of another's length
        raise ValueError("a key of a kind that is not known") from error
    return from_cryptography(key)


def from_cryptography(key: object) -> PublicKey:
    """A key of the cryptography library. Raises ValueError where it is of another kind."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, ed25519.Ed25519PublicKey):
        return from_material(ED25519, key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return PublicKey(ECDSA_P256, key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    raise ValueError("only Ed25519 and ECDSA P-256 keys are known")


def _is_sound(material: bytes) -> bool:
    """Whether 32 bytes are written as RFC 8032 does (y < p) and are no point of order 1, 2, 4 or 8.

    Those points have y = 1, -1, 0, or double to one with y = 0: where x^2 = -y^2, so that d*y^4 + 2*y^2 = 1.
    """
    y = int.from_bytes(material, "little") & (2**255 - 1)
    d = -121665 * pow(121666, -1, _P)
    return 1 < y < _P - 1 and (d * y**4 + 2 * y**2 - 1) % _P != 0


@lru_cache(maxsize=256)
def _ed25519(material: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(material)


@lru_cache(maxsize=256)
def _p256(material: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), material)
