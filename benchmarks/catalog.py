"""The catalog of a million images: how long its questions take, what recording costs, how large the file is.

Each figure stands beside something that the same process did on the same file just then, so that a slow machine shows.
The catalog is made for this (`catalog_made`); its file is in the system's page cache, and is removed at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import catalog_flows, catalog_made, clock
from benchmarks import catalog_plan as plan
from benchmarks.catalog_plan import Planned, Shape
from benchmarks.catalog_signed import Costs
from benchmarks.catalog_signed import measure as costs_of_the_rest
from factory.catalog import contents, finding, lineage
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.compliance import audit, where
from factory.digest import unpacked
from factory.model import Layout

IMAGES = 1_000_000
RANGE = "openssl < 3.0.14"
TIMES = 11

_ASKED = 4000
_FIRST = 1000
_RECORDED = 25
_RSS_EVERY = 1000


_Found = dict[str, Any]
"""Some of the fields of Measured."""


@dataclass(frozen=True)
class Measured:
    """Seconds unless the name says otherwise; medians but for `p99`. `sets` and `answered`: what the range matches.

    `lookup_s`: one image by its row id. `rows_s`: as many images as there are descendants, one after the other.
    `scan_s`: a count of the images of the sets by a walk over the whole table. `empty_s`: a transaction of one row.
    `cve_rows`: how many findings all images have, those of one set of packages counted once.
    """

    images: int
    sets: int
    packages: int
    made_s: float
    lookup_s: float
    ancestors_p50_s: float
    ancestors_p99_s: float
    ancestors_p99_cpu_s: float
    descendants: int
    descendants_s: float
    descendants_cpu_s: float
    rows_s: float
    matching: int
    answered: int
    channels: int
    instances: int
    where_s: float
    where_cpu_s: float
    where_as_of_s: float
    scan_s: float
    streamed_per_s: float
    streamed_mib: float
    empty_s: float
    record_known_s: float
    record_new_s: float
    overview_s: float
    overview_first_s: float
    copy_s: float
    audit_s: float
    events: int
    cve_s: float
    cve_rows: int
    shared_mib: float
    file_mib: float
    image_bytes: float
    costs: Costs
    load: float


def measure(folder: Path, images: int = IMAGES, say: Callable[[str], None] = print) -> Measured:
    """All of it, on a catalog of so many images that is made in `folder`."""
    layout, shape, load = Layout(folder / "factory"), plan.shape_of(images), clock.load()
    say(f"a catalog of {images} images is made")
    began = time.monotonic()
    sizes = catalog_made.make(layout.catalog, shape)
    made_s = time.monotonic() - began
    say("its questions")
    with Catalog.read(layout.catalog) as catalog:
        above = _ancestors(catalog, shape)
        below = _descendants(catalog, shape)
        asked = _where(catalog)
    say("recording, with every write on the disk")
    recording = _recording(layout.catalog, shape)
    say("the pages, and the log held against itself")
    pages = asyncio.run(catalog_flows.pages(layout, folder / "pages.db"))
    began = time.monotonic()
    with audit.opened(layout) as catalog:
        found = audit.integrity(layout, catalog)
    audit_s = time.monotonic() - began
    if found.faults:
        raise AssertionError(found.faults)
    say("known vulnerabilities of all images")
    cves = catalog_flows.cves(layout, shape)
    say("what is signed and checked of an image")
    return Measured(
        images=images,
        sets=shape.sets,
        packages=shape.packages,
        made_s=made_s,
        **above,
        **below,
        **asked,
        **recording,
        **pages,
        audit_s=audit_s,
        events=sum(log.length for log in found.logs),
        **cves,
        shared_mib=sizes.shared / 2**20,
        file_mib=sizes.everything / 2**20,
        image_bytes=(sizes.bakes - sizes.shared) / (images - sizes.first),
        costs=costs_of_the_rest(folder / "signed"),
        load=load,
    )


def _ancestors(catalog: Catalog, shape: Shape) -> _Found:
    """Of one image by its id; of the ancestors of many images: the median and the 99th of a hundred, that also on the
    processor."""
    chosen = random.Random(1)
    asked = [chosen.randrange(plan.BASES * 2, shape.images) for _ in range(_ASKED)]
    lookups = [_seconds(partial(finding.by_id, catalog, number)) for number in asked]
    taken = [_both(partial(lineage.ancestors, catalog, number)) for number in asked]
    walks, on_cpu = (sorted(times) for times in zip(*taken, strict=True))
    worst = _ASKED * 99 // 100
    return {
        "lookup_s": statistics.median(lookups),
        "ancestors_p50_s": statistics.median(walks),
        "ancestors_p99_s": walks[worst],
        "ancestors_p99_cpu_s": on_cpu[worst],
    }


def _descendants(catalog: Catalog, shape: Shape) -> _Found:
    """How many the wide image has; all of them, also on the processor; as many images in the order they are stored."""
    root = finding.one(catalog, plan.named("image", shape.wide_root))
    count = sum(1 for _ in lineage.descendants(catalog, root.id))
    if count != shape.wide:
        raise AssertionError(f"{count} descendants")
    sql = f"SELECT {finding.COLUMNS} FROM images WHERE id > ? LIMIT ?"

    def rows() -> None:
        for number, digest, *rest in catalog.connection.execute(sql, [root.id, count]):
            KnownImage(number, unpacked(digest), *rest)

    def walk() -> None:
        for _ in lineage.descendants(catalog, root.id):
            pass

    taken = [(*_both(walk), _seconds(rows)) for _ in range(TIMES)]
    walk_s, on_cpu_s, rows_s = map(statistics.median, zip(*taken, strict=True))
    return {"descendants": count, "descendants_s": walk_s, "descendants_cpu_s": on_cpu_s, "rows_s": rows_s}


def _where(catalog: Catalog) -> _Found:
    """What a range matches, how long the numbers and the first images take, and how the rest streams."""

    def first(as_of: str | None = None) -> where.Answer:
        answer = where.where(catalog, RANGE, as_of)
        got = len(list(itertools.islice(answer.images, _FIRST)))
        if got != min(_FIRST, answer.image_count):
            raise AssertionError(f"{got} images")
        return answer

    answer = first()
    sql = "SELECT count(*) FROM images NOT INDEXED WHERE package_set IN (SELECT package_set FROM package_set_members"
    sql += " JOIN packages ON packages.id = package WHERE name = 'openssl' AND version < '3.0.14')"
    if (counted := catalog.connection.execute(sql).fetchone()[0]) != answer.image_count:
        raise AssertionError(f"{counted} images, and where says {answer.image_count}")
    where_s, on_cpu_s = map(statistics.median, zip(*(_both(first) for _ in range(TIMES)), strict=True))
    (scan_s,) = clock.median_times(3, [lambda: catalog.connection.execute(sql).fetchone()])
    middle = catalog.query("SELECT max(recorded_at) AS at FROM images WHERE id < (SELECT max(id) / 2 FROM images)")
    (as_of_s,) = clock.median_times(3, [lambda: first(str(middle[0]["at"]))])
    rest = where.where(catalog, RANGE).images
    before, began, grown = _rss_mib(), time.monotonic(), 0.0
    for number, _ in enumerate(rest):
        if number % _RSS_EVERY == 0:
            grown = max(grown, _rss_mib() - before)
    per_s = answer.image_count / (time.monotonic() - began)
    return {
        "matching": answer.set_count,
        "answered": answer.image_count,
        "channels": len(answer.channels),
        "instances": len(answer.instances),
        "where_s": where_s,
        "where_cpu_s": on_cpu_s,
        "where_as_of_s": as_of_s,
        "scan_s": scan_s,
        "streamed_per_s": per_s,
        "streamed_mib": grown,
    }


def _recording(path: Path, shape: Shape) -> _Found:
    """A transaction that writes one row; an image whose package set is known; one with a set of its own."""
    numbers = itertools.count(shape.images)
    chosen = random.Random(2)

    def made(of_its_own: bool) -> Iterator[contents.Recorded]:
        for number in numbers:
            bake = Planned(number, chosen.randrange(shape.images), chosen.randrange(shape.sets))
            said = plan.recorded(shape, bake)
            if of_its_own:  # a nightly bake: some new versions, all else as in the set before
                new = tuple(replace(p, version=f"{p.version}+{number}") for p in said.packages[: shape.added])
                said = replace(said, packages=(*new, *said.packages[shape.added :]))
            yield said

    with Catalog.open(path) as catalog:
        known, new = made(False), made(True)

        def record(of: Iterator[contents.Recorded]) -> float:
            said = next(of)
            return _seconds(lambda: _put(catalog, said))

        def empty() -> float:
            return _seconds(lambda: _one_row(catalog, next(numbers)))

        taken = [(empty(), record(known), record(new)) for _ in range(_RECORDED)]
    empty_s, known_s, new_s = map(statistics.median, zip(*taken, strict=True))
    return {"empty_s": empty_s, "record_known_s": known_s, "record_new_s": new_s}


def _put(catalog: Catalog, said: contents.Recorded) -> None:
    with catalog.writing() as database:
        contents.put_bake(database.conn, said)


def _one_row(catalog: Catalog, number: int) -> None:
    with catalog.writing() as database:
        database.conn.execute("INSERT INTO runs (id, started_at, command) VALUES (?, '', '')", [f"empty {number}"])


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _both(action: Callable[[], object]) -> tuple[float, float]:
    """By the clock on the wall, and on the processor: what else runs on the machine disturbs that less."""
    began, on_cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - on_cpu


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
