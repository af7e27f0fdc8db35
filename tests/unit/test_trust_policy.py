"""trust/policy.toml as it is read: what it may say, and that every fault is told at once, with its line."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from factory import digest
from factory.errors import SpecError, TamperedError
from factory.trust import keys, policy

ED = str(keys.from_cryptography(ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32).public_key()))
OTHER = str(keys.from_cryptography(ed25519.Ed25519PrivateKey.from_private_bytes(b"2" * 32).public_key()))
EC = str(keys.from_cryptography(ec.derive_private_key(7, ec.SECP256R1()).public_key()))

WHOLE = f"""\
version = 3
fresh_days = 7
allow_development_keys = true

[key.nightly]
public = "{ED}"
roles = ["builder", "verifier"]
not_before = 2026-06-01T02:00:00+02:00
not_after = 2027-06-01T00:00:00Z
[key.alice]
public = "{EC}"
roles = ["approver"]
development = true

[channel.dev]
approvals = 0
[channel.prod]
approvals = 2
requires = ["verified", "check:nginx-answers", "no-cve:critical"]
max_age_days = 30
"""
KEY = f'version = 1\n[key.a]\npublic = "{ED}"\nroles = ["root"]\n'


def test_policy_is_read_whole() -> None:
    found = policy.loads(WHOLE.encode())
    assert (found.version, found.fresh_days, found.allow_development) == (3, 7, True)
    assert found.digest == digest.of_bytes(WHOLE.encode())
    nightly = found.keys["nightly"]
    assert str(nightly.public) == ED
    assert nightly.roles == {"builder", "verifier"}
    assert nightly.not_before == datetime(2026, 6, 1, tzinfo=UTC)
    assert nightly.not_after == datetime(2027, 6, 1, tzinfo=UTC)
    assert not nightly.development
    assert found.keys["alice"].development
    assert found.channels["dev"] == policy.ChannelRule("dev", approvals=0)
    assert found.channels["prod"] == policy.ChannelRule(
        "prod", 2, ("verified", "check:nginx-answers", "no-cve:critical"), 30
    )


def test_policy_says_little_and_the_rest_is_strict() -> None:
    found = policy.loads(b"version = 1\n")
    assert (found.keys, found.channels) == ({}, {})
    assert not found.allow_development
    assert found.fresh_days == policy.DEFAULT_FRESH_DAYS
    channel = policy.loads(b"version = 1\n[channel.prod]\n").channels["prod"]
    assert (channel.approvals, channel.requires) == (1, ("verified",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'the key "version" is missing'),
        ("version = 0\n", "policy.toml:1: version: 0 is out of range"),
        ("version = -1\n", "out of range"),
        ("version = true\n", "version: must be a whole number"),
        ('version = "1"\n', "version: must be a whole number"),
        ("version = 9007199254740992\n", "out of range"),
        (f"version = {'9' * 5000}\n", "a value cannot be read"),
        ("version = 1\nfresh_day = 3\n",
         'policy.toml:2: fresh_day: unknown key "fresh_day"; did you mean "fresh_days"?'),
        ("version = 1\nfresh_days = 0\n", "out of range 1 to 3650 (nearest: 1)"),
        ("version = 1\nallow_development_keys = 1\n", "must be true or false"),
        ("version = 1\nversion = 2\n", "not valid TOML"),
        ("version = 1\n[key]\nalice = 3\n", "must be a table"),
        ("version = 1\n[key.Alice]\n", 'key.Alice: "Alice" is no name'),
        (KEY.replace("root", "aprover"),
         'policy.toml:4: key.a.roles: "aprover" is not one of them; did you mean "approver"?'),
        (KEY.replace('["root"]', "[]"), "must name at least 1 of builder, verifier, approver, root"),
        (KEY.replace('["root"]', '["root", "root"]'), "twice"),
        (KEY.replace('roles = ["root"]\n', ""), "key.a.roles: the key is missing"),
        (KEY.replace("public", "pubic"), 'did you mean "public"?'),
        (KEY.replace("ed25519:", "rsa:"), "key.a.public: a public key begins with ed25519: or ecdsa-p256:"),
        (KEY.replace("ed25519:", "ecdsa-p256:"), "no point of P-256"),
        (KEY.replace(ED, "ed25519:" + "A" * 43 + "="), "anybody can sign for it"),
        (KEY.replace(ED, ED[:-4]), "key.a.public:"),
        (KEY + "not_after = 2027-06-01\n", "must be a time like"),
        (KEY + "not_after = 2027-06-01T00:00:00\n", "must say its offset from UTC"),
        (KEY + "not_after = 0001-01-01T00:00:00+23:00\n", "outside the years"),
        (KEY + "not_before = 2027-06-01T00:00:00Z\nnot_after = 2027-06-01T02:00:00+02:00\n", "must be later than"),
        (KEY + f'[key.b]\npublic = "{ED}"\nroles = ["builder"]\n', "key.b.public: this is the same key as key.a"),
        (KEY + "development = 1\n", "must be true or false"),
        ("version = 1\n[channel.prod]\napprovals = 17\n", "channel.prod.approvals: 17 is out of range 0 to 16"),
        ("version = 1\n[channel.prod]\napprovals = -1\n", "out of range"),
        ("version = 1\n[channel.prod]\nmax_age_days = 0\n", "out of range"),
        ('version = 1\n[channel.prod]\nrequires = ["verifed"]\n', 'did you mean "verified"?'),
        ('version = 1\n[channel.prod]\nrequires = ["no-cve:hihg"]\n', 'did you mean "no-cve:high"?'),
        ('version = 1\n[channel.prod]\nrequires = ["check:"]\n', "the name of a check"),
        ('version = 1\n[channel.prod]\nrequires = ["check:a b"]\n', "the name of a check"),
        ("version = 1\n[channels.prod]\n", 'did you mean "channel"?'),
    ],
)  # fmt: skip
def test_fault_is_told_with_its_place_and_the_nearest_spelling(text: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        policy.loads(text.encode())
    assert said in raised.value.message


def test_all_faults_are_told_at_once() -> None:
    text = KEY.replace("root", "rot").replace("version = 1", "version = 0") + "[channel.prod]\napprovals = 99\n"
    with pytest.raises(SpecError) as raised:
        policy.loads(text.encode())
    assert "3 errors" in raised.value.message
    assert all(place in raised.value.message for place in (":1:", ":4:", ":6:"))


def test_same_point_written_compressed_or_not_is_one_key() -> None:
    key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    long = base64.b64encode(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)).decode()
    text = KEY.replace(ED, EC) + f'[key.b]\npublic = "ecdsa-p256:{long}"\nroles = ["root"]\n'
    with pytest.raises(SpecError, match="same key as key.a"):
        policy.loads(text.encode())


@pytest.mark.parametrize("raw", [b"\xff", b"version = 1\x00", b"[" * 100_000, b"a=" + b"[" * 100_000, b"\xef\xbb\xbf"])
def test_bytes_that_are_no_toml_are_refused(raw: bytes) -> None:
    with pytest.raises(SpecError):
        policy.loads(raw)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_a_spec_error(raw: bytes) -> None:
    try:
        policy.loads(raw)
    except SpecError:
        return
    assert b"version" in raw


@given(st.integers(0, len(WHOLE) - 1), st.characters(codec="ascii"))
def test_a_changed_character_is_a_policy_or_a_spec_error(place: int, char: str) -> None:
    text = WHOLE[:place] + char + WHOLE[place + 1 :]
    try:
        found = policy.loads(text.encode())
    except SpecError:
        return
    assert (found.digest == digest.of_bytes(WHOLE.encode())) == (text == WHOLE)


def test_file_that_is_missing_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        policy.read(tmp_path / "policy.toml")


def test_file_that_is_a_link_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text(WHOLE)
    assert policy.read(tmp_path / "real.toml").version == 3
    (tmp_path / "policy.toml").symlink_to("real.toml")
    with pytest.raises(TamperedError, match="link"):
        policy.read(tmp_path / "policy.toml")
    (tmp_path / "large.toml").write_bytes(WHOLE.encode() + b"#" * policy.MAX_BYTES)
    with pytest.raises(TamperedError, match="too large"):
        policy.read(tmp_path / "large.toml")
    with pytest.raises(TamperedError, match="regular"):
        policy.read(tmp_path)


def test_reading_a_policy_imports_nothing_slow() -> None:
    """`factory resolve` reads one every time."""
    code = (
        "import sys; from factory.trust import policy; policy.loads(sys.stdin.buffer.read());"
        "print([name for name in ('difflib', '_strptime', 'cryptography', 'click', 'yaml') if name in sys.modules])"
    )
    text = WHOLE.replace(EC, OTHER)
    done = subprocess.run([sys.executable, "-c", code], input=text.encode(), capture_output=True, check=True)
    assert done.stdout == b"[]\n"
