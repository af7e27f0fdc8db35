"""Private keys that never leave AWS KMS: ECC_NIST_P256, signing with ECDSA_SHA_256.

The key's file in `.factory/keys/` holds no secret, only which key it is: `kms = "arn:…"` and `public = "ecdsa-p256:…"`.
Whatever KMS answers is checked against that public key before it is handed on, so that a key swapped in the account,
or behind an alias, cannot sign under a name that the policy trusts. boto3 finds credentials and endpoint as it does
everywhere (AWS_PROFILE, AWS_ENDPOINT_URL, …).

A short message is sent as it is and KMS hashes it, a longer one as its digest; the signatures are of the same kind.
(Stand-ins for KMS, moto among them, know only the first.)
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory import files
from factory.errors import TrustError, UsageError
from factory.trust import keys, reading
from factory.trust.keys import PublicKey

if TYPE_CHECKING:
    from factory.trust.signers import Ask

MAX_BYTES = 16 << 10
_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]+\Z")
_TIMEOUT_S = 15
_RAW_BYTES = 4096  # AWS KMS API reference, Sign: the longest Message of the type RAW

_TWO_LINES = 'it holds two lines: kms = "arn:aws:kms:REGION:ACCOUNT:key/ID" and public = "ecdsa-p256:…"'
_MADE_FOR_SIGNING = "make one with: aws kms create-key --key-spec ECC_NIST_P256 --key-usage SIGN_VERIFY"
_LOG_IN = "log in to AWS: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOOK = "see whether this works: aws kms get-public-key --key-id ARN"
_HINTS = {
    "NoCredentialsError": _LOG_IN,
    "UnrecognizedClientException": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "AccessDeniedException": "this key's policy must let you use kms:Sign and kms:GetPublicKey",
    "NotFoundException": "there is no such key in that account and region: correct `kms` in the key's file",
    "DisabledException": "enable the key in KMS, or sign with another one",
    "KMSInvalidStateException": "the key is being deleted, or not ready: sign with another one",
    "InvalidKeyUsageException": _MADE_FOR_SIGNING,
    "ValidationException": _MADE_FOR_SIGNING,
}


@dataclass(frozen=True)
class KmsSigner:
    """Signs by KMS; `public` is the key that its signatures must verify with."""

    public: PublicKey
    arn: str

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, DER, checked. Raises TrustError where KMS refuses or holds another key."""
        with _explained(self.arn):
            answer = _client(self.arn).sign(KeyId=self.arn, SigningAlgorithm="ECDSA_SHA_256", **_asked(message))
        signature: bytes = answer["Signature"]
        if not self.public.verify(signature, message):
            raise TrustError(
                "KMS signed with another key than the one that its file names",
                where=self.arn,
                hint="compare `public` in the key's file and in trust/policy.toml with what KMS holds now",
            )
        return signature


def fetch_public(arn: str) -> PublicKey:
    """The public key of a KMS key. Raises UsageError where `arn` is none, TrustError where the key cannot serve."""
    if not _ARN.match(arn):
        raise UsageError(f"not the ARN of a KMS key: {arn[:200]}", hint="arn:aws:kms:REGION:ACCOUNT:key/ID")
    with _explained(arn):
        answer = _client(arn).get_public_key(KeyId=arn)
    try:
        public = keys.from_spki(answer["PublicKey"])
        if public.algorithm != keys.ECDSA_P256 or answer.get("KeyUsage") != "SIGN_VERIFY":
            raise ValueError("it is not made for signing with ECDSA on P-256")
    except ValueError as error:
        raise TrustError(f"this KMS key cannot serve: {error}", where=arn, hint=_MADE_FOR_SIGNING) from error
    return public


def save(path: Path, arn: str, public: PublicKey) -> None:
    """Write a key's file where there is none yet. Raises as `files.create_private`."""
    files.create_private(path, f'kms = "{arn}"\npublic = "{public}"\n'.encode())


def load(path: Path, ask: Ask) -> KmsSigner:
    """The signer that a key's file names; KMS is not asked before it signs, a passphrase never.

    Raises TrustError: no such file, one that others could have changed, or not the two lines it should be.
    """
    what = f"the key {path.stem}"
    try:
        data = tomllib.loads(reading.read_private_file(path, what, max_bytes=MAX_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise TrustError(f"{what} is not here", where=str(path), hint="factory key list") from error
    except (ValueError, RecursionError) as error:
        raise TrustError(f"{what} cannot be read: it is not TOML", where=str(path), hint=_TWO_LINES) from error
    arn, public = data.get("kms"), data.get("public")
    if set(data) != {"kms", "public"} or not isinstance(arn, str) or not _ARN.match(arn) or not isinstance(public, str):
        raise TrustError(f"{what} does not name a KMS key", where=str(path), hint=_TWO_LINES)
    try:
        key = keys.parse(public)
        if key.algorithm != keys.ECDSA_P256:
            raise ValueError("KMS signs with ecdsa-p256")
    except ValueError as error:
        raise TrustError(f"{what}: its `public` cannot serve: {error}", where=str(path), hint=_TWO_LINES) from error
    return KmsSigner(key, arn)


def _asked(message: bytes) -> dict[str, Any]:
    if len(message) <= _RAW_BYTES:
        return {"Message": message, "MessageType": "RAW"}
    return {"Message": hashlib.sha256(message).digest(), "MessageType": "DIGEST"}


def _client(arn: str) -> Any:
    """A client for the region of `arn`."""
    import boto3
    from botocore.config import Config

    found = _ARN.match(arn)
    assert found is not None
    config = Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S)
    return boto3.client("kms", region_name=found["region"], config=config)


@contextmanager
def _explained(arn: str) -> Iterator[None]:
    """Turns what boto3 raises into a TrustError that says what to do."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise TrustError(
            "this key is in AWS KMS, and boto3 is not installed", where=arn, hint="pip install boto3"
        ) from error
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise TrustError(f"KMS refused: {error}", where=arn, hint=_HINTS.get(code, _LOOK)) from error
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise TrustError(
            f"KMS cannot be asked: {error}", where=arn, hint=_HINTS.get(type(error).__name__, _LOOK)
        ) from error
