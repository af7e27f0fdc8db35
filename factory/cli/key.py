"""`factory key`: make, list, rotate and withdraw the keys that sign. Never shows a private key."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, times
from factory.errors import TrustError, UsageError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.release.keys import Listed, Made, Wanted
    from factory.trust.policy import TrustedKey

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_KMS = click.option("--kms", "arn", metavar="ARN", help="The private key lies in AWS KMS (ECC_NIST_P256).")
_NOT_AFTER = click.option("--not-after", metavar="TIME", help="Its window ends then, like 2027-06-01T00:00:00Z.")
_PASSPHRASE = click.option(
    "--passphrase",
    is_flag=True,
    help="Encrypt it: FACTORY_KEY_PASSPHRASE, FACTORY_KEY_PASSPHRASE_FILE, or asked for.",
)


@click.group()
def key() -> None:
    """Make, list, rotate and withdraw the keys that sign."""


@key.command("new")
@click.argument("name", metavar="NAME")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="builder, verifier, approver or root; repeatable.")
@click.option("--algorithm", type=click.Choice(["ed25519", "ecdsa-p256"]), default="ed25519", show_default=True)
@_PASSPHRASE
@_KMS
@_NOT_AFTER
@click.option("--no-policy", is_flag=True, help="Leave trust/policy.toml alone; print the lines for it.")
@_JSON
@click.pass_obj
def new(
    obj: dict[str, Any], /, name: str, roles: tuple[str, ...], algorithm: str, passphrase: bool, arn: str | None,
    not_after: str | None, no_policy: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a key, and let trust/policy.toml trust it in each --role."""
    from factory.release import keys

    if arn is not None and passphrase:
        raise UsageError(
            "--passphrase protects a key's file; with --kms there is none", where="--passphrase", hint="leave one out"
        )
    _check_roles(roles)
    wanted = keys.Wanted(
        name,
        roles,
        algorithm,
        arn,
        times.parse(not_after, "--not-after"),
        (lambda: ask_new(name)) if passphrase else None,
        not no_policy,
    )
    layout = Layout(obj["folder"].resolve())
    made = keys.new(layout, wanted)
    if as_json:
        output.document(_made_json(made))
        return
    _tell(made)
    if made.version is None:
        from factory.trust import policy_edit

        output.say("in trust/policy.toml, with the next version, it would be:")
        for line in policy_edit.block(made.key) if roles else [f'public = "{made.key.public}"']:
            output.data(line)


@key.command("list")
@_JSON
@click.pass_obj
def list_keys(obj: dict[str, Any], /, as_json: bool) -> None:
    """The keys of trust/policy.toml and those of this machine."""
    from factory.release import keys

    layout = Layout(obj["folder"].resolve())
    listed = keys.listing(layout, _compromised(layout))
    if as_json:
        output.document({"keys": [_listed_json(item) for item in listed]})
        return
    if not listed:
        output.say("there is no key yet: factory key new NAME --role ROLE, or the first bake makes a development key")
    width = max((len(item.name) for item in listed), default=0)
    for item in listed:
        roles = ",".join(roles_of(item.trusted)) if item.trusted else "-"
        where = "here" if item.path else "elsewhere"
        fingerprint = item.public.fingerprint if item.public else "(encrypted)"
        output.data(
            f"{item.name:<{width}}  {item.state:<13}  {where:<9}  {roles}  {window(item.trusted)}  {fingerprint}"
        )


@key.command("rotate")
@click.argument("name", metavar="NAME")
@_PASSPHRASE
@_KMS
@_NOT_AFTER
@_JSON
@click.pass_obj
def rotate(
    obj: dict[str, Any], /, name: str, passphrase: bool, arn: str | None, not_after: str | None, as_json: bool
) -> None:
    """Close the window of a key now, and put a new one with the same roles in its place.

    What the old key has signed until now stays true. The new key is of the same kind, and encrypted if the old one was.
    """
    from factory.release import keys
    from factory.release.signing import Signing
    from factory.trust.keys import ED25519

    def wanted(old: TrustedKey, path: Path | None) -> Wanted:
        in_kms = path is not None and path.suffix == ".toml"
        if in_kms and arn is None:
            raise UsageError(
                f"{name} lies in a KMS: say which key there follows it", where="--kms", hint="make one there, --kms ARN"
            )
        encrypted = arn is None and (passphrase or (path is not None and keys.is_encrypted(path)))
        algorithm = old.public.algorithm if path is not None and not in_kms else ED25519
        ask = (lambda: ask_new(f"{name}'s successor")) if encrypted else None
        return keys.Wanted(
            name, algorithm=algorithm, arn=arn, not_after=times.parse(not_after, "--not-after"), passphrase=ask
        )

    layout = Layout(obj["folder"].resolve())
    done = keys.rotate(layout, name, wanted, Signing.open(layout, ask=ask_known, say=output.say))
    if as_json:
        retired = None if done.retired is None else str(done.retired)
        output.document({**_made_json(done.made), "replaces": name, "retired": retired, "policy_signed": done.signed})
        return
    _tell(done.made)
    output.say(f"{name} may sign no more: its window ended now. What it signed until now stays true.")
    if done.retired is not None:
        output.say(f"its private key was put aside: {done.retired}")
    if done.signed:
        output.say("trust/policy.dsse is signed by both: deployers whose policy trusts the old root key can follow")


@key.command("revoke")
@click.argument("name", metavar="NAME")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is signed and shown.")
@click.option("--keep", metavar="DIGEST", multiple=True, help="An envelope it signed that stays true; repeatable.")
@click.option("--keep-tickets", is_flag=True, help="Keep what it signed under trust/tickets/, as it lies here now.")
@click.option("--key", "signer", metavar="NAME", help="Sign with this key.")
@_JSON
@click.pass_obj
def revoke(
    obj: dict[str, Any], /, name: str, reason: str, keep: tuple[str, ...], keep_tickets: bool, signer: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Say, signed, that a key was compromised: everything it ever signed is void, but what is kept.

    A thief can date a statement back, so no window helps. Whoever keeps tickets has looked that they are genuine.
    """
    from factory.digest import is_digest, parse_digest
    from factory.release import keys
    from factory.release.signing import Signing

    for digest in keep:
        if not is_digest(digest):
            raise UsageError(f"{digest!r} is no digest (sha256: and 64 hex digits)", where="--keep")
    layout = Layout(obj["folder"].resolve())
    here = Signing.open(layout, key=signer, ask=ask_known, say=output.say)
    kept = {parse_digest(digest) for digest in keep}
    if keep_tickets and name in here.policy.keys:
        kept |= keys.signed_in_tickets(layout, here.policy.keys[name])
    done, path = keys.revoke(layout, name, reason, kept, here)
    void = [{"channel": channel, "image": image} for channel, image in done.void]
    if as_json:
        aside = None if path is None else str(path)
        output.document(
            {"name": name, "fingerprint": done.event.digest, "reason": done.event.reason, "new": done.is_new,
             "kept": sorted(done.event.keep), "void": void, "resigned": list(done.resigned), "put_aside": aside}
        )  # fmt: skip
        return
    output.say(f"{name} is revoked: {len(done.event.keep)} of the envelopes it signed stay true. Commit trust/.")
    for item in void:
        output.say(f"{item['image']} stands in {item['channel']} no more: its promotion is void, promote it anew")
    if path is not None:
        output.say(f"its private key was put aside: {path}")


def ask_known(name: str) -> bytes | None:
    """The passphrase of a key, asked for on the terminal; None where there is none."""
    if not sys.stdin.isatty():
        return None
    text: str = click.prompt(f"passphrase of the key {name}", hide_input=True, err=True)
    return text.encode()


def ask_new(name: str) -> bytes:
    """The passphrase of a key to be made. Raises UsageError where nobody gives one."""
    from factory.release import signing

    found = signing.passphrase(name, None)
    if found is None and sys.stdin.isatty():
        found = click.prompt(
            f"passphrase for the new key {name}", hide_input=True, confirmation_prompt=True, err=True
        ).encode()
    if not found:
        raise UsageError(
            "no passphrase was given",
            where="--passphrase",
            hint=f"set {signing.PASSPHRASE_FILE} (or {signing.PASSPHRASE}), or run this on a terminal",
        )
    return found


def _check_roles(roles: tuple[str, ...]) -> None:
    from factory import schema
    from factory.trust.policy import ROLES

    for role in roles:
        if role not in ROLES:
            raise UsageError(
                f"there is no role {role}; {schema.suggestion(role, ROLES)}",
                where="--role",
                hint=f"one of: {', '.join(ROLES)}",
            )


def _compromised(layout: Layout) -> frozenset[Any]:
    """The fingerprints of compromised keys; said aloud where the revocations cannot be believed."""
    from factory.trust import dsse, policy, reading

    try:
        raw = reading.read_file(layout.revocations, "trust/revocations.dsse", max_bytes=dsse.MAX_BYTES)
        from factory.trust import revocations

        return frozenset(revocations.verify(raw, policy.read(layout.policy), datetime.now(UTC)).compromised)
    except FileNotFoundError:
        return frozenset()
    except TrustError as error:
        output.say(f"warning: which keys were compromised is not known: {error.message}")
        return frozenset()


def roles_of(trusted: TrustedKey) -> list[str]:
    from factory.trust.policy import ROLES

    return [role for role in ROLES if role in trusted.roles]


def window(trusted: TrustedKey | None) -> str:
    if trusted is None:
        return "-"
    begin, end = _text(trusted.not_before), _text(trusted.not_after)
    return " ".join([*([f"from {begin}"] if begin else []), f"until {end}" if end else "open end"])


def _text(moment: datetime | None) -> str | None:
    from factory.trust.statements import time_text

    return None if moment is None else time_text(moment)


def _tell(made: Made) -> None:
    output.say(f"{'found' if made.found else 'made'} the private key {made.path}; keep it, it is nowhere else")
    if made.version is not None:
        roles = ", ".join(roles_of(made.key))
        output.say(f"trust/policy.toml (now version {made.version}) trusts it as {made.key.name}: {roles}; commit that")
    output.data(f"{made.key.name}  {made.key.public}  {made.key.public.fingerprint}")


def _made_json(made: Made) -> dict[str, Any]:
    return {**key_json(made.key), "path": str(made.path), "policy_version": made.version}


def key_json(trusted: TrustedKey) -> dict[str, Any]:
    return {
        "name": trusted.name,
        "public": str(trusted.public),
        "fingerprint": trusted.public.fingerprint,
        "roles": roles_of(trusted),
        "not_before": _text(trusted.not_before),
        "not_after": _text(trusted.not_after),
        "development": trusted.development,
    }


def _listed_json(item: Listed) -> dict[str, Any]:
    path = None if item.path is None else str(item.path)
    if item.trusted is not None:
        return {**key_json(item.trusted), "path": path, "state": item.state}
    public = item.public
    return {
        "name": item.name,
        "public": None if public is None else str(public),
        "fingerprint": None if public is None else public.fingerprint,
        "roles": [],
        "not_before": None,
        "not_after": None,
        "development": False,
        "path": path,
        "state": item.state,
    }
