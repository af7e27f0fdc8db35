"""trust/policy.dsse: a policy that travels, signed by root keys. It may only ever replace an older one.

A deployer judges by a policy of its own. One that comes with a bundle or a checkout takes its place only where its
version is higher and a root key of the deployer's own policy signed it: in that key's window now, not compromised, not
a development key unless the deployer's own policy allows those. A version that is not higher changes nothing,
whoever signed it. A higher one that no root key of the deployer's signed is refused, not passed over: somebody wants
the deployer to believe it. What carries is not chained: the new policy's keys never vouch for itself.

Whoever holds a root key can also withhold the revocation of that key; `--seen` finds that where it has seen the
revocation before, and nothing does where it has not. Where a root key was stolen, deployers need a policy without it
from another hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from factory.digest import Digest
from factory.errors import SpecError, TamperedError
from factory.trust import dsse, policy
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope, Signer
from factory.trust.policy import Policy

PAYLOAD_TYPE = "application/vnd.factory.policy+toml"
MAX_BYTES = 2 * policy.MAX_BYTES
"""Of an envelope: base64 takes a third more than what it carries."""

_WHAT = "the policy in trust/policy.dsse"
_FILE = "trust/policy.dsse"


def sign(raw: bytes, signers: Sequence[Signer]) -> Envelope:
    """The envelope of a policy's bytes. Raises SpecError where they are no policy, TrustError where a signer fails."""
    policy.loads(raw)
    return dsse.sign(PAYLOAD_TYPE, raw, signers)


def read(raw: bytes) -> tuple[Envelope, Policy]:
    """What an envelope says, nothing of it verified yet. Raises TamperedError where it is no signed policy."""
    envelope = dsse.parse(raw, _FILE, max_bytes=MAX_BYTES)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TamperedError(f"{_FILE} carries {envelope.payload_type[:80]!r}, not a policy", where=_FILE)
    if len(envelope.payload) > policy.MAX_BYTES:
        raise TamperedError(f"{_WHAT} is too large: at most {policy.MAX_BYTES} bytes are read", where=_FILE)
    try:
        return envelope, policy.loads(envelope.payload, _FILE)
    except SpecError as error:
        raise TamperedError(f"{_WHAT} is no policy: {error.message}", where=_FILE) from error


def newest(
    own: Policy, raw: bytes | None, now: datetime, *, compromised: Mapping[Digest, frozenset[Digest]] | None = None
) -> Policy:
    """The policy to judge by: `own`, or the newer one in the envelope `raw` (None: there is none).

    Raises TamperedError where `raw` is no signed policy; UnsignedError, ExpiredError or RevokedError where its version
    is higher and no root key of `own` vouches for it.
    """
    if raw is None:
        return own
    envelope, found = read(raw)
    if found.version <= own.version:
        return own
    what = f"the policy of version {found.version} in {_FILE} (yours is version {own.version})"
    Authority(own, compromised or {}).require(envelope, ["root"], now, what)
    return found
