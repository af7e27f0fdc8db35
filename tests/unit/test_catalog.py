from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import lockfile, proc
from factory.catalog import attestations, contents, events, fleet_orders, fleets, lookups, migrations, record, rollouts
from factory.catalog.clock import now
from factory.catalog.contents import InputFile, InstalledPackage
from factory.catalog.database import Catalog
from factory.catalog.migrations import sixth
from factory.catalog.pending import pending
from factory.catalog.record import BakeRecord, record_bake, recover
from factory.digest import Digest, of_bytes, of_json, packed
from factory.errors import CatalogError, LockError, StoreError
from factory.model import Layout, Lock, LockedBase, LockedImage, Package
from factory.store import Store
from factory.trust import promotions, revocations, statements
from factory.trust.dsse import Envelope
from factory.trust.promotions import Promotion
from factory.trust.revocations import Revocation
from factory.trust.signers import file as key_files

MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def bake(layout: Layout, name: str = "web", content: bytes = b"1", *, base: bytes | None = None) -> BakeRecord:
    """A record of a bake whose artifact is in the store."""
    artifact = Store(layout.store).put_bytes(name.encode() + content)
    digest, tree = of_bytes(b"raw" + name.encode() + content), of_bytes(b"tree" + content)
    return BakeRecord(
        image=LockedImage(
            name, "amd64", digest, of_bytes(b"key" + content), of_bytes(b"base"), tree,
            packages=(Package("nginx-light", "1.22.1-9", "amd64", of_bytes(b"deb")),),
            inputs={"playbook": of_bytes(content)},
            artifacts={"qcow2": artifact, "aws/eu-west-1": "ami-1"},
        ),
        base_kind="debootstrap",
        builder="rootfs",
        run="run-1",
        baked_at=now(),
        base=None if base is None else LockedBase("debian-12", "amd64", of_bytes(base)),
        facts={"vars": {"a": ["{{ x }}", 1]}},
        packages=(InstalledPackage("nginx-light", "1.22.1-9", "amd64", "nginx", "1.22.1-9", of_bytes(b"deb")),),
        inputs=(InputFile("playbook", "web.yml", of_bytes(content)), InputFile("playbook", "roles/x", of_bytes(b"x"))),
    )  # fmt: skip


def revocation(number: int = 1) -> Envelope:
    """A signed revocation."""
    event = Revocation(
        of_bytes(b"bad"), "web", "CVE-1", at=datetime(2026, 2, 1, tzinfo=UTC), made_at=MADE_AT, number=number
    )
    return revocations.make(event, key_files.signer(key_files.generate()))


def promotion() -> Envelope:
    """A signed promotion."""
    said = Promotion("prod", "web/amd64", of_bytes(b"good"), number=1, made_at=MADE_AT, baked_at=MADE_AT)
    return promotions.make(said, key_files.signer(key_files.generate()))


def script(sql: str) -> migrations.Migration:
    """A migration that runs a script."""
    return lambda connection: migrations.run_script(connection, sql)


def lock_of(*records: BakeRecord) -> Lock:
    return lockfile.with_entries(Lock(), [entry for record in records for entry in record.entries])


def test_record_bake_writes_lock_and_catalog(layout: Layout) -> None:
    made = bake(layout, base=b"b")
    with Catalog.open(layout.catalog) as catalog:
        assert record_bake(catalog, layout, made) == lock_of(made) == lockfile.read(layout.lock)
        assert lookups.relock(catalog) == lock_of(made)
        known = lookups.image(catalog, made.image.digest)
        assert known == lookups.KnownImage(
            made.image.digest, "web", "amd64", made.image.base, "debootstrap", made.image.tree, "rootfs", made.facts,
            made.baked_at,
        )  # fmt: skip
        assert set(lookups.input_files(catalog, made.image)) == set(made.inputs)
        assert catalog.query("SELECT place, native FROM locations") == [{"place": "aws/eu-west-1", "native": "ami-1"}]
        stored = packed(made.image.artifacts["qcow2"])
        assert catalog.query("SELECT format, digest, size_bytes FROM artifacts") == [
            {"format": "qcow2", "digest": stored, "size_bytes": 4}
        ]
        assert catalog.query("SELECT source, source_version FROM image_packages") == [
            {"source": "nginx", "source_version": "1.22.1-9"}
        ]
    assert not pending(layout.catalog)


def test_record_bake_leaves_nothing_of_what_was_written_ahead(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog.open(layout.catalog) as catalog:
        record_bake(catalog, layout, bake(layout))
        assert catalog.query("SELECT * FROM intent_records") == []
        crash(catalog, layout, bake(layout, content=b"2"), "lock", monkeypatch)
        assert len(catalog.query("SELECT * FROM intent_records")) == 1
        recover(catalog, layout)
        assert catalog.query("SELECT * FROM intent_records") == []


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 5), max_size=5))
def test_digest_of_a_package_set_is_of_canonical_json(said: list[tuple[str, ...]]) -> None:
    packages = [InstalledPackage(*one) for one in said]
    plain = sorted({("deb", one.name, one.arch, one.version, one.source, one.source_version, "") for one in packages})
    assert contents.set_digest(packages) == of_json([list(one) for one in plain])


def test_record_bake_again_with_the_same_digest_adds_a_bake_only(layout: Layout) -> None:
    made = bake(layout)
    with Catalog.open(layout.catalog) as catalog:
        record_bake(catalog, layout, made)
        checked = replace(made, verified_only=True, image=replace(made.image, inputs={"checks": of_bytes(b"new")}))
        record_bake(catalog, layout, checked)
        assert lookups.relock(catalog) == lockfile.read(layout.lock) == lock_of(checked)
        assert [row["kind"] for row in catalog.query("SELECT kind FROM bakes ORDER BY id")] == ["baked", "verified"]
        assert len(catalog.query("SELECT * FROM images WHERE kind = 'image'")) == 1


def test_record_bake_without_its_artifact_records_nothing(layout: Layout) -> None:
    made = bake(layout)
    Store(layout.store).remove(made.image.artifacts["qcow2"])
    with Catalog.open(layout.catalog) as catalog, pytest.raises(StoreError, match="not in the store"):
        record_bake(catalog, layout, made)
    assert not layout.lock.exists()
    assert not pending(layout.catalog)


def test_record_bake_onto_a_damaged_lock_records_nothing(layout: Layout) -> None:
    made = bake(layout)
    layout.lock.write_text("<<<<<<< HEAD\n")
    with Catalog.open(layout.catalog) as catalog, pytest.raises(LockError):
        record_bake(catalog, layout, made)
    assert layout.lock.read_text() == "<<<<<<< HEAD\n"
    assert not pending(layout.catalog)


def test_record_bake_of_what_the_lock_cannot_say_records_nothing(layout: Layout) -> None:
    made = bake(layout)
    strange = replace(made, image=replace(made.image, packages=(Package("a b", "1", "all", Digest("")),)))
    with Catalog.open(layout.catalog) as catalog, pytest.raises(LockError):
        record_bake(catalog, layout, strange)
    assert not layout.lock.exists()
    assert not pending(layout.catalog)


def crash(catalog: Catalog, layout: Layout, made: BakeRecord, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die in record_bake when it calls lockfile.write or record._finish."""

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(*{"lock": (lockfile, "write"), "catalog": (record, "_finish")}[at], dies)
        record_bake(catalog, layout, made)


@pytest.mark.parametrize("at", ["lock", "catalog"])
@pytest.mark.parametrize("first", [True, False])
def test_recover_completes_what_a_crash_left(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, at: str, first: bool
) -> None:
    old, new = bake(layout, content=b"1", base=b"1"), bake(layout, content=b"2", base=b"2")
    with Catalog.open(layout.catalog) as catalog:
        if not first:
            record_bake(catalog, layout, old)
        crash(catalog, layout, new, at, monkeypatch)
        assert pending(layout.catalog)
        assert new.image.digest in recover(catalog, layout)[0]
        assert not pending(layout.catalog)
        assert lookups.relock(catalog) == lockfile.read(layout.lock) == lock_of(new)
        assert set(lookups.input_files(catalog, new.image)) == set(new.inputs)
        assert recover(catalog, layout) == []


@pytest.mark.parametrize("at", ["lock", "catalog"])
def test_recover_reports_once_what_is_neither_old_nor_new(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    old, new, other = (bake(layout, content=content) for content in (b"1", b"2", b"3"))
    with Catalog.open(layout.catalog) as catalog:
        record_bake(catalog, layout, old)
        crash(catalog, layout, new, at, monkeypatch)
        lockfile.write(layout.lock, lock_of(other))
        (said,) = recover(catalog, layout)
        assert "images.lock has been changed since" in said
        assert lockfile.read(layout.lock) == lock_of(other)
        assert lookups.relock(catalog) == lock_of(old)
        assert recover(catalog, layout) == []
    assert not pending(layout.catalog)


def test_recover_does_not_lock_an_image_whose_artifact_is_gone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bake(layout)
    with Catalog.open(layout.catalog) as catalog:
        crash(catalog, layout, made, "lock", monkeypatch)
        Store(layout.store).remove(made.image.artifacts["qcow2"])
        assert "not in the store" in recover(catalog, layout)[0]
        assert not layout.lock.exists()


def test_recover_leaves_other_images_of_the_lock_alone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = bake(layout, "web"), bake(layout, "app")
    with Catalog.open(layout.catalog) as catalog:
        crash(catalog, layout, made, "lock", monkeypatch)
        lockfile.write(layout.lock, lock_of(other))
        recover(catalog, layout)
    assert lockfile.read(layout.lock) == lock_of(made, other)


def test_recover_clears_away_a_half_written_lock(layout: Layout) -> None:
    (layout.root / ".images.lock.tmp").write_text("lock-ver")
    with Catalog.open(layout.catalog) as catalog:
        assert recover(catalog, layout) == []
    assert not (layout.root / ".images.lock.tmp").exists()


def test_relock_takes_the_last_record_of_each_image(layout: Layout) -> None:
    records = [bake(layout, "web", b"1", base=b"1"), bake(layout, "app"), bake(layout, "web", b"2", base=b"2")]
    with Catalog.open(layout.catalog) as catalog:
        for made in records:
            record_bake(catalog, layout, made)
        assert lookups.relock(catalog) == lock_of(*records[1:])
        assert lookups.image(catalog, of_bytes(b"unknown")) is None
        assert lookups.input_files(catalog, replace(records[0].image, bake_key=of_bytes(b"unknown"))) == []


def test_events_come_back_as_they_were_noted(layout: Layout) -> None:
    task = events.Task("play", "install ' nginx", "web.yml:3", now(), 1.5, "ok", True, "a\nb")
    check = events.Check("test_sealed", "passed", 0.25, exempted=True)
    with Catalog.open(layout.catalog) as catalog:
        events.begin_run(catalog, "r1", "factory bake")
        events.begin_run(catalog, "r2", "factory bake web")
        events.end_run(catalog, "r1", 4)
        events.add_tasks(catalog, "r1", ("web", "amd64"), [task, replace(task, outcome="failed", changed=False)])
        events.add_tasks(catalog, "r1", ("app", "amd64"), [task])
        events.add_tasks(catalog, "r1", ("none", "amd64"), [])
        events.add_checks(catalog, "r2", ("web", "amd64"), [check])
        assert [(run.id, run.exit_code) for run in events.runs(catalog)] == [("r2", None), ("r1", 4)]
        assert len(events.tasks(catalog, "r1")) == 3
        assert events.tasks(catalog, "r1", "app") == [("app", "amd64", task)]
        assert events.tasks(catalog, "r1", "web")[1][2].changed is False
        assert events.checks(catalog, "r2") == [("web", "amd64", check)]
        assert events.checks(catalog, "r1") == []


def test_every_table_refuses_to_forget(layout: Layout) -> None:
    made = bake(layout, base=b"b")
    with Catalog.open(layout.catalog) as catalog:
        events.begin_run(catalog, "r", "x")
        events.end_run(catalog, "r", 0)
        events.add_tasks(catalog, "r", ("web", "amd64"), [events.Task("p", "t", "f:1", now(), 0.0, "ok")])
        events.add_checks(catalog, "r", ("web", "amd64"), [events.Check("t", "passed")])
        record_bake(catalog, layout, made)
        attestations.index(catalog, [revocation(), promotion()])
        fleets.begin_rollout(catalog, fleets.Rollout("r1", "web", made.image.digest, MADE_AT))
        launched = fleets.Instance("web", 1, "local", "web-1", made.image.digest, MADE_AT, rollout="r1")
        fleets.end_instance(catalog, fleets.add_instance(catalog, launched), MADE_AT, "retired")
        fleets.end_rollout(catalog, "r1", MADE_AT, "succeeded")
        fence = rollouts.take_lease(catalog, "web", {"pid": 1}, lambda _: True)
        rollouts.begin(catalog, fence, rollouts.Begun("r2", "web", None, made.image.digest, "{}", "{}"))
        known = rollouts.last(catalog, "web")
        assert known is not None
        rollouts.order(catalog, known, "pause")
        rollouts.finish(
            catalog, {rollouts.keep(catalog, fence, known, rollouts.Step("{}", 1, actions=("{}",)))[0]: None}
        )
        fleet_orders.put(catalog, fence, fleet_orders.Order("web", "destroy"))
        rollouts.end_lease(catalog, "web", fence)
        with catalog.writing() as database:
            named = {"kind": "image", "name": "www", "arch": "amd64", "recorded_at": now()}
            database.table("image_accounts").insert({"image": 1, "source": 1, **named})
    with closing(sqlite3.connect(layout.catalog)) as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'package_search%'"
        tables = {row[0] for row in connection.execute(names)} - {"package_set_counts", "intent_records"}
        assert len(tables) == 37
        for table in sorted(tables):
            column = connection.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchone()[0]
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] > 0, table
            for sql in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    connection.execute(sql)
            if table not in _TAKE_NO_OTHER:
                with pytest.raises(sqlite3.IntegrityError, match=r"append-only|events of a source"):
                    connection.execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1")


_TAKE_NO_OTHER = ("edges", "image_sources", "package_set_members")
"""Tables whose whole row is their key: a row can only be replaced by itself."""


def test_every_key_of_history_is_guarded_against_replace(layout: Layout) -> None:
    with Catalog.open(layout.catalog) as catalog:
        found: dict[str, set[str]] = {}
        for row in catalog.query("SELECT name, wr FROM pragma_table_list WHERE type = 'table' AND schema = 'main'"):
            if not row["name"].startswith(("sqlite_", "package_search")):
                found[row["name"]] = set() if row["wr"] else {"rowid"}
        for table, keys in found.items():
            whole = {row["name"] for row in catalog.query("SELECT name FROM pragma_table_info(?)", [table])}
            for index in catalog.query("SELECT name FROM pragma_index_list(?) WHERE [unique]", [table]):
                sql = "SELECT ifnull(name, 'sha256') AS name FROM pragma_index_xinfo(?) WHERE [key] ORDER BY seqno"
                columns = [row["name"] for row in catalog.query(sql, [index["name"]])]
                if set(columns) != whole:
                    keys.add(" ".join(columns))
    derived = {"package_set_counts", "intent_records", "events"}  # or, of events, kept in order
    assert {table: keys for table, keys in found.items() if keys and table not in derived} == {
        table: set(keys) for table, keys in sixth.KEYS.items()
    }


def test_lineage_refuses_a_cycle(layout: Layout) -> None:
    with Catalog.open(layout.catalog) as catalog:
        for number, below in enumerate([b"base", b"one", b"two"]):
            made = bake(layout, content=b"%d" % number)
            image = replace(made.image, digest=of_bytes([b"one", b"two", b"three"][number]), base=of_bytes(below))
            record_bake(catalog, layout, replace(made, image=image))
        round_again = replace(made.image, digest=of_bytes(b"one"), base=of_bytes(b"three"))
        with pytest.raises(CatalogError, match="cannot descend from itself"):
            record_bake(catalog, layout, replace(made, image=round_again))


def test_attestations_indexed_twice_stand_there_once(layout: Layout) -> None:
    first, second = revocation(1), revocation(2)
    with Catalog.open(layout.catalog) as catalog:
        assert attestations.index(catalog, [first, first]) == 1
        assert attestations.index(catalog, [first, second]) == 1
        found = attestations.of_image(catalog, of_bytes(b"bad"))
        assert [row.envelope for row in found] == [first.raw, second.raw]
        assert [row.made_at for row in found] == ["2026-01-01T00:00:00Z"] * 2
        assert found[0].signers == (first.signatures[0].keyid,)
        assert attestations.highest(catalog, [statements.REVOCATION, statements.KEY_REVOCATION]) == 2
        assert attestations.highest(catalog, [statements.PROMOTION], "prod: web/amd64") == 0


def test_attestation_that_is_not_understood_is_not_indexed(layout: Layout) -> None:
    with Catalog.open(layout.catalog) as catalog:
        odd = (replace(revocation(3), payload=b"{}"), replace(revocation(4), payload_type="text/plain"))
        assert attestations.index(catalog, [revocation(), *odd]) == 1
        assert [row["number"] for row in catalog.query("SELECT number FROM attestations")] == [1]


def test_catalog_of_the_first_version_keeps_what_it_holds(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "VERSION", 1)
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        with Catalog.open(layout.catalog) as catalog, catalog.writing() as database:
            database.table("runs").insert({"id": "r", "started_at": now(), "command": "x"})
            for number in (1, 2):
                intent = {"id": number, "run": "r", "name": "web", "arch": "amd64", "began_at": now()}
                database.table("intents").insert({**intent, "old": f"old {number}", "record": "{}"})
            end = {"intent": 1, "ended_at": now(), "outcome": "done", "message": ""}
            database.table("intent_ends").insert(end)
    with Catalog.open(layout.catalog) as catalog:
        assert [run.id for run in events.runs(catalog)] == ["r"]
        assert attestations.index(catalog, [revocation()]) == 1
        assert catalog.query("SELECT * FROM intent_records") == [{"intent": 2, "old": "old 2", "record": "{}"}]
        assert [row["id"] for row in catalog.query("SELECT id FROM open_intents")] == [2]
        assert len(catalog.query("SELECT id FROM intents")) == 2


def test_writing_that_raises_writes_nothing(layout: Layout) -> None:
    with Catalog.open(layout.catalog) as catalog:
        with pytest.raises(RuntimeError), catalog.writing() as database:  # noqa: PT012
            database.table("runs").insert({"id": "r", "started_at": now(), "command": "x"})
            raise RuntimeError
        events.begin_run(catalog, "s", "x")
        assert [run.id for run in events.runs(catalog)] == ["s"]


def test_writing_has_the_right_to_write_before_its_first_write(layout: Layout) -> None:
    with Catalog.open(layout.catalog) as catalog, closing(sqlite3.connect(layout.catalog, timeout=0)) as other:
        with catalog.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")


def test_open_of_a_newer_catalog_changes_nothing(layout: Layout) -> None:
    with Catalog.open(layout.catalog):
        pass
    with closing(sqlite3.connect(layout.catalog)) as connection:
        connection.execute(f"PRAGMA user_version = {migrations.VERSION + 1}")
    before = layout.catalog.read_bytes()
    with pytest.raises(CatalogError, match="this factory knows") as caught:
        Catalog.open(layout.catalog)
    assert caught.value.exit_code == 3
    assert layout.catalog.read_bytes() == before


def test_open_migrates_whole_or_not_at_all(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog.open(layout.catalog) as catalog:
        events.begin_run(catalog, "r", "x")
    known = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "VERSION", len(known) + 1)
    monkeypatch.setattr(
        migrations, "MIGRATIONS", (*known, script("CREATE TABLE novel (a) STRICT; CREATE TABLE runs (a);"))
    )
    with pytest.raises(CatalogError):
        Catalog.open(layout.catalog)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*known, script("CREATE TABLE novel (a TEXT) STRICT;")))
    with Catalog.open(layout.catalog) as catalog:
        assert catalog.query("PRAGMA user_version") == [{"user_version": len(known) + 1}]
        assert catalog.query("SELECT * FROM novel") == []
        assert [run.id for run in events.runs(catalog)] == ["r"]


@pytest.mark.parametrize(
    "damage", [b"this is no database, it is a long text" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_catalog_is_told_with_what_to_do(layout: Layout, damage: bytes) -> None:
    layout.state.mkdir()
    layout.catalog.write_bytes(damage)
    for ask in (Catalog.open, pending):
        with pytest.raises(CatalogError) as caught:
            ask(layout.catalog)
        assert "backup" in str(caught.value.hint)
    assert layout.catalog.read_bytes() == damage


def test_pending_of_no_catalog_is_false(layout: Layout) -> None:
    assert not pending(layout.catalog)
    assert not layout.catalog.exists()


def test_asking_whether_something_is_pending_does_not_load_sqlite_utils() -> None:
    asked = "import sys, factory.catalog.pending, factory.lockfile, factory.spec; print('sqlite_utils' in sys.modules)"
    root = Path(record.__file__).parents[2]
    assert proc.run([sys.executable, "-c", asked], cwd=root).text.strip() == "False"


def test_record_bake_keeps_what_a_refresh_pinned_meanwhile(layout: Layout) -> None:
    first, second = bake(layout, base=b"b"), bake(layout, content=b"2", base=b"b")
    newer = (Package("nginx-light", "1.22.1-10", "amd64", of_bytes(b"newer")),)
    refreshed_base = LockedBase("debian-12", "amd64", of_bytes(b"refreshed"))
    with Catalog.open(layout.catalog) as catalog:
        seen = record_bake(catalog, layout, first)
        meanwhile = lockfile.with_entries(seen, [refreshed_base, replace(first.image, pins=newer)])
        lockfile.write(layout.lock, meanwhile)
        lock = record_bake(catalog, layout, second, seen)
    assert lock.bases["debian-12", "amd64"] == refreshed_base
    assert lock.images["web", "amd64"] == replace(second.image, pins=newer)
