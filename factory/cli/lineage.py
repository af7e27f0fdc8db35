"""`factory images`, `show`, `lineage`: which images there are, all that is known of one, what it descends from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables, times
from factory.errors import UsageError
from factory.model import Layout
from factory.tabular import Row

if TYPE_CHECKING:
    from factory.catalog.details import Details
    from factory.catalog.images import Listed, Wanted
    from factory.catalog.lineage import Relative
    from factory.catalog.state import Withdrawal

_COLUMNS = ("name", "arch", "digest", "baked_at", "base", "packages", "checks", "channels", "instances", "revoked")
_PROMOTIONS = ("channel", "number", "made_at", "in_force", "signers", "verdict", "envelope", "waivers")
_RELATIVES = ("relation", "depth", "name", "arch", "role", "digest", "recorded_at", "revoked_by")


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--channel", metavar="CHANNEL", help="Only those that it points at.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="The newest N.  [default: all]")
@times.as_of
@tables.forms
@click.pass_obj
def images(
    obj: dict[str, Any], /, name: str | None, channel: str | None, limit: int | None, as_of: str | None,
    as_json: bool, as_csv: bool,
) -> None:  # fmt: skip
    """The images that were baked, the newest first, and where they stand; of NAME or NAME/ARCH, or all."""
    from factory.catalog import finding
    from factory.catalog import images as catalogued
    from factory.compliance import naming
    from factory.compliance.asking import asking

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    layout = Layout(obj["folder"].resolve())
    called, _, arch = (name or "").partition("/")
    wanted = catalogued.Wanted(called or None, arch or None, channel, times.moment(as_of))
    with asking(layout, output.say) as catalog:
        if name is not None:
            finding.refuse_unknown(catalog, name)
        if channel is not None:
            naming.refuse_unknown_channel(layout, catalog, channel)
        found = catalog.streamed(catalogued.listed(catalog, wanted, limit))
        rows = tables.or_say(map(_listed_json if form == tables.JSON else _listed_row, found), _none(name, wanted))
        if form == tables.JSON:
            tables.stream_json({}, "images", rows)
        else:
            tables.show(form, _COLUMNS, rows, list)


def _none(name: str | None, wanted: Wanted) -> str:
    """What to say where there is no such image."""
    called = "" if name is None else f" called {tables.cell(name)}"
    stood = "" if wanted.channel is None else f" in {tables.cell(wanted.channel)}"
    return f"no image{called} is recorded{stood}" + ("" if wanted.as_of is None else f" as of {wanted.as_of}")


def _listed_row(one: Listed) -> Row:
    return {**_listed_json(one), "checks": _checks(one.checks), "revoked": _revoked(one.withdrawn)}


def _listed_json(one: Listed) -> dict[str, Any]:
    image = one.image
    return {
        "name": image.name,
        "arch": image.arch,
        "digest": image.digest,
        "baked_at": image.recorded_at,
        "builder": image.builder,
        "base": one.base,
        "packages": one.packages,
        "checks": dict(one.checks),
        "channels": list(one.channels),
        "instances": one.instances,
        "revoked_by": one.withdrawn and one.withdrawn.digest,
        "sources": list(one.sources),
    }


def _checks(counts: Any) -> str | None:
    from factory.catalog.events import told

    return told(counts) or None


def _revoked(withdrawn: Withdrawal | None) -> str | None:
    return None if withdrawn is None else withdrawn.reason


@click.command()
@click.argument("target", metavar="NAME|DIGEST")
@times.as_of
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values: a field and its value a line.")
@click.pass_obj
def show(obj: dict[str, Any], /, target: str, as_of: str | None, as_json: bool, as_csv: bool) -> None:
    """All that is known of one image: bakes, inputs, stored forms, checks, channels, instances, papers.

    NAME is the image recorded last; DIGEST may be shortened.
    """
    from factory.catalog import details, finding, lineage
    from factory.compliance import attested
    from factory.compliance.asking import asking

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    moment = times.moment(as_of)
    layout = Layout(obj["folder"].resolve())
    with asking(layout, output.say) as catalog:
        image = finding.one(catalog, target, moment)
        found = details.details(catalog, image, moment)
        judged = attested.promotions_of(layout, catalog, image.digest)
        promoted = attested.promotion_rows(found.promotions, judged)
        document = _details_json(found, promoted, lineage.revoked_by(catalog, image.id, moment))
    if form == tables.JSON:
        output.document(document)
    elif form == tables.CSV:
        tables.show(form, ("field", "value"), _flat(document), list)
    else:
        _tell(found, document)


def _details_json(found: Details, promoted: list[dict[str, Any]], withdrawn: Withdrawal | None) -> dict[str, Any]:
    image, last = found.image, found.bakes[0] if found.bakes else None
    return {
        "digest": image.digest,
        "name": image.name,
        "arch": image.arch,
        "role": image.role,
        "kind": image.kind,
        "recorded_at": image.recorded_at,
        "revoked_by": withdrawn and {
            "digest": withdrawn.digest, "name": withdrawn.name, "reason": withdrawn.reason, "at": withdrawn.at,
        },
        "builder": image.builder,
        "base": last and {"digest": last.parent, "name": last.parent_name},
        "bake_key": last and last.bake_key,
        "tree": found.tree,
        "packages": found.packages,
        "channels": [one.channel for one in found.promotions if one.in_force],
        "artifacts": [vars(one) for one in found.artifacts],
        "locations": [vars(one) for one in found.locations],
        "bakes": [
            {"run": one.run, "kind": one.kind, "baked_at": one.baked_at, "bake_key": one.bake_key, "source": one.source}
            for one in found.bakes
        ],
        "inputs": {} if last is None else dict(last.inputs),
        "spec": dict(found.spec),
        "checks": [vars(one) for one in found.checks],
        "promotions": [{**row, "waivers": [waiver.plain() for waiver in row["waivers"]]} for row in promoted],
        "instances": [vars(one) for one in found.instances],
        "attestations": [{**vars(one), "signers": list(one.signers)} for one in found.papers],
    }  # fmt: skip


def _flat(value: Any, path: str = "") -> Iterator[Row]:
    """A document as (path of the field, its value), lists numbered from 0."""
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif not isinstance(value, (dict, list)):
        yield {"field": path, "value": value}


def _tell(found: Details, said: dict[str, Any]) -> None:
    withdrawn = said["revoked_by"]
    running = sum(one.ended_at is None for one in found.instances)
    facts = {
        "image" if found.image.role == "image" else "base": found.image.who,
        "digest": found.image.digest,
        "revoked": withdrawn and f"{withdrawn['reason']} ({withdrawn['name']}, from {withdrawn['at']} on)",
        "recorded": found.image.recorded_at,
        "base": said["base"] and f"{said['base']['name']} {said['base']['digest']}",
        "builder": found.image.builder,
        "bake key": said["bake_key"],
        "packages": found.packages or None,
        "checks": _checks(Counter(one.outcome for one in found.checks)),
        "channels": said["channels"],
        "instances": running or None,
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        if value not in (None, []):
            tables.line(f"{name.ljust(width)}  {tables.cell(value, whole=True)}")
    tables.section("Bakes", ("baked_at", "kind", "run", "bake_key", "source"), said["bakes"])
    tables.section("Stored forms", ("format", "digest", "size_bytes"), said["artifacts"])
    tables.section("Published", ("place", "native"), said["locations"])
    inputs = [{"input": name, "digest": digest} for name, digest in said["inputs"].items()]
    tables.section("Inputs", ("input", "digest"), inputs)
    unusual = [one for one in said["checks"] if one["outcome"] != "passed"]
    tables.section("Checks that did not pass", ("test", "outcome", "exempted", "message"), unusual)
    promoted = [{**row, "waivers": one.waivers} for row, one in zip(said["promotions"], found.promotions, strict=True)]
    tables.section("Promotions", _PROMOTIONS, promoted)
    places = ("fleet", "generation", "provider", "native", "launched_at", "ended_at")
    tables.section("Instances", places, said["instances"])
    tables.section("Signed (not verified here: factory attest verify)", ("predicate_type", "made_at", "signers"),
                   said["attestations"])  # fmt: skip


@click.command()
@click.argument("target", metavar="NAME|DIGEST")
@click.option("--ancestors", "only_above", is_flag=True, help="Only what it descends from.")
@click.option("--descendants", "only_below", is_flag=True, help="Only what descends from it.")
@click.option("--svg", "svg", metavar="FILE", help="The graph as a picture, in a file (- for standard output).")
@click.option("--dot", is_flag=True, help="The graph for Graphviz.")
@times.as_of
@tables.forms
@click.pass_obj
def lineage(
    obj: dict[str, Any], /, target: str, only_above: bool, only_below: bool, svg: str | None, dot: bool,
    as_of: str | None, as_json: bool, as_csv: bool,
) -> None:  # fmt: skip
    """What an image descends from, what descends from it, and what revoked it: a tree, or another form.

    NAME is the image recorded last; DIGEST may be shortened. A picture shows the 200 nearest, the other forms all.
    """
    from factory.catalog import finding
    from factory.compliance.asking import asking

    _refuse_two({"--json": as_json, "--csv": as_csv, "--dot": dot, "--svg": svg is not None})
    _refuse_two({"--ancestors": only_above, "--descendants": only_below})
    moment = times.moment(as_of)
    with asking(Layout(obj["folder"].resolve()), output.say) as catalog:
        image = finding.one(catalog, target, moment)
        if as_json or as_csv:
            above, below = _relatives(catalog, image, moment, only_above, only_below)
            _rows(catalog, image, moment, above, below, as_csv=as_csv)
        else:
            _draw(catalog, image, moment, (only_above, only_below), _picture(svg, dot=dot))


def _refuse_two(options: dict[str, bool]) -> None:
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", where=given[1])


def _relatives(
    catalog: Any, image: Any, as_of: str | None, only_above: bool, only_below: bool
) -> tuple[list[Relative], Iterator[Relative]]:
    from factory.catalog import lineage as walks

    above = [] if only_below else walks.ancestors(catalog, image.id)
    below = iter(()) if only_above else catalog.streamed(walks.descendants(catalog, image.id, as_of=as_of))
    return above, below


def _rows(
    catalog: Any, image: Any, as_of: str | None, above: list[Relative], below: Iterator[Relative], *, as_csv: bool
) -> None:
    from factory.catalog import lineage as walks

    if as_csv:
        related = (("ancestor", above), ("itself", [walks.Relative(image, 0)]), ("descendant", below))
        rows = (
            {"relation": relation, "recorded_at": one.image.recorded_at, **_relative_json(one, revoked_by)}
            for relation, found in related
            for one, revoked_by in _revoked_relatives(catalog, found, as_of)
        )
        tables.show(tables.CSV, _RELATIVES, rows, list)
        return
    withdrawn = walks.revoked_by(catalog, image.id, as_of)
    before = {
        "digest": image.digest,
        "name": image.name,
        "arch": image.arch,
        "role": image.role,
        "revoked_by": withdrawn and withdrawn.digest,
        "revoked": withdrawn and {"name": withdrawn.name, "reason": withdrawn.reason, "at": withdrawn.at},
        "ancestors": [_relative_json(*one) for one in _revoked_relatives(catalog, above, as_of)],
    }
    rows = (_relative_json(*one) for one in _revoked_relatives(catalog, below, as_of))
    tables.stream_json(before, "descendants", rows)


def _revoked_relatives(
    catalog: Any, found: Iterable[Relative], as_of: str | None
) -> Iterator[tuple[Relative, str | None]]:
    """Each with the digest of what revoked it, asked for a number of them at once."""
    from factory.catalog import lineage as walks

    for part in walks.batches(found):
        withdrawn = walks.withdrawn(catalog, [one.image.id for one in part], as_of)
        for one in part:
            yield one, withdrawn[one.image.id].digest if one.image.id in withdrawn else None


def _relative_json(one: Relative, revoked_by: str | None) -> dict[str, Any]:
    image = one.image
    return {
        "digest": image.digest, "name": image.name, "arch": image.arch, "role": image.role, "depth": one.depth,
        "revoked_by": revoked_by,
    }  # fmt: skip


def _picture(svg: str | None, *, dot: bool) -> Callable[[Any], None]:
    """What is to be done with a graph."""
    from factory import drawing

    def written(graph: Any) -> None:
        assert svg is not None
        _write(svg, drawing.svg(graph))

    if svg is not None:
        return written
    draw = drawing.dot if dot else drawing.tree
    return lambda graph: tables.line(draw(graph).rstrip("\n"))


def _draw(catalog: Any, image: Any, as_of: str | None, only: tuple[bool, bool], show_it: Callable[[Any], None]) -> None:
    from factory.catalog import lineage as walks
    from factory.compliance import graph

    show_it(graph.around(catalog, image, as_of, above=not only[1], below=not only[0]))
    withdrawn = walks.revoked_by(catalog, image.id, as_of)
    if withdrawn is not None:
        output.say(f"revoked by {withdrawn.name} {withdrawn.digest}: {tables.cell(withdrawn.reason)}")


def _write(target: str, text: str) -> None:
    from factory import files

    if target == "-":
        tables.line(text.rstrip("\n"))
        return
    path = Path(target)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", where="--svg")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", where="--svg", hint="name the file to write")
    files.replace(path, text.encode())
    output.say(f"written: {path}")
