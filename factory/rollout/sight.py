"""What is seen of a fleet, turn by turn: its instances, who of them serves, since when somebody does not.

Remembers what probes said; asks each instance of which the provider has no word, when its turn has come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from factory.rollout import health as probes
from factory.rollout.drift import Illness
from factory.rollout.health import Answer, Record
from factory.rollout.model import Health, Instance, Observation
from factory.rollout.providers import Provider

Probe = Callable[[Mapping[str, str], Health], Mapping[str, Answer]]


@dataclass(frozen=True)
class Seen:
    """One look. `ill`: those that did not serve for longer than they may. `undecided`: looking on would tell more of
    somebody."""

    observed: Observation
    healthy: frozenset[str]
    ill: frozenset[str]
    undecided: bool


@dataclass
class Sight:
    """Looks at one fleet."""

    provider: Provider
    health: Health
    probe: Probe = probes.probe_all
    _records: dict[str, Record] = field(default_factory=dict)
    _illness: Illness = field(default_factory=Illness)

    def look(self, now: float) -> Seen:
        """What is to be seen now. Raises ProviderError where the provider cannot be asked."""
        observed = self.provider.observe()
        addresses = {one.id: one.address for one in observed.instances if one.healthy is None and one.address}
        due = probes.due(self._records, addresses, self.health, now)
        answers = self.probe({name: addresses[name] for name in due}, self.health)
        self._records = probes.after(self._records, set(addresses), answers, self.health, now)
        healthy = frozenset(one.id for one in observed.instances if self._serves(one))
        self._illness = self._illness.after(observed, healthy, now)
        return Seen(
            observed,
            healthy,
            self._illness.ill(observed, self.health, now),
            self._illness.undecided(observed, self.health, now) or self._are_asked_on(),
        )

    def _are_asked_on(self) -> bool:
        """Whether somebody answers well, and only not often enough yet."""
        return any(one.healthy and not one.can_serve(self.health) for one in self._records.values())

    def _serves(self, one: Instance) -> bool:
        if one.healthy is not None or one.state != "running":
            return bool(one.healthy)
        record = self._records.get(one.id)
        return record is not None and record.can_serve(self.health)
