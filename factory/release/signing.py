"""Which key signs: of the keys that are on this machine, the one that the checkout's policy lets sign.

A key's file is `.factory/keys/NAME.pem` (or `.toml`, for a KMS), NAME being its name in trust/policy.toml; that it is
that key is checked by its material. Nobody chooses in silence: where several keys may sign in a role, one is to be
named. Where none is here and the policy allows it, a development key is made, once, and said aloud. A passphrase
comes from FACTORY_KEY_PASSPHRASE, from the file FACTORY_KEY_PASSPHRASE_FILE names, or from whoever sits at the
terminal; never from an argument. Never prints or returns a private key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from factory import files, schema, skeleton
from factory.digest import Digest, hex_of
from factory.errors import TrustError, UnsignedError, UsageError
from factory.model import Layout
from factory.trust import policy, policy_edit, reading, signers
from factory.trust.authority import Authority
from factory.trust.dsse import Signer
from factory.trust.policy import ROLES, Policy, TrustedKey
from factory.trust.signers import file as key_files

KEY = "FACTORY_KEY"
PASSPHRASE = "FACTORY_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
PASSPHRASE_FILE = "FACTORY_KEY_PASSPHRASE_FILE"  # noqa: S105
DEVELOPMENT = "development"
"""The file's name of the development key; in the policy it is `development-` and 8 hex digits of its fingerprint."""

_MAX_PASSPHRASE_FILE_BYTES = 4096

Ask = Callable[[str], bytes | None]
"""Asks a person for the passphrase of the key of that name; None where there is nobody to ask."""


@dataclass(frozen=True)
class Signing:
    """What this machine can sign with. `key`: the one name that is to sign; `void`: fingerprints that must not.

    The policy is read anew each time, so that a window that was closed meanwhile is closed here too.
    """

    layout: Layout
    key: str | None
    ask: Ask | None
    say: Callable[[str], None]
    void: frozenset[Digest] = frozenset()
    _loaded: dict[Path, Signer] = field(default_factory=dict, repr=False, compare=False)
    _warned: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(
        cls, layout: Layout, *, key: str | None = None, ask: Ask | None = None, say: Callable[[str], None]
    ) -> Signing:
        """The keys of a factory; without `key`, FACTORY_KEY may name one."""
        return cls(layout, key or os.environ.get(KEY) or None, ask, say)

    def without(self, fingerprints: Iterable[Digest]) -> Signing:
        """The same, but never signing with these keys (compromised ones, say)."""
        return replace(self, void=self.void | frozenset(fingerprints))

    @property
    def policy(self) -> Policy:
        """The checkout's policy. Raises UnsignedError where there is none, TamperedError, SpecError."""
        try:
            return policy.read(self.layout.policy)
        except FileNotFoundError:
            raise UnsignedError(
                "there is no trust policy here: nobody is trusted",
                where=str(self.layout.policy),
                hint="factory key new NAME --role ROLE begins one",
            ) from None

    def authority(self, compromised: Mapping[Digest, frozenset[Digest]] | None = None) -> Authority:
        """Whose signatures count in this checkout."""
        return Authority(self.policy, compromised or {})

    def require_known_key(self, trusted: Policy) -> None:
        """Raises TrustError where the key that is to sign is none of the policy's."""
        if self.key is not None and self.key not in trusted.keys:
            raise TrustError(
                f"the policy has no key {self.key}; {schema.suggestion(self.key, trusted.keys)}",
                where=str(self.layout.policy),
                hint="factory key list",
            )

    def for_role(self, *roles: str, development: bool = True) -> Signer:
        """The signer for the first of `roles` that a key here may sign in; with `development` False a real key.

        Raises TrustError where none may (with each reason) or a key cannot be used, UsageError where several may.
        """
        now = datetime.now(UTC)
        try:
            trusted: Policy | None = policy.read(self.layout.policy)
        except FileNotFoundError:
            trusted = None
        reasons: list[str] = []
        for role in roles if trusted is not None else ():
            assert trusted is not None
            able = self._able(trusted, role, now, reasons)
            if not development:
                reasons += [f"{key.name} is a development key" for key in able if key.development]
                able = [key for key in able if not key.development]
            if len(able) > 1:
                raise UsageError(
                    f"several keys here may sign as {role}: {', '.join(key.name for key in able)}",
                    where=str(self.layout.keys),
                    hint=f"say which: --key NAME, or {KEY}=NAME",
                )
            if able:
                return self.load(able[0])
        if development and self.key is None and (trusted is None or trusted.allow_development):
            made = development_key(self.layout, self.say)
            if made.public.fingerprint not in self.void and self._objection(made, roles, now) is None:
                return self.load(made)
        wanted = " or ".join(roles)
        raise TrustError(
            "\n  ".join([f"no key here may sign as {wanted}", *dict.fromkeys(reasons)]),
            where=str(self.layout.keys),
            hint=f"factory key list shows what there is; factory key new NAME --role {roles[0]} makes one",
        )

    def _able(self, trusted: Policy, role: str, now: datetime, reasons: list[str]) -> list[TrustedKey]:
        """The keys here that may sign as `role`, development keys only where there is no other."""
        self.require_known_key(trusted)
        able = []
        for key in trusted.keys.values():
            if self.key not in (None, key.name):
                continue
            objection = self._objection(key, (role,), now)
            if key.development and not trusted.allow_development:
                objection = "is a development key, which the policy does not allow"
            if objection is None and self.path_of(key) is None:
                objection = "is not on this machine"
            if objection is None:
                able.append(key)
            else:
                reasons.append(f"{key.name} {objection}")
        return [key for key in able if not key.development] or able

    def _objection(self, key: TrustedKey, roles: tuple[str, ...], now: datetime) -> str | None:
        if key.public.fingerprint in self.void:
            return "was compromised"
        if not key.roles & set(roles):
            return f"is no {' or '.join(roles)} (roles: {', '.join(sorted(key.roles))})"
        if not key.has_begun(now):
            return "may not sign yet: its window has not begun"
        return "may sign no more: its window has ended" if key.has_ended(now) else None

    def path_of(self, key: TrustedKey) -> Path | None:
        """Where the private key is on this machine, or None. That it is that key is checked when it is loaded."""
        found = file_of(self.layout, key.name)
        if found is None and key.development:
            path = self.layout.keys / f"{DEVELOPMENT}.pem"
            if path.is_file() and key_files.load(path, signers.no_passphrase).public == key.public:
                return path
        return found

    def load(self, key: TrustedKey) -> Signer:
        """The signer of a key that is on this machine. Raises TrustError where it cannot be used, or is another one."""
        path = self.path_of(key)
        assert path is not None
        signer = self._loaded.get(path)
        if signer is None:
            signer = self._loaded[path] = signers.load(path, lambda: passphrase(key.name, self.ask))
        if signer.public != key.public:
            raise TrustError(
                f"the key {key.name} here ({signer.public.fingerprint}) is not the one that the policy calls so "
                f"({key.public.fingerprint})",
                where=str(path),
                hint=f"rename {path.name} as trust/policy.toml calls that key, or put the right one there",
            )
        if key.development and key.name not in self._warned:
            self._warned.add(key.name)
            self.say(f"warning: signing with the development key {key.name}: good for trying things out, nothing else")
        return signer


def file_of(layout: Layout, name: str) -> Path | None:
    """The file of the private key called `name` on this machine, or None."""
    places = (layout.keys / f"{name}{ending}" for ending in signers.REGISTRY)
    return next((place for place in places if os.path.lexists(place)), None)


def passphrase(name: str, ask: Ask | None) -> bytes | None:
    """The passphrase of a key: of the environment, of a file, of a person; None where nobody knows it.

    Raises TrustError where FACTORY_KEY_PASSPHRASE_FILE names a file that others can read, or none.
    """
    if value := os.environb.get(PASSPHRASE.encode()):
        return value
    if place := os.environ.get(PASSPHRASE_FILE):
        what = f"the file of {PASSPHRASE_FILE}"
        try:
            data = reading.read_private_file(Path(place), what, max_bytes=_MAX_PASSPHRASE_FILE_BYTES)
        except FileNotFoundError:
            raise TrustError(
                f"{what} is not there", where=place, hint=f"unset {PASSPHRASE_FILE}, or write it"
            ) from None
        return data.removesuffix(b"\n").removesuffix(b"\r") or None
    return ask(name) if ask is not None else None


def policy_text(layout: Layout) -> str:
    """The text of the checkout's policy; that of a new factory where there is none yet."""
    try:
        raw = policy.read_bytes(layout.policy)
    except FileNotFoundError:
        return skeleton.policy_text()
    policy.loads(raw, layout.policy.name)
    return raw.decode("utf-8")


def write_policy(layout: Layout, text: str) -> Policy:
    """Make `text` the checkout's policy. The caller holds `keys_lock`."""
    layout.trust.mkdir(parents=True, exist_ok=True)
    found = policy.loads(text.encode(), layout.policy.name)
    files.replace(layout.policy, text.encode())
    return found


def keys_lock(layout: Layout) -> Path:
    """The lock to hold (files.exclusive) by who makes a key or changes the policy; nothing else is waited for in it."""
    return layout.locks / "keys"


def development_key(layout: Layout, say: Callable[[str], None]) -> TrustedKey:
    """The development key of this machine as the policy has it; made, and added to the policy, where it is not yet."""
    with files.exclusive(keys_lock(layout)):
        path = layout.keys / f"{DEVELOPMENT}.pem"
        if not path.exists():
            key_files.save(path, key_files.generate(), None)
        public = key_files.load(path, signers.no_passphrase).public
        text = policy_text(layout)
        known = policy.loads(text.encode()).keys.values()
        for key in known:
            if key.public == public:
                return key
        name = f"{DEVELOPMENT}-{hex_of(public.fingerprint)[:8]}"
        made = TrustedKey(name, public, frozenset(ROLES), development=True)
        version = write_policy(layout, policy_edit.edit(text, add=[made])).version
    say(
        f"WARNING: no key here may sign, so a DEVELOPMENT KEY was made: {path}\n"
        f"WARNING: trust/policy.toml (now version {version}) trusts it as {name}, in every role.\n"
        "WARNING: it lies unprotected on this machine. Before others rely on what is signed here, in this order:\n"
        "WARNING:   factory key new NAME --role builder --role verifier\n"
        "WARNING:   factory key new YOU --role approver --role root\n"
        "WARNING:   allow_development_keys = false, in trust/policy.toml\n"
        "WARNING:   factory channels refresh --adopt, then factory bake: they sign anew what only this key had signed"
    )
    return made
