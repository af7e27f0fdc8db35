"""Envelopes: DSSE v1 (Dead Simple Signing Envelope, secure-systems-lab/dsse, protocol.md and envelope.md).

Knows nothing of what it carries. The bytes whose signature is verified are the bytes that are handed on: `payload` is
decoded once. A keyid is a hint that must fit the key whose signature it stands beside; who signed is told by the
material of the keys, so one key under two ids is one signer. An absent, null or empty keyid is none.

Base64 is read in the standard or the URL-safe alphabet (RFC 4648, 4 and 5), padded or not. Both alphabets in one text,
white space, wrong padding and bits left over are refused: other readers take such text in other ways, or not at all.
An envelope without signatures can be read; nobody has signed it. Nothing but TamperedError comes out of `parse`.
"""

from __future__ import annotations

import base64
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
        raise TamperedError(f"{what} is no DSSE envelope: payloadType is missing, or no text")
    if not isinstance(signatures, list):
        raise TamperedError(f"{what} is no DSSE envelope: signatures are missing, or no list")
    if len(signatures) > MAX_SIGNATURES:
        raise TamperedError(f"{what} has too many signatures: {len(signatures)}, at most {MAX_SIGNATURES} are read")
    payload = _decoded(data.get("payload"), f"{what}: payload")
    return Envelope(kind, payload, tuple(_signature(item, what) for item in signatures), raw)


def sign(payload_type: str, payload: bytes, signers: Sequence[Signer]) -> Envelope:
    """An envelope of `payload`, signed by each of `signers`. Raises TrustError where a signer cannot."""
    envelope = _envelope(payload_type, payload, ())
    for signer in signers:
        envelope = add_signature(envelope, signer)
    return envelope


def add_signature(envelope: Envelope, signer: Signer) -> Envelope:
    """The same payload with one more signature, in place of an older one under this key's id. Raises TrustError."""
    keyid = signer.public.fingerprint
    added = Signature(keyid, signer.sign(pae(envelope.payload_type, envelope.payload)))
    others = [item for item in envelope.signatures if item.keyid != keyid]
    return _envelope(envelope.payload_type, envelope.payload, [*others, added])


def only(envelope: Envelope, signatures: Sequence[Signature]) -> Envelope:
    """The same payload with these of its signatures alone."""
    return _envelope(envelope.payload_type, envelope.payload, signatures)


def verify(envelope: Envelope, keys: Iterable[PublicKey]) -> frozenset[Digest]:
    """The fingerprints of those of `keys` that have signed this very payload and type."""
    message = pae(envelope.payload_type, envelope.payload)
    good: set[Digest] = set()
    for key in keys:
        for signature in envelope.signatures:
            if signature.keyid not in (None, key.fingerprint):
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
    """The bytes that base64 stands for. Whatever was passed over in decoding shows when they are written again."""
    if not isinstance(text, str):
        raise TamperedError(f"{what} is missing, or no text")
    alphabet = b"-_" if "-" in text or "_" in text else b"+/"
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), alphabet)
    except ValueError as error:
        raise TamperedError(f"{what} is not base64") from error
    written = base64.b64encode(data, alphabet).decode("ascii")
    if text not in (written, written.rstrip("=")):
        raise TamperedError(f"{what} is not base64 as one writes it")
    return data
