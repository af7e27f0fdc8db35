"""What happened: runs, the tasks of their playbooks, the checks of their images. Written in bulk, never changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from factory import digest as digests
from factory.catalog import chain
from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.digest import Digest

CHECKED = "checked"


@dataclass(frozen=True)
class Run:
    """One run of the factory. `ended_at` and `exit_code` are None while it goes on, or where it was killed."""

    id: str
    started_at: str
    command: str
    ended_at: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Task:
    """One task of a playbook, as it went. `place` is file:line; `outcome` is Ansible's word."""

    play: str
    task: str
    place: str
    started_at: str
    duration_s: float
    outcome: str
    changed: bool = False
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One check of an image, as it went. `exempted`: left out because `skip_checks` names it."""

    test: str
    outcome: str
    duration_s: float = 0.0
    message: str = ""
    exempted: bool = False


def told(counts: Mapping[str, int]) -> str:
    """Outcome -> how many, in words: `12 passed, 1 skipped`; empty where there is none."""
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def begin_run(catalog: Catalog, run: str, command: str) -> None:
    """Note that a run has begun."""
    with catalog.writing() as database:
        row = {"id": run, "started_at": now(), "command": command}
        database.table("runs").insert(row)
        chain.append(database.conn, chain.Entry("began run", command, details={"run": run, "row": chain.of_row(row)}))


def end_run(catalog: Catalog, run: str, exit_code: int) -> None:
    """Note how a run ended."""
    with catalog.writing() as database:
        row = {"run": run, "ended_at": now(), "exit_code": exit_code}
        database.table("run_ends").insert(row)
        details = {"exit_code": exit_code, "row": chain.of_row(row)}
        chain.append(database.conn, chain.Entry("ended run", run, details=details))


def add_tasks(catalog: Catalog, run: str, image: tuple[str, str], tasks: Iterable[Task]) -> None:
    """Note the tasks of an image (name, arch) in a run."""
    with catalog.writing() as database:
        database.table("tasks").insert_all(_rows(run, image, tasks))


def add_checks(catalog: Catalog, run: str, image: tuple[str, str], checks: Iterable[Check]) -> None:
    """Note the checks of an image (name, arch) in a run. Their event has a digest of them."""
    noted = list(checks)
    with catalog.writing() as database:
        database.table("checks").insert_all(_rows(run, image, noted))
        if noted:
            details = {"run": run, "checks": len(noted), "digest": digest_of(noted)}
            chain.append(database.conn, chain.Entry(CHECKED, "/".join(image), details=details))


def digest_of(checks: Iterable[Check]) -> Digest:
    """The digest of checks as they were noted together."""
    rows = [
        [check.test, check.outcome, float(check.duration_s), check.message, bool(check.exempted)] for check in checks
    ]
    return digests.of_bytes(json.dumps(rows, ensure_ascii=False).encode())


def _rows(run: str, image: tuple[str, str], rows: Iterable[Task] | Iterable[Check]) -> Iterator[dict[str, Any]]:
    return ({"run": run, "image": image[0], "arch": image[1], **asdict(row)} for row in rows)


def runs(catalog: Catalog, limit: int = 20) -> list[Run]:
    """The last runs of this factory, the newest first."""
    sql = (
        "SELECT id, started_at, command, ended_at, exit_code FROM runs"
        " LEFT JOIN run_ends ON run = id AND run_ends.source = runs.source WHERE runs.source = 1"
        " ORDER BY runs.rowid DESC LIMIT ?"
    )
    return [Run(**row) for row in catalog.query(sql, [limit])]


def tasks(catalog: Catalog, run: str, image: str | None = None) -> list[tuple[str, str, Task]]:
    """(name, arch, task) of a run, or of one image in it, in the order they were noted."""
    return [(name, arch, Task(**row)) for name, arch, row in _of_run(catalog, "tasks", run, image)]


def checks(catalog: Catalog, run: str, image: str | None = None) -> list[tuple[str, str, Check]]:
    """(name, arch, check) of a run, or of one image in it, in the order they were noted."""
    return [(name, arch, Check(**row)) for name, arch, row in _of_run(catalog, "checks", run, image)]


def _of_run(catalog: Catalog, table: str, run: str, image: str | None) -> Iterable[tuple[str, str, dict[str, Any]]]:
    sql = f"SELECT * FROM {table} WHERE run = :run AND source = 1 AND (:image IS NULL OR image = :image) ORDER BY id"
    for row in catalog.query(sql, {"run": run, "image": image}):
        del row["id"], row["run"], row["source"]
        for flag in {"changed", "exempted"} & row.keys():
            row[flag] = bool(row[flag])
        yield row.pop("image"), row.pop("arch"), row
