"""A copy of the catalog in one file, made while others write: it gets its name only once it has been proven whole.

The copy is SQLite's own (VACUUM INTO): one moment of the catalog, what is still in its -wal file included. What fails,
for want of room too, leaves nothing behind; what was killed leaves a file that the next backup of that name removes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from factory import files
from factory.catalog import audit, check, faults
from factory.catalog.audit import Log
from factory.catalog.database import Catalog
from factory.digest import Digest, of_file
from factory.errors import CatalogError, TamperedError, UsageError

_TABLES = ("events", "images", "bakes", "packages", "attestations", "runs", "instances")
"""Tables that only grow: a copy has no fewer rows than there were before it was made, and no more than after."""

_NONE = "no backup was made: one of before would be better (factory catalog check says more)"


@dataclass(frozen=True)
class Backup:
    """A backup that was proven. `digest` is of the file; `logs`: every log in it, followed to its end."""

    path: Path
    size_bytes: int
    digest: Digest
    logs: tuple[Log, ...]


def backup(catalog: Catalog, target: Path, *, force: bool = False) -> Backup:
    """Copy the catalog to a file. UsageError where that is there already (and not `force`d) or is the catalog itself.

    CatalogError where it cannot be written, or the copy is damaged, as it is where the catalog is; TamperedError where
    it was tampered with. There is no backup then, and what was there stays.
    """
    _refuse(catalog, target, force=force)
    with _temporary(target) as copy:
        with faults.told(catalog.path):
            before = _counts(catalog.connection)
            catalog.connection.execute("VACUUM INTO ?", [str(copy)])
            after = _counts(catalog.connection)
        logs = _prove(copy, before, after, catalog.path)
        copy.chmod(catalog.path.stat().st_mode & 0o777)
        _sync(copy)
        made = Backup(target, copy.stat().st_size, of_file(copy), logs)
        if force:
            copy.replace(target)
        else:
            _link(copy, target)
        files.sync_folder(target.parent)
    return made


def _refuse(catalog: Catalog, target: Path, *, force: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target.name} is a folder", where="--to", hint="name a file in it")
    if not target.exists():
        return
    if target.samefile(catalog.path):
        raise UsageError("a backup is not put in the place of the catalog itself", where="--to")
    if not force:
        raise UsageError(f"{target.name} is there already", where=str(target), hint="another name, or --force")


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A file beside the target for the copy; gone in the end, whatever happens. Takes away what killed ones left."""
    copy = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*.tmp"):
            pid = left.name.split(".")[-2]
            if left == copy or (pid.isdigit() and not Path("/proc", pid).exists()):
                left.unlink()
        yield copy
    except OSError as error:
        raise CatalogError(
            f"the backup cannot be written: {error.strerror or error}",
            where=str(target),
            hint=f"the folder must be there, yours to write to, and have room (df {target.parent})",
        ) from error
    finally:
        for path in (copy, copy.with_name(f"{copy.name}-journal")):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES}


def _prove(copy: Path, before: dict[str, int], after: dict[str, int], catalog: Path) -> tuple[Log, ...]:
    """Every log of the copy. Raises where it is not whole, or `catalog check` finds anything in it."""
    with faults.told(catalog), closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        for table, count in _counts(connection).items():
            if not before[table] <= count <= after[table]:
                raise faults.damaged(catalog, f"a copy of it has {count} {table}, where there were {before[table]}")
        logs = tuple(audit.logs(connection))
        for log in logs:
            if log.breaks:
                raise TamperedError(
                    f"the log of {log.name} is not as it was written: {log.breaks[0]}", where=str(catalog), hint=_NONE
                )
        found = next(check.problems(connection, catalog, lambda: list(logs)), None)
    if found is not None:
        kind = TamperedError if found.kind == check.TAMPERED else CatalogError
        raise kind(f"the catalog is not as it was written: {found}", where=str(catalog), hint=_NONE)
    return logs


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(copy: Path, target: Path) -> None:
    """Give the copy its name; unlike a rename, never replaces."""
    try:
        os.link(copy, target)
    except FileExistsError as error:
        raise UsageError(
            f"{target.name} is there already", where=str(target), hint="another name, or --force"
        ) from error
