"""Which key signs, where its passphrase comes from, the development key; and the policy that travels."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from factory import skeleton
from factory.errors import ExpiredError, RevokedError, SpecError, TamperedError, TrustError, UnsignedError, UsageError
from factory.model import Layout
from factory.release import signing
from factory.release.signing import Signing
from factory.trust import dsse, keys, policy, policy_edit, signed_policy
from factory.trust.policy import TrustedKey
from factory.trust.signers import file as key_files

NOW = datetime.now(UTC).replace(microsecond=0)
PASSPHRASE = b"correct horse"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (signing.KEY, signing.PASSPHRASE, signing.PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)


@dataclass
class _Place:
    """A factory's folder with a policy; `said` is what signing said aloud."""

    layout: Layout
    said: list[str] = field(default_factory=list)

    def signing(self, **more: Any) -> Signing:
        return Signing.open(self.layout, say=self.said.append, **more)

    def key(self, name: str, *roles: str, here: bool = True, secret: bytes | None = None, **more: Any) -> TrustedKey:
        private = key_files.generate()
        if here:
            key_files.save(self.layout.keys / f"{name}.pem", private, secret)
        made = TrustedKey(name, keys.from_cryptography(private.public_key()), frozenset(roles))
        made = replace(made, **more)
        text = policy_edit.edit(self.layout.policy.read_text(), add=[made])
        self.layout.policy.write_text(text)
        return made

    def forbid_development(self) -> None:
        text = self.layout.policy.read_text()
        self.layout.policy.write_text(text.replace("allow_development_keys = true", "allow_development_keys = false"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[_Place]:
    layout = Layout(tmp_path)
    layout.trust.mkdir()
    layout.policy.write_text(skeleton.policy_text())
    yield _Place(layout)
    if layout.keys.exists():
        assert stat.S_IMODE(layout.keys.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in layout.keys.glob("*.pem"))


# --- which key


def test_key_with_the_role_signs(place: _Place) -> None:
    nightly, alice = place.key("nightly", "builder", "verifier"), place.key("alice", "approver")
    assert place.signing().for_role("builder").public == nightly.public
    assert place.signing().for_role("approver").public == alice.public
    assert place.said == []


def test_roles_are_tried_in_order(place: _Place) -> None:
    nightly, alice = place.key("nightly", "verifier"), place.key("alice", "approver")
    assert place.signing().for_role("verifier", "approver").public == nightly.public
    assert place.signing().for_role("approver", "verifier").public == alice.public
    place.forbid_development()
    assert place.signing().for_role("root", "approver").public == alice.public


def test_several_keys_are_not_chosen_among_in_silence(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.key("alice", "approver")
    bob = place.key("bob", "approver")
    with pytest.raises(UsageError, match="several keys here may sign as approver: alice, bob"):
        place.signing().for_role("approver")
    assert place.signing(key="bob").for_role("approver").public == bob.public
    monkeypatch.setenv(signing.KEY, "bob")
    assert place.signing().for_role("approver").public == bob.public


@pytest.mark.parametrize(
    ("more", "role", "said"),
    [
        ({}, "approver", "nightly is no approver (roles: builder)"),
        ({"here": False}, "builder", "nightly is not on this machine"),
        ({"not_after": NOW - timedelta(days=1)}, "builder", "its window has ended"),
        ({"not_before": NOW + timedelta(days=1)}, "builder", "its window has not begun"),
        ({"development": True}, "builder", "a development key, which the policy does not allow"),
    ],
)
def test_no_key_may_sign_and_the_reason_is_told(place: _Place, more: dict[str, Any], role: str, said: str) -> None:
    place.key("nightly", "builder", **more)
    place.forbid_development()
    with pytest.raises(TrustError) as raised:
        place.signing().for_role(role)
    assert f"no key here may sign as {role}" in raised.value.message
    assert said in raised.value.message
    assert f"--role {role}" in str(raised.value.hint)


def test_key_that_is_named_but_unknown_is_refused(place: _Place) -> None:
    place.key("nightly", "builder")
    with pytest.raises(TrustError, match='has no key nightli; did you mean "nightly"'):
        place.signing(key="nightli").for_role("builder")
    assert not (place.layout.keys / "development.pem").exists()


def test_named_key_without_the_role_makes_no_development_key(place: _Place) -> None:
    place.key("alice", "approver")
    with pytest.raises(TrustError, match="alice is no builder"):
        place.signing(key="alice").for_role("builder")
    assert not (place.layout.keys / "development.pem").exists()


def test_compromised_key_does_not_sign(place: _Place) -> None:
    place.forbid_development()
    alice, bob = place.key("alice", "approver"), place.key("bob", "approver")
    assert place.signing().without([alice.public.fingerprint]).for_role("approver").public == bob.public
    with pytest.raises(TrustError, match="alice was compromised"):
        place.signing().without([alice.public.fingerprint, bob.public.fingerprint]).for_role("approver")


def test_other_key_under_the_name_is_refused(place: _Place) -> None:
    place.key("nightly", "builder", here=False)
    key_files.save(place.layout.keys / "nightly.pem", key_files.generate(), None)
    with pytest.raises(TrustError, match="is not the one that the policy calls so"):
        place.signing().for_role("builder")


def test_key_that_others_can_read_is_refused(place: _Place) -> None:
    place.key("nightly", "builder")
    path = place.layout.keys / "nightly.pem"
    path.chmod(0o640)
    with pytest.raises(TrustError, match="0640"):
        place.signing().for_role("builder")
    path.chmod(0o600)


def test_policy_is_read_again_each_time(place: _Place) -> None:
    place.key("nightly", "builder")
    place.forbid_development()
    here = place.signing()
    before = here.policy.version
    assert here.for_role("builder")
    change = {"nightly": {"not_after": NOW - timedelta(seconds=1)}}
    place.layout.policy.write_text(policy_edit.edit(place.layout.policy.read_text(), change=change))
    assert here.policy.version == here.authority().policy.version == before + 1
    with pytest.raises(TrustError, match="its window has ended"):
        here.for_role("builder")


def test_no_policy_means_nobody_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(UnsignedError, match="nobody is trusted"):
        _ = Signing.open(Layout(tmp_path), say=print).policy


def test_signer_is_loaded_once(place: _Place) -> None:
    place.key("nightly", "builder", secret=PASSPHRASE)
    asked: list[str] = []

    def ask(name: str) -> bytes:
        asked.append(name)
        return PASSPHRASE

    here = place.signing(ask=ask)
    assert here.for_role("builder") is here.for_role("builder")
    assert asked == ["nightly"]


# --- passphrases


def test_passphrase_of_the_environment(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = place.key("nightly", "builder", secret=PASSPHRASE)
    monkeypatch.setenv(signing.PASSPHRASE, PASSPHRASE.decode())
    assert place.signing().for_role("builder").public == nightly.public


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_passphrase_of_a_file(place: _Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    nightly = place.key("nightly", "builder", secret=PASSPHRASE)
    file = tmp_path / "passphrase"
    file.write_bytes(PASSPHRASE + end)
    file.chmod(0o600)
    monkeypatch.setenv(signing.PASSPHRASE_FILE, str(file))
    assert place.signing().for_role("builder").public == nightly.public


def test_passphrase_file_that_is_missing_or_open_to_others_is_refused(
    place: _Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.key("nightly", "builder", secret=PASSPHRASE)
    file = tmp_path / "passphrase"
    monkeypatch.setenv(signing.PASSPHRASE_FILE, str(file))
    with pytest.raises(TrustError, match="not there"):
        place.signing().for_role("builder")
    file.write_bytes(PASSPHRASE)
    file.chmod(0o644)
    with pytest.raises(TrustError, match="0644"):
        place.signing().for_role("builder")


def test_wrong_or_no_passphrase_is_refused_and_not_repeated(place: _Place) -> None:
    place.key("nightly", "builder", secret=PASSPHRASE)
    with pytest.raises(TrustError) as raised:
        place.signing(ask=lambda _: b"wrong-one").for_role("builder")
    assert "wrong passphrase" in raised.value.message
    assert "wrong-one" not in f"{raised.value.message} {raised.value.hint}"
    with pytest.raises(TrustError, match="passphrase is not known") as raised:
        place.signing().for_role("builder")
    assert signing.PASSPHRASE_FILE in str(raised.value.hint)


# --- the development key


def test_development_key_is_made_once_and_said_aloud(place: _Place) -> None:
    signer = place.signing().for_role("builder")
    assert sum("DEVELOPMENT KEY" in said for said in place.said) == 1
    assert any("signing with the development key" in said for said in place.said)
    (key,) = place.signing().policy.keys.values()
    assert key.public == signer.public
    assert key.name == f"development-{signer.public.fingerprint[7:15]}"
    assert key.development
    assert place.signing().policy.version == 2
    for role in policy.ROLES:
        assert place.signing().for_role(role).public == signer.public
    assert sum("DEVELOPMENT KEY" in said for said in place.said) == 1
    assert place.signing().policy.version == 2


def test_development_key_begins_a_policy_where_there_is_none(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    signer = Signing.open(layout, say=lambda _: None).for_role("builder")
    (key,) = policy.read(layout.policy).keys.values()
    assert key.public == signer.public
    assert set(policy.read(layout.policy).channels) == {"dev", "staging", "prod"}


def test_development_key_is_added_again_where_the_policy_lost_it(place: _Place) -> None:
    """A kill between key and policy, or a git checkout, leaves this."""
    signer = place.signing().for_role("builder")
    place.layout.policy.write_text(skeleton.policy_text())
    assert place.signing().for_role("builder").public == signer.public
    assert len(place.signing().policy.keys) == 1


def test_policy_can_forbid_a_development_key(place: _Place) -> None:
    place.forbid_development()
    before = place.layout.policy.read_bytes()
    with pytest.raises(TrustError, match="no key here may sign as builder"):
        place.signing().for_role("builder")
    assert place.layout.policy.read_bytes() == before
    assert not place.layout.keys.exists()


def test_real_key_is_preferred_to_the_development_key(place: _Place) -> None:
    place.signing().for_role("builder")
    nightly = place.key("nightly", "builder")
    assert place.signing().for_role("builder").public == nightly.public


def test_compromised_development_key_is_not_made_again(place: _Place) -> None:
    signer = place.signing().for_role("builder")
    with pytest.raises(TrustError, match="was compromised"):
        place.signing().without([signer.public.fingerprint]).for_role("builder")


def test_development_keys_of_two_machines_do_not_mix(place: _Place, tmp_path: Path) -> None:
    place.key("development-00000000", *policy.ROLES, here=False, development=True)
    signer = place.signing().for_role("builder")
    assert len(place.signing().policy.keys) == 2
    assert place.signing().for_role("root").public == signer.public


def test_many_processes_at_once_make_one_development_key(place: _Place) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from factory.model import Layout; from factory.release.signing import Signing;"
        "print(Signing.open(Layout(Path(sys.argv[1])), say=lambda _: None).for_role('builder').public)"
    )
    command = [sys.executable, "-c", code, str(place.layout.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 4
    (key,) = place.signing().policy.keys.values()
    assert answers == {str(key.public)}
    assert place.signing().policy.version == 2


# --- the policy that travels


@dataclass(frozen=True)
class _Travel:
    """A deployer's own policy, whose root is `root`, and a newer one."""

    root: key_files.FileSigner
    own: policy.Policy
    newer: bytes


def _policy(version: int, root: keys.PublicKey, more: str = "") -> bytes:
    return f'version = {version}\n[key.root]\npublic = "{root}"\nroles = ["root"]\n{more}'.encode()


@pytest.fixture
def travel() -> _Travel:
    root = key_files.signer(key_files.generate())
    return _Travel(root, policy.loads(_policy(3, root.public)), _policy(4, root.public, "[channel.prod]\n"))


def test_newer_policy_counts_where_ones_own_root_signed_it(travel: _Travel) -> None:
    raw = signed_policy.sign(travel.newer, [travel.root]).raw
    assert signed_policy.newest(travel.own, raw, NOW) == policy.loads(travel.newer)


def test_no_policy_travels_and_ones_own_stays(travel: _Travel) -> None:
    assert signed_policy.newest(travel.own, None, NOW) is travel.own


@pytest.mark.parametrize("version", [1, 3])
def test_policy_that_is_not_newer_changes_nothing(travel: _Travel, version: int) -> None:
    stranger = key_files.signer(key_files.generate())
    for signer in (travel.root, stranger):
        raw = signed_policy.sign(_policy(version, signer.public), [signer]).raw
        assert signed_policy.newest(travel.own, raw, NOW) is travel.own


def test_newer_policy_that_vouches_for_itself_is_refused(travel: _Travel) -> None:
    stranger = key_files.signer(key_files.generate())
    raw = signed_policy.sign(_policy(9, stranger.public), [stranger]).raw
    with pytest.raises(UnsignedError, match=r"version 9 .* \(yours is version 3\).*does not know"):
        signed_policy.newest(travel.own, raw, NOW)


def test_newer_policy_of_a_key_that_is_no_root_is_refused(travel: _Travel) -> None:
    approver = key_files.signer(key_files.generate())
    more = f'[key.alice]\npublic = "{approver.public}"\nroles = ["approver"]\n'
    own = policy.loads(_policy(3, travel.root.public, more))
    with pytest.raises(UnsignedError, match="alice, who is no root"):
        signed_policy.newest(own, signed_policy.sign(travel.newer, [approver]).raw, NOW)


def test_newer_policy_of_a_root_that_expired_or_was_compromised_is_refused(travel: _Travel) -> None:
    raw = signed_policy.sign(travel.newer, [travel.root]).raw
    ended = policy.loads(_policy(3, travel.root.public, "not_after = 2020-01-01T00:00:00Z\n"))
    with pytest.raises(ExpiredError, match="window ended 2020-01-01"):
        signed_policy.newest(ended, raw, NOW)
    compromised = {travel.root.public.fingerprint: frozenset[Any]()}
    with pytest.raises(RevokedError, match="compromised"):
        signed_policy.newest(travel.own, raw, NOW, compromised=compromised)


def test_newer_policy_of_a_development_root_needs_it_allowed(travel: _Travel) -> None:
    raw = signed_policy.sign(travel.newer, [travel.root]).raw
    text = _policy(3, travel.root.public, "development = true\n")
    with pytest.raises(UnsignedError, match="development key"):
        signed_policy.newest(policy.loads(text), raw, NOW)
    allowed = policy.loads(b"allow_development_keys = true\n" + text)
    assert signed_policy.newest(allowed, raw, NOW).version == 4


def test_changed_payload_is_refused(travel: _Travel) -> None:
    envelope = signed_policy.sign(travel.newer, [travel.root])
    other = _policy(5, travel.root.public)
    raw = dsse._envelope(signed_policy.PAYLOAD_TYPE, other, envelope.signatures).raw
    with pytest.raises(UnsignedError, match="does not verify"):
        signed_policy.newest(travel.own, raw, NOW)


@pytest.mark.parametrize("payload", [b"", b"version = 0", b"\xff", b"version = 9\n#" + b"x" * policy.MAX_BYTES])
def test_signed_bytes_that_are_no_policy_are_refused(travel: _Travel, payload: bytes) -> None:
    raw = dsse.sign(signed_policy.PAYLOAD_TYPE, payload, [travel.root]).raw
    with pytest.raises(TamperedError):
        signed_policy.newest(travel.own, raw, NOW)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"x" * (signed_policy.MAX_BYTES + 1)])
def test_bytes_that_are_no_envelope_are_refused(travel: _Travel, raw: bytes) -> None:
    with pytest.raises(TamperedError):
        signed_policy.newest(travel.own, raw, NOW)


def test_envelope_of_another_type_is_no_policy(travel: _Travel) -> None:
    raw = dsse.sign("application/vnd.in-toto+json", travel.newer, [travel.root]).raw
    with pytest.raises(TamperedError, match="not a policy"):
        signed_policy.newest(travel.own, raw, NOW)


def test_what_is_no_policy_is_not_signed(travel: _Travel) -> None:
    with pytest.raises(SpecError):
        signed_policy.sign(b"version = 0", [travel.root])
