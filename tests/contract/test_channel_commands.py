"""factory promote, revoke and channels as they are typed: real keys, two people with a clone each, kills in between."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from factory import cli, digest, lockfile
from factory.catalog import attestations, chain
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import ExpiredError, RevokedError, TamperedError, UnsignedError
from factory.model import Layout, Lock, LockedBase, LockedImage
from factory.release import promote, refresh, revoke, signing, standing
from factory.release.signing import Signing
from factory.trust import dsse, heads, judgement, promotions, revocations, ticket
from factory.trust.facts import Ancestor, Artifact, BakeFacts, CheckOutcome, ImageFacts, Verification

NOW = datetime.now(UTC).replace(microsecond=0)
WHO = "web/amd64"
RULES = """\
version = 1
allow_development_keys = false
[channel.dev]
approvals = 0
[channel.staging]
approvals = 1
requires = ["verified", "no-cve:critical", "check:test_tls"]
[channel.prod]
approvals = 2
requires = ["verified"]
max_age_days = 30
"""


def sha(text: str) -> Digest:
    return digest.of_bytes(text.encode())


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Clone:
    """One person's checkout. `run` runs a command in it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.layout, self._capsys = Layout(root), capsys

    def run(self, *arguments: str, code: int = 0) -> Result:
        self._capsys.readouterr()
        got = cli.run(["-C", str(self.layout.root), *arguments])
        captured = self._capsys.readouterr()
        assert got == code, captured.err
        assert "Traceback" not in captured.err
        return Result(got, captured.out, captured.err)

    @property
    def signing(self) -> Signing:
        return Signing.open(self.layout, say=lambda _: None)

    def channel(self, name: str, now: datetime | None = None) -> promotions.Channel:
        found = standing.read(self.layout, self.signing.policy)
        raw = (self.layout.channels / f"{name}.dsse").read_bytes()
        return promotions.verify(raw, found.policy.channels[name], found.authority, now or datetime.now(UTC))

    def resolves(self, name: str = "web", *, channel: str | None = None, now: datetime | None = None) -> Digest:
        """What a deployer of this checkout gets. Raises TrustError."""
        path = None if channel is None else self.layout.channels / f"{channel}.dsse"
        papers = judgement.Papers(
            name, "amd64", lockfile.read(self.layout.lock).images[name, "amd64"],
            (self.layout.tickets / f"{name}-amd64.jsonl").read_bytes(), self.layout.revocations.read_bytes(),
            path.read_bytes() if path and path.exists() else None,
        )  # fmt: skip
        verdict = judgement.judge(papers, self.signing.policy, now or datetime.now(UTC), channel=channel)
        return verdict.image.digest

    def pull(self, other: Clone) -> None:
        """Take over what the other has under version control."""
        shutil.rmtree(self.layout.trust)
        shutil.copytree(other.layout.trust, self.layout.trust)
        shutil.copy(other.layout.lock, self.layout.lock)

    def bake(
        self, name: str, version: str, *, parent: str = "debian-12", age: timedelta = timedelta(hours=1),
        signer: dsse.Signer | None = None,
    ) -> Digest:  # fmt: skip
        """What a bake leaves: an entry of the lock, a deploy ticket signed by nightly."""
        signer = signer or self.nightly
        lock = lockfile.read(self.layout.lock)
        base = lock.images.get((parent, "amd64"))
        above: list[Ancestor] = []
        if base is not None:
            above = [Ancestor(base.digest, parent, "image")]
        above.append(Ancestor(sha("debian tree"), "debian-12", "base"))
        disk = sha(f"{name} {version}")
        made = LockedImage(name, "amd64", disk, sha(f"key {disk}"), above[0].digest, sha(f"tree {disk}"))
        made = replace(made, artifacts={"qcow2": sha(f"qcow2 {disk}")})
        facts = ImageFacts(
            name, "amd64", disk, made.bake_key, made.base, made.tree, tuple(above),
            (Artifact("qcow2", made.artifacts["qcow2"], 1),),
        )  # fmt: skip
        at = datetime.now(UTC).replace(microsecond=0) - age
        bake = BakeFacts(
            facts, {"playbook": f"playbooks/{name}.yml"}, {"playbook": {f"playbooks/{name}.yml": sha("p")}}, "rootfs",
            {"factory": "1"}, "run-1", at, at,
        )  # fmt: skip
        checks = (CheckOutcome("factory", "sealed", "passed"), CheckOutcome("web", "test_tls", "passed"))
        verification = Verification(checks, at, sha("policy"), {name: sha("checks")})
        new = ticket.make(bake, verification, sha(f"sbom {disk}"), builder=signer, verifier=signer)
        path = self.layout.tickets / f"{name}-amd64.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        before = ticket.loads(path.read_bytes()) if path.exists() else {}
        path.write_bytes(ticket.dumps([*before.values(), new]))
        lockfile.write(self.layout.lock, lockfile.with_entries(lock, [made]))
        return disk

    @property
    def nightly(self) -> dsse.Signer:
        return Signing.open(self.layout, key="nightly", say=lambda _: None).for_role("builder")


def _move_key(name: str, source: Clone, target: Clone) -> None:
    target.layout.keys.mkdir(parents=True, mode=0o700, exist_ok=True)
    shutil.move(source.layout.keys / f"{name}.pem", target.layout.keys / f"{name}.pem")


@pytest.fixture
def clones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Clone, Clone, Clone]:
    """Nightly, alice and bob: each with a checkout and a key of its own; bob is root too."""
    for name in (signing.KEY, signing.PASSPHRASE, signing.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)
    robot = Clone(tmp_path / "nightly", capsys)
    robot.layout.trust.mkdir(parents=True)
    robot.layout.policy.write_text(RULES)
    robot.run("key", "new", "nightly", "--role", "builder", "--role", "verifier")
    robot.run("key", "new", "alice", "--role", "approver")
    robot.run("key", "new", "bob", "--role", "approver", "--role", "root")
    tree = LockedBase("debian-12", "amd64", sha("debian tree"))
    lockfile.write(robot.layout.lock, lockfile.with_entries(Lock(), [tree]))
    robot.bake("hardened", "1", age=timedelta(hours=3))
    robot.bake("web", "1", parent="hardened", age=timedelta(hours=2))
    assert refresh.ensure_revocations(robot.layout, robot.signing)
    alice, bob = Clone(tmp_path / "alice", capsys), Clone(tmp_path / "bob", capsys)
    for clone, name in ((alice, "alice"), (bob, "bob")):
        clone.layout.root.mkdir()
        shutil.copytree(robot.layout.trust, clone.layout.trust)
        shutil.copy(robot.layout.lock, clone.layout.lock)
        _move_key(name, robot, clone)
    return robot, alice, bob


WEB = sha("web 1")
Clones = tuple[Clone, Clone, Clone]


# --- promote


def test_channel_without_approvals_is_moved_by_the_verifier(clones: Clones) -> None:
    robot, _, _ = clones
    said = robot.run("promote", "web", "--to", "dev")
    assert said.out == f"{WEB}\n"
    assert "promoted web/amd64" in said.err
    assert "approved by nightly" in said.err
    assert robot.channel("dev").promotions[WHO].digest == WEB
    assert robot.resolves(channel="dev") == WEB


def test_promoting_again_says_so_and_writes_nothing(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    raw = (robot.layout.channels / "dev.dsse").read_bytes()
    said = robot.run("promote", "web", "--to", "dev", "--json").json
    assert (said["status"], said["number"]) == ("unchanged", 1)
    assert "nothing was written" in robot.run("promote", "web", "--to", "dev").err
    assert (robot.layout.channels / "dev.dsse").read_bytes() == raw


def test_two_approvers_in_two_clones_move_a_channel(clones: Clones) -> None:
    robot, alice, bob = clones
    said = alice.run("promote", "web", "--to", "prod", "--json").json
    assert (said["status"], said["missing"], said["others"], said["approvers"]) == ("proposed", 1, ["bob"], ["alice"])
    assert (alice.layout.root / said["proposal"]).is_file()
    assert not (alice.layout.channels / "prod.dsse").exists()
    with pytest.raises(UnsignedError, match="nothing was ever promoted"):
        alice.resolves(channel="prod")
    again = alice.run("promote", "web", "--to", "prod")
    assert "waits: web/amd64" in again.err
    assert "have bob run the same command" in again.err
    bob.pull(alice)
    assert "1 more must" in bob.run("channels", "list", "prod").err
    said = bob.run("promote", "web", "--to", "prod", "--json").json
    assert (said["status"], said["approvers"], said["version"]) == ("promoted", ["alice", "bob"], 1)
    assert not list(bob.layout.proposals.iterdir())
    robot.pull(bob)
    assert robot.resolves(channel="prod") == WEB


def test_promotion_signs_where_the_log_of_its_first_approver_ended(clones: Clones) -> None:
    _, alice, bob = clones
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    with Catalog.open(alice.layout.catalog) as catalog:
        end = chain.head(catalog.connection)
    bob.run("promote", "web", "--to", "prod")
    log = bob.channel("prod").promotions[WHO].log
    assert log is not None
    assert (log.catalog, log.length, log.digest) == (end.catalog, end.length, end.digest)


def test_nothing_is_signed_where_the_log_breaks(clones: Clones) -> None:
    _, alice, _ = clones
    with Catalog.open(alice.layout.catalog) as catalog, catalog.writing() as database:
        for run in ("one", "two", "three"):
            chain.append(database.conn, chain.Entry("began run", run))
    with closing(sqlite3.connect(alice.layout.catalog)) as connection:
        connection.executescript("DROP TRIGGER events_no_update; UPDATE events SET actor = 'mallory' WHERE seq = 2")
    for extra in ((), ("--dry-run",)):
        said = alice.run("promote", "web", "--to", "prod", *extra, code=6).err
        assert "the log of the catalog is not as it was written, event 3: it does not follow event 2" in said
    assert not alice.layout.channels.exists()
    assert not alice.layout.proposals.exists()


def test_approver_cannot_be_two(clones: Clones) -> None:
    _, alice, _ = clones
    alice.run("promote", "web", "--to", "prod")
    assert alice.run("promote", "web", "--to", "prod", "--json").json["status"] == "unchanged"
    assert not (alice.layout.channels / "prod.dsse").exists()


def test_verifier_cannot_approve(clones: Clones) -> None:
    robot, _, _ = clones
    said = robot.run("promote", "web", "--to", "prod", code=6)
    assert "no key here may sign as approver" in said.err
    assert not robot.layout.channels.exists()
    assert not robot.layout.proposals.exists()


def test_second_approver_judges_anew(clones: Clones) -> None:
    _, alice, bob = clones
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    bob.run("revoke", "hardened", "--reason", "CVE-1")
    said = bob.run("promote", "web", "--to", "prod", code=6)
    assert "its ancestor hardened/amd64" in said.err
    assert not (bob.layout.channels / "prod.dsse").exists()


def test_proposal_that_claims_what_is_not_found_is_not_approved(clones: Clones) -> None:
    """The first approver writes that there are no CVEs; the second is not to sign that unseen."""
    _, alice, bob = clones
    text = alice.layout.policy.read_text().replace('requires = ["verified"]', 'requires = ["no-cve:critical"]')
    for clone in (alice, bob):
        clone.layout.policy.write_text(text)
    lie = promotions.Promotion(
        "prod", WHO, WEB, 1, NOW - timedelta(minutes=1), _baked_at(alice), requirements={"no-cve:critical": "passed"}
    )  # fmt: skip
    signer = alice.signing.for_role("approver")
    path = standing.proposal_path(bob.layout, "prod", WHO)
    standing.write(bob.layout, path, promotions.make(lie, signer).raw)
    said = bob.run("promote", "web", "--to", "prod", code=6)
    assert "nothing says that it is free of critical CVEs" in said.err
    assert not (bob.layout.channels / "prod.dsse").exists()


def _baked_at(clone: Clone) -> datetime:
    return standing.read(clone.layout, clone.signing.policy).vouched(WHO, WEB).baked_at


def test_requirement_that_nobody_can_judge_is_refused_unless_waived(clones: Clones) -> None:
    _, alice, _ = clones
    said = alice.run("promote", "web", "--to", "staging", code=6)
    assert "nothing says that it is free of critical CVEs" in said.err
    until = (NOW + timedelta(days=3)).strftime("%Y-%m-%d")
    waiver = ["--waive", "no-cve:critical", "--owner", "alice", "--reason", "no scanner yet", "--until", until]
    done = alice.run("promote", "web", "--to", "staging", *waiver)
    assert "waived until" in done.err
    assert alice.resolves(channel="staging") == WEB
    with pytest.raises(ExpiredError, match="waiver of no-cve:critical by alice ended"):
        alice.resolves(channel="staging", now=NOW + timedelta(days=3, hours=1))
    (shown,) = alice.run("channels", "list", "staging", "--json").json["channels"][0]["images"]
    assert shown["waivers"][0]["reason"] == "no scanner yet"
    assert shown["requirements"] == {"verified": "passed", "no-cve:critical": "waived", "check:test_tls": "passed"}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--waive", "no-cve:critical"], 2, "needs --owner"),
        (["--waive", "no-cve:critical", "--owner", "a", "--reason", "b"], 2, "needs --until"),
        (["--waive", "verified", "--owner", "a", "--reason", "b", "--until", "2099-01-01"], 2, "is never waived"),
        (["--waive", "no-cve:low", "--owner", "a", "--reason", "b", "--until", "2099-01-01"], 2, "nothing like"),
        (["--waive", "no-cve:critical", "--owner", "a", "--reason", "b", "--until", "2001-01-01"], 2, "have ended"),
        (["--waive", "no-cve:critical", "--owner", "a", "--reason", "b", "--until", "soon"], 2, "is no time"),
        (["--waive", "no-cve:critical", "--owner", "a", "--reason", "b\nc", "--until", "2099-01-01"], 2, "one line"),
        (["--owner", "a"], 2, "goes with --waive"),
    ],
)
def test_waiver_that_says_too_little_is_a_usage_error(clones: Clones, options: list[str], code: int, said: str) -> None:
    _, alice, _ = clones
    assert said in alice.run("promote", "web", "--to", "staging", *options, code=code).err
    assert not alice.layout.channels.exists()


def test_approver_with_other_waivers_than_proposed_is_told(clones: Clones) -> None:
    _, alice, bob = clones
    text = alice.layout.policy.read_text().replace('requires = ["verified"]', 'requires = ["no-cve:critical"]')
    for clone in (alice, bob):
        clone.layout.policy.write_text(text)
    options = ["--waive", "no-cve:critical", "--owner", "alice", "--until", "2099-01-01", "--reason"]
    alice.run("promote", "web", "--to", "prod", *options, "one")
    shutil.copytree(alice.layout.proposals, bob.layout.proposals)
    assert "--reason 'one'" in bob.run("promote", "web", "--to", "prod", *options, "two", code=6).err
    assert bob.run("promote", "web", "--to", "prod", *options, "one", "--json").json["status"] == "promoted"


def test_verifier_cannot_waive_in_a_channel_without_approvals(clones: Clones) -> None:
    robot, alice, _ = clones
    for clone in (robot, alice):
        text = clone.layout.policy.read_text()
        clone.layout.policy.write_text(
            text.replace("approvals = 0\n", 'approvals = 0\nrequires = ["verified", "no-cve:high"]\n')
        )
    waiver = ["--waive", "no-cve:high", "--owner", "a", "--reason", "b", "--until", "2099-01-01"]
    said = robot.run("promote", "web", "--to", "dev", *waiver, code=6)
    assert "no key here may sign as approver" in said.err
    assert not robot.layout.channels.exists()
    assert alice.run("promote", "web", "--to", "dev", *waiver, "--json").json["approvers"] == ["alice"]


def test_signatures_that_do_not_count_are_not_carried_into_the_head(clones: Clones) -> None:
    _, alice, bob = clones
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    (path,) = bob.layout.proposals.iterdir()
    proposed = dsse.parse(path.read_bytes())
    junk = [dsse.Signature(None, bytes([number])) for number in range(dsse.MAX_SIGNATURES - 1)]
    path.write_bytes(dsse.only(proposed, [*proposed.signatures, *junk]).raw)
    assert bob.run("promote", "web", "--to", "prod", "--json").json["approvers"] == ["alice", "bob"]
    event = bob.channel("prod").head.events[WHO]
    assert len(dsse.parse(event).signatures) == 2
    assert bob.resolves(channel="prod") == WEB


def test_event_that_cannot_be_read_is_shown_and_harms_no_other(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    robot.run("promote", "hardened", "--to", "dev")
    head = robot.channel("dev").head
    event = dsse.parse(head.events[WHO])
    junk = dsse.only(event, [*event.signatures, *[dsse.Signature(None, b"x")] * dsse.MAX_SIGNATURES]).raw
    broken = replace(head, version=9, events={**head.events, WHO: junk})
    raw = (robot.layout.channels / "dev.dsse").read_bytes()
    with pytest.raises(TamperedError, match="too many signatures"):
        standing.write_head(robot.layout, broken, robot.nightly)
    assert (robot.layout.channels / "dev.dsse").read_bytes() == raw
    (robot.layout.channels / "dev.dsse").write_bytes(heads.make(broken, robot.nightly).raw)
    listed = robot.run("channels", "list", "dev", "--json").json["channels"][0]["images"]
    assert [(one["image"], one["state"]) for one in listed] == [("hardened/amd64", "ok"), (WHO, "tampered")]
    assert "too many signatures" in robot.run("channels", "list", "dev").err
    assert robot.run("promote", "web", "--to", "dev", "--json").json["number"] == 2
    assert robot.resolves(channel="dev") == WEB


def test_key_that_nobody_knows_is_refused_also_where_nothing_is_to_sign(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    assert "the policy has no key nope" in robot.run("promote", "web", "--to", "dev", "--key", "nope", code=6).err


def test_older_image_is_refused_without_allow_older(clones: Clones) -> None:
    robot, _, _ = clones
    newer = robot.bake("web", "2", parent="hardened", age=timedelta(hours=1))
    robot.run("promote", "web", "--to", "dev")
    assert robot.resolves(channel="dev") == newer
    said = robot.run("promote", f"web@{WEB}", "--to", "dev", code=6)
    assert "--allow-older" in said.err
    done = robot.run("promote", f"web@{WEB}", "--to", "dev", "--allow-older", "--json").json
    assert (done["status"], done["replaces"], done["number"], done["allow_older"]) == ("promoted", newer, 2, True)
    assert robot.resolves(channel="dev") == WEB


def test_image_that_is_too_old_for_the_channel_is_refused(clones: Clones) -> None:
    robot, alice, _ = clones
    robot.bake("web", "0", parent="hardened", age=timedelta(days=31))
    alice.pull(robot)
    assert "more than 30 days ago" in alice.run("promote", "web", "--to", "prod", code=6).err


def test_refusals_of_promote_say_why(clones: Clones) -> None:
    robot, alice, _ = clones
    unknown = sha("unknown")
    assert "says nothing of a channel test" in robot.run("promote", "web", "--to", "test", code=6).err
    assert "no image nope" in robot.run("promote", "nope", "--to", "dev", code=2).err
    assert "no deploy ticket of web" in robot.run("promote", f"web@{unknown}", "--to", "dev", code=2).err
    assert "nothing is signed for" in robot.run("promote", f"web/amd64@{unknown}", "--to", "dev", code=6).err
    assert "is no digest" in robot.run("promote", "web@abc", "--to", "dev", code=2).err
    (robot.layout.tickets / "web-amd64.jsonl").unlink()
    assert "nothing is signed for" in robot.run("promote", "web", "--to", "dev", code=6).err
    alice.layout.revocations.unlink()
    said = alice.run("promote", "web", "--to", "prod", "--json", code=6).json
    assert said["error"]["kind"] == "unsigned"
    assert "factory channels refresh" in said["error"]["hint"]


def test_expired_revocations_refuse_a_promotion(clones: Clones) -> None:
    robot, _, _ = clones
    asked = promote.Asked("web", "dev")
    with pytest.raises(ExpiredError, match="good until"):
        promote.promote(robot.layout, asked, robot.signing, now=NOW + timedelta(days=15))
    with pytest.raises(ExpiredError, match="clock"):
        promote.promote(robot.layout, asked, robot.signing, now=NOW - timedelta(days=1))
    assert not robot.layout.channels.exists()


def test_ticket_or_proposal_from_a_clock_ahead_is_refused(clones: Clones) -> None:
    robot, alice, bob = clones
    robot.bake("web", "2", parent="hardened", age=-timedelta(hours=1))
    assert "clock says" in robot.run("promote", "web", "--to", "dev", code=6).err
    promote.promote(alice.layout, promote.Asked("web", "prod"), alice.signing, now=NOW + timedelta(hours=1))
    bob.pull(alice)
    assert "what waits for approval" in bob.run("promote", "web", "--to", "prod", code=6).err


def test_dry_run_writes_nothing(clones: Clones) -> None:
    robot, _, _ = clones
    assert "may be promoted to dev" in robot.run("promote", "web", "--to", "dev", "--dry-run").err
    assert not robot.layout.channels.exists()
    assert robot.run("promote", "web", "--to", "prod", "--dry-run", "--json").json["dry_run"] is True


def test_tickets_that_nothing_names_are_dropped(clones: Clones) -> None:
    robot, _, _ = clones
    path = robot.layout.tickets / "web-amd64.jsonl"
    second = robot.bake("web", "2", parent="hardened")
    robot.run("promote", f"web@{WEB}", "--to", "dev")
    assert set(ticket.loads(path.read_bytes())) == {WEB, second}
    assert robot.run("promote", f"web@{WEB}", "--to", "dev", "--dry-run", code=0)
    third = robot.bake("web", "3", parent="hardened", age=timedelta(minutes=1))
    robot.run("promote", f"web@{second}", "--to", "dev")
    assert set(ticket.loads(path.read_bytes())) == {second, third}
    robot.run("promote", f"web@{WEB}", "--to", "dev", "--allow-older")  # the catalog remembers its ticket
    assert set(ticket.loads(path.read_bytes())) == {WEB, third}
    assert robot.resolves(channel="dev") == WEB


def test_tickets_of_proposals_and_of_what_cannot_be_read_stay(clones: Clones) -> None:
    robot, alice, _ = clones
    alice.run("promote", "web", "--to", "prod")
    robot.pull(alice)
    path = robot.layout.tickets / "web-amd64.jsonl"
    second = robot.bake("web", "2", parent="hardened")
    robot.run("promote", "web", "--to", "dev")
    assert set(ticket.loads(path.read_bytes())) == {WEB, second}
    shutil.rmtree(robot.layout.proposals)
    (robot.layout.channels / "prod.dsse").write_text("<<<<<<< HEAD\n")
    third = robot.bake("web", "3", parent="hardened", age=timedelta(minutes=1))
    robot.run("promote", "web", "--to", "dev")
    assert set(ticket.loads(path.read_bytes())) == {WEB, second, third}
    assert "refused" not in robot.run("channels", "list", "dev").err
    assert "prod: " in robot.run("channels", "list", "prod").err


def test_promote_verified_moves_free_channels_only(clones: Clones) -> None:
    robot, _, _ = clones
    said: list[str] = []
    moved = promote.promote_verified(robot.layout, "web/amd64", "dev", robot.signing, said.append)
    assert moved is not None
    assert (moved.status, said) == ("promoted", [])
    for channel in ("dev", "prod", "none"):
        assert promote.promote_verified(robot.layout, "web/amd64", channel, robot.signing, said.append) is None
    assert "prod needs 2" in said[0]
    assert "says nothing of a channel none" in said[1]


# --- revoke


def test_revoking_an_ancestor_refuses_its_descendants_naming_it(clones: Clones) -> None:
    robot, _, bob = clones
    robot.run("promote", "web", "--to", "dev")
    bob.pull(robot)
    assert bob.resolves() == WEB
    said = bob.run("revoke", "hardened", "--reason", "CVE-1", "--json").json
    assert (said["status"], said["name"], said["number"]) == ("revoked", "hardened/amd64", 1)
    assert said["descendants"] == [{"name": WHO, "digest": WEB}]
    assert said["channels"] == [{"channel": "dev", "image": WHO}]
    for channel in (None, "dev"):
        with pytest.raises(RevokedError, match="its ancestor hardened/amd64 .*CVE-1"):
            bob.resolves(channel=channel)
    assert "revoked" in bob.run("channels", "list", "dev").out
    again = bob.run("revoke", "hardened", "--reason", "other")
    assert "already" in again.err
    assert "CVE-1" in again.err


@pytest.mark.parametrize("target", ["web", WHO, f"web@{WEB}", f"web/amd64@{WEB}", WEB])
def test_image_is_revoked_by_name_or_digest(clones: Clones, target: str) -> None:
    _, alice, _ = clones
    assert alice.run("revoke", target, "--reason", "bad").out == f"{WEB}\n"
    with pytest.raises(RevokedError, match="it was revoked"):
        alice.resolves()


def test_base_is_revoked_by_its_tree(clones: Clones) -> None:
    _, alice, _ = clones
    said = alice.run("revoke", "debian-12", "--reason", "bad", "--json").json
    assert said["digest"] == sha("debian tree")
    assert {one["name"] for one in said["descendants"]} == {"hardened/amd64", "web/amd64"}
    with pytest.raises(RevokedError, match="its ancestor debian-12"):
        alice.resolves()


def test_digest_that_nothing_here_has_must_be_meant(clones: Clones) -> None:
    _, alice, _ = clones
    strange = sha("strange")
    assert "--unknown" in alice.run("revoke", strange, "--reason", "bad", code=2).err
    assert "is web/amd64, not hardened" in alice.run("revoke", f"hardened@{WEB}", "--reason", "bad", code=2).err
    assert "is no digest" in alice.run("revoke", "sha256:abc", "--reason", "bad", code=2).err
    assert "no image or base" in alice.run("revoke", "nope", "--reason", "bad", code=2).err
    assert "one line" in alice.run("revoke", WEB, "--reason", "a\nb", code=2).err
    assert alice.run("revoke", strange, "--reason", "bad", "--unknown", "--json").json["status"] == "revoked"


@pytest.mark.parametrize(
    "name", ["sm\nall", "a" * 600, "caf\udcff", "Web", "a/b/c", "web/", "/amd64", "", "web@x"], ids=ascii
)
@pytest.mark.parametrize("form", ["{}@{}", "{}"])
def test_revoking_under_what_is_no_name_writes_nothing(clones: Clones, name: str, form: str) -> None:
    _, alice, _ = clones
    raw = alice.layout.revocations.read_bytes()
    alice.run("revoke", form.format(name, sha("strange")), "--unknown", "--reason", "x", code=2)
    assert alice.layout.revocations.read_bytes() == raw
    assert alice.run("revoke", f"small/amd64@{sha('strange')}", "--unknown", "--reason", "x").out


@pytest.mark.parametrize("name", ["sm\nall", "a" * 600])
def test_set_that_nobody_could_read_is_never_put_in_place(clones: Clones, name: str) -> None:
    _, alice, _ = clones
    raw = alice.layout.revocations.read_bytes()
    head = standing.read(alice.layout, alice.signing.policy).revocations.head
    signer = alice.signing.for_role("approver")
    event = revocations.make(revocations.Revocation(sha("x"), name, "bad", NOW, NOW, 1), signer)
    cases: list[dict[str, bytes]] = [{sha("x"): event.raw}, {sha("other"): event.raw}, {sha("x"): b"junk"}]
    for events in cases:
        with pytest.raises(TamperedError):
            standing.write_head(alice.layout, replace(head, version=2, events=events), signer)
    assert alice.layout.revocations.read_bytes() == raw


def test_revocation_that_lies_ahead_may_be_brought_forward_never_put_off(clones: Clones) -> None:
    _, alice, _ = clones
    later = "2099-01-01"
    assert alice.run("revoke", "web", "--reason", "end of life", "--at", later, "--json").json["number"] == 1
    assert alice.resolves() == WEB
    assert alice.run("revoke", "web", "--reason", "x", "--at", "2099-06-01", "--json").json["status"] == "unchanged"
    assert alice.run("revoke", "web", "--reason", "CVE", "--json").json["number"] == 2
    with pytest.raises(RevokedError):
        alice.resolves()


def test_verifier_cannot_revoke(clones: Clones) -> None:
    robot, _, _ = clones
    raw = robot.layout.revocations.read_bytes()
    assert "approver or root" in robot.run("revoke", "web", "--reason", "x", code=6).err
    assert robot.layout.revocations.read_bytes() == raw


def test_revoked_image_is_not_promoted(clones: Clones) -> None:
    robot, alice, _ = clones
    alice.run("revoke", "web", "--reason", "CVE-1")
    robot.pull(alice)
    assert "CVE-1" in robot.run("promote", "web", "--to", "dev", code=6).err


def test_revoking_works_with_an_expired_set_and_renews_it(clones: Clones) -> None:
    _, alice, _ = clones
    later = NOW + timedelta(days=20)
    with pytest.raises(ExpiredError):
        alice.resolves(now=later)
    revoke.revoke(alice.layout, "web", "bad", alice.signing, now=later)
    with pytest.raises(RevokedError):
        alice.resolves(now=later)


# --- keys


def test_compromised_approver_voids_promotions_and_keeps_revocations(clones: Clones) -> None:
    robot, alice, bob = clones
    alice.run("revoke", sha("old"), "--unknown", "--reason", "bad")
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    bob.run("promote", "web", "--to", "prod")
    done = revoke.revoke_key(bob.layout, "alice", "stolen", frozenset(), bob.signing)
    assert done.void == (("prod", WHO),)
    with pytest.raises(RevokedError, match="compromised"):
        bob.resolves(channel="prod")
    found = standing.read(bob.layout, bob.signing.policy).revocations
    assert sha("old") in found.images
    proposed = promote.promote(bob.layout, promote.Asked("web", "prod"), bob.signing)
    assert (proposed.status, proposed.promotion.number) == ("proposed", 2)  # made anew, the void one counts no more
    assert revoke.revoke_key(bob.layout, "alice", "again", frozenset(), bob.signing).is_new is False
    alice.pull(bob)
    assert "was compromised" in alice.run("promote", "web", "--to", "prod", code=6).err
    assert robot.layout.revocations.exists()


def test_compromised_refresher_leaves_heads_that_others_signed_anew(clones: Clones) -> None:
    robot, _, bob = clones
    robot.run("promote", "web", "--to", "dev")
    bob.pull(robot)
    bob.run("key", "revoke", "nightly", "--reason", "stolen", "--keep-tickets")
    assert bob.resolves() == WEB
    assert bob.channel("dev").version == 2
    with pytest.raises(RevokedError):
        bob.resolves(channel="dev")
    state = bob.run("channels", "list", "dev", "--json").json["channels"][0]
    assert state["images"][0]["state"] == "revoked"


def test_void_promotion_does_not_hold_an_older_image_back(clones: Clones) -> None:
    robot, _, bob = clones
    robot.bake("web", "2", parent="hardened", age=timedelta(minutes=5))
    both = (robot.layout.tickets / "web-amd64.jsonl").read_bytes()
    robot.run("promote", "web", "--to", "dev")
    bob.pull(robot)
    (bob.layout.tickets / "web-amd64.jsonl").write_bytes(both)
    revoke.revoke_key(bob.layout, "nightly", "stolen", _envelopes(bob), bob.signing)
    assert bob.run("promote", f"web@{WEB}", "--to", "dev", "--json").json["status"] == "promoted"


def _envelopes(clone: Clone) -> frozenset[Digest]:
    """All that stands in the tickets."""
    lines = [line for path in clone.layout.tickets.iterdir() for line in path.read_bytes().splitlines()]
    return frozenset(map(digest.of_bytes, lines))


# --- channels


def test_list_shows_what_stands_and_what_was(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    second = robot.bake("web", "2", parent="hardened")
    robot.run("promote", "web", "--to", "dev")
    shown = robot.run("channels", "list")
    (line,) = shown.out.splitlines()
    assert line.split()[:3] == ["dev", WHO, second]
    assert line.split()[-2:] == ["nightly", "ok"]
    assert "prod: nothing was ever promoted to it" in shown.err
    past = robot.run("channels", "list", "dev", "--history", "--json").json["history"]
    assert [(one["digest"], one["number"], one["signers"]) for one in past] == [
        (second, 2, ["nightly"]),
        (WEB, 1, ["nightly"]),
    ]
    assert len(robot.run("channels", "list", "dev", "--history").out.splitlines()) == 2
    assert "of which channel" in robot.run("channels", "list", "--history", code=2).err
    assert "says nothing of a channel" in robot.run("channels", "list", "nope", code=6).err
    assert "there is no channel 'nope'" in robot.run("channels", "list", "nope", "--history", code=2).err
    assert robot.run("channels", "list", "prod", "--history", "--json").json["history"] == []


def test_refresh_renews_what_is_due_and_nothing_else(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    raw = robot.layout.revocations.read_bytes()
    assert robot.run("channels", "refresh", "--json").json["renewed"] == []
    assert robot.layout.revocations.read_bytes() == raw
    later = NOW + timedelta(days=16)
    with pytest.raises(ExpiredError):
        robot.resolves(channel="dev", now=later)
    done = refresh.refresh(robot.layout, robot.signing, now=later)
    assert [(one.file, one.version) for one in done.renewed] == [
        ("trust/revocations.dsse", 2),
        ("trust/channels/dev.dsse", 2),
    ]
    assert robot.resolves(channel="dev", now=later) == WEB


def test_refresh_begins_a_set_where_there_was_none(clones: Clones) -> None:
    robot, _, _ = clones
    robot.layout.revocations.unlink()
    (begun,) = robot.run("channels", "refresh", "--json").json["renewed"]
    assert (begun["file"], begun["version"]) == ("trust/revocations.dsse", 2)
    assert robot.resolves() == WEB
    robot.layout.policy.unlink()
    assert "factory key new" in robot.run("channels", "list", code=2).err


def test_refresh_with_a_clock_behind_signs_nothing(clones: Clones) -> None:
    robot, _, _ = clones
    raw = robot.layout.revocations.read_bytes()
    done = refresh.refresh(robot.layout, robot.signing, every=True, now=NOW - timedelta(days=1))
    assert "clock says" in done.refused["trust/revocations.dsse"].message
    assert (done.renewed, robot.layout.revocations.read_bytes()) == ((), raw)


def test_proposal_that_a_kill_left_behind_is_not_shown(clones: Clones) -> None:
    _, alice, bob = clones
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    (path,) = bob.layout.proposals.iterdir()
    raw = path.read_bytes()
    bob.run("promote", "web", "--to", "prod")
    path.write_bytes(raw)
    assert bob.run("channels", "list", "--json").json["proposals"] == []
    bob.run("promote", "web", "--to", "prod")
    assert not path.exists()


def test_refresh_of_all_renews_all(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    renewed = robot.run("channels", "refresh", "--all", "--json").json["renewed"]
    assert [one["file"] for one in renewed] == ["trust/revocations.dsse", "trust/channels/dev.dsse"]


def test_head_that_does_not_verify_is_never_signed_anew(clones: Clones) -> None:
    robot, alice, _ = clones
    robot.run("promote", "web", "--to", "dev")
    path = robot.layout.channels / "dev.dsse"
    envelope = dsse.parse(path.read_bytes())
    forged = replace(heads.peek(envelope), version=9)
    stranger = Clone(robot.layout.root.parent / "stranger", alice._capsys)
    stranger.layout.trust.mkdir(parents=True)
    stranger.layout.policy.write_text(RULES)
    stranger.run("key", "new", "mallory", "--role", "verifier")
    path.write_bytes(heads.make(forged, stranger.signing.for_role("verifier")).raw)
    raw = path.read_bytes()
    said = robot.run("channels", "refresh", "--all", code=6)
    assert "refused trust/channels/dev.dsse" in said.err
    assert path.read_bytes() == raw
    assert "does not know" in robot.run("promote", "web", "--to", "dev", code=6).err
    assert path.read_bytes() == raw


def test_set_that_is_gone_is_not_begun_anew_in_silence(clones: Clones) -> None:
    _, alice, _ = clones
    alice.run("revoke", "web", "--reason", "bad")
    alice.layout.revocations.unlink()
    for command in (["channels", "refresh"], ["revoke", "hardened", "--reason", "x"]):
        assert "the catalog remembers revocations" in alice.run(*command, code=6).err
    assert not alice.layout.revocations.exists()


def test_revocation_that_was_lost_in_a_merge_is_told(clones: Clones) -> None:
    _, alice, _ = clones
    before = alice.layout.revocations.read_bytes()
    alice.run("revoke", "web", "--reason", "bad")
    alice.layout.revocations.write_bytes(before)
    said = alice.run("channels", "refresh", code=6)
    assert f"lacks the revocation of web/amd64 {WEB}" in said.err
    assert alice.run("revoke", "web", "--reason", "bad", "--json").json["number"] == 2
    alice.run("channels", "refresh")


def test_revocation_of_a_key_that_was_lost_in_a_merge_is_told(clones: Clones) -> None:
    _, _, bob = clones
    before = bob.layout.revocations.read_bytes()
    bob.run("key", "revoke", "nightly", "--reason", "stolen", "--keep-tickets")
    bob.layout.revocations.write_bytes(before)
    said = bob.run("channels", "refresh", "--json", code=6)
    assert "lacks the revocation of nightly sha256:" in said.err
    assert "factory key revoke nightly" in said.err
    bob.run("key", "revoke", "nightly", "--reason", "stolen", "--keep-tickets")
    bob.run("channels", "refresh")


def test_number_and_version_go_on_after_git_took_a_head_back(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    first = (robot.layout.channels / "dev.dsse").read_bytes()
    robot.bake("web", "2", parent="hardened", age=timedelta(minutes=50))
    robot.run("promote", "web", "--to", "dev")
    (robot.layout.channels / "dev.dsse").write_bytes(first)
    robot.bake("web", "3", parent="hardened", age=timedelta(minutes=40))
    said = robot.run("promote", "web", "--to", "dev", "--json").json
    assert (said["number"], said["version"]) == (3, 3)


def test_link_in_trust_is_not_followed(clones: Clones) -> None:
    robot, _, _ = clones
    robot.run("promote", "web", "--to", "dev")
    shutil.move(robot.layout.revocations, robot.layout.root / "elsewhere")
    robot.layout.revocations.symlink_to(robot.layout.root / "elsewhere")
    assert "is a link" in robot.run("promote", "web", "--to", "dev", code=6).err


# --- real keys take over from development keys


@pytest.fixture
def begun(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A factory in which a development key has signed everything: tickets, two promotions, a revocation."""
    for name in (signing.KEY, signing.PASSPHRASE, signing.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)
    clone = Clone(tmp_path / "begun", capsys)
    clone.layout.trust.mkdir(parents=True)
    text = RULES.replace("allow_development_keys = false", "allow_development_keys = true")
    clone.layout.policy.write_text(
        text.replace('approvals = 1\nrequires = ["verified", "no-cve', 'requires = ["no-cve')
    )
    tree = LockedBase("debian-12", "amd64", sha("debian tree"))
    lockfile.write(clone.layout.lock, lockfile.with_entries(Lock(), [tree]))
    clone.bake("web", "1", age=timedelta(hours=2), signer=clone.signing.for_role("builder"))
    assert refresh.ensure_revocations(clone.layout, clone.signing)
    clone.run("promote", "web", "--to", "dev")
    waiver = ["--waive", "no-cve:critical", "--owner", "a", "--reason", "b", "--until", "2099-01-01"]
    clone.run("promote", "web", "--to", "staging", *waiver)
    clone.run("revoke", sha("old"), "--unknown", "--reason", "bad")
    clone.run("key", "new", "nightly", "--role", "builder", "--role", "verifier")
    clone.run("key", "new", "alice", "--role", "approver", "--role", "root")
    return clone


def _forbid_development(clone: Clone) -> None:
    text = clone.layout.policy.read_text()
    clone.layout.policy.write_text(text.replace("allow_development_keys = true", "allow_development_keys = false"))


@pytest.mark.parametrize("flipped_first", [True, False])
def test_real_keys_take_over_and_everything_works_on(begun: Clone, flipped_first: bool) -> None:
    if flipped_first:
        _forbid_development(begun)
        for command in (["promote", "web", "--to", "dev"], ["channels", "refresh"], ["channels", "list"]):
            said = begun.run(*command, code=6)
            assert "a development key, which the policy does not allow" in said.err
            assert "factory channels refresh --adopt" in said.err
        warned = begun.run("policy", "check").err
        for file in ("trust/revocations.dsse", "trust/channels/dev.dsse", "trust/tickets/web-amd64.jsonl"):
            assert f"{file} rests on development keys" in warned
    done = begun.run("channels", "refresh", "--adopt", "--json").json
    assert [head["file"] for head in done["renewed"]] == [
        "trust/revocations.dsse", "trust/channels/dev.dsse", "trust/channels/staging.dsse",
    ]  # fmt: skip
    assert [one["of"] for one in done["adopted"]] == [sha("old"), WHO, WHO]
    assert "no-cve:critical waived for a" in done["adopted"][2]["what"]
    assert (done["void"], done["refused"]) == ([], [])
    _forbid_development(begun)
    assert begun.run("channels", "refresh", "--adopt", "--json").json["renewed"] == []
    found = standing.read(begun.layout, begun.signing.policy)
    assert (sha("old") in found.revocations.images, dict(found.faults)) == (True, {})
    assert begun.channel("dev").promotions[WHO].approvers == ("alice",)
    assert "trust/revocations.dsse rests" not in begun.run("policy", "check").err
    with pytest.raises(UnsignedError, match="development key"):
        begun.resolves(channel="dev")  # the image itself: a bake verifies and signs it again
    begun.bake("web", "1", age=timedelta(hours=2))
    assert "rests on" not in begun.run("policy", "check").err
    assert begun.resolves(channel="dev") == WEB
    assert begun.resolves(channel="staging") == WEB
    second = begun.bake("web", "2")
    begun.run("promote", "web", "--to", "dev")
    assert begun.resolves(channel="dev") == second
    begun.run("revoke", "web", "--reason", "bad")
    with pytest.raises(RevokedError):
        begun.resolves(channel="dev")
    begun.run("channels", "refresh", "--all")


def test_nothing_but_a_real_approver_or_root_takes_over(begun: Clone) -> None:
    _forbid_development(begun)
    raw = begun.layout.revocations.read_bytes()
    (name,) = (key.name for key in begun.signing.policy.keys.values() if key.development)
    for key in (name, "nightly"):
        assert "no key here may sign as approver or root" in begun.run(
            "channels", "refresh", "--adopt", "--key", key, code=6
        ).err  # fmt: skip
    text = begun.layout.policy.read_text()
    begun.layout.policy.write_text(text.replace("keys = false", "keys = true"))
    assert "is a development key" in begun.run("channels", "refresh", "--adopt", "--key", name, code=6).err
    assert begun.layout.revocations.read_bytes() == raw
    assert "leave it out" in begun.run("channels", "refresh", "--adopt", "--all", code=2).err


def test_what_a_stranger_signed_is_not_taken_over(begun: Clone) -> None:
    begun.run("channels", "refresh")
    path = begun.layout.channels / "dev.dsse"
    stranger = Clone(begun.layout.root.parent / "stranger", begun._capsys)
    stranger.layout.trust.mkdir(parents=True)
    stranger.layout.policy.write_text(RULES)
    stranger.run("key", "new", "mallory", "--role", "verifier")
    forged = replace(begun.channel("dev").head, version=9)
    path.write_bytes(heads.make(forged, stranger.signing.for_role("verifier")).raw)
    raw = path.read_bytes()
    _forbid_development(begun)
    done = begun.run("channels", "refresh", "--adopt", code=6)
    assert "refused trust/channels/dev.dsse" in done.err
    assert "took over" in done.err
    assert path.read_bytes() == raw


def test_promotion_that_one_key_cannot_take_over_is_told(begun: Clone) -> None:
    text = begun.layout.policy.read_text()
    begun.layout.policy.write_text(text.replace('roles = ["approver", "root"]', 'roles = ["root"]'))
    _forbid_development(begun)
    done = begun.run("channels", "refresh", "--adopt", "--json").json
    assert [one["of"] for one in done["void"]] == [WHO, WHO]
    assert [one["of"] for one in done["adopted"]] == [sha("old")]
    begun.bake("web", "1", age=timedelta(hours=2))
    assert begun.run("promote", "web", "--to", "dev", "--json").json["number"] == 2
    assert begun.resolves(channel="dev") == WEB


# --- killed in between


COMMAND = "from factory import cli; cli.main()"
KILLED = """
import os, signal, sys
from factory import cli, files
from factory.release import standing
place, count = sys.argv[1], int(sys.argv[2])
def dies(real):
    def call(*arguments, **more):
        global count
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        count -= 1
        return real(*arguments, **more)
    return call
if place == "file":
    files.replace = dies(files.replace)
elif place == "renamed":
    files.sync_folder = dies(files.sync_folder)
else:
    standing.index = dies(standing.index)
sys.exit(cli.run(sys.argv[3:]))
"""


@pytest.mark.parametrize(("place", "count"), [("file", 0), ("renamed", 0), ("index", 0), ("index", 1)])
@pytest.mark.parametrize("command", ["promote web --to dev", "revoke debian-12 --reason bad"])
def test_kill_leaves_old_or_new_and_the_next_command_ends_it(
    clones: Clones, place: str, count: int, command: str
) -> None:
    robot, alice, _ = clones
    clone = robot if command.startswith("promote") else alice
    revocations_before = clone.layout.revocations.read_bytes()
    arguments = ["-C", str(clone.layout.root), *command.split()]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(count), *arguments], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    standing.read(clone.layout, clone.signing.policy)
    if place == "file":
        assert clone.layout.revocations.read_bytes() == revocations_before
        assert not clone.layout.channels.exists() or not list(clone.layout.channels.glob("*.dsse"))
    clone.run(*command.split())
    with Catalog.open(clone.layout.catalog) as catalog:
        found = attestations.of_image(catalog, WEB if clone is robot else sha("debian tree"))
        kinds = [row.predicate_type for row in found if row.number is not None]
        assert len(kinds) == 1
    found_now = standing.read(clone.layout, clone.signing.policy)
    if clone is robot:
        assert found_now.channels["dev"].promotions[WHO].number == 1
    else:
        assert found_now.revocations.last_number == 1


@pytest.mark.parametrize("place", ["file", "renamed", "index"])
def test_kill_of_the_second_approval_leaves_a_proposal_or_a_promotion(clones: Clones, place: str) -> None:
    _, alice, bob = clones
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    arguments = ["-C", str(bob.layout.root), "promote", "web", "--to", "prod"]
    count = "1" if place == "index" else "0"
    done = subprocess.run([sys.executable, "-c", KILLED, place, count, *arguments], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    bob.run("promote", "web", "--to", "prod")
    assert bob.channel("prod").promotions[WHO].approvers == ("alice", "bob")
    assert list(bob.layout.proposals.glob("*")) == []


def test_commands_at_once_lose_nothing(clones: Clones) -> None:
    """Two processes promote two images; both stand in the channel, whoever came first."""
    robot, _, _ = clones
    names = ("web", "hardened")
    commands = [
        [sys.executable, "-c", COMMAND, "-C", str(robot.layout.root), "promote", name, "--to", "dev"] for name in names
    ]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait() for process in running] == [0, 0]
    channel = robot.channel("dev")
    assert channel.version == 2
    assert {image: channel.promotions[image].number for image in channel.promotions} == {WHO: 1, "hardened/amd64": 1}
