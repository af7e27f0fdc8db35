"""factory attest show and verify as they are typed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from signed_factory import SignedFactory, build, key_of, policy_text, sha

from factory import cli
from factory.catalog.database import Catalog
from factory.digest import hex_of
from factory.release import standing
from factory.trust import dsse, statements
from factory.trust.promotions import Waiver

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def signed(tmp_path: Path) -> SignedFactory:
    return build(tmp_path)


@pytest.fixture
def run(signed: SignedFactory, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        got = cli.run(["-C", str(signed.root), "attest", *arguments])
        captured = capsys.readouterr()
        assert got == code, captured.err
        assert "Traceback" not in captured.err
        return captured.out, captured.err

    return command


def findings(out: str) -> dict[str, str | None]:
    """What was judged -> the kind of its problem, None where there is none; a kind of statement once."""
    said = json.loads(out)["findings"]
    return {item["what"]: item["error"] and item["error"]["kind"] for item in said}


# --- show


def test_show_gives_the_envelopes_byte_for_byte(signed: SignedFactory, run: Run) -> None:
    said = json.loads(run("show", "web", "--json")[0])
    assert said["digest"] == signed.images["web"].digest
    given = [base64.b64decode(envelope) for envelope in said["envelopes"]]
    ticket = signed.tickets["web"]
    promoted = [signed.promoted[channel]["web/amd64"] for channel in ("dev", "prod")]
    assert given == [*(one.raw for one in ticket.envelopes), signed.sboms["web"].raw, *promoted]


def test_show_by_digest_is_show_by_name(signed: SignedFactory, run: Run) -> None:
    by_digest = run("show", signed.images["web"].digest, "--json")[0]
    assert by_digest == run("show", "web", "--json")[0] == run("show", "web/amd64", "--json")[0]


def test_show_names_who_signed(signed: SignedFactory, run: Run) -> None:
    signed.attest("web", builder="mallory")
    signed.revoke(signed.revocation(signed.images["web"].digest, "web/amd64"))
    waiver = Waiver("check:old", "bob", "<b>because</b>", signed.now)
    signed.promote(signed.promotion(number=2, waivers=(waiver,)), "alice", "bob")
    out, err = run("show", "web")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert key_of("mallory").public.fingerprint in rows["provenance"]
    assert "tester" in rows["test-result"]
    assert "2 passed" in rows["test-result"]
    assert "alice, bob" in rows["promotion"]
    assert "waived until" in rows["promotion"]
    assert "check:old (bob: <b>because</b>)" in rows["promotion"]
    assert "root" in rows["revocation"]
    assert "CVE-2026-1" in rows["revocation"]
    assert "nothing of it was verified" in err


def test_show_does_not_believe_a_keyid(signed: SignedFactory, run: Run) -> None:
    """A stranger's signature under nightly's id is told as a bad one."""
    forged = dsse.sign(statements.PAYLOAD_TYPE, signed.tickets["web"].provenance.payload, [key_of("mallory")]).raw
    mallory, nightly = (key_of(name).public.fingerprint.encode() for name in ("mallory", "nightly"))
    lines = signed.ticket_file().read_bytes().splitlines()
    lines[lines.index(signed.tickets["web"].provenance.raw)] = forged.replace(mallory, nightly)
    signed.ticket_file().write_bytes(b"\n".join(lines))
    rows = {line.split()[0]: line for line in run("show", "web")[0].splitlines()}
    assert "nightly (bad)" in rows["provenance"]


@pytest.mark.parametrize(
    ("kind", "field"),
    [("provenance", "buildDefinition"), ("test-result", "passedTests"), ("summary", "verificationResult"),
     ("sbom", "bomFormat")],
)  # fmt: skip
def test_show_of_one_statement_is_what_it_says(run: Run, kind: str, field: str) -> None:
    assert field in json.loads(run("show", "web", "--statement", kind)[0])


def test_show_without_the_sbom_says_so(signed: SignedFactory, run: Run) -> None:
    signed.store.remove(signed.sboms["web"].digest)
    assert "its SBOM is not here" in run("show", "web")[1]
    assert "its SBOM is not here" in run("show", "web", "--statement", "sbom", code=3)[1]


def test_show_does_not_take_another_sbom_for_it(signed: SignedFactory, run: Run) -> None:
    path = signed.store.path(signed.sboms["web"].digest)
    path.unlink()
    path.write_bytes(signed.sboms["hardened"].raw)
    assert "its SBOM is not here" in run("show", "web")[1]


def test_show_of_what_left_trust_comes_from_the_catalog(signed: SignedFactory, run: Run) -> None:
    old = signed.tickets["web"]
    with Catalog.open(signed.layout.catalog) as catalog:
        standing.index(catalog, signed.layout, "web/amd64")
    signed.bake("web", "hardened", content="newer")
    said = json.loads(run("show", old.digest, "--json")[0])
    assert [base64.b64decode(one) for one in said["envelopes"]][:3] == [one.raw for one in old.envelopes]


def test_show_of_what_nothing_here_knows_is_refused(signed: SignedFactory, run: Run) -> None:
    assert "nothing here is signed for" in run("show", sha("strange"), code=2)[1]
    assert "did you mean web" in run("show", "wep", code=2)[1]
    signed.ticket_file().unlink()
    assert "nothing is signed for" in run("show", "web", code=6)[1]
    (signed.ticket_file("base")).write_bytes(b"{}\n")
    run("show", signed.images["hardened"].digest)  # a file that is damaged hides no other
    run("show", signed.images["base"].digest, code=6)


def test_show_without_a_policy_tells_fingerprints(signed: SignedFactory, run: Run) -> None:
    signed.layout.policy.unlink()
    assert key_of("nightly").public.fingerprint in run("show", "web")[0]


# --- verify


def test_verify_finds_nothing_wrong(signed: SignedFactory, run: Run) -> None:
    said = json.loads(run("verify", "web", "--json")[0])
    assert said["ok"] is True
    assert [item["what"] for item in said["findings"]] == [
        "provenance", "test-result", "summary", "ticket", "sbom", "promotion", "promotion", "revoked",
    ]  # fmt: skip
    assert all(item["ok"] and item["error"] is None for item in said["findings"])
    signers = {item["what"]: item["signers"] for item in said["findings"]}
    assert (signers["sbom"], signers["promotion"]) == (["nightly"], ["alice", "bob"])
    assert said["findings"][4]["envelope"] == signed.sboms["web"].digest
    assert run("verify", signed.images["web"].digest, "--policy", str(signed.own_policy))[0].count(" ok") == 8


def test_verify_by_a_policy_that_knows_nobody(signed: SignedFactory, run: Run) -> None:
    text = policy_text(roles={"tester": "", "alice": "", "nightly": '["approver"]'})
    signed.own_policy.write_text(text)
    out, err = run("verify", "web", "--policy", str(signed.own_policy), "--json", code=6)
    found = findings(out)
    assert {what for what, kind in found.items() if kind == "unsigned"} == {
        "provenance", "test-result", "summary", "ticket", "sbom", "promotion",
    }  # fmt: skip
    assert "who is no builder" in err
    assert err.count("the provenance of web/amd64 is signed by nightly") == 1


def test_verify_passes_over_channels_that_the_policy_does_not_name(signed: SignedFactory, run: Run) -> None:
    signed.own_policy.write_text(policy_text(channels=""))
    out, _ = run("verify", "web", "--policy", str(signed.own_policy), "--json")
    assert "promotion" not in findings(out)


def test_verify_of_a_swapped_sbom(signed: SignedFactory, run: Run) -> None:
    path = signed.store.path(signed.sboms["web"].digest)
    path.unlink()
    path.write_bytes(signed.sboms["hardened"].raw)
    found = findings(run("verify", "web", "--json", code=6)[0])
    assert {what for what, kind in found.items() if kind} == {"sbom"}
    assert found["sbom"] == "tampered"


def test_verify_of_a_missing_sbom(signed: SignedFactory, run: Run) -> None:
    signed.store.remove(signed.sboms["web"].digest)
    assert findings(run("verify", "web", "--json", code=6)[0])["sbom"] == "store"


def test_verify_of_another_tests_result(signed: SignedFactory, run: Run) -> None:
    """Each of the three is well signed, but the summary was made for another test result."""
    other = signed.make_ticket(signed.images["web"], checks={"test_more": "passed"})
    old = signed.tickets["web"]
    parts = [other.provenance, other.test_result, old.summary]
    signed.ticket_file().write_bytes(b"".join(part.raw + b"\n" for part in parts))
    found = findings(run("verify", "web", "--json", code=6)[0])
    assert (found["test-result"], found["ticket"]) == (None, "tampered")


@pytest.mark.parametrize("name", ["web", "base"])
def test_verify_of_a_revoked_image_or_ancestor(signed: SignedFactory, run: Run, name: str) -> None:
    signed.revoke(signed.revocation(signed.images[name].digest, f"{name}/amd64"))
    out, err = run("verify", "web", "--json", code=6)
    assert {what for what, kind in findings(out).items() if kind} == {"revoked"}
    assert "CVE-2026-1" in err


def test_verify_of_what_a_compromised_key_signed(signed: SignedFactory, run: Run) -> None:
    signed.revoke(signed.stolen("nightly", keep=[signed.tickets["web"].provenance.digest]))
    found = findings(run("verify", "web", "--json", code=6)[0])
    assert (found["provenance"], found["sbom"]) == (None, "revoked")


def test_verify_of_a_ticket_put_in_for_another_image(signed: SignedFactory, run: Run) -> None:
    stolen = signed.images["hardened"]
    signed.write_tickets("web", [signed.tickets["hardened"]])
    text = signed.layout.lock.read_text().replace(signed.images["web"].digest, stolen.digest)
    signed.layout.lock.write_text(text)
    assert "was signed as hardened/amd64, not as web/amd64" in run("verify", "web", code=6)[1]


def test_verify_needs_the_revocations_and_a_policy(signed: SignedFactory, run: Run) -> None:
    assert "there is no policy" in run("verify", "web", "--policy", "nowhere", code=2)[1]
    signed.layout.revocations.unlink()
    assert "no signed set of revocations" in run("verify", "web", code=6)[1]


def test_show_is_narrow_enough_to_read(signed: SignedFactory, run: Run) -> None:
    out, _ = run("show", "web")
    assert hex_of(signed.images["web"].bake_key) not in out
    assert max(map(len, out.splitlines())) < 140
