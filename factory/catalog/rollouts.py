"""The memory of the engine that replaces fleets: leases, plans, states, orders, and calls that were about to be made.

Plans, states and actions are text here (JSON of rollout/model.py's records). Every write of an engine says its fence,
and is refused once somebody else has a higher one. What it records of instances and of a rollout's end is written in
the same transaction as the state it belongs to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from factory.catalog import chain, fleets
from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.fleets import Instance
from factory.digest import Digest, unpacked
from factory.errors import ConflictError


@dataclass(frozen=True)
class Begun:
    """A rollout as it is begun; `plan`, `status`: JSON."""

    id: str
    fleet: str
    from_digest: Digest | None
    to_digest: Digest
    plan: str
    status: str


@dataclass(frozen=True)
class Known:
    """A rollout as it is remembered. `ended`: the state it ended in, None while it goes on."""

    id: str
    fleet: str
    from_digest: Digest | None
    to_digest: Digest
    started_at: str
    plan: str
    status: str
    orders_seen: int
    ended: str | None


@dataclass(frozen=True)
class Past:
    """One state that a rollout came to."""

    at: str
    status: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ordered:
    """What an operator said; `id` rises."""

    id: int
    at: str
    actor: str
    wanted: str


@dataclass(frozen=True)
class Step:
    """What an engine writes with one decision. `launched`: instances seen for the first time, `gone` (native id
    -> why) those that are there no more. `ended`: `state` is the rollout's last."""

    status: str
    orders_seen: int
    notes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    launched: tuple[Instance, ...] = ()
    gone: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    is_new_state: bool = False
    ended: bool = False


# --- leases


def take_lease(catalog: Catalog, fleet: str, holder: Mapping[str, Any], is_alive: Any) -> int:
    """The fence of a new lease on a fleet. `is_alive` (holder) -> whether that process still runs.

    Raises ConflictError where a living process has it.
    """
    with catalog.writing() as database:
        row = _lease(database.conn, fleet)
        if row is not None and row[2] is None and is_alive(json.loads(row[1])):
            other = json.loads(row[1])
            raise ConflictError(
                f"another process ({other.get('pid')}) works on the fleet {fleet}",
                where=f"fleet {fleet}",
                hint=f"follow it: factory rollout watch {fleet}",
            )
        fence = 1 if row is None else int(row[0]) + 1
        values = [fleet, fence, json.dumps(dict(holder), sort_keys=True), now()]
        database.conn.execute("INSERT INTO fleet_leases VALUES (?, ?, ?, ?)", values)
    return fence


def end_lease(catalog: Catalog, fleet: str, fence: int) -> None:
    """Let go of a lease."""
    with catalog.writing() as database:
        sql = (
            "INSERT INTO fleet_lease_ends SELECT ?1, ?2, ?3"
            " WHERE NOT EXISTS (SELECT 1 FROM fleet_lease_ends WHERE fleet = ?1 AND fence = ?2)"
        )
        database.conn.execute(sql, [fleet, fence, now()])


def holder(catalog: Catalog, fleet: str) -> dict[str, Any] | None:
    """Who has the lease on a fleet (or had it, and died with it); None where nobody has."""
    row = _lease(catalog.connection, fleet)
    return None if row is None or row[2] is not None else dict(json.loads(row[1]))


def _lease(connection: sqlite3.Connection, fleet: str) -> tuple[int, str, str | None] | None:
    sql = (
        "SELECT fence, holder, ended_at FROM fleet_leases LEFT JOIN fleet_lease_ends USING (fleet, fence)"
        " WHERE fleet = ? ORDER BY fence DESC LIMIT 1"
    )
    found: tuple[int, str, str | None] | None = connection.execute(sql, [fleet]).fetchone()
    return found


def require_fence(connection: sqlite3.Connection, fleet: str, fence: int) -> None:
    """Raises ConflictError where a lease is not the last one of its fleet, or has ended."""
    row = _lease(connection, fleet)
    if row is None or row[0] != fence or row[2] is not None:
        raise ConflictError(
            f"another process has taken over the fleet {fleet}",
            where=f"fleet {fleet}",
            hint=f"follow it: factory rollout watch {fleet}",
        )


# --- rollouts


def begin(catalog: Catalog, fence: int, begun: Begun) -> None:
    """Note that a rollout begins, with its plan. Raises ConflictError where the lease is lost."""
    with catalog.writing() as database:
        connection = database.conn
        require_fence(connection, begun.fleet, fence)
        moment = datetime.now(UTC)
        fleets.put_rollout(
            connection, fleets.Rollout(begun.id, begun.fleet, begun.to_digest, moment, begun.from_digest)
        )
        connection.execute("INSERT INTO rollout_plans VALUES (?, ?)", [begun.id, begun.plan])
        _put_state(connection, begun.id, Step(begun.status, 0))


def keep(catalog: Catalog, fence: int, rollout: Known, step: Step) -> list[int]:
    """Write one decision of an engine: state, what is about to be done, what came and went; the intents' numbers."""
    with catalog.writing() as database:
        connection = database.conn
        require_fence(connection, rollout.fleet, fence)
        _put_state(connection, rollout.id, step)
        intents = _put_intents(connection, rollout.fleet, rollout.id, fence, step.actions)
        _put_instances(connection, rollout.fleet, step)
        if step.is_new_state:
            details = {"rollout": rollout.id, "state": step.state}
            chain.append(connection, chain.Entry("rollout", rollout.fleet, rollout.to_digest, details=details))
        if step.ended:
            fleets.put_rollout_end(connection, rollout.id, datetime.now(UTC), step.state)
    return intents


def intend(catalog: Catalog, fence: int, fleet: str, actions: Iterable[str], rollout: str | None = None) -> list[int]:
    """Note calls that are about to be made though no rollout came to another state; their numbers."""
    with catalog.writing() as database:
        require_fence(database.conn, fleet, fence)
        return _put_intents(database.conn, fleet, rollout, fence, actions)


def finish(catalog: Catalog, outcomes: Mapping[int, str | None]) -> None:
    """Note how calls went: number of the intent -> None, or why it could not be done."""
    sql = (
        "INSERT INTO rollout_intent_ends SELECT ?1, ?2, ?3, ?4"
        " WHERE NOT EXISTS (SELECT 1 FROM rollout_intent_ends WHERE intent = ?1)"
    )
    with catalog.writing() as database:
        for intent, problem in outcomes.items():
            database.conn.execute(sql, [intent, now(), problem or "done", int(problem is None)])


def open_intents(catalog: Catalog, fleet: str) -> list[str]:
    """The calls of which nobody knows how they went: whoever made them died."""
    sql = (
        "SELECT action FROM rollout_intents WHERE fleet = ?"
        " AND NOT EXISTS (SELECT 1 FROM rollout_intent_ends WHERE intent = rollout_intents.id) ORDER BY id"
    )
    return [row["action"] for row in catalog.query(sql, [fleet])]


def settle(catalog: Catalog, fence: int, fleet: str) -> int:
    """Close the intents of dead engines: what came of them is seen, not remembered; how many there were."""
    with catalog.writing() as database:
        require_fence(database.conn, fleet, fence)
        sql = (
            "INSERT INTO rollout_intent_ends SELECT id, ?, 'its engine died', 0 FROM rollout_intents WHERE fleet = ?"
            " AND fence < ? AND NOT EXISTS (SELECT 1 FROM rollout_intent_ends WHERE intent = rollout_intents.id)"
        )
        return int(database.conn.execute(sql, [now(), fleet, fence]).rowcount)


def last(catalog: Catalog, fleet: str) -> Known | None:
    """The rollout of a fleet that began last."""
    found = known(catalog, fleet, limit=1)
    return found[0] if found else None


def known(catalog: Catalog, fleet: str, limit: int = 20) -> list[Known]:
    """The rollouts of a fleet, the last one first."""
    sql = (
        "SELECT rollouts.id, fleet, from_digest, to_digest, started_at, plan, status, orders_seen,"
        " rollout_ends.state AS ended FROM rollouts JOIN rollout_plans ON rollout_plans.rollout = rollouts.id"
        " JOIN rollout_states ON rollout_states.id ="
        " (SELECT max(id) FROM rollout_states WHERE rollout = rollouts.id)"
        " LEFT JOIN rollout_ends ON rollout_ends.rollout = rollouts.id"
        " WHERE source = 1 AND fleet = ? ORDER BY rollouts.rowid DESC LIMIT ?"
    )
    return [
        Known(
            **{
                **row,
                "from_digest": None if row["from_digest"] is None else unpacked(row["from_digest"]),
                "to_digest": unpacked(row["to_digest"]),
            }
        )
        for row in catalog.query(sql, [fleet, limit])
    ]


def states(catalog: Catalog, rollout: str, after: int = 0) -> list[tuple[int, Past]]:
    """(number, state) of every state a rollout came to after one of a number, in order."""
    sql = "SELECT id, at, status, notes FROM rollout_states WHERE rollout = ? AND id > ? ORDER BY id"
    return [
        (row["id"], Past(row["at"], row["status"], tuple(json.loads(row["notes"]))))
        for row in catalog.query(sql, [rollout, after])
    ]


def recent_states(catalog: Catalog, rollout: str, most: int) -> list[tuple[int, Past]]:
    """As `states`: the last ones, `most` of them, in order."""
    sql = "SELECT id FROM rollout_states WHERE rollout = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    rows = catalog.query(sql, [rollout, most])
    return states(catalog, rollout, rows[0]["id"] if rows else 0)


def entered(catalog: Catalog, rollout: str) -> dict[str, int]:
    """State -> how often a rollout came to it, once for each step."""
    sql = (
        "WITH told AS (SELECT id, json_extract(status, '$.state') AS state, json_extract(status, '$.step') AS step"
        " FROM rollout_states WHERE rollout = ?), changed AS (SELECT state, state IS NOT lag(state) OVER in_order"
        " OR step IS NOT lag(step) OVER in_order AS is_new FROM told WINDOW in_order AS (ORDER BY id))"
        " SELECT state, sum(is_new) AS times FROM changed GROUP BY state"
    )
    return {row["state"]: row["times"] for row in catalog.query(sql, [rollout])}


def ends(catalog: Catalog, fleet: str) -> dict[str, int]:
    """State -> how many rollouts of a fleet ended in it."""
    sql = (
        "SELECT state, count(*) AS times FROM rollout_ends JOIN rollouts ON rollouts.id = rollout_ends.rollout"
        " WHERE source = 1 AND fleet = ? GROUP BY state"
    )
    return {row["state"]: row["times"] for row in catalog.query(sql, [fleet])}


def order(catalog: Catalog, rollout: Known, wanted: str) -> int:
    """Tell a rollout something; whoever drives it obeys at its next turn. The number of the order."""
    with catalog.writing() as database:
        row = {"rollout": rollout.id, "at": now(), "actor": chain.local_user(), "wanted": wanted}
        number = database.table("rollout_orders").insert(row).last_pk
        details = {"rollout": rollout.id, "order": wanted}
        chain.append(database.conn, chain.Entry("ordered", rollout.fleet, rollout.to_digest, details=details))
    assert isinstance(number, int)
    return number


def orders(catalog: Catalog, rollout: str, after: int = 0) -> list[Ordered]:
    """What operators said since an order of a number."""
    sql = "SELECT id, at, actor, wanted FROM rollout_orders WHERE rollout = ? AND id > ? ORDER BY id"
    return [Ordered(**row) for row in catalog.query(sql, [rollout, after])]


def instances(catalog: Catalog, fleet: str) -> dict[str, int]:
    """Native id -> row of every instance of a fleet that is not known to be gone."""
    sql = (
        "SELECT id, native FROM instances WHERE source = 1 AND fleet = ?"
        " AND NOT EXISTS (SELECT 1 FROM instance_ends WHERE instance = instances.id)"
    )
    return {row["native"]: row["id"] for row in catalog.query(sql, [fleet])}


def note_instances(catalog: Catalog, fleet: str, launched: Iterable[Instance], gone: Mapping[str, str]) -> None:
    """Note instances that came and went outside of a rollout."""
    step = Step("", 0, launched=tuple(launched), gone=gone)
    if step.launched or step.gone:
        with catalog.writing() as database:
            _put_instances(database.conn, fleet, step)


def last_generation(catalog: Catalog, fleet: str) -> int:
    """The highest generation that a fleet ever had; 0 for none."""
    rows = catalog.query(
        "SELECT ifnull(max(generation), 0) AS most FROM instances WHERE source = 1 AND fleet = ?", [fleet]
    )
    return int(rows[0]["most"])


def fleet_names(catalog: Catalog) -> list[str]:
    """Every fleet that ever had a rollout or an instance here."""
    sql = "SELECT fleet FROM rollouts WHERE source = 1 UNION SELECT fleet FROM instances WHERE source = 1 ORDER BY 1"
    return [row["fleet"] for row in catalog.query(sql)]


def _put_state(connection: sqlite3.Connection, rollout: str, step: Step) -> None:
    connection.execute(
        "INSERT INTO rollout_states (rollout, at, status, orders_seen, notes) VALUES (?, ?, ?, ?, ?)",
        [rollout, now(), step.status, step.orders_seen, json.dumps(step.notes, ensure_ascii=False)],
    )


def _put_intents(
    connection: sqlite3.Connection, fleet: str, rollout: str | None, fence: int, actions: Iterable[str]
) -> list[int]:
    sql = "INSERT INTO rollout_intents (fleet, rollout, fence, at, action) VALUES (?, ?, ?, ?, ?)"
    return [int(connection.execute(sql, [fleet, rollout, fence, now(), action]).lastrowid or 0) for action in actions]


def _put_instances(connection: sqlite3.Connection, fleet: str, step: Step) -> None:
    for one in step.launched:
        fleets.put_instance(connection, one)
    sql = (
        "SELECT id FROM instances WHERE source = 1 AND fleet = ? AND native = ?"
        " AND NOT EXISTS (SELECT 1 FROM instance_ends WHERE instance = instances.id)"
    )
    for native, reason in step.gone.items():
        for (number,) in connection.execute(sql, [fleet, native]).fetchall():
            fleets.put_instance_end(connection, number, datetime.now(UTC), reason)
