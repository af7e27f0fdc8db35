"""A catalog of the size of a large company's, made in minutes: row for row what the product would have written.

What images share (packages, sets, inputs, specs) is recorded by the product itself, by the bakes that show it first.
The other bakes differ from those in digests, times and numbers only; their rows go in by thousands at a time, through
the same triggers and into the same indexes. `tests/unit/test_bench_catalog.py` holds the two ways against each other.
Promotions, revocations, instances and checks go in through the product's own functions.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import catalog_plan as plan
from benchmarks.catalog_plan import Planned, Shape
from factory.catalog import attestations, chain, clock, contents, events, fleets
from factory.catalog.database import Catalog
from factory.digest import packed, unpacked
from factory.trust import promotions, revocations
from factory.trust.signers import file

AT_A_TIME = 10_000
COMMAND = "bake"

_CACHE_KIB = 1_000_000
_BOOL = ("false", "true")


@dataclass(frozen=True)
class Sizes:
    """Bytes of the file, after a checkpoint: with what is shared and the `first` bakes that showed it; with all bakes;
    with promotions, revocations, instances and checks too."""

    first: int
    shared: int
    bakes: int
    everything: int


def make(path: Path, shape: Shape) -> Sizes:
    """Make the catalog at `path`. What is written is on the disk only at the end: it would not survive a power cut."""
    with Catalog.open(path) as catalog:
        catalog.connection.execute("PRAGMA synchronous = OFF")
        catalog.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        bakes = plan.plans(shape)
        begin = list(itertools.islice(bakes, _first(shape)))
        by_product(catalog, shape, begin)
        shared = _size(catalog)
        in_bulk(catalog, shape, bakes)
        recorded = _size(catalog)
        _judge(catalog, shape)
        return Sizes(len(begin), shared, recorded, _size(catalog))


def by_product(catalog: Catalog, shape: Shape, bakes: Iterable[Planned]) -> None:
    """Record bakes as the product does, run by run."""
    for run, of_run in itertools.groupby(bakes, lambda bake: plan.run_of(shape, bake.number)):
        events.begin_run(catalog, run, COMMAND)
        for bake in of_run:
            with catalog.writing() as database:
                contents.put_bake(database.conn, plan.recorded(shape, bake))
        events.end_run(catalog, run, 0)


def in_bulk(catalog: Catalog, shape: Shape, bakes: Iterable[Planned]) -> None:
    """Record bakes of which everything that is shared, and every parent, is known; whole runs."""
    writer = _Bulk(catalog.connection, shape)
    remaining = iter(bakes)
    at_a_time = AT_A_TIME // shape.per_run * shape.per_run
    while part := list(itertools.islice(remaining, at_a_time)):
        with catalog.writing():
            writer.write(part)


def _first(shape: Shape) -> int:
    """So many bakes that all that is shared is known, in whole runs."""
    runs = -(-max(shape.sets, plan.BASES) // shape.per_run)
    return min(shape.images, runs * shape.per_run)


@dataclass(frozen=True)
class _Shared:
    """The row ids of what the images with one number of `Planned.shared` have in common."""

    spec: int
    packages: int
    inputs: int
    added: int


@dataclass
class _Rows:
    """Rows by table, as INSERT takes them."""

    images: list[tuple[object, ...]] = field(default_factory=list)
    image_sources: list[tuple[object, ...]] = field(default_factory=list)
    edges: list[tuple[object, ...]] = field(default_factory=list)
    bakes: list[tuple[object, ...]] = field(default_factory=list)
    artifacts: list[tuple[object, ...]] = field(default_factory=list)
    runs: list[tuple[object, ...]] = field(default_factory=list)
    run_ends: list[tuple[object, ...]] = field(default_factory=list)
    events: list[tuple[object, ...]] = field(default_factory=list)


_INSERTS = {
    "images": "images (id, digest, kind, name, arch, recorded_at, builder, tree, spec, package_set)"
    " VALUES (?, ?, 'image', ?, ?, ?, 'rootfs', ?, ?, ?)",
    "image_sources": "image_sources VALUES (?, 1)",
    "edges": "edges VALUES (?, ?)",
    "bakes": "bakes (id, source, event, image, name, arch, parent, bake_key, run, kind, baked_at, added, inputs)"
    " VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, 'baked', ?, ?, ?)",
    "artifacts": "artifacts VALUES (?, 'qcow2', ?, ?)",
    "runs": "runs (id, started_at, command) VALUES (?, ?, ?)",
    "run_ends": "run_ends (run, ended_at, exit_code) VALUES (?, ?, ?)",
    "events": "events (source, seq, at, actor, authenticated, action, subject, image, record, details, previous)"
    " VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
}


class _Bulk:
    """Writes many bakes at once. Knows the row ids that come next, and the end of the log."""

    def __init__(self, connection: sqlite3.Connection, shape: Shape) -> None:
        self._connection, self._shape = connection, shape
        known = dict(connection.execute("SELECT digest, id FROM images"))
        self._bases = {-1 - n: known[plan.digest_of("base", n)] for n in range(plan.BASES)}
        self._ids = [known[plan.digest_of("image", n)] for n in range(len(known) - plan.BASES)]
        self._shared = [self._find(number) for number in range(shape.sets)]
        self._digests: list[dict[str, str]] = [self._texts(one) for one in self._shared]
        self._event = _Log(connection)

    def write(self, bakes: Iterable[Planned]) -> None:
        """Write these bakes, whole runs."""
        rows = _Rows()
        for run, of_run in itertools.groupby(bakes, lambda bake: plan.run_of(self._shape, bake.number)):
            self._run(rows, run, list(of_run))
        for table, insert in _INSERTS.items():
            self._connection.executemany(f"INSERT INTO {insert}", getattr(rows, table))

    def _run(self, rows: _Rows, run: str, bakes: list[Planned]) -> None:
        began, ended = (clock.text(plan.at(self._shape, bakes[n].number)) for n in (0, -1))
        rows.runs.append((run, began, COMMAND))
        row = chain.of_row({"id": run, "started_at": began, "command": COMMAND})
        rows.events.append(self._event.next(began, "began run", COMMAND, details={"run": run, "row": row}))
        for bake in bakes:
            self._bake(rows, run, bake)
        rows.run_ends.append((run, ended, 0))
        row = chain.of_row({"run": run, "ended_at": ended, "exit_code": 0})
        rows.events.append(self._event.next(ended, "ended run", run, details={"exit_code": 0, "row": row}))

    def _bake(self, rows: _Rows, run: str, bake: Planned) -> None:
        number, shape = bake.number, self._shape
        name, moment, shared = (
            plan.name_of(shape, number),
            clock.text(plan.at(shape, number)),
            self._shared[bake.shared],
        )
        digest, tree, key, disk = (plan.digest_of(kind, number) for kind in ("image", "tree", "key", "qcow2"))
        image = self._ids[-1] + 1
        self._ids.append(image)
        parent = self._bases[bake.parent] if bake.parent < 0 else self._ids[bake.parent]
        size = plan.size_bytes(number)
        record = self._record(bake, name, run, moment, size)
        rows.images.append((image, digest, name, plan.ARCH, moment, tree, shared.spec, shared.packages))
        rows.image_sources.append((image,))
        rows.edges.append((image, parent))
        seq, bake_id = self._event.length + 1, number + 1
        rows.bakes.append((bake_id, seq, image, name, plan.ARCH, parent, key, run, moment, shared.added, shared.inputs))
        rows.artifacts.append((bake_id, disk, size))
        rows.events.append(self._event.next(moment, "baked", f"{name}/{plan.ARCH}", digest, record))

    def _record(self, bake: Planned, name: str, run: str, moment: str, size: int) -> bytes:
        """The digest of the bake, as contents.digest_of gives it: of its RFC 8785 JSON, here written out."""
        number, shared = bake.number, self._digests[bake.shared]
        key, image, disk, tree = (plan.named(kind, number) for kind in ("key", "image", "qcow2", "tree"))
        of_base = bake.parent < 0
        parent_kind = "debootstrap" if of_base else "image"
        parent_name = f"debian-{10 - bake.parent}" if of_base else plan.name_of(self._shape, bake.parent)
        said = (
            f'{{"added":"{shared["added"]}","arch":"{plan.ARCH}",'
            f'"artifacts":[{{"digest":"{disk}","format":"qcow2","size_bytes":{size}}}],"bake_key":"{key}",'
            f'"baked_at":"{moment}","builder":"rootfs","digest":"{image}","image_kind":"image",'
            f'"inputs":"{shared["inputs"]}","kind":"baked","locations":[],"name":"{name}",'
            f'"packages":"{shared["packages"]}","parent":"{plan.parent_of(bake)}","parent_kind":"{parent_kind}",'
            f'"parent_name":"{parent_name}","pins":null,"run":"{run}","spec":"{shared["spec"]}","tree":"{tree}"}}'
        )
        return hashlib.sha256(said.encode()).digest()

    def _find(self, shared: int) -> _Shared:
        """Those of the bake that showed it first, whose number is the same."""
        sql = "SELECT spec, package_set, inputs, added FROM bakes JOIN images ON images.id = image WHERE bakes.id = ?"
        return _Shared(*self._connection.execute(sql, [shared + 1]).fetchone())

    def _texts(self, shared: _Shared) -> dict[str, str]:
        tables = {"spec": "specs", "packages": "package_sets", "inputs": "input_sets", "added": "package_sets"}
        return {
            name: unpacked(
                self._connection.execute(
                    f"SELECT digest FROM {table} WHERE id = ?", [getattr(shared, name)]
                ).fetchone()[0]
            )
            for name, table in tables.items()
        }


class _Log:
    """The end of this catalog's log of events, which grows by one with every event."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        head = chain.head(connection)
        self.length = head.length
        self._catalog, self._hash, self._user = head.catalog, packed(head.digest), chain.local_user()

    def next(
        self, at: str, action: str, subject: str, image: bytes | None = None, record: bytes | None = None,
        details: Mapping[str, object] | None = None,
    ) -> tuple[object, ...]:  # fmt: skip
        """The row of the next event. Its hash is of the RFC 8785 JSON that chain.Event.hash makes, written out."""
        self.length += 1
        previous = self._hash
        actor, authenticated = (self._user, 0) if record is None else (plan.SIGNER, 1)
        told = json.dumps(details or {}, sort_keys=True)
        escaped = told.replace('"', '\\"')
        said = (
            f'{{"action":"{action}","actor":"{actor}","at":"{at}","attestation":null,"authenticated":{_BOOL[authenticated]},'
            f'"catalog":"{self._catalog}","details":"{escaped}","image":{_json(image)},"previous":{_json(previous)},'
            f'"record":{_json(record)},"seq":{self.length},"subject":"{subject}"}}'
        )
        self._hash = hashlib.sha256(said.encode()).digest()
        return (self.length, at, actor, authenticated, action, subject, image, record, told, previous)


def _json(digest: bytes | None) -> str:
    return "null" if digest is None else f'"sha256:{digest.hex()}"'


def _judge(catalog: Catalog, shape: Shape) -> None:
    """Promotions, revocations, instances, and checks of the last images."""
    signer, chosen = file.signer(Ed25519PrivateKey.generate()), random.Random(shape.seed)
    promoted = list(_promotions(shape, chosen))
    envelopes = [promotions.make(one, signer) for one in promoted]
    envelopes += [revocations.make(one, signer) for one in _revocations(shape, chosen)]
    attestations.index(catalog, envelopes, [signer.public])
    for number in range(shape.instances):
        of = promoted[-1 - number % (len(promoted) // 4 or 1)]
        launched = of.made_at + timedelta(hours=1)
        instance = fleets.Instance(
            f"{of.image.partition('/')[0]}-{of.channel}", of.number, "local", f"vm-{number:06}", of.digest, launched
        )
        row = fleets.add_instance(catalog, instance)
        if number % 5 == 0:
            fleets.end_instance(catalog, row, launched + timedelta(days=1), "replaced")
    for number in range(shape.images - shape.checked, shape.images):
        checks = [events.Check(f"test_what_it_should_be[{n}]", "passed", 0.01 * n) for n in range(shape.checks)]
        events.add_checks(catalog, plan.run_of(shape, number), (plan.name_of(shape, number), plan.ARCH), checks)


def _promotions(shape: Shape, chosen: random.Random) -> Iterator[promotions.Promotion]:
    """Each of some image of a name that is deployed to one of five channels, in the order of their numbers there."""
    numbers: dict[tuple[str, str], int] = {}
    ended, made = plan.at(shape, shape.images), 0
    while made < shape.promotions:
        number, channel = chosen.randrange(shape.images), chosen.choice(plan.CHANNELS)
        name = plan.name_of(shape, number)
        if not plan.is_deployed(shape, number):
            continue
        key = (channel, name)
        numbers[key] = numbers.get(key, 0) + 1
        made += 1
        baked_at = plan.at(shape, number)
        yield promotions.Promotion(
            channel, f"{name}/{plan.ARCH}", plan.named("image", number), numbers[key],
            made_at=ended + timedelta(seconds=made), baked_at=baked_at,
            requirements={"verified": promotions.PASSED},
        )  # fmt: skip


def _revocations(shape: Shape, chosen: random.Random) -> Iterator[revocations.Revocation]:
    made_at = plan.at(shape, shape.images)
    for number in range(1, shape.revocations + 1):
        image = chosen.randrange(shape.images)
        name = f"{plan.name_of(shape, image)}/{plan.ARCH}"
        yield revocations.Revocation(plan.named("image", image), name, "CVE-2025-1 in it", made_at, made_at, number)


def _size(catalog: Catalog) -> int:
    """Bytes of the file, with all that was written in it."""
    catalog.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return catalog.path.stat().st_size
