"""`factory cve`: the known vulnerabilities of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables
from factory.errors import VerifyError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.catalog.finding import KnownImage
    from factory.compliance.cve import Answer, Row

SEVERITIES = ("unimportant", "low", "medium", "high", "critical")
_COLUMNS = (
    "image", "cve", "severity", "source", "installed", "fixed", "status", "owner", "until", "packages",
)  # fmt: skip
_MORE = ("undetermined", "reason", "file", "digests")
"""What CSV has besides: the table has no room for it."""


@click.command()
@click.argument("target", metavar="[NAME|DIGEST]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every image that the catalog knows, counted.")
@click.option("--tracker", metavar="PATH|URL", multiple=True, help="Debian's security tracker as JSON; repeatable.")
@click.option("--osv", metavar="PATH|URL", multiple=True, help="OSV records: file, folder or zip; repeatable.")
@click.option("--vex", metavar="PATH", multiple=True, help="OpenVEX statements: file or folder; repeatable.")
@click.option("--severity", type=click.Choice(SEVERITIES), default="low", help="Show these and worse.  [default: low]")
@click.option("--suite", metavar="SUITE", help="The Debian release of the images, such as bookworm.")
@click.option("--fail-on", type=click.Choice(SEVERITIES[1:]), help="Exit 4 where nobody explains one so bad or worse.")
@click.option("--offline", is_flag=True, help="Ask no server; use what was fetched before.")
@tables.forms
@click.pass_obj
def cve(
    obj: dict[str, Any], /, target: str | None, everything: bool, tracker: tuple[str, ...], osv: tuple[str, ...],
    vex: tuple[str, ...], severity: str, suite: str | None, fail_on: str | None, offline: bool, as_json: bool,
    as_csv: bool,
) -> int:  # fmt: skip
    """Known vulnerabilities in what images hold: in one, in those of images.lock (no NAME), or in --all.

    Sources are those of [cve] in images.toml unless options name others. A severity that nobody knows counts as worse
    than critical.
    """
    from factory.compliance import cve as flow
    from factory.compliance.asking import asking
    from factory.compliance.holders import Asked
    from factory.release.standing import this_moment

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    layout = Layout(obj["folder"].resolve())
    tracker, osv, vex = (tuple(map(flow.option_path, given)) for given in (tracker, osv, vex))
    if fail_on is not None and SEVERITIES.index(severity) > SEVERITIES.index(fail_on):
        severity = fail_on
    question = flow.Question(Asked(target, everything, suite), tracker, osv, vex, severity, offline)
    with asking(layout, output.say) as catalog:
        answer = flow.ask(catalog, layout, question, this_moment(), output.say)
    columns = [*(("images",) if everything else ()), *_COLUMNS, *(_MORE if form == tables.CSV else ())]
    tables.show(form, columns, _rows(answer, form), lambda rows: _document(answer, rows))
    _tell(answer)
    failing = [] if fail_on is None else answer.reaching(fail_on)
    if failing:
        output.say(f"{len(failing)} that nobody explains are {fail_on} or worse")
    return VerifyError.exit_code if failing or (fail_on is not None and answer.unknown) else 0


def _rows(answer: Answer, form: str) -> Iterator[dict[str, Any]]:
    digests: dict[str, set[str]] = {}
    for image in (image for row in answer.rows for image in row.some):
        digests.setdefault(image.who, set()).add(image.digest)
    several = {who for who, found in digests.items() if len(found) > 1}
    for row in answer.rows:
        shown = _row(row)
        if form == tables.TABLE:
            names = ", ".join(dict.fromkeys(_called(image, several) for image in row.some))
            shown["image"] = names + (", …" if row.images > len(row.some) else "")
            shown["status"] += " (undetermined)" if row.finding.undetermined else ""
        elif form == tables.JSON:
            shown |= {"others": list(row.finding.others), "origins": list(row.finding.origins)}
        yield shown


def _called(image: KnownImage, several: set[str]) -> str:
    """NAME/ARCH, with the beginning of the digest where several images are called so."""
    return f"{image.who} {image.digest.removeprefix('sha256:')[:12]}" if image.who in several else image.who


def _row(row: Row) -> dict[str, Any]:
    finding, by = row.finding, row.explanation.by if row.explanation else None
    return {
        "image": list(row.who),
        "images": row.images,
        "digests": [image.digest for image in row.some],
        "cve": finding.id,
        "severity": finding.severity,
        "source": finding.package,
        "installed": finding.version,
        "fixed": finding.fixed,
        "status": row.status,
        "undetermined": finding.undetermined,
        "owner": by and by.owner,
        "until": by and by.until and _time(by.until),
        "reason": by and by.reason,
        "file": by and by.file,
        "packages": list(finding.binaries),
    }


def _document(answer: Answer, rows: list[Any]) -> dict[str, Any]:
    return {
        "sources": [
            {"kind": source.kind, "name": source.name, "digest": source.digest, "as_of": _time(source.as_of)}
            for source in answer.knowledge.sources
        ],
        "vex": [{"file": document.file, "digest": document.digest, "refused": list(document.refused)}
                for document in answer.knowledge.documents],
        "images": answer.images,
        "package_sets": answer.sets,
        "unknown": [{"image": one.who, "images": one.images, "why": one.why} for one in answer.unknown],
        "milder": answer.milder,
        "findings": rows,
    }  # fmt: skip


def _tell(answer: Answer) -> None:
    for document in answer.knowledge.documents:
        for line in document.refused:
            output.say(f"{output.colour('warning:', 'yellow', 'bold')} {tables.cell(line)}")
    for one in answer.unknown:
        warning = output.colour("not looked at:", "yellow", "bold")
        output.say(f"{warning} {one.who or 'images'}{f' ({one.images} images)' if one.images > 1 else ''}: {one.why}")
    counts = {status: sum(row.status == status for row in answer.rows) for status in ("open", "explained", "expired")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none found"
    images = f"{answer.images} image{'' if answer.images == 1 else 's'}"
    sets = f"{answer.sets} different set{'' if answer.sets == 1 else 's'} of packages"
    output.say(f"{images} ({sets}): {said}" + _milder(answer))
    for source in answer.knowledge.sources:
        output.say(f"  {source.kind} {tables.cell(source.name)} as of {_time(source.as_of)}")


def _milder(answer: Answer) -> str:
    return f"; {answer.milder} less severe are not shown (--severity unimportant)" if answer.milder else ""


def _time(moment: Any) -> str:
    from factory.trust.statements import time_text

    return time_text(moment)
