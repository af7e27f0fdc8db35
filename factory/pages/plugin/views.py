"""The pages: each asks the copy of the catalog, in a thread of Datasette's, and hands the answer to a template."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from datasette import Response

from factory import drawing, tabular
from factory.catalog import contents, copies, details, finding, images, packages
from factory.catalog import lineage as lineages
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.catalog.images import Wanted
from factory.compliance import attested as signed
from factory.compliance import graph
from factory.digest import Digest
from factory.errors import UsageError
from factory.pages.plugin import holding
from factory.pages.plugin.tables import DATABASE
from factory.pages.plugin.words import hex_of

T = TypeVar("T")
PAGE = 50
_COLUMNS = ("name", "version", "arch", "source", "source_version")
LIMIT_S = 10.0
"""So long a page may ask. It takes milliseconds; this is for what nobody foresaw."""


async def _ask(datasette: Any, question: Callable[[Catalog], T]) -> T:
    """What the copy answers. Raises CatalogError."""
    database = datasette.get_database(DATABASE)

    def asked(connection: Any) -> T:
        with copies.asked(connection, datasette.pages.layout.catalog, LIMIT_S) as catalog:
            return question(catalog)

    answer: T = await database.execute_fn(asked)
    return answer


async def _page(datasette: Any, request: Any, template: str, context: dict[str, Any]) -> Any:
    body = await datasette.render_template(template, context, request=request)
    return Response.html(body, headers={"cache-control": "no-cache"})


async def overview(datasette: Any, request: Any) -> Any:
    """The images, the newest first, a page at a time; above them the numbers."""
    name, channel = _argument(request, "name"), _argument(request, "channel")
    called, _, arch = name.partition("/")
    before = _number(request, "before")
    wanted = Wanted(called or None, arch or None, channel or None)
    rows = await _ask(datasette, lambda catalog: images.listed_page(catalog, wanted, before, PAGE + 1))
    kept = {key: value for key, value in (("name", name), ("channel", channel)) if value}
    older = urlencode({**kept, "before": rows[PAGE - 1].image.id}) if len(rows) > PAGE else None
    return await _page(
        datasette, request, "overview.html",
        {"rows": rows[:PAGE], "name": name, "channel": channel, "older": older, "newest": urlencode(kept),
         "is_first": before is None},
    )  # fmt: skip


async def image(datasette: Any, request: Any) -> Any:
    """All that is known of one image."""
    layout = datasette.pages.layout

    def question(catalog: Catalog) -> dict[str, Any]:
        known = _known(catalog, request)
        found = details.details(catalog, known)
        judged = signed.attested(layout, catalog, known.digest, datetime.now(UTC))
        return {
            "image": known,
            "found": found,
            "channels": sorted({one.channel for one in found.promotions if one.in_force}),
            "withdrawn": lineages.revoked_by(catalog, known.id),
            "signed": judged,
            "promotions": signed.promotion_rows(found.promotions, judged.by_envelope),
            "graph": graph.around(catalog, known),
        }

    context = await _ask(datasette, question)
    checks = sorted(context["found"].checks, key=lambda check: (check.outcome == "passed", check.test))
    drawn = _drawn(drawing.bounded(context["graph"], 14))
    return await _page(datasette, request, "image.html", {**context, "checks": checks, "drawing": drawn})


async def image_packages(datasette: Any, request: Any) -> Any:
    """The packages of one image, or those whose name or source contains what is asked for."""
    asked = _argument(request, "q").lower()
    known, held = await _ask(datasette, lambda catalog: _held(catalog, request))
    shown = [one for one in held if asked in one.name.lower() or asked in one.source.lower()]
    context = {"image": known, "held": held, "shown": shown, "q": asked}
    return await _page(datasette, request, "image_packages.html", context)


async def packages_file(datasette: Any, request: Any) -> Any:
    """The packages of one image as a file: CSV, or the document that `factory packages --json` gives."""
    known, held = await _ask(datasette, lambda catalog: _held(catalog, request))
    rows = [{name: getattr(one, name) for name in _COLUMNS} for one in held]
    if request.url_vars["form"] == "json":
        return Response.json({"digest": known.digest, "packages": rows})
    out = io.StringIO()
    tabular.write_csv(out, _COLUMNS, rows)
    name = f"packages-{hex_of(known.digest)[:12]}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(out.getvalue(), headers=headers, content_type="text/csv; charset=utf-8")


def _held(catalog: Catalog, request: Any) -> tuple[KnownImage, list[InstalledPackage]]:
    known = _known(catalog, request)
    return known, [] if known.package_set is None else contents.members(catalog.connection, known.package_set)


async def lineage(datasette: Any, request: Any) -> Any:
    """What an image descends from and what descends from it, as a picture and as a list."""
    known, found = await _ask(datasette, lambda catalog: _around(catalog, request))
    return await _page(datasette, request, "lineage.html", {"image": known, "graph": found, "drawing": _drawn(found)})


async def lineage_file(datasette: Any, request: Any) -> Any:
    """The same picture as a file of its own."""
    known, found = await _ask(datasette, lambda catalog: _around(catalog, request))
    headers = {"content-disposition": f'attachment; filename="lineage-{hex_of(known.digest)[:12]}.svg"'}
    return Response(drawing.svg(found), headers=headers, content_type="image/svg+xml; charset=utf-8")


def _around(catalog: Catalog, request: Any) -> tuple[KnownImage, drawing.Graph]:
    known = _known(catalog, request)
    return known, graph.around(catalog, known)


async def lineage_style(datasette: Any, request: Any) -> Any:
    """What the pictures inside pages look like."""
    return Response(drawing.STYLE, content_type="text/css; charset=utf-8", headers={"cache-control": "no-cache"})


async def search(datasette: Any, request: Any) -> Any:
    """Packages by part of their name or source, images by name or by the beginning of a digest."""
    asked = _argument(request, "q").strip()

    def question(catalog: Catalog) -> dict[str, Any]:
        return {
            "names": packages.search(catalog, asked, holding.MOST + 1) if asked else [],
            "images": holding.images_called(catalog, asked) if asked else [],
        }

    found = await _ask(datasette, question)
    return await _page(datasette, request, "search.html", {**found, "q": asked, "most": holding.MOST})


async def package(datasette: Any, request: Any) -> Any:
    """A package: its versions; of one version which images hold it, and where it runs."""
    name, version = _argument(request, "name"), _argument(request, "version")
    before = _argument(request, "after")
    if not version:
        rows = await _ask(datasette, lambda catalog: holding.versions(catalog, name))
        if not rows:
            raise UsageError(f"no image here ever had a package {name[:80]!r}", hint="search by a part of its name")
        return await _page(datasette, request, "package.html", {"name": name, "rows": rows})
    found = await _ask(datasette, lambda catalog: holding.holders(catalog, name, version, before))
    if found is None:
        raise UsageError(f"no image here ever had {name[:80]!r} in the version {version[:80]!r}")
    return await _page(
        datasette, request, "package_version.html",
        {"name": name, "version": version, "found": found, "is_first": not before,
         "more": urlencode({"name": name, "version": version, "after": found.after}) if found.after else None},
    )  # fmt: skip


def _known(catalog: Catalog, request: Any) -> KnownImage:
    """The image that the address names. UsageError where there is none."""
    digest = Digest(f"sha256:{request.url_vars['hex']}")
    found = finding.by_digests(catalog, [digest])
    if digest not in found:
        raise UsageError(f"the catalog knows no image {digest}", hint="it may be in the catalog of another factory")
    return found[digest]


def _drawn(found: drawing.Graph) -> str:
    return drawing.svg(found, lambda node: f"/image/{hex_of(node.digest)}", is_styled=False)


def _argument(request: Any, name: str) -> str:
    return str(request.args.get(name) or "")[:300]


def _number(request: Any, name: str) -> int | None:
    said = _argument(request, name)
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else None
