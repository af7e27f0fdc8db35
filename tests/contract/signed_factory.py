"""A small factory whose papers are all signed, as a bake, two approvers and a nightly job would leave them.

`base`, `hardened` on it, `web` on that; `web` stands in dev and prod. Nothing is baked: the disks are a few bytes, but
every digest is true, every signature is one (ed25519, and ECDSA by `tester`). What a test tampers with it signs anew
with the methods here, by whomever it likes; keys that the policy does not name (`mallory`) sign as well as others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from factory import digest as digests
from factory import lockfile
from factory.catalog.contents import InstalledPackage
from factory.digest import Digest
from factory.model import Layout, Lock, LockedBase, LockedImage, Package
from factory.store import Store
from factory.trust import dsse, heads, promotions, revocations, signed_policy, statements, ticket
from factory.trust.dsse import Envelope
from factory.trust.facts import Ancestor, Artifact, BakeFacts, CheckOutcome, ImageFacts, Verification
from factory.trust.heads import Head
from factory.trust.predicates import sbom
from factory.trust.promotions import Promotion, Waiver
from factory.trust.revocations import Event, KeyRevocation, Revocation
from factory.trust.signers.file import FileSigner, signer
from factory.trust.statements import time_text

ARCH = "amd64"
NAMES = ("base", "hardened", "web")
DEBIAN = "debian-12"
AMI = "ami-0123456789abcdef0"
PEOPLE = ("nightly", "tester", "alice", "bob", "root", "old", "development", "mallory")
"""Who has a key. `mallory` stands in no policy, `old` and `development` only where a test asks for it."""

ROLES = {
    "nightly": '["builder"]',
    "tester": '["verifier"]',
    "alice": '["approver"]',
    "bob": '["approver"]',
    "root": '["root"]',
}
CHANNELS = """
[channel.dev]
approvals = 0

[channel.prod]
approvals = 2
requires = ["verified", "check:test_tls"]
max_age_days = 30
"""


def sha(text: str) -> Digest:
    """A digest to tell things apart by."""
    return digests.of_bytes(text.encode())


@cache
def key_of(name: str) -> FileSigner:
    """Someone's key; the same name, the same key. The tester's is an ECDSA key, all others are ed25519."""
    seed = int(digests.hex_of(sha(f"key of {name}")), 16)
    if name == "tester":
        return signer(ec.derive_private_key(seed >> 8, ec.SECP256R1()))
    return signer(ed25519.Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


def policy_text(
    *, version: int = 1, top: str = "", more: str = "", channels: str = CHANNELS, roles: Mapping[str, str] | None = None
) -> str:
    """A policy: the five people of ROLES; `roles` changes one (`{"nightly": '["approver"]'}`) or, empty, leaves it out.

    A value may go on with lines of its own (`'["builder"]\\nnot_after = 2020-01-01T00:00:00Z'`).
    """
    tables = [
        f'[key.{name}]\npublic = "{key_of(name).public}"\nroles = {said}\n'
        for name, said in {**ROLES, **(roles or {})}.items()
        if said
    ]
    return "\n".join([f"version = {version}\n{top}", *tables, channels, more])


@dataclass
class SignedFactory:
    """The factory in `layout`, and `own_policy`, the deployer's, outside of it. `now` is when it was all signed."""

    layout: Layout
    own_policy: Path
    now: datetime
    images: dict[str, ImageFacts] = field(default_factory=dict)
    sboms: dict[str, Envelope] = field(default_factory=dict)
    tickets: dict[str, ticket.Ticket] = field(default_factory=dict)
    promoted: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Channel -> NAME/ARCH -> the envelope of the promotion in force."""

    @property
    def root(self) -> Path:
        return self.layout.root

    @property
    def store(self) -> Store:
        return Store(self.layout.store)

    @property
    def baked_at(self) -> datetime:
        return self.now - timedelta(hours=2)

    @property
    def verified_at(self) -> datetime:
        return self.now - timedelta(hours=1)

    def file(self, name: str) -> Path:
        """A file of trust/."""
        return self.layout.trust / name

    def ticket_file(self, name: str = "web") -> Path:
        return self.layout.tickets / f"{name}-{ARCH}.jsonl"

    def artifact(self, name: str = "web", place: str = "qcow2") -> Path:
        """The file of an artifact in the store."""
        native = next(item.native for item in self.images[name].artifacts if item.place == place)
        return self.store.path(native)

    # --- images

    def bake(self, name: str, on: str | None = None, *, content: str = "", **more: Any) -> ImageFacts:
        """Artifacts in the store, SBOM, ticket and an entry of the lock, of an image on the image `on` (or Debian)."""
        disk, packed = f"{name} disk {content}".encode(), f"{name} qcow2 {content}".encode()
        raw, qcow2 = self.store.put_bytes(disk), self.store.put_bytes(packed)
        above: tuple[Ancestor, ...] = (Ancestor(sha("debian tree"), DEBIAN, "base"),)
        if on is not None:
            parent = self.images[on]
            above = (Ancestor(parent.digest, on, "image"), *parent.ancestors)
        facts = ImageFacts(
            name, ARCH, raw, sha(f"bake key {name} {content}"), above[0].digest, sha(f"tree {name} {content}"), above,
            (
                Artifact("qcow2", qcow2, len(packed)),
                Artifact("raw", raw, len(disk)),
                Artifact("aws/eu-west-1", AMI),
            ),
        )  # fmt: skip
        self.images[name] = replace(facts, **more)
        self.attest(name)
        return self.images[name]

    def attest(self, name: str = "web", **how: Any) -> ticket.Ticket:
        """Sign the ticket of an image, and write it with the lock. `how` as of `make_ticket`."""
        made = self.make_ticket(self.images[name], **how)
        self.tickets[name] = made
        self.write_tickets(name, [made])
        self.write_lock()
        return made

    def make_ticket(
        self, facts: ImageFacts, *, builder: str = "nightly", verifier: str = "tester",
        baked_at: datetime | None = None, verified_at: datetime | None = None, checks: Mapping[str, str] | None = None,
    ) -> ticket.Ticket:  # fmt: skip
        """The ticket of an image, its SBOM in the store."""
        at = baked_at or self.baked_at
        playbook = f"playbooks/{facts.name}.yml"
        bake = BakeFacts(
            facts, {"playbook": playbook}, {"playbook": {playbook: sha(playbook)}, "base": {"digest": facts.base}},
            "rootfs", {"factory": "0.1.0"}, "20261124-023000-ab12cd", at - timedelta(minutes=3), at,
        )  # fmt: skip
        installed = (InstalledPackage("nginx-light", "1.22.1-9", ARCH, "nginx", "1.22.1-9", sha("nginx-light")),)
        bill = statements.signed(sbom.statement(facts, installed, at), [key_of(builder)])
        self.sboms[facts.name] = bill
        stored = self.store.put_bytes(bill.raw)
        assert stored == bill.digest
        outcomes = {"sealed": "passed", "test_tls": "passed", **(checks or {})}
        verification = Verification(
            tuple(CheckOutcome(facts.name, check, outcome) for check, outcome in outcomes.items()),
            verified_at or max(self.verified_at, at), sha("policy"), {facts.name: sha("checks")},
        )  # fmt: skip
        return ticket.make(bake, verification, bill.digest, builder=key_of(builder), verifier=key_of(verifier))

    def write_tickets(self, name: str, tickets: Iterable[ticket.Ticket]) -> None:
        self.layout.tickets.mkdir(parents=True, exist_ok=True)
        self.ticket_file(name).write_bytes(ticket.dumps(tickets))

    def locked(self, name: str = "web") -> LockedImage:
        """What the lock should say of an image."""
        facts = self.images[name]
        return LockedImage(
            name, ARCH, facts.digest, facts.bake_key, facts.base, facts.tree,
            packages=(Package("nginx-light", "1.22.1-9", ARCH, sha("nginx-light")),),
            inputs={"playbook": sha(f"playbooks/{name}.yml")},
            artifacts={item.place: item.native for item in facts.artifacts},
        )  # fmt: skip

    def write_lock(self, **edited: LockedImage) -> None:
        """The lock, with some entries as they were edited."""
        entries = [edited.get(name) or self.locked(name) for name in self.images]
        base = LockedBase(DEBIAN, ARCH, sha("debian tree"))
        lockfile.write(self.layout.lock, lockfile.with_entries(Lock(), [base, *entries]))

    # --- papers

    def write_policy(self, text: str, *, own: bool = True) -> Digest:
        """The checkout's policy and, with `own`, the deployer's."""
        self.layout.policy.parent.mkdir(parents=True, exist_ok=True)
        self.layout.policy.write_text(text)
        if own:
            self.own_policy.parent.mkdir(parents=True, exist_ok=True)
            self.own_policy.write_text(text)
        return sha(text)

    def write_travelling(self, text: str, *by: str) -> None:
        """trust/policy.dsse."""
        self.layout.signed_policy.write_bytes(signed_policy.sign(text.encode(), [key_of(name) for name in by]).raw)

    def head(self, kind: str, name: str, events: Mapping[str, bytes], **more: Any) -> Head:
        """A head that was signed a minute ago and is good for a fortnight."""
        issued = self.now - timedelta(minutes=1)
        return replace(Head(kind, name, 1, issued, issued + timedelta(days=14), events), **more)

    def promotion(self, name: str = "web", channel: str = "prod", **more: Any) -> Promotion:
        facts = self.images[name]
        made_at = self.now - timedelta(minutes=30)
        said = Promotion(
            channel, f"{name}/{ARCH}", facts.digest, 1, made_at, self.baked_at, requirements={"verified": "passed"}
        )
        return replace(said, **more)

    def promote(self, promotion: Promotion, *by: str, signer: str = "tester", **head: Any) -> Envelope:
        """Put a promotion with these signatures into its channel, and sign the channel's head."""
        envelope = promotions.make(promotion, key_of(by[0]))
        for name in by[1:]:
            envelope = dsse.add_signature(envelope, key_of(name))
        self.promoted.setdefault(promotion.channel, {})[promotion.image] = envelope.raw
        self.write_channel(promotion.channel, signer=signer, **head)
        return envelope

    def write_channel(self, channel: str, *, signer: str = "tester", **head: Any) -> None:
        events = head.pop("events", self.promoted[channel])
        made = self.head(heads.CHANNEL, channel, events, **head)
        self.layout.channels.mkdir(parents=True, exist_ok=True)
        (self.layout.channels / f"{channel}.dsse").write_bytes(heads.make(made, key_of(signer)).raw)

    def revocation(self, digest: Digest, name: str, number: int = 1, **more: Any) -> Revocation:
        """The withdrawal of an image or a base, for `CVE-2026-1`, from half an hour ago on."""
        made_at = self.now - timedelta(minutes=30)
        return replace(Revocation(digest, name, "CVE-2026-1", made_at, made_at, number), **more)

    def stolen(self, name: str, number: int = 1, keep: Iterable[Digest] = ()) -> KeyRevocation:
        """Somebody's key is compromised."""
        made_at = self.now - timedelta(minutes=30)
        return KeyRevocation(key_of(name).public.fingerprint, name, "stolen", made_at, number, frozenset(keep))

    def revoke(self, *events: Event, by: str = "root", signer: str = "root", **head: Any) -> None:
        """The set of revocations: these events, no others."""
        listed: dict[str, bytes] = {event.digest: revocations.make(event, key_of(by)).raw for event in events}
        made = self.head(heads.REVOCATIONS, "", listed, **head)
        self.layout.revocations.write_bytes(heads.make(made, key_of(signer)).raw)


def build(folder: Path, now: datetime | None = None) -> SignedFactory:
    """The factory in `folder`/factory, the deployer's policy beside it."""
    made = SignedFactory(
        Layout(folder.absolute() / "factory"),
        folder.absolute() / "deployer" / "policy.toml",
        now or datetime.now(UTC).replace(microsecond=0),
    )
    made.write_policy(policy_text())
    made.bake("base")
    made.bake("hardened", "base")
    made.bake("web", "hardened")
    made.revoke()
    made.promote(made.promotion(channel="dev"), "tester")
    made.promote(made.promotion(channel="prod"), "alice", "bob")
    return made


__all__ = ["AMI", "ARCH", "CHANNELS", "DEBIAN", "NAMES", "PEOPLE", "SignedFactory", "Waiver", "build", "key_of",
           "policy_text", "sha", "time_text"]  # fmt: skip
