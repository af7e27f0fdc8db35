"""factory key and factory policy, as they are typed: files and modes, what is printed, what a kill leaves."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from factory import cli, skeleton
from factory.errors import RevokedError, TrustError
from factory.model import Layout
from factory.release import signing
from factory.trust import dsse, keys, policy, revocations, signed_policy, signers
from factory.trust.signers import file as key_files

SECRET = "correct horse battery"
Run = Callable[..., "Result"]


class Result:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "f")
    layout.trust.mkdir(parents=True)
    layout.policy.write_text(skeleton.policy_text())
    return layout


@pytest.fixture
def run(layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the factory and looks that no private key is ever shown."""
    for name in (signing.KEY, signing.PASSPHRASE, signing.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)

    def run_(*arguments: str, code: int = 0) -> Result:
        got = cli.run(["-C", str(layout.root), *arguments])
        captured = capsys.readouterr()
        result = Result(got, captured.out, captured.err)
        assert result.code == code, result.err
        assert "Traceback" not in result.err
        for path in layout.keys.glob("*.pem*"):
            assert path.read_text().splitlines()[1] not in captured.out + captured.err
        assert SECRET not in captured.out + captured.err
        return result

    return run_


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _no_passphrase() -> None:
    return None


# --- key new


def test_init_lays_out_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init", str(tmp_path / "new"), "--json"]) == 0
    assert "trust/policy.toml" in json.loads(capsys.readouterr().out)["files"]
    found = policy.read(Layout(tmp_path / "new").policy)
    assert found.allow_development
    assert {name: rule.approvals for name, rule in found.channels.items()} == {"dev": 0, "staging": 1, "prod": 1}
    assert found.channels["prod"].max_age_days == 90


@pytest.mark.parametrize("algorithm", keys.ALGORITHMS)
def test_new_key_is_private_here_and_trusted_by_the_policy(run: Run, layout: Layout, algorithm: str) -> None:
    done = run("key", "new", "nightly", "--role", "verifier", "--role", "builder", "--algorithm", algorithm,
               "--not-after", "2099-06-01", "--json")  # fmt: skip
    path = layout.keys / "nightly.pem"
    assert (_mode(path), _mode(layout.keys)) == (0o600, 0o700)
    key = policy.read(layout.policy).keys["nightly"]
    assert key.roles == {"builder", "verifier"}
    assert key.not_after == datetime(2099, 6, 1, tzinfo=UTC)
    assert key.public == signers.load(path, _no_passphrase).public
    assert key.public.algorithm == algorithm
    assert done.json == {
        "name": "nightly", "public": str(key.public), "fingerprint": key.public.fingerprint,
        "roles": ["builder", "verifier"], "not_before": None, "not_after": "2099-06-01T00:00:00Z",
        "development": False, "path": str(path), "policy_version": 2,
    }  # fmt: skip


def test_new_key_shows_its_public_line_as_data(run: Run, layout: Layout) -> None:
    done = run("key", "new", "alice", "--role", "approver")
    key = policy.read(layout.policy).keys["alice"]
    assert done.out == f"alice  {key.public}  {key.public.fingerprint}\n"
    assert "now version 2" in done.err


def test_new_key_without_policy_leaves_the_policy_alone(run: Run, layout: Layout) -> None:
    before = layout.policy.read_bytes()
    done = run("key", "new", "alice", "--role", "approver", "--no-policy")
    assert layout.policy.read_bytes() == before
    assert policy.loads(before + done.out.partition("\n")[2].encode()).keys["alice"].roles == {"approver"}


def test_new_key_begins_a_policy_where_there_is_none(run: Run, layout: Layout) -> None:
    layout.policy.unlink()
    run("key", "new", "alice", "--role", "root")
    assert list(policy.read(layout.policy).keys) == ["alice"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alice"], "what may the key sign?"),
        (["alice", "--role", "aprover"], 'did you mean "approver"?'),
        (["Alice", "--role", "approver"], "is no name"),
        (["../x", "--role", "approver"], "is no name"),
        (["development-x", "--role", "approver"], "make themselves"),
        (["alice", "--role", "approver", "--not-after", "soon"], "is no time"),
        (["alice", "--role", "approver", "--not-after", "2027-06-01T00:00:00"], "is no time"),
        (["alice", "--role", "approver", "--not-after", "2001-01-01"], "ended already"),
        (["alice", "--role", "approver", "--passphrase"], "no passphrase was given"),
        (["alice", "--role", "approver", "--passphrase", "--kms", "arn:x"], "there is none"),
        (["alice", "--role", "approver", "--kms", "arn:x"], "arn:"),
        (["taken", "--role", "approver"], "has a key taken already"),
    ],
)
def test_new_key_that_cannot_be_leaves_everything_as_it_was(
    run: Run, layout: Layout, arguments: list[str], said: str
) -> None:
    run("key", "new", "taken", "--role", "root")
    before = (layout.policy.read_bytes(), sorted(layout.keys.iterdir()))
    done = run("key", "new", *arguments, code=2)
    assert said in done.err
    assert "hint:" in done.err
    assert (layout.policy.read_bytes(), sorted(layout.keys.iterdir())) == before


def test_policy_that_cannot_be_edited_costs_no_key(run: Run, layout: Layout) -> None:
    layout.policy.write_text("version = 1\nkey = {}\n")
    done = run("key", "new", "alice", "--role", "root", code=2)
    assert "write by hand" in done.err
    assert layout.policy.read_text() == "version = 1\nkey = {}\n"
    assert not layout.keys.exists()


def test_policy_that_is_a_link_is_not_followed(run: Run, layout: Layout, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    layout.policy.rename(other)
    layout.policy.symlink_to(other)
    before = other.read_bytes()
    assert "link" in run("key", "new", "alice", "--role", "root", code=6).err
    assert other.read_bytes() == before


# --- passphrases


def test_passphrase_of_the_environment_encrypts(run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(signing.PASSPHRASE, SECRET)
    run("key", "new", "alice", "--role", "approver", "--passphrase")
    path = layout.keys / "alice.pem"
    assert "ENCRYPTED" in path.read_text()
    assert signers.load(path, lambda: SECRET.encode()).public == policy.read(layout.policy).keys["alice"].public
    with pytest.raises(TrustError):
        signers.load(path, lambda: b"another")


@pytest.mark.timeout(60)
def test_passphrase_is_asked_for_on_a_terminal_and_not_shown(layout: Layout) -> None:
    code, shown = _on_a_terminal(layout, ["key", "new", "bob", "--role", "root", "--passphrase"], [SECRET, SECRET])
    assert code == 0, shown
    assert "passphrase for the new key bob" in shown
    assert SECRET not in shown
    assert signers.load(layout.keys / "bob.pem", lambda: SECRET.encode()).public
    code, shown = _on_a_terminal(layout, ["policy", "sign"], [SECRET])
    assert code == 0, shown
    assert SECRET not in shown
    assert layout.signed_policy.exists()


def _on_a_terminal(layout: Layout, arguments: list[str], typed: list[str]) -> tuple[int, str]:
    """(exit code, all that was shown) of a command whose streams are a terminal of its own."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FACTORY_KEY")}
        command = [sys.executable, "-c", "from factory.cli import main; main()", "-C", str(layout.root), *arguments]
        os.execve(sys.executable, command, environment)
    shown = b""
    try:
        while True:
            got = os.read(terminal, 4096)
            if not got:
                break
            shown += got
            if typed and shown.endswith(b": "):  # its last space is written once echo is off
                os.write(terminal, typed.pop(0).encode() + b"\n")
    except OSError:  # how Linux says that the other side is gone
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


# --- key list


def test_list_tells_the_state_of_each_key(run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    run("key", "new", "old", "--role", "builder")
    run("key", "rotate", "old")
    run("key", "new", "alice", "--role", "approver", "--role", "root")
    run("key", "new", "loose", "--no-policy")
    monkeypatch.setenv(signing.PASSPHRASE, SECRET)
    run("key", "new", "locked", "--no-policy", "--passphrase")
    monkeypatch.delenv(signing.PASSPHRASE)
    signing.development_key(layout, lambda _: None)
    (layout.keys / "alice.pem").unlink()
    listed = {item["name"]: item for item in run("key", "list", "--json").json["keys"]}
    states = {name.partition("-")[0] if "dev" in name else name: item["state"] for name, item in listed.items()}
    assert states == {
        "old": "retired", "old-2": "valid", "alice": "valid", "development": "development",
        "loose": "not in policy", "locked": "not in policy",
    }  # fmt: skip
    assert listed["alice"]["path"] is None
    assert listed["old"]["path"] is None
    assert listed["old-2"]["path"] == str(layout.keys / "old-2.pem")
    assert listed["locked"]["fingerprint"] is None
    assert listed["loose"]["fingerprint"].startswith("sha256:")
    lines = run("key", "list").out.splitlines()
    assert len(lines) == len(listed)
    assert any(line.startswith("alice") and "approver,root" in line and "elsewhere" in line for line in lines)


def test_list_of_an_empty_place_says_what_to_do(run: Run, layout: Layout) -> None:
    layout.policy.unlink()
    done = run("key", "list")
    assert done.out == ""
    assert "factory key new" in done.err
    assert run("key", "list", "--json").json == {"keys": []}


def test_list_shows_a_key_that_others_can_read_as_not_here(run: Run, layout: Layout) -> None:
    run("key", "new", "loose", "--no-policy")
    (layout.keys / "loose.pem").chmod(0o644)
    (item,) = run("key", "list", "--json").json["keys"]
    assert item["fingerprint"] is None


# --- key rotate


def test_rotation_closes_the_old_window_and_opens_a_new_key(run: Run, layout: Layout) -> None:
    run("key", "new", "nightly", "--role", "builder", "--role", "verifier", "--algorithm", "ecdsa-p256")
    before = policy.read(layout.policy)
    started = datetime.now(UTC)
    done = run("key", "rotate", "nightly", "--not-after", "2099-01-01", "--json").json
    after = policy.read(layout.policy)
    assert after.version == before.version + 1
    old, new = after.keys["nightly"], after.keys["nightly-2"]
    assert old.public == before.keys["nightly"].public
    assert old.not_after is not None
    assert timedelta(seconds=-1) <= old.not_after - started <= timedelta(seconds=5)
    assert new.roles == old.roles
    assert new.public != old.public
    assert new.public.algorithm == keys.ECDSA_P256
    assert new.not_after == datetime(2099, 1, 1, tzinfo=UTC)
    assert (done["replaces"], done["name"], done["policy_signed"]) == ("nightly", "nightly-2", False)
    assert sorted(path.name for path in layout.keys.iterdir()) == ["nightly-2.pem", "nightly.pem.retired"]
    assert _mode(layout.keys / "nightly.pem.retired") == 0o600
    run("key", "rotate", "nightly-2")
    assert list(policy.read(layout.policy).keys) == ["nightly", "nightly-2", "nightly-3"]


def test_rotation_of_an_encrypted_key_needs_and_keeps_its_passphrase(
    run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.PASSPHRASE, SECRET)
    run("key", "new", "alice", "--role", "approver", "--passphrase")
    monkeypatch.delenv(signing.PASSPHRASE)
    before = layout.policy.read_bytes()
    assert "no passphrase" in run("key", "rotate", "alice", code=2).err
    assert layout.policy.read_bytes() == before
    monkeypatch.setenv(signing.PASSPHRASE, SECRET)
    run("key", "rotate", "alice")
    assert "ENCRYPTED" in (layout.keys / "alice-2.pem").read_text()


def test_rotated_root_is_followed_by_deployers_who_trust_the_old_one(run: Run, layout: Layout) -> None:
    run("key", "new", "root", "--role", "root")
    own = policy.read(layout.policy)
    assert run("key", "rotate", "root", "--json").json["policy_signed"] is True
    now = datetime.now(UTC)
    assert signed_policy.newest(own, layout.signed_policy.read_bytes(), now) == policy.read(layout.policy)


@pytest.mark.parametrize("name", ["nobody", "development"])
def test_rotation_of_what_cannot_be_rotated_is_refused(run: Run, layout: Layout, name: str) -> None:
    if name == "development":
        name = signing.development_key(layout, lambda _: None).name
    before = layout.policy.read_bytes()
    assert "hint:" in run("key", "rotate", name, code=2).err
    assert layout.policy.read_bytes() == before


# --- key revoke


def _forbid_development(layout: Layout) -> None:
    layout.policy.write_text(layout.policy.read_text().replace("keys = true", "keys = false"))


def test_revoked_key_is_void_but_what_is_kept(run: Run, layout: Layout) -> None:
    _forbid_development(layout)
    run("key", "new", "nightly", "--role", "builder", "--role", "verifier")
    run("key", "new", "alice", "--role", "approver", "--role", "root")
    here = signing.Signing.open(layout, say=lambda _: None)
    envelopes = [dsse.sign("application/x-test", payload, [here.for_role("builder")]) for payload in (b"1", b"2", b"3")]
    layout.tickets.mkdir()
    (layout.tickets / "web-amd64.jsonl").write_bytes(envelopes[0].raw + b"\n")
    done = run(
        "key", "revoke", "nightly", "--reason", "stolen", "--keep-tickets", "--keep", envelopes[1].digest, "--json"
    )
    assert set(done.json["kept"]) == {envelopes[0].digest, envelopes[1].digest}
    revoked = revocations.verify(layout.revocations.read_bytes(), here.policy, datetime.now(UTC))
    authority, now = here.authority(revoked.compromised), datetime.now(UTC)
    assert [bool(authority.signers(envelope, ["builder"], now)) for envelope in envelopes] == [True, True, False]
    with pytest.raises(RevokedError, match="compromised"):
        authority.require(envelopes[2], ["builder"], now, "it")
    assert not (layout.keys / "nightly.pem").exists()
    assert {item["name"]: item["state"] for item in run("key", "list", "--json").json["keys"]} == {
        "alice": "valid", "nightly": "compromised"
    }  # fmt: skip


def test_tickets_of_other_keys_are_not_kept(run: Run, layout: Layout) -> None:
    _forbid_development(layout)
    run("key", "new", "nightly", "--role", "builder", "--role", "verifier")
    run("key", "new", "alice", "--role", "approver", "--role", "root")
    forged = dsse.sign("application/x-test", b"1", [key_files.signer(key_files.generate())])
    layout.tickets.mkdir()
    (layout.tickets / "web-amd64.jsonl").write_bytes(forged.raw + b"\n")
    assert run("key", "revoke", "nightly", "--reason", "stolen", "--keep-tickets", "--json").json["kept"] == []


def test_key_cannot_vouch_for_its_own_withdrawal(run: Run, layout: Layout) -> None:
    _forbid_development(layout)
    run("key", "new", "alice", "--role", "approver", "--role", "root", "--role", "verifier")
    done = run("key", "revoke", "alice", "--reason", "stolen", code=6)
    assert "cannot vouch for its own withdrawal" in done.err
    assert "factory key new NAME --role approver --role root" in done.err
    assert (layout.keys / "alice.pem").exists()
    assert not layout.revocations.exists()
    run("key", "new", "bob", "--role", "root")
    run("key", "revoke", "alice", "--reason", "stolen")


def test_revoked_development_key_is_followed_by_another(run: Run, layout: Layout) -> None:
    first = signing.development_key(layout, lambda _: None)
    run("key", "new", "alice", "--role", "root")
    run("key", "revoke", first.name, "--reason", "copied")
    assert signing.development_key(layout, lambda _: None).public != first.public


@pytest.mark.parametrize(
    ("arguments", "said"), [(["nobody"], "no key nobody"), (["alice", "--keep", "sha256:123"], "is no digest")]
)
def test_revocation_that_cannot_be_is_refused(run: Run, layout: Layout, arguments: list[str], said: str) -> None:
    run("key", "new", "alice", "--role", "root")
    assert said in run("key", "revoke", *arguments, "--reason", "x", code=2).err
    assert "--reason" in run("key", "revoke", "alice", code=2).err
    assert not layout.revocations.exists()


# --- kill -9

_KILL = """
import os, signal, sys
from factory import cli
from factory.release import keys, signing
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr({"signing": signing, "keys": keys}[sys.argv[1]], sys.argv[2], die)
cli.main(sys.argv[3:])
"""


def _killed_at(layout: Layout, place: str, *arguments: str) -> None:
    command = [sys.executable, "-c", _KILL, *place.split("."), "-C", str(layout.root), *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL


def test_new_key_that_was_killed_before_the_policy_is_taken_up(run: Run, layout: Layout) -> None:
    before = layout.policy.read_bytes()
    _killed_at(layout, "signing.write_policy", "key", "new", "alice", "--role", "root")
    assert layout.policy.read_bytes() == before
    public = signers.load(layout.keys / "alice.pem", _no_passphrase).public
    run("key", "new", "alice", "--role", "root", "--passphrase", code=2)
    assert "found" in run("key", "new", "alice", "--role", "root").err
    assert policy.read(layout.policy).keys["alice"].public == public


def test_rotation_that_was_killed_before_the_policy_is_taken_up(run: Run, layout: Layout) -> None:
    run("key", "new", "nightly", "--role", "builder")
    before = layout.policy.read_bytes()
    _killed_at(layout, "signing.write_policy", "key", "rotate", "nightly")
    assert layout.policy.read_bytes() == before
    run("key", "rotate", "nightly")
    assert list(policy.read(layout.policy).keys) == ["nightly", "nightly-2"]


def test_rotation_that_was_killed_after_the_policy_signs_with_the_new_key(run: Run, layout: Layout) -> None:
    run("key", "new", "nightly", "--role", "builder")
    _killed_at(layout, "keys.put_aside", "key", "rotate", "nightly")
    assert (layout.keys / "nightly.pem").exists()
    signer = signing.Signing.open(layout, say=lambda _: None).for_role("builder")
    assert signer.public == policy.read(layout.policy).keys["nightly-2"].public


# --- policy


def test_check_shows_digest_keys_and_channels(run: Run, layout: Layout) -> None:
    run("key", "new", "alice", "--role", "approver")
    done = run("policy", "check")
    found = policy.read(layout.policy)
    assert f"digest {found.digest}" in done.out.splitlines()
    assert "version 2" in done.out.splitlines()
    assert any(line.startswith("key alice  approver") for line in done.out.splitlines())
    assert any(line.startswith("channel prod  approvals 1") for line in done.out.splitlines())
    as_json = run("policy", "check", "--json").json
    assert (as_json["version"], as_json["digest"]) == (2, found.digest)
    assert as_json["keys"][0]["name"] == "alice"
    assert as_json["channels"][2] == {"name": "prod", "approvals": 1, "requires": ["verified"], "max_age_days": 90}


def test_check_warns_of_what_is_likely_not_meant(run: Run, layout: Layout) -> None:
    run("key", "new", "alice", "--role", "approver")
    text = layout.policy.read_text().replace("approvals = 1 # better", "approvals = 2 # better")
    layout.policy.write_text(text)
    warnings = "\n".join(run("policy", "check", "--json").json["warnings"])
    assert "development keys may sign" in warnings
    assert "has the role root" in warnings
    assert "has the role approver" not in warnings
    assert "channel prod needs 2 approvers; valid now: alice" in warnings
    assert "channel staging" not in warnings


def test_check_of_a_good_policy_warns_of_nothing(run: Run, layout: Layout) -> None:
    layout.policy.write_text(layout.policy.read_text().replace("keys = true", "keys = false"))
    run("key", "new", "nightly", "--role", "builder", "--role", "verifier")
    run("key", "new", "alice", "--role", "approver", "--role", "root")
    run("policy", "sign")
    done = run("policy", "check")
    assert "warning" not in done.err
    assert run("policy", "check", "--json").json["warnings"] == []


def test_check_of_a_file_tells_every_fault(run: Run, layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("version = 0\n[channel.prod]\napproval = 2\n")
    done = run("policy", "check", str(file), code=2)
    assert "mine.toml:1" in done.err
    assert 'did you mean "approvals"?' in done.err
    assert run("policy", "check", str(file), "--json", code=2).json["error"]["kind"] == "spec"
    assert run("policy", "check", str(tmp_path / "none.toml"), code=2).out == ""


def test_sign_makes_a_policy_that_deployers_follow(run: Run, layout: Layout) -> None:
    run("key", "new", "alice", "--role", "root")
    own = policy.read(layout.policy)
    run("key", "new", "nightly", "--role", "builder")
    done = run("policy", "sign", "--json").json
    now = datetime.now(UTC)
    newest = signed_policy.newest(own, layout.signed_policy.read_bytes(), now)
    assert (
        (newest.version, newest.digest) == (done["version"], done["digest"]) == (3, policy.read(layout.policy).digest)
    )


def test_sign_keeps_the_signature_of_another_root_on_the_same_bytes(run: Run, layout: Layout) -> None:
    run("key", "new", "alice", "--role", "root")
    run("key", "new", "bob", "--role", "root")
    assert "several keys" in run("policy", "sign", code=2).err
    for name in ("alice", "bob", "bob"):
        run("policy", "sign", "--key", name)
    envelope, _ = signed_policy.read(layout.signed_policy.read_bytes())
    assert len(envelope.signatures) == 2
    run("key", "new", "nightly", "--role", "builder")
    assert "holds version 3, not this one: factory policy sign" in run("policy", "check").err
    run("policy", "sign", "--key", "alice")
    assert len(signed_policy.read(layout.signed_policy.read_bytes())[0].signatures) == 1


def test_sign_without_a_root_key_is_refused(run: Run, layout: Layout) -> None:
    layout.policy.write_text(layout.policy.read_text().replace("keys = true", "keys = false"))
    run("key", "new", "nightly", "--role", "builder")
    done = run("policy", "sign", code=6)
    assert "nightly is no root" in done.err
    assert "--role root" in done.err
    assert not layout.signed_policy.exists()


def test_check_warns_of_a_signed_policy_that_was_tampered_with(run: Run, layout: Layout) -> None:
    run("key", "new", "alice", "--role", "root")
    run("policy", "sign")
    raw = json.loads(layout.signed_policy.read_bytes())
    raw["signatures"][0]["sig"] = raw["signatures"][0]["sig"][::-1].lstrip("=") + "=="
    layout.signed_policy.write_text(json.dumps(raw))
    warnings = run("policy", "check", "--json").json["warnings"]
    assert any("trust/policy.dsse" in warning for warning in warnings)


# --- in a KMS


def test_key_in_a_kms_is_named_by_a_file_without_a_secret(
    run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    mocked = moto.mock_aws()
    mocked.start(reset=False)  # other tests of this process have an AWS too, and go on with it
    try:
        client = boto3.client("kms", region_name="eu-west-1")
        arns = [
            client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["Arn"] for _ in range(2)
        ]
        made = run("key", "new", "vault", "--role", "root", "--kms", arns[0], "--json").json
        path = layout.keys / "vault.toml"
        assert (made["path"], _mode(path)) == (str(path), 0o600)
        assert policy.read(layout.policy).keys["vault"].public.algorithm == keys.ECDSA_P256
        own = policy.read(layout.policy)
        assert "--kms" in run("key", "rotate", "vault", code=2).err
        run("key", "rotate", "vault", "--kms", arns[1])
        now = datetime.now(UTC)
        assert signed_policy.newest(own, layout.signed_policy.read_bytes(), now).version == 3
    finally:
        mocked.stop(remove_data=False)


# --- where a key cannot be had


def test_private_key_that_is_not_one_is_refused(run: Run, layout: Layout) -> None:
    layout.keys.mkdir(parents=True, mode=0o700)
    path = layout.keys / "alice.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)
    before = layout.policy.read_bytes()
    run("key", "new", "alice", "--role", "root", code=6)
    assert layout.policy.read_bytes() == before


def test_key_of_another_machine_is_found_by_its_name(run: Run, layout: Layout) -> None:
    private = key_files.generate()
    public = keys.from_cryptography(private.public_key())
    text = layout.policy.read_text()
    layout.policy.write_text(f'{text}\n[key.ci]\npublic = "{public}"\nroles = ["root"]\n')
    key_files.save(layout.keys / "ci.pem", private, None)
    run("policy", "sign")
    (item,) = run("key", "list", "--json").json["keys"]
    assert item["path"] == str(layout.keys / "ci.pem")
