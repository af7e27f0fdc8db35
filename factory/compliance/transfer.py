"""The catalog as files, for whoever moves it: a backup, an export, and what others exported."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from factory import files
from factory.catalog import audit
from factory.catalog.backup import Backup
from factory.catalog.backup import backup as copy
from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.exchange import export as writing
from factory.catalog.exchange import take_over as reading
from factory.catalog.exchange.take_over import Taken
from factory.compliance.asking import suspecting
from factory.errors import CatalogError, UsageError
from factory.model import Layout

_GZIP_LEVEL = 6
_MOST_NAME = 200


def backup(layout: Layout, target: Path | None, *, force: bool = False) -> Backup:
    """Copy the catalog to a file; None: one named by the time, in .factory/backups. Raises as catalog/backup.py."""
    with Catalog.read(layout.catalog) as catalog, suspecting(catalog):
        moment = now().replace("-", "").replace(":", "").partition(".")[0]
        return copy(catalog, target or layout.state / "backups" / f"catalog-{moment}Z.db", force=force)


def name_of(layout: Layout, said: str | None) -> str:
    """What the catalog is to be called elsewhere: as is said, else as its folder. UsageError for what is no name."""
    name = said or layout.root.name or "factory"
    if not name.isprintable() or len(name) > _MOST_NAME:
        raise UsageError(f"a name is at most {_MOST_NAME} printable characters", where="--name")
    return name


def breaks(layout: Layout) -> list[str]:
    """Where the logs are not as they were written, a sentence each: no import takes an export of them. CatalogError."""
    with Catalog.read(layout.catalog) as catalog, catalog.reading(), suspecting(catalog):
        return [f"the log of {log.name}, {fault}" for log in audit.logs(catalog.connection) for fault in log.breaks]


def lines(layout: Layout, name: str) -> Iterator[str]:
    """The lines of an export. CatalogError, also while they are read."""
    with Catalog.read(layout.catalog) as catalog, suspecting(catalog):
        yield from writing.export(catalog, name)


def export(layout: Layout, target: Path, name: str, *, force: bool = False) -> int:
    """Export into a file that has its name only once it is whole; how many lines. UsageError where it is there already
    and not to be replaced; CatalogError where it cannot be written: nothing is left then."""
    if target.is_dir():
        raise UsageError(f"{target.name} is a folder", where="--to", hint="name a file in it")
    if target.exists() and (not force or (layout.catalog.exists() and target.samefile(layout.catalog))):
        raise UsageError(f"{target.name} is there already", where=str(target), hint="another name, or --force")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as raw:
            count = _write(raw, lines(layout, name), packed=target.suffix == ".gz")
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(target)
        files.sync_folder(target.parent)
    except OSError as error:
        raise CatalogError(
            f"the export cannot be written: {error.strerror or error}",
            where=str(target),
            hint=f"the folder must be there, yours to write to, and have room (df {target.parent})",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def _write(raw: IO[bytes], said: Iterator[str], *, packed: bool) -> int:
    """Write the lines, packed so that the same lines give the same bytes; how many."""
    count = 0
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) if packed else contextlib.nullcontext(raw) as file:
        for line in said:
            file.write(line.encode())
            count += 1
    return count


def take_over(layout: Layout, path: Path, name: str | None = None) -> Taken:
    """Import what another factory exported; begins a catalog where there is none. Raises as exchange/take_over.py does;
    UsageError where there is no such file."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where="FILE", hint="factory catalog export writes one")
    called = None if name is None else name_of(layout, name)
    reading.require_export(path)  # so that what is none does not begin a catalog
    with Catalog.open(layout.catalog) as catalog:
        return reading.take_over(catalog, path, called)
