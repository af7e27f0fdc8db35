"""`factory outdated`: what is installed, against what is offered now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables
from factory.model import Layout

if TYPE_CHECKING:
    from factory.compliance.outdated import Answer, Row

_COLUMNS = ("image", "package", "arch", "installed", "offered", "security", "repository", "source")


@click.command()
@click.argument("target", metavar="[NAME|DIGEST]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every image that the catalog knows, by set of packages.")
@tables.forms
@click.pass_obj
def outdated(obj: dict[str, Any], /, target: str | None, everything: bool, as_json: bool, as_csv: bool) -> None:
    """What is installed in an image, or in those of images.lock, of which the repositories offer a newer version.

    They are asked now; nothing is pinned by that. `factory bake --refresh` bakes with what is offered.
    """
    from factory.compliance import outdated as flow
    from factory.compliance.asking import asking
    from factory.compliance.holders import Asked

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    layout = Layout(obj["folder"].resolve())
    with asking(layout, output.say) as catalog:
        answer = flow.ask(catalog, layout, Asked(target, everything), output.say)
    columns = ("images", *_COLUMNS) if everything else _COLUMNS
    rows = (_row(row, form) for row in answer.rows)
    tables.show(form, columns, rows, lambda shown: _document(answer, shown))
    _tell(answer)


def _row(row: Row, form: str) -> dict[str, Any]:
    several = len(row.who) != 1 or row.images > 1
    more = ", …" if row.images > len(row.who) and form == tables.TABLE else ""
    names: Any = ", ".join(row.who) + more if form == tables.TABLE else list(row.who)
    return {
        "image": names if several or form == tables.JSON else row.who[0],
        "images": row.images,
        "package": row.package.name,
        "arch": row.package.arch,
        "installed": row.package.version,
        "offered": row.offered,
        "security": row.security,
        "repository": row.repository,
        "source": row.package.source,
    }


def _document(answer: Answer, rows: list[Any]) -> dict[str, Any]:
    return {
        "repositories": list(answer.repositories),
        "images": answer.images,
        "not_offered": answer.not_offered,
        "unknown": [{"image": one.who, "images": one.images, "why": one.why} for one in answer.unknown],
        "outdated": rows,
    }


def _tell(answer: Answer) -> None:
    for one in answer.unknown:
        output.say(f"{output.colour('not looked at:', 'yellow', 'bold')} {one.who or 'images'}: {one.why}")
    fixes = sum(row.security is True for row in answer.rows)
    asked = ", ".join(map(tables.cell, answer.repositories))
    images = f"{answer.images} image{'' if answer.images == 1 else 's'}"
    packages = f"{len(answer.rows)} package{'' if len(answer.rows) == 1 else 's'}"
    output.say(f"{images}: {packages} outdated, {fixes} with security fixes; asked: {asked}")
    if answer.not_offered:
        output.say(f"{answer.not_offered} installed packages are offered by none of them")
