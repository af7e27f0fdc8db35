"""What mends a fleet, over the simulator: never below min, never above max, within its budget, and it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_drive import NEW, OLD, fleet
from simulated_provider import Behaviour, Faults, SimulatedProvider, World

from examples import some
from factory.errors import ProviderError
from factory.rollout import drift, heal
from factory.rollout.drift import Illness, Kind, Standing
from factory.rollout.heal import End, Limits, Move
from factory.rollout.history import Serving
from factory.rollout.model import Action, Deadline, Deadlines, FleetSpec, Generation, Launch, Observation, Shift

LEFT = 3
"""A generation of the image that serves, left over."""


BEGAN = 1000.0
"""When the first machines were launched."""


class Machines(SimulatedProvider):
    """The simulator, with single machines of the first ones that fall ill or lose their tag. `reuses`: whoever is
    launched gets the lowest name that is free. As with the provider `local`, one that was launched gets no traffic
    before the next shift."""

    ill: frozenset[str] = frozenset()
    untagged: frozenset[str] = frozenset()
    reuses = False

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.joined: set[tuple[str, float]] = set()

    def observe(self) -> Observation:
        seen = super().observe()
        return replace(
            seen,
            instances=tuple(
                replace(
                    one,
                    healthy=bool(one.healthy) and not self.is_ill(one.id, one.launched_at),
                    is_idle=(one.id, one.launched_at) not in self.joined,
                    digest=None if one.id in self.untagged and one.launched_at == BEGAN else one.digest,
                )
                for one in seen.instances
            ),
        )

    def is_ill(self, name: str, launched_at: float) -> bool:
        return name in self.ill and launched_at == BEGAN

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        self.watch = self._join
        try:
            super().shift(weights, draining)
        finally:
            self.watch = lambda _: None

    def _join(self, world: World) -> None:
        there = world.instances.items()
        self.joined = {(name, one["launched_at"]) for name, one in there if name not in world.draining}

    def send(self, weights: Mapping[int, int]) -> None:
        """Have the traffic go so, whoever can take it."""
        world = self._memory
        world.weights = {str(number): weight for number, weight in weights.items()}
        for one in world.instances.values():
            one["drained_since"] = None if one["generation"] in weights else BEGAN
        self._join(world)

    def launch(self, generation: Generation, count: int) -> None:
        before = set(self._memory.instances)
        try:
            super().launch(generation, count)
        finally:
            instances = self._memory.instances
            for name in [name for name in instances if self.reuses and name not in before]:
                one = instances.pop(name)
                instances[next(free for i in range(1, 99) if (free := f"i-{i}") not in instances)] = one


@dataclass
class Mend:
    """A fleet in disorder, and a run that mends it. `right`, `wrong`, `left`: instances of OLD that serve, of NEW, and
    of OLD in a generation of their own."""

    spec: FleetSpec
    right: int = 3
    wrong: int = 0
    left: int = 0
    weights: Mapping[int, int] = field(default_factory=lambda: {1: 100})
    limits: Limits = field(default_factory=Limits)
    behaviour: Behaviour = field(default_factory=Behaviour)
    ill: int = 0
    untagged: int = 0
    revoked: bool = False
    refused: str | None = None
    serving: Serving | None = field(default_factory=lambda: Serving(1, OLD))
    faults: Faults = field(default_factory=Faults)
    reuses: bool = False

    def __post_init__(self) -> None:
        self.now = BEGAN
        self.provider = Machines(None, lambda: self.now)
        for number, image, count in ((1, OLD, self.right), (2, NEW, self.wrong), (LEFT, OLD, self.left)):
            self.provider.launch(Generation(number, image, "before"), count)
        self.provider.send(self.weights)
        self.now += 1000
        ids = sorted(self.provider._memory.instances, key=lambda name: int(name[2:]))
        self.provider.ill = frozenset(ids[: self.ill])
        self.provider.untagged = frozenset(ids[len(ids) - self.untagged :])
        self.provider.injected, self.provider.reuses = self.faults, self.reuses
        self.provider._memory = replace(self.provider._memory, calls=0, launched=[])
        self.behave()
        self.illness = Illness()
        self.retired: set[str] = set()
        self.notes: list[str] = []

    def behave(self) -> None:
        """What the behaviour says is of those launched from now on; those there already are well."""
        before, behaviour = self.now - 500, self.behaviour

        def of(one: Mapping[str, Any]) -> Behaviour:
            return Behaviour() if one["launched_at"] < before else behaviour

        self.provider._of = of  # type: ignore[method-assign]

    def standing(self) -> Standing:
        observed = self.provider.observe()
        healthy = frozenset(one.id for one in observed.instances if one.healthy)
        self.illness = self.illness.after(observed, healthy, self.now)
        revoked = {OLD.digest if self.revoked else NEW.digest: "CVE-2026-1"} if self.revoked else {}
        ill = self.illness.ill(observed, self.spec.health, self.now)
        return Standing(self.spec, self.serving, observed, healthy, ill, revoked)

    def look(self) -> Standing:
        """As `factory drift` looks: for as long as it takes to know who is ill."""
        self.standing()
        self.now += self.spec.health.grace_s
        return self.standing()

    def found(self) -> Counter[Kind]:
        counts: Counter[Kind] = Counter()
        for one in drift.find(self.look()):
            counts[one.kind] += one.count
        return counts

    def run(self, most_s: float = 3_000.0) -> Move:
        standing = self.look()
        progress, ends = heal.begin(standing, self.now), self.now + most_s
        while self.now < ends:
            standing = self.standing()
            move = heal.advance(standing, self.limits, progress, self.refused, self.now)
            self.notes += move.notes
            progress = move.progress
            if move.end is not None:
                self.now += 10
                return move
            for action in move.actions:
                if self.act(action):
                    progress = heal.accepted(progress, standing, action, self.now)
            self.now += 1.0
        raise AssertionError("it does not end")

    def act(self, action: Action) -> bool:
        before, total = self.served(), self.total()
        try:
            if isinstance(action, Launch):
                assert not self.refused, "launched, though it was refused"
                assert not self.revoked, "launched, though it was revoked"
                assert action.generation == 1
                self.provider.launch(Generation(1, OLD, "r"), action.count)
            elif isinstance(action, Shift):
                self.provider.shift(dict(action.weights), action.draining)
            else:
                self.retired |= set(action.instances)
                self.provider.retire(action.instances)
            done = True
        except ProviderError:
            done = False
        assert self.served() >= min(self.spec.min, before), f"{action} took it from {before} to {self.served()}"
        assert self.total() <= max(self.spec.max, total), f"{self.total()} instances after {action}"
        return done

    def total(self) -> int:
        return len(self.provider._settled(self.provider._memory, self.now).instances)

    def served(self) -> int:
        world = self.provider._settled(self.provider._memory, self.now)
        return sum(
            bool(world.weights.get(str(one["generation"])))
            and (name, one["launched_at"]) in self.provider.joined
            and name not in world.draining
            and not self.provider.is_ill(name, one["launched_at"])
            and one["stopping_since"] is None
            and self.provider._of(one).is_healthy(self.now - one["launched_at"])
            for name, one in world.instances.items()
        )

    @property
    def launched(self) -> int:
        return len(self.provider._memory.launched)

    @property
    def generations(self) -> Counter[int]:
        return Counter(one.generation for one in self.provider.observe().instances if one.state != "stopping")


SHORT = Deadlines(
    launch=Deadline(40, "abort"), shift=Deadline(20, "abort"), drain=Deadline(20, "continue"),
    retire=Deadline(20, "continue"),
)  # fmt: skip
WIDE = fleet(size=3, min=2, max=6, deadlines=SHORT)
TIGHT = fleet(size=3, min=2, max=3, deadlines=SHORT)


def test_fleet_as_it_should_be_has_no_drift_and_is_left_alone() -> None:
    mend = Mend(WIDE)
    assert not mend.found()
    assert mend.run().end == End.DONE
    assert (mend.launched, mend.retired) == (0, set())


def test_what_is_missing_is_launched_and_gets_its_traffic() -> None:
    mend = Mend(WIDE, right=1)
    assert mend.found() == {Kind.MISSING: 2}
    assert mend.run().end == End.DONE
    assert mend.generations == {1: 3}
    assert mend.served() == 3


def test_wrong_image_with_traffic_is_replaced_before_it_goes() -> None:
    mend = Mend(WIDE, right=2, wrong=1, weights={1: 67, 2: 33})
    assert mend.found() == {Kind.MISSING: 1, Kind.WRONG: 1, Kind.TRAFFIC: 1}
    assert mend.run().end == End.DONE
    assert mend.generations == {1: 3}
    assert mend.provider.observe().weights == {1: 100}


def test_image_without_a_tag_is_told_and_replaced() -> None:
    mend = Mend(WIDE, untagged=1)
    assert mend.found() == {Kind.MISSING: 1, Kind.UNKNOWN: 1}
    assert mend.run().end == End.DONE
    assert mend.provider.observe().instances
    assert not mend.found()


def test_left_over_generation_goes_though_nothing_may_be_launched() -> None:
    mend = Mend(WIDE, left=2, refused="the set of revocations has expired")
    assert mend.found() == {Kind.EXTRA: 2}
    assert mend.run().end == End.DONE
    assert mend.launched == 0


def test_more_than_the_size_go_the_youngest_first() -> None:
    mend = Mend(WIDE, right=5)
    assert mend.found() == {Kind.EXTRA: 2}
    assert mend.run().end == End.DONE
    assert mend.retired == {"i-4", "i-5"}


def test_ill_ones_are_replaced_and_not_at_once() -> None:
    mend = Mend(WIDE, ill=1)
    assert not drift.find(mend.standing())
    assert mend.found() == {Kind.UNHEALTHY: 1}
    assert mend.run().end == End.DONE
    assert mend.retired == {"i-1"}
    assert mend.served() == 3


def test_no_room_one_goes_first_one_at_a_time() -> None:
    mend = Mend(TIGHT, right=1, wrong=2, weights={1: 34, 2: 66})
    assert mend.run().end == End.DONE
    assert mend.generations == {1: 3}


def test_no_room_and_no_slack_is_said() -> None:
    mend = Mend(fleet(size=3, min=3, max=3, deadlines=SHORT), right=2, wrong=1, weights={1: 67, 2: 33})
    move = mend.run()
    assert move.end == End.STUCK
    assert "min 3 and max 3" in move.why
    assert not mend.retired


def test_revoked_image_that_serves_is_not_healed_by_launching() -> None:
    mend = Mend(WIDE, revoked=True, refused="CVE-2026-1")
    assert mend.found() == {Kind.MISSING: 3, Kind.REVOKED: 3}
    move = mend.run()
    assert (move.end, move.why) == (End.REFUSED, "CVE-2026-1")
    assert (mend.launched, mend.retired, mend.served()) == (0, set(), 3)


def test_budget_ends_a_run_and_the_next_goes_on() -> None:
    mend = Mend(WIDE, ill=3, limits=Limits(budget=1))
    for left in (2, 1):
        assert mend.run().end == End.BUDGET
        assert mend.found() == {Kind.UNHEALTHY: left}
    assert mend.run().end == End.DONE
    assert (mend.launched, len(mend.retired), mend.served()) == (3, 3, 3)


def test_breaker_stops_after_replacements_that_failed_and_takes_them_away() -> None:
    mend = Mend(WIDE, right=2, limits=Limits(budget=1), behaviour=Behaviour(healthy_after_s=None))
    move = mend.run()
    assert move.end == End.BREAKER
    assert mend.launched == 3
    assert mend.generations == {1: 2}
    assert "not healthy within 60 s" in " ".join(mend.notes)


def test_replacements_that_die_at_once_trip_the_breaker_too() -> None:
    mend = Mend(WIDE, right=2, behaviour=Behaviour(healthy_after_s=None, dies_after_s=0.5))
    assert mend.run().end == End.BREAKER
    assert mend.launched == 3
    assert "never came" in " ".join(mend.notes)


def test_name_that_is_taken_over_is_of_another_instance() -> None:
    mend = Mend(WIDE, right=2, behaviour=Behaviour(healthy_after_s=None, dies_after_s=5), reuses=True)
    move = mend.run()
    assert (move.end, mend.launched) == (End.BREAKER, 3)
    assert mend.notes == ["launched i-3", "i-3 failed: it is gone"] * 3


def test_replacement_that_falls_ill_again_counts_as_failed() -> None:
    mend = Mend(WIDE, right=2, ill=2, limits=Limits(breaker=2), behaviour=Behaviour(pending_s=3, ill_after_s=6))
    mend.spec = replace(WIDE, health=replace(WIDE.health, deadline_s=5), max=4)
    move = mend.run()
    assert move.end == End.BREAKER
    assert "it was healthy, and is not any more" in " ".join(mend.notes)
    assert mend.launched == 3


def test_scale_neither_heals_nor_asks_for_whom_is_ill() -> None:
    mend = Mend(replace(WIDE, size=5), ill=1, wrong=1, limits=Limits(mends=heal.SCALES))
    assert mend.run().end == End.DONE
    assert mend.generations == {1: 5, 2: 1}
    mend.spec = replace(WIDE, size=2)
    assert mend.run().end == End.DONE
    assert mend.generations == {1: 2, 2: 1}
    assert "i-1" in mend.retired


def test_nothing_to_serve_leaves_what_has_traffic_alone() -> None:
    mend = Mend(WIDE, right=0, wrong=3, left=1, weights={2: 100}, serving=None)
    assert mend.found() == {Kind.EXTRA: 4}
    assert mend.run().end == End.STUCK
    assert mend.generations == {2: 3, LEFT: 1}


def test_rollout_that_goes_on_answers_for_its_own_generations() -> None:
    mend = Mend(WIDE, right=1, wrong=2, left=1)
    standing = replace(mend.standing(), rolling=frozenset({1, 2}))
    assert [(one.kind, one.generation) for one in drift.find(standing)] == [(Kind.EXTRA, LEFT)]


def test_one_that_warms_is_not_ill() -> None:
    mend = Mend(WIDE)
    mend.provider.launch(Generation(1, OLD, "r"), 4)
    mend.now += 0.5
    illness = Illness().after(mend.provider.observe(), frozenset(), mend.now)
    assert illness.ill(mend.provider.observe(), WIDE.health, mend.now + 59) == {"i-1", "i-2", "i-3"}
    assert not illness.undecided(replace(mend.provider.observe(), instances=()), WIDE.health, mend.now)


BEHAVIOURS = st.sampled_from(
    [Behaviour(), Behaviour(pending_s=20, healthy_after_s=40), Behaviour(healthy_after_s=None),
     Behaviour(dies_after_s=30), Behaviour(flaps_every_s=7), Behaviour(ill_after_s=90)]
)  # fmt: skip
RARELY = st.sampled_from([False] * 5 + [True])
NUMBERS = st.frozensets(st.integers(1, 12), max_size=5)


@st.composite
def disorders(draw: st.DrawFn) -> Mend:
    size = draw(st.integers(1, 6))
    spec = fleet(size=size, min=draw(st.integers(0, size)), max=size + draw(st.integers(0, 4)), deadlines=SHORT)
    right, wrong, left = (draw(st.integers(0, 6)) for _ in range(3))
    if not right + wrong + left:
        right = 1
    weights = draw(st.sampled_from([{1: 100}, {2: 100}, {1: 60, 2: 40}, {}, {1: 50, 2: 30, LEFT: 20}]))
    return Mend(
        spec, right, wrong, left, weights,
        limits=Limits(draw(st.none() | st.integers(1, 4)), draw(st.integers(1, 3)),
                      draw(st.sampled_from([heal.ALL, heal.SCALES]))),
        behaviour=draw(BEHAVIOURS), ill=draw(st.integers(0, 3)), untagged=draw(st.integers(0, 2)),
        revoked=draw(RARELY), refused="no" if draw(RARELY) else None,
        faults=Faults(refused=draw(NUMBERS), lost=draw(NUMBERS)), reuses=draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=some(150))
@given(disorders())
def test_any_disorder_is_mended_within_the_limits_or_it_is_said_why_not(mend: Mend) -> None:
    move = mend.run()
    progress, limits = move.progress, mend.limits
    failed = progress.failed
    assert failed < limits.breaker + (mend.spec.max if limits.budget is None else limits.budget)
    if limits.budget is not None:
        assert mend.launched <= limits.budget + failed
        assert len(mend.retired) <= limits.budget + failed
    if mend.refused is not None:
        assert mend.launched == 0
    assert move.why or move.end == End.DONE
    if move.end == End.DONE:
        kinds = {one.kind for one in drift.find(mend.standing())}
        assert not kinds & limits.mends - {Kind.MISSING, Kind.UNHEALTHY, Kind.TRAFFIC}


@settings(max_examples=some(60))
@given(disorders())
def test_runs_without_limits_end_with_a_fleet_as_it_should_be(mend: Mend) -> None:
    mend.limits, mend.behaviour, mend.refused, mend.revoked = Limits(), Behaviour(), None, False
    mend.behave()
    mend.spec = replace(mend.spec, max=mend.spec.size + 7 + mend.total())
    for _ in range(3):
        if (move := mend.run()).end == End.DONE and not mend.found():
            break
    assert move.end == End.DONE, move.why
    assert mend.generations == {1: mend.spec.size}
    assert mend.served() == mend.spec.size
    assert mend.provider.observe().weights == {1: 100}
