"""An image as a bake and a verification attest it, with keys of its own: for the tests of tickets and predicates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from factory import digest
from factory.catalog.contents import InstalledPackage
from factory.digest import Digest
from factory.trust import keys, statements, ticket
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope
from factory.trust.facts import Ancestor, Artifact, BakeFacts, CheckOutcome, ImageFacts, Verification
from factory.trust.policy import Policy, TrustedKey
from factory.trust.predicates import sbom
from factory.trust.ticket import Ticket

BAKED_AT = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
VERIFIED_AT = BAKED_AT + timedelta(minutes=2)


def sha(text: str) -> Digest:
    """A digest to tell things apart by."""
    return digest.of_bytes(text.encode())


@dataclass(frozen=True)
class Key:
    """An ed25519 key that signs; the same number, the same key."""

    number: int

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes([self.number]) * 32)

    @property
    def public(self) -> keys.PublicKey:
        return keys.from_cryptography(self.private.public_key())

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


NIGHTLY, TESTER, ALICE, STRANGER = Key(1), Key(2), Key(3), Key(9)
POLICY = Policy(
    3,
    sha("policy"),
    {
        "nightly": TrustedKey("nightly", NIGHTLY.public, frozenset({"builder"})),
        "tester": TrustedKey("tester", TESTER.public, frozenset({"verifier"})),
        "alice": TrustedKey("alice", ALICE.public, frozenset({"approver"})),
    },
)
AUTHORITY = Authority(POLICY)


def image(name: str = "web", **more: Any) -> ImageFacts:
    """An image on `hardened`, on `base`, on a Debian; two stored forms and one native id."""
    facts = ImageFacts(
        name=name,
        arch="amd64",
        digest=sha(f"{name} disk"),
        bake_key=sha(f"{name} key"),
        base=sha("hardened disk"),
        tree=sha(f"{name} tree"),
        ancestors=(
            Ancestor(sha("hardened disk"), "hardened", "image"),
            Ancestor(sha("base disk"), "base", "image"),
            Ancestor(sha("debian tree"), "debian-12", "base"),
        ),
        artifacts=(
            Artifact("qcow2", sha(f"{name} qcow2"), 400 << 20),
            Artifact("raw", sha(f"{name} disk"), 2 << 30),
            Artifact("aws/eu-west-1", "ami-0123456789abcdef0"),
        ),
    )
    return replace(facts, **more)


def bake(name: str = "web", **more: Any) -> BakeFacts:
    """The bake of `image(name)`: a playbook with two roles of twenty files each."""
    files = [f"playbooks/roles/{role}/tasks/{n}.yml" for role in ("web", "tls") for n in range(20)]
    playbook = {path: sha(path) for path in [f"playbooks/{name}.yml", *files, "playbooks/group_vars/all.yml"]}
    return BakeFacts(
        image=image(name, **more),
        parameters={
            "base": "hardened", "builder": "rootfs", "channel": "dev", "disk_mib": 2048, "formats": ["qcow2", "raw"],
            "playbook": f"playbooks/{name}.yml", "ports": [22, 80], "secrets": ["REPO_TOKEN"],
            "skip_checks": ["test_time"], "state": ["/var/log"], "vars": {"server_name": "example", "share": 0.5},
        },
        inputs={
            "base": {"digest": sha("hardened disk")},
            "builder": {"name": "rootfs", "version": "1"},
            "checks": {"playbooks/roles/web/checks/test_web.py": sha("checks"), "ports": sha("ports")},
            "disk": {"arch": sha("amd64")},
            "packages": {"nginx-light:amd64": f"1.22.1-9 {sha('nginx-light')}"},
            "playbook": {**playbook, "ansible-core": "2.17.1", "collection community.general": "9.0.0",
                         "collection community.general: MANIFEST.json": sha("manifest")},
            "template": {"templates/rootfs.pkr.hcl.j2": sha("template")},
            "vars": {"server_name": sha("example")},
        },
        builder="rootfs",
        versions={"factory": "0.1.0", "packer": "1.11.2"},
        run="20261124-023000-ab12cd",
        started_at=BAKED_AT - timedelta(minutes=3),
        finished_at=BAKED_AT,
    )  # fmt: skip


def verification(**more: Any) -> Verification:
    """Sixty checks: two exempt, one that skipped itself, all others passed."""
    owners = ("factory", "base", "hardened", "web")
    checks = (
        *(CheckOutcome(owners[n % 4], f"test_something_of_some_length[{n}]", "passed") for n in range(57)),
        CheckOutcome("base", "test_time", "exempt"),
        CheckOutcome("web", "test_time[ntp]", "exempt"),
        CheckOutcome("web", "test_ipv6", "skipped"),
    )  # fmt: skip
    configuration = {owner: sha(f"{owner} checks") for owner in owners[1:]}
    return replace(Verification(checks, VERIFIED_AT, POLICY.digest, configuration), **more)


def make(name: str = "web", *, sbom_digest: Digest | None = None, **more: Any) -> Ticket:
    """A good ticket."""
    sbom_digest = sbom_digest or sha(f"{name} sbom")
    return ticket.make(bake(name, **more), verification(), sbom_digest, builder=NIGHTLY, verifier=TESTER)


def packages() -> tuple[InstalledPackage, ...]:
    """A few packages with names, epochs and versions as Debian has them."""
    return (
        InstalledPackage("g++-12", "12.2.0-14+deb12u1", "amd64", "gcc-12", "12.2.0-14+deb12u1", sha("g++-12")),
        InstalledPackage("bsdutils", "1:2.38.1-5+deb12u3", "amd64", "util-linux", "2.38.1-5+deb12u3", sha("bsdutils")),
        InstalledPackage("ca-certificates", "20250419~deb12u2", "all", "ca-certificates", "20250419~deb12u2"),
    )


def signed_sbom(name: str = "web") -> Envelope:
    """The SBOM of `image(name)`, signed by its builder."""
    return statements.signed(sbom.statement(image(name), packages(), BAKED_AT), [NIGHTLY])
