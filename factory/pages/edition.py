"""One copy of the catalog with the Datasette that serves it: made whole, then served, then thrown away as a whole.

Every edition has threads and connections of its own, so that one can be swapped for the next between two requests and
the requests that are still at work end on the one they began with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasette.app import Datasette
from datasette.plugins import DEFAULT_PLUGINS, pm

from factory.catalog import copies, overview
from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.overview import Numbers
from factory.compliance import audit
from factory.compliance.asking import asking, suspecting
from factory.compliance.audit import Integrity
from factory.errors import FactoryError
from factory.model import Layout
from factory.pages import plugin
from factory.pages.plugin.context import Context, Log
from factory.pages.plugin.tables import DATABASE, metadata

State = tuple[int, int, int]
_SETTINGS = {
    "allow_download": False,
    "default_allow_sql": False,
    "default_cache_ttl": 0,
    "default_page_size": 50,
    "facet_time_limit_ms": 500,
    "max_returned_rows": 1000,
    "num_sql_threads": 4,
    "sql_time_limit_ms": 2000,
    "suggest_facets": False,
}


@dataclass(frozen=True)
class Copy:
    """A copy in a file: when it was made, the state of the catalog it is of, how long it took, and its numbers."""

    path: Path
    made_at: str
    state: State
    took_s: float
    numbers: Numbers


@dataclass(frozen=True)
class Making:
    """What making a copy needs: the watch on the catalog, whom to tell, and whether it is still wanted."""

    watch: copies.Watch
    say: Callable[[str], None]
    is_unwanted: Callable[[], bool] = lambda: False


def make_copy(layout: Layout, to: Path, making: Making) -> Copy:
    """Copy the catalog, told of what trust/ gained before. Raises CatalogError; nothing is left then."""
    began = time.monotonic()
    with asking(layout, making.say):
        pass
    with Catalog.read(layout.catalog) as catalog:
        state = making.watch.state()
        made_at = now()
        copies.copy(catalog, to, making.is_unwanted)
    try:
        with Catalog.read(to) as copied:
            counted = overview.numbers(copied)
    except BaseException:
        to.unlink(missing_ok=True)
        raise
    return Copy(to, made_at, state, time.monotonic() - began, counted)


class Edition:
    """A copy that is served. `retire` it, and it goes when the last of its requests has ended."""

    def __init__(self, copy: Copy, datasette: Any) -> None:
        self.copy = copy
        self.datasette = datasette
        self._app = datasette.app()
        self._users = 0
        self._retired = False

    @classmethod
    async def of(cls, layout: Layout, copy: Copy) -> Edition:
        """Datasette on a copy, ready to answer."""
        _register()
        known = {"hash": copy.path.stem, "size": copy.path.stat().st_size, "tables": {}}
        datasette = Datasette(
            immutables=[str(copy.path)],
            inspect_data={DATABASE: known},
            metadata=metadata(),
            settings=_SETTINGS,
        )
        _rename(datasette)
        datasette.pages = Context(layout, copy.made_at, copy.numbers)
        await datasette.invoke_startup()
        return cls(copy, datasette)

    def look_over(self, is_unwanted: Callable[[], bool] = lambda: False) -> None:
        """Follow the logs of the copy to their ends: its pages say from then on what they are worth. Takes a second or
        two for 100,000 events; gives up, and leaves that unsaid, once it `is_unwanted`."""
        layout = self.datasette.pages.layout
        try:
            with Catalog.read(self.copy.path) as catalog:
                catalog.connection.set_progress_handler(lambda: int(is_unwanted()), copies.STEPS)
                with catalog.reading(), suspecting(catalog):
                    found = audit.integrity(layout, catalog, is_copy=True)
        except (FactoryError, OSError) as error:
            if not is_unwanted():
                said = error.message if isinstance(error, FactoryError) else str(error)
                self._tell(Log("The log could not be followed", (said,)))
        else:
            self._tell(Log(_words(found), tuple(found.faults)))

    @property
    def is_looked_over(self) -> bool:
        """Whether its pages say what the logs are worth."""
        return self.datasette.pages.log is not None

    def _tell(self, log: Log) -> None:
        self.datasette.pages = replace(self.datasette.pages, log=log)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self._users += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._users -= 1
            if self._retired and self._users == 0:
                await self._close()

    async def retire(self) -> None:
        """Answer no new request; after the last, remove the copy."""
        self._retired = True
        if self._users == 0:
            await self._close()

    async def _close(self) -> None:
        self.copy.path.unlink(missing_ok=True)
        internal = self.datasette.get_database("_internal")
        await internal.execute_write_fn(_end_thread, block=False)
        self.datasette.executor.shutdown(wait=False)
        for database in self.datasette.databases.values():
            database.close()


def _words(found: Integrity) -> str:
    if len(found.logs) == 1:
        return f"The log {found.worth(found.logs[0])}"
    broken = sum(bool(log.breaks) for log in found.logs)
    return f"Of {len(found.logs)} logs, {len(found.logs) - broken} are unbroken"


def _end_thread(connection: Any) -> None:
    """Ends the thread that writes to Datasette's own database in memory, which would else wait for ever."""
    connection.close()
    raise SystemExit


def _rename(datasette: Any) -> None:
    """Call the database by one name, whichever file it is in."""
    ((name, database),) = [one for one in datasette.databases.items() if one[0] != "_internal"]
    datasette.remove_database(name)
    datasette.add_database(database, name=DATABASE)


def _register() -> None:
    """Our plugin, and of those that happen to be installed beside Datasette none."""
    if pm.is_registered(plugin):
        return
    for found in pm.get_plugins():
        if getattr(found, "__name__", "") not in DEFAULT_PLUGINS:
            pm.unregister(found)
    pm.register(plugin)
