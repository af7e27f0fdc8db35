"""Whose signature counts: a policy, and the keys that were compromised. Pure.

A signature counts for a statement made at a time (the statement's own) where its key has a role that is asked for, the
time lies in the key's window, the key is not a development key that the policy forbids, and the key was not
compromised, or was, but the signed revocation lists this very envelope as genuine. Signers are counted by material.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from factory.digest import Digest
from factory.trust.dsse import Envelope
from factory.trust.policy import Policy, TrustedKey


@dataclass(frozen=True)
class Authority:
    """`compromised`: fingerprint of a key -> the digests of the envelopes it has signed that still count."""

    policy: Policy
    compromised: Mapping[Digest, frozenset[Digest]] = field(default_factory=dict)

    def signers(self, envelope: Envelope, roles: Iterable[str], at: datetime) -> tuple[TrustedKey, ...]:
        """The keys whose signatures on `envelope` count for one of `roles`; sorted by name, each material once."""
        raise NotImplementedError

    def require(
        self, envelope: Envelope, roles: Iterable[str], at: datetime, what: str, *, threshold: int = 1
    ) -> tuple[TrustedKey, ...]:
        """The keys that count, of which there must be `threshold`.

        Raises the TrustError that says best why not: UnsignedError (no signature, a bad one, an unknown key, the wrong
        role, too few), ExpiredError (outside the key's window), RevokedError (a compromised key).
        """
        raise NotImplementedError
