"""A small factory's signed papers, always the same: what the fuzzer of factory/trust damages."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from factory import digest, lockfile
from factory.model import Lock, LockedImage
from factory.trust import dsse, heads, judgement, policy, promotions, revocations, statements, ticket
from factory.trust.authority import Authority
from factory.trust.facts import (
    BASE,
    IMAGE,
    PASSED,
    Ancestor,
    Artifact,
    BakeFacts,
    CheckOutcome,
    ImageFacts,
    Verification,
)
from factory.trust.predicates import sbom
from factory.trust.signers import file

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)
P256 = file.signer(ec.derive_private_key(7, ec.SECP256R1()))


def _named(name: str) -> digest.Digest:
    return digest.of_bytes(name.encode())


def signer(name: str) -> file.FileSigner:
    """A key that follows from its name."""
    return file.signer(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


class Papers:
    """A small factory's signed papers, always the same."""

    def __init__(self) -> None:
        self.builder, self.alice, self.root = signer("builder"), signer("alice"), signer("root")
        self.toml = (
            f'version = 3\nfresh_days = 14\n\n[key.nightly]\npublic = "{self.builder.public}"\n'
            f'roles = ["builder", "verifier"]\nnot_after = 2027-06-01T00:00:00Z\n\n[key.alice]\n'
            f'public = "{self.alice.public}"\nroles = ["approver"]\n\n[key.root]\npublic = "{self.root.public}"\n'
            'roles = ["root"]\nnot_before = 2026-01-01T00:00:00Z\n\n[channel.prod]\napprovals = 1\n'
            'requires = ["verified", "check:ssh"]\nmax_age_days = 30\n'
        ).encode()
        self.policy = policy.loads(self.toml)
        self.authority = Authority(self.policy)
        self.facts = self._facts("web")
        self.ticket, self.other = self._ticket(self.facts), self._ticket(self._facts("db"))
        self.tickets = ticket.dumps([self.ticket, self.other])
        self.sbom = statements.dumps(sbom.statement(self.facts.image, [_Package()], NOW - DAY))
        self.promotion = promotions.Promotion(
            "prod", "web/amd64", self.facts.image.digest, 1, NOW - DAY / 2, NOW - DAY,
            requirements={"verified": "passed", "check:ssh": "passed"},
        )  # fmt: skip
        promoted = promotions.make(self.promotion, self.alice)
        self.channel = self._head(heads.nothing(heads.CHANNEL, "prod"), {"web/amd64": promoted.raw})
        events = (
            revocations.Revocation(_named("old"), "web/amd64", "a hole", NOW - DAY, NOW - DAY, 1),
            revocations.KeyRevocation(_named("thief"), "bob", "stolen", NOW - DAY, 2, frozenset({_named("kept")})),
        )
        revoked = {event.digest: revocations.make(event, self.alice) for event in events}
        listed = {str(key): envelope.raw for key, envelope in revoked.items()}
        self.revocations = self._head(heads.nothing(heads.REVOCATIONS), listed)
        self.event_payloads = [envelope.payload for envelope in (promoted, *revoked.values())]
        self.locked = LockedImage(
            "web", "amd64", self.facts.image.digest, self.facts.image.bake_key, self.facts.image.base,
            self.facts.image.tree,
            artifacts={artifact.place: artifact.native for artifact in self.facts.image.artifacts},
        )  # fmt: skip
        self.lock = lockfile.dumps(Lock({}, {("web", "amd64"): self.locked})).encode()
        self.newer = self.toml.replace(b"version = 3", b"version = 4")
        self.two_signers = dsse.sign("text/plain", b'{"say": "hello"}', [self.builder, self.alice]).raw
        self.judged = judgement.Papers("web", "amd64", self.locked, self.tickets, self.revocations, self.channel)

    def _facts(self, name: str) -> BakeFacts:
        image = ImageFacts(
            name, "amd64", _named(name), _named(name + " key"), _named("hardened"), _named(name + " tree"),
            (Ancestor(_named("hardened"), "hardened", IMAGE), Ancestor(_named("debian"), "debian-12", BASE)),
            (Artifact("qcow2", _named(name + " qcow2"), 1234), Artifact("aws/eu-west-1", "ami-0123456789abcdef0")),
        )  # fmt: skip
        return BakeFacts(
            image, {"base": "image:hardened", "ports": [22, 80]}, {"vars": {"vars": _named("vars")}}, "rootfs",
            {"factory": "0.1.0", "packer": "1.11.2"}, "20261123-1", NOW - 2 * DAY, NOW - DAY,
        )  # fmt: skip

    def _ticket(self, facts: BakeFacts) -> ticket.Ticket:
        checks = (CheckOutcome("factory", "ssh", PASSED), CheckOutcome(facts.image.name, "serves", PASSED))
        verification = Verification(checks, NOW - DAY, self.policy.digest, {facts.image.name: _named("checks")})
        return ticket.make(facts, verification, _named("sbom"), builder=self.builder, verifier=self.builder)

    def _head(self, before: heads.Head, events: dict[str, bytes]) -> bytes:
        return heads.make(heads.following(before, events, NOW - DAY / 4, 14), self.alice).raw


class _Package:
    name, version, arch, source, source_version = "nginx", "1.22.1-9", "amd64", "nginx", "1.22.1-9"
    sha256 = "sha256:" + "ab" * 32
