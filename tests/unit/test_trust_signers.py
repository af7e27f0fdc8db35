"""Private keys: written once and for their owner alone, used only where nobody else could have read or swapped them."""

from __future__ import annotations

import base64
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519

from factory.errors import FactoryError, TrustError, UsageError
from factory.trust import keys, signers
from factory.trust.signers import file

ARN = "arn:aws:kms:eu-west-1:123456789012:key/5faf1802-5688-47ff-b081-8b088be1ec3f"


def never() -> bytes:
    raise AssertionError("the passphrase was asked for")


@pytest.fixture(params=keys.ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "alice.pem"


@pytest.fixture
def umask_0() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def as_pem(private: object) -> bytes:
    return private.private_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_key_saved_and_loaded_signs_as_itself(path: Path, algorithm: str) -> None:
    private = file.generate(algorithm)
    file.save(path, private, None)
    signer = signers.load(path, never)
    assert signer.public == file.signer(private).public
    assert signer.public.algorithm == algorithm
    assert signer.public.verify(signer.sign(b"hello"), b"hello")
    assert not signer.public.verify(signer.sign(b"hello"), b"hellp")


def test_key_encrypted_asks_once_and_wants_the_right_passphrase(path: Path, algorithm: str) -> None:
    private = file.generate(algorithm)
    file.save(path, private, "grüne Wiese".encode())
    asked: list[None] = []

    def ask() -> bytes:
        asked.append(None)
        return "grüne Wiese".encode()

    assert signers.load(path, ask).public == file.signer(private).public
    assert len(asked) == 1
    with pytest.raises(TrustError, match="wrong passphrase") as wrong:
        signers.load(path, lambda: b"red")
    assert wrong.value.where == str(path)
    for nothing in (None, b""):
        with pytest.raises(TrustError, match="its passphrase is not known") as missing:
            signers.load(path, lambda said=nothing: said)  # type: ignore[misc]
        assert "FACTORY_KEY_PASSPHRASE_FILE" in str(missing.value.hint)


@pytest.mark.parametrize("passphrase", [b"", b"x" * 1024])
def test_key_with_a_passphrase_that_cannot_serve_is_not_written(path: Path, passphrase: bytes) -> None:
    with pytest.raises(UsageError, match="1 to 1023 bytes"):
        file.save(path, file.generate(), passphrase)
    assert not path.parent.exists()


def test_key_of_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(UsageError, match="rsa"):
        file.generate("rsa")


@pytest.mark.usefixtures("umask_0")
def test_key_is_written_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    file.save(path, file.generate(), None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["alice.pem"]


@pytest.mark.usefixtures("umask_0")
def test_key_is_never_readable_by_others_while_it_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def spied(real: Callable[..., object]) -> Callable[..., object]:
        def spy(*args: object, **options: object) -> object:
            seen.extend((entry.name, stat.S_IMODE(entry.stat().st_mode)) for entry in path.parent.iterdir())
            return real(*args, **options)

        return spy

    for name in ("fchmod", "fsync", "link"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    file.save(path, file.generate(), None)
    assert len(seen) >= 3
    assert {mode for _, mode in seen} == {0o600}
    assert "alice.pem" not in [name for name, _ in seen[:3]]  # its name appears last, and whole


def test_key_is_never_overwritten(path: Path) -> None:
    file.save(path, file.generate(), None)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"alice\.pem is there already"):
        file.save(path, file.generate(), None)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_key_is_not_written_through_a_link(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        file.save(path, file.generate(), None)
    assert not (tmp_path / "elsewhere").exists()


def test_key_written_by_many_at_once_is_one_of_theirs(path: Path) -> None:
    made = [file.generate() for _ in range(8)]
    won: list[keys.PublicKey] = []

    def write(private: ed25519.Ed25519PrivateKey) -> None:
        try:
            file.save(path, private, None)
        except UsageError:
            return
        won.append(file.signer(private).public)

    threads = [threading.Thread(target=write, args=(private,)) for private in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [signers.load(path, never).public]


def test_key_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file, not a folder")
    with pytest.raises(FactoryError, match=r"cannot write alice\.pem"):
        file.save(tmp_path / "keys" / "alice.pem", file.generate(), None)


def test_key_whose_write_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FactoryError, match="No space left"):
        file.save(path, file.generate(), None)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610, 0o644, 0o777])
def test_key_that_others_can_use_is_refused_with_what_to_type(path: Path, mode: int) -> None:
    file.save(path, file.generate(), None)
    path.chmod(mode)
    with pytest.raises(TrustError, match=f"{mode:04o}") as refused:
        signers.load(path, never)
    assert refused.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    signers.load(path, never)


def test_key_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.save(path, file.generate(), None)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(TrustError, match="belongs to another user"):
        signers.load(path, never)


def test_key_behind_a_link_is_refused(path: Path) -> None:
    file.save(path, file.generate(), None)
    link = path.with_name("bob.pem")
    link.symlink_to(path)
    with pytest.raises(TrustError, match="is a link"):
        signers.load(link, never)


def test_key_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(TrustError, match="the key alice is not here"):
        signers.load(path, never)


def test_key_in_a_file_of_another_ending_is_refused(path: Path) -> None:
    with pytest.raises(TrustError, match="no key is kept in a file like"):
        signers.load(path.with_suffix(".key"), never)


OTHERS: dict[str, Callable[[], object]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed448": ed448.Ed448PrivateKey.generate,
    "x25519": x25519.X25519PrivateKey.generate,
    "dsa": lambda: dsa.generate_private_key(1024),
}


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_key_of_another_kind_is_refused(path: Path, kind: str) -> None:
    put(path, as_pem(OTHERS[kind]()))
    with pytest.raises(TrustError, match="only Ed25519 and ECDSA P-256"):
        signers.load(path, never)


GARBAGE = {
    "empty": b"",
    "text": b"hello\n",
    "bytes": bytes(range(256)),
    "public": file.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    "cut": as_pem(file.generate())[:60],
    "wrong base64": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "ed25519 that says it is ed448": base64.b64encode(
        bytes.fromhex("302e020100300506032b656f04220420") + bytes(32)
    ).join((b"-----BEGIN PRIVATE KEY-----\n", b"\n-----END PRIVATE KEY-----\n")),
    "large": b"x" * (file.MAX_BYTES + 1),
}


@pytest.mark.parametrize("kind", sorted(GARBAGE))
def test_key_that_is_garbage_is_refused(path: Path, kind: str) -> None:
    put(path, GARBAGE[kind])
    with pytest.raises(TrustError, match="the key alice"):
        signers.load(path, never)


def test_key_encrypted_and_cut_is_refused(path: Path) -> None:
    file.save(path, file.generate(), b"secret")
    put(path, path.read_bytes()[:120])
    with pytest.raises(TrustError, match="wrong passphrase, or a damaged file"):
        signers.load(path, lambda: b"secret")


def test_signer_does_not_show_its_private_key() -> None:
    private = file.generate()
    assert "private" not in repr(file.signer(private)).lower()


KMS_GARBAGE = {
    "empty": "",
    "no toml": "kms = ",
    "deep": "kms = " + "[" * 5000,
    "no public": f'kms = "{ARN}"\n',
    "no arn": f'kms = "alias/me"\npublic = "{file.signer(file.generate(keys.ECDSA_P256)).public}"\n',
    "of S3": f'kms = "arn:aws:s3:::bucket"\npublic = "{file.signer(file.generate(keys.ECDSA_P256)).public}"\n',
    "number": "kms = 3\npublic = 4\n",
    "more": f'kms = "{ARN}"\npublic = "{file.signer(file.generate(keys.ECDSA_P256)).public}"\nregion = "x"\n',
    "ed25519": f'kms = "{ARN}"\npublic = "{file.signer(file.generate()).public}"\n',
    "bad public": f'kms = "{ARN}"\npublic = "ecdsa-p256:AAAA"\n',
}


@pytest.mark.parametrize("kind", sorted(KMS_GARBAGE))
def test_kms_file_that_names_no_key_is_refused(path: Path, kind: str) -> None:
    put(path.with_suffix(".toml"), KMS_GARBAGE[kind].encode())
    with pytest.raises(TrustError, match="the key alice") as refused:
        signers.load(path.with_suffix(".toml"), never)
    assert "kms = " in str(refused.value.hint)
