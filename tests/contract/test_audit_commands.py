"""factory audit, and the catalog as files, as they are typed: by two approvers, a deployer and a compliance team."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import catalogued
import pytest
from catalogued import HOSTILE, Catalogued
from signed_factory import key_of

from factory import cli
from factory.catalog import chain
from factory.catalog.database import Catalog
from factory.trust.promotions import CatalogHead


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(folder: Path, *arguments: str, code: int = 0) -> Result:
        capsys.readouterr()
        got = cli.run(["-C", str(folder), *arguments])
        captured = capsys.readouterr()
        assert got == code, captured.err
        assert "Traceback" not in captured.err
        return Result(got, captured.out, captured.err)

    return command


@pytest.fixture
def made(tmp_path: Path, run: Run) -> Catalogued:
    """A factory whose promotion of `web` to prod signs where its log was, and has been told of."""
    made = catalogued.build(tmp_path)
    promote(made, head_of(made), "alice", "bob")
    run(made.root, "audit")
    return made


def head_of(made: Catalogued) -> CatalogHead:
    with made.catalog() as catalog:
        end = chain.head(catalog.connection)
    return CatalogHead(end.catalog, end.length, end.digest)


def promote(made: Catalogued, log: CatalogHead, *by: str) -> None:
    made.factory.promote(made.factory.promotion(channel="prod", number=2, log=log), *by)


def rewrite(made: Catalogued, change: Callable[[list[list[Any]]], list[list[Any]]], *, recompute: bool = True) -> None:
    """Change the log by hand, without the triggers that guard it; and make its chain fit again."""
    with closing(sqlite3.connect(made.layout.catalog, isolation_level=None)) as connection:
        rows = [list(row) for row in connection.execute("SELECT * FROM events ORDER BY seq")]
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'events' AND type = 'trigger'"
        )
        kept = triggers.fetchall()
        for name, _ in kept:
            connection.execute(f"DROP TRIGGER {name}")
        catalog = connection.execute("SELECT catalog FROM sources WHERE id = 1").fetchone()[0]
        rows, last = change(rows), chain.START
        for row in rows if recompute else ():
            row[-1] = last
            last = bytes.fromhex(chain.event_of(tuple(row[1:])).hash(catalog)[7:])
        connection.execute("DELETE FROM events")
        connection.executemany(f"INSERT INTO events VALUES ({', '.join('?' * 12)})", rows)
        for _, sql in kept:
            connection.execute(sql)


def test_audit_says_who_did_what_and_that_the_log_is_whole(made: Catalogued, run: Run) -> None:
    said = run(made.root, "audit", "--action", "promoted")
    fingerprint = key_of("alice").public.fingerprint
    assert f"alice {fingerprint[:19]}…" in said.out
    assert "prod: web/amd64" in said.out
    assert "is unbroken; promotions prove the first" in said.err
    unsigned = run(made.root, "audit", "--action", "began run", "--limit", "1")
    assert "(unauthenticated)" in unsigned.out
    assert len(unsigned.out.splitlines()) == 2


def test_audit_says_what_was_waived_and_why_something_was_revoked(tmp_path: Path, run: Run) -> None:
    made = catalogued.build(tmp_path)
    catalogued.waive(made)
    made.factory.revoke(made.factory.revocation(made.digests["old"], "web/amd64", reason="broken"))
    waived = "waived: no-cve:low (bob, until 2030-01-01T00:00:00Z: <b>because</b>)"
    assert waived in run(made.root, "audit").out
    said = {one["note"]: one for one in run(made.root, "audit", "--json").json["events"]}
    assert {None, waived, "broken"} == said.keys()
    details = said[waived]["details"]
    assert details["requirements"] == {"no-cve:low": "waived", "verified": "passed"}
    assert [one["owner"] for one in details["waivers"]] == ["bob"]
    run(made.root, "catalog", "check")


def test_audit_json_and_csv_have_everything(made: Catalogued, run: Run) -> None:
    said = run(made.root, "audit", "--json").json
    assert (said["ok"], said["faults"], said["notes"]) == (True, [], [])
    (log,) = said["logs"]
    assert log["length"] == len(said["events"]) == said["events"][-1]["event"]
    assert 0 < log["proven"] < log["length"]
    (held,) = said["promotions"]
    assert (held["result"], held["signers"]) == ("fits", ["alice", "bob"])
    promoted = [one for one in said["events"] if one["action"] == "promoted" and one["details"]["number"] == 2]
    assert promoted[0]["authenticated"]
    assert promoted[0]["names"] == sorted(promoted[0]["names"], key=lambda name: key_of(name).public.fingerprint)
    rows = list(csv.DictReader(io.StringIO(run(made.root, "audit", "--csv").out)))
    assert [int(row["event"]) for row in rows] == [one["event"] for one in said["events"]]
    assert json.loads(rows[-1]["details"]) == said["events"][-1]["details"]


def test_audit_takes_an_actor_by_name_fingerprint_or_user(made: Catalogued, run: Run) -> None:
    fingerprint = key_of("nightly").public.fingerprint
    by_name = run(made.root, "audit", "--actor", "nightly", "--json").json["events"]
    assert {one["action"] for one in by_name} == {"signed provenance"}
    for said in (fingerprint, fingerprint[7:15]):
        assert run(made.root, "audit", "--actor", said, "--json").json["events"] == by_name
    user = chain.local_user()  # as root, there is a key of that name too: both are shown, and told apart
    for one in run(made.root, "audit", "--actor", user, "--json").json["events"]:
        assert user in one["names"] if one["authenticated"] else one["actor"] == [user]
    both = run(made.root, "audit", "--actor", "bob", "--action", "promoted", "--json").json["events"]
    assert both
    assert all("bob" in one["names"] for one in both)
    nobody = run(made.root, "audit", "--actor", "nigthly", "--json", code=2)
    assert nobody.json["error"]["message"] == "no event is of an actor 'nigthly'; did you mean \"nightly\"?"
    none = run(made.root, "audit", "--actor", "bob", "--until", "2020-01-01")
    assert (none.out, none.err.splitlines()[0]) == ("", "no event fits what was asked for")
    assert run(made.root, "audit", "--action", "nosuch", "--json", code=2).json["error"]["where"] == "--action"


def test_audit_takes_an_image_a_time_and_an_action(made: Catalogued, run: Run) -> None:
    web, old = made.digests["web"], made.digests["old"]
    assert {one["image"] for one in run(made.root, "audit", "--image", web, "--json").json["events"]} == {web}
    assert {one["image"] for one in run(made.root, "audit", "--image", "web", "--json").json["events"]} == {web, old}
    everything = run(made.root, "audit", "--json").json["events"]
    middle = everything[len(everything) // 2]["at"]
    since = run(made.root, "audit", "--since", middle, "--json").json["events"]
    until = run(made.root, "audit", "--until", middle, "--json").json["events"]
    assert {one["event"] for one in since} | {one["event"] for one in until} == {one["event"] for one in everything}
    assert all(one["at"] >= middle for one in since)
    assert 'did you mean "promoted"' in run(made.root, "audit", "--action", "promotd", code=2).err
    assert "knows no image" in run(made.root, "audit", "--image", "wob", code=2).err
    assert "is no time" in run(made.root, "audit", "--since", "soon", code=2).err
    assert "exclude each other" in run(made.root, "audit", "--json", "--csv", code=2).err


def test_audit_shows_hostile_words_and_runs_none(made: Catalogued, run: Run) -> None:
    with made.catalog() as catalog, catalog.writing() as database:
        chain.append(database.conn, chain.Entry("=1+1", HOSTILE, details={"reason": HOSTILE}))
    assert "\x1b" not in run(made.root, "audit", "--limit", "1").out
    assert "\\x1b" in run(made.root, "audit", "--limit", "1").out
    assert "'=1+1" in run(made.root, "audit", "--limit", "1", "--csv").out
    assert run(made.root, "audit", "--action", "=1+1", "--json").json["events"][0]["subject"] == HOSTILE


def _without_tail(rows: list[list[Any]]) -> list[list[Any]]:
    return rows[:5]


def _with_another_actor(rows: list[list[Any]]) -> list[list[Any]]:
    rows[3][3] = "mallory"
    return rows


def test_audit_finds_a_changed_event_and_answers_all_the_same(made: Catalogued, run: Run) -> None:
    rewrite(made, _with_another_actor, recompute=False)
    said = run(made.root, "audit", code=6)
    assert "event 5: it does not follow event 4" in said.err
    assert "mallory" in said.out
    document = run(made.root, "audit", "--json", code=6).json
    assert not document["ok"]
    assert [one["event"] for one in document["logs"][0]["breaks"]] == [5]
    assert document["logs"][0]["proven"] == 0  # the promotion that fits comes after the break
    assert [one["result"] for one in document["promotions"]] == ["fits"]
    assert len(document["events"]) == document["logs"][0]["length"]


def test_export_of_a_broken_log_is_made_and_says_so(made: Catalogued, tmp_path: Path, run: Run) -> None:
    rewrite(made, _with_another_actor, recompute=False)
    target = tmp_path / "shop.jsonl"
    for arguments in (("--to", str(target)), ()):
        said = run(made.root, "catalog", "export", *arguments, code=6)
        assert "event 5: it does not follow event 4" in said.err
        assert "no import takes it" in said.err
    assert said.out == target.read_text()
    run(tmp_path, "catalog", "import", str(target), code=6)


@pytest.mark.parametrize(
    ("change", "result"), [(_without_tail, "cut"), (_with_another_actor, "recomputed")], ids=["cut", "recomputed"]
)
@pytest.mark.parametrize("papers", ["in trust", "in the catalog"])
def test_audit_finds_a_log_that_was_cut_or_recomputed(
    made: Catalogued, run: Run, change: Callable[[list[list[Any]]], list[list[Any]]], result: str, papers: str
) -> None:
    """By the promotion, whether it still lies in trust/ or only in the catalog."""
    if papers == "in the catalog":
        (made.layout.channels / "prod.dsse").unlink()
    rewrite(made, change)
    said = run(made.root, "audit", "--json", code=6).json
    assert [one["breaks"] for one in said["logs"]] == [[]]
    assert [one["result"] for one in said["promotions"]] == [result]
    assert "signed by alice, bob" in said["faults"][0]


def test_check_tells_of_a_recomputed_log(made: Catalogued, run: Run) -> None:
    rewrite(made, _with_another_actor)
    said = run(made.root, "catalog", "check", code=6)
    assert "it was written anew from there or before" in said.err
    assert run(made.root, "catalog", "check", "--json", code=6).json["ok"] is False


def test_promotion_that_nobody_trusted_signed_proves_nothing(made: Catalogued, run: Run) -> None:
    (made.layout.channels / "prod.dsse").unlink()
    lie = replace(head_of(made), length=3)
    with closing(sqlite3.connect(made.layout.catalog)) as connection:
        assert connection.execute("SELECT count(*) FROM attestations").fetchone()[0]
    made.factory.promoted["dev"] = {}
    made.factory.promote(made.factory.promotion(channel="dev", number=3, log=lie), "mallory")
    said = run(made.root, "audit")
    assert "signed by nobody whom the policy here trusts" in said.err


def test_promotion_of_another_clone_is_told_of(made: Catalogued, run: Run) -> None:
    promote(made, CatalogHead("ab" * 16, 7, made.digests["web"]), "alice", "bob")
    said = run(made.root, "audit")
    assert f"signs the log of a catalog that is not here ({'ab' * 16})" in said.err


def test_audit_without_a_policy_says_that_nothing_is_proven(made: Catalogued, run: Run) -> None:
    made.layout.policy.unlink()
    assert "nobody's signature counts" in run(made.root, "audit").err
    made.layout.policy.write_text("version = ")
    assert "is not to be read" in run(made.root, "audit").err


def test_check_of_a_whole_catalog_says_so(made: Catalogued, run: Run) -> None:
    assert "nothing is wrong" in run(made.root, "catalog", "check").err
    document = run(made.root, "catalog", "check", "--json").json
    assert (document["ok"], document["problems"]) == (True, [])


def test_compliance_team_merges_two_factories_and_asks(made: Catalogued, tmp_path: Path, run: Run) -> None:
    other = catalogued.build(tmp_path / "other")
    files = [str(tmp_path / "shop.jsonl.gz"), str(tmp_path / "search.jsonl")]
    run(made.root, "catalog", "export", "--to", files[0], "--name", "shop")
    run(other.root, "audit")
    run(other.root, "catalog", "export", "--to", files[1], "--name", "search")
    team = tmp_path / "team"
    team.mkdir()
    said = run(team, "catalog", "import", *files, "--json").json["files"]
    assert [one["name"] for one in said] == ["shop", "search"]
    assert said[1]["added"]["image"] == 0  # the same digests
    assert "nothing is wrong" in run(team, "catalog", "check").err
    listed = run(team, "images", "--json").json["images"]
    assert {name for one in listed for name in one["sources"]} >= {"shop", "search"}
    assert "shop" in {one["source"] for one in run(team, "audit", "--json").json["events"]}
    assert "i-1" in run(team, "where", "openssl < 3.0.15").out
    (team / "trust").mkdir()
    (team / "trust/policy.toml").write_bytes(made.factory.own_policy.read_bytes())
    assert "the log of shop" in run(team, "audit").err
    assert "promotions prove the first" in run(team, "audit").err
    again = run(team, "catalog", "import", *files)
    assert again.err.count("nothing is new") == 2


def test_import_of_a_bad_file_keeps_those_before_it(made: Catalogued, tmp_path: Path, run: Run) -> None:
    good, bad, team = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "team"
    team.mkdir()
    run(made.root, "catalog", "export", "--to", str(good), "--name", "shop")
    bad.write_text(good.read_text().replace('"kind":"run-end"', '"kind":"run-and"', 1))
    number = next(n for n, line in enumerate(bad.read_text().splitlines(), 1) if "run-and" in line)
    said = run(team, "catalog", "import", str(good), str(bad), code=3)
    assert f"{bad}:{number}" in said.err
    assert "imported" in said.err
    assert "is no export" in run(team, "catalog", "import", str(made.layout.policy), code=3).err
    assert "there is no file" in run(team, "catalog", "import", str(tmp_path / "none"), code=2).err
    assert "for one file" in run(team, "catalog", "import", str(good), str(good), "--name", "x", code=2).err


def test_file_that_is_no_export_begins_no_catalog(tmp_path: Path, run: Run) -> None:
    (tmp_path / "x").write_text("hello")
    run(tmp_path, "catalog", "import", str(tmp_path / "x"), code=3)
    assert not (tmp_path / ".factory").exists()


def test_export_to_a_pipe_is_that_to_a_file(made: Catalogued, tmp_path: Path, run: Run) -> None:
    target = tmp_path / "e.jsonl"
    run(made.root, "catalog", "export", "--to", str(target))
    assert run(made.root, "catalog", "export").out == target.read_text()
    assert "there already" in run(made.root, "catalog", "export", "--to", str(target), code=2).err
    run(made.root, "catalog", "export", "--to", str(target), "--force")
    refused = run(made.root, "catalog", "export", "--to", str(made.layout.catalog), "--force", code=2)
    assert "there already" in refused.err


def test_backup_put_back_goes_on(made: Catalogued, tmp_path: Path, run: Run) -> None:
    said = run(made.root, "catalog", "backup", "--json").json
    backup = Path(said["path"])
    assert backup.parent == made.layout.state / "backups"
    for path in made.layout.state.glob("catalog.db*"):
        path.unlink()
    backup.rename(made.layout.catalog)
    assert "nothing is wrong" in run(made.root, "catalog", "check").err
    with Catalog.open(made.layout.catalog) as catalog:
        catalogued.put(catalog, made.factory, made.factory.locked("web"), 20, catalogued.NEW, server="new")
    assert "nothing is wrong" in run(made.root, "catalog", "check").err
    assert run(made.root, "audit", "--json").json["ok"]


def test_backup_of_before_shows_the_promotions_since(made: Catalogued, tmp_path: Path, run: Run) -> None:
    target = tmp_path / "b.db"
    run(made.root, "catalog", "backup", "--to", str(target))
    with made.catalog() as catalog:
        catalogued.put(catalog, made.factory, made.factory.locked("web"), 20, catalogued.NEW, server="new")
    promote(made, head_of(made), "alice", "bob")
    for path in made.layout.state.glob("catalog.db*"):
        path.unlink()
    target.rename(made.layout.catalog)
    for path in made.layout.tickets.iterdir():
        path.unlink()
    assert "its end was cut off" in run(made.root, "audit", code=6).err
