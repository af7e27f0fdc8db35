"""What operators said of a fleet outside of its rollouts: a size that fleets.toml does not say, and its end.

A size holds while fleets.toml says what it said then, and until the fleet is destroyed. A fleet is destroyed until the
next rollout of it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from factory.catalog import chain, rollouts
from factory.catalog.clock import now
from factory.catalog.database import Catalog

Wanted = Literal["size", "destroy", "destroyed"]


@dataclass(frozen=True)
class Order:
    """What is said. `size` None: as many as fleets.toml says, which is `written` now."""

    fleet: str
    wanted: Wanted
    size: int | None = None
    written: int | None = None


def put(catalog: Catalog, fence: int, order: Order) -> None:
    """Note an order. Raises ConflictError where the lease on the fleet is lost."""
    last = rollouts.last(catalog, order.fleet)
    with catalog.writing() as database:
        rollouts.require_fence(database.conn, order.fleet, fence)
        values = [order.fleet, now(), chain.local_user(), order.wanted, order.size, order.written, last and last.id]
        database.conn.execute(
            "INSERT INTO fleet_orders (fleet, at, actor, wanted, size, written, rollout) VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        details = {"size": order.size, "written": order.written} if order.wanted == "size" else {}
        action = {"size": "scaled fleet", "destroy": "began to destroy fleet", "destroyed": "destroyed fleet"}
        chain.append(database.conn, chain.Entry(action[order.wanted], order.fleet, details=details))


def size(catalog: Catalog, fleet: str, written: int) -> int:
    """How many instances a fleet is to have, of which fleets.toml says `written`."""
    rows = catalog.query(
        "SELECT wanted, size, written FROM fleet_orders WHERE fleet = ? ORDER BY id DESC LIMIT 1", [fleet]
    )
    if not rows or rows[0]["wanted"] != "size" or rows[0]["size"] is None or rows[0]["written"] != written:
        return written
    return int(rows[0]["size"])


def end(catalog: Catalog, fleet: str) -> str | None:
    """`destroy`: somebody began to destroy the fleet; `destroyed`: it was; None: neither, or rolled out since."""
    sql = "SELECT wanted, rollout FROM fleet_orders WHERE fleet = ? AND wanted <> 'size' ORDER BY id DESC LIMIT 1"
    rows = catalog.query(sql, [fleet])
    last = rollouts.last(catalog, fleet)
    if not rows or rows[0]["rollout"] != (last and last.id):
        return None
    return str(rows[0]["wanted"])


def ends(catalog: Catalog, fleet: str) -> frozenset[str]:
    """The ids of the rollouts after which, and before the next, somebody began to destroy the fleet."""
    sql = "SELECT DISTINCT rollout FROM fleet_orders WHERE fleet = ? AND wanted <> 'size' AND rollout IS NOT NULL"
    return frozenset(str(row["rollout"]) for row in catalog.query(sql, [fleet]))
