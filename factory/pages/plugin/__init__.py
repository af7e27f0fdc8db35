"""The plugin that Datasette loads: routes, what may be seen, words for templates, and errors as pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasette import Response, hookimpl
from datasette.database import QueryInterrupted
from markupsafe import Markup

from factory import drawing
from factory.digest import is_digest
from factory.errors import CatalogError, FactoryError, UsageError
from factory.pages.plugin import table_file, views, words
from factory.pages.plugin.tables import DATABASE, SHOWN

_DIGEST = r"(?P<hex>[0-9a-f]{64})"


# Datasette's decorators have no types; hence the comments at each.
@hookimpl  # type: ignore[untyped-decorator]
def register_routes() -> list[tuple[str, Any]]:
    """Our pages. What Datasette would show at these paths is not shown."""
    return [
        (r"^/$", views.overview),
        (rf"^/image/{_DIGEST}$", views.image),
        (rf"^/image/{_DIGEST}/packages$", views.image_packages),
        (rf"^/image/{_DIGEST}/packages\.(?P<form>csv|json)$", views.packages_file),
        (rf"^/image/{_DIGEST}/lineage$", views.lineage),
        (rf"^/image/{_DIGEST}/lineage\.svg$", views.lineage_file),
        (r"^/search$", views.search),
        (r"^/package$", views.package),
        (r"^/-/lineage\.css$", views.lineage_style),
        (rf"^/{DATABASE}/(?P<view>{'|'.join(SHOWN)})\.csv$", table_file.whole),
    ]


@hookimpl  # type: ignore[untyped-decorator]
def permission_allowed(action: str, resource: Any) -> bool | None:
    """The views of the catalog that are for people; no SQL of the visitor's, no download, nothing of Datasette's."""
    if action == "view-instance":
        return True
    if action == "view-database":
        return bool(resource == DATABASE)
    if action == "view-table":
        return bool(resource[0] == DATABASE and resource[1] in SHOWN)
    return False


@hookimpl  # type: ignore[untyped-decorator]
def prepare_jinja2_environment(env: Any) -> None:
    """Whatever a template prints is escaped by Jinja; here what has no shape is shown as its escape, as elsewhere."""
    env.finalize = _shown
    env.filters.update(words.FILTERS)
    env.globals["SHOWN"] = SHOWN


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return drawing.visible(value)
    return value


@hookimpl  # type: ignore[untyped-decorator]
def render_cell(value: Any, column: str) -> Any:
    """A cell of a table: a digest of an image leads to its page, a time and a fingerprint take less room."""
    if column in ("digest", "image") and is_digest(value):
        return Markup('<a href="/image/{}"><code>{}</code></a>').format(words.hex_of(value), words.short(value))
    if isinstance(value, str) and is_digest(value):
        return Markup('<code title="{}">{}</code>').format(value, words.short(value))
    if column in ("at", "made_at", "recorded_at", "launched_at") and isinstance(value, str):
        return Markup('<time datetime="{}">{}</time>').format(value, words.minute(value))
    return None


@hookimpl  # type: ignore[untyped-decorator]
def extra_template_vars(datasette: Any) -> dict[str, Any]:
    """What every page's frame says."""
    return {"pages": datasette.pages}


@hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]
def handle_exception(datasette: Any, request: Any, exception: Exception) -> Iterator[None]:
    """An error of ours as a page, and a question that SQLite was not given more time for; others are Datasette's.

    In place of what Datasette would do: that prints a traceback, whoever answers.
    """
    outcome: Any = yield
    if isinstance(exception, QueryInterrupted) or isinstance(exception.__context__, QueryInterrupted):
        exception = CatalogError("that takes too long here", hint="ask for less at once: filter by a column")
    if isinstance(exception, FactoryError):
        outcome.force_result([_page_of(datasette, request, exception)])


async def _page_of(datasette: Any, request: Any, error: FactoryError) -> Any:
    status = 404 if isinstance(error, UsageError) else 503
    context = {"status": status, "title": None, "error": error.message, "hint": error.hint}
    if request.path.endswith(".json"):
        return Response.json({"ok": False, **context}, status=status)
    body = await datasette.render_template("error.html", context, request=request)
    return Response.html(body, status=status)
