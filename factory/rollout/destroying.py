"""`factory fleet destroy`: the traffic ends, sessions are waited for, every instance is retired, and what the provider
made for the fleet is removed.

What was begun is noted before anything is done; a run that died is gone on with by the next. Until another rollout of
it begins, nothing is missing of a fleet that was destroyed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from factory.catalog import fleet_orders, rollouts
from factory.catalog.database import Catalog
from factory.errors import ProviderError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import log, lookup, providers
from factory.rollout.acting import Hand
from factory.rollout.engine import AGAIN_S
from factory.rollout.mending import Tell, refuse_rollout
from factory.rollout.model import Observation, Retire, Shift


def destroy(layout: Layout, name: str, tell: Tell) -> tuple[str, ...]:
    """End a fleet; the ids of the instances that went. Raises ConflictError (7) while a rollout goes on, ProviderError
    (3) where something does not go."""
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, name) as fence:
        found = lookup.among(layout, catalog, name)
        wanted = found.fleet
        refuse_rollout(catalog, name)
        if found.unused is not None:
            tell(f"{found.unused}; it is ended as it was planned")
        written = log.Log(log.path_of(layout, name))
        hand = Hand(catalog, providers.connect(layout, wanted), wanted, fence, log=written)
        return Destroyer(hand, tell=tell).run()


@dataclass
class Destroyer:
    """Ends one fleet, under its lease."""

    hand: Hand
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    tell: Tell = lambda _: None

    def run(self) -> tuple[str, ...]:
        """Until nothing is left; the ids of those that went."""
        hand, name = self.hand, self.hand.fleet.name
        observed = hand.provider.observe()
        ended = fleet_orders.end(hand.catalog, name)
        is_over = ended == "destroyed" or rollouts.last(hand.catalog, name) is None
        if is_over and not observed.instances:
            return ()
        if ended != "destroy":
            fleet_orders.put(hand.catalog, hand.fence, fleet_orders.Order(name, "destroy"))
        hand.note(observed, {})
        ids = tuple(sorted(one.id for one in observed.instances))
        if ids:
            self._drain(observed)
        self._retire()
        fleet_orders.put(hand.catalog, hand.fence, fleet_orders.Order(name, "destroyed"))
        return ids

    def _drain(self, observed: Observation) -> None:
        """End the traffic; come back when the sessions have ended, or were given the time to."""
        begun = self.clock()
        ends, asked_at, is_told = begun + self.hand.fleet.deadlines.drain.seconds, float("-inf"), False
        while True:
            now = self.clock()
            everyone = tuple(sorted(one.id for one in observed.instances))
            if any(observed.weights.values()) or asked_at < begun:
                if now - asked_at >= AGAIN_S:
                    self._made(self.hand.make(Shift((), everyone), observed))
                    asked_at = now
            elif not (sessions := sum(one.sessions or 0 for one in observed.instances)):
                return
            elif not is_told:
                self.tell(f"waits for its sessions ({sessions}) to end, at most {ends - begun:g} s")
                is_told = True
            if now > ends:
                self.tell("sessions that did not end are cut")
                return
            self.sleep(0.2)
            observed = self.hand.provider.observe()

    def _retire(self) -> None:
        deadlines, asked = self.hand.fleet.deadlines, dict[Retire, float]()
        ends = self.clock() + deadlines.retire.seconds + deadlines.drain.seconds
        while True:
            observed, now = self.hand.provider.observe(), self.clock()
            self.hand.note(observed, self._why_gone())
            staying = tuple(sorted(one.id for one in observed.instances if one.state != "stopping"))
            tidies = Retire(staying)  # of none: what is left beside the instances
            is_due = bool(staying or not observed.instances) and now - asked.get(tidies, float("-inf")) >= AGAIN_S
            problem = self.hand.make(tidies, observed) if is_due else None
            self._made(problem)
            if is_due:
                asked[tidies] = now
            if not observed.instances and is_due and problem is None:
                return
            if now > ends:
                left = ", ".join(one.id for one in observed.instances)
                raise ProviderError(
                    f"not gone yet: {left or problem}",
                    where=f"fleet {self.hand.fleet.name}",
                    hint=f"factory fleet destroy {self.hand.fleet.name} --yes goes on",
                )
            self.sleep(0.2)

    def _why_gone(self) -> dict[str, str]:
        listed = rollouts.instances(self.hand.catalog, self.hand.fleet.name)
        return dict.fromkeys(listed, "the fleet was destroyed")

    def _made(self, problem: str | None) -> None:
        if problem is not None:
            self.tell(f"not done, and tried again: {problem}")
