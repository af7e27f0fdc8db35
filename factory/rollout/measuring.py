"""What runs and how rollouts went, gathered for metrics.py. Asks catalog and providers, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import metrics, view
from factory.rollout.metrics import Rolled, Snapshot
from factory.rollout.model import FleetSpec, Plan, State, Status
from factory.rollout.picture import Picture, wanted_weights


def text(layout: Layout, wanted: list[FleetSpec]) -> str:
    """The metrics of some fleets, as they are now. CatalogError where there is no catalog."""
    with Catalog.read(layout.catalog) as catalog:
        return metrics.render([snapshot(layout, catalog, fleet) for fleet in wanted])


def snapshot(layout: Layout, catalog: Catalog, fleet: FleetSpec) -> Snapshot:
    """A fleet now. One whose provider cannot be asked has no instances in it, and no time at which it was seen."""
    picture = view.gather(layout, catalog, fleets.sized(catalog, fleet), time.time())
    healthy = ((one.id, picture.is_healthy(one)) for one in picture.observed.instances)
    return Snapshot(
        fleet=fleet.name,
        size=picture.fleet.size,
        at=picture.at if picture.unseen is None else None,
        observed=picture.observed,
        images={} if picture.plan is None else dict(_images(picture.plan)),
        healthy={name: is_healthy for name, is_healthy in healthy if is_healthy is not None},
        wanted=wanted_weights(picture),
        rollout=_rolled(catalog, picture, picture.plan, picture.status),
        ended=_states(rollouts.ends(catalog, fleet.name)),
    )


def _images(plan: Plan) -> Iterator[tuple[int, tuple[str, Digest]]]:
    yield plan.generation, (plan.target.name, plan.target.digest)
    for number in (plan.old_generation, plan.baseline_generation):
        if number is not None and plan.old is not None:
            yield number, (plan.old.name, plan.old.digest)


def _rolled(catalog: Catalog, picture: Picture, plan: Plan | None, status: Status | None) -> Rolled | None:
    if plan is None or status is None:
        return None
    entered = _states(rollouts.entered(catalog, plan.rollout))
    return Rolled(
        plan.rollout, plan.generation, plan.target.digest, status.state, status.step + 1, len(plan.stages),
        is_paused=bool(status.paused), transitions=entered,
    )  # fmt: skip


def _states(counted: Mapping[str, int]) -> dict[State, int]:
    return {State(name): number for name, number in counted.items()}
