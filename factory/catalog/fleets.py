"""What runs: rollouts and the instances they launched, each with its end once it has one. Written by rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
        row = {
            "id": rollout.id,
            "fleet": rollout.fleet,
            "from_digest": rollout.from_digest and packed(rollout.from_digest),
            "to_digest": packed(rollout.to_digest),
            "started_at": text(rollout.started_at),
        }
        database.table("rollouts").insert(row)
        details = {"rollout": rollout.id, "row": chain.of_row(row)}
        chain.append(database.conn, chain.Entry("began rollout", rollout.fleet, rollout.to_digest, details=details))


def end_rollout(catalog: Catalog, rollout: str, ended_at: datetime, state: str) -> None:
    """Note how a rollout ended."""
    with catalog.writing() as database:
        row = {"rollout": rollout, "ended_at": text(ended_at), "state": state}
        database.table("rollout_ends").insert(row)
        details = {"state": state, "row": chain.of_row(row)}
        chain.append(database.conn, chain.Entry("ended rollout", rollout, details=details))


def add_instance(catalog: Catalog, instance: Instance) -> int:
    """Note that an instance was launched; its number here. CatalogError where it is known."""
    with catalog.writing() as database:
        row = {
            "fleet": instance.fleet,
            "generation": instance.generation,
            "provider": instance.provider,
            "native": instance.native,
            "digest": packed(instance.digest),
            "rollout": instance.rollout,
            "launched_at": text(instance.launched_at),
        }
        number = database.table("instances").insert(row).last_pk
        subject = f"{instance.fleet}: {instance.native}"
        details = {"provider": instance.provider, "generation": instance.generation, "row": chain.of_row(row)}
        chain.append(database.conn, chain.Entry("launched", subject, instance.digest, details=details))
    assert isinstance(number, int)
    return number


def end_instance(catalog: Catalog, instance: int, ended_at: datetime, reason: str) -> None:
    """Note that the instance of this number is gone, and why."""
    with catalog.writing() as database:
        row = {"instance": instance, "ended_at": text(ended_at), "reason": reason}
        database.table("instance_ends").insert(row)
        found = database.conn.execute("SELECT fleet, native FROM instances WHERE id = ?", [instance]).fetchone()
        told = chain.of_row({"native": found[1], "ended_at": row["ended_at"], "reason": reason})
        details = {"reason": reason, "row": told}
        chain.append(database.conn, chain.Entry("retired", f"{found[0]}: {found[1]}", details=details))
