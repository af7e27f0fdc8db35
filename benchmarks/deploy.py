"""What a deploy job waits for: `factory resolve` as a whole process, and the verification of deploy tickets.

The factory it asks is made by the product's own code: a lock of so many images, `web` with a stored artifact and a
ticket that is really signed, a list of revocations, a channel to which every image was promoted.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import clock
from benchmarks.scratch import FACTORY
from factory import digest, lockfile
from factory.digest import Digest
from factory.errors import ToolError
from factory.model import Layout, Lock, LockedBase, LockedImage, Package
from factory.store import Store
from factory.trust import heads, policy, policy_edit, promotions, revocations, ticket
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
from factory.trust.policy import TrustedKey
from factory.trust.signers import file

IMAGES = 1000
TICKETS = 1000
CHECKS = 60
TIMES = 25

_NAME, _ARCH = "web", "amd64"
_PACKAGES = 40
_FILES = 40
_REVOKED = 20
_POLICY = 'version = 1\n[channel.prod]\napprovals = 1\nrequires = ["verified"]\nmax_age_days = 90\n'
_INPUTS = ("base", "builder", "checks", "disk", "packages", "playbook", "template", "vars")


@dataclass(frozen=True)
class Deploy:
    """Medians, in seconds of whole processes: an empty Python program; `factory resolve web --frozen` with one image in
    the lock, with `images`, and with those from a channel. `tickets_per_s`: loaded and verified in one process."""

    images: int
    checks: int
    python_s: float
    one_s: float
    many_s: float
    channel_s: float
    tickets_per_s: float
    load: float


def measure(folder: Path) -> Deploy:
    """All of it, on factories made in `folder`. Raises ToolError where one gives no answer."""
    one, many = (_argv(make(folder / str(count), count)) for count in (1, IMAGES))
    load = clock.load()
    programs = [[sys.executable, "-c", "pass"], one, many, [*many, "--channel", "prod"]]
    python_s, one_s, many_s, channel_s = clock.median_times(TIMES, [_quiet(argv) for argv in programs])
    return Deploy(IMAGES, CHECKS, python_s, one_s, many_s, channel_s, _tickets_per_s(), load)


class Signed:
    """Three people's keys, the policy that names them, and what they sign."""

    def __init__(self) -> None:
        self.nightly, self.alice, self.root = (file.signer(Ed25519PrivateKey.generate()) for _ in range(3))
        keys = (
            TrustedKey("nightly", self.nightly.public, frozenset({"builder", "verifier"})),
            TrustedKey("alice", self.alice.public, frozenset({"approver"})),
            TrustedKey("root", self.root.public, frozenset({"root"})),
        )
        self.toml = policy_edit.edit(_POLICY, add=keys)
        self.policy = policy.loads(self.toml.encode())
        self.now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)

    def ticket(self, locked: LockedImage, size_bytes: int) -> ticket.Ticket:
        """Of a bake from a playbook of some files, with some checks."""
        image = ImageFacts(
            locked.name, locked.arch, locked.digest, locked.bake_key, locked.base, locked.tree,
            (Ancestor(locked.base, "hardened", IMAGE), Ancestor(_named("debian"), "debian-12", BASE)),
            tuple(Artifact(place, native, size_bytes) for place, native in locked.artifacts.items()),
        )  # fmt: skip
        playbook = {f"playbooks/roles/web/tasks/{number}.yml": _named(str(number)) for number in range(_FILES)}
        packages = {f"{package.name}:{package.arch}": f"1.0-1 {package.sha256}" for package in locked.packages}
        bake = BakeFacts(
            image, {"base": "image:hardened", "ports": [22, 80], "vars": {"server_name": "example"}},
            {"playbook": playbook, "packages": packages, "base": {"digest": locked.base}}, "rootfs",
            {"factory": "0.1.0", "packer": "1.11.2"}, "20261124-1", self.now - timedelta(minutes=3), self.now,
        )  # fmt: skip
        owners = ("factory", "hardened", _NAME)
        checks = tuple(CheckOutcome(owners[n % 3], f"test_something_of_it[{n}]", PASSED) for n in range(CHECKS))
        verification = Verification(checks, self.now, self.policy.digest, {_NAME: _named("checks")})
        return ticket.make(bake, verification, _named("sbom"), builder=self.nightly, verifier=self.nightly)

    def channel(self, images: list[LockedImage]) -> bytes:
        """A head that promotes every image."""
        events = {}
        for image in images:
            who = f"{image.name}/{image.arch}"
            promotion = promotions.Promotion(
                "prod", who, image.digest, 1, self.now, self.now, requirements={"verified": "passed"}
            )
            events[who] = promotions.make(promotion, self.alice).raw
        return self._head(heads.nothing(heads.CHANNEL, "prod"), events)

    def revocations(self) -> bytes:
        """A head with some revoked images, none of them wanted."""
        revoked = [
            revocations.Revocation(_named(f"old {n}"), f"{_NAME}/{_ARCH}", "a hole", self.now, self.now, n)
            for n in range(1, _REVOKED + 1)
        ]
        events = {str(event.digest): revocations.make(event, self.alice).raw for event in revoked}
        return self._head(heads.nothing(heads.REVOCATIONS), events)

    def _head(self, before: heads.Head, events: dict[str, bytes]) -> bytes:
        return heads.make(heads.following(before, events, self.now, self.policy.fresh_days), self.alice).raw


def make(root: Path, count: int) -> Layout:
    """A factory whose lock holds `count` images; `web`, its last, can be deployed."""
    layout, signed, artifact = Layout(root), Signed(), b"a small disk"
    stored = Store(layout.store).put_bytes(artifact)
    images = [_locked(name, stored) for name in (*(f"image-{number:04}" for number in range(count - 1)), _NAME)]
    base = LockedBase("debian-12", _ARCH, _named("debian"), _packages("debian"))
    lockfile.write(layout.lock, lockfile.with_entries(Lock(), [base, *images]))
    for path, data in (
        (layout.policy, signed.toml.encode()),
        (layout.revocations, signed.revocations()),
        (layout.channels / "prod.dsse", signed.channel(images)),
        (layout.tickets / f"{_NAME}-{_ARCH}.jsonl", ticket.dumps([signed.ticket(images[-1], len(artifact))])),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return layout


def _argv(layout: Layout) -> list[str]:
    """The command that resolves `web`, which was seen to give the right answer, from a channel too. ToolError."""
    argv = [*FACTORY, "-C", str(layout.root), "resolve", _NAME, "--frozen"]
    for options in ([], ["--channel", "prod"]):
        said = subprocess.run([*argv, *options, "--check-bytes"], capture_output=True, text=True, check=False)
        if said.returncode != 0 or not Path(said.stdout.strip()).is_file():
            raise ToolError(f"factory resolve should answer:\n{said.stdout}{said.stderr[-2000:]}")
    return argv


def _quiet(argv: list[str]) -> clock.Action:
    return lambda: subprocess.run(argv, capture_output=True, check=True)


def _tickets_per_s() -> float:
    signed = Signed()
    authority = Authority(signed.policy)
    files = {}
    for number in range(TICKETS):
        locked = _locked(f"image-{number:04}", _named("a disk"))
        files[locked.digest] = ticket.dumps([signed.ticket(locked, 1)])

    def verify_all() -> None:
        for wanted, raw in files.items():
            ticket.verify(ticket.loads(raw, "a ticket")[wanted], wanted, authority)

    return TICKETS / clock.median_time(3, verify_all)


def _locked(name: str, stored: Digest) -> LockedImage:
    inputs = {key: _named(f"{name} {key}") for key in _INPUTS}
    return LockedImage(
        name, _ARCH, _named(name), _named(f"{name} key"), _named("hardened"), _named(f"{name} tree"), _packages(name),
        inputs=inputs, artifacts={"qcow2": stored},
    )  # fmt: skip


def _packages(owner: str) -> tuple[Package, ...]:
    return tuple(Package(f"{owner}-{n:03}", "1.0-1", _ARCH, _named(f"{owner} {n}")) for n in range(_PACKAGES))


def _named(of: str) -> Digest:
    return digest.of_bytes(of.encode())
