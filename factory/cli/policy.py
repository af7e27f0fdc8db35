"""`factory policy`: what a trust policy says, and a root key's signature on it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output
from factory.errors import TrustError, UsageError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.trust.policy import Policy


@click.group()
def policy() -> None:
    """What the trust policy says, and its signature."""


@policy.command("check")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def check(obj: dict[str, Any], /, file: Path | None, as_json: bool) -> None:
    """Read a policy (the checkout's): its digest, keys, channels, and what is likely not meant.

    Exits 2 where it has faults; the digest is what a deployer pins with --policy-digest.
    """
    from factory.trust import policy as policies

    layout = Layout(obj["folder"].resolve())
    path = file if file is not None else layout.policy
    try:
        found = policies.read(path)
    except FileNotFoundError:
        raise UsageError(
            "there is no trust policy here", where=str(path), hint="factory key new NAME --role ROLE begins one"
        ) from None
    now = datetime.now(UTC)
    warnings = policies.warnings(found, now) + ([] if file is not None else _of_checkout(layout, found, now))
    if as_json:
        output.document(_json(found, warnings))
        return
    for line in _lines(found, now):
        output.data(line)
    for warning in warnings:
        output.say(f"{output.colour('warning:', 'yellow')} {warning}")


@policy.command("sign")
@click.option("--key", "name", metavar="NAME", help="The root key to sign with.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def sign(obj: dict[str, Any], /, name: str | None, as_json: bool) -> None:
    """Sign the checkout's policy with a root key, into trust/policy.dsse: deployers whose policy trusts it follow."""
    from factory.cli.key import ask_known
    from factory.release import keys
    from factory.release.signing import Signing

    layout = Layout(obj["folder"].resolve())
    signed = keys.sign_policy(layout, Signing.open(layout, key=name, ask=ask_known, say=output.say))
    if as_json:
        output.document({"version": signed.version, "digest": signed.digest, "path": str(layout.signed_policy)})
    else:
        output.say(f"signed version {signed.version} of the policy: {layout.signed_policy}; commit it")
        output.data(signed.digest)


def _of_checkout(layout: Layout, found: Policy, now: datetime) -> list[str]:
    """What is amiss in trust/ with the checkout's policy."""
    if found.allow_development or not any(key.development for key in found.keys.values()):
        return _of_signed(layout, found, now)
    from factory.release import adopt

    return _of_signed(layout, found, now) + [
        f"{file} rests on development keys, which count no more: factory channels refresh --adopt, then factory bake"
        for file in adopt.resting(layout, found)
    ]


def _of_signed(layout: Layout, found: Policy, now: datetime) -> list[str]:
    """What is amiss with trust/policy.dsse beside the policy; nothing where there is none."""
    from factory.trust import reading, signed_policy
    from factory.trust.authority import Authority

    try:
        raw = reading.read_file(layout.signed_policy, "trust/policy.dsse", max_bytes=signed_policy.MAX_BYTES)
        envelope, signed = signed_policy.read(raw)
        if signed.digest != found.digest:
            return [f"trust/policy.dsse holds version {signed.version}, not this one: factory policy sign"]
        Authority(found).require(envelope, ["root"], now, "trust/policy.dsse")
    except FileNotFoundError:
        return []
    except TrustError as error:
        return [error.message]
    return []


def _lines(found: Policy, now: datetime) -> list[str]:
    from factory.cli.key import roles_of, window

    lines = [f"version {found.version}", f"digest {found.digest}", f"fresh for {found.fresh_days} days"]
    if found.allow_development:
        lines.append("development keys are allowed")
    for key in found.keys.values():
        mark = "  development" * key.development + "  ended" * key.has_ended(now)
        lines.append(f"key {key.name}  {','.join(roles_of(key))}  {window(key)}  {key.public.fingerprint}{mark}")
    for channel in found.channels.values():
        age = f"  at most {channel.max_age_days} days old" if channel.max_age_days is not None else ""
        lines.append(f"channel {channel.name}  approvals {channel.approvals}  {' '.join(channel.requires)}{age}")
    return lines


def _json(found: Policy, warnings: list[str]) -> dict[str, Any]:
    from factory.cli.key import key_json

    return {
        "version": found.version,
        "digest": found.digest,
        "fresh_days": found.fresh_days,
        "allow_development_keys": found.allow_development,
        "keys": [key_json(key) for key in found.keys.values()],
        "channels": [{**vars(channel), "requires": list(channel.requires)} for channel in found.channels.values()],
        "warnings": warnings,
    }
