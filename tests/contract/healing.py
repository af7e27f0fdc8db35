"""A fleet mended by the real mender, over any provider, with a catalog in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from simulated_fleets import Trusted

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.rollout import fleet as fleets
from factory.rollout.acting import Hand
from factory.rollout.heal import Limits
from factory.rollout.history import Serving
from factory.rollout.looking import Ground
from factory.rollout.mending import Mended, Mender, Tell
from factory.rollout.model import FleetSpec, Generation
from factory.rollout.providers import Provider
from factory.rollout.sight import Sight


@dataclass(frozen=True)
class Healer:
    """Mends a fleet that is to run `generation`."""

    catalog_path: Path
    spec: FleetSpec
    generation: Generation
    provider: Provider
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    tell: Tell = lambda _: None

    @property
    def serving(self) -> Serving:
        return Serving(self.generation.number, self.generation.image)

    @property
    def ground(self) -> Ground:
        return Ground(self.spec, Trusted(), {self.generation.image.digest: self.generation.image})

    def run(self) -> Mended:
        """Mend it; no call is left open in the catalog."""
        name = self.spec.name
        with Catalog.open(self.catalog_path) as catalog:
            catalog.connection.execute("PRAGMA synchronous = OFF")  # what is killed is a process, not the host
            with fleets.leased(catalog, name) as fence:
                hand = Hand(catalog, self.provider, self.spec, fence, self.generation, Trusted().refusal)
                sight = Sight(self.provider, self.spec.health)
                mender = Mender(
                    hand, self.ground, self.serving, self.limits, sight, self.clock, self.sleep, self.tell
                )  # fmt: skip
                done = mender.run()
            assert rollouts.open_intents(catalog, name) == []
            return done
