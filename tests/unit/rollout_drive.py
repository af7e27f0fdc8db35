"""Drives the machine of a rollout over the simulator as the engine does, and watches what must always hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from simulated_provider import Behaviour, Faults, SimulatedProvider

from factory.digest import Digest, of_bytes
from factory.errors import ProviderError
from factory.rollout import machine, plan
from factory.rollout.model import (
    TERMINAL,
    Action,
    Analysis,
    Decision,
    Facts,
    Finding,
    FleetSpec,
    Generation,
    Health,
    Image,
    Launch,
    Order,
    Plan,
    Retire,
    Shift,
    State,
    Status,
    Step,
    Verdict,
)

OLD, NEW = (Image("web", "amd64", of_bytes(name), {"local": name.decode()}) for name in (b"old image", b"new image"))


def fleet(strategy: str = "canary", size: int = 3, **more: object) -> FleetSpec:
    """A fleet whose waits are short; there is room for a whole second generation and a baseline."""
    made = FleetSpec(
        "web", "local", "web", "prod", size, size, 2 * size + 1, "canary", Health(tcp=80, deadline_s=60),
        listen="127.0.0.1:8080", steps=(Step(10, 5, analyse=True), Step(50, 5)),
    )  # fmt: skip
    return replace(made, strategy=strategy, **more)  # type: ignore[arg-type]


def analysis(**more: object) -> Analysis:
    made = Analysis("http_json", "http://127.0.0.1:1/", "error_rate", success="< 0.01", baseline="fresh")
    return replace(made, **more)  # type: ignore[arg-type]


@dataclass
class Drive:
    """One rollout of NEW over a fleet of OLD (or nothing, where `old_count` is 0)."""

    spec: FleetSpec
    old_count: int = 3
    new: Behaviour = field(default_factory=Behaviour)
    old: Behaviour = field(default_factory=Behaviour)
    faults: Faults = field(default_factory=Faults)
    finding: Finding | None = field(default_factory=lambda: Finding(Verdict.SUCCESS))
    target_refused: str | None = None
    target_revoked: str | None = None
    old_revoked: str | None = None
    joins_by_itself: bool = True

    def __post_init__(self) -> None:
        self.now = 1000.0
        self.provider = SimulatedProvider(None, lambda: self.now, {OLD.digest: self.old, NEW.digest: self.new})
        self.provider.joins_by_itself = self.joins_by_itself
        if self.old_count:
            self.provider.launch(Generation(1, OLD, "before"), self.old_count)
            self.now += 60
            self.provider._memory.weights = {"1": 100}  # they were healthy once, whatever they are now
            for one in self.provider._memory.instances.values():
                one["joined"] = True
        self.provider.injected = self.faults
        self.provider._memory = replace(self.provider._memory, calls=0, launched=[])
        there = self.old_count > 0
        self.plan = Plan(
            "r-1", self.spec, NEW, 2, plan.stages(self.spec, self.old_count), OLD if there else None,
            1 if there else None, 3 if there else None,
        )  # fmt: skip
        self.status = machine.begin(self.now)
        self.states = [(self.status.state, 0)]
        self.notes: list[str] = []
        self.on_action: Callable[[Action], None] = lambda _: None

    # --- one turn

    def facts(self, *orders: Order) -> Facts:
        observed, why = self._observed, None
        try:
            observed = self._observed = self.provider.observe()
        except ProviderError as error:
            why = error.message
        healthy = frozenset(one.id for one in observed.instances if one.healthy)
        finding = self.finding if machine.wants_analysis(self.plan, self.status, self.now) else None
        ill = frozenset(one.id for one in observed.instances if one.state == "running" and not one.healthy)
        return Facts(
            self.now, observed, healthy, ill, finding, self.target_refused or self.target_revoked, self.target_revoked,
            self.old_revoked, orders, why,
        )  # fmt: skip

    def turn(self, *orders: Order) -> Decision:
        """Decide, and do what was decided."""
        facts = self.facts(*orders)
        decision = machine.advance(self.plan, self.status, facts)
        if (self.status.state, decision.status.state) == (State.RETIRING, State.SUCCEEDED):
            served = sum(one.id in facts.healthy for one in facts.observed.of(2))
            assert served >= self.spec.min, f"{served} of the new image serve, and it is said to have succeeded"
        self.take(decision)
        for action in decision.actions:
            self.act(action)
        return decision

    def take(self, decision: Decision) -> None:
        self.notes += decision.notes
        self.status = decision.status
        if self.states[-1] != (self.status.state, self.status.step):
            self.states.append((self.status.state, self.status.step))

    def act(self, action: Action) -> None:
        before = self.serving()
        images = {1: OLD, 2: NEW, 3: OLD}
        try:
            if isinstance(action, Launch):
                refused = self.old_revoked if images[action.generation] is OLD else self.target_revoked
                assert refused is None, f"{action} though {refused}"
                self.provider.launch(Generation(action.generation, images[action.generation], "r-1"), action.count)
            elif isinstance(action, Shift):
                self.provider.shift(dict(action.weights), action.draining)
            else:
                self._may_go(action)
                self.provider.retire(action.instances)
        except ProviderError:
            pass
        self.check(action, before)
        self.on_action(action)

    # --- what must always hold

    def _may_go(self, action: Retire) -> None:
        generations = {one.id: one.generation for one in self.provider.observe().instances}
        if any(generations.get(name) == 1 for name in action.instances):
            assert self.status.no_return_at is not None, "the old generation is touched before the point of no return"

    def serving(self) -> int:
        """How many healthy instances get traffic, the one to compare with left out: it is there for a while only."""
        world = self.provider._settled(self.provider._memory, self.now)
        return sum(
            bool(world.weights.get(str(one["generation"])))
            and one["generation"] != 3
            and name not in world.draining
            and one["stopping_since"] is None
            and (self.joins_by_itself or one["joined"])
            and self.provider._of(one).is_healthy(self.now - one["launched_at"])
            for name, one in world.instances.items()
        )

    def check(self, action: Action, before: int) -> None:
        world = self.provider._settled(self.provider._memory, self.now)
        assert len(world.instances) <= self.spec.max, f"{len(world.instances)} instances after {action}"
        after = self.serving()
        if before >= self.spec.min:
            assert after >= self.spec.min, f"{action} took it from {before} to {after} in {self.status.state}"

    # --- many turns

    def run(self, until: State | None = None, *, limit_s: float = 5000, step_s: float = 1.0) -> Status:
        """Turn after turn until a state, or an end; or until nothing but an operator could go on."""
        ends = self.now + limit_s
        while self.status.state not in TERMINAL and self.now < ends:
            self.turn()
            if self.status.state == until or self.status.paused in ("operator", "deadline"):
                break
            self.now += step_s
        return self.status

    @property
    def generations(self) -> set[int]:
        """Which there are, those that stop left out."""
        return {one.generation for one in self.provider.observe().instances if one.state != "stopping"}

    @property
    def weights(self) -> dict[int, int]:
        return dict(self.provider.observe().weights)

    @property
    def launched(self) -> list[Digest]:
        return [Digest(digest) for digest in self.provider._memory.launched]

    _observed = SimulatedProvider(None, lambda: 0.0).observe()
