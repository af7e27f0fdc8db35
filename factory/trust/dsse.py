"""Envelopes: DSSE v1 (Dead Simple Signing Envelope, secure-systems-lab/dsse, protocol.md and envelope.md).

Knows nothing of what it carries. The bytes whose signature is verified are the bytes that are handed on: `payload` is
decoded once. A keyid is a hint that must fit the key whose signature it stands beside; who signed is told by the
material of the keys, so one key under two ids is one signer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from factory import digest
from factory.digest import Digest
from factory.errors import TamperedError
from factory.trust import strict
from factory.trust.keys import PublicKey

MAX_BYTES = 32 << 20
MAX_SIGNATURES = 32
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Signer(Protocol):
    """Whoever can sign: a key file, a KMS. `public` is the key that its signatures verify with."""

    @property
    def public(self) -> PublicKey: ...

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`. Raises TrustError."""


@dataclass(frozen=True)
class Signature:
    """`keyid` is None where the envelope gives none."""

    keyid: str | None
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """`raw` is the envelope as it is stored, byte for byte; `payload` is decoded."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]
    raw: bytes

    @property
    def digest(self) -> Digest:
        """The digest of the envelope as it is stored."""
        return digest.of_bytes(self.raw)


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: the pre-authentication encoding of protocol.md."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse(raw: bytes, what: str = "the envelope", *, max_bytes: int = MAX_BYTES) -> Envelope:
    """The envelope in `raw`; nothing of it is verified yet. Raises TamperedError where it is not wholly understood.

    Fields that the standard does not name are passed over, as it asks.
    """
    data = strict.loads(raw, what, max_bytes=max_bytes)
    if not isinstance(data, dict):
        raise TamperedError(f"{what} is no DSSE envelope: not an object")
    kind, signatures = data.get("payloadType"), data.get("signatures")
    if not isinstance(kind, str) or not kind:
        raise TamperedError(f"{what} is no DSSE envelope: payloadType is missing")
    if not isinstance(signatures, list) or len(signatures) > MAX_SIGNATURES:
        raise TamperedError(f"{what} is no DSSE envelope: signatures are missing, or more than {MAX_SIGNATURES}")
    payload = _decoded(data.get("payload"), f"{what}: payload")
    return Envelope(kind, payload, tuple(_signature(item, what) for item in signatures), raw)


def sign(payload_type: str, payload: bytes, signers: Sequence[Signer]) -> Envelope:
    """An envelope of `payload`, signed by each of `signers`. Raises TrustError where a signer cannot."""
    message = pae(payload_type, payload)
    return _envelope(
        payload_type, payload, [Signature(signer.public.fingerprint, signer.sign(message)) for signer in signers]
    )


def add_signature(envelope: Envelope, signer: Signer) -> Envelope:
    """The same payload with one more signature. Raises TrustError where the signer cannot."""
    added = Signature(signer.public.fingerprint, signer.sign(pae(envelope.payload_type, envelope.payload)))
    return _envelope(envelope.payload_type, envelope.payload, [*envelope.signatures, added])


def verify(envelope: Envelope, keys: Iterable[PublicKey]) -> frozenset[Digest]:
    """The fingerprints of those of `keys` that have signed this very payload and type."""
    message = pae(envelope.payload_type, envelope.payload)
    good: set[Digest] = set()
    for key in keys:
        for signature in envelope.signatures:
            if signature.keyid not in (None, "", key.fingerprint):
                continue
            if key.verify(signature.sig, message):
                good.add(key.fingerprint)
                break
    return frozenset(good)


def _envelope(payload_type: str, payload: bytes, signatures: Sequence[Signature]) -> Envelope:
    raw = strict.dumps(
        {
            "payload": _encoded(payload),
            "payloadType": payload_type,
            "signatures": [{"keyid": item.keyid or "", "sig": _encoded(item.sig)} for item in signatures],
        }
    )
    return Envelope(payload_type, payload, tuple(signatures), raw)


def _signature(item: Any, what: str) -> Signature:
    if not isinstance(item, dict):
        raise TamperedError(f"{what}: a signature is not an object")
    keyid = item.get("keyid")
    if keyid is not None and not isinstance(keyid, str):
        raise TamperedError(f"{what}: a keyid is not text")
    return Signature(keyid or None, _decoded(item.get("sig"), f"{what}: sig"))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: object, what: str) -> bytes:
    """Base64 in the standard or the URL-safe alphabet, padded or not; nothing else in it."""
    if not isinstance(text, str):
        raise TamperedError(f"{what} is missing")
    try:
        plain = text.encode("ascii").translate(_URL_SAFE).rstrip(b"=")
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise TamperedError(f"{what} is not base64") from error
    return data
