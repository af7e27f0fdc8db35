"""The engine of a rollout: observes, lets the machine decide, writes that down, and does it. Survives its own death.

A turn: what there is is observed and probed; orders are read; the machine decides; state and intents are committed in
one transaction, under this engine's fence; then each call is made, and how it went is noted. Whatever dies in between,
the next engine takes the lease, sees what there is, and asks for what is wanted: calls say what is to be, so that
doing one again does no harm. Trust is asked anew before every launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.catalog.fleets import Instance as KnownInstance
from factory.digest import Digest
from factory.errors import ProviderError, TrustError
from factory.rollout import analysis, health, machine
from factory.rollout.health import Answer, Record
from factory.rollout.model import (
    TERMINAL,
    Action,
    Decision,
    Facts,
    Finding,
    Generation,
    Health,
    Image,
    Instance,
    Launch,
    Observation,
    Order,
    Plan,
    Shift,
    State,
    Status,
)
from factory.rollout.providers import Provider

AGAIN_S = 2.0
"""A call that was made and is not yet seen to have come true is made again after so long."""


class Trust(Protocol):
    """Whether images may be launched."""

    def refusal(self, image: Image) -> str | None:
        """Why not; None where it may."""
        ...


@dataclass(frozen=True)
class Around:
    """What an engine works with. `probe`: asks addresses (id -> HOST:PORT). `tell`: of each turn that changed
    something."""

    catalog: Catalog
    provider: Provider
    trust: Trust
    fence: int
    clock: Callable[[], float] = time.time
    probe: Callable[[Mapping[str, str], Health], Mapping[str, Answer]] = health.probe_all
    measure: Callable[..., analysis.Measurement] = analysis.measure
    tell: Callable[[Turn], None] = lambda _: None


@dataclass(frozen=True)
class Turn:
    """One turn, for whoever follows along. `problems`: calls that could not be made."""

    plan: Plan
    before: Status
    decision: Decision
    facts: Facts
    at: float
    problems: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        return self.decision.status


@dataclass
class Engine:
    """Drives one rollout. Everything it must remember is in the catalog; what it keeps here is evidence, which begins
    anew with it."""

    around: Around
    known: rollouts.Known
    plan: Plan = field(init=False)
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        self.plan = msgspec.json.decode(self.known.plan, type=Plan)
        self.status = msgspec.json.decode(self.known.status, type=Status)
        self._records: dict[str, Record] = {}
        self._evidence = analysis.Evidence("")
        self._seen = Observation()
        self._made: dict[Action, float] = {}
        self._listed: set[str] | None = None

    def turn(self) -> Turn:
        """One turn. Raises ConflictError where somebody else has taken over."""
        now = self.around.clock()
        orders = rollouts.orders(self.around.catalog, self.known.id, self.known.orders_seen)
        facts = self._facts(now, tuple(Order(one.wanted) for one in orders))
        before, decision = self.status, machine.advance(self.plan, self.status, facts)
        due = [action for action in decision.actions if self._is_due(action, now)]
        seen = orders[-1].id if orders else self.known.orders_seen
        intents = self._keep(decision, facts, due, seen)
        self.status = decision.status
        problems = self._make(due, intents, now)
        turn = Turn(self.plan, before, decision, facts, now, tuple(problems))
        self.around.tell(turn)
        return turn

    def run(self, sleep: Callable[[float], None] = time.sleep) -> Status:
        """Turn after turn, until the end."""
        while True:
            turn = self.turn()
            if turn.status.state in TERMINAL:
                return turn.status
            if turn.status == turn.before or turn.problems:
                sleep(min(1.0, self.plan.fleet.health.interval_s))

    # --- what is known

    def _facts(self, now: float, orders: tuple[Order, ...]) -> Facts:
        unreachable = None
        try:
            self._seen = self.around.provider.observe()
        except ProviderError as error:
            unreachable = error.message
        else:
            self._ask_health(now)
        healthy, ill = self._health()
        return Facts(
            now,
            self._seen,
            healthy,
            ill,
            self._finding(now) if unreachable is None else None,
            self._refusal(self.plan.target),
            None if self.plan.old is None else self._refusal(self.plan.old),
            orders,
            unreachable,
        )

    def _ask_health(self, now: float) -> None:
        """Probe those instances of which the provider has no word of its own, and whose turn it is."""
        wanted = self.plan.fleet.health
        addresses = {
            one.id: one.address
            for one in self._seen.instances
            if one.healthy is None and one.address is not None and one.state == "running"
        }
        due = health.due(self._records, addresses, wanted, now)
        answers = self.around.probe({name: addresses[name] for name in due}, wanted)
        self._records = health.after(self._records, set(addresses), answers, wanted, now)

    def _health(self) -> tuple[frozenset[str], frozenset[str]]:
        healthy, ill = set(), set()
        for one in self._seen.instances:
            record = self._records.get(one.id)
            if one.healthy or (one.healthy is None and record is not None and record.can_serve(self.plan.fleet.health)):
                healthy.add(one.id)
            elif one.healthy is False or (record is not None and not record.healthy):
                ill.add(one.id)
        return frozenset(healthy), frozenset(ill)

    def _finding(self, now: float) -> Finding | None:
        """What the analysis of this step has come to; measured anew where it is time."""
        wanted = self.plan.fleet.analysis
        if wanted is None or not machine.wants_analysis(self.plan, self.status, now):
            return None
        evidence = self._evidence.about(f"{self.known.id} {self.status.state} {self.status.step} {self.status.since}")
        if evidence.is_due(wanted, now):
            subject = analysis.Subject(self.plan.fleet.name, self.plan.generation, self.plan.target.digest)
            evidence = evidence.plus(wanted, self.around.measure(wanted, subject, self._baseline(), now))
        self._evidence = evidence
        return analysis.finding(wanted, evidence)

    def _baseline(self) -> analysis.Subject | None:
        number, old = self.plan.baseline_generation, self.plan.old
        stage = self.plan.stages[self.status.step]
        if number is None or old is None or self.status.no_baseline or not stage.baseline:
            return None
        return analysis.Subject(self.plan.fleet.name, number, old.digest)

    def _refusal(self, image: Image) -> str | None:
        return self.around.trust.refusal(image)

    # --- what is done

    def _is_due(self, action: Action, now: float) -> bool:
        """Whether a call is to be made now: not again while it may still come true."""
        return abs(now - self._made.get(action, float("-inf"))) >= AGAIN_S

    def _keep(self, decision: Decision, facts: Facts, due: list[Action], seen: int) -> list[int]:
        """Write the decision down where it says something new; the numbers of the intents."""
        launched, gone = self._came_and_went(facts)
        if (decision.status, seen) == (self.status, self.known.orders_seen) and not (
            due or launched or gone or decision.notes
        ):
            return []
        step = rollouts.Step(
            status=msgspec.json.encode(decision.status).decode(),
            orders_seen=seen,
            notes=decision.notes,
            actions=tuple(msgspec.json.encode({type(action).__name__: action}).decode() for action in due),
            launched=launched,
            gone=gone,
            state=str(decision.status.state),
            is_new_state=decision.status.state != self.status.state,
            ended=decision.status.state in TERMINAL,
        )
        intents = rollouts.keep(self.around.catalog, self.around.fence, self.known, step)
        self.known = replace(self.known, status=step.status, orders_seen=seen)
        if self._listed is not None:
            self._listed |= {one.native for one in launched}
            self._listed -= set(gone)
        return intents

    def _came_and_went(self, facts: Facts) -> tuple[tuple[KnownInstance, ...], dict[str, str]]:
        """What the catalog does not know yet of the instances that there are."""
        if facts.unreachable is not None:
            return (), {}
        if self._listed is None:
            self._listed = set(rollouts.instances(self.around.catalog, self.plan.fleet.name))
        there = {one.id for one in facts.observed.instances}
        gone = {name: self._why_gone() for name in self._listed - there}
        return tuple(
            known_instance(self.plan.fleet.name, self.plan.fleet.provider, self.known.id, one)
            for one in facts.observed.instances
            if one.id not in self._listed and one.digest is not None
        ), gone

    def _why_gone(self) -> str:
        expected = (State.RETIRING, State.ROLLING_BACK, State.SUCCEEDED, State.ROLLED_BACK)
        return "retired" if self.status.state in expected else "gone by itself"

    def _make(self, actions: list[Action], intents: list[int], now: float) -> list[str]:
        """Make the calls, each noted with how it went; what could not be done."""
        outcomes: dict[int, str | None] = {}
        for action, intent in zip(actions, intents, strict=True):
            try:
                self._call(action)
                outcomes[intent] = None
                self._made[action] = now
            except (ProviderError, TrustError) as error:
                outcomes[intent] = error.message
        if outcomes:
            rollouts.finish(self.around.catalog, outcomes)
        return [problem for problem in outcomes.values() if problem is not None]

    def _call(self, action: Action) -> None:
        provider = self.around.provider
        if isinstance(action, Launch):
            provider.launch(self._generation(action.generation), action.count)
        elif isinstance(action, Shift):
            provider.shift(dict(action.weights), action.draining)
        else:
            provider.retire(action.instances)

    def _generation(self, number: int) -> Generation:
        """The generation to launch, trusted at this moment. Raises TrustError."""
        image = self.plan.target if number == self.plan.generation else self.plan.old
        assert image is not None
        if (refused := self._refusal(image)) is not None:
            raise TrustError(f"{image.name}/{image.arch} is not launched: {refused}")
        return Generation(number, image, self.known.id)


def known_instance(fleet: str, provider: str, rollout: str | None, one: Instance) -> KnownInstance:
    """What the catalog keeps of an instance that was observed."""
    launched_at = datetime.fromtimestamp(one.launched_at, UTC)
    digest = Digest(one.digest or "")
    return KnownInstance(fleet, one.generation, provider, one.id, digest, launched_at, rollout)
