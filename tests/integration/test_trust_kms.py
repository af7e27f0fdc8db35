"""Keys in AWS KMS, against moto (real P-256 keys in process): what is signed is checked, what fails is explained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from moto import mock_aws

from factory.errors import TrustError, UsageError
from factory.trust import dsse, keys, signers
from factory.trust.signers import file, kms

REGION = "eu-west-1"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield boto3.client("kms", region_name=REGION)


def made(aws: Any, spec: str = "ECC_NIST_P256", usage: str = "SIGN_VERIFY") -> str:
    return str(aws.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"])


def never() -> bytes:
    raise AssertionError("the passphrase was asked for")


def saved(folder: Path, arn: str, public: keys.PublicKey) -> Path:
    path = folder / "keys" / "cloud.toml"
    kms.save(path, arn, public)
    return path


def test_kms_key_signs_an_envelope_that_verifies(aws: Any, tmp_path: Path) -> None:
    arn = made(aws)
    public = kms.fetch_public(arn)
    signer = signers.load(saved(tmp_path, arn, public), never)
    assert signer.public == public
    envelope = dsse.parse(dsse.sign("text/plain", b"hello", [signer]).raw)
    assert dsse.verify(envelope, [public]) == {public.fingerprint}
    assert dsse.verify(envelope, [file.signer(file.generate(keys.ECDSA_P256)).public]) == frozenset()


def test_kms_key_named_by_an_alias_signs(aws: Any) -> None:
    arn = made(aws)
    aws.create_alias(AliasName="alias/nightly", TargetKeyId=arn)
    alias = arn.rpartition(":")[0] + ":alias/nightly"
    public = kms.fetch_public(alias)
    assert public == kms.fetch_public(arn)
    assert public.verify(kms.KmsSigner(public, alias).sign(b"hello"), b"hello")


def test_kms_signs_long_messages_by_their_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto does not know MessageType DIGEST; this stand-in does what the API reference of KMS says of both types."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = keys.from_cryptography(private.public_key())
    types: list[str] = []

    class Kms:
        def sign(self, **asked: Any) -> dict[str, bytes]:
            assert asked["SigningAlgorithm"] == "ECDSA_SHA_256"
            assert 0 < len(asked["Message"]) <= 4096
            types.append(asked["MessageType"])
            how = Prehashed(SHA256()) if asked["MessageType"] == "DIGEST" else SHA256()
            return {"Signature": private.sign(asked["Message"], ec.ECDSA(how))}

    monkeypatch.setattr(kms, "_client", lambda _: Kms())
    signer = kms.KmsSigner(public, f"arn:aws:kms:{REGION}:123456789012:key/x")
    for size in (1, 4096, 4097, 1 << 20):
        assert public.verify(signer.sign(b"x" * size), b"x" * size)
    assert types == ["RAW", "RAW", "DIGEST", "DIGEST"]


def test_kms_key_other_than_its_file_names_is_refused(aws: Any, tmp_path: Path) -> None:
    other = file.signer(file.generate(keys.ECDSA_P256)).public
    signer = signers.load(saved(tmp_path, made(aws), other), never)
    with pytest.raises(TrustError, match="another key than the one that its file names") as refused:
        signer.sign(b"hello")
    assert "public" in str(refused.value.hint)


def test_kms_alias_moved_to_another_key_is_refused(aws: Any) -> None:
    first, second = made(aws), made(aws)
    aws.create_alias(AliasName="alias/nightly", TargetKeyId=first)
    alias = first.rpartition(":")[0] + ":alias/nightly"
    signer = kms.KmsSigner(kms.fetch_public(alias), alias)
    signer.sign(b"hello")
    aws.update_alias(AliasName="alias/nightly", TargetKeyId=second)
    with pytest.raises(TrustError, match="another key"):
        signer.sign(b"hello")


@pytest.mark.parametrize(
    ("spec", "usage"),
    [("RSA_2048", "SIGN_VERIFY"), ("ECC_NIST_P384", "SIGN_VERIFY"), ("ECC_SECG_P256K1", "SIGN_VERIFY")],
)
def test_kms_key_of_another_kind_is_refused(aws: Any, spec: str, usage: str) -> None:
    with pytest.raises(TrustError, match="cannot serve") as refused:
        kms.fetch_public(made(aws, spec, usage))
    assert "ECC_NIST_P256" in str(refused.value.hint)


@pytest.mark.parametrize(
    "arn", ["", "alias/x", "arn:aws:s3:::bucket", "arn:aws:kms:eu-west-1:1:key/x", 'arn:aws:kms:"']
)
def test_kms_arn_that_is_none_is_refused(arn: str) -> None:
    with pytest.raises(UsageError, match="not the ARN"):
        kms.fetch_public(arn)


def test_kms_key_that_is_not_there_is_explained(aws: Any) -> None:
    arn = f"arn:aws:kms:{REGION}:123456789012:key/5faf1802-5688-47ff-b081-8b088be1ec3f"
    public = file.signer(file.generate(keys.ECDSA_P256)).public
    for ask in (lambda: kms.fetch_public(arn), lambda: kms.KmsSigner(public, arn).sign(b"hello")):
        with pytest.raises(TrustError, match="KMS refused") as refused:
            ask()
        assert refused.value.where == arn
        assert "no such key" in str(refused.value.hint)


def test_kms_without_credentials_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(TrustError, match="KMS cannot be asked") as refused:
        kms.fetch_public(f"arn:aws:kms:{REGION}:123456789012:key/x")
    assert "AWS_PROFILE" in str(refused.value.hint)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "no url"])
def test_kms_out_of_reach_is_explained(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", endpoint)
    with pytest.raises(TrustError, match="KMS cannot be asked"):
        kms.fetch_public(f"arn:aws:kms:{REGION}:123456789012:key/x")


def test_kms_message_is_hashed_once(aws: Any) -> None:
    """Signed is the message, not its digest: else no other verifier would accept it."""
    arn = made(aws)
    public = kms.fetch_public(arn)
    signature = kms.KmsSigner(public, arn).sign(b"hello")
    assert public.verify(signature, b"hello")
    assert not public.verify(signature, hashlib.sha256(b"hello").digest())
