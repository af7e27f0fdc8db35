"""Whose signature counts: a policy, and the keys that were compromised. Pure.

A signature counts for a statement made at a time (the statement's own) where its key has a role that is asked for, the
time lies in the key's window, the key is not a development key that the policy forbids, and the key was not
compromised, or was, but the signed revocation lists this very envelope as genuine. Signers are counted by material.
What does not count never helps and never harms: a signature that nobody knows is only told of where too few count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from factory.digest import Digest, is_digest
from factory.errors import ExpiredError, RevokedError, TrustError, UnsignedError
from factory.trust import dsse
from factory.trust.dsse import Envelope, Signature
from factory.trust.policy import Policy, TrustedKey

_Objection = tuple[type[TrustError], str]
"""Why a signature does not count: the error it makes, and the words after `is signed by`, or a sentence of its own."""

_DEVELOPMENT = "a development key, which the policy does not allow"
_WORST_FIRST = (RevokedError, ExpiredError, UnsignedError)
_MOST_TOLD = 4
_HINT = "the policy that judges does not let its signers sign that; factory policy check FILE shows whom it trusts"
_DEVELOPMENT_HINT = (
    "where it was signed, a real key takes over: factory channels refresh --adopt; then factory bake signs images anew"
)


@dataclass(frozen=True)
class Authority:
    """`compromised`: fingerprint of a key -> the digests of the envelopes it has signed that still count."""

    policy: Policy
    compromised: Mapping[Digest, frozenset[Digest]] = field(default_factory=dict)

    def signers(self, envelope: Envelope, roles: Iterable[str], at: datetime) -> tuple[TrustedKey, ...]:
        """The keys whose signatures on `envelope` count for one of `roles`; sorted by name, each material once."""
        wanted = frozenset(roles)
        able = {
            key.public.fingerprint: key
            for key in sorted(self.policy.keys.values(), key=lambda key: key.name, reverse=True)
            if self._objection(key, envelope, wanted, at) is None
        }
        good = dsse.verify(envelope, (key.public for key in able.values())) if able else frozenset()
        return tuple(sorted((able[fingerprint] for fingerprint in good), key=lambda key: key.name))

    def require(
        self, envelope: Envelope, roles: Iterable[str], at: datetime, what: str, *, threshold: int = 1
    ) -> tuple[TrustedKey, ...]:
        """The keys that count, of which there must be `threshold`; fewer than one is never enough.

        Raises the TrustError that says best why not: UnsignedError (no signature, a bad one, an unknown key, the wrong
        role, too few), ExpiredError (outside the key's window), RevokedError (a compromised key).
        """
        wanted = frozenset(roles)
        counted = self.signers(envelope, wanted, at)
        if len(counted) >= max(1, threshold):
            return counted
        raise self._refusal(envelope, wanted, at, what, counted, threshold)

    def _objection(self, key: TrustedKey, envelope: Envelope, roles: frozenset[str], at: datetime) -> _Objection | None:
        """Why a good signature by `key` would not count; None where it would."""
        kept = self.compromised.get(key.public.fingerprint)
        if kept is not None and envelope.digest not in kept:
            return RevokedError, f"{key.name}, a key that was compromised; this envelope is not among those kept"
        if key.development and not self.policy.allow_development:
            return UnsignedError, f"{key.name}, {_DEVELOPMENT}"
        if not key.roles & roles:
            return UnsignedError, f"{key.name}, who is no {_either(roles)} (roles: {', '.join(sorted(key.roles))})"
        if key.not_before is not None and not key.has_begun(at):
            return ExpiredError, f"{key.name}, whose window begins {_day(key.not_before)}, later than it ({_day(at)})"
        if key.not_after is not None and key.has_ended(at):
            return ExpiredError, f"{key.name}, whose window ended {_day(key.not_after)}, earlier than it ({_day(at)})"
        return None

    def _refusal(
        self, envelope: Envelope, roles: frozenset[str], at: datetime, what: str,
        counted: tuple[TrustedKey, ...], threshold: int,
    ) -> TrustError:  # fmt: skip
        objections = {self._told(envelope, signature, roles, at) for signature in envelope.signatures} - {None}
        ordered = sorted((item for item in objections if item), key=lambda item: (_WORST_FIRST.index(item[0]), item[1]))
        kind = ordered[0][0] if ordered else UnsignedError
        reasons = [text for _, text in ordered[:_MOST_TOLD]]
        if len(ordered) > _MOST_TOLD:
            reasons.append(f"and {len(ordered) - _MOST_TOLD} more signatures do not count")
        if threshold > 1:
            have = f"{len(counted)} ({', '.join(key.name for key in counted)})" if counted else "none"
            reasons.insert(0, f"needs {threshold} {_either(f'{role}s' for role in roles)}, has {have}")
        elif not envelope.signatures:
            reasons.insert(0, "is not signed")
        development = not self.policy.allow_development and any(_DEVELOPMENT in text for _, text in ordered)
        return kind(f"{what} {'; it '.join(reasons)}", hint=_DEVELOPMENT_HINT if development else _HINT)

    def _told(self, envelope: Envelope, signature: Signature, roles: frozenset[str], at: datetime) -> _Objection | None:
        """Why one signature does not count, as a predicate (`is …`); None where it does."""
        alone = replace(envelope, signatures=(signature,))
        for key in self.policy.keys.values():
            if dsse.verify(alone, (key.public,)):
                objection = self._objection(key, envelope, roles, at)
                return objection and (objection[0], f"is signed by {objection[1]}")
        if signature.keyid is None:
            return UnsignedError, "bears a signature that no key of the policy made"
        for key in self.policy.keys.values():
            if key.public.fingerprint == signature.keyid:
                return UnsignedError, f"bears a signature said to be {key.name}'s, which is not: it does not verify"
        named = signature.keyid if is_digest(signature.keyid) else repr(signature.keyid[:40])
        return UnsignedError, f"is signed by a key that the policy does not know ({named})"


def _either(roles: Iterable[str]) -> str:
    return " or ".join(sorted(roles))


def _day(moment: datetime) -> str:
    from factory.trust.statements import time_text

    return time_text(moment).removesuffix("T00:00:00Z")
