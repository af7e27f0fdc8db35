"""Private keys, one module per place they are kept in: a file, a KMS. The file's ending says which.

A Signer (`dsse.Signer`) signs and shows its public key, never the private one. Whether the key may sign what it is
asked to is the policy's business, not that of a signer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from factory.errors import TrustError
from factory.trust.dsse import Signer

Ask = Callable[[], bytes | None]
"""Gives the passphrase, or None where there is none; called only where a key wants one."""

REGISTRY: Mapping[str, str] = {".pem": "factory.trust.signers.file", ".toml": "factory.trust.signers.kms"}
"""Ending of a key's file -> the module whose `load(path, ask)` reads it; imported when used."""


def load(path: Path, ask: Ask) -> Signer:
    """The signer of a key's file. Raises TrustError where the key cannot be used."""
    module = REGISTRY.get(path.suffix)
    if module is None:
        raise TrustError(
            f"no key is kept in a file like {path.name}", where=str(path), hint=f"one of *{', *'.join(REGISTRY)}"
        )
    signer: Signer = import_module(module).load(path, ask)
    return signer


def no_passphrase() -> None:
    """An `Ask` that knows none."""
