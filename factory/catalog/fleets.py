"""What runs: rollouts and the instances they launched, each with its end once it has one. Written by rollouts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from factory.catalog import chain
from factory.catalog.clock import text
from factory.catalog.database import Catalog
from factory.digest import Digest, packed


@dataclass(frozen=True)
class Rollout:
    """A rollout of `to_digest`, in place of `from_digest` (None: the fleet is new)."""

    id: str
    fleet: str
    to_digest: Digest
    started_at: datetime
    from_digest: Digest | None = None


@dataclass(frozen=True)
class Instance:
    """One machine of a fleet. `native`: the id that its provider knows it by."""

    fleet: str
    generation: int
    provider: str
    native: str
    digest: Digest
    launched_at: datetime
    rollout: str | None = None


def begin_rollout(catalog: Catalog, rollout: Rollout) -> None:
    """Note that a rollout has begun. CatalogError where one of this id is known."""
    with catalog.writing() as database:
        put_rollout(database.conn, rollout)


def end_rollout(catalog: Catalog, rollout: str, ended_at: datetime, state: str) -> None:
    """Note how a rollout ended."""
    with catalog.writing() as database:
        put_rollout_end(database.conn, rollout, ended_at, state)


def add_instance(catalog: Catalog, instance: Instance) -> int:
    """Note that an instance was launched; its number here. CatalogError where it is known."""
    with catalog.writing() as database:
        return put_instance(database.conn, instance)


def end_instance(catalog: Catalog, instance: int, ended_at: datetime, reason: str) -> None:
    """Note that the instance of this number is gone, and why."""
    with catalog.writing() as database:
        put_instance_end(database.conn, instance, ended_at, reason)


# --- the same in a transaction that is open


def put_rollout(connection: sqlite3.Connection, rollout: Rollout) -> None:
    """Note that a rollout has begun."""
    row = {
        "id": rollout.id,
        "fleet": rollout.fleet,
        "from_digest": rollout.from_digest and packed(rollout.from_digest),
        "to_digest": packed(rollout.to_digest),
        "started_at": text(rollout.started_at),
    }
    _insert(connection, "rollouts", row)
    details = {"rollout": rollout.id, "row": chain.of_row(row)}
    chain.append(connection, chain.Entry("began rollout", rollout.fleet, rollout.to_digest, details=details))


def put_rollout_end(connection: sqlite3.Connection, rollout: str, ended_at: datetime, state: str) -> None:
    """Note how a rollout ended."""
    row = {"rollout": rollout, "ended_at": text(ended_at), "state": state}
    _insert(connection, "rollout_ends", row)
    details = {"state": state, "row": chain.of_row(row)}
    chain.append(connection, chain.Entry("ended rollout", rollout, details=details))


def put_instance(connection: sqlite3.Connection, instance: Instance) -> int:
    """Note that an instance was launched; its number here."""
    row = {
        "fleet": instance.fleet,
        "generation": instance.generation,
        "provider": instance.provider,
        "native": instance.native,
        "digest": packed(instance.digest),
        "rollout": instance.rollout,
        "launched_at": text(instance.launched_at),
    }
    number = _insert(connection, "instances", row)
    subject = f"{instance.fleet}: {instance.native}"
    details = {"provider": instance.provider, "generation": instance.generation, "row": chain.of_row(row)}
    chain.append(connection, chain.Entry("launched", subject, instance.digest, details=details))
    return number


def put_instance_end(connection: sqlite3.Connection, instance: int, ended_at: datetime, reason: str) -> None:
    """Note that the instance of this number is gone, and why."""
    row = {"instance": instance, "ended_at": text(ended_at), "reason": reason}
    _insert(connection, "instance_ends", row)
    found = connection.execute("SELECT fleet, native FROM instances WHERE id = ?", [instance]).fetchone()
    told = chain.of_row({"native": found[1], "ended_at": row["ended_at"], "reason": reason})
    details = {"reason": reason, "row": told}
    chain.append(connection, chain.Entry("retired", f"{found[0]}: {found[1]}", details=details))


def _insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> int:
    marks = ", ".join("?" * len(row))
    sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
    return int(connection.execute(sql, list(row.values())).lastrowid or 0)
