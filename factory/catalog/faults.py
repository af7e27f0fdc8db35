"""What SQLite refuses, told so that somebody can act on it. Plain sqlite3: `pending` must stay quick.

Tells apart what SQLite's own messages do not: another process that holds the catalog, a file that is not to be written,
no room, a file that is damaged, and one that was changed by hand. Nothing is ever repaired here. A fault of ours (a
cursor used wrongly) is none of these and passes through.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from factory.errors import CatalogError

BUSY_S = 60
"""How long a writer waits for another."""

RESTORE = (
    "put a backup in its place, or begin anew (images.lock and the store do not need it): first move NAME, NAME-wal and"
    " NAME-shm away, all three"
)
CHECK_COMMAND = "factory catalog check"
CHECK = f"{CHECK_COMMAND} says what else; {{restore}}"
_MINE = "the file and its folder must be yours to read and write: ls -l {folder}"
_WAL_WRITER, _WAL_CHECKPOINT = 120, 121
"""Bytes of the -shm file that who writes, or moves the log into the file, locks (SQLite: wal.c, WAL_WRITE_LOCK)."""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What goes wrong with the catalog in `path` inside leaves as CatalogError."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise of(error, path) from error
    except json.JSONDecodeError as error:
        raise damaged(path, f"a text in it that should be JSON is none ({error.msg})") from error


def of(error: sqlite3.Error, path: Path) -> CatalogError:
    """A SQLite error as one of ours. What SQLite says stands in it."""
    code = getattr(error, "sqlite_errorcode", None)
    kind = None if code is None else code & 0xFF
    where = str(path)
    folder = path.parent
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        holders = ", ".join(who_holds(path))
        return CatalogError(
            "another process holds the catalog, and did not let go in time" + (f": {holders}" if holders else ""),
            where=where,
            hint="wait until it has ended, then run this again" if holders else f"who has it open: fuser -v {path}",
        )
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return CatalogError(
            f"the catalog cannot be opened or written here: {error}", where=where, hint=_MINE.format(folder=folder)
        )
    if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOLFS):
        return CatalogError(
            f"the disk does not take or give what the catalog needs: {error}",
            where=where,
            hint=f"make room (df {folder}); if there is room, the disk has a fault (dmesg). Nothing was half written",
        )
    if kind == sqlite3.SQLITE_CONSTRAINT:
        return CatalogError(f"the catalog refuses this: {error}", where=where)
    if kind == sqlite3.SQLITE_NOTADB:
        return CatalogError(
            "this is no catalog: SQLite does not know it as a database", where=where, hint=restore(path)
        )
    if kind == sqlite3.SQLITE_ERROR and _of_schema(str(error)):
        return CatalogError(
            f"the catalog was changed by hand, or is not whole: {error}",
            where=where,
            hint=CHECK.format(restore=restore(path)),
        )
    if kind == sqlite3.SQLITE_CORRUPT or (kind is None and "decode" in str(error)):
        return damaged(path, str(error))
    return CatalogError(f"the catalog cannot be used: {error}", where=where, hint=f"{CHECK_COMMAND} looks it over")


def damaged(path: Path, what: str) -> CatalogError:
    """The error for a catalog whose bytes are not what was written."""
    hint = CHECK.format(restore=restore(path))
    return CatalogError(f"the catalog is damaged: {what}", where=str(path), hint=hint)


def restore(path: Path) -> str:
    """What to do about a catalog that cannot be used."""
    return RESTORE.replace("NAME", path.name)


def refuse_empty(path: Path) -> None:
    """CatalogError for a file of no bytes: none is ever left by us, so it was cut. Taking it for a new catalog would
    hide that all is gone."""
    if path.is_file() and path.stat().st_size == 0:
        raise CatalogError("the catalog is empty: a file of no bytes", where=str(path), hint=restore(path))


def who_holds(path: Path) -> list[str]:
    """The processes that write to the catalog at this moment, as `process PID (NAME)`; none where it cannot be seen."""
    found: dict[str, None] = {}
    with suppress(OSError, ValueError, IndexError):
        files = {_inode(path): None, _inode(path.with_name(f"{path.name}-shm")): (_WAL_WRITER, _WAL_CHECKPOINT)}
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if len(words) != 8 or words[3] != "WRITE":  # those with `->` wait for a lock, and have none
                continue
            bytes_of = files.get(int(words[5].rpartition(":")[2]), ())
            end = int(words[7]) if words[7] != "EOF" else 1 << 62
            if bytes_of is None or any(int(words[6]) <= one <= end for one in bytes_of):
                found[_process(words[4])] = None
    return list(found)


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else -1


def _process(pid: str) -> str:
    name = ""
    with suppress(OSError):
        name = f" ({Path('/proc', pid, 'comm').read_text().strip()})"
    return f"process {pid}{name}" + (", this one" if pid == str(os.getpid()) else "")


def _of_schema(message: str) -> bool:
    """Whether SQLite misses a part of the schema: no statement of ours names what our migrations do not make."""
    return (
        message.startswith(("no such", "malformed", "vtable constructor failed", "table "))
        or "has no column" in message
    )
