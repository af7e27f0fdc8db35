"""Private keys in files: PKCS #8 in PEM, mode 0600, encrypted where a passphrase is given.

Never overwrites a key, never leaves half of one, and at no moment can others read it. A key that they could read, or
that somebody else put there, is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from factory import files
from factory.errors import TrustError, UsageError
from factory.trust import keys, reading
from factory.trust.keys import PublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from factory.trust.signers import Ask

    PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

MAX_BYTES = 16 << 10
MAX_PASSPHRASE_BYTES = 1023  # what OpenSSL takes


@dataclass(frozen=True)
class FileSigner:
    """Signs with a private key held in memory. ECDSA signatures are DER."""

    public: PublicKey
    _private: PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.sign(message, ec.ECDSA(SHA256()))
        return self._private.sign(message)


def signer(private: PrivateKey) -> FileSigner:
    """The signer of a private key. ValueError where it is of a kind that is not known."""
    return FileSigner(keys.from_cryptography(private.public_key()), private)


def generate(algorithm: str = keys.ED25519) -> PrivateKey:
    """A new private key of one of `keys.ALGORITHMS`."""
    if algorithm not in keys.ALGORITHMS:
        raise UsageError(f"no such kind of key: {algorithm}", hint=f"one of: {', '.join(keys.ALGORITHMS)}")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if algorithm == keys.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def save(path: Path, private: PrivateKey, passphrase: bytes | None) -> None:
    """Write a key where there is none yet.

    Raises UsageError where the passphrase cannot serve, else as `files.create_private`.
    """
    files.create_private(path, _pem(private, passphrase))


def load(path: Path, ask: Ask) -> FileSigner:
    """The signer of a key's file; `ask` is called where it is encrypted.

    Raises TrustError: no such file, others can read it, another's file, a link, no key, a wrong passphrase.
    """
    what = f"the key {path.stem}"
    try:
        data = reading.read_private_file(path, what, max_bytes=MAX_BYTES)
    except FileNotFoundError as error:
        raise TrustError(f"{what} is not here", where=str(path), hint="factory key list") from error
    try:
        return signer(_private(data, path, what, ask))
    except ValueError as error:
        raise TrustError(f"{what} is of another kind: {error}", where=str(path)) from error


def _pem(private: PrivateKey, passphrase: bytes | None) -> bytes:
    from cryptography.hazmat.primitives import serialization

    if passphrase is not None and not 0 < len(passphrase) <= MAX_PASSPHRASE_BYTES:
        raise UsageError(f"a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes")
    encryption = (
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    )
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _private(data: bytes, path: Path, what: str, ask: Ask) -> PrivateKey:
    """The private key in `data`, of whatever kind; `keys` says whether it is one of ours."""
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    passphrase: bytes | None = None
    if data.lstrip().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"):
        passphrase = ask()
        if not passphrase:
            raise TrustError(
                f"{what} is encrypted, and its passphrase is not known",
                where=str(path),
                hint="set FACTORY_KEY_PASSPHRASE_FILE (or FACTORY_KEY_PASSPHRASE), or run this on a terminal",
            )
    try:
        private: PrivateKey = load_pem_private_key(data, passphrase)  # type: ignore[assignment]
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        why = "wrong passphrase, or a damaged file" if passphrase else "it is no private key in PEM (PKCS #8)"
        raise TrustError(f"{what} cannot be read: {why}", where=str(path)) from error
    return private
