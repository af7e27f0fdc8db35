"""The figures of the catalog, and what docs/benchmarks.md says of them. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.catalog import RANGE, Measured
from benchmarks.catalog_load import Load
from benchmarks.catalog_plan import DEEPEST
from benchmarks.catalog_signed import Costs
from benchmarks.figure import PER_SECOND, Figure

TARGET_ANCESTORS_S = 0.001
TARGET_DESCENDANTS_S = 0.150
TARGET_WHERE_S = 0.100
TARGET_RECORD_S = 0.050
TARGET_IMAGE_BYTES = 800
TARGET_OVERVIEW_S = 0.200
TARGET_FAILURES = 0


def from_json(entry: Mapping[str, Any]) -> Measured:
    """What `as_json` gave."""
    return Measured(**{**entry, "costs": Costs(**entry["costs"])})


def as_json(measured: Measured) -> dict[str, Any]:
    """The entry of results.json."""
    return asdict(measured)


def figures(found: Measured) -> list[Figure]:
    """The lines of the table."""
    costs = found.costs
    return [
        Figure("catalog: ancestors of an image, the 99th of a hundred", found.ancestors_p99_s, "s", TARGET_ANCESTORS_S),
        Figure("  of it on the processor", found.ancestors_p99_cpu_s, "s"),
        Figure("  the median", found.ancestors_p50_s, "s"),
        Figure("  the median, as a multiple of one image by its row id", found.ancestors_p50_s / found.lookup_s, "x"),
        Figure(f"catalog: {found.descendants} descendants", found.descendants_s, "s", TARGET_DESCENDANTS_S),
        Figure("  of it on the processor", found.descendants_cpu_s, "s"),
        Figure("  as a multiple of as many images read in their order", found.descendants_s / found.rows_s, "x"),
        Figure(f"catalog: where '{RANGE}', the first 1000 images", found.where_s, "s", TARGET_WHERE_S),
        Figure("  of it on the processor", found.where_cpu_s, "s"),
        Figure("  against a walk over all images that only counts them", found.where_s / found.scan_s, ""),
        Figure("  as of half the catalog's age", found.where_as_of_s, "s"),
        Figure("  the rest streams", found.streamed_per_s, PER_SECOND),
        Figure("  memory grows meanwhile by", found.streamed_mib, "MiB"),
        Figure(
            f"catalog: recording an image, {costs.packages} packages known", found.record_known_s, "s", TARGET_RECORD_S
        ),
        Figure("  in a set of packages that is new", found.record_new_s, "s", TARGET_RECORD_S),
        Figure("  as a multiple of a transaction of one row", found.record_new_s / found.empty_s, "x"),
        Figure("  from end to end, images.lock and journal included", costs.record_s, "s"),
        Figure("catalog: an image beyond what is shared", found.image_bytes, "bytes", TARGET_IMAGE_BYTES),
        Figure(f"  the {costs.checks} checks of an image", costs.checks_bytes, "bytes"),
        Figure("  the signed deploy ticket of an image, indexed", costs.signed_bytes, "bytes"),
        Figure("  the journal of a bake", costs.journal_bytes, "bytes"),
        Figure("  all of these, of an image that was baked, checked and signed", _all_bytes(found), "bytes"),
        Figure("catalog: the overview page", found.overview_s, "s", TARGET_OVERVIEW_S),
        Figure("  the copy that the pages are served from", found.copy_s, "s"),
        Figure(f"catalog: a log of {found.events} events held against itself", found.audit_s, "s"),
        Figure(f"catalog: cve --all, {found.cve_rows} findings", found.cve_s, "s"),
    ]


def load_figures(done: Load) -> list[Figure]:
    """The lines of what many processes did at once."""
    who = f"catalog: {done.writers} processes writing and {done.readers} reading for {done.seconds:.0f} s"
    return [
        Figure(f"{who}: recorded", done.writes, "bakes"),
        Figure("  lost", len(done.lost), "bakes", TARGET_FAILURES),
        Figure("  that failed, or problems in the catalog then", len(done.failures) + len(done.problems), "failures",
               TARGET_FAILURES),
        Figure("  the slowest bake, of five transactions", done.slowest_write_s, "s"),
    ]  # fmt: skip


def load_document(done: Load, measured_on: str) -> list[str]:
    """The paragraph on it."""
    return [
        *_paragraph(
            f"Many processes at once, measured on {measured_on}: for {done.seconds:.0f} s {done.writers} processes"
            " record bakes in one new catalog as a bake does (100 packages, 20 checks, a signed envelope; five"
            f" transactions, each on the disk when it ends), and {done.readers} ask, each round in one state of the"
            f" catalog, where what they read must fit together: {done.reads} rounds. A bake that its writer was told"
            " is recorded, and that is not there whole in the end, is lost; then `factory catalog check` must find"
            " nothing. The slowest bake waited for the others."
        ),
        "",
    ]


def _all_bytes(found: Measured) -> float:
    costs = found.costs
    return found.image_bytes + costs.checks_bytes + costs.signed_bytes + costs.journal_bytes


def document(found: Measured, measured_on: str) -> list[str]:
    """The section of docs/benchmarks.md."""
    points = [line for point in _points(found) for line in _paragraph(point, "- ", "  ")]
    return ["## The catalog", "", *_paragraph(_made(found, measured_on)), "", *points, ""]


def _made(found: Measured, measured_on: str) -> str:
    return (
        f"Measured on {measured_on} (load {found.load:.1f}) on a catalog made for it: {found.images} images in lineages"
        f" of up to {DEEPEST}, with {found.sets} sets of {found.costs.packages} packages over {found.packages}"
        " distinct ones; a promotion for every 50 images, to five channels and of a quarter of the names, and a few"
        f" revocations and instances. It was made in {found.made_s:.0f} s and is of"
        f" {found.file_mib:.0f} MiB, of which {found.shared_mib:.0f} MiB are shared by all images. Row for row it is"
        " what the product writes; a test holds the two against each other. The system has the file in its page cache."
        " The figures are medians unless a line says otherwise; where other work loads the machine, what a question"
        " takes on the processor is nearer to what it takes."
    )


def _points(found: Measured) -> list[str]:
    costs = found.costs
    return [
        "Ancestors: of 4000 images at random. One image by its row id is the smallest question there is.",
        "Descendants: all consumed, each as the record that the commands use.",
        f"`where`: {found.matching} sets match, of {found.answered} images. Numbers, the {found.channels} promotions"
        f" and {found.instances} running instances of such images, and the first 1000 images with where each stands;"
        " then the rest. What it takes grows with the promotions in force, which here are 2500 at most.",
        "Recording: `contents.put_bake` on this catalog, in a transaction that is on the disk when it ends. A new set"
        " has 15 new packages. From end to end is `record_bake`, in a factory of 200 images.",
        "Bytes: by how much the bakes of all images make the file grow, by image: image, bake, artifact, edge, source,"
        " the event in the log and a share of its run, with all indexes. Not in it, and measured by recording 200"
        " images from end to end: checks (their event too); the signed ticket, whose envelopes are of"
        f" {costs.envelopes_bytes:.0f} bytes ({costs.packed_bytes:.0f} after zlib), the rest being its rows, indexes"
        " and three events; the journal. The target is of an image without these: one that was baked, checked and"
        f" signed takes about {_all_bytes(found) / 1000:.0f} kB.",
        "The overview: the answer of the site that `factory catalog serve` runs, without a network between; the first"
        f" answer took {found.overview_first_s * 1000:.0f} ms. The copy is made beside the old one, when the catalog"
        " has changed.",
        "`cve --all`: with a tracker of three entries for each source package, read from its file.",
    ]


def _paragraph(text: str, first: str = "", then: str = "") -> list[str]:
    return textwrap.wrap(
        text, 118, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )
