"""Calls of a provider outside of a rollout: each is noted before it is made, and how it went after.

What was made stands in the fleet's log, what came and went in the catalog. Every write says the lease's fence, or
happens under it; whatever dies in between, the next one sees what there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, ProviderError, TrustError
from factory.rollout import fleet as fleets
from factory.rollout.engine import known_instance
from factory.rollout.log import Log, of_action
from factory.rollout.metrics import Event
from factory.rollout.model import Action, FleetSpec, Generation, Image, Launch, Observation, Shift
from factory.rollout.providers import Provider

LATELY, EVER = 20, -1
"""How many of the last rollouts are looked through: SQLite takes a negative limit for none."""

Refusal = Callable[[Image], str | None]
"""Why an image may not be launched; None where it may."""


@dataclass(frozen=True)
class Hand:
    """Acts on one fleet, under its lease. `generation`: what may be launched; None: nothing."""

    catalog: Catalog
    provider: Provider
    fleet: FleetSpec
    fence: int
    generation: Generation | None = None
    refusal: Refusal = lambda _: None
    log: Log | None = None

    def make(self, action: Action, observed: Observation) -> str | None:
        """Make a call, decided by what was observed; why it could not be done, None where it was. Raises ConflictError
        where the lease is lost."""
        text = msgspec.json.encode({type(action).__name__: action}).decode()
        (intent,) = rollouts.intend(self.catalog, self.fence, self.fleet.name, [text])
        problem: str | None = None
        try:
            self._call(action)
        except FactoryError as error:
            problem = error.message
            if not isinstance(error, ProviderError | TrustError):
                raise
        finally:
            rollouts.finish(self.catalog, {intent: problem})
        if problem is None and self.log is not None:
            self.log.write(of_action(action, observed, self._about(action, observed)))
        return problem

    def _about(self, action: Action, observed: Observation) -> Event:
        """What a call is told to be about: what is to serve, or else what has most of the traffic."""
        weights = observed.weights
        most = max(observed.instances, key=lambda one: weights.get(one.generation, 0), default=None)
        number, digest = (most.generation, most.digest) if most is not None else (0, None)
        if self.generation is not None:
            number, digest = self.generation.number, self.generation.image.digest
        rollout = rollout_of(self.catalog, self.fleet.name, number) or ""
        return Event(time.time(), self.fleet.name, rollout, number, digest or Digest(""), type(action).__name__.lower())

    def _call(self, action: Action) -> None:
        if isinstance(action, Launch):
            self.provider.launch(self._trusted(action.generation), action.count)
        elif isinstance(action, Shift):
            self.provider.shift(dict(action.weights), action.draining)
        else:
            self.provider.retire(action.instances)

    def _trusted(self, number: int) -> Generation:
        """The generation to launch, trusted at this moment. Raises TrustError."""
        made = self.generation
        if made is None or made.number != number:
            raise TrustError(f"nobody knows what generation {number} is to be of")
        if (refused := self.refusal(made.image)) is not None:
            raise TrustError(f"{made.image.name}/{made.image.arch} is not launched: {refused}")
        return made

    def note(self, observed: Observation, why_gone: Mapping[str, str]) -> None:
        """Tell the catalog what came and went. `why_gone`: of those of which it is known."""
        listed = rollouts.instances(self.catalog, self.fleet.name)
        there = {one.id for one in observed.instances}
        gone = {name: why_gone.get(name, "gone by itself") for name in sorted(listed.keys() - there)}
        fresh = [one for one in observed.instances if one.id not in listed and one.digest is not None]
        if fresh or gone:
            fleet = self.fleet
            by = {number: rollout_of(self.catalog, fleet.name, number) for number in {one.generation for one in fresh}}
            launched = [known_instance(fleet.name, fleet.provider, by[one.generation], one) for one in fresh]
            rollouts.note_instances(self.catalog, fleet.name, launched, gone)


def rollout_of(catalog: Catalog, fleet: str, generation: int) -> str | None:
    """The rollout that a generation belongs to; None where none is known. It may be long ago, where all since went
    back."""
    for most in (LATELY, EVER):
        for known in rollouts.known(catalog, fleet, most):
            plan = fleets.plan_of(known)
            if generation in (plan.generation, plan.baseline_generation):
                return known.id
    return None
