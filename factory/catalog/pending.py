"""Whether a crash left a record half made. Cheap: plain sqlite3, for the way of a bake that has nothing to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from factory.errors import CatalogError


def pending(path: Path) -> bool:
    """Whether the catalog in a file has an intent without an end; False where there is no catalog. CatalogError."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path.absolute().as_uri() + "?mode=rw", uri=True, timeout=60)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                return False  # killed before its first migration
            return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM open_intents)").fetchone()[0])
    except sqlite3.Error as error:
        raise CatalogError(
            f"the catalog cannot be read: {error}",
            where=str(path),
            hint=f"put a backup in its place, or move it away (mv {path.name} {path.name}.damaged): "
            "images.lock and the store do not need it",
        ) from error
