"""`factory report`: what an auditor takes away, as a folder that needs nothing else: pages and CSV files.

`write` prepares the whole folder beside the one that was asked for and gives it its name at the end, so that there is a
whole report or none. A report says when it was made and what it could not check. Reads; never changes the catalog.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from factory import __version__, drawing, tabular
from factory.catalog import chain, contents, details, finding, images, lineage
from factory.catalog.clock import text
from factory.catalog.database import Catalog
from factory.catalog.details import Details
from factory.catalog.events import told
from factory.catalog.finding import KnownImage
from factory.catalog.images import Listed, Wanted
from factory.catalog.state import Withdrawal
from factory.compliance import attested, graph
from factory.compliance.attested import Attested
from factory.compliance.audit import Integrity, integrity
from factory.digest import hex_of
from factory.errors import FactoryError, ToolError, UsageError
from factory.model import Layout
from factory.release import dossier

PAGE, LIST = "index.html", "images.csv"


@dataclass(frozen=True)
class Asked:
    """`target`: NAME or DIGEST, None for all images (of `channel`, where one is named). `to`: the folder to make."""

    target: str | None
    to: Path
    channel: str | None = None


@dataclass(frozen=True)
class Subject:
    """All that a report says of one image. `folder`: its own, inside the report ("." where it is the only one)."""

    listed: Listed
    details: Details
    packages: tuple[contents.InstalledPackage, ...]
    ancestors: tuple[lineage.Relative, ...]
    descendants: tuple[lineage.Relative, ...]
    withdrawn: Withdrawal | None
    signed: Attested
    folder: str

    @property
    def image(self) -> KnownImage:
        return self.details.image


@dataclass(frozen=True)
class Written:
    """How many images a report has, and what the logs of the catalog were worth when it was made."""

    images: int
    integrity: Integrity


def write(layout: Layout, catalog: Catalog, asked: Asked, now: datetime, said: Callable[[str], None]) -> Written:
    """Write the report, also where the log is broken: then it says so. UsageError: no such image, or the folder is
    there already."""
    to = asked.to.absolute()
    _require_free(to)
    wanted = Wanted(channel=asked.channel)
    found: Iterable[Listed]
    if asked.target is not None:
        found = images.with_standing(catalog, [finding.one(catalog, asked.target)])
    else:
        found = images.listed(catalog, wanted)
    work = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        work.mkdir(parents=True)
        worth = integrity(layout, catalog)
        count = _write_all(_Report(layout, catalog, work, now, worth, alone=asked.target is not None), found, said)
        if not count:
            raise UsageError(
                "there is no image to report on", where=str(catalog.path), hint="factory images lists them"
            )
        os.sync()
        work.replace(to)
    except OSError as error:
        raise ToolError(f"the report cannot be written: {error.strerror}", where=str(error.filename or to)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Written(count, worth)


def _require_free(to: Path) -> None:
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise UsageError(f"{to} is there already", where="--to", hint="a report is a folder of its own: name a new one")
    if not to.parent.is_dir():
        raise UsageError(f"there is no folder {to.parent}", where="--to", hint="make it first (mkdir -p)")


@dataclass(frozen=True)
class _Report:
    """Where a report is being written, when it was asked for, and what the logs are worth."""

    layout: Layout
    catalog: Catalog
    folder: Path
    now: datetime
    integrity: Integrity
    alone: bool


def _write_all(report: _Report, found: Iterable[Listed], said: Callable[[str], None]) -> int:
    rows: list[dict[str, Any]] = []
    for one in found:
        folder = "." if report.alone else f"{one.image.name}-{one.image.arch}-{hex_of(one.image.digest)[:12]}"
        subject = gather(report.layout, report.catalog, one, report.now, folder)
        _write_one(report, subject)
        rows.append({**_row(subject), "report": folder})
        if len(rows) % 100 == 0:
            said(f"{len(rows)} images")
    if not report.alone and rows:
        page = _environment().get_template("report_list.html.j2")
        (report.folder / PAGE).write_text(page.render(rows=rows, **_head(report)), "utf-8")
        _csv(report.folder / LIST, (*_IMAGE, "report"), rows)
    return len(rows)


def gather(layout: Layout, catalog: Catalog, listed: Listed, now: datetime, folder: str = ".") -> Subject:
    """All that a report says of an image."""
    image = listed.image
    return Subject(
        listed,
        details.details(catalog, image),
        () if image.package_set is None else tuple(contents.members(catalog.connection, image.package_set)),
        tuple(lineage.ancestors(catalog, image.id)),
        tuple(lineage.descendants(catalog, image.id)),
        listed.withdrawn,
        attested.attested(layout, catalog, image.digest, now),
        folder,
    )


_IMAGE = (
    "name", "arch", "digest", "recorded_at", "base", "packages", "checks", "channels", "instances", "signatures",
    "revoked",
)  # fmt: skip


def _row(subject: Subject) -> dict[str, Any]:
    """An image as a line of the list."""
    listed, image = subject.listed, subject.image
    return {
        "name": image.name,
        "arch": image.arch,
        "digest": image.digest,
        "recorded_at": image.recorded_at,
        "base": listed.base,
        "packages": listed.packages,
        "checks": told(listed.checks),
        "channels": list(listed.channels),
        "instances": listed.instances,
        "signatures": subject.signed.verdict,
        "revoked": subject.withdrawn and subject.withdrawn.reason,
    }


def promotion_rows(subject: Subject) -> list[dict[str, Any]]:
    """The promotions of an image, with who signed them."""
    return attested.promotion_rows(subject.details.promotions, subject.signed.by_envelope)


def tables_of(subject: Subject) -> dict[str, tuple[tuple[str, ...], list[Any]]]:
    """File name -> (columns, rows) of each CSV file of an image."""
    found, image = subject.details, subject.image
    last = found.bakes[0] if found.bakes else None
    facts = {
        **_row(subject), "role": image.role, "builder": image.builder, "tree": found.tree,
        "bake_key": last and last.bake_key, "parent": last and last.parent,
        "settings": json.dumps(found.spec, sort_keys=True),
        **{f"artifact {one.format}": one.digest for one in found.artifacts},
        **{f"published {one.place}": one.native for one in found.locations},
        **({f"input {name}": digest for name, digest in last.inputs.items()} if last else {}),
    }  # fmt: skip
    relatives = [
        {"relation": relation, "depth": one.depth, "role": one.image.role, **one.image._asdict()}
        for relation, several in (("ancestor", subject.ancestors), ("descendant", subject.descendants))
        for one in several
    ]
    return {
        "image.csv": (("field", "value"), [{"field": key, "value": value} for key, value in facts.items()]),
        "lineage.csv": (("relation", "depth", "name", "arch", "role", "digest", "recorded_at"), relatives),
        "sbom.csv": (
            ("name", "version", "arch", "source", "source_version", "sha256"),
            [vars(package) for package in subject.packages],
        ),
        "checks.csv": (
            ("test", "outcome", "duration_s", "exempted", "message"),
            [vars(check) for check in found.checks],
        ),
        "signers.csv": (
            ("what", "made_at", "signers", "verdict", "problem", "in_force", "envelope"),
            [{**vars(one), "verdict": one.verdict, "in_force": not one.is_past} for one in subject.signed.statements],
        ),
        "promotions.csv": (
            ("channel", "number", "made_at", "in_force", "signers", "verdict", "problem", "waivers", "envelope"),
            [{**row, "waivers": "; ".join(map(str, row["waivers"]))} for row in promotion_rows(subject)],
        ),
        "instances.csv": (
            ("fleet", "generation", "provider", "native", "launched_at", "ended_at", "reason"),
            [vars(machine) for machine in found.instances],
        ),
    }


def _write_one(report: _Report, subject: Subject) -> None:
    folder = report.folder / subject.folder
    folder.mkdir(exist_ok=True)
    tables = tables_of(subject)
    for name, (columns, rows) in tables.items():
        _csv(folder / name, columns, rows)
    document = signed_sbom(report.layout, subject.image)
    if document is not None:
        (folder / "sbom.cdx.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    page = _environment().get_template("report.html.j2")
    values = {
        "subject": subject,
        "row": _row(subject),
        "promotions": promotion_rows(subject),
        "last": subject.details.bakes[0] if subject.details.bakes else None,
        "svg": drawing.svg(graph.around(report.catalog, subject.image)),
        "files": [*tables, *(["sbom.cdx.json"] if document is not None else [])],
        "has_sbom": document is not None,
    }
    (folder / PAGE).write_text(page.render(**values, **_head(report)), "utf-8")


def signed_sbom(layout: Layout, image: KnownImage) -> dict[str, Any] | None:
    """The CycloneDX document that was signed for an image; None where it is not at hand."""
    with suppress(FactoryError):
        found = dossier.gather(layout, image.digest)
        if found.sbom is not None:
            return dict(dossier.Piece(dossier.SBOM, found.sbom).statement.predicate)
    return None


def _head(report: _Report) -> dict[str, Any]:
    """What every page says of itself."""
    (log,) = [log for log in report.integrity.logs if log.source == chain.OWN]
    return {
        "made_at": text(report.now),
        "version": __version__,
        "log": log,
        "worth": report.integrity.worth(log),
        "faults": report.integrity.faults,
        "alone": report.alone,
    }


def _csv(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as out:
        tabular.write_csv(out, columns, rows)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["when"] = _when
    return environment


def _when(moment: datetime | str | None) -> str:
    """A time as people read it; empty for none, and the text itself where it is no time."""
    if not moment:
        return ""
    try:
        read = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        return f"{read.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return str(moment)
