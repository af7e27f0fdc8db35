"""What a bake leaves in the catalog beside its image: its journal, its checks, its signed envelopes; in bytes an image.

Some images are recorded as the product does it from end to end, on a catalog of their own, and the file is weighed
after each step.
"""

from __future__ import annotations

import statistics
import time
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks import catalog_plan as plan
from benchmarks.catalog_plan import Planned, Shape
from benchmarks.deploy import Signed
from factory.catalog import attestations, contents, events
from factory.catalog.database import Catalog
from factory.catalog.record import BakeRecord, record_bake
from factory.model import Layout, LockedImage
from factory.store import Store

IMAGES = 200
CHECKS = 60


@dataclass(frozen=True)
class Costs:
    """Bytes an image. `journal_bytes`: what stays of what is written ahead of a record. `envelopes_bytes`: of the three
    of a deploy ticket as they are, inside `signed_bytes`, which is all that the file grows by; `packed_bytes`: of the
    envelopes after zlib. `record_s`: the whole record of a bake of `packages` packages, with images.lock."""

    images: int
    packages: int
    checks: int
    record_s: float
    journal_bytes: float
    checks_bytes: float
    signed_bytes: float
    envelopes_bytes: float
    packed_bytes: float


def measure(folder: Path, images: int = IMAGES) -> Costs:
    """All of it, in a factory that is made in `folder`."""
    layout, shape = Layout(folder), Shape(images + 1, sets=1, names=images, checks=CHECKS)
    stored = Store(layout.store).put_bytes(b"a small disk")
    made = [_record(shape, number, stored) for number in range(images + 1)]
    signed = Signed()
    with Catalog.open(layout.catalog) as catalog:
        record_bake(catalog, layout, made[0])  # what is shared
        weights, taken = [_weight(catalog)], []
        for record in made[1:]:
            began = time.monotonic()
            record_bake(catalog, layout, record)
            taken.append(time.monotonic() - began)
        weights.append(_weight(catalog))
        for record in made[1:]:
            checks = [events.Check(f"test_what_it_should_be[{n}]", "passed", 0.01 * n) for n in range(CHECKS)]
            events.add_checks(catalog, record.run, (record.image.name, record.image.arch), checks)
        weights.append(_weight(catalog))
        envelopes = [one for record in made[1:] for one in signed.ticket(record.image, 12).envelopes]
        for start in range(0, len(envelopes), 3):
            attestations.index(catalog, envelopes[start : start + 3])
        weights.append(_weight(catalog))
    recorded, checked, attested = ((after - before) / images for before, after in pairwise(weights))
    plainly = _plainly(folder / "plainly.db", made)
    return Costs(
        images, len(made[0].packages), CHECKS, statistics.median(taken), recorded - plainly, checked, attested,
        sum(len(one.raw) for one in envelopes) / images, sum(len(zlib.compress(one.raw)) for one in envelopes) / images,
    )  # fmt: skip


def _plainly(path: Path, made: list[BakeRecord]) -> float:
    """Bytes an image of the same bakes without their journal."""
    with Catalog.open(path) as catalog:
        weights = []
        for part in (made[:1], made[1:]):
            for record in part:
                with catalog.writing() as database:
                    contents.put_bake(database.conn, _plain(record))
            weights.append(_weight(catalog))
    return (weights[1] - weights[0]) / (len(made) - 1)


def _plain(record: BakeRecord) -> contents.Recorded:
    return contents.Recorded(
        record.image, record.base_kind, "debian-12", record.builder, record.run, "baked", record.baked_at, record.facts,
        record.packages, record.inputs, dict.fromkeys(record.image.artifacts.values(), 12),
    )  # fmt: skip


def _record(shape: Shape, number: int, stored: str) -> BakeRecord:
    said = plan.recorded(shape, Planned(number, -1, 0))
    image = LockedImage(**{**vars(said.image), "artifacts": {"qcow2": stored}})
    return BakeRecord(
        image, said.parent_kind, said.builder, said.run, said.baked_at, facts=said.facts, packages=said.packages,
        inputs=said.inputs,
    )  # fmt: skip


def _weight(catalog: Catalog) -> int:
    catalog.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return catalog.path.stat().st_size
