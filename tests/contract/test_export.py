"""factory export as it is typed: the bundle resolves alone, is whole or not there, and holds nothing private."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from signed_factory import AMI, SignedFactory, build, key_of, policy_text, sha

from factory import cli, lockfile
from factory.digest import hex_of
from factory.model import Layout
from factory.release import resolve
from factory.store import Store
from factory.trust import judgement, statements, ticket
from factory.trust.dsse import Envelope
from factory.trust.facts import CheckOutcome, ImageFacts, Verification
from factory.trust.predicates import sbom, summary, test_result

PAPERS = {
    "images.lock",
    "trust/policy.toml",
    "trust/revocations.dsse",
    "trust/tickets/web-amd64.jsonl",
    "trust/channels/dev.dsse",
    "trust/channels/prod.dsse",
}
COMMAND = "from factory import cli; cli.main()"


@pytest.fixture
def signed(tmp_path: Path) -> SignedFactory:
    return build(tmp_path)


@pytest.fixture
def run(signed: SignedFactory, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(signed, capsys)


class Run:
    """Runs commands in the factory; what they printed."""

    def __init__(self, signed: SignedFactory, capsys: pytest.CaptureFixture[str]) -> None:
        self.signed, self.to, self._capsys = signed, signed.root.parent / "bundle", capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        got = cli.run(["-C", str(self.signed.root), *arguments])
        captured = self._capsys.readouterr()
        assert got == code, captured.err
        return captured.out, captured.err

    def export(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        return self("export", "web", "--to", str(self.to), *arguments, code=code)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def alone(signed: SignedFactory, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`factory resolve` of the bundle, where there is no factory, after the real one is gone."""
    empty = signed.root.parent / "elsewhere"
    empty.mkdir(exist_ok=True)
    command = [sys.executable, "-c", COMMAND, "resolve", "--bundle", "../bundle", "--policy", "../deployer/policy.toml"]
    return subprocess.run([*command, *arguments], cwd=empty, capture_output=True, text=True, check=False)


def test_bundle_resolves_alone(signed: SignedFactory, run: Run) -> None:
    out, err = run.export("--bytes")
    sbom, disk = (signed.sboms["web"].digest, signed.artifact().name)
    assert files_in(run.to) == PAPERS | {f"store/sha256/{hex_of(sbom)}", f"store/sha256/{disk}"}
    assert out == f"{run.to}\n"
    assert f"factory resolve --bundle {run.to} --policy FILE --check-bytes" in err
    shutil.rmtree(signed.root)
    done = alone(signed, "--check-bytes", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["digest"], answer["policy_source"]) == (signed.images["web"].digest, "file")
    assert Path(answer["path"]).read_bytes() == b"web qcow2 "
    assert alone(signed, "--channel", "prod").returncode == 0


def test_bundle_without_bytes_gives_the_digest_and_cannot_check(signed: SignedFactory, run: Run) -> None:
    run.export()
    shutil.rmtree(signed.root)
    assert alone(signed).stdout == f"{signed.images['web'].digest}\n"
    assert "is not here" in alone(signed, "--check-bytes").stderr
    assert alone(signed, "--check-bytes").returncode == 6
    assert alone(signed, "--at", "aws/eu-west-1").stdout == f"{AMI}\n"


def test_bundle_holds_only_its_image(signed: SignedFactory, run: Run) -> None:
    run.export()
    lock = lockfile.read(run.to / "images.lock")
    assert lock.images == {("web", "amd64"): signed.locked()}
    assert lock.bases == {}
    for name in ("tickets/web-amd64.jsonl", "revocations.dsse", "channels/prod.dsse", "policy.toml"):
        assert (run.to / "trust" / name).read_bytes() == signed.file(name).read_bytes()


def test_bundle_holds_nothing_private(signed: SignedFactory, run: Run) -> None:
    signed.layout.keys.mkdir(parents=True, mode=0o700)
    (signed.layout.keys / "nightly.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n")
    signed.file("notes.txt").write_text("c2VjcmV0")
    (signed.layout.channels / "spare.key").write_text("c2VjcmV0")
    (signed.layout.state / "secrets.env").write_text("TOKEN=c2VjcmV0")
    run.export("--bytes")
    assert {name for name in files_in(run.to) if not name.startswith("store/")} == PAPERS
    assert not [name for name in files_in(run.to) if b"c2VjcmV0" in (run.to / name).read_bytes()]
    assert not list(run.to.rglob(".factory"))


def test_json_says_what_was_written(signed: SignedFactory, run: Run) -> None:
    out, _ = run.export("--channel", "prod", "--at", "raw", "--bytes", "--json")
    said = json.loads(out)
    assert set(said["files"]) == files_in(run.to)
    assert (said["digest"], said["channel"], said["location"]) == (signed.images["web"].digest, "prod", "raw")
    assert (said["sbom"], said["policy"]) == (signed.sboms["web"].digest, sha(policy_text()))
    assert Store(run.to / "store").has(said["artifact"])
    assert said["good_until"] > "2026"


def test_travelling_policy_goes_along(signed: SignedFactory, run: Run) -> None:
    signed.write_travelling(policy_text(version=2), "root")
    run.export()
    assert "trust/policy.dsse" in files_in(run.to)
    assert json.loads(alone(signed, "--json").stdout)["policy_version"] == 2


def test_bundle_can_be_read_by_whom_the_umask_says(run: Run) -> None:
    run.export("--bytes")
    folders = [run.to, *(path for path in run.to.rglob("*") if path.is_dir())]
    assert len({path.stat().st_mode for path in folders}) == 1
    assert run.to.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    now = os.umask(0o022)
    os.umask(now)
    return now


# --- refused


@pytest.mark.parametrize("place", ["file", "full", "link", "dangling"])
def test_place_that_is_taken_is_refused_and_left(signed: SignedFactory, run: Run, place: str) -> None:
    if place == "file":
        run.to.write_text("mine")
    elif place == "full":
        run.to.mkdir()
        (run.to / "mine").write_text("mine")
    else:
        run.to.symlink_to(signed.root / ("trust" if place == "link" else "nowhere"))
    before = sorted(run.to.parent.rglob("*"))
    _, err = run.export(code=2)
    assert "nothing is overwritten" in err
    assert sorted(run.to.parent.rglob("*")) == before


def test_empty_folder_is_filled(run: Run) -> None:
    run.to.mkdir()
    run.export()
    assert (run.to / "images.lock").is_file()
    assert "nothing is overwritten" in run.export(code=2)[1]


def test_folder_to_make_it_in_is_missing(signed: SignedFactory, run: Run) -> None:
    run.to = signed.root.parent / "no" / "bundle"
    assert "mkdir -p" in run.export(code=2)[1]


def refuse_revoked(signed: SignedFactory) -> None:
    signed.revoke(signed.revocation(signed.images["base"].digest, "base/amd64"))


def refuse_linked_tickets(signed: SignedFactory) -> None:
    signed.ticket_file().rename(signed.root / "elsewhere.jsonl")
    signed.ticket_file().symlink_to(signed.root / "elsewhere.jsonl")


def refuse_linked_folder(signed: SignedFactory) -> None:
    signed.layout.channels.rename(signed.root / "elsewhere")
    signed.layout.channels.symlink_to(signed.root / "elsewhere")


def refuse_linked_head_of_another_channel(signed: SignedFactory) -> None:
    head = signed.layout.channels / "staging.dsse"
    head.symlink_to(signed.root / "images.toml")


def refuse_foreign_signer(signed: SignedFactory) -> None:
    signed.attest("web", builder="mallory")


def refuse_edited_lock(signed: SignedFactory) -> None:
    signed.write_lock(web=replace(signed.locked(), tree=sha("other")))


def refuse_swapped_sbom(signed: SignedFactory) -> None:
    """It is of this image, and its builder signed it; only the summary names another."""
    path = signed.store.path(signed.sboms["web"].digest)
    path.unlink()
    path.write_bytes(sbom_of(signed, signed.images["web"], "nightly").raw)


def refuse_damaged_travelling_policy(signed: SignedFactory) -> None:
    signed.write_travelling(policy_text(version=2), "mallory")


@pytest.mark.parametrize(
    "spoil",
    [
        refuse_revoked, refuse_linked_tickets, refuse_linked_folder, refuse_linked_head_of_another_channel,
        refuse_foreign_signer, refuse_edited_lock, refuse_swapped_sbom, refuse_damaged_travelling_policy,
    ],
)  # fmt: skip
def test_what_resolve_would_refuse_is_not_exported(signed: SignedFactory, run: Run, spoil: object) -> None:
    spoil(signed)  # type: ignore[operator]
    before = set(run.to.parent.iterdir())
    out, _ = run.export("--json", code=6)
    assert json.loads(out)["error"]["code"] == 6
    assert set(run.to.parent.iterdir()) == before


def sbom_of(signed: SignedFactory, facts: ImageFacts, signer: str) -> Envelope:
    """An SBOM without any package."""
    return statements.signed(sbom.statement(facts, (), signed.baked_at), [key_of(signer)])


def name_sbom(signed: SignedFactory, bill: Envelope) -> None:
    """A good ticket of `web` that names another SBOM, which is put into the store."""
    signed.store.put_bytes(bill.raw)
    made = signed.tickets["web"].provenance
    subjects = statements.of_envelope(made, statements.PROVENANCE, "").subjects
    at = signed.verified_at
    said = Verification((CheckOutcome("web", "test_tls", "passed"),), at, sha("policy"), {"web": sha("checks")})
    tests = statements.signed(test_result.statement(subjects, said), [key_of("tester")])
    inputs = summary.Inputs(made.digest, tests.digest, bill.digest)
    passed = statements.signed(summary.statement(subjects, inputs, sha("policy"), at), [key_of("tester")])
    signed.write_tickets("web", [ticket.Ticket(made, tests, passed)])


def test_sbom_signed_by_a_stranger_is_not_exported(signed: SignedFactory, run: Run) -> None:
    name_sbom(signed, sbom_of(signed, signed.images["web"], "mallory"))
    run("resolve", "web")
    assert "the SBOM of web/amd64 is signed by a key that the policy does not know" in run.export(code=6)[1]


def test_sbom_of_other_artifacts_is_not_exported(signed: SignedFactory, run: Run) -> None:
    fewer = replace(signed.images["web"], artifacts=signed.images["web"].artifacts[:1])
    name_sbom(signed, sbom_of(signed, fewer, "nightly"))
    run("resolve", "web")
    assert "speaks of other subjects" in run.export(code=6)[1]


def test_other_sbom_that_the_summary_names_is_exported(signed: SignedFactory, run: Run) -> None:
    bill = sbom_of(signed, signed.images["web"], "nightly")
    name_sbom(signed, bill)
    assert json.loads(run.export("--json")[0])["sbom"] == bill.digest


def test_head_that_moves_during_an_export_is_exported_as_judged(
    signed: SignedFactory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = signed.layout.channels / "prod.dsse"
    judged = head.read_bytes()
    read = resolve.read_papers

    def moved(*arguments: Any) -> judgement.Papers:
        papers = read(*arguments)
        head.write_bytes(b"another")
        return papers

    monkeypatch.setattr(resolve, "read_papers", moved)
    run.export("--channel", "prod")
    assert (run.to / "trust" / "channels" / "prod.dsse").read_bytes() == judged


def test_image_without_bytes_there_is_refused(run: Run) -> None:
    assert "has no bytes to carry" in run.export("--bytes", "--at", "aws/eu-west-1", code=2)[1]
    assert not run.to.exists()


def test_damaged_artifact_is_not_carried(signed: SignedFactory, run: Run) -> None:
    path = signed.artifact()
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(b"x" * size)
    assert "are not the bytes of" in run.export("--bytes", code=3)[1]
    assert not run.to.exists()


# --- from the shared store


def test_what_is_missing_here_comes_from_the_shared_store(signed: SignedFactory, run: Run) -> None:
    shared = signed.root.parent / "shared"
    signed.layout.store.rename(shared)
    _, err = run.export(code=3)
    assert "images.toml names no shared one" in err
    assert not run.to.exists()
    (signed.root / "images.toml").write_text(
        f'[store]\nurl = "{shared.as_uri()}"\n'
        '[base.debian-12]\nkind = "debootstrap"\narch = "amd64"\nsuite = "bookworm"\n'
    )
    run.export("--bytes")
    assert len(list((run.to / "store" / "sha256").iterdir())) == 2


# --- killed, or out of room

KILLED = """
import os, pathlib, signal, sys
from factory import cli, files
from factory.store import Store
place, count = sys.argv[1], int(sys.argv[2])
def dies(real):
    def call(*arguments, **more):
        global count
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        count -= 1
        return real(*arguments, **more)
    return call
holder = {"replace": files, "sync_folder": files, "put_copy": Store, "rename": pathlib.Path}[place]
setattr(holder, place, dies(getattr(holder, place)))
sys.exit(cli.run(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("place", "count"),
    [*(("replace", count) for count in range(len(PAPERS))), ("put_copy", 0), ("put_copy", 1), ("sync_folder", 8),
     ("rename", 0)],
)  # fmt: skip
def test_kill_leaves_no_bundle_and_the_next_export_tidies_up(
    signed: SignedFactory, run: Run, place: str, count: int
) -> None:
    arguments = ["-C", str(signed.root), "export", "web", "--to", str(run.to), "--bytes"]
    command = [sys.executable, "-c", KILLED, place, str(count), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not run.to.exists()
    assert [path for path in run.to.parent.iterdir() if path.suffix == ".part"]
    run.export("--bytes")
    assert not [path for path in run.to.parent.iterdir() if path.suffix == ".part"]
    assert alone(signed, "--check-bytes").returncode == 0


@pytest.mark.parametrize(("limit", "told"), [(100, "the bundle cannot be written"), (1 << 20, "cannot store")])
def test_disk_that_takes_no_more_leaves_nothing(signed: SignedFactory, run: Run, limit: int, told: str) -> None:
    signed.bake("web", "hardened", content="x" * (2 << 20))
    command = [sys.executable, "-c", COMMAND, "-C", str(signed.root), "export", "web", "--to", str(run.to), "--bytes"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in run.to.parent.iterdir()} == {"factory", "deployer"}


def test_interrupt_leaves_nothing(signed: SignedFactory, run: Run) -> None:
    code = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise KeyboardInterrupt")
    arguments = ["-C", str(signed.root), "export", "web", "--to", str(run.to)]
    done = subprocess.run([sys.executable, "-c", code, "rename", "0", *arguments], capture_output=True, check=False)
    assert done.returncode == 130
    assert {path.name for path in run.to.parent.iterdir()} == {"factory", "deployer"}


def test_exports_at_once_make_one_whole_bundle(signed: SignedFactory, run: Run) -> None:
    command = [sys.executable, "-c", COMMAND, "-C", str(signed.root), "export", "web", "--to", str(run.to), "--bytes"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert sorted(process.wait() for process in running) == [0, 2, 2]
    assert not [path for path in run.to.parent.iterdir() if path.suffix == ".part"]
    assert alone(signed, "--check-bytes").returncode == 0


# --- tampered on the way


@pytest.mark.parametrize("name", sorted(PAPERS - {"trust/policy.toml", "trust/channels/dev.dsse"}))
def test_bundle_that_was_tampered_with_is_refused(signed: SignedFactory, run: Run, name: str) -> None:
    run.export("--bytes")
    path = run.to / name
    if name == "images.lock":
        text = path.read_text()
        path.write_text(text.replace(signed.images["web"].tree, sha("other")))
    else:
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b'"sig":"', b'"sig":"AAAA', 1))
    done = alone(signed, "--channel", "prod")
    assert done.returncode == 6, done.stderr
    assert done.stdout == ""


def test_bytes_that_were_swapped_are_refused(signed: SignedFactory, run: Run) -> None:
    run.export("--bytes")
    path = run.to / "store" / "sha256" / signed.artifact().name
    path.chmod(0o644)
    path.write_bytes(b"evil qcow2")
    assert alone(signed, "--check-bytes").returncode == 6


def test_bundle_of_a_channel_holds_what_the_channel_points_at(signed: SignedFactory, run: Run) -> None:
    """The lock has gone on to a newer image; prod still points at the old one."""
    old, old_ticket = signed.images["web"], signed.tickets["web"]
    signed.bake("web", "hardened", content="newer")
    signed.write_tickets("web", [old_ticket, signed.tickets["web"]])
    run.export("--channel", "prod", "--bytes")
    shutil.rmtree(signed.root)
    done = alone(signed, "--channel", "prod", "--check-bytes", "--json")
    assert json.loads(done.stdout)["digest"] == old.digest
    assert Layout(run.to).lock.is_file()
    assert json.loads(alone(signed, "--json").stdout)["digest"] == signed.images["web"].digest
