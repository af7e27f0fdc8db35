"""trust/policy.toml: who may sign what, until when, and what each channel asks for. People write it; this reads it.

`loads` collects every fault before it raises one SpecError. A policy's digest is that of the file's bytes. In one
policy a key's material stands once: who has signed is counted by material, so two names for it could only mislead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from factory import digest, schema
from factory.digest import Digest
from factory.schema import Limits, Table
from factory.trust import keys, reading
from factory.trust.keys import PublicKey

ROLES = ("builder", "verifier", "approver", "root")
SEVERITIES = ("low", "medium", "high", "critical")
DEFAULT_FRESH_DAYS = 14
MAX_BYTES = 1 << 20
MAX_VERSION = 2**53 - 1
MAX_APPROVALS = 16
MAX_DAYS = 3650

_TOP_KEYS = ("version", "allow_development_keys", "fresh_days", "key", "channel")
_KEY_KEYS = ("public", "roles", "not_before", "not_after", "development")
_CHANNEL_KEYS = ("approvals", "requires", "max_age_days")
NAMES = Limits(pattern=re.compile(r"[a-z0-9-]{1,63}"), described="1 to 63 of a-z, 0-9 and -")
_ROLE = Limits(choices=ROLES)
_CHECK = re.compile(r"check:[\x21-\x7e]{1,200}")


@dataclass(frozen=True)
class TrustedKey:
    """`[key.NAME]`. Its signatures count for statements made from `not_before` to `not_after` (UTC; None: no bound)."""

    name: str
    public: PublicKey
    roles: frozenset[str]
    not_before: datetime | None = None
    not_after: datetime | None = None
    development: bool = False

    def has_begun(self, at: datetime) -> bool:
        """Whether `at` lies at or after the window's first second."""
        return self.not_before is None or self.not_before <= at

    def has_ended(self, at: datetime) -> bool:
        """Whether `at` lies after the window's last second."""
        return self.not_after is not None and self.not_after < at


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


def read(path: Path, *, below: Path | None = None) -> Policy:
    """The policy in a file. FileNotFoundError where there is none; raises TamperedError (a link, also on the way from
    `below`; no file, too large), SpecError (what it says is not allowed)."""
    return loads(read_bytes(path, below=below), path.name)


def read_bytes(path: Path, *, below: Path | None = None) -> bytes:
    """The bytes of a policy's file. Raises as `read` does, but never a SpecError."""
    return reading.read_file(path, "the trust policy", max_bytes=MAX_BYTES, below=below)


def loads(raw: bytes, name: str = "policy.toml") -> Policy:
    """The policy that a file's bytes are; `name` names it in errors. Raises one SpecError with every fault."""
    data, faults = schema.parse(raw, name)
    top = Table(data, (), faults)
    version = _number(top, "version", 1, MAX_VERSION, required=True)
    fresh_days = _number(top, "fresh_days", 1, MAX_DAYS)
    allow_development = bool(top.take("allow_development_keys", bool, "true or false"))
    trusted = {key: _key(key, table) for key, table in top.table("key").tables(NAMES).items()}
    _refuse_twins(trusted, top)
    channels = {channel: _channel(channel, table) for channel, table in top.table("channel").tables(NAMES).items()}
    top.close(_TOP_KEYS)
    faults.check()
    return Policy(
        version=version or 0,
        digest=digest.of_bytes(raw),
        keys=trusted,
        channels=channels,
        allow_development=allow_development,
        fresh_days=fresh_days or DEFAULT_FRESH_DAYS,
    )


def warnings(policy: Policy, now: datetime) -> list[str]:
    """What is allowed in a policy and yet is likely not meant, a sentence each; the gravest first."""
    counting = [key for key in policy.keys.values() if policy.allow_development or not key.development]
    valid = [key for key in counting if key.has_begun(now) and not key.has_ended(now)]
    found = []
    if policy.allow_development:
        found.append("development keys may sign: whoever can change this file can make one")
    for role in ROLES:
        if not any(role in key.roles for key in valid):
            found.append(f"no key that is valid now has the role {role}")
    approvers = [key for key in valid if "approver" in key.roles]
    for channel in policy.channels.values():
        if channel.approvals > len(approvers):
            found.append(
                f"channel {channel.name} needs {channel.approvals} approvers; valid now: "
                + (", ".join(key.name for key in approvers) or "none")
            )
    for key in policy.keys.values():
        if key.development and not policy.allow_development:
            found.append(f"key {key.name} is a development key and counts for nothing here")
        elif key.not_after is not None and now <= key.not_after < now + timedelta(days=policy.fresh_days):
            found.append(f"the window of key {key.name} ends soon")
        elif not key.has_begun(now):
            found.append(f"the window of key {key.name} has not begun")
    if not policy.channels:
        found.append("there is no channel: nothing can be promoted")
    return found


_NOT_A_KEY = PublicKey(keys.ED25519, bytes(32))
"""Stands in while a file with faults is read on; never seen outside."""


def _key(name: str, table: Table) -> TrustedKey:
    public = _NOT_A_KEY
    try:
        public = keys.parse(table.text("public", required=True) or str(_NOT_A_KEY))
    except ValueError as error:
        table.fault("public", str(error))
    roles = table.texts("roles", _ROLE, least=1)
    if not table.has("roles"):
        table.fault("roles", f"the key is missing: at least one of {', '.join(ROLES)}")
    begin, end = _time(table, "not_before"), _time(table, "not_after")
    if begin is not None and end is not None and begin >= end:
        table.fault("not_after", "must be later than not_before")
    development = bool(table.take("development", bool, "true or false"))
    table.close(_KEY_KEYS)
    return TrustedKey(name, public, frozenset(roles or ()), begin, end, development)


def _refuse_twins(trusted: Mapping[str, TrustedKey], top: Table) -> None:
    first: dict[PublicKey, str] = {_NOT_A_KEY: ""}
    for name, key in trusted.items():
        other = first.setdefault(key.public, name)
        if other not in ("", name):
            place = top.at("key", name, "public")
            top.faults.add(place, f"this is the same key as {top.at('key', other)}; a key stands here once")


def _channel(name: str, table: Table) -> ChannelRule:
    approvals = _number(table, "approvals", 0, MAX_APPROVALS)
    max_age_days = _number(table, "max_age_days", 1, MAX_DAYS)
    requires = table.texts("requires")
    for requirement in requires or ():
        if (problem := _requirement_problem(requirement)) is not None:
            table.fault("requires", problem)
    table.close(_CHANNEL_KEYS)
    default = ChannelRule(name)
    return ChannelRule(
        name,
        default.approvals if approvals is None else approvals,
        default.requires if requires is None else requires,
        max_age_days,
    )


def _requirement_problem(text: str) -> str | None:
    """What is wrong with one of `requires`; None for `verified`, `check:NAME` and `no-cve:SEVERITY`."""
    valid = ("verified", *(f"no-cve:{severity}" for severity in SEVERITIES))
    if text in valid or _CHECK.fullmatch(text):
        return None
    if text.partition(":")[0] == "check":
        return f"{schema.quoted(text)} must be check: and the name of a check, without spaces"
    return f"{schema.quoted(text)} is no requirement; {schema.suggestion(text, (*valid, 'check:NAME'))}"


def _number(table: Table, key: str, least: int, most: int, *, required: bool = False) -> int | None:
    """A whole number in [least, most]; None where it is absent (or faulty)."""
    value = table.take(key, int, f"a whole number, {least} to {most}", required=required)
    if value is not None and not least <= value <= most:
        close = min(max(value, least), most)
        table.fault(key, f"{schema.quoted(value)} is out of range {least} to {most} (nearest: {close})")
        return None
    return None if value is None else int(value)


def _time(table: Table, key: str) -> datetime | None:
    """A time with its offset from UTC, as UTC; None where it is absent (or faulty)."""
    value: datetime | None = table.take(key, datetime, "a time like 2027-06-01T00:00:00Z")
    if value is None:
        return None
    if value.tzinfo is None:
        table.fault(key, "must say its offset from UTC, as in 2027-06-01T00:00:00Z")
        return None
    try:
        return value.astimezone(UTC)
    except OverflowError:
        table.fault(key, "lies outside the years 1 to 9999")
        return None
