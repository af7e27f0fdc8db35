"""Keys of a factory: made, listed, rotated, withdrawn. Acts on `.factory/keys/` and trust/policy.toml.

A key's entry never leaves the policy: a rotated one keeps its window, now closed, so that what it signed in it stays
true and what it signs later is void. Each step leaves a state that the next run takes up: first the private key, then
the policy that names it, then the old private key is put aside. Never shows a private key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from factory import files
from factory.digest import Digest
from factory.errors import TrustError, UsageError
from factory.model import Layout
from factory.release import signing
from factory.release.signing import Signing
from factory.trust import dsse, keys, policy, policy_edit, reading, signed_policy, signers, ticket
from factory.trust.dsse import Signer
from factory.trust.keys import PublicKey
from factory.trust.policy import ROLES, Policy, TrustedKey
from factory.trust.signers import file as key_files
from factory.trust.signers import kms

if TYPE_CHECKING:
    from factory.release.revoke import KeyRevoked

RETIRED = ".retired"
"""Put behind the file name of a private key that must sign no more; nothing here reads it again."""


@dataclass(frozen=True)
class Wanted:
    """A key to make. `arn`: it lies in a KMS; `passphrase`: asked for once the rest is known to be possible."""

    name: str
    roles: tuple[str, ...] = ()
    algorithm: str = keys.ED25519
    arn: str | None = None
    not_after: datetime | None = None
    passphrase: Callable[[], bytes] | None = None
    in_policy: bool = True


@dataclass(frozen=True)
class Made:
    """A key that is here now. `version`: of the policy, None where that does not name it; `found`: was here before."""

    key: TrustedKey
    path: Path
    version: int | None
    found: bool


@dataclass(frozen=True)
class Rotated:
    """`retired`: where the old private key was put aside, None where it is not here. `signed`: policy.dsse is new."""

    made: Made
    old: TrustedKey
    retired: Path | None
    signed: bool


@dataclass(frozen=True)
class Listed:
    """A key of the policy or of this machine. `trusted` is None where the policy does not name it; `public`, where the
    file does not say it without a passphrase; `path`, where it is not here."""

    name: str
    public: PublicKey | None
    trusted: TrustedKey | None
    path: Path | None
    state: str


def new(layout: Layout, wanted: Wanted) -> Made:
    """Make a key and let the policy trust it. Raises UsageError, SpecError, TrustError, FactoryError; then the policy
    is as it was. A private key of that name which the policy does not know yet (a run was killed) is taken up."""
    _check(wanted)
    with files.exclusive(signing.keys_lock(layout)):
        text = signing.policy_text(layout)
        if wanted.name in policy.loads(text.encode()).keys:
            raise UsageError(
                f"the policy has a key {wanted.name} already",
                where=str(layout.policy),
                hint=f"factory key rotate {wanted.name} puts a new one in its place; or choose another name",
            )
        if wanted.in_policy:
            _try(text, wanted.name, wanted.roles)
        signer, path, found = _private(layout, wanted)
        key = TrustedKey(wanted.name, signer.public, frozenset(wanted.roles), not_after=wanted.not_after)
        if not wanted.in_policy:
            return Made(key, path, None, found)
        version = signing.write_policy(layout, policy_edit.edit(text, add=[key])).version
        return Made(key, path, version, found)


def _try(text: str, name: str, roles: Iterable[str], change: policy_edit.Changes | None = None) -> None:
    """Raise now what the edit would raise once the key is made: tried with a key that is thrown away."""
    public = keys.from_cryptography(key_files.generate().public_key())
    policy_edit.edit(text, add=[TrustedKey(name, public, frozenset(roles))], change=change)


def _check(wanted: Wanted) -> None:
    if not policy.NAMES.pattern or not policy.NAMES.pattern.fullmatch(wanted.name):
        raise UsageError(f"{wanted.name!r} is no name for a key", where="NAME", hint=policy.NAMES.described)
    if wanted.name.startswith(signing.DEVELOPMENT):
        raise UsageError(
            f"names that begin with {signing.DEVELOPMENT} are for the keys that make themselves",
            where="NAME",
            hint="choose another name",
        )
    if wanted.in_policy and not wanted.roles:
        raise UsageError(
            "what may the key sign?", where="--role", hint=f"--role, one or more times: {', '.join(ROLES)}"
        )
    if wanted.not_after is not None and wanted.not_after <= datetime.now(UTC):
        raise UsageError("the key's window would have ended already", where="--not-after", hint="name a later time")


def _private(layout: Layout, wanted: Wanted) -> tuple[Signer, Path, bool]:
    """(signer, file, whether it was here before) of a private key, made where there is none of that name."""
    path = signing.file_of(layout, wanted.name)
    if path is not None:
        if wanted.arn is not None or (wanted.passphrase is not None and not is_encrypted(path)):
            raise UsageError(
                f"there is a private key {wanted.name} here already, which the policy does not name",
                where=str(path),
                hint=f"factory key new {wanted.name} without --kms and --passphrase lets the policy trust that one",
            )
        ask: signers.Ask = wanted.passphrase or (lambda: signing.passphrase(wanted.name, None))
        return signers.load(path, ask), path, True
    if wanted.arn is not None:
        public, path = kms.fetch_public(wanted.arn), layout.keys / f"{wanted.name}.toml"
        kms.save(path, wanted.arn, public)
        return signers.load(path, signers.no_passphrase), path, False
    path = layout.keys / f"{wanted.name}.pem"
    private = key_files.generate(wanted.algorithm)
    key_files.save(path, private, wanted.passphrase() if wanted.passphrase is not None else None)
    return key_files.signer(private), path, False


def is_encrypted(path: Path) -> bool:
    """Whether a private key's file needs a passphrase. TrustError where others can read it."""
    if path.suffix != ".pem":
        return False
    return b"ENCRYPTED" in reading.read_private_file(path, f"the key {path.stem}", max_bytes=key_files.MAX_BYTES)


def rotate(layout: Layout, name: str, wanted: Callable[[TrustedKey, Path | None], Wanted], here: Signing) -> Rotated:
    """Close the window of the key `name` now and put a new key with its roles in its place.

    `wanted` says of the old key and its file how the new one is to be; its name and roles are set here. A root key's
    rotation is signed by the old one too, while deployers still trust it: else they could not follow.
    """
    with files.exclusive(signing.keys_lock(layout)):
        text = signing.policy_text(layout)
        before = policy.loads(text.encode())
        old = before.keys.get(name)
        if old is None:
            raise UsageError(f"the policy has no key {name}", where=str(layout.policy), hint="factory key list")
        if old.development:
            raise UsageError(
                f"{name} is a development key: it is not rotated but done without",
                where=name,
                hint="real keys (factory key new), allow_development_keys = false, factory channels refresh --adopt",
            )
        now = datetime.now(UTC).replace(microsecond=0)
        if not old.has_begun(now):
            raise UsageError(f"the window of {name} has not begun: there is nothing to close", where=str(layout.policy))
        old_path = signing.file_of(layout, name)
        asked = replace(wanted(old, old_path), name=_next_name(name, before), roles=tuple(sorted(old.roles)))
        _check(asked)
        change = {} if old.has_ended(now) else {name: {"not_after": now}}
        _try(text, asked.name, old.roles, change)
        is_root = "root" in old.roles and old_path is not None and not old.has_ended(now)
        old_signer = here.load(old) if is_root else None
        signer, path, found = _private(layout, asked)
        key = TrustedKey(asked.name, signer.public, old.roles, not_after=asked.not_after)
        edited = policy_edit.edit(text, add=[key], change=change)
        envelope = None if old_signer is None else signed_policy.sign(edited.encode(), [old_signer, signer])
        version = signing.write_policy(layout, edited).version
        if envelope is not None:
            files.replace(layout.signed_policy, envelope.raw)
        retired = None if old_path is None else put_aside(old_path)
        return Rotated(Made(key, path, version, found), old, retired, envelope is not None)


def _next_name(name: str, known: Policy) -> str:
    stem = re.sub(r"-\d{1,6}\Z", "", name)
    number = int(name[len(stem) + 1 :] or 1) + 1
    while f"{stem}-{number}" in known.keys:
        number += 1
    return f"{stem[: 63 - len(str(number)) - 1]}-{number}"


def put_aside(path: Path) -> Path:
    """Rename a private key's file so that nothing signs with it any more; where it is then."""
    taken = (path.with_name(f"{path.name}{RETIRED}{'-' * bool(number)}{number or ''}") for number in range(1000))
    aside = next(place for place in taken if not place.exists())
    path.rename(aside)
    files.sync_folder(path.parent)
    return aside


def listing(layout: Layout, compromised: Iterable[Digest] = ()) -> list[Listed]:
    """Every key of the policy, then those here that it does not name; sorted by name."""
    now = datetime.now(UTC)
    try:
        known: Mapping[str, TrustedKey] = policy.read(layout.policy).keys
        allowed = policy.read(layout.policy).allow_development
    except FileNotFoundError:
        known, allowed = {}, True
    here = Signing.open(layout, say=lambda _: None)
    voided, listed, named = frozenset(compromised), [], set()
    for key in sorted(known.values(), key=lambda key: key.name):
        path = _path_if_usable(here, key)
        named.add(path)
        listed.append(Listed(key.name, key.public, key, path, _state(key, voided, now, allowed)))
    unnamed = [path for path in sorted(layout.keys.glob("*")) if path.suffix in signers.REGISTRY and path not in named]
    return [*listed, *(Listed(path.stem, _public_of(path), None, path, "not in policy") for path in unnamed)]


def _state(key: TrustedKey, compromised: frozenset[Digest], now: datetime, allow_development: bool) -> str:
    if key.public.fingerprint in compromised:
        return "compromised"
    if key.has_ended(now):
        return "retired"
    if not key.has_begun(now):
        return "not yet"
    if key.development:
        return "development" if allow_development else "development (not allowed)"
    return "valid"


def _path_if_usable(here: Signing, key: TrustedKey) -> Path | None:
    try:
        return here.path_of(key)
    except TrustError:
        return None


def _public_of(path: Path) -> PublicKey | None:
    try:
        return signers.load(path, signers.no_passphrase).public
    except TrustError:
        return None


def revoke(
    layout: Layout, name: str, reason: str, keep: Iterable[Digest], here: Signing
) -> tuple[KeyRevoked, Path | None]:
    """Say, signed by another approver or root, that the key `name` was compromised; all but `keep` it signed is void.

    With where its private key was put aside, None where it is not here. Raises UsageError, TrustError.
    """
    from factory.release.revoke import revoke_key  # brings the catalog, which the rest here does without

    key = here.policy.keys.get(name)
    if key is None:
        raise UsageError(f"the policy has no key {name}", where=str(layout.policy), hint="factory key list")
    others = here.without([key.public.fingerprint])
    try:
        others.for_role("approver", "root")
    except TrustError as error:
        raise TrustError(
            f"{name} cannot vouch for its own withdrawal, and {error.message}",
            where=error.where,
            hint="make another first: factory key new NAME --role approver --role root; have it reviewed, then revoke",
        ) from error
    path = here.path_of(key)
    revoked = revoke_key(layout, name, reason, frozenset(keep), others)
    return revoked, None if path is None else put_aside(path)


def signed_in_tickets(layout: Layout, key: TrustedKey) -> frozenset[Digest]:
    """The digests of all envelopes under trust/tickets/ that `key` has signed. Raises TamperedError."""
    found = set()
    for path in sorted(layout.tickets.glob("*.jsonl")):
        raw = reading.read_file(path, f"trust/tickets/{path.name}", max_bytes=ticket.MAX_BYTES, below=layout.root)
        for line in raw.splitlines():
            envelope = dsse.parse(line, f"trust/tickets/{path.name}")
            if dsse.verify(envelope, (key.public,)):
                found.add(envelope.digest)
    return frozenset(found)


def sign_policy(layout: Layout, here: Signing) -> Policy:
    """Sign the checkout's policy with a root key; a signature by another root key on the very same bytes is kept."""
    signer = here.for_role("root")
    with files.exclusive(signing.keys_lock(layout)):
        raw = policy.read_bytes(layout.policy)
        files.replace(layout.signed_policy, _with_signature(layout, raw, signer).raw)
        return policy.loads(raw, layout.policy.name)


def _with_signature(layout: Layout, raw: bytes, signer: dsse.Signer) -> dsse.Envelope:
    try:
        before = reading.read_file(layout.signed_policy, "trust/policy.dsse", max_bytes=signed_policy.MAX_BYTES)
        envelope, _ = signed_policy.read(before)
    except (FileNotFoundError, TrustError):
        return signed_policy.sign(raw, [signer])
    if envelope.payload != raw:
        return signed_policy.sign(raw, [signer])
    if dsse.verify(envelope, (signer.public,)):
        return envelope
    return dsse.add_signature(envelope, signer)
