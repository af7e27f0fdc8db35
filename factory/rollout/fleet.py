"""A fleet as it stands: what serves, and which rollout it has; found by what is remembered and what is seen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from factory import proc
from factory.catalog import fleet_orders, rollouts
from factory.catalog.database import Catalog
from factory.rollout import advice, history
from factory.rollout.history import Ended, Serving
from factory.rollout.model import FleetSpec, Observation, Plan, State, Status
from factory.rollout.trusted import LOCAL

_MOST_LOOKED_BACK = 1000


def places(fleet: FleetSpec) -> tuple[str, ...]:
    """Where its image must be: `local`, or `aws/REGION` for each region, in order."""
    if fleet.provider == LOCAL:
        return (LOCAL,)
    regions = fleet.aws.get("regions") or ()
    named = [region.get("name") if isinstance(region, Mapping) else region for region in regions]  # type: ignore[attr-defined]
    return tuple(f"{fleet.provider}/{name}" for name in named)


def serving(catalog: Catalog, fleet: str, observed: Observation) -> Serving | None:
    """What serves now, after the last rollout that ended; None where there is no instance of it."""
    found = settled(catalog, fleet, observed)
    return found if found is not None and observed.of(found.generation) else None


def settled(catalog: Catalog, fleet: str, observed: Observation) -> Serving | None:
    """What is to serve after the last rollout that ended, whether there is an instance of it or not; None: nothing."""
    return history.settled(past(catalog, fleet), observed)


def past(catalog: Catalog, fleet: str) -> Iterator[Ended]:
    """The rollouts of a fleet that ended, the last one first."""
    ends = fleet_orders.ends(catalog, fleet)
    for known in _known(catalog, fleet):
        if known.ended is not None:
            yield Ended(plan_of(known), State(known.ended), destroyed=known.id in ends)


def _known(catalog: Catalog, fleet: str) -> Iterator[rollouts.Known]:
    """Those that began, the last one first; mostly the first few will do."""
    few = rollouts.known(catalog, fleet)
    yield from few
    yield from rollouts.known(catalog, fleet, _MOST_LOOKED_BACK)[len(few) :]


def next_step(catalog: Catalog, wanted: FleetSpec, observed: Observation) -> str | None:
    """What to do where the last rollout of a fleet failed and could not go back; None where nothing is."""
    known = rollouts.last(catalog, wanted.name)
    if known is None or known.ended != State.ROLLBACK_FAILED:
        return None
    return advice.after_failure(sized(catalog, wanted), list(past(catalog, wanted.name)), observed)


def sized(catalog: Catalog, wanted: FleetSpec) -> FleetSpec:
    """A fleet of fleets.toml with the size that `factory fleet scale` gave it, where it did."""
    return replace(wanted, size=fleet_orders.size(catalog, wanted.name, wanted.size))


def plan_of(known: rollouts.Known) -> Plan:
    """The plan of a rollout."""
    return msgspec.json.decode(known.plan, type=Plan)


def status_of(known: rollouts.Known) -> Status:
    """Where a rollout is."""
    return msgspec.json.decode(known.status, type=Status)


def next_generation(catalog: Catalog, fleet: str, observed: Observation) -> int:
    """A number that no generation of the fleet ever had."""
    planned = [
        number
        for known in rollouts.known(catalog, fleet, limit=1)
        for number in (plan_of(known).generation, plan_of(known).baseline_generation or 0)
    ]
    seen = [one.generation for one in observed.instances]
    return max([rollouts.last_generation(catalog, fleet), *planned, *seen, 0]) + 1


@contextmanager
def leased(catalog: Catalog, fleet: str) -> Iterator[int]:
    """The right to act on a fleet, as a fence. Raises ConflictError where a living process has it."""
    fence = rollouts.take_lease(catalog, fleet, _myself(), is_alive)
    try:
        rollouts.settle(catalog, fence, fleet)
        yield fence
    finally:
        rollouts.end_lease(catalog, fleet, fence)


def _myself() -> dict[str, Any]:
    return {"boot": _boot_id(), "pid": os.getpid(), "start": proc.identity(os.getpid())}


def is_alive(holder: Mapping[str, Any]) -> bool:
    """Whether the process that took a lease still runs on this host."""
    return holder.get("boot") == _boot_id() and proc.identity(int(holder["pid"])) == holder.get("start")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
