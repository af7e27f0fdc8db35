"""How a fleet stands, held against what its last rollout left and what the signed papers say: `factory drift` tells it.

Changes nothing, so that anybody may look at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from factory.catalog import fleet_orders, rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.model import Layout
from factory.rollout import drift, providers, spec, trusted
from factory.rollout import fleet as fleets
from factory.rollout.drift import Drift, Standing
from factory.rollout.engine import TRUST_S, Trust
from factory.rollout.flow import LayoutTrust
from factory.rollout.history import Serving
from factory.rollout.model import FleetSpec, Image
from factory.rollout.sight import Seen, Sight


@dataclass(frozen=True)
class FleetTrust(LayoutTrust):
    """Those of a checkout, read anew each time, and what a fleet asks of an image that it has several instances of."""

    fleet: FleetSpec

    def refusal(self, image: Image) -> str | None:
        """Why an image may not be launched; None where it may."""
        refused = super().refusal(image)
        if refused is not None or (writes := trusted.state_writes(self.layout, self.fleet, image)) is None:
            return refused
        return f"{writes.message}; {writes.hint}"


@dataclass
class Ground:
    """What a fleet is held against: what is to serve, and what the papers say of the images that it ran lately."""

    fleet: FleetSpec
    papers: Trust
    images: Mapping[Digest, Image]
    _said: tuple[float, dict[Digest, str], str | None] | None = None

    def standing(self, serving: Serving | None, seen: Seen, rolling: frozenset[int] | None, now: float) -> Standing:
        """How the fleet stands."""
        revoked, _ = self.said(serving, now)
        return Standing(self.fleet, serving, seen.observed, seen.healthy, seen.ill, revoked, rolling)

    def said(self, serving: Serving | None, now: float) -> tuple[dict[Digest, str], str | None]:
        """What was said a moment ago, or else is said now: digest -> why it was revoked; why what serves may not be
        launched."""
        if self._said is None or abs(now - self._said[0]) >= TRUST_S:
            asked = ((digest, self.papers.revoked(image)) for digest, image in self.images.items())
            refused = None if serving is None else self.papers.refusal(serving.image)
            self._said = now, {digest: why for digest, why in asked if why is not None}, refused
        return self._said[1], self._said[2]


@dataclass(frozen=True)
class Look:
    """What `factory drift` found. `refused`: why what serves may not be launched any more. `ended`: `destroy` or
    `destroyed`, of a fleet that somebody ended. `next_step`: what to do after a rollout that could not go back."""

    standing: Standing
    drifts: tuple[Drift, ...]
    refused: str | None
    rollout: rollouts.Known | None
    ended: str | None
    next_step: str | None = None

    @property
    def fleet(self) -> FleetSpec:
        return self.standing.fleet


def look(layout: Layout, catalog: Catalog, name: str) -> Look:
    """How a fleet differs from what it should be. Takes a moment where somebody is seen not to serve: whether it stays
    so is looked at. Raises ProviderError, UsageError, SpecError."""
    wanted = fleets.sized(catalog, spec.find(layout.root, name))
    known = rollouts.last(catalog, name)
    sight = Sight(providers.connect(layout, wanted), wanted.health)
    is_rolling = known is not None and known.ended is None
    seen = sight.look(time.time()) if is_rolling else steady(sight, time.time, time.sleep)
    serving = fleets.settled(catalog, name, seen.observed)
    ground = Ground(wanted, FleetTrust(layout, wanted), images_of(catalog, name))
    standing = ground.standing(serving, seen, _rolling(known), time.time())
    ended = fleet_orders.end(catalog, name)
    drifts = drift.find(standing)
    if serving is None and ended is None and not is_rolling:
        drifts = (_never(catalog, wanted), *drifts)
    refused, next_step = ground.said(serving, time.time())[1], fleets.next_step(catalog, wanted, seen.observed)
    return Look(standing, drifts, refused, known, ended, next_step)


def _never(catalog: Catalog, wanted: FleetSpec) -> Drift:
    when = "since it was destroyed" if fleet_orders.ends(catalog, wanted.name) else "yet"
    return Drift(drift.Kind.MISSING, f"no rollout has succeeded {when}", count=wanted.size)


def _rolling(known: rollouts.Known | None) -> frozenset[int] | None:
    if known is None or known.ended is not None:
        return None
    going = fleets.plan_of(known)
    numbers = (going.generation, going.old_generation, going.baseline_generation)
    return frozenset(number for number in numbers if number is not None)


def images_of(catalog: Catalog, name: str) -> dict[Digest, Image]:
    """The images that a fleet ran in its last rollouts, by digest."""
    plans = [fleets.plan_of(known) for known in rollouts.known(catalog, name)]
    return {image.digest: image for made in plans for image in (made.target, made.old) if image is not None}


def steady(sight: Sight, clock: Callable[[], float], sleep: Callable[[float], None]) -> Seen:
    """Look for as long as it takes to know who is ill; who comes and goes is seen as it is in the end."""
    ends = clock() + 2 * sight.health.grace_s
    while True:
        seen = sight.look(clock())
        if not seen.undecided or clock() > ends:
            return seen
        sleep(between_s(sight))


def between_s(sight: Sight) -> float:
    """How long to wait between two looks."""
    return min(1.0, sight.health.interval_s)
