"""The engine of a rollout: observes, lets the machine decide, writes that down, and does it. Survives its own death.

A turn: what there is is observed and probed; orders are read; the machine decides; state and intents are committed in
one transaction, under this engine's fence; then each call is made, and how it went is noted. Whatever dies in between,
the next engine takes the lease, sees what there is, and asks for what is wanted: calls say what is to be, so that
doing one again does no harm. Trust is asked anew before every launch. Before an end is written down, the provider
removes what it made beside the instances of generations that have none any more.

Whatever asks others for health or for numbers is done aside: an order to abort is obeyed while a source hangs. The
provider is waited for, since without it nothing can be done and nothing decided; its calls have time-outs of their own,
and one that does not answer counts as unreachable.
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
from factory.errors import FactoryError, ProviderError, TrustError
from factory.rollout import analysis, health, machine
from factory.rollout.aside import Aside
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
    Retire,
    Shift,
    State,
    Status,
)
from factory.rollout.providers import Provider

AGAIN_S = 2.0
"""A call that was made and is not yet seen to have come true is made again after so long."""

PATIENCE_S = 0.25
"""So long a turn waits for what it asked; what takes longer is for a later turn."""

TRUST_S = 1.0
"""So old what was last said of an image may be; before a launch it is asked anew."""


Probed = tuple[float, Mapping[str, Answer]]
"""When probes were begun, and what they found."""


class Trust(Protocol):
    """Whether images may be launched, and run."""

    def refusal(self, image: Image) -> str | None:
        """Why an image may not be launched, be it that papers cannot be read just now; None where it may."""
        ...

    def revoked(self, image: Image) -> str | None:
        """Why an image must not run any more; None where nobody says so."""
        ...


@dataclass(frozen=True)
class Said:
    """What was said of an image at a time, as by Trust."""

    at: float
    refused: str | None
    revoked: str | None


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
    """One turn, for whoever follows along. `made`: the calls that were made; `problems`: of those that could not be.
    `answers`: what was last heard of each instance that is ill and was probed."""

    plan: Plan
    before: Status
    decision: Decision
    facts: Facts
    at: float
    made: tuple[Action, ...] = ()
    problems: tuple[str, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)

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
        was = msgspec.json.decode(self.known.status, type=Status)
        self.status = replace(was, ill_since=None, old_ill_since=None)  # nobody knows who was ill meanwhile
        self._records: dict[str, Record] = {}
        self._evidence = analysis.Evidence("")
        self._evidence_since = 0.0
        self._seen = Observation()
        self._made: dict[Action, float] = {}
        self._listed: set[str] | None = None
        self._trusted: dict[Digest, Said] = {}
        self._probing = Aside[Probed]("health")
        self._measuring = Aside[analysis.Measurement]("analysis")

    def turn(self) -> Turn:
        """One turn. Raises ConflictError where somebody else has taken over."""
        now = self.around.clock()
        orders = rollouts.orders(self.around.catalog, self.known.id, self.known.orders_seen)
        facts = self._facts(now, tuple(Order(one.wanted) for one in orders))
        before, decision = self.status, self._tidied(machine.advance(self.plan, self.status, facts))
        due = self._due(decision.actions, now)
        seen = orders[-1].id if orders else self.known.orders_seen
        intents = self._keep(decision, facts, due, seen)
        self.status = decision.status
        problems = self._make(due, intents, now)
        made = tuple(action for action in due if self._made.get(action) == now)
        turn = Turn(self.plan, before, decision, facts, now, made, tuple(problems), self._answers(facts.ill))
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
        target = self._said_of(self.plan.target, now)
        old = None if self.plan.old is None else self._said_of(self.plan.old, now)
        return Facts(
            now,
            self._seen,
            healthy,
            ill,
            self._finding(now) if unreachable is None else None,
            target.refused,
            target.revoked,
            None if old is None else old.revoked,
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
        self._hear(self._probing.outcome(""), addresses)
        if asked := {name: addresses[name] for name in health.due(self._records, addresses, wanted, now)}:
            self._hear(self._probing.ask("", lambda: (now, self.around.probe(asked, wanted)), PATIENCE_S), addresses)

    def _hear(self, probed: Probed | None, present: Mapping[str, str]) -> None:
        """Remember what probes found; of those that are there no more, nothing."""
        at, answers = probed or (0.0, {})
        self._records = health.after(self._records, present, answers, self.plan.fleet.health, at)

    def _answers(self, ill: frozenset[str]) -> dict[str, Answer]:
        return {one: Answer(False, self._records[one].why) for one in ill if one in self._records}

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
        about = f"{self.known.id} {self.status.state} {self.status.step} {self.status.since}"
        evidence = self._evidence.about(about)
        if evidence is not self._evidence:
            self._evidence_since = now
        measured = self._measuring.outcome(about)
        if measured is None and evidence.is_due(wanted, now):
            subject = analysis.Subject(self.plan.fleet.name, self.plan.generation, self.plan.target.digest)
            baseline = self._baseline()
            measured = self._measuring.ask(
                about, lambda: self.around.measure(wanted, subject, baseline, now), PATIENCE_S
            )
        self._evidence = evidence if measured is None else evidence.plus(wanted, measured)
        return replace(analysis.finding(wanted, self._evidence), since=self._evidence_since)

    def _baseline(self) -> analysis.Subject | None:
        number, old = self.plan.baseline_generation, self.plan.old
        stage = self.plan.stages[self.status.step]
        if number is None or old is None or self.status.no_baseline or not stage.baseline:
            return None
        return analysis.Subject(self.plan.fleet.name, number, old.digest)

    def _said_of(self, image: Image, now: float) -> Said:
        """What was said of an image a moment ago, or else is said now."""
        said = self._trusted.get(image.digest)
        if said is None or abs(now - said.at) >= TRUST_S:
            refused = self.around.trust.refusal(image)
            said = Said(now, refused, self.around.trust.revoked(image) if refused else None)
            self._trusted[image.digest] = said
        return said

    # --- what is done

    def _due(self, actions: tuple[Action, ...], now: float) -> list[Action]:
        """The calls that are to be made now: not again while they may still come true."""
        self._made = {action: at for action, at in self._made.items() if abs(now - at) < AGAIN_S}
        if not actions:
            return []
        asked = {one for action in self._made if isinstance(action, Retire) for one in action.instances}
        return [
            action
            for action in actions
            if action not in self._made and not (isinstance(action, Retire) and asked.issuperset(action.instances))
        ]

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
            actions=tuple(map(_text, due)),
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

    def _tidied(self, decision: Decision) -> Decision:
        """A decision that is an end only once the provider has removed what is left beside instances: whoever dies in
        between is followed by one who comes to the same end, and to this. That it could not be done is told."""
        if decision.status.state not in TERMINAL or self.status.state in TERMINAL:
            return decision
        catalog, fence = self.around.catalog, self.around.fence
        (intent,) = rollouts.intend(catalog, fence, self.plan.fleet.name, [_text(Retire(()))], self.known.id)
        problem = None
        try:
            self.around.provider.retire(())
        except FactoryError as error:
            problem = error.message
        rollouts.finish(catalog, {intent: problem})
        note = () if problem is None else (f"what is left beside the instances was not removed: {problem}",)
        return replace(decision, notes=(*decision.notes, *note))

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
        if (refused := self.around.trust.refusal(image)) is not None:
            raise TrustError(f"{image.name}/{image.arch} is not launched: {refused}")
        return Generation(number, image, self.known.id)


def _text(action: Action) -> str:
    return msgspec.json.encode({type(action).__name__: action}).decode()


def known_instance(fleet: str, provider: str, rollout: str | None, one: Instance) -> KnownInstance:
    """What the catalog keeps of an instance that was observed."""
    launched_at = datetime.fromtimestamp(one.launched_at, UTC)
    digest = Digest(one.digest or "")
    return KnownInstance(fleet, one.generation, provider, one.id, digest, launched_at, rollout)
