"""The tamper table: what is done to a factory's papers, and what `factory resolve` must say to it.

Each row goes through the command line: exit 6 (or the code the row names), the kind and the reason said, standard
output empty, no traceback, and not a file touched. The deployer's own policy judges, and remembers with --seen. At the
end stands what looks alike and must be let through: a table that refuses everything would prove nothing.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from signed_factory import SignedFactory, build, key_of, policy_text, sha

from factory import cli
from factory.errors import TrustError
from factory.trust import dsse, heads, judgement, policy, statements
from factory.trust.promotions import Waiver

Deed = Callable[[SignedFactory], object]

DAY = timedelta(days=1)
PROD, DEV = ("--channel", "prod"), ("--channel", "dev")
CODES = {"usage": 2, "spec": 2, "lock": 5}


@dataclass(frozen=True)
class Row:
    """`asked`: arguments added to those of every row; `age`: how long ago by the clock all of it was signed."""

    what: str
    kind: str
    said: str
    deed: Deed
    asked: tuple[str, ...] = ()
    age: timedelta = timedelta()

    def __str__(self) -> str:
        return self.what


# --- how it is done


def _bent(path: Path, position: int = -1, *, of: bytes = b"") -> None:
    """Change one byte: at `position`, or the third one of the text `of`."""
    raw = bytearray(path.read_bytes())
    at = raw.index(of) + len(of) + 3 if of else position
    raw[at] = ord("B") if raw[at] != ord("B") else ord("C")
    path.write_bytes(raw)


def _cut(path: Path, part: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])


def _huge(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.truncate(100_000_000)


def _linked(path: Path) -> None:
    """Put a link where the file is; what it leads to is good."""
    elsewhere = path.with_name(f"elsewhere-{path.name}")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _link_to(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _write(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def _lines(f: SignedFactory, name: str = "web") -> list[bytes]:
    return f.ticket_file(name).read_bytes().splitlines()


def _put_lines(f: SignedFactory, lines: list[bytes]) -> None:
    f.ticket_file().write_bytes(b"".join(line + b"\n" for line in lines))


def _edited(f: SignedFactory, **edited: Any) -> None:
    """Edit the entry of web in the lock."""
    f.write_lock(web=replace(f.locked(), **edited))


def _artifacts(f: SignedFactory, **edited: str) -> None:
    _edited(f, artifacts={**f.locked().artifacts, **edited})


def _says(old: str, new: str) -> Deed:
    """Let the provenance say something else, under the signature it has."""

    def deed(f: SignedFactory) -> None:
        lines = _lines(f)
        data = json.loads(lines[0])
        payload = base64.b64decode(data["payload"]).replace(old.encode(), new.encode())
        assert payload != base64.b64decode(data["payload"])
        data["payload"] = base64.b64encode(payload).decode()
        _put_lines(f, [json.dumps(data).encode(), *lines[1:]])

    return deed


def _signed_anew(change: Callable[[bytes], bytes], line: int = 0, kind: str = statements.PAYLOAD_TYPE) -> Deed:
    """Let those who may sign what no tool of ours would."""

    def deed(f: SignedFactory) -> None:
        lines, by = _lines(f), key_of("nightly" if line == 0 else "tester")
        changed = change(dsse.parse(lines[line]).payload)
        lines[line] = dsse.sign(kind, changed, [by]).raw
        _put_lines(f, lines)

    return deed


def _signatures_of_another(f: SignedFactory) -> None:
    lines, others = _lines(f), _lines(f, "hardened")
    data, other = json.loads(lines[0]), json.loads(others[0])
    _put_lines(f, [json.dumps({**data, "signatures": other["signatures"]}).encode(), *lines[1:]])


def _borrowed_keyid(f: SignedFactory) -> None:
    """Mallory signs, and writes nightly's key id beside it."""
    lines = _lines(f)
    data = json.loads(dsse.sign(statements.PAYLOAD_TYPE, dsse.parse(lines[0]).payload, [key_of("mallory")]).raw)
    data["signatures"][0]["keyid"] = key_of("nightly").public.fingerprint
    lines[0] = json.dumps(data).encode()
    _put_lines(f, lines)
    _bind(f)


def _bind(f: SignedFactory) -> None:
    """Let the verifier name the envelopes that are there now, as if it had been given them."""
    lines = _lines(f)
    data = json.loads(dsse.parse(lines[2]).payload)
    for index, entry in enumerate(data["predicate"]["inputAttestations"][:2]):
        entry["digest"]["sha256"] = dsse.parse(lines[index]).digest.removeprefix("sha256:")
    lines[2] = dsse.sign(statements.PAYLOAD_TYPE, json.dumps(data).encode(), [key_of("tester")]).raw
    _put_lines(f, lines)


def _mixed(f: SignedFactory) -> None:
    """The provenance of another bake of the very same disk."""
    other = f.make_ticket(f.images["web"], baked_at=f.baked_at - DAY)
    _put_lines(f, [other.provenance.raw, *_lines(f)[1:]])


def _another_as_web(f: SignedFactory) -> None:
    """All of hardened's papers, under web's name."""
    shutil.copy(f.ticket_file("hardened"), f.ticket_file("web"))
    f.write_lock(web=replace(f.locked("hardened"), name="web"))


def _twice_by_alice(f: SignedFactory) -> None:
    """Two signatures by one key: once under its id, once without one."""
    one = statements.signed(f.promotion().statement(), [key_of("alice")])
    data = json.loads(one.raw)
    data["signatures"].append({"sig": data["signatures"][0]["sig"]})
    f.promoted["prod"] = {"web/amd64": json.dumps(data).encode()}
    f.write_channel("prod")


def _alice_has_two_names(f: SignedFactory) -> None:
    again = f'\n[key.alice2]\npublic = "{key_of("alice").public}"\nroles = ["approver"]\n'
    f.own_policy.write_text(policy_text(more=again))


def _promoted_to_dev(f: SignedFactory) -> None:
    f.promoted["prod"] = f.promoted["dev"]
    f.write_channel("prod")


def _listed_as_web(f: SignedFactory) -> None:
    f.promote(f.promotion("hardened"), "alice", "bob")
    f.promoted["prod"] = {"web/amd64": f.promoted["prod"]["hardened/amd64"]}
    f.write_channel("prod")


def _head_of(kind: str, name: str, signer: str = "tester") -> Deed:
    """Put the head of something else in the place of prod's."""

    def deed(f: SignedFactory) -> None:
        made = f.head(kind, name, f.promoted["prod"])
        (f.layout.channels / "prod.dsse").write_bytes(heads.make(made, key_of(signer)).raw)

    return deed


def _seen(**highest: int) -> Deed:
    """What the deploy job has seen before."""

    def deed(f: SignedFactory) -> None:
        known = {name.replace("_", " "): number for name, number in highest.items()}
        (f.own_policy.parent / "seen.json").write_text(json.dumps({"seen": 1, "highest": known}))

    return deed


def _trusting(**roles: str) -> Deed:
    """Another policy of the deployer's."""
    return lambda f: f.own_policy.write_text(policy_text(roles=roles))


def _all(*deeds: Deed) -> Deed:
    def deed(f: SignedFactory) -> None:
        for one in deeds:
            one(f)

    return deed


def _at(f: SignedFactory, days: float) -> str:
    return statements.time_text(f.now + days * DAY)


def _stolen(name: str, **more: Any) -> Deed:
    return lambda f: f.revoke(f.stolen(name, **more))


def _waived(days: float) -> Deed:
    """Prod's promotion of an image whose check was skipped, with a waiver that ends so many days from now."""

    def deed(f: SignedFactory) -> None:
        f.attest(checks={"test_tls": "skipped"})
        waiver = Waiver("check:test_tls", "alice", "known", f.now + days * DAY)
        f.promote(f.promotion(waivers=(waiver,)), "alice", "bob")

    return deed


def _revoked(whom: str, **more: Any) -> Deed:
    def deed(f: SignedFactory) -> None:
        digest = sha("debian tree") if whom == "debian-12" else f.images[whom].digest
        f.revoke(f.revocation(digest, whom, **more))

    return deed


def _newer(by: str, *, version: int = 2) -> Deed:
    return lambda f: f.write_travelling(policy_text(version=version), by)


# --- the table

TICKET: list[Row] = [
    Row("no ticket", "unsigned", "web/amd64 has no deploy ticket", lambda f: f.ticket_file().unlink()),
    Row("empty ticket", "unsigned", "nothing is signed for", lambda f: f.ticket_file().write_bytes(b"")),
    Row("half a ticket", "tampered", "is no JSON", lambda f: _cut(f.ticket_file(), 0.5)),
    Row("ticket of two lines", "tampered", "the verification summary of", lambda f: _put_lines(f, _lines(f)[:2])),
    Row("a line twice", "tampered", "stands there twice", lambda f: _put_lines(f, [*_lines(f), _lines(f)[0]])),
    Row("payload bent", "tampered", "line 1", lambda f: _bent(f.ticket_file(), of=b'"payload":"')),
    Row("signature bent", "tampered", "another provenance", lambda f: _bent(f.ticket_file(), of=b'"sig":"')),
    Row("payload type bent", "tampered", "not an in-toto", lambda f: _bent(f.ticket_file(), of=b'"payloadType":"')),
    Row("says another run", "tampered", "another provenance", _says("ab12cd", "ab12ce")),
    Row("says another disk", "tampered", "is missing", lambda f: _says(f.images["web"].digest[7:], "a" * 64)(f)),
    Row("signature of another image", "tampered", "another provenance", _signatures_of_another),
    Row("that, bound", "unsigned", "does not verify", _all(_signatures_of_another, _bind)),
    Row("no signature", "unsigned", "is not signed", _all(
        lambda f: _put_lines(f, [dsse.sign(statements.PAYLOAD_TYPE, dsse.parse(_lines(f)[0]).payload, []).raw,
                                 *_lines(f)[1:]]), _bind)),
    Row("provenance of another bake", "tampered", "another provenance", _mixed),
    Row("ticket of another image", "unsigned", "nothing is signed for",
        lambda f: shutil.copy(f.ticket_file("hardened"), f.ticket_file())),
    Row("another image as web", "tampered", "was signed as hardened/amd64", _another_as_web),
    Row("a key twice in the envelope", "tampered", "stands twice",
        lambda f: _put_lines(f, [b'{"payloadType":"x",' + _lines(f)[0][1:], *_lines(f)[1:]])),
    Row("a key twice in the statement", "tampered", "stands twice",
        _signed_anew(lambda raw: b'{"predicateType":"x",' + raw[1:])),
    Row("sha256 of three digits", "tampered", "sha256", lambda f: _signed_anew(
        lambda raw: raw.replace(f.images["web"].digest[7:].encode(), b"abc", 1))(f)),
    Row("another type of predicate", "tampered", "is of a type that is not known",
        _signed_anew(lambda raw: raw.replace(b"slsa.dev/provenance/v1", b"slsa.dev/provenance/v9"))),
    Row("another type of payload", "tampered", "not an in-toto", _signed_anew(lambda raw: raw, kind="text/plain")),
    Row("nested without end", "tampered", "nested", lambda f: _put_lines(f, [b"[" * 100_000, *_lines(f)[1:]])),
    Row("failed, and yet signed", "untrusted", "did not pass its checks", _all(
        _signed_anew(lambda raw: raw.replace(b'"PASSED"', b'"FAILED"').replace(b'"passedTests":["', b'"failedTests":["')
                     .replace(b'"failedTests":[],', b'"passedTests":[],'), line=1), _bind)),
]  # fmt: skip

KEYS: list[Row] = [
    Row("unknown builder", "unsigned", "does not know", lambda f: f.attest(builder="mallory")),
    Row("unknown verifier", "unsigned", "does not know", lambda f: f.attest(verifier="mallory")),
    Row("unknown, under a known id", "unsigned", "said to be nightly's, which is not", _borrowed_keyid),
    Row("verifier as builder", "unsigned", "no builder", lambda f: f.attest(builder="tester")),
    Row("builder as verifier", "unsigned", "no verifier", lambda f: f.attest(verifier="nightly")),
    Row("approver as builder", "unsigned", "no builder", lambda f: f.attest(builder="alice")),
    Row("root as builder", "unsigned", "no builder", lambda f: f.attest(builder="root")),
    Row("expired key", "expired", "whose window ended 2020-01-01",
        _trusting(nightly='["builder"]\nnot_after = 2020-01-01T00:00:00Z')),
    Row("key of the future", "expired", "whose window begins 2090-01-01",
        _trusting(nightly='["builder"]\nnot_before = 2090-01-01T00:00:00Z')),
    Row("retired key, signed later", "expired", "whose window ended",
        lambda f: _trusting(nightly=f'["builder"]\nnot_after = {_at(f, -1)}')(f)),
    Row("key taken out", "unsigned", "does not know", _trusting(nightly="")),
    Row("compromised builder", "revoked", "compromised", _stolen("nightly")),
    Row("compromised verifier", "revoked", "compromised", _stolen("tester")),
    Row("compromised, others kept", "revoked", "not among those kept", _stolen("nightly", keep=[sha("another")])),
    Row("development key forbidden", "unsigned", "which the policy does not allow", _all(
        lambda f: f.attest(builder="development"), _trusting(development='["builder"]\ndevelopment = true'))),
]  # fmt: skip

LOCK: list[Row] = [
    Row("digest", "unsigned", "nothing is signed for", lambda f: _edited(f, digest=sha("evil"))),
    Row("digest of its parent", "unsigned", "nothing is signed for",
        lambda f: _edited(f, digest=f.images["hardened"].digest)),
    Row("bake key", "tampered", "its bake-key is", lambda f: _edited(f, bake_key=sha("evil"))),
    Row("base", "tampered", "its base is", lambda f: _edited(f, base=sha("evil"))),
    Row("tree", "tampered", "its tree is", lambda f: _edited(f, tree=sha("evil"))),
    Row("file of an artifact", "tampered", "its qcow2 artifact is", lambda f: _artifacts(f, qcow2=sha("evil"))),
    Row("artifacts swapped", "tampered", "artifact is",
        lambda f: _artifacts(f, qcow2=f.locked().artifacts["raw"], raw=f.locked().artifacts["qcow2"])),
    Row("native id", "tampered", "its aws/eu-west-1 artifact is",
        lambda f: _artifacts(f, **{"aws/eu-west-1": "ami-0bad"})),
    Row("artifact added", "tampered", "was never signed", lambda f: _artifacts(f, vmdk=sha("evil"))),
    Row("artifact that climbs", "tampered", "../../etc/passwd artifact",
        lambda f: _edited(f, artifacts={"../../etc/passwd": sha("evil")})),
    Row("artifact for the terminal", "tampered", "'\\x1b[2Jok'", lambda f: _artifacts(f, vmdk="\x1b[2Jok")),
    Row("place that is not signed", "unsigned", "was signed for vmdk", lambda f: None, ("--at", "vmdk")),
    Row("name that climbs", "tampered", "is no name",
        lambda f: f.layout.lock.write_text(f.layout.lock.read_text().replace('name = "web"', 'name = "../web"'))),
    Row("two entries", "tampered", "twice", lambda f: f.layout.lock.write_text(
        f.layout.lock.read_text() + "\n[[image]]" + f.layout.lock.read_text().rpartition("\n[[image]]")[2])),
    Row("artifact left out", "tampered", "its raw artifact is missing", lambda f: _edited(
        f, artifacts={place: native for place, native in f.locked().artifacts.items() if place != "raw"})),
    Row("marks of a merge", "lock", "conflict markers",
        lambda f: f.layout.lock.write_text("<<<<<<< ours\n" + f.layout.lock.read_text())),
    Row("version of tomorrow", "lock", "lock-version 2",
        lambda f: f.layout.lock.write_text(f.layout.lock.read_text().replace("version = 1", "version = 2"))),
    Row("bytes", "tampered", "not UTF-8", lambda f: f.layout.lock.write_bytes(b"\xff\xfe")),
    Row("no lock", "usage", "there is no images.lock", lambda f: f.layout.lock.unlink()),
    Row("link", "tampered", "is a link", lambda f: _linked(f.layout.lock)),
    Row("pipe", "tampered", "no regular file", lambda f: _pipe(f.layout.lock)),
    Row("huge", "tampered", "too large", lambda f: _huge(f.layout.lock)),
]  # fmt: skip

REVOKED: list[Row] = [
    Row("image", "revoked", "CVE-2026-1", _revoked("web")),
    Row("parent", "revoked", "its ancestor hardened", _revoked("hardened")),
    Row("grandparent", "revoked", "its ancestor base", _revoked("base")),
    Row("Debian", "revoked", "its ancestor debian-12", _revoked("debian-12")),
    Row("image in its channel", "revoked", "CVE-2026-1", _revoked("web"), PROD),
    Row("no set", "unsigned", "there is no signed set of revocations", lambda f: f.layout.revocations.unlink()),
    Row("event by a stranger", "unsigned", "does not know", lambda f: f.revoke(
        f.revocation(sha("x"), "x"), by="mallory")),
    Row("event by a verifier", "unsigned", "no approver or root",
        lambda f: f.revoke(f.revocation(sha("x"), "x"), by="tester")),
    Row("set by a stranger", "unsigned", "does not know", lambda f: f.revoke(signer="mallory")),
    Row("set by a builder", "unsigned", "no approver or root or verifier", lambda f: f.revoke(signer="nightly")),
    Row("set by whom it says is stolen", "revoked", "compromised",
        lambda f: f.revoke(f.stolen("alice"), signer="alice")),
    Row("event newer than its set", "tampered", "after the head that lists it",
        lambda f: f.revoke(f.revocation(sha("x"), "x", made_at=f.now))),
    Row("two events of one number", "tampered", "one number",
        lambda f: f.revoke(f.revocation(sha("x"), "x"), f.revocation(sha("y"), "y"))),
    Row("head of a channel", "tampered", "is that of another",
        lambda f: shutil.copy(f.layout.channels / "dev.dsse", f.layout.revocations)),
    Row("a ticket's line", "tampered", "carries", lambda f: f.layout.revocations.write_bytes(_lines(f)[0])),
]  # fmt: skip

TIME: list[Row] = [
    Row("clock years behind", "expired", "this machine's clock says", lambda f: None, (), -700 * DAY),
    Row("clock an hour behind", "expired", "this machine's clock says", lambda f: None, (), -DAY / 24),
    Row("clock years ahead", "expired", "was good until", lambda f: None, (), 700 * DAY),
    Row("clock a fortnight ahead", "expired", "was good until", lambda f: None, PROD, 14 * DAY),
    Row("set frozen", "expired", "may be withheld",
        lambda f: f.revoke(issued_at=f.now - 15 * DAY, expires_at=f.now - DAY)),
    Row("set that says it is good for ever", "expired", "may be withheld",
        lambda f: f.revoke(issued_at=f.now - 15 * DAY, expires_at=f.now + 9999 * DAY)),
    Row("set of the future", "expired", "the set of revocations was signed at",
        lambda f: f.revoke(issued_at=f.now + DAY)),
    Row("head frozen", "expired", "may be withheld",
        lambda f: f.write_channel("prod", issued_at=f.now - 15 * DAY, expires_at=f.now - DAY), PROD),
    Row("head of the future", "expired", "the head of channel prod was signed at",
        lambda f: f.write_channel("prod", issued_at=f.now + DAY), PROD),
    Row("ticket of the future", "expired", "web/amd64 was spoken for at",
        lambda f: f.attest(baked_at=f.now + DAY)),
    Row("older set", "expired", "rollback: revocations", _seen(revocations=2)),
    Row("older policy", "expired", "rollback: policy", _seen(policy=2)),
    Row("older head", "expired", "rollback: channel prod", _seen(channel_prod=2), PROD),
    Row("older promotion", "expired", "rollback: channel prod: web/amd64",
        lambda f: _seen(**{"channel_prod:_web/amd64": 2})(f), PROD),
    Row("event withheld", "expired", "rollback: revocations: last event", _seen(**{"revocations:_last_event": 1})),
    Row("revocation left out", "expired", "rollback: the set lacks the revocation of sha256:",
        _all(lambda f: _seen(**{f"revoked_{sha('x')}": 1})(f),
             lambda f: f.revoke(f.revocation(sha("y"), "y", 2), version=3))),
    Row("key's revocation left out by that key", "expired", "rollback: the set lacks the revocation of sha256:",
        _all(lambda f: _seen(**{f"revoked_{key_of('tester').public.fingerprint}": 1})(f),
             lambda f: f.revoke(f.revocation(sha("y"), "y", 2), version=3, signer="tester"))),
    Row("revocation of a lower number", "expired", "rollback: revoked sha256:",
        _all(lambda f: _seen(**{f"revoked_{sha('x')}": 2})(f),
             lambda f: f.revoke(f.revocation(sha("x"), "x", 1), f.revocation(sha("y"), "y", 3), version=3))),
    Row("older lock and ticket", "expired", "rollback: image web/amd64: baked at",
        lambda f: _seen(**{"image_web/amd64:_baked_at": int(f.baked_at.timestamp()) + 1})(f)),
    Row("older ticket of the same image", "expired", "rollback: image web/amd64: verified at",
        lambda f: _seen(**{f"image_web/amd64:_verified_at,_{f.images['web'].digest}":
                           int(f.verified_at.timestamp()) + 1})(f)),
    Row("head of an enormous version", "tampered", "is no whole number from 1 to",
        lambda f: f.write_channel("prod", version=(1 << 40) + 1), PROD),
    Row("revocation of an enormous number", "tampered", "is no whole number from 1 to",
        lambda f: f.revoke(f.revocation(sha("x"), "x", (1 << 40) + 1))),
    Row("seen is damaged", "tampered", "what was seen before", lambda f: _cut(f.own_policy.parent / "seen.json", 0.5)),
    Row("seen is a link", "tampered", "is a link", lambda f: _linked(f.own_policy.parent / "seen.json")),
]  # fmt: skip

CHANNEL: list[Row] = [
    Row("one approver of two", "unsigned", "needs 2 approvers, has 1 (alice)",
        lambda f: f.promote(f.promotion(), "alice"), PROD),
    Row("one approver twice", "unsigned", "needs 2 approvers, has 1 (alice)", _twice_by_alice, PROD),
    Row("one key under two names", "spec", "the same key as", _alice_has_two_names, PROD),
    Row("an approver and a stranger", "unsigned", "has 1 (alice); it is signed by a key",
        lambda f: f.promote(f.promotion(), "alice", "mallory"), PROD),
    Row("an approver and a verifier", "unsigned", "tester, who is no approver",
        lambda f: f.promote(f.promotion(), "alice", "tester"), PROD),
    Row("an approver is compromised", "revoked", "bob, a key that was compromised", _stolen("bob"), PROD),
    Row("whoever signed the head is", "revoked", "compromised",
        lambda f: _stolen("tester", keep=[envelope.digest for envelope in f.tickets["web"].envelopes])(f), PROD),
    Row("head by a stranger", "unsigned", "does not know", lambda f: f.write_channel("prod", signer="mallory"), PROD),
    Row("head of dev", "tampered", "is that of another: the head of channel dev", _head_of(heads.CHANNEL, "dev"), PROD),
    Row("set of revocations", "tampered", "is that of another", _head_of(heads.REVOCATIONS, ""), PROD),
    Row("promotion to dev", "tampered", "is one to 'dev'", _promoted_to_dev, PROD),
    Row("promotion of another image", "tampered", "as 'web/amd64'", _listed_as_web, PROD),
    Row("promotion newer than the head", "tampered", "after the head that lists it",
        lambda f: f.promote(f.promotion(made_at=f.now), "alice", "bob"), PROD),
    Row("promotion of what has no ticket", "unsigned", "nothing is signed for",
        lambda f: f.promote(f.promotion(digest=sha("evil")), "alice", "bob"), PROD),
    Row("promotion of another's disk", "unsigned", "nothing is signed for",
        lambda f: f.promote(f.promotion(digest=f.images["base"].digest), "alice", "bob"), PROD),
    Row("check skipped", "unsigned", "the check test_tls did not pass (skipped)",
        lambda f: f.attest(checks={"test_tls": "skipped"}), PROD),
    Row("waiver over", "expired", "the waiver of check:test_tls by alice ended", _waived(-0.01), PROD),
    Row("too old", "expired", "more than 30 days ago", lambda f: f.attest(baked_at=f.now - 31 * DAY), PROD),
    Row("never promoted", "unsigned", "web/amd64 was never promoted to prod",
        lambda f: f.write_channel("prod", events={}), PROD),
    Row("no head", "unsigned", "nothing was ever promoted to prod",
        lambda f: (f.layout.channels / "prod.dsse").unlink(), PROD),
    Row("channel the policy does not know", "untrusted", "says nothing of a channel",
        lambda f: shutil.copy(f.layout.channels / "dev.dsse", f.layout.channels / "test.dsse"), ("--channel", "test")),
    Row("channel that climbs", "untrusted", "says nothing of a channel ../../x", lambda f: None,
        ("--channel", "../../x")),
    Row("channel for the terminal", "untrusted", "'\\x1b[2J'", lambda f: None, ("--channel", "\x1b[2J")),
]  # fmt: skip

POLICY: list[Row] = [
    Row("no such policy", "usage", "there is no policy", lambda f: f.own_policy.unlink()),
    Row("policy is no TOML", "spec", "policy.toml", lambda f: f.own_policy.write_text("[")),
    Row("policy is a link", "tampered", "is a link", lambda f: _linked(f.own_policy)),
    Row("policy is huge", "tampered", "too large", lambda f: _huge(f.own_policy)),
    Row("policy is a folder", "tampered", "no regular file", lambda f: _folder(f.own_policy)),
    Row("another digest", "tampered", "was asked for", lambda f: None, ("--policy-digest", sha("another"))),
    Row("no digest", "usage", "64 hex digits", lambda f: None, ("--policy-digest", "sha256:abc")),
    Row("newer one by nobody", "unsigned", "is not signed", lambda f: f.write_travelling(policy_text(version=2))),
    Row("newer one by a stranger", "unsigned", "does not know", _newer("mallory")),
    Row("newer one by an approver", "unsigned", "no root", _newer("alice")),
    Row("newer one by its own root", "unsigned", "does not know", lambda f: f.write_travelling(policy_text(
        version=2, more=f'\n[key.mallory]\npublic = "{key_of("mallory").public}"\nroles = ["root"]\n'), "mallory")),
    Row("newer one by a stolen root key", "revoked", "root, a key that was compromised", _all(
        lambda f: f.revoke(f.stolen("root"), by="alice", signer="tester"), _newer("root"))),
    Row("that, in a set only it can verify", "revoked", "root, a key that was compromised", _all(
        lambda f: f.revoke(f.stolen("root"), by="alice", signer="mallory"),
        lambda f: f.write_travelling(policy_text(version=2, more=f'\n[key.mallory]\npublic = "'
                                                 f'{key_of("mallory").public}"\nroles = ["root"]\n'), "root"))),
    Row("newer one by an expired root key", "expired", "whose window ended", _all(
        _newer("root"), _trusting(root='["root"]\nnot_after = 2020-01-01T00:00:00Z'))),
    Row("newer one of other keys", "unsigned", "does not know",
        lambda f: f.write_travelling(policy_text(version=2, roles={"nightly": ""}), "root")),
]  # fmt: skip

BYTES: list[Row] = [
    Row("cut", "tampered", "bytes, but 10 were signed", lambda f: _write(f.artifact(), b"web qcow2")),
    Row("longer", "tampered", "bytes, but 10 were signed", lambda f: _write(f.artifact(), b"web qcow2 and more")),
    Row("other bytes", "tampered", "was signed", lambda f: _write(f.artifact(), b"evilqcow2!"),
        ("--check-bytes",)),
    Row("not here", "untrusted", "cannot be checked", lambda f: f.artifact().unlink(), ("--check-bytes",)),
    Row("bytes of a native id", "usage", "cannot be hashed here", lambda f: None,
        ("--check-bytes", "--at", "aws/eu-west-1")),
    Row("link", "tampered", "is a link", lambda f: _linked(f.artifact())),
    Row("link to nothing", "tampered", "is a link", lambda f: _link_to(f.artifact(), "x")),
    Row("folder", "tampered", "no regular file", lambda f: _folder(f.artifact())),
    Row("pipe", "tampered", "no regular file", lambda f: _pipe(f.artifact()), ("--check-bytes",)),
    Row("folder of the store is a link", "tampered", "is a link", lambda f: _linked(f.artifact().parent)),
]  # fmt: skip

FILES = {
    "ticket": lambda f: f.ticket_file(),
    "revocations": lambda f: f.layout.revocations,
    "head": lambda f: f.layout.channels / "prod.dsse",
    "signed policy": lambda f: f.layout.signed_policy,
}
DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty": ("", lambda path: path.write_bytes(b"")),
    "100 MB": ("too large", _huge),
    "100 MB of its own": ("too large", lambda path: path.write_bytes(path.read_bytes() + b" " * 100_000_000)),
    "zeroes": ("no JSON", lambda path: path.write_bytes(bytes(1000))),
    "noise": ("not UTF-8", lambda path: path.write_bytes(bytes(range(0x80, 0x100)))),
    "a list": ("not an object", lambda path: path.write_bytes(b"[]")),
    "a number of 5,000 digits": ("JSON", lambda path: path.write_bytes(b"1" * 5000)),
    "nothing signed": ("payload", lambda path: path.write_bytes(b'{"payloadType":"x","signatures":[]}')),
    "a link": ("is a link", _linked),
    "a link to /dev/zero": ("is a link", lambda path: _link_to(path, "/dev/zero")),
    "a folder": ("no regular file", _folder),
    "a pipe": ("no regular file", _pipe),
    "its folder is a link": ("is a link", lambda path: _linked(path.parent)),
    "unreadable": ("Permission denied", lambda path: path.chmod(0)),
}
"""What can become of any file in trust/, and what must be said to it."""

TABLE = {"ticket": TICKET, "key": KEYS, "lock": LOCK, "revocations": REVOKED, "time": TIME, "channel": CHANNEL,
         "policy": POLICY, "bytes": BYTES}  # fmt: skip


# --- what must be said


@dataclass
class Desk:
    """A deploy job at its command line."""

    factory: SignedFactory
    capsys: pytest.CaptureFixture[str]

    def resolve(self, *asked: str) -> tuple[int, str, str]:
        f = self.factory
        own = ("--policy", str(f.own_policy), "--seen", str(f.own_policy.parent / "seen.json"))
        self.capsys.readouterr()
        code = cli.run(["-C", str(f.root), "resolve", "web", "--frozen", *own, *asked])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def refused(self, kind: str, said: str, *asked: str) -> None:
        before = self.state()
        code, out, err = self.resolve(*asked)
        assert said in err
        assert (code, out) == (CODES.get(kind, 6), "")
        assert "Traceback" not in err
        assert "\x1b" not in err
        assert err.startswith("error: ")
        code, out, _ = self.resolve(*asked, "--json")
        assert code == CODES.get(kind, 6)
        error = json.loads(out)["error"]
        assert (error["kind"], error["code"]) == (kind, code)
        assert said in error["message"]
        assert self.state() == before

    def state(self) -> dict[str, tuple[int, int, int]]:
        """Every file there is, with what changes when it is written; but for that of --seen, which learns."""
        found = {}
        for folder, folders, files in os.walk(self.factory.root.parent):
            for name in (*folders, *files):
                if name in ("seen.json", ".seen.json.lock", "deployer"):
                    continue
                path = Path(folder, name)
                status = path.lstat()
                found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
        return found


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return _desk(tmp_path, capsys)


def _desk(folder: Path, capsys: pytest.CaptureFixture[str], age: timedelta = timedelta()) -> Desk:
    made = build(folder)
    if age:
        shutil.rmtree(folder / "factory")
        made = build(folder, made.now - age)
    _seen(policy=1, revocations=1)(made)
    return Desk(made, capsys)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{part}: {row}") for part, rows in TABLE.items() for row in rows]
)
def test_tampering_is_refused_with_its_reason(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = _desk(tmp_path, capsys, row.age)
    row.deed(desk.factory)
    desk.refused(row.kind, row.said, *row.asked)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("which", FILES)
def test_damaged_file_is_refused_with_its_reason(which: str, how: str, desk: Desk) -> None:
    if how == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    said, damage = DAMAGE[how]
    _newer("root")(desk.factory)
    path = FILES[which](desk.factory)
    assert path.is_file()
    damage(path)
    kind = "unsigned" if (which, how) == ("ticket", "empty") else "tampered"
    desk.refused(kind, said, *PROD)


# --- each byte, each length


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SignedFactory:
    return build(tmp_path_factory.mktemp("small"))


class Judge:
    """Judges papers of a factory, one of them changed: those on disk are read once."""

    def __init__(self, f: SignedFactory) -> None:
        self.papers = judgement.Papers(
            "web", "amd64", f.locked(), f.ticket_file().read_bytes(), f.layout.revocations.read_bytes(),
            (f.layout.channels / "prod.dsse").read_bytes(),
        )  # fmt: skip
        self.policy = policy.read(f.own_policy)
        self.now = f.now

    def __call__(self, **changed: bytes) -> judgement.Verdict:
        papers = replace(self.papers, **changed)  # type: ignore[arg-type]
        return judgement.judge(papers, self.policy, self.now, channel="prod")


def _bytes_of(f: SignedFactory, paper: str) -> bytes:
    of = {"revocations": f.layout.revocations, "channel": f.layout.channels / "prod.dsse", "tickets": f.ticket_file()}
    return of[paper].read_bytes()


PAPERS = ("tickets", "revocations", "channel")


def _flips(raw: bytes, masks: tuple[int, ...]) -> Iterator[bytes]:
    for at in range(len(raw)):
        for mask in masks:
            yield raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_flipped_byte_is_refused_or_changes_nothing(small: SignedFactory, paper: str) -> None:
    """Let through are the five letters of `keyid`: a field that DSSE passes over, and a key id is only a hint. Of the
    ticket's three envelopes only the summary's: it names the others, byte for byte."""
    judge, raw = Judge(small), _bytes_of(small, paper)
    good = judge()
    through = 0
    masks = (0x01,) if paper == "tickets" else (0x01, 0x20, 0x80)
    for bent in _flips(raw, masks):
        try:
            verdict = judge(**{paper: bent})
        except TrustError:
            continue
        through += 1
        assert (verdict.image, verdict.artifact) == (good.image, good.artifact)
        assert _payloads(paper, bent) == _payloads(paper, raw)
    assert through == 5 * (1 if paper == "tickets" else 2)


def _payloads(paper: str, raw: bytes) -> list[bytes]:
    lines = raw.splitlines() if paper == "tickets" else [raw]
    return [dsse.parse(line).payload for line in lines]


@pytest.mark.parametrize("paper", PAPERS)
def test_any_shorter_length_is_refused(small: SignedFactory, paper: str) -> None:
    judge, raw = Judge(small), _bytes_of(small, paper)
    whole = len(raw) - 1 if paper == "tickets" else len(raw)  # the last line's end may be missing
    for length in range(0, whole, 3 if paper == "tickets" else 1):
        with pytest.raises(TrustError):
            judge(**{paper: raw[:length]})


def test_every_character_of_what_the_lock_says_is_held_against_the_ticket(small: SignedFactory) -> None:
    locked = small.locked()
    good = policy.read(small.own_policy)
    read = judgement.Papers(
        "web", "amd64", None, small.ticket_file().read_bytes(), small.layout.revocations.read_bytes()
    )
    for field in ("digest", "bake_key", "base", "tree"):
        value = getattr(locked, field)
        for at in range(len("sha256:"), len(value)):
            other = value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]
            with pytest.raises(TrustError):
                judgement.judge(replace(read, locked=replace(locked, **{field: other})), good, small.now)
    judgement.judge(replace(read, locked=locked), good, small.now)


# --- a few as whole processes


@pytest.mark.parametrize(
    "deed", [lambda f: _cut(f.ticket_file(), 0.5), _revoked("base"), lambda f: f.layout.lock.unlink()]
)
def test_process_ends_with_the_code_and_nothing_on_standard_output(deed: Deed, desk: Desk) -> None:
    deed(desk.factory)
    code, _, err = desk.resolve()
    start, f = "from factory import cli; cli.main()", desk.factory
    asked = ["-C", str(f.root), "resolve", "web", "--frozen", "--policy", str(f.own_policy)]
    command = [sys.executable, "-c", start, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", err)


# --- what looks alike and is good

GOOD: list[Row] = [
    Row("nothing", "", "signed by nightly, tester", lambda f: None),
    Row("in prod", "", "in prod", lambda f: None, PROD),
    Row("in dev, by a verifier", "", "in dev", lambda f: None, DEV),
    Row("compromised, but kept", "", "signed by nightly", lambda f: _stolen(
        "nightly", keep=[f.tickets["web"].provenance.digest])(f)),
    Row("a key of no concern is compromised", "", "signed by", _stolen("mallory")),
    Row("retired key, signed before", "", "signed by", lambda f: _trusting(
        nightly=f'["builder"]\nnot_after = {_at(f, 0)}')(f)),
    Row("another image revoked", "", "signed by", lambda f: f.revoke(f.revocation(sha("x"), "x"))),
    Row("child revoked", "", "signed by", lambda f: f.bake("shop", "web") and _revoked("shop")(f)),
    Row("revocation in the future", "", "signed by", lambda f: _revoked("base", at=f.now + DAY)(f)),
    Row("waiver in force", "", "in prod", _waived(1), PROD),
    Row("just young enough", "", "in prod", lambda f: f.attest(baked_at=f.now - 29 * DAY), PROD),
    Row("three approve", "", "in prod", lambda f: f.promote(f.promotion(), "alice", "mallory", "bob"), PROD),
    Row("almost stale", "", "signed by", lambda f: None, (), 13 * DAY),
    Row("newer policy by root", "", "version 2 that came along: your root keys signed it", _newer("root")),
    Row("older policy by a stranger", "", "signed by", _newer("mallory", version=1)),
    Row("newer policy, but the digest is pinned", "", "signed by nightly", _newer("mallory"),
        ("--policy-digest", sha(policy_text()))),
    Row("policy of the folder swapped", "", "signed by",
        lambda f: f.layout.policy.write_text(policy_text(roles={"nightly": ""}))),
    Row("bytes not here", "", "its bytes are not here", lambda f: f.artifact().unlink()),
    Row("bytes of another form", "", "signed by", lambda f: _write(f.artifact(place="raw"), b"evil")),
    Row("native id", "", "signed by", lambda f: None, ("--at", "aws/eu-west-1")),
    Row("store elsewhere", "", "signed by", lambda f: _linked(f.layout.store)),
]  # fmt: skip


@pytest.mark.parametrize("row", GOOD, ids=str)
def test_good_papers_are_let_through(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = _desk(tmp_path, capsys, row.age)
    row.deed(desk.factory)
    code, out, err = desk.resolve(*row.asked)
    assert (code, row.said in err) == (0, True), err
    assert out.count("\n") == 1
