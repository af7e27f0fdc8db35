"""Keeps images.lock and the catalog in step, through kill -9 and with several processes at once.

The order is: intent (the old entries, and the whole record) -> images.lock -> trust/ (`publish`) -> catalog, all of it
while holding one lock file, so that an intent seen open by whoever holds that file is a dead process's. The artifacts
are in the store before: they were booted from there. `recover` rolls forward where the lock still holds the old ones,
completes trust/ and the catalog where it holds the new ones, and only reports, once, where it holds others, such
as after a `git checkout`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.db import Table

from factory import files, lockfile
from factory.catalog import chain, contents
from factory.catalog.clock import now
from factory.catalog.contents import InputFile, InstalledPackage
from factory.catalog.database import Catalog
from factory.digest import is_digest, packed
from factory.errors import StoreError
from factory.model import Layout, Lock, LockedBase, LockedImage
from factory.store import Store
from factory.trust import ticket


@dataclass(frozen=True)
class BakeRecord:
    """All that is kept of one bake that passed its checks (or, `verified_only`, of a stored image verified again).

    `image` is the new entry of images.lock; `base` that of the base below it, where this bake locks it too. `facts` is
    what images.toml said, JSON-able. `base_kind` is `image` for a layered one. `baked_at` is UTC, ISO 8601.
    `ticket`: its deploy ticket, as the file in trust/ has it.
    """

    image: LockedImage
    base_kind: str
    builder: str
    run: str
    baked_at: str
    base: LockedBase | None = None
    verified_only: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[InstalledPackage, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    ticket: str = ""

    @property
    def entries(self) -> list[LockedBase | LockedImage]:
        """The entries of images.lock it makes."""
        return [self.image] if self.base is None else [self.base, self.image]


Publish = Callable[[BakeRecord], None]
"""Puts what was signed of a recorded image into trust/; may be called again after a kill."""


def record_bake(
    catalog: Catalog, layout: Layout, record: BakeRecord, seen: Lock | None = None, *, publish: Publish | None = None
) -> Lock:
    """Record a bake in images.lock, trust/ and the catalog; the lock as it then is.

    `seen` is the lock that the bake began with: what a refresh has pinned since then stays.
    StoreError where an artifact is not in the store; LockError, CatalogError. Nothing is recorded then.
    """
    _require_artifacts(layout, record)
    with files.exclusive(_guard(layout)):
        lock = lockfile.read(layout.lock)
        if seen is not None:
            record = _keeping_refreshed(record, lock, seen)
        new = lockfile.with_entries(lock, record.entries)
        lockfile.dumps(new)
        intent = _begin(catalog, record, lock)
        lockfile.write(layout.lock, new)
        if publish is not None:
            publish(record)
        _finish(catalog, layout, record, intent, "done")
        return new


def _keeping_refreshed(record: BakeRecord, lock: Lock, seen: Lock) -> BakeRecord:
    """The record without what would undo a refresh of pins that came between `seen` and `lock`."""
    key = (record.image.name, record.image.arch)
    now, then = lock.images.get(key), seen.images.get(key)
    pins = now.pins if now is not None else None
    if pins is not None and pins != (then.pins if then is not None else None):
        record = replace(record, image=replace(record.image, pins=pins))
    if record.base is not None and not (_same(lock, seen, record.base) or _holds(lock, record.base)):
        record = replace(record, base=None)
    return record


def recover(catalog: Catalog, layout: Layout, publish: Publish | None = None) -> list[str]:
    """Bring what killed processes left half recorded to its end; what was done, or is for people to look at."""
    with files.exclusive(_guard(layout)):
        files.temporary_of(layout.lock).unlink(missing_ok=True)
        rows = catalog.query("SELECT id, old, record FROM open_intents JOIN intent_records ON intent = id ORDER BY id")
        return [
            _recover(catalog, layout, row["id"], lockfile.loads(row["old"]), _from_json(row["record"]), publish)
            for row in rows
        ]


def _recover(
    catalog: Catalog, layout: Layout, intent: int, old: Lock, record: BakeRecord, publish: Publish | None
) -> str:
    who = f"{record.image.name}/{record.image.arch}"
    lock = lockfile.read(layout.lock)
    new = lockfile.with_entries(lock, record.entries)
    if not _holds(lock, record.image):
        if not all(_holds(lock, entry) or _same(lock, old, entry) for entry in record.entries):
            changed = "but images.lock has been changed since; left as it is (factory bake makes it true)"
            return _abandon(catalog, intent, f"{who}: a killed run had baked {record.image.digest}, {changed}")
        try:
            _require_artifacts(layout, record)
        except StoreError as error:
            return _abandon(catalog, intent, f"{who}: a killed run had baked it, but {error.message}; not recorded")
        lockfile.write(layout.lock, new)
    if publish is not None:
        publish(record)
    message = f"{who}: completed the record of {record.image.digest}, which a killed run had begun"
    _finish(catalog, layout, record, intent, "recovered", message)
    return message


def _holds(lock: Lock, entry: LockedBase | LockedImage) -> bool:
    return _entry(lock, entry) == entry


def _same(lock: Lock, old: Lock, entry: LockedBase | LockedImage) -> bool:
    return _entry(lock, entry) == _entry(old, entry)


def _entry(lock: Lock, like: LockedBase | LockedImage) -> LockedBase | LockedImage | None:
    """The entry with the kind, name and architecture of `like`."""
    entries: Mapping[tuple[str, str], LockedBase | LockedImage]
    entries = lock.bases if isinstance(like, LockedBase) else lock.images
    return entries.get((like.name, like.arch))


def _guard(layout: Layout) -> Path:
    return layout.locks / "images.lock"


def _require_artifacts(layout: Layout, record: BakeRecord) -> None:
    store = Store(layout.store)
    for place, native in sorted(record.image.artifacts.items()):
        if is_digest(native) and not store.has(native):
            raise StoreError(f"its {place} artifact {native} is not in the store", where=str(store.path(native)))


def _begin(catalog: Catalog, record: BakeRecord, lock: Lock) -> int:
    old = lockfile.with_entries(Lock(), [found for entry in record.entries if (found := _entry(lock, entry))])
    with catalog.writing() as database:
        row = {"run": record.run, "name": record.image.name, "arch": record.image.arch, "began_at": now()}
        intent = _id(database.table("intents").insert(row))
        wanted = {"intent": intent, "old": lockfile.dumps(old), "record": _to_json(record)}
        database.table("intent_records").insert(wanted)
        return intent


def _id(inserted: Table) -> int:
    """The row id that an insert gave."""
    assert isinstance(inserted.last_pk, int)
    return inserted.last_pk


def _abandon(catalog: Catalog, intent: int, message: str) -> str:
    with catalog.writing() as database:
        _end(database, intent, "abandoned", message)
    return message


def _end(database: Database, intent: int, outcome: str, message: str = "") -> None:
    database.table("intent_ends").insert({"intent": intent, "ended_at": now(), "outcome": outcome, "message": message})
    database.conn.execute("DELETE FROM intent_records WHERE intent = ?", [intent])


def _finish(catalog: Catalog, layout: Layout, record: BakeRecord, intent: int, outcome: str, message: str = "") -> None:
    """Write the record into its tables, and that the intent has come to its end."""
    store = Store(layout.store)
    with catalog.writing() as database:
        if record.base is not None:
            _insert_base(database, record, record.base)
        made = replace(_recorded(record, store), signers=_signers(database.conn, record))
        contents.put_bake(database.conn, made)
        _end(database, intent, outcome, message)


def _recorded(record: BakeRecord, store: Store) -> contents.Recorded:
    image = record.image
    natives = [native for native in image.artifacts.values() if is_digest(native) and store.has(native)]
    return contents.Recorded(
        image=image,
        parent_kind=record.base_kind,
        parent_name=str(record.facts.get("base", "")).removeprefix("image:"),
        builder=record.builder,
        run=record.run,
        kind="verified" if record.verified_only else "baked",
        baked_at=record.baked_at,
        facts=record.facts,
        packages=record.packages,
        inputs=record.inputs,
        sizes={native: store.size_bytes(native) for native in natives},
    )


def _signers(connection: sqlite3.Connection, record: BakeRecord) -> tuple[str, ...]:
    """The fingerprints of who signed the ticket of a record, as they were verified when it was indexed (`publish`): of
    the provenance, or where it was only verified, of the test result."""
    if not record.ticket:
        return ()
    signed = next(iter(ticket.loads(record.ticket.encode(), "the ticket").values()))
    envelope = signed.test_result if record.verified_only else signed.provenance
    sql = "SELECT actor FROM events WHERE source = ? AND image = ? AND attestation = ? AND authenticated = 1"
    sql += " AND action NOT IN ('baked', 'verified')"  # so that the index serves it
    found = connection.execute(sql, [chain.OWN, packed(record.image.digest), envelope.digest]).fetchone()
    return () if found is None else tuple(found[0].split(","))


def _insert_base(database: Database, record: BakeRecord, base: LockedBase) -> None:
    row = {
        "name": base.name,
        "arch": base.arch,
        "digest": base.digest,
        "run": record.run,
        "recorded_at": now(),
        "entry": _alone(base),
    }
    database.table("bases").insert(row)
    details = {"run": record.run, "row": chain.of_row(row)}
    chain.append(database.conn, chain.Entry("locked base", f"{base.name}/{base.arch}", base.digest, details=details))


def _alone(entry: LockedBase | LockedImage) -> str:
    """An entry as the text of a lock that holds nothing else."""
    return lockfile.dumps(lockfile.with_entries(Lock(), [entry]))


def _to_json(record: BakeRecord) -> str:
    plain = {
        **vars(record),
        "image": _alone(record.image),
        "base": None if record.base is None else _alone(record.base),
        "packages": [vars(package) for package in record.packages],
        "inputs": [vars(file) for file in record.inputs],
    }
    return json.dumps(plain, sort_keys=True)


def _from_json(text: str) -> BakeRecord:
    plain = json.loads(text)
    image = next(iter(lockfile.loads(plain.pop("image")).images.values()))
    written = plain.pop("base")
    base = None if written is None else next(iter(lockfile.loads(written).bases.values()))
    packages = tuple(InstalledPackage(**package) for package in plain.pop("packages"))
    inputs = tuple(InputFile(**file) for file in plain.pop("inputs"))
    return BakeRecord(image=image, base=base, packages=packages, inputs=inputs, **plain)
