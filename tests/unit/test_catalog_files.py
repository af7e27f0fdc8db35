"""The catalog as files: what one exports another has, whatever is in it; a change anywhere shows; nothing half done."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory.catalog import attestations, audit, chain, check, contents, events, exchange, fleets, migrations, records
from factory.catalog.backup import backup
from factory.catalog.contents import InputFile, InstalledPackage, Recorded
from factory.catalog.database import Catalog
from factory.catalog.exchange import take_over as reading
from factory.catalog.exchange.export import export
from factory.digest import Digest, of_bytes
from factory.errors import CatalogError, FactoryError, TamperedError, UsageError
from factory.model import LockedImage, Package
from factory.trust import promotions, revocations
from factory.trust.promotions import CatalogHead, Promotion
from factory.trust.revocations import Revocation
from factory.trust.signers import file as key_files

MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = key_files.signer(key_files.generate())


def sha(text: str) -> Digest:
    return of_bytes(text.encode())


def bake(catalog: Catalog, number: int, *, on: str = "base", salt: str = "", name: str = "web", **more: Any) -> None:
    """Image `number`, with its run and checks; two of the same number and `salt` have the same digest."""
    image = LockedImage(
        name, "amd64", sha(f"image {number}{salt}"), sha(f"key {number}"), sha(on), sha(f"tree {number}"),
        packages=(Package("nginx", f"1.{number}", "amd64", sha("deb")),),
        inputs={"playbook": sha(f"playbook {number}")},
        artifacts={"qcow2": sha(f"qcow2 {number}"), "aws/eu-west-1": f"ami-{number}"},
    )  # fmt: skip
    packages = [InstalledPackage("libc6", "2.36", "amd64", "glibc", "2.36")]
    packages += [InstalledPackage("nginx", f"1.{number % 2}", "amd64", "nginx", "1", sha("deb"))]
    made = Recorded(
        image, "debootstrap" if on == "base" else "image", on, "rootfs", f"run-{number}", "baked", MADE_AT.isoformat(),
        {"server": f"<{number}>"}, tuple(packages), (InputFile("playbook", "web.yml", sha(str(number))),),
        {sha(f"qcow2 {number}"): 5},
    )  # fmt: skip
    events.begin_run(catalog, f"run-{number}", "bake")
    with catalog.writing() as database:
        contents.put_bake(database.conn, replace(made, **more))
    events.add_tasks(catalog, f"run-{number}", (name, "amd64"), [events.Task("p", "t", "f:1", "2026", 0.5, "ok")])
    events.add_checks(catalog, f"run-{number}", (name, "amd64"), [events.Check("test_tls", "passed", 0.25, "ü\x1b")])
    events.end_run(catalog, f"run-{number}", 0)


def promote(catalog: Catalog, number: int) -> Promotion:
    """A promotion that signs where the log is, indexed."""
    end = chain.head(catalog.connection)
    log = CatalogHead(end.catalog, end.length, end.digest)
    said = Promotion("prod", "web/amd64", sha(f"image {number}"), number, MADE_AT, MADE_AT, log=log)
    attestations.index(catalog, [promotions.make(said, KEY)], [KEY.public])
    return said


def fill(catalog: Catalog, salt: str = "") -> None:
    """Something of everything."""
    bake(catalog, 1, salt=salt)
    bake(catalog, 2, on=f"image 1{salt}", salt=salt)
    promote(catalog, 2)
    gone = Revocation(sha("image 1"), "web", "CVE-1", at=MADE_AT, made_at=MADE_AT, number=1)
    attestations.index(catalog, [revocations.make(gone, KEY)])
    fleets.begin_rollout(catalog, fleets.Rollout("r1", "shop", sha("image 2"), MADE_AT))
    number = fleets.add_instance(catalog, fleets.Instance("shop", 1, "local", "i-1", sha("image 2"), MADE_AT, "r1"))
    fleets.end_instance(catalog, number, MADE_AT, "gone")
    fleets.end_rollout(catalog, "r1", MADE_AT, "succeeded")
    with catalog.writing() as database:
        row = {"name": "debian-12", "arch": "amd64", "digest": sha("base"), "run": "run-1", "recorded_at": "2026"}
        row["entry"] = "x"
        database.table("bases").insert(row)
        details = {"row": chain.of_row(row)}
        chain.append(database.conn, chain.Entry("locked base", "debian-12/amd64", sha("base"), details=details))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a catalog that has something of everything; not to be changed."""
    path = tmp_path_factory.mktemp("filled") / "catalog.db"
    with Catalog.open(path) as opened:
        fill(opened)
    return path


@pytest.fixture
def catalog(filled: Path, tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(copied(filled, tmp_path / "a")) as opened:
        yield opened


def copied(path: Path, folder: Path) -> Path:
    """The catalog in a file, which nobody has open, again."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(path, folder / "catalog.db"))


def empty(folder: Path) -> Catalog:
    return Catalog.open(folder / "catalog.db")


def exported(catalog: Catalog, path: Path, name: str = "one") -> Path:
    path.write_text("".join(export(catalog, name)))
    return path


def said_by(catalog: Catalog, source: str) -> list[str]:
    """What an export has of one source and of what all share, without what the importing catalog adds of its own."""
    found = []
    for line in export(catalog, "x"):
        record = json.loads(line)
        if record["kind"] == exchange.IMAGE and source in record["sources"]:
            found.append(json.dumps({**record, "sources": [source]}))
        elif record.get("source", source) == source and record["kind"] not in _OF_THE_FILE:
            found.append(line)
    return found


_OF_THE_FILE = (exchange.HEADER, exchange.END, exchange.SOURCE)


def history_of(catalog: Catalog, source: str) -> list[str]:
    """What an export has of the rows that belong to one source."""
    return [line for line in said_by(catalog, source) if "said" in json.loads(line)]


def id_of(catalog: Catalog) -> str:
    return chain.head(catalog.connection).catalog


def problems(catalog: Catalog) -> list[str]:
    """What the check of a catalog finds, its logs included."""
    logs = lambda: audit.logs(catalog.connection)  # noqa: E731
    return [str(one) for one in check.problems(catalog.connection, catalog.path, logs)]


# --- export and import


def test_import_into_an_empty_catalog_exports_the_same_lines(catalog: Catalog, tmp_path: Path) -> None:
    with empty(tmp_path) as other:
        reading.take_over(other, exported(catalog, tmp_path / "e.jsonl"))
        assert said_by(other, id_of(catalog)) == said_by(catalog, id_of(catalog))
        assert problems(other) == []


def test_export_of_the_same_catalog_is_the_same_bytes(catalog: Catalog) -> None:
    assert list(export(catalog, "x")) == list(export(catalog, "x"))


def test_export_has_lines_of_every_table(catalog: Catalog) -> None:
    kinds = {json.loads(line)["kind"] for line in export(catalog, "x")}
    tables = {row["name"] for row in catalog.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    known = {
        "sources": "source", "events": "event", "packages": "package", "package_sets": "package-set",
        "package_set_members": "package-set", "specs": "spec", "input_sets": "inputs", "input_files": "inputs",
        "images": "image", "image_sources": "image", "attestations": "attestation", "runs": "run",
        "run_ends": "run-end", "tasks": "task", "checks": "check", "bases": "base", "bakes": "bake",
        "artifacts": "bake", "locations": "bake", "channel_assignments": "assignment", "revocations": "revocation",
        "rollouts": "rollout", "rollout_ends": "rollout-end", "instances": "instance", "instance_ends": "instance-end",
        "image_accounts": "account",
    }  # fmt: skip
    left_out = {name for name in tables if name.startswith("package_search_")} | set(exchange.LEFT_OUT)
    assert set(known) | left_out == tables
    assert kinds == {*known.values(), exchange.HEADER, exchange.END} - {"account"}


def test_importing_again_adds_nothing(catalog: Catalog, tmp_path: Path) -> None:
    file = exported(catalog, tmp_path / "e.jsonl")
    with empty(tmp_path) as other:
        reading.take_over(other, file)
        before = list(export(other, "x"))
        assert not any(reading.take_over(other, file).added.values())
        assert list(export(other, "x")) == before


def test_later_export_adds_what_is_new(catalog: Catalog, tmp_path: Path) -> None:
    early = exported(catalog, tmp_path / "early.jsonl")
    with empty(tmp_path) as other:
        reading.take_over(other, early)
        bake(catalog, 3)
        added = reading.take_over(other, exported(catalog, tmp_path / "late.jsonl")).added
        assert (added["bake"], added["image"], added["event"]) == (1, 1, 4)
        assert said_by(other, id_of(catalog)) == said_by(catalog, id_of(catalog))
        assert not any(reading.take_over(other, early).added.values())
        assert problems(other) == []


def test_same_digest_of_two_factories_stands_once_and_both_are_told(catalog: Catalog, tmp_path: Path) -> None:
    with empty(tmp_path / "b") as second, empty(tmp_path / "c") as merged:
        bake(second, 1, name="www", facts={"other": 1})
        for number, one in enumerate((catalog, second)):
            reading.take_over(merged, exported(one, tmp_path / f"{number}.jsonl", f"factory {number}"))
        sql = "SELECT count(*) AS n FROM image_sources JOIN images ON images.id = image WHERE name = 'web'"
        assert merged.query(sql) == [{"n": 3}]
        assert merged.query("SELECT name FROM image_accounts") == [{"name": "www"}]
        names = [row["name"] for row in merged.query("SELECT name FROM sources ORDER BY id")]
        assert names == ["here", "factory 0", "factory 1"]
        assert problems(merged) == []
        for one in (catalog, second):
            assert history_of(merged, id_of(one)) == history_of(one, id_of(one))


def test_merged_of_merged_keeps_sources_apart_and_once(catalog: Catalog, tmp_path: Path) -> None:
    with empty(tmp_path / "b") as second, empty(tmp_path / "c") as third:
        bake(second, 7, salt="second")
        reading.take_over(second, exported(catalog, tmp_path / "a.jsonl", "a"))
        reading.take_over(third, exported(second, tmp_path / "b.jsonl", "b"))
        reading.take_over(third, exported(catalog, tmp_path / "a.jsonl", "a"))
        assert [row["name"] for row in third.query("SELECT name FROM sources ORDER BY id")] == ["here", "b", "a"]
        assert history_of(third, id_of(catalog)) == history_of(catalog, id_of(catalog))
        assert problems(third) == []
        back = reading.take_over(catalog, exported(third, tmp_path / "c.jsonl", "c"))
        assert (back.added["source"], back.added["bake"], back.added["image"]) == (2, 1, 1)
        assert problems(catalog) == []


def test_parent_that_one_calls_otherwise_keeps_both_accounts(tmp_path: Path) -> None:
    with empty(tmp_path / "a") as first, empty(tmp_path / "b") as second, empty(tmp_path / "c") as merged:
        bake(first, 2, on="image 1")  # knows image 1 only as its parent, by the name it has in its images.toml
        bake(second, 1, name="hard")
        for number, one in enumerate((first, second)):
            reading.take_over(merged, exported(one, tmp_path / f"{number}.jsonl"))
        assert {"name": "hard"} in merged.query("SELECT name FROM images")
        assert [row["name"] for row in merged.query("SELECT name FROM image_accounts")] == ["image 1"]
        assert problems(merged) == []


def test_restored_older_catalog_is_told_by_what_others_imported(catalog: Catalog, tmp_path: Path) -> None:
    backup(catalog, tmp_path / "old.db")
    bake(catalog, 3)
    late = exported(catalog, tmp_path / "late.jsonl")
    with Catalog.open(tmp_path / "old.db") as old, pytest.raises(TamperedError, match="an older backup"):
        reading.take_over(old, late)


def test_source_that_tells_another_past_is_refused_with_the_event(catalog: Catalog, tmp_path: Path) -> None:
    with empty(tmp_path / "m") as merged:
        copy = tmp_path / "copy.db"
        backup(catalog, copy)
        with Catalog.open(copy) as forked:
            length = chain.head(catalog.connection).length
            bake(catalog, 3)
            bake(forked, 4)
            reading.take_over(merged, exported(catalog, tmp_path / "1.jsonl"))
            before = list(export(merged, "x"))
            with pytest.raises(TamperedError, match=f"event {length + 1} differs"):
                reading.take_over(merged, exported(forked, tmp_path / "2.jsonl"))
            assert list(export(merged, "x")) == before


@pytest.mark.parametrize("seed", range(6))
def test_damaged_line_is_refused_with_its_number_and_nothing_is_kept(
    catalog: Catalog, tmp_path: Path, seed: int
) -> None:
    """Also where the digest at the end was made to fit."""
    chosen = random.Random(seed)
    lines = list(export(catalog, "x"))[:-1]
    at = chosen.randrange(len(lines))
    broken = lines[at].replace('"', "'", 1) if seed % 2 else "{}\n"
    lines[at] = broken
    text = "".join(lines)
    end = {"kind": "end", "lines": len(lines), "digest": of_bytes(text.encode())}
    file = tmp_path / "e.jsonl"
    file.write_text(text + json.dumps(end) + "\n")
    with empty(tmp_path) as other:
        before = list(export(other, "x"))
        with pytest.raises(CatalogError) as caught:
            reading.take_over(other, file)
        assert caught.value.where == f"{file}:{at + 1}"
        assert list(export(other, "x")) == before


def _values(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every single value in a JSON document."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _values(value[key], (*path, key))
    else:
        yield path


FREE = {("catalog", "catalog"), ("source", "name"), ("source", "added_at"), ("attestation", "indexed_at")}
"""(kind, field) that nothing has a digest of: how an importer names things, and when it did."""
UNPROVEN = {"task", "account"}
"""Kinds that no event has a digest of: what tasks did; docs/catalog.md says so."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_value_of_an_export_is_refused_or_found(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], data: st.DataObject
) -> None:
    """Whoever changes one value and makes the digest at the end fit is found by the import, or by the check."""
    folder = tmp_path_factory.mktemp("x")
    parsed = [json.loads(line) for line in lines]
    places = [
        (number, path)
        for number, record in enumerate(parsed)
        for path in _values(record)
        if record["kind"] not in UNPROVEN and (record["kind"], path[0]) not in FREE and path != ("kind",)
        if path != ("recorded_at",) or record["image_kind"] == "image"  # a base was recorded when it was first seen
    ]
    number, path = data.draw(st.sampled_from(places))
    holder = parsed[number]
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    new: Any = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, (int, float)) else f"{old}x"
    holder[path[-1]] = new
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in parsed)
    file = folder / "e.jsonl"
    file.write_text(text + json.dumps({"kind": "end", "lines": len(parsed), "digest": of_bytes(text.encode())}) + "\n")
    with empty(folder) as other:
        try:
            reading.take_over(other, file)
        except FactoryError:
            return
        assert problems(other), (parsed[number]["kind"], path, old)


@pytest.fixture(scope="module")
def lines(filled: Path) -> list[str]:
    """An export without its end."""
    with Catalog.read(filled) as one:
        return list(export(one, "x"))[:-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "cut|no record|not as an export"),
        (lambda text: text[:-1], "middle of a line"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-1]), "ends before its end"),
        (lambda text: text + "{}\n", "after the end"),
        (lambda text: text.replace('"format":1', '"format":2'), "is of format 2"),
        (lambda text: text.replace('"format":1', '"format":"1"'), "is of format"),
        (lambda text: text.replace("bake", "cake", 1), "breaks"),
        (lambda text: "", "no export"),
        (lambda text: "hello\n", "not as an export|no export"),
        (lambda text: "[]\n", "no record|no export"),
    ],
)
def test_damaged_export_is_refused(catalog: Catalog, tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text(change("".join(export(catalog, "x"))))
    with empty(tmp_path) as other:
        before = list(export(other, "x"))
        with pytest.raises(FactoryError, match=said) as caught:
            reading.take_over(other, file)
        assert str(file) in str(caught.value.where)
        assert list(export(other, "x")) == before


def test_packed_export_is_read_and_a_cut_one_refused(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl.gz"
    raw = gzip.compress("".join(export(catalog, "x")).encode())
    with empty(tmp_path) as other:
        file.write_bytes(raw[: len(raw) // 2])
        with pytest.raises(CatalogError, match="cannot be read"):
            reading.take_over(other, file)
        file.write_bytes(raw)
        assert reading.take_over(other, file).added["bake"] == 2


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["bake", "promote", "import"]), st.integers(0, 2), st.integers(1, 4)), max_size=8
)


@settings(max_examples=6, deadline=None)
@given(steps=ACTIONS)
def test_whatever_factories_did_their_merger_tells_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Three catalogs that bake, promote and import each other in any order; a fourth that imports all, twice."""
    folder = tmp_path_factory.mktemp("merge")
    catalogs = [empty(folder / str(number)) for number in range(4)]
    try:
        for step, (what, who, number) in enumerate(steps):
            if what == "bake":
                known = "SELECT 1 FROM runs WHERE id = ? AND source = 1"
                if not catalogs[who].query(known, [f"run-{number}"]):
                    bake(catalogs[who], number, name=f"web{who}")
            elif what == "promote":
                promote(catalogs[who], step + 1)
            else:
                other = catalogs[(who + number) % 3]
                if other is not catalogs[who]:
                    reading.take_over(catalogs[who], exported(other, folder / f"{step}.jsonl", str(who)))
        for again in range(2):
            for number, one in enumerate(catalogs[:3]):
                done = reading.take_over(catalogs[3], exported(one, folder / f"x{number}.jsonl", str(number)))
                assert not again or not any(done.added.values())
        for one in catalogs:
            assert problems(one) == []
        for one in catalogs[:3]:
            assert history_of(one, id_of(one)) == history_of(catalogs[3], id_of(one))
    finally:
        for one in catalogs:
            one.close()


# --- the log


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=5, max_size=5),
    seq=st.integers(1, 2**53 - 1),
    flag=st.booleans(),
)
def test_hash_of_an_event_is_that_of_its_rfc8785_json(texts: list[str], seq: int, flag: bool) -> None:
    at, actor, action, subject, details = texts
    event = chain.Event(seq, at, actor, flag, action, subject, sha("i"), None, None, details, sha("p"))
    plain = {**vars(event), "catalog": "c"}
    assert event.hash("c") == of_bytes(rfc8785.dumps(plain))


def test_records_are_read_back_as_one_by_one(catalog: Catalog) -> None:
    found = {event: digest for event, digest, _, _ in records.digests_of(catalog.connection, chain.OWN)}
    bakes = catalog.query("SELECT id, event FROM bakes")
    assert {row["event"]: contents.digest_of(catalog.connection, row["id"]) for row in bakes} == found
    assert len(found) == 2


UNTOLD = {"at": "x", "actor": "x", "action": "x", "subject": "x", "details": '{"x": 1}', "authenticated": 1}


def unguarded(path: Path) -> sqlite3.Connection:
    """The catalog in a file without the triggers that guard it."""
    connection = sqlite3.connect(path, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    return connection


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_event_changed_dropped_put_in_or_moved_is_found(
    tmp_path_factory: pytest.TempPathFactory, filled: Path, data: st.DataObject
) -> None:
    """All events up to the end that the last promotion signed: recomputing the chain does not help either."""
    folder = tmp_path_factory.mktemp("log")
    with Catalog.open(copied(filled, folder)) as catalog:
        length = chain.head(catalog.connection).length
        said = promote(catalog, 9).log
        assert said is not None
        path = catalog.path
    seq = data.draw(st.integers(1, length), label="seq")
    what = data.draw(st.sampled_from(["change", "drop", "insert", "swap", "cut"]), label="what")
    recompute = data.draw(st.booleans(), label="recompute")
    with closing(unguarded(path)) as connection:
        rows = [list(row) for row in connection.execute(f"SELECT source, {chain.COLUMNS} FROM events ORDER BY seq")]
        if what == "change":
            column = data.draw(st.sampled_from(sorted(UNTOLD)), label="column")
            index = ["source", *chain.COLUMNS.split(", ")].index(column)
            value = UNTOLD[column]
            rows[seq - 1][index] = 1 - rows[seq - 1][index] if column == "authenticated" else value
        elif what == "drop":
            del rows[seq - 1]
        elif what == "insert":
            rows.insert(seq - 1, [*rows[seq - 1][:6], "x", *rows[seq - 1][7:]])
        elif what == "swap":
            other = seq % length
            rows[seq - 1], rows[other] = rows[other], rows[seq - 1]
        else:
            del rows[seq - 1 :]
        if what != "cut" and (recompute or what != "change"):
            rows = _renumbered(rows, said.catalog, recompute=recompute)
        connection.execute("DELETE FROM events")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    with Catalog.read(path) as catalog:
        (log,) = audit.logs(catalog.connection, {said.catalog: [said.length]})
        assert log.breaks or log.length < said.length or log.ends.get(said.length) != said.digest


def _renumbered(rows: list[list[Any]], catalog: str, *, recompute: bool) -> list[list[Any]]:
    """The rows numbered from 1 again, and where `recompute`, each with the hash of the one before it."""
    last = chain.START
    for seq, row in enumerate(rows, 1):
        row[1] = seq
        if recompute:
            row[11] = last
            last = bytes.fromhex(chain.event_of(tuple(row[1:])).hash(catalog)[7:])
    return rows


def test_break_is_told_with_where_and_what(catalog: Catalog, filled: Path, tmp_path: Path) -> None:
    path = copied(filled, tmp_path)
    with closing(unguarded(path)) as connection:
        connection.execute("UPDATE events SET actor = 'mallory' WHERE seq = 5")
        connection.execute("DELETE FROM events WHERE seq = 9")
    with Catalog.read(path) as tampered:
        (log,) = audit.logs(tampered.connection)
        assert [one.seq for one in log.breaks] == [6, 10]
        before, after = (list(chain.events(one.connection))[4] for one in (tampered, catalog))
        assert log.breaks[0].expected == before.hash(log.catalog)
        assert log.breaks[0].found == after.hash(log.catalog)
        assert (log.breaks[1].expected, log.breaks[1].found) == ("event 9", "event 10")


# --- the check

TAMPERING = {
    "UPDATE bakes SET run = 'x' WHERE id = 1": "bake of event",
    "UPDATE bakes SET baked_at = 'x' WHERE id = 2": "bake of event",
    "UPDATE bakes SET added = NULL WHERE id = 2": "bake of event",
    "UPDATE images SET builder = 'x' WHERE name = 'web'": "bake of event",
    "UPDATE images SET package_set = (SELECT max(id) FROM package_sets) WHERE recorded_at IS NOT NULL": "bake of event",
    "UPDATE images SET name = 'x' WHERE name = 'web'": "no bake says",
    "UPDATE images SET arch = 'x' WHERE kind <> 'image'": "no bake says",
    "UPDATE artifacts SET size_bytes = 6": "bake of event",
    "DELETE FROM locations": "bake of event",
    "DELETE FROM bakes WHERE id = 2": "is not there",
    "INSERT INTO bakes SELECT 99, source, event, image, name, arch, parent, bake_key, run, kind, baked_at, added,"
    " inputs, pins FROM bakes WHERE id = 1": "more than one bake",
    "UPDATE bakes SET event = 1 WHERE id = 1": "does not tell of the bake",
    "UPDATE packages SET version = '9' WHERE name = 'libc6'": "package set",
    "DELETE FROM package_set_members": "package set",
    "UPDATE specs SET facts = '{}'": "what images.toml said",
    "UPDATE input_files SET path = 'x'": "the inputs",
    "UPDATE attestations SET number = 7 WHERE id = 1": "the envelope",
    "UPDATE attestations SET envelope = x'00' WHERE id = 1": "cannot be read",
    "DELETE FROM attestations WHERE id = 1": "tells of, is not there",
    "UPDATE channel_assignments SET digest = zeroblob(32)": "row 1 of channel_assignments",
    "DELETE FROM channel_assignments": "has no row in channel_assignments",
    "UPDATE revocations SET reason = 'x'": "row 1 of revocations",
    "DELETE FROM revocations": "has no row in revocations",
    "UPDATE runs SET command = 'x' WHERE id = 'run-1'": "the run run-1 as it stands",
    "INSERT INTO runs VALUES (1, 'r', '2026', 'x')": "no event tells of the run r",
    "DELETE FROM run_ends": "the end of the run that",
    "UPDATE run_ends SET exit_code = 4": "the end of the run run-1",
    "UPDATE checks SET outcome = 'failed'": "the checks of web/amd64",
    "DELETE FROM checks WHERE id = 1": "the checks of web/amd64",
    "INSERT INTO checks SELECT 99, run, image, arch, test, outcome, duration_s, message, exempted, source FROM checks"
    " WHERE id = 1": "results of checks",
    "UPDATE bases SET entry = 'y'": "the base debian-12 as",
    "DELETE FROM rollouts": "the rollout that an event tells of",
    "UPDATE rollout_ends SET state = 'failed'": "the end of the rollout r1",
    "UPDATE instances SET digest = zeroblob(32)": "the instance i-1",
    "DELETE FROM instance_ends": "the end of the instance that",
    "UPDATE package_set_counts SET images = 7": "is counted",
    "DELETE FROM package_set_counts": "is counted otherwise",
    "UPDATE packages SET purl = 'pkg:deb/debian/evil@1' WHERE id = 2": "package 2 (",
    "UPDATE packages SET type = 'rpm' WHERE id = 2": "another type or purl",
    "DELETE FROM edges": "no edge says so",
    "INSERT INTO edges SELECT parent, child FROM edges WHERE child = (SELECT max(child) FROM edges)": "descend from",
    "DELETE FROM image_sources": "no source knows",
    "DELETE FROM images WHERE kind <> 'image'": "references",
    "INSERT INTO package_search(package_search, rowid, name, source) SELECT 'delete', id, name, source FROM packages"
    " WHERE id = 1": "the index do not agree",
    "DROP INDEX edges_of_parent": "the index edges_of_parent is missing",
    "DROP VIEW image_list": "the view image_list is missing",
    "CREATE TABLE novel (a)": "not one of ours",
    "DROP TABLE instance_ends": "the table instance_ends is missing",
    "ALTER TABLE instances ADD COLUMN novel TEXT": "the table instances is not as it was made",
}


@pytest.mark.parametrize(("sql", "said"), TAMPERING.items(), ids=range(len(TAMPERING)))
def test_whatever_is_changed_by_hand_is_found(filled: Path, tmp_path: Path, sql: str, said: str) -> None:
    path = copied(filled, tmp_path)
    with closing(unguarded(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)
    before = path.read_bytes()
    with Catalog.read(path) as tampered:
        found = [one for one in problems(tampered) if "trigger" not in one]
    assert any(said in one for one in found), found
    assert path.read_bytes() == before


def test_missing_and_added_triggers_are_found(filled: Path, tmp_path: Path) -> None:
    path = copied(filled, tmp_path)
    with closing(unguarded(path)) as connection:
        connection.execute("CREATE TRIGGER evil AFTER INSERT ON runs BEGIN SELECT 1; END")
    with Catalog.read(path) as tampered:
        found = problems(tampered)
    assert "schema: the trigger events_no_update is missing" in found
    assert "schema: there is a trigger evil, which is not one of ours" in found


def test_tables_that_litestream_makes_are_no_problem(filled: Path, tmp_path: Path) -> None:
    path = copied(filled, tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE _litestream_lock (id INTEGER)")
        connection.execute("CREATE TABLE xlitestream_lock (id INTEGER)")
    with Catalog.read(path) as catalog:
        assert problems(catalog) == ["schema: there is a table xlitestream_lock, which is not one of ours"]


def test_whole_catalog_has_no_problem(catalog: Catalog) -> None:
    assert problems(catalog) == []


def test_migrated_catalog_has_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "VERSION", 2)
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:2])
        with Catalog.open(tmp_path / "catalog.db") as old, old.writing() as database:
            database.conn.execute("INSERT INTO runs VALUES ('r', '2026', 'x')")
            database.conn.execute("INSERT INTO run_ends VALUES ('r', '2026', 0)")
            database.conn.execute("INSERT INTO checks VALUES (1, 'r', 'web', 'amd64', 't', 'passed', 0, '', 0)")
    with Catalog.open(tmp_path / "catalog.db") as catalog:
        assert problems(catalog) == []


# --- backups


def test_backup_goes_on_where_the_catalog_was(catalog: Catalog, tmp_path: Path) -> None:
    made = backup(catalog, tmp_path / "b.db")
    (log,) = made.logs
    assert (log.length, log.head) == (chain.head(catalog.connection).length, chain.head(catalog.connection).digest)
    restored = tmp_path / "restored" / "catalog.db"
    restored.parent.mkdir()
    restored.write_bytes(made.path.read_bytes())
    with Catalog.open(restored) as again:
        assert again.query("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        bake(again, 3)
        promote(again, 3)
        assert problems(again) == []
        assert chain.head(again.connection).length > log.length


def test_backup_never_replaces_unless_told_to(catalog: Catalog, tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    target.write_text("precious")
    with pytest.raises(UsageError, match="there already"):
        backup(catalog, target)
    assert target.read_text() == "precious"
    backup(catalog, target, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.db"]
    with pytest.raises(UsageError, match="the catalog itself"):
        backup(catalog, catalog.path, force=True)


def test_backup_of_a_broken_log_is_none(filled: Path, tmp_path: Path) -> None:
    path = copied(filled, tmp_path / "x")
    with closing(unguarded(path)) as connection:
        connection.execute("UPDATE events SET actor = 'mallory' WHERE seq = 5")
    with Catalog.read(path) as tampered, pytest.raises(TamperedError, match="event 6"):
        backup(tampered, tmp_path / "b.db")
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == []


@pytest.mark.parametrize(
    ("sql", "kind", "said"),
    [
        ("DROP TABLE instance_ends", CatalogError, "the table instance_ends is missing"),
        ("DROP TRIGGER runs_no_delete", CatalogError, "the trigger runs_no_delete is missing"),
        ("UPDATE images SET name = CAST(x'ff' AS TEXT) WHERE kind <> 'image'", CatalogError, "decode"),
        ("UPDATE images SET digest = x'010203' WHERE kind <> 'image'", TamperedError, "the bake of event 3"),
        ("UPDATE specs SET facts = '{}'", TamperedError, "what images.toml said"),
    ],
)
def test_backup_of_what_the_check_refuses_is_none_and_leaves_the_old_one(
    filled: Path, tmp_path: Path, sql: str, kind: type[FactoryError], said: str
) -> None:
    path = copied(filled, tmp_path / "x")
    target = tmp_path / "b.db"
    target.write_text("precious")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%no_update'"
        guards = connection.execute(triggers).fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(sql)
        for _, guard in guards:
            if sql != f"DROP TABLE {guard.split()[6]}":
                connection.execute(guard)
    with Catalog.read(path) as broken, pytest.raises(kind, match=said):
        backup(broken, target, force=True)
    assert target.read_text() == "precious"
    assert [item.name for item in tmp_path.iterdir() if item.is_file()] == ["b.db"]


def test_backup_takes_away_what_a_killed_one_left(catalog: Catalog, tmp_path: Path) -> None:
    left = tmp_path / ".b.db.99999999.tmp"
    left.touch()
    backup(catalog, tmp_path / "b.db")
    assert not left.exists()
