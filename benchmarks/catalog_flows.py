"""The pages over a large catalog, and the known vulnerabilities of all its images: how long they take."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import catalog_plan as plan
from benchmarks.catalog_plan import Shape
from factory.catalog.copies import Watch
from factory.catalog.database import Catalog
from factory.compliance import cve
from factory.compliance.holders import Asked
from factory.model import Layout
from factory.pages.edition import Edition, Making, make_copy
from factory.pages.site import Site

TIMES = 11


async def pages(layout: Layout, copy: Path) -> dict[str, Any]:
    """The overview as a browser gets it, without the network between: again and again, and the first time; and how
    long the copy takes that is served."""
    import httpx

    layout.root.mkdir(parents=True, exist_ok=True)
    with closing(Watch(layout.catalog)) as watch:
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
    return {"overview_s": statistics.median(taken), "overview_first_s": taken[0], "copy_s": copied.took_s}


def cves(layout: Layout, shape: Shape) -> dict[str, Any]:
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
    return {"cve_s": taken, "cve_rows": len(answer.rows)}
