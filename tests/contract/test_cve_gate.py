"""`no-cve:SEVERITY` at factory promote: met, refused, explained, old news, nothing to look at, tampered."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cve_data as data
import pytest
from catalogued import deb
from test_channel_commands import WEB, WHO, Clone, Clones, clones

from factory import lockfile
from factory.catalog import contents
from factory.catalog.contents import InstalledPackage, Recorded
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import ExpiredError, TrustError, UnsignedError
from factory.release import promote
from factory.store import Store
from factory.trust import dsse, heads, statements, ticket
from factory.trust.facts import BakeFacts, ImageFacts, Verification
from factory.trust.policy import loads
from factory.trust.predicates import provenance, sbom, test_result
from factory.trust.statements import of_envelope

__all__ = ["clones"]
CHANNELS = """
[channel.dev]
approvals = 0
requires = ["verified", "no-cve:high"]
[channel.low]
approvals = 0
requires = ["no-cve:low"]
[channel.both]
approvals = 0
requires = ["no-cve:critical", "no-cve:high"]
[channel.prod]
approvals = 2
requires = ["verified", "no-cve:high"]
"""
BASE_FILES = deb("base-files", "12.4+deb12u15", arch="all")
ZLIB = deb("zlib1g", "1:1.2.13.dfsg-1", "zlib")
NGINX = deb("nginx-light", "1.22.1-9+deb12u11", "nginx")
OPENSSL = deb("libssl3", "3.0.22-1~deb12u2", "openssl")


@pytest.fixture
def robot(clones: Clones) -> Clone:
    """The nightly job's clone: channels that look for CVEs, a source, an image with a low one."""
    equip(clones[0])
    return clones[0]


@pytest.fixture
def people(clones: Clones) -> tuple[Clone, Clone]:
    """Alice's clone and bob's, likewise."""
    for clone in clones[1:]:
        equip(clone)
    return clones[1:]


def equip(clone: Clone) -> None:
    text = clone.layout.policy.read_text()
    keys = text[text.index("[key.") :]
    clone.layout.policy.write_text(f"version = 9\n{CHANNELS}\n{keys}")
    assert len(loads(clone.layout.policy.read_bytes()).keys) == 3
    data.write(clone.layout.root / "cve/tracker.json", data.tracker())
    clone.layout.spec.write_text('[cve]\ntracker = ["cve/tracker.json"]\nvex = ["trust/vex"]\n')
    (clone.layout.trust / "vex").mkdir(exist_ok=True)
    remember(clone, (BASE_FILES, OPENSSL))


def remember(clone: Clone, packages: Iterable[InstalledPackage]) -> None:
    """The catalog's record of the locked web, as if it had been baked with these packages."""
    clone.layout.catalog.unlink(missing_ok=True)
    Path(f"{clone.layout.catalog}-wal").unlink(missing_ok=True)
    locked = lockfile.read(clone.layout.lock).images["web", "amd64"]
    made = Recorded(
        locked, "image", "hardened", "rootfs", "run-1", "baked", datetime.now(UTC).isoformat(), packages=tuple(packages)
    )
    with Catalog.open(clone.layout.catalog) as catalog, catalog.writing() as database:
        contents.put_bake(database.conn, made)


def sign_sbom(clone: Clone, packages: Iterable[InstalledPackage]) -> Digest:
    """Give web a signed SBOM in the store, and a ticket that names it; the SBOM's digest."""
    path = clone.layout.tickets / "web-amd64.jsonl"
    before = ticket.loads(path.read_bytes())[WEB]
    made = provenance.read(of_envelope(before.provenance, statements.PROVENANCE, "p"))
    tested = test_result.read(of_envelope(before.test_result, statements.TEST_RESULT, "t"))
    bill = statements.signed(sbom.statement(made.image, packages, made.finished_at), [clone.nightly])
    facts: ImageFacts = made.image
    bake = BakeFacts(
        facts, {"playbook": "p"}, {"playbook": {"p": facts.tree}}, "rootfs", {"factory": "1"}, "run-1",
        made.finished_at, made.finished_at,
    )  # fmt: skip
    verification = Verification(tested.checks, tested.verified_at, facts.tree, {"web": facts.tree})
    new = ticket.make(bake, verification, bill.digest, builder=clone.nightly, verifier=clone.nightly)
    path.write_bytes(ticket.dumps([new]))
    return Store(clone.layout.store).put_bytes(bill.raw)


def explain(clone: Clone, cve: str, product: Any, **more: Any) -> None:
    data.write(clone.layout.trust / f"vex/{cve}.json", data.vex(cve, product, **more))


def date_back(path: Path, **age: float) -> None:
    at = (datetime.now(UTC) - timedelta(**age)).timestamp()
    os.utime(path, (at, at))


def refused(clone: Clone, *said: str, channel: str = "dev") -> str:
    err = clone.run("promote", "web", "--to", channel, code=6).err
    for one in said:
        assert one in err
    assert not (clone.layout.channels / f"{channel}.dsse").exists()
    return err


# --- met, refused, explained


def test_image_without_such_cves_is_promoted_and_what_was_looked_at_is_signed(robot: Clone) -> None:
    said = robot.run("promote", "web", "--to", "dev", "--json").json
    assert said["requirements"] == {"verified": "passed", "no-cve:high": "passed"}
    looked = said["cve"]
    assert looked["suite"] == "bookworm"
    (source,) = looked["data"]
    assert (source["kind"], source["name"]) == ("tracker", "cve/tracker.json")
    raw = (robot.layout.root / "cve/tracker.json").read_bytes()
    assert source["digest"] == Store(robot.layout.store).put_bytes(raw)
    assert (looked["vex"], looked["explained"]) == ([], [])
    assert robot.resolves(channel="dev") == WEB


def test_image_with_such_a_cve_is_refused_and_told_which(robot: Clone) -> None:
    remember(robot, (BASE_FILES, OPENSSL, NGINX))
    err = refused(
        robot, "CVE-2026-90001  high  nginx 1.22.1-9+deb12u11  fixed in 1.22.1-9+deb12u99", "may not stand in dev"
    )
    assert "factory bake --refresh web" in err
    assert "CVE-2026-90002" not in err
    refused(robot, "CVE-2026-90002  low  openssl 3.0.22-1~deb12u2  no fix is known", channel="low")


def test_severity_that_nobody_knows_is_taken_for_the_worst(robot: Clone) -> None:
    remember(robot, (BASE_FILES, ZLIB))
    refused(robot, "CVE-2023-45853  unknown  zlib")


def test_explained_cve_is_let_pass_until_the_explanation_ends(robot: Clone) -> None:
    remember(robot, (BASE_FILES, NGINX))
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    explain(robot, "CVE-2026-90001", "pkg:deb/debian/nginx", valid_until=until.isoformat())
    said = robot.run("promote", "web", "--to", "dev", "--json").json
    assert [(one["id"], one["owner"]) for one in said["cve"]["explained"]] == [("CVE-2026-90001", "alice")]
    assert len(said["cve"]["vex"]) == 1
    assert "explained until" in robot.run("channels", "list", "dev").err
    assert robot.resolves(channel="dev") == WEB
    with pytest.raises(ExpiredError, match="what explained its CVEs away ended"):
        robot.resolves(channel="dev", now=until)


NO_EXPLANATION: tuple[dict[str, Any], ...] = (
    {"valid_until": "2026-11-02T00:00:00Z"},
    {"valid_until": None},
    {"justification": None, "impact_statement": None},
    {"status": "affected"},
    {"products": [{"@id": "pkg:deb/debian/zlib"}]},
    {"products": [{"@id": "urn:x-factory:image:base"}]},
    {"timestamp": "2099-01-01T00:00:00Z"},
)
"""Expired, without an end, without a reason, affected, of another package, of another image, from the future."""


def test_statement_that_does_not_explain_lets_nothing_pass(robot: Clone) -> None:
    remember(robot, (BASE_FILES, NGINX))
    for more in NO_EXPLANATION:
        explain(robot, "CVE-2026-90001", "pkg:deb/debian/nginx", **more)
        refused(robot, "CVE-2026-90001")


def test_two_severities_of_one_channel_are_judged_each(robot: Clone) -> None:
    remember(robot, (BASE_FILES, NGINX))
    refused(robot, "no-cve:high", channel="both")
    remember(robot, (BASE_FILES, OPENSSL))
    said = robot.run("promote", "web", "--to", "both", "--json").json
    assert said["requirements"] == {"no-cve:critical": "passed", "no-cve:high": "passed"}


# --- no data is no good news


def test_no_source_is_told_with_what_to_configure(robot: Clone) -> None:
    robot.layout.spec.unlink()
    err = refused(robot, "nothing says that it is free of high CVEs: no source of CVEs is configured")
    assert "[cve] of images.toml" in err
    source = str(robot.layout.root / "cve/tracker.json")
    said = robot.run("promote", "web", "--to", "dev", "--tracker", source, "--json").json
    assert said["cve"]["data"][0]["name"] == "tracker.json"


def test_packages_that_are_not_known_are_not_taken_for_none(robot: Clone) -> None:
    robot.layout.catalog.unlink()
    Path(f"{robot.layout.catalog}-wal").unlink(missing_ok=True)
    refused(robot, "neither the catalog nor the store here knows its packages")


def test_release_that_is_not_known_is_no_good_news(robot: Clone) -> None:
    remember(robot, (OPENSSL,))
    refused(robot, "do not say which Debian release")
    remember(robot, (deb("base-files", "10.3"), OPENSSL))
    refused(robot, "no source speaks of buster")


def test_data_of_months_ago_are_no_good_news(robot: Clone) -> None:
    path = robot.layout.root / "cve/tracker.json"
    date_back(path, days=7, hours=1)
    refused(robot, "cve/tracker.json is of", "more than 7 days old")
    date_back(path, days=6)
    assert robot.run("promote", "web", "--to", "dev", "--json").json["status"] == "promoted"


def test_one_old_source_of_several_is_enough_to_refuse(robot: Clone) -> None:
    old = data.write(robot.layout.root / "cve/osv.json", data.records())
    date_back(old, days=30)
    robot.layout.spec.write_text('[cve]\ntracker = ["cve/tracker.json"]\nosv = ["cve/osv.json"]\n')
    refused(robot, "cve/osv.json is of")


def test_source_that_cannot_be_read_stops_the_promotion(robot: Clone) -> None:
    path = robot.layout.root / "cve/tracker.json"
    for content, told in (("{", "cannot be read"), ("<html>", "is a web page"), (None, "cannot be read")):
        path.unlink()
        if content is not None:
            path.write_text(content)
        assert told in robot.run("promote", "web", "--to", "dev", code=3).err
        assert not (robot.layout.channels / "dev.dsse").exists()
        heard: list[str] = []
        assert promote.promote_verified(robot.layout, WHO, "dev", robot.signing, heard.append) is None
        assert any(told in line for line in heard)


def test_waived_requirement_needs_no_source(people: tuple[Clone, Clone]) -> None:
    alice, _ = people
    alice.layout.spec.unlink()
    until = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%d")
    options = ["--waive", "no-cve:high", "--owner", "alice", "--reason", "x", "--until", until]
    said = alice.run("promote", "web", "--to", "dev", *options, "--json").json
    assert (said["requirements"]["no-cve:high"], said["cve"]) == ("waived", None)


# --- the packages that count are those that were signed


def test_signed_packages_are_looked_at_where_the_catalog_knows_none(robot: Clone) -> None:
    sign_sbom(robot, (BASE_FILES, NGINX))
    robot.layout.catalog.unlink()
    Path(f"{robot.layout.catalog}-wal").unlink(missing_ok=True)
    refused(robot, "CVE-2026-90001")


def test_catalog_that_says_other_packages_than_were_signed_is_refused(robot: Clone) -> None:
    """Somebody makes the vulnerable nginx disappear from the catalog."""
    sign_sbom(robot, (BASE_FILES, OPENSSL, NGINX))
    refused(robot, "the catalog says other packages of web/amd64 than were signed")
    remember(robot, (BASE_FILES, OPENSSL, NGINX))
    refused(robot, "CVE-2026-90001")
    sign_sbom(robot, (BASE_FILES, OPENSSL))
    remember(robot, (BASE_FILES, OPENSSL))
    with sqlite3.connect(robot.layout.catalog) as connection:
        connection.execute("DROP TRIGGER packages_no_update")
        connection.execute("UPDATE packages SET source_version = '99' WHERE name = 'libssl3'")
    refused(robot, "the catalog says other packages")


def test_damaged_sbom_is_refused(robot: Clone) -> None:
    digest = sign_sbom(robot, (BASE_FILES, OPENSSL))
    path = Store(robot.layout.store).path(digest)
    raw = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(raw.replace(b'"', b"'", 1))
    robot.run("promote", "web", "--to", "dev", code=6)


# --- two approvers


def hand_over(source: Clone, target: Clone) -> None:
    target.pull(source)
    (target.layout.trust / "vex").mkdir(exist_ok=True)


def test_second_approver_looks_with_newer_data_and_agrees(people: tuple[Clone, Clone]) -> None:
    alice, bob = people
    assert alice.run("promote", "web", "--to", "prod", "--json").json["status"] == "proposed"
    hand_over(alice, bob)
    data.write(bob.layout.root / "cve/tracker.json", {**data.tracker(), "other": {}})
    said = bob.run("promote", "web", "--to", "prod", "--json").json
    assert (said["status"], said["approvers"]) == ("promoted", ["alice", "bob"])
    assert bob.resolves(channel="prod") == WEB


def test_second_approver_who_finds_a_cve_refuses(people: tuple[Clone, Clone]) -> None:
    alice, bob = people
    alice.run("promote", "web", "--to", "prod")
    hand_over(alice, bob)
    worse = {**data.tracker(), "openssl": {"CVE-2026-99999": data.entry(bookworm=data.release("open", urgency="high"))}}
    data.write(bob.layout.root / "cve/tracker.json", worse)
    refused(bob, "CVE-2026-99999  high  openssl", channel="prod")


def test_second_approver_with_other_explanations_or_old_news_does_not_sign(people: tuple[Clone, Clone]) -> None:
    alice, bob = people
    for clone in (alice, bob):
        remember(clone, (BASE_FILES, NGINX))
    explain(alice, "CVE-2026-90001", "pkg:deb/debian/nginx")
    alice.run("promote", "web", "--to", "prod")
    bob.pull(alice)
    explain(bob, "CVE-2026-90001", "pkg:deb/debian/nginx", valid_until="2027-01-01T00:00:00Z")
    refused(bob, "what waits for approval is not what you ask for", channel="prod")
    bob.pull(alice)
    assert bob.run("promote", "web", "--to", "prod", "--json").json["status"] == "promoted"


def test_proposal_on_data_that_got_old_meanwhile_is_not_approved(people: tuple[Clone, Clone]) -> None:
    alice, bob = people
    date_back(alice.layout.root / "cve/tracker.json", days=6, hours=23)
    alice.run("promote", "web", "--to", "prod")
    hand_over(alice, bob)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    asked = promote.Asked("web", "prod")
    with pytest.raises(TrustError, match="what waits for approval is not what you ask for"):
        promote.promote(bob.layout, asked, bob.signing, later)


def test_claim_without_anything_looked_at_is_void_for_a_deployer(robot: Clone) -> None:
    robot.run("promote", "web", "--to", "dev")
    channel = robot.channel("dev")
    envelope = dsse.parse(channel.head.events[WHO])
    statement = statements.of_envelope(envelope, statements.PROMOTION, "x")
    plain = {key: value for key, value in statement.predicate.items() if key != "cve"}
    bare = statements.signed(replace(statement, predicate=plain), [robot.nightly])
    forged = replace(channel.head, version=channel.version + 1, events={WHO: bare.raw})
    (robot.layout.channels / "dev.dsse").write_bytes(heads.make(forged, robot.nightly).raw)
    with pytest.raises(UnsignedError, match="nothing says that it is free of high CVEs"):
        robot.resolves(channel="dev")
