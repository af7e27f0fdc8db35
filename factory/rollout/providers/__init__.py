"""Where instances run: the contract of a provider, and which there are.

A provider launches, observes, shifts and retires. It has no way to enter or change an instance. Every call is
idempotent and says what is to be, not what is to be done: called again after a crash, it finds what is there and does
the rest. A call that returns means that the provider has taken it on; whether it came to be is for `observe` to say.
`tests/contract/test_providers.py` holds every entry of the registry (and the simulator) to it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from factory.errors import UsageError
from factory.model import Layout
from factory.rollout.model import FleetSpec, Generation, Observation

KINDS = {"local": "factory.rollout.providers.local", "aws": "factory.rollout.providers.aws"}
"""Name in fleets.toml -> the module with its `connect(layout, fleet)`."""


class Provider(Protocol):
    """What runs one fleet. Errors are FactoryErrors; ProviderError where it cannot be reached just now."""

    def faults(self, image_arch: str) -> list[str]:
        """Why a fleet as this one cannot be run here, each with what to do; asked before anything is launched."""
        ...

    def observe(self) -> Observation:
        """All that there is of the fleet, found by tag: also what nobody remembers having launched."""
        ...

    def launch(self, generation: Generation, count: int) -> None:
        """See to it that a generation has `count` instances (those that are pending or running), never more."""
        ...

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        """Send traffic to generations by these weights (together 100, or all 0), spread over their healthy instances
        that are not `draining` (ids). Who gets none keeps the sessions it has until those end. Where `retire` itself
        waits for sessions to end (aws), `draining` may be left to it."""
        ...

    def retire(self, instances: Iterable[str]) -> None:
        """Stop these instances (by id) for good and remove all that was theirs. Those already gone are no error.
        Nothing takes their place: their generation has so many fewer. What was made beside them for a generation that
        has none any more goes too, if it can yet; with none named, only that, of all generations, and what was launched
        and has not come (AWS had no room) does not come any more: a rollout, or healing, ends with it."""
        ...


def connect(layout: Layout, fleet: FleetSpec) -> Provider:
    """The provider of a fleet. Raises UsageError for one that there is not."""
    if fleet.provider not in KINDS:
        raise UsageError(f"there is no provider {fleet.provider}", where=f"fleet.{fleet.name}.provider")
    made: Provider = importlib.import_module(KINDS[fleet.provider]).connect(layout, fleet)
    return made
