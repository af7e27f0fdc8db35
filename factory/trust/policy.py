"""trust/policy.toml: who may sign what, until when, and what each channel asks for. People write it; this reads it.

`loads` collects every fault before it raises one SpecError. A policy's digest is that of the file's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from factory.digest import Digest
from factory.trust.keys import PublicKey

ROLES = ("builder", "verifier", "approver", "root")
DEFAULT_FRESH_DAYS = 14


@dataclass(frozen=True)
class TrustedKey:
    """`[key.NAME]`. Its signatures count for statements made from `not_before` to `not_after` (UTC; None: no bound)."""

    name: str
    public: PublicKey
    roles: frozenset[str]
    not_before: datetime | None = None
    not_after: datetime | None = None
    development: bool = False


@dataclass(frozen=True)
class ChannelRule:
    """`[channel.NAME]`. `approvals`: how many approvers must sign; with 0 a verifier's signature is enough.

    `requires`: `verified`, `check:NAME`, `no-cve:SEVERITY`. `max_age_days`: since the bake; None: no limit.
    """

    name: str
    approvals: int = 1
    requires: tuple[str, ...] = ("verified",)
    max_age_days: int | None = None


@dataclass(frozen=True)
class Policy:
    """A policy as a whole. `fresh_days`: how long a signed head of a channel, or of the revocations, is good for.

    `allow_development`: whether the signatures of keys marked `development` count at all.
    """

    version: int
    digest: Digest
    keys: Mapping[str, TrustedKey] = field(default_factory=dict)
    channels: Mapping[str, ChannelRule] = field(default_factory=dict)
    allow_development: bool = False
    fresh_days: int = DEFAULT_FRESH_DAYS
