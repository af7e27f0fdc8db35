"""Whether a crash left a record half made. Cheap: plain sqlite3, for the way of a bake that has nothing to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from factory.catalog import faults


def pending(path: Path) -> bool:
    """Whether the catalog in a file has an intent without an end; False where there is no catalog. CatalogError."""
    if not path.is_file():
        return False
    uri = path.absolute().as_uri() + "?mode=rw"
    with faults.told(path):
        faults.refuse_empty(path)
        with closing(sqlite3.connect(uri, uri=True, timeout=faults.BUSY_S)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                return False  # begun by an earlier version, killed before its first migration; or none of ours
            return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM open_intents)").fetchone()[0])
