"""`factory packages`, `where`, `diff`: what is in an image, which images have something, what differs between two."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables, times
from factory.errors import UsageError
from factory.model import Layout
from factory.tabular import Row

if TYPE_CHECKING:
    from factory.catalog.packages import KnownPackage
    from factory.compliance.diff import Difference
    from factory.compliance.where import Answer, Found, Unknown

_SHOWN = 1000
"""So many images a table shows unless --all is given; --json and --csv have them all."""
_UNKNOWN = 100
"""So many instances and channels that there is no answer for are named in JSON; all are counted."""


@click.command()
@click.argument("target", metavar="[NAME|DIGEST]", required=False)
@click.option("--find", metavar="PACKAGE", help="The images that have it, like 'openssl < 3.0.15' or 'src:openssl'.")
@tables.forms
@click.pass_obj
def packages(obj: dict[str, Any], /, target: str | None, find: str | None, as_json: bool, as_csv: bool) -> None:
    """What is installed in an image; with --find, which images have a package, by dpkg's order of versions.

    The signs are < <= = >= > != (and dpkg's << and >>); several bounds are joined by commas. `src:NAME` asks by the
    source package and its version. Where those images run: factory where.
    """
    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    if (target is None) == (find is None):
        raise UsageError(
            "name an image, or say what to --find", hint="factory packages web, or --find with the name of a package"
        )
    layout = Layout(obj["folder"].resolve())
    if find is not None:
        _find(layout, find, form)
    else:
        assert target is not None
        _installed(layout, target, form)


def _installed(layout: Layout, target: str, form: str) -> None:
    from factory.catalog import contents, finding
    from factory.compliance.asking import asking

    with asking(layout, output.say) as catalog:
        image = finding.one(catalog, target)
        found = [] if image.package_set is None else contents.members(catalog.connection, image.package_set)
    if image.package_set is None:
        output.say(f"the catalog does not know what is installed in {image.who} {image.digest}")
    rows = [vars(package) for package in found]
    columns = ("name", "version", "arch", "source", "source_version")
    tables.show(
        form, columns, rows, lambda all_rows: {"digest": image.digest, "name": image.name, "packages": all_rows}
    )


def _find(layout: Layout, asked: str, form: str) -> None:
    from factory.compliance import where as flow
    from factory.compliance.asking import asking

    with asking(layout, output.say) as catalog:
        answer = flow.holders(catalog, asked)
        rows = (
            {"name": one.image.name, "arch": one.image.arch, "digest": one.image.digest,
             "package": package.name, "version": package.version, "recorded_at": one.image.recorded_at}
            for one in catalog.streamed(answer.images)
            for package in one.packages
        )  # fmt: skip
        if form == tables.JSON:
            before = {"find": answer.asked, "sets_count": answer.set_count, "images_count": answer.image_count}
            tables.stream_json(before, "images", rows)
        else:
            tables.show(form, ("name", "arch", "digest", "package", "version", "recorded_at"), rows, list)
    output.say(_counted(answer))


def _counted(answer: Answer) -> str:
    images = f"{answer.image_count} image{'' if answer.image_count == 1 else 's'}"
    if answer.of is not None:
        return f"{images}: {answer.of.who} {answer.of.digest[:19]}… and what descends from it"
    return f"{images} with {answer.asked}, of {answer.set_count} different set{'' if answer.set_count == 1 else 's'}"


@click.command()
@click.argument("asked", metavar="PACKAGE|DIGEST")
@click.option("--all", "everything", is_flag=True, help=f"In a table, more than {_SHOWN} images.")
@times.as_of
@tables.forms
@click.pass_obj
def where(obj: dict[str, Any], /, asked: str, everything: bool, as_of: str | None, as_json: bool, as_csv: bool) -> None:
    """Which images have a package, or are or descend from an image; which channels and running instances do.

    PACKAGE may have bounds, like 'openssl < 3.0.15' or 'src:openssl >= 3.0, < 3.0.15'. DIGEST is that of an image, a
    stored form, or a package's file; an id that an image has where it is published will do too.
    """
    from factory.compliance import where as flow
    from factory.compliance.asking import asking

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    with asking(Layout(obj["folder"].resolve()), output.say) as catalog:
        answer = flow.where(catalog, asked, times.moment(as_of))
        found = catalog.streamed(answer.images)
        if form == tables.JSON:
            tables.stream_json(_where_json(answer), "images", map(_found_json, found))
        elif form == tables.CSV:
            tables.show(form, _WHERE, _where_rows(answer, found), list)
        else:
            _tell_where(answer, found, None if everything else _SHOWN)
    if answer.unknown:
        hint = "they may have it too; factory catalog import takes over what those who baked them know"
        output.say(f"{output.colour('warning:', 'yellow', 'bold')} {answer.unknown}: {hint}")


def _where_json(answer: Answer) -> dict[str, Any]:
    return {
        "asked": answer.asked,
        "digest": answer.of and answer.of.digest,
        "packages": None if answer.packages is None else list(map(_package_json, answer.packages)),
        "sets_count": answer.set_count,
        "images_count": answer.image_count,
        "channels": [
            {"channel": one.assignment.channel, "name": one.assignment.name, "arch": one.assignment.arch,
             "digest": one.assignment.digest, "made_at": one.assignment.made_at, "packages": _named(one.packages)}
            for one in answer.channels
        ],
        "instances": [
            {"fleet": one.instance.fleet, "generation": one.instance.generation, "provider": one.instance.provider,
             "native": one.instance.native, "launched_at": one.instance.launched_at, "name": one.image.name,
             "arch": one.image.arch, "digest": one.image.digest, "packages": _named(one.packages)}
            for one in answer.instances
        ],
        "unknown": _unknown_json(answer.unknown),
    }  # fmt: skip


def _unknown_json(unknown: Unknown) -> dict[str, Any]:
    return {
        "instances_count": len(unknown.instances),
        "channels_count": len(unknown.channels),
        "instances": [
            {"fleet": one.fleet, "provider": one.provider, "native": one.native, "digest": one.digest}
            for one in unknown.instances[:_UNKNOWN]
        ],
        "channels": [
            {"channel": one.channel, "name": one.name, "arch": one.arch, "digest": one.digest}
            for one in unknown.channels[:_UNKNOWN]
        ],
    }


def _package_json(package: KnownPackage) -> dict[str, Any]:
    return {key: value for key, value in vars(package).items() if key != "id"}


def _named(packages: tuple[KnownPackage, ...]) -> list[str]:
    return [str(package) for package in packages]


def _found_json(one: Found) -> dict[str, Any]:
    return {
        "name": one.image.name, "arch": one.image.arch, "digest": one.image.digest,
        "recorded_at": one.image.recorded_at, "role": one.image.role, "depth": one.depth,
        "packages": _named(one.packages), "channels": list(one.channels), "instances": one.instances,
        "revoked_by": one.withdrawn and one.withdrawn.digest,
    }  # fmt: skip


def _found_row(one: Found) -> Row:
    return {**_found_json(one), "packages": _versions(one.packages)}


def _versions(packages: tuple[KnownPackage, ...]) -> list[str]:
    return [f"{package.name}={package.version}" for package in packages]


_WHERE = (
    "what", "name", "arch", "digest", "packages", "channels", "fleet", "generation", "provider", "native",
    "launched_at", "made_at", "recorded_at", "instances", "revoked_by",
)  # fmt: skip


def _where_rows(answer: Answer, found: Iterator[Found]) -> Iterator[Row]:
    """Each instance, channel and image as a row of CSV; `what` says which it is."""
    said = _where_json(answer)
    for row, runs in zip(said["instances"], answer.instances, strict=True):
        yield {**row, "what": "instance", "packages": _versions(runs.packages)}
    for row, stands in zip(said["channels"], answer.channels, strict=True):
        yield {**row, "what": "channel", "channels": row["channel"], "packages": _versions(stands.packages)}
    for one in found:
        yield {**_found_row(one), "what": "image"}


_RUNS = ("fleet", "generation", "provider", "native", "launched_at", "name", "digest")
_STANDS = ("channel", "name", "arch", "digest", "made_at")
_HOLDS = ("name", "arch", "digest", "recorded_at")


def _tell_where(answer: Answer, found: Iterator[Found], most: int | None) -> None:
    said = _where_json(answer)
    machines, channels = said["instances"], said["channels"]
    held = ("packages",) if answer.packages is not None else ()
    tables.line(_counted(answer))
    if not machines:
        tables.line("no running instance that the catalog knows of")
    tables.section(f"Running instances ({len(machines)})", (*_RUNS, *held), machines)
    tables.section(f"Channels ({len(channels)})", (*_STANDS, *held), channels)
    rows = ({**_found_row(one), "revoked": one.withdrawn and one.withdrawn.reason} for one in found)
    columns = (*_HOLDS, *held, "channels", "instances", "revoked")
    tables.section(f"Images ({answer.image_count})", columns, itertools.islice(rows, most))
    if most is not None and answer.image_count > most:
        output.say(f"{answer.image_count - most} more images: --all, --json or --csv")


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--markdown", is_flag=True, help="A changelog.")
@tables.forms
@click.pass_obj
def diff(obj: dict[str, Any], /, before: str, after: str, markdown: bool, as_json: bool, as_csv: bool) -> None:
    """What differs between two images: packages, inputs, settings, and every file where the manifests are here.

    A and B are names (the image recorded last) or digests, which may be shortened: factory images web lists them.
    """
    from factory.catalog import finding
    from factory.compliance import diff as flow
    from factory.compliance.asking import asking
    from factory.store import Store

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    if markdown and form != tables.TABLE:
        raise UsageError("--markdown excludes the other forms", where="--markdown")
    layout = Layout(obj["folder"].resolve())
    with asking(layout, output.say) as catalog:
        one, other = finding.one(catalog, before), finding.one(catalog, after)
        found = flow.difference(catalog, Store(layout.store), one, other)
    if markdown:
        tables.line(flow.markdown(found).rstrip("\n"))
    else:
        _show_difference(found, form)


def _show_difference(found: Difference, form: str) -> None:
    columns = ("what", "name", "kind", "old", "new")
    rows = [vars(change) for change in found.changes]
    if form == tables.JSON:
        names = {"package": "packages", "input": "inputs", "setting": "settings", "file": "files"}
        output.document(
            {
                "a": {"digest": found.before.digest, "name": found.before.name, "arch": found.before.arch},
                "b": {"digest": found.after.digest, "name": found.after.name, "arch": found.after.arch},
                **{
                    plural: [{key: row[key] for key in columns[1:]} for row in rows if row["what"] == what]
                    for what, plural in names.items()
                },
                "files_unknown": found.files_unknown,
            }
        )
    else:
        tables.show(form, columns, rows, list)
    if found.files_unknown:
        output.say(f"the files were not compared: {found.files_unknown}")
    if not rows and not found.files_unknown:
        output.say(f"{found.before.who} and {found.after.who} are the same in all of it")
