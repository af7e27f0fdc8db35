"""The machine of a rollout in storms: instances die, fall ill and recover one by one, engines are killed between a
decision and its calls and the next one knows no health at first, fronts lose their weights, calls are refused."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_drive import OLD, Drive, analysis, fleet
from simulated_provider import Behaviour, Faults, World

from examples import some
from factory.rollout import machine, plan
from factory.rollout.model import TERMINAL, Decision, Facts, Generation, Health, Launch, Order, State

ILL = Behaviour(healthy_after_s=None)


class Storm(Drive):
    """A rollout whose instances may fall ill one by one, and whose engine may forget."""

    def __post_init__(self) -> None:
        self.sick: set[str] = set()
        self.forgotten = 0
        super().__post_init__()
        provider, read, settled, of = self.provider, self.provider._read, self.provider._settled, self.provider._of

        def named(world: World) -> World:
            for name, one in world.instances.items():
                one["name"] = name
            return world

        provider._read = lambda: named(read())  # type: ignore[method-assign]
        provider._settled = lambda world, now: settled(named(world), now)  # type: ignore[method-assign]
        provider._of = lambda one: ILL if one.get("name") in self.sick else of(one)  # type: ignore[method-assign]

    def facts(self, *orders: Order) -> Facts:
        facts = super().facts(*orders)
        if not self.forgotten:
            return facts
        self.forgotten -= 1
        return replace(facts, healthy=frozenset(), ill=frozenset())

    def turn(self, *orders: Order, killed: bool = False) -> Decision:
        """`killed`: what is decided is written down, and no call made."""
        facts = self.facts(*orders)
        decision = machine.advance(self.plan, self.status, facts)
        self.take(decision)
        for action in () if killed else decision.actions:
            image_is_revoked = self.target_revoked if getattr(action, "generation", 0) == 2 else self.old_revoked
            if not (isinstance(action, Launch) and image_is_revoked):  # the engine refuses that
                self.act(action)
        return decision

    def ids(self, generation: int) -> list[str]:
        return sorted(name for name, one in self.provider._memory.instances.items() if one["generation"] == generation)

    def happens(self, what: str, chance: random.Random) -> None:
        there = self.ids(chance.choice([1, 2, 2]))
        some_of = chance.sample(there, chance.choice([1, 1, len(there)])) if there else []
        if what == "dies":
            for name in some_of:
                del self.provider._memory.instances[name]
        elif what == "falls ill":
            self.sick |= set(some_of)
        elif what == "recovers":
            self.sick = set(chance.sample(sorted(self.sick), len(self.sick) // 2))
        elif what == "forgets":
            self.forgotten = chance.choice([1, 2, 4])
        elif what == "is killed":
            self.turn(killed=True)
            self.now += chance.choice([0, 1, 100])
            self.forgotten = chance.choice([0, 1, 3])
        elif what == "weights are lost":
            self.provider._memory.weights = {}
        elif what == "order":
            self.turn(chance.choice([Order.ABORT, Order.PROMOTE, Order.PAUSE, Order.RESUME, Order.RESUME]))
        elif what == "calls are refused":
            self.provider.injected = Faults(refused=frozenset(chance.randrange(1, 60) for _ in range(10)))
        elif chance.random() < 0.2:
            self.target_revoked, self.old_revoked = chance.choice([("revoked", None), (None, "revoked")])


EVENTS = ["dies", "dies", "falls ill", "falls ill", "recovers", "recovers", "recovers", "forgets", "forgets",
          "is killed", "weights are lost", "order", "calls are refused", "revoked"]  # fmt: skip


def storm(chance: random.Random) -> Storm:
    size, leftover = chance.choice([1, 2, 3, 4]), chance.choice([0, 0, 0, 1])
    old = chance.choice([size, size, size, size, 0])
    spec = fleet(
        chance.choice(["blue-green", "canary", "rolling"]), size, min=max(1, size - chance.choice([0, 0, 1])),
        analysis=chance.choice([None, analysis(pause_deadline_s=50.0)]), bake_s=chance.choice([0.0, 10.0]),
        surge=chance.choice([1, 1, 2]), health=Health(tcp=80, deadline_s=30),
        allow_revoked_fallback=chance.random() < 0.2,
    )  # fmt: skip
    spec = replace(spec, max=max(plan.most_instances(spec, old), size) + leftover)
    new = Behaviour(pending_s=1, healthy_after_s=chance.choice([2, 6, 12]))
    drive = Storm(spec, old, new, joins_by_itself=chance.random() < 0.5)
    drive.provider.sessions_s, drive.provider.stopping_s = chance.choice([0, 2, 20, 1e9]), chance.choice([1, 4])
    if leftover:
        drive.provider.launch(Generation(9, OLD, "nobody's"), 1)
    return drive


@given(st.integers(0, 2**32))
@settings(max_examples=some(300), deadline=None)
def test_whatever_dies_it_ends_with_a_fleet_that_serves(seed: int) -> None:
    chance = random.Random(seed)
    drive = storm(chance)
    calm_until, storm_until = drive.now + chance.choice([0, 20, 40]), drive.now + 250
    while drive.status.state not in TERMINAL and drive.now < storm_until:
        if drive.now > calm_until and chance.random() < 0.12:
            drive.happens(chance.choice(EVENTS), chance)
        drive.turn()
        drive.now += 1
    drive.provider.injected = Faults()
    drive.sick = chance.choice([set(), drive.sick])
    ends, states = drive.now + 6000, len(drive.states)
    while drive.status.state not in TERMINAL and drive.now < ends:
        drive.turn(*([Order.RESUME] if drive.status.paused in ("operator", "deadline") else []))
        drive.now += 1
    assert drive.status.state in TERMINAL, drive.states[-5:]
    assert len(drive.states) - states < 60, drive.states[-9:]
    drive.now += 30
    if drive.status.state == State.SUCCEEDED:
        assert drive.weights == {2: 100}
        assert not [one.id for one in drive.provider.observe().of(2) if one.healthy and one.is_idle]
    if drive.status.state == State.ROLLED_BACK and drive.plan.old and not drive.old_revoked:
        assert drive.weights == {1: 100}
