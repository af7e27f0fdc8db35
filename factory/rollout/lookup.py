"""Which fleet a name means: as fleets.toml says; where that cannot be used, or has it no more, as it was planned last.

So that a rollout that is under way is looked at and goes on whatever becomes of the file. What begins something new, or
holds a fleet against what it should be, reads the file itself (spec.py), and refuses. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory.catalog import fleet_orders, rollouts
from factory.catalog.database import Catalog
from factory.errors import FactoryError, SpecError, UsageError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import spec
from factory.rollout.model import FleetSpec


@dataclass(frozen=True)
class Found:
    """A fleet, of the size that it is to have. `unused`: why fleets.toml did not say it, in a line; None: it did."""

    fleet: FleetSpec
    unused: str | None = None


def find(layout: Layout, name: str, *, begins: bool = False) -> Found:
    """As `among`, of the factory's own catalog; where there is none, only fleets.toml knows."""
    if not layout.catalog.is_file():
        return Found(spec.find(layout.root, name))
    with Catalog.read(layout.catalog) as catalog:
        return among(layout, catalog, name, begins=begins)


def among(layout: Layout, catalog: Catalog, name: str, *, begins: bool = False) -> Found:
    """The fleet of this name. `begins`: where none of its rollouts is under way, one will begin, so that fleets.toml
    must say it. Raises UsageError where nobody knows the fleet, SpecError where only the file could."""
    try:
        return Found(fleets.sized(catalog, spec.find(layout.root, name)))
    except (SpecError, UsageError) as fault:
        known = rollouts.last(catalog, name)
        if known is None or (begins and known.ended is not None):
            raise
        return Found(fleets.sized(catalog, fleets.plan_of(known).fleet), _unused(fault))


def written(layout: Layout) -> tuple[Mapping[str, FleetSpec], str | None]:
    """The fleets of fleets.toml, by name; none, and why, where it cannot be used. Without the file there are none."""
    try:
        return (spec.load(layout.root) if (layout.root / spec.FILE).is_file() else {}), None
    except SpecError as fault:
        return {}, _unused(fault)


def everyone(layout: Layout) -> list[Found]:
    """The fleets of fleets.toml; where that cannot be used, those that had a rollout and were not destroyed. Raises
    SpecError where there are none either."""
    try:
        return [Found(written) for written in spec.load(layout.root).values()]
    except SpecError:
        if not layout.catalog.is_file():
            raise
        with Catalog.read(layout.catalog) as catalog:
            names = [name for name in rollouts.fleet_names(catalog) if rollouts.last(catalog, name) is not None]
            there = [name for name in names if fleet_orders.end(catalog, name) != "destroyed"]
            if not there:
                raise
            return [among(layout, catalog, name) for name in there]


def _unused(fault: FactoryError) -> str:
    """Of several faults the first."""
    return f"{spec.FILE} cannot be used: {' '.join(fault.message.splitlines()[:2])}"
