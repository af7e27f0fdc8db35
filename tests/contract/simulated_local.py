"""The simulator in the place of the provider `local`: machines are a file of the factory, time is real.

`connect` is what factory/rollout/providers expects of a provider's module. What instances of an image do stands in
`.factory/behaviours.json` (digest -> Behaviour), so that other processes see it too.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from simulated_provider import Behaviour, SimulatedProvider

from factory.digest import Digest
from factory.model import Layout
from factory.rollout.model import FleetSpec

QUICK = Behaviour(pending_s=0.05, healthy_after_s=0.1)
NAME = "simulated_local"


def connect(layout: Layout, fleet: FleetSpec) -> SimulatedProvider:
    """The fleet, as it is in the file."""
    folder = layout.state
    folder.mkdir(parents=True, exist_ok=True)
    made = _Quick(folder / f"world-{fleet.name}.json", time.time, stopping_s=0.05, sessions_s=0.1)
    made.told = folder / "behaviours.json"
    return made


class _Quick(SimulatedProvider):
    """Whose instances come up at once, unless told otherwise in a file."""

    told: Path

    def _of(self, one: object) -> Behaviour:
        told = _read(self.told).get(one["digest"])  # type: ignore[index]
        return Behaviour(**told) if told else QUICK


def behave(layout: Layout, digest: Digest, behaviour: Behaviour) -> None:
    """Have instances of an image behave so from now on."""
    path = layout.state / "behaviours.json"
    path.with_suffix(".new").write_text(json.dumps({**_read(path), digest: asdict(behaviour)}))
    path.with_suffix(".new").replace(path)


def reboot(layout: Layout, fleet: str = "web") -> None:
    """Every instance of a fleet is gone, as after the host started anew."""
    path = layout.state / f"world-{fleet}.json"
    path.write_text(json.dumps({**_read(path), "instances": {}, "weights": {}, "draining": []}))


def lose_one(layout: Layout, generation: int, fleet: str = "web") -> None:
    """An instance of a generation is gone by itself."""
    path = layout.state / f"world-{fleet}.json"
    with SimulatedProvider(path, time.time)._locked():
        world = _read(path)
        del world["instances"][min(name for name, one in world["instances"].items() if one["generation"] == generation)]
        path.with_suffix(".lost").write_text(json.dumps(world))
        path.with_suffix(".lost").replace(path)


def _read(path: Path) -> dict:  # type: ignore[type-arg]
    return json.loads(path.read_text()) if path.exists() else {}
