"""factory resolve as a deploy job uses it: each form of the answer, read by what it is for, and where it comes from."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from signed_factory import AMI, SignedFactory, build, policy_text, sha

from factory import cli, lockfile
from factory.model import Layout, Lock
from factory.release import resolve as flow
from factory.release.resolve import Asked

FIELDS = ["name", "arch", "digest", "bake_key", "channel", "location", "artifact", "path", "reference",
          "signers", "signer_keys", "ancestors", "baked_at", "verified_at", "policy", "policy_source",
          "policy_version", "rollback", "development"]  # fmt: skip


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    """A deploy job at its command line, in the checkout."""

    factory: SignedFactory
    capsys: pytest.CaptureFixture[str]

    def run(self, *asked: str, code: int = 0) -> Result:
        self.capsys.readouterr()
        got = cli.run(["-C", str(self.factory.root), "resolve", *asked])
        captured = self.capsys.readouterr()
        assert got == code, captured.err
        assert "Traceback" not in captured.err
        return Result(got, captured.out, captured.err)

    def bundle(self, folder: Path) -> Path:
        """The checkout as factory export lays it out: lock and papers, and the store's files beside them."""
        shutil.copytree(self.factory.layout.trust, folder / "trust")
        shutil.copy(self.factory.layout.lock, folder / "images.lock")
        shutil.copytree(self.factory.layout.store, folder / "store")
        return folder


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(build(tmp_path), capsys)


@pytest.fixture
def odd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A factory in a folder whose name a shell, YAML and JSON would each trip over."""
    folder = tmp_path / 'it\'s $HOME: "#1" `id` \\ %'
    folder.mkdir()
    return Desk(build(folder), capsys)


# --- forms


def test_plain_answer_is_the_path_alone(desk: Desk) -> None:
    said = desk.run("web", "--frozen")
    assert said.out == f"{desk.factory.artifact()}\n"
    assert Path(said.out.strip()).read_bytes() == b"web qcow2 "
    assert "web/amd64 " in said.err
    assert "signed by nightly, tester; rollback: unchecked" in said.err


def test_json_has_every_field_of_the_contract(desk: Desk) -> None:
    facts = desk.factory.images["web"]
    said = desk.run("web", "--frozen", "--channel", "prod", "--json").json
    assert list(said) == FIELDS
    assert said["name"] == "web"
    assert said["arch"] == "amd64"
    assert said["digest"] == facts.digest
    assert said["bake_key"] == facts.bake_key
    assert said["channel"] == "prod"
    assert said["location"] == "qcow2"
    assert said["artifact"] == facts.artifacts[0].native
    assert said["path"] == said["reference"] == str(desk.factory.artifact())
    assert said["signers"] == ["nightly", "tester"]
    assert said["ancestors"] == [ancestor.digest for ancestor in facts.ancestors]
    assert said["policy"] == sha(policy_text())
    assert (said["policy_source"], said["policy_version"]) == ("checkout", 1)
    assert (said["rollback"], said["development"]) == ("unchecked", False)


def test_env_is_what_a_shell_reads(odd: Desk, tmp_path: Path) -> None:
    path = tmp_path / "answer.env"
    path.write_text(odd.run("web", "--frozen", "--env").out)
    script = 'set -eu; . "$1"; printf "%s\\n" "$FACTORY_IMAGE_PATH" "$FACTORY_IMAGE_SIGNERS" "$FACTORY_IMAGE_CHANNEL"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(path)], capture_output=True, text=True, check=True, env={"HOME": "/nowhere"}
    )
    assert done.stdout.split("\n") == [str(odd.factory.artifact()), "nightly,tester", "", ""]
    assert done.stderr == ""


def test_github_output_is_appended(odd: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outputs"
    path.write_text("before=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(path))
    assert odd.run("web", "--frozen", "--github-output").out == ""
    lines = path.read_text().split("\n")
    assert lines.pop(0) == "before=1"
    found = {}
    while lines != [""]:
        key, _, end = lines.pop(0).partition("<<")
        at = lines.index(end)
        found[key] = "\n".join(lines[:at])
        del lines[: at + 1]
    assert list(found) == FIELDS
    assert found["path"] == str(odd.factory.artifact())
    assert found["development"] == "false"


def test_github_output_without_a_runner(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    assert "GITHUB_OUTPUT is not set" in desk.run("web", "--frozen", "--github-output", code=2).err
    for wrong in (tmp_path / "none" / "file", tmp_path):
        monkeypatch.setenv("GITHUB_OUTPUT", str(wrong))
        assert "GITHUB_OUTPUT names no file" in desk.run("web", "--frozen", "--github-output", code=2).err


def test_refusal_leaves_the_outputs_alone(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outputs"
    path.write_text("before=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(path))
    desk.factory.layout.revocations.unlink()
    desk.run("web", "--frozen", "--github-output", code=6)
    assert path.read_text() == "before=1\n"


def test_ansible_reads_its_variables(odd: Desk) -> None:
    said = yaml.safe_load(odd.run("web", "--frozen", "--ansible").out)
    assert list(said) == [f"factory_image_{field}" for field in FIELDS]
    assert said["factory_image_path"] == str(odd.factory.artifact())
    assert said["factory_image_signers"] == ["nightly", "tester"]
    assert said["factory_image_channel"] is None
    assert said["factory_image_development"] is False
    assert isinstance(said["factory_image_baked_at"], str)


def _typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))


def _query(monkeypatch: pytest.MonkeyPatch, **query: Any) -> None:
    _typed(monkeypatch, json.dumps(query).encode())


def test_terraform_has_strings_for_strings(odd: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _query(monkeypatch, name="web", channel="prod", policy=str(odd.factory.own_policy), check_bytes="true")
    said = odd.run("--frozen", "--terraform").json
    assert list(said) == FIELDS
    assert all(isinstance(value, str) for value in said.values())
    assert said["path"] == str(odd.factory.artifact())
    assert said["signers"] == "nightly,tester"
    assert said["channel"] == "prod"
    assert said["policy_source"] == "file"
    assert said["development"] == "false"


def test_terraform_command_line_goes_before_the_query(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _query(monkeypatch, name="web", at="raw", channel="")
    said = desk.run("hardened", "--at", "aws/eu-west-1", "--frozen", "--terraform").json
    assert (said["name"], said["location"], said["reference"], said["channel"]) == (
        "hardened",
        "aws/eu-west-1",
        AMI,
        "",
    )


def test_terraform_needs_no_query(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _typed(monkeypatch, b"")
    assert desk.run("web", "--frozen", "--terraform").json["name"] == "web"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"[]", "object of strings"),
        (b"{", "object of strings"),
        (b"\xff", "object of strings"),
        (b"[" * 100_000, "object of strings"),
        (b" " * (2 << 20), "object of strings"),
        (b'{"name": 1}', "object of strings"),
        (b'{"name": "web", "polcy": "x"}', "polcy"),
        (b'{"name": "web", "check_bytes": "yes"}', "true or false"),
        (b'{"channel": "prod"}', "which image"),
        (b'{"name": ""}', "which image"),
    ],
)
def test_terraform_query_that_is_wrong(desk: Desk, monkeypatch: pytest.MonkeyPatch, query: bytes, said: str) -> None:
    _typed(monkeypatch, query)
    done = desk.run("--frozen", "--terraform", code=2)
    assert said in done.err
    assert done.out == ""


def test_terraform_refusal_is_on_standard_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _query(monkeypatch, name="web", channel="nope")
    done = desk.run("--frozen", "--terraform", code=6)
    assert (done.out, "says nothing of a channel nope" in done.err) == ("", True)


def test_two_forms_at_once_are_refused(desk: Desk) -> None:
    assert "--json and --env do not go together" in desk.run("web", "--env", "--json", code=2).err
    assert "--locked and --frozen do not" in desk.run("web", "--locked", "--frozen", code=2).err


def test_error_as_json(desk: Desk) -> None:
    facts = desk.factory.images["base"]
    desk.factory.revoke(desk.factory.revocation(facts.digest, "base"))
    said = desk.run("web", "--frozen", "--json", code=6)
    error = said.json["error"]
    assert (error["code"], error["kind"]) == (6, "revoked")
    assert "its ancestor base" in error["message"]
    assert "CVE-2026-1" in error["message"]


# --- which image


def test_place_is_chosen(desk: Desk) -> None:
    said = desk.run("web", "--frozen", "--at", "raw", "--json").json
    assert (said["location"], said["artifact"], said["digest"]) == ("raw", said["digest"], said["digest"])
    said = desk.run("web", "--frozen", "--at", "aws/eu-west-1")
    assert said.out == f"{AMI}\n"
    assert "not here" not in said.err


def test_ambiguous_name_wants_its_architecture(desk: Desk) -> None:
    f = desk.factory
    lock = lockfile.read(f.layout.lock)
    lockfile.write(f.layout.lock, lockfile.with_entries(lock, [replace(f.locked(), arch="arm64")]))
    said = desk.run("web", "--frozen", code=2)
    assert "several architectures" in said.err
    assert "web/amd64, web/arm64" in said.err
    assert desk.run("web/amd64", "--frozen", "--json").json["arch"] == "amd64"
    assert "has no deploy ticket" in desk.run("web/arm64", "--frozen", code=6).err
    desk.run("web/riscv64", "--frozen", code=2)


@pytest.mark.parametrize("name", ["wbe", "../web", "web/../../x", "web/", "/", "", "web\n", "a" * 10_000])
def test_name_that_is_none(desk: Desk, name: str) -> None:
    assert desk.run(name, "--frozen", code=2).out == ""


def test_name_that_is_nearly_one(desk: Desk) -> None:
    assert "did you mean web?" in desk.run("wbe", "--frozen", code=2).err
    assert "which image" in desk.run("--frozen", code=2).err


def test_channel_may_lag_behind_the_lock(desk: Desk) -> None:
    f = desk.factory
    first, ticket = f.images["web"], f.tickets["web"]
    second = f.bake("web", "hardened", content="2")
    f.write_tickets("web", [ticket, f.tickets["web"]])
    f.promote(replace(f.promotion(channel="dev"), number=2), "tester", version=2)
    assert desk.run("web", "--frozen", "--json").json["digest"] == second.digest
    assert desk.run("web", "--frozen", "--channel", "dev", "--json").json["digest"] == second.digest
    lagging = desk.run("web", "--frozen", "--channel", "prod", "--json").json
    assert (lagging["digest"], lagging["artifact"]) == (first.digest, first.artifacts[0].native)


# --- bundle and policy


def test_bundle_needs_nothing_but_a_policy(desk: Desk, tmp_path: Path) -> None:
    bundle = desk.bundle(tmp_path / "bundle")
    assert "judged by your own policy" in desk.run("web", "--bundle", str(bundle), code=2).err
    inside = str(bundle / "trust" / "policy.toml")
    assert "judged by your own policy" in desk.run("web", "--bundle", str(bundle), "--policy", inside, code=2).err
    own = ("--bundle", str(bundle), "--policy", str(desk.factory.own_policy))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(desk.factory.root, elsewhere)
    alone = Desk(replace(desk.factory, layout=Layout(tmp_path)), desk.capsys)
    said = alone.run("web", *own, "--channel", "prod", "--check-bytes", "--json").json
    assert Path(said["path"]).is_relative_to(bundle)
    pinned = ("--bundle", str(bundle), "--policy-digest", sha(policy_text()))
    assert alone.run("web", *pinned, "--json").json["policy_source"] == "digest"
    assert "images.lock holds several images" in alone.run(*own, code=2).err
    lockfile.write(bundle / "images.lock", lockfile.with_entries(Lock(), [desk.factory.locked()]))
    assert alone.run(*own, "--json").json["name"] == "web"
    said_wrong = alone.run("hardened", *own, code=6)
    assert "this bundle holds web/amd64, not hardened" in said_wrong.err
    assert "no inputs to compare" in alone.run("web", *own, "--locked", code=2).err


def test_bundle_that_is_none(desk: Desk, tmp_path: Path) -> None:
    own = ("--policy", str(desk.factory.own_policy))
    assert "there is no folder" in desk.run("web", "--bundle", str(tmp_path / "none"), *own, code=2).err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no images.lock" in desk.run("web", "--bundle", str(empty), *own, code=2).err


def test_links_in_a_bundle_are_not_followed(desk: Desk, tmp_path: Path) -> None:
    bundle = desk.bundle(tmp_path / "bundle")
    own = ("--bundle", str(bundle), "--policy", str(desk.factory.own_policy))
    for name in ("trust", "store", "images.lock", "trust/tickets"):
        (bundle / name).rename(bundle / "moved")
        (bundle / name).symlink_to(bundle / "moved")
        assert "is a link" in desk.run("web", *own, code=6).err
        (bundle / name).unlink()
        (bundle / "moved").rename(bundle / name)
    link = tmp_path / "link"
    link.symlink_to(bundle)
    desk.run("web", "--bundle", str(link), "--policy", str(desk.factory.own_policy))


def test_policy_is_said_to_be_the_checkouts(desk: Desk) -> None:
    assert "judged by this checkout's own" in desk.run("web", "--frozen").err
    own = desk.run("web", "--frozen", "--policy", str(desk.factory.own_policy))
    assert "checkout" not in own.err
    pinned = desk.run("web", "--frozen", "--policy-digest", sha(policy_text()), "--json")
    assert pinned.json["policy_source"] == "digest"
    assert "checkout" not in pinned.err


def test_newer_policy_signed_by_root_takes_over(desk: Desk) -> None:
    newer = policy_text(version=2)
    desk.factory.write_travelling(newer, "root")
    said = desk.run("web", "--frozen", "--policy", str(desk.factory.own_policy), "--json")
    assert (said.json["policy"], said.json["policy_source"]) == (sha(newer), "signed")
    assert "policy of version 2 that came along" in said.err


def test_development_key_is_told(desk: Desk) -> None:
    f = desk.factory
    allowed = policy_text(
        top="allow_development_keys = true",
        roles={"development": '["builder", "verifier", "approver"]\ndevelopment = true'},
    )
    f.write_policy(allowed)
    assert "development" not in desk.run("web", "--frozen").err
    f.promote(f.promotion(), "alice", "development")
    said = desk.run("web", "--frozen", "--channel", "prod", "--json")
    assert said.json["development"] is True
    assert "a development key vouches for it" in said.err
    f.promote(f.promotion(), "alice", "bob", "development")
    assert desk.run("web", "--frozen", "--channel", "prod", "--json").json["development"] is False
    f.attest(builder="development")
    assert desk.run("web", "--frozen", "--json").json["development"] is True


# --- what was seen


def test_seen_is_made_raised_and_kept(desk: Desk, tmp_path: Path) -> None:
    f, seen = desk.factory, tmp_path / "seen.json"
    own = ("--frozen", "--seen", str(seen))
    assert desk.run("web", *own, "--json").json["rollback"] == "checked"
    first = json.loads(seen.read_text())["highest"]
    image = {
        "image web/amd64: baked at": int(f.baked_at.timestamp()),
        f"image web/amd64: verified at, {f.images['web'].digest}": int(f.verified_at.timestamp()),
    }
    assert first == {"policy": 1, "revocations": 1, "revocations: last event": 0} | image
    desk.run("web", *own, "--channel", "prod")
    f.revoke(f.revocation(sha("x"), "x"), version=5)
    said = desk.run("web", *own)
    assert "rollback: checked" in said.err
    highest = json.loads(seen.read_text())["highest"]
    assert highest == {
        "channel prod": 1, "channel prod: web/amd64": 1, "policy": 1, "revocations": 5, "revocations: last event": 1,
        f"revoked {sha('x')}": 1, **image,
    }  # fmt: skip
    raw = seen.read_bytes()
    f.revoke(version=4)
    assert "rollback: revocations is of number 4, but 5" in desk.run("web", *own, code=6).err
    assert seen.read_bytes() == raw


@pytest.mark.parametrize("channel", [(), ("--channel", "prod")])
def test_revocation_that_was_learned_is_known_from_then_on(
    channel: tuple[str, ...], desk: Desk, tmp_path: Path
) -> None:
    """The refused answer is remembered: the old set of before it is not taken."""
    f, own = desk.factory, ("web", "--frozen", "--seen", str(tmp_path / "seen.json"), *channel)
    old = f.layout.revocations.read_bytes()
    desk.run(*own)
    f.revoke(f.revocation(f.images["web"].digest, "web"), version=5)
    assert desk.run(*own, "--json", code=6).json["error"]["kind"] == "revoked"
    f.layout.revocations.write_bytes(old)
    assert "rollback: " in desk.run(*own, code=6).err
    f.revoke(version=6)  # whoever may sign heads leaves it out
    assert "rollback: " in desk.run(*own, code=6).err
    f.revoke(f.revocation(sha("other"), "other", 2), version=7)
    assert "the set lacks the revocation of " in desk.run(*own, code=6).err


def test_promotion_that_was_learned_is_known_though_its_image_was_refused(desk: Desk, tmp_path: Path) -> None:
    f, own = desk.factory, ("web", "--frozen", "--seen", str(tmp_path / "seen.json"), "--channel", "prod")
    good = f.ticket_file().read_bytes()
    f.promote(f.promotion(number=3), "alice", "bob")
    f.ticket_file().write_bytes(b"")
    desk.run(*own, code=6)
    f.ticket_file().write_bytes(good)
    f.promote(f.promotion(number=2), "alice", "bob", version=9)
    assert "rollback: channel prod: web/amd64 is of number 2, but 3" in desk.run(*own, code=6).err


def test_seen_learns_nothing_of_what_does_not_verify(desk: Desk, tmp_path: Path) -> None:
    f, seen = desk.factory, tmp_path / "seen.json"
    own = ("web", "--frozen", "--seen", str(seen))
    f.revoke(version=5, signer="mallory")
    desk.run(*own, code=6)
    f.revoke(version=5, issued_at=f.now - timedelta(days=30))
    desk.run(*own, code=6)
    assert not seen.exists()
    f.revoke(version=2)
    f.write_channel("prod", version=5, signer="mallory")
    desk.run(*own, "--channel", "prod", code=6)
    f.promote(f.promotion(number=9), "alice", version=2)
    desk.run(*own, "--channel", "prod", code=6)
    f.artifact().unlink()
    desk.run(*own, "--check-bytes", code=6)
    highest = json.loads(seen.read_text())["highest"]
    assert highest == {"policy": 1, "revocations": 2, "revocations: last event": 0, "channel prod": 2}


def test_older_lock_and_ticket_are_refused_without_a_channel(desk: Desk, tmp_path: Path) -> None:
    """Both are well signed, and were the answer once."""
    f, own = desk.factory, ("web", "--frozen", "--seen", str(tmp_path / "seen.json"))
    before = {path: path.read_bytes() for path in (f.layout.lock, f.ticket_file())}
    desk.run(*own)
    f.attest(verified_at=f.verified_at + timedelta(minutes=5))
    newer_ticket = f.ticket_file().read_bytes()
    desk.run(*own)
    f.ticket_file().write_bytes(before[f.ticket_file()])
    assert "rollback: image web/amd64: verified at" in desk.run(*own, code=6).err
    f.ticket_file().write_bytes(newer_ticket)
    desk.run(*own)
    f.bake("web", "hardened", content="newer")
    f.attest(baked_at=f.baked_at + timedelta(minutes=5), verified_at=f.verified_at)
    desk.run(*own)
    for path, raw in before.items():
        path.write_bytes(raw)
    said = desk.run(*own, "--json", code=6).json["error"]
    assert said["kind"] == "expired"
    assert "rollback: image web/amd64: baked at" in said["message"]
    assert "--allow-older" in said["hint"]


def test_seen_in_a_folder_that_is_not_there(desk: Desk, tmp_path: Path) -> None:
    assert "no folder" in desk.run("web", "--frozen", "--seen", str(tmp_path / "none" / "seen.json"), code=2).err


@pytest.mark.parametrize("place", ["/proc/seen.json", "/sys/seen.json"])
def test_seen_in_a_place_that_cannot_be_written(place: str, desk: Desk) -> None:
    said = desk.run("web", "--frozen", "--seen", place, code=2)
    assert "--seen cannot be written" in said.err
    assert said.out == ""


@pytest.mark.parametrize("option", ["--policy", "--policy-digest", "--seen", "--bundle", "--at", "--channel"])
def test_option_that_is_empty_is_refused(option: str, desk: Desk) -> None:
    assert f"{option} is empty" in desk.run("web", "--frozen", option, "", code=2).err


def test_policy_that_is_the_checkouts_own_is_told_as_such(desk: Desk) -> None:
    said = desk.run("web", "--frozen", "--policy", str(desk.factory.layout.policy), "--json")
    assert said.json["policy_source"] == "checkout"
    assert "judged by this checkout's own trust/policy.toml" in said.err
    said = desk.run("web", "--frozen", "--policy", str(desk.factory.own_policy), "--json")
    assert said.json["policy_source"] == "file"
    assert "checkout's own" not in said.err


@pytest.mark.parametrize(
    "query",
    [rb'{"seen": "a\u0000b"}', rb'{"policy": "\ud800"}', b'{"channel": "dev", "channel": "prod"}', b"[", b'{"at": 1}',
     rb'{"policy": "\u0000"}', b"\xff"],
)  # fmt: skip
def test_terraform_query_that_cannot_be_meant_is_refused(
    query: bytes, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(query)))
    assert "query" in desk.run("web", "--frozen", "--terraform", code=2).err


@pytest.mark.parametrize(
    ("old", "new", "frozen", "default", "bundle"),
    [
        ('name = "web"', 'name = "../web"', 6, 5, 6),
        ("[[image]]", "[[imag", 6, 5, 6),
        ("lock-version = 1", "lock-version = 99", 5, 5, 6),
        ("[[image]]", "<<<<<<< ours\n[[image]]", 5, 5, 6),
    ],
)
def test_lock_that_cannot_be_read(
    old: str, new: str, frozen: int, default: int, bundle: int, desk: Desk, tmp_path: Path
) -> None:
    text = desk.factory.layout.lock.read_text()
    assert old in text
    desk.factory.layout.lock.write_text(text.replace(old, new))
    carried = desk.bundle(tmp_path / "bundle")
    own = ("--policy", str(desk.factory.own_policy))
    desk.run("web", code=default)
    said = desk.run("web", "--frozen", "--json", code=frozen).json["error"]
    if frozen == 6:
        assert "git checkout images.lock" in said["hint"]
    said = desk.run("--bundle", str(carried), *own, "--json", code=bundle).json["error"]
    assert (said["kind"], "factory export" in said["hint"]) == ("tampered", True)


def test_bundle_says_what_another_export_would_bring(desk: Desk, tmp_path: Path) -> None:
    carried, own = desk.bundle(tmp_path / "bundle"), ("--policy", str(desk.factory.own_policy))
    shutil.rmtree(carried / "store")
    said = desk.run("web", "--bundle", str(carried), *own, "--channel", "prod")
    assert "factory export web/amd64 --bytes --channel prod" in said.err
    assert "factory fetch" not in said.err
    (carried / "trust/channels/prod.dsse").unlink()
    asked = ("web", "--bundle", str(carried), *own, "--channel", "prod", "--json")
    hint = desk.run(*asked, code=6).json["error"]["hint"]
    assert "factory export web/amd64 --bytes --channel prod" in hint
    assert "factory promote" not in hint


def test_artifact_that_the_lock_leaves_out_is_missed(desk: Desk) -> None:
    f = desk.factory
    fewer = {place: native for place, native in f.locked().artifacts.items() if place != "raw"}
    f.write_lock(web=replace(f.locked(), artifacts=fewer))
    assert "its raw artifact is missing" in desk.run("web", "--frozen", code=6).err


# --- bytes and inputs


def test_absent_bytes_give_the_digest(desk: Desk) -> None:
    shutil.rmtree(desk.factory.layout.store)
    said = desk.run("web", "--frozen")
    assert said.out == f"{desk.factory.images['web'].digest}\n"
    assert "its bytes are not here: factory fetch web/amd64" in said.err
    assert desk.run("web", "--frozen", "--json").json["path"] is None
    assert desk.run("web", "--frozen", "--at", "aws/eu-west-1").out == f"{AMI}\n"


def test_bytes_are_hashed_when_asked(desk: Desk) -> None:
    desk.run("web", "--frozen", "--check-bytes")
    path = desk.factory.artifact()
    os.chmod(path, 0o644)  # noqa: PTH101
    path.write_bytes(b"evilqcow2!")
    desk.run("web", "--frozen")
    assert "was signed" in desk.run("web", "--frozen", "--check-bytes", code=6).err


INPUTS = """\
[base.debian-12]
kind = "debootstrap"
suite = "bookworm"
arch = "amd64"

[image.web]
base = "debian-12"
playbook = "playbooks/web.yml"
"""


def test_locked_wants_the_inputs_to_match(desk: Desk) -> None:
    root = desk.factory.root
    assert "no images.toml" in desk.run("web", "--locked", code=2).err
    (root / "images.toml").write_text(INPUTS)
    shutil.copytree(Path(__file__).resolve().parents[2] / "templates", root / "templates")
    (root / "playbooks").mkdir()
    (root / "playbooks/web.yml").write_text("- hosts: all\n  tasks: []\n")
    said = desk.run("web", "--locked", "--json", code=5)
    assert said.json["error"]["kind"] == "lock-mismatch"
    assert "not true to the inputs of web" in said.err
    default = desk.run("web")
    assert default.out == f"{desk.factory.artifact()}\n"
    assert "images.lock is not true to the inputs of web" in default.err
    assert "not true" not in desk.run("web", "--frozen").err


@pytest.mark.parametrize("wrong", ["[", INPUTS.replace("debootstrap", "x"), INPUTS])
def test_inputs_that_cannot_be_read_do_not_stop_the_answer(desk: Desk, wrong: str) -> None:
    (desk.factory.root / "images.toml").write_text(wrong)
    said = desk.run("web")
    assert said.out == f"{desk.factory.artifact()}\n"
    assert "images.lock cannot be compared with its inputs" in said.err
    desk.run("web", "--locked", code=2)
    assert "compared" not in desk.run("web", "--frozen").err


def test_one_of_a_thousand_images(desk: Desk) -> None:
    f = desk.factory
    lock = lockfile.read(f.layout.lock)
    many = [replace(f.locked(), name=f"image-{n}", digest=sha(str(n))) for n in range(1000)]
    lockfile.write(f.layout.lock, lockfile.with_entries(lock, many))
    assert desk.run("web", "--frozen").out == f"{f.artifact()}\n"
    assert "image-7/amd64 has no deploy ticket" in desk.run("image-7", "--frozen", code=6).err


def test_clock_of_the_caller_is_taken(desk: Desk) -> None:
    f = desk.factory
    later = f.now + timedelta(days=1)
    assert flow.resolve(f.layout, Asked("web", now=later)).digest == f.images["web"].digest
