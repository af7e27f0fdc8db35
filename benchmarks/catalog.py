"""The catalog of a million images: how long its questions take, what recording costs, how large the file is.

Each figure stands beside something that the same process did on the same file just then, so that a slow machine shows.
The catalog is made for this (`catalog_made`); its file is in the system's page cache, and is removed at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import catalog_made, clock
from benchmarks import catalog_plan as plan
from benchmarks.catalog_plan import Planned, Shape
from benchmarks.catalog_signed import Costs
from benchmarks.catalog_signed import measure as costs_of_the_rest
from factory.catalog import contents, finding, lineage
from factory.catalog import copies as catalog_copies
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.compliance import audit, cve, where
from factory.compliance.holders import Asked
from factory.digest import unpacked
from factory.model import Layout
from factory.pages.edition import Edition, Making, make_copy
from factory.pages.site import Site

IMAGES = 1_000_000
RANGE = "openssl < 3.0.14"
TIMES = 11

_ASKED = 4000
_FIRST = 1000
_RECORDED = 25
_RSS_EVERY = 1000


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
    descendants: int
    descendants_s: float
    rows_s: float
    matching: int
    answered: int
    channels: int
    instances: int
    where_s: float
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
        lookup_s, p50, p99 = _ancestors(catalog, shape)
        below, descendants_s, rows_s = _descendants(catalog, shape)
        asked = _where(catalog)
    say("recording, with every write on the disk")
    recording = _recording(layout.catalog, shape)
    say("the pages, and the log held against itself")
    pages = asyncio.run(_pages(layout, folder / "pages.db"))
    began = time.monotonic()
    with audit.opened(layout) as catalog:
        found = audit.integrity(layout, catalog)
    audit_s = time.monotonic() - began
    if found.faults:
        raise AssertionError(found.faults)
    say("known vulnerabilities of all images")
    cves = _cve(layout, shape)
    say("what is signed and checked of an image")
    return Measured(
        images, shape.sets, shape.packages, made_s, lookup_s, p50, p99, below, descendants_s, rows_s,
        *asked, *recording, *pages, audit_s, sum(log.length for log in found.logs), *cves,
        sizes.shared / 2**20, sizes.everything / 2**20,
        (sizes.bakes - sizes.shared) / (images - sizes.first), costs_of_the_rest(folder / "signed"), load,
    )  # fmt: skip


def _ancestors(catalog: Catalog, shape: Shape) -> tuple[float, float, float]:
    """Of one image by its id; of the ancestors of many images: the median and the 99th of a hundred."""
    chosen = random.Random(1)
    asked = [chosen.randrange(plan.BASES * 2, shape.images) for _ in range(_ASKED)]
    lookups = [_seconds(partial(finding.by_id, catalog, number)) for number in asked]
    walks = sorted(_seconds(partial(lineage.ancestors, catalog, number)) for number in asked)
    return statistics.median(lookups), statistics.median(walks), walks[len(walks) * 99 // 100]


def _descendants(catalog: Catalog, shape: Shape) -> tuple[int, float, float]:
    """How many the wide image has; all of them; as many images in the order they are stored."""
    root = finding.one(catalog, plan.named("image", shape.wide_root))
    count = sum(1 for _ in lineage.descendants(catalog, root.id))
    if count != shape.wide:
        raise AssertionError(f"{count} descendants")
    sql = f"SELECT {finding.COLUMNS} FROM images WHERE id > ? LIMIT ?"

    def rows() -> None:
        for number, digest, *rest in catalog.connection.execute(sql, [root.id, count]):
            KnownImage(number, unpacked(digest), *rest)

    walk_s, rows_s = clock.median_times(TIMES, [lambda: sum(1 for _ in lineage.descendants(catalog, root.id)), rows])
    return count, walk_s, rows_s


def _where(catalog: Catalog) -> tuple[int, int, int, int, float, float, float, float, float]:
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
    (where_s,) = clock.median_times(TIMES, [first])
    (scan_s,) = clock.median_times(3, [lambda: catalog.connection.execute(sql).fetchone()])
    middle = catalog.query("SELECT max(recorded_at) AS at FROM images WHERE id < (SELECT max(id) / 2 FROM images)")
    (as_of_s,) = clock.median_times(3, [lambda: first(str(middle[0]["at"]))])
    rest = where.where(catalog, RANGE).images
    before, began, grown = _rss_mib(), time.monotonic(), 0.0
    for number, _ in enumerate(rest):
        if number % _RSS_EVERY == 0:
            grown = max(grown, _rss_mib() - before)
    per_s = answer.image_count / (time.monotonic() - began)
    return (
        answer.set_count, answer.image_count, len(answer.channels), len(answer.instances), where_s, as_of_s, scan_s,
        per_s, grown,
    )  # fmt: skip


def _recording(path: Path, shape: Shape) -> tuple[float, float, float]:
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
    empties, knowns, news = zip(*taken, strict=True)
    return statistics.median(empties), statistics.median(knowns), statistics.median(news)


def _put(catalog: Catalog, said: contents.Recorded) -> None:
    with catalog.writing() as database:
        contents.put_bake(database.conn, said)


def _one_row(catalog: Catalog, number: int) -> None:
    with catalog.writing() as database:
        database.conn.execute("INSERT INTO runs (id, started_at, command) VALUES (?, '', '')", [f"empty {number}"])


async def _pages(layout: Layout, copy: Path) -> tuple[float, float, float]:
    """The overview as a browser gets it, without the network between: again and again, and the first time; and how
    long the copy takes that is served."""
    import httpx

    layout.root.mkdir(parents=True, exist_ok=True)
    with closing(catalog_copies.Watch(layout.catalog)) as watch:
        copied = make_copy(layout, copy, Making(watch, print))
    site = Site(await Edition.of(layout, copied), "127.0.0.1")
    taken = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=site), base_url="http://localhost") as client:
        for _ in range(TIMES):
            began = time.monotonic()
            answer = await client.get("/")
            taken.append(time.monotonic() - began)
            answer.raise_for_status()
    await site.edition.retire()
    copy.unlink(missing_ok=True)
    return statistics.median(taken), taken[0], copied.took_s


def _cve(layout: Layout, shape: Shape) -> tuple[float, int]:
    """How long `cve --all` takes with a tracker that has three entries for each source package, one of them fixed in
    later versions, one open and one fixed long ago; and how many rows it gives."""
    releases = [
        {"status": "resolved", "fixed_version": "3.0.15", "urgency": "high"},
        {"status": "open", "urgency": "low"},
        {"status": "resolved", "fixed_version": "1.0", "urgency": "medium"},
    ]
    sources = sorted({package.source for number in range(shape.sets) for package in plan.set_of(shape, number)})
    tracker = layout.root / "tracker.json"
    said = {
        source: {
            f"CVE-2025-{number:05}{kind}": {
                "description": "something",
                "scope": "remote",
                "releases": {"bookworm": {"repositories": {"bookworm": "3.0.11"}, **release}},
            }
            for kind, release in enumerate(releases)
        }
        for number, source in enumerate(sources)
    }
    tracker.write_text(json.dumps(said))
    question = cve.Question(
        Asked(everything=True, suite="bookworm"), (str(tracker),), severity="unimportant", offline=True
    )
    began = time.monotonic()
    with Catalog.read(layout.catalog) as catalog:
        answer = cve.ask(catalog, layout, question, datetime.now(UTC), lambda _: None)
    taken = time.monotonic() - began
    if answer.images < shape.images or not answer.rows:
        raise AssertionError(f"{answer.images} images have {len(answer.rows)} findings")
    return taken, len(answer.rows)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
