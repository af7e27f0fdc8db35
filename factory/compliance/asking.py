"""The catalog, opened for a question: first told of what trust/ gained since, such as by a `git pull`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from factory.catalog import check, faults
from factory.catalog.database import Catalog
from factory.errors import CatalogError, FactoryError
from factory.model import Layout
from factory.release import standing

BUSY_S = 1.0
"""So long a question waits for another writer, to tell the catalog first; the answer itself needs not wait."""


@contextmanager
def asking(layout: Layout, say: Callable[[str], None]) -> Iterator[Catalog]:
    """The catalog of a factory, to be read: one state of it, whatever others write meanwhile.

    CatalogError where there is none, or it is not to be read, also for what goes wrong while rows stream inside. Where
    it cannot be written, or another writes for long, what trust/ gained is not in the answer, and that is said.
    """
    if not layout.catalog.is_file():
        raise CatalogError(
            "there is no catalog here",
            where=str(layout.catalog),
            hint="factory bake begins one; factory catalog import takes over what others exported",
        )
    missed: CatalogError | None = None
    if layout.trust.is_dir():
        try:
            with Catalog.open(layout.catalog, BUSY_S) as catalog:
                standing.index(catalog, layout, *standing.ticketed(layout))
        except CatalogError as error:
            missed = error
    with Catalog.read(layout.catalog) as catalog, catalog.reading(), suspecting(catalog):
        if missed is not None:  # said only of a catalog that can be read: else reading it says the same
            say(f"what trust/ gained is not told to the catalog: {missed.message}")
        yield catalog


@contextmanager
def suspecting(catalog: Catalog) -> Iterator[None]:
    """What no code of ours foresaw is, where the catalog is not as it was written, the catalog's: it is looked over
    then, and only then. Where nothing is wrong with it, the error stands: it is a bug."""
    try:
        yield
    except (FactoryError, OSError):
        raise
    except Exception as error:
        found = check.first_problem(catalog.connection, catalog.path)
        if found is None:
            raise
        raise CatalogError(
            f"the catalog is not as it was written: {found}",
            where=str(catalog.path),
            hint=f"factory catalog check tells all; {faults.restore(catalog.path)}",
        ) from error
