"""The engine of a rollout beyond what the machine decides: it is not held up, asks once, and remembers little."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rollout_drive import NEW, OLD, analysis
from simulated_fleets import Simulated, Trusted, good, quick
from simulated_provider import Faults, SimulatedProvider

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.errors import ConflictError, ProviderError
from factory.rollout import fleet as fleets
from factory.rollout.aside import Aside
from factory.rollout.engine import Engine, Said, Turn
from factory.rollout.health import Answer
from factory.rollout.model import Health, Image, Launch, Observation, Order, Retire, State

SOON = 5000


@dataclass
class Clock:
    """A clock that goes on by itself a little each time it is asked."""

    now: float = 1_000_000.0
    step_s: float = 0.3

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


@dataclass
class Driven:
    """An engine, and what it told."""

    engine: Engine
    catalog: Catalog
    turns: list[Turn] = field(default_factory=list)

    def until(self, *states: State) -> None:
        for _ in range(SOON):
            self.turns.append(self.engine.turn())
            if self.engine.status.state in states:
                return
        raise AssertionError(f"it stays in {self.engine.status}")

    def order(self, wanted: Order) -> None:
        rollouts.order(self.catalog, self.engine.known, wanted)


@contextmanager
def driven(folder: Path, spec: Any = None, **around: Any) -> Iterator[Driven]:
    simulated = Simulated(folder, clock=Clock())
    simulated.found(spec or quick("canary"))
    with Catalog.open(simulated.catalog_path) as catalog, fleets.leased(catalog, "web") as fence:
        known = rollouts.last(catalog, "web")
        assert known is not None
        yield Driven(Engine(simulated.around(catalog, fence, **around), known), catalog)


class Hanging:
    """Something that does not answer until it is let go."""

    def __init__(self, then: Callable[..., Any]) -> None:
        self._then, self._let_go = then, threading.Event()
        self.asked = 0

    def __call__(self, *arguments: Any) -> Any:
        self.asked += 1
        assert self._let_go.wait(30), "whoever asked waits for it"
        return self._then(*arguments)

    def let_go(self) -> None:
        self._let_go.set()


def test_abort_acts_while_the_source_of_numbers_hangs(tmp_path: Path) -> None:
    measure = Hanging(good)
    with driven(tmp_path, measure=measure) as it:
        it.until(State.ANALYSING)
        for _ in range(20):
            it.engine.turn()
        assert it.engine.status.state == State.ANALYSING
        assert measure.asked == 1
        it.order(Order.ABORT)
        assert it.engine.turn().status.state == State.ROLLING_BACK
        assert it.engine.around.provider.observe().weights == {1: 100}
        measure.let_go()


def test_measurement_of_a_step_that_is_over_does_not_count(tmp_path: Path) -> None:
    measure = Hanging(good)
    with driven(tmp_path, measure=measure) as it:
        it.until(State.ANALYSING)
        for _ in range(20):
            it.engine.turn()
        it.order(Order.PAUSE)
        it.engine.turn()
        it.order(Order.RESUME)
        it.engine.turn()
        measure.let_go()
        it.until(State.LAUNCHING)
        assert measure.asked == 1 + analysis().count


def test_abort_acts_while_instances_do_not_answer(tmp_path: Path) -> None:
    def everything_answers(addresses: Mapping[str, str], _: Health) -> dict[str, Answer]:
        return dict.fromkeys(addresses, Answer(True))

    class WithoutWord(SimulatedProvider):
        """Its provider has no word on health."""

        def observe(self) -> Observation:
            seen = super().observe()
            asked = (replace(one, healthy=None, address="127.0.0.1:1") for one in seen.instances)
            return replace(seen, instances=tuple(asked))

    probe = Hanging(everything_answers)
    with driven(tmp_path, probe=probe) as it:
        it.engine.around.provider.__class__ = WithoutWord
        it.until(State.WARMING)
        for _ in range(10):
            it.engine.turn()
        it.order(Order.ABORT)
        assert it.engine.turn().status.state == State.ROLLING_BACK
        assert probe.asked == 1
        probe.let_go()


def test_trust_is_asked_once_a_second_and_before_each_launch(tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(Trusted):
        def refusal(self, image: Image) -> str | None:
            asked.append(image.digest)
            return super().refusal(image)

    with driven(tmp_path, trust=Counting()) as it:
        it.engine.around.clock.step_s = 0.05  # type: ignore[attr-defined]
        it.until(State.SUCCEEDED)
    launches = sum(isinstance(action, Launch) for turn in it.turns for action in turn.made)
    took_s = it.turns[-1].at - it.turns[0].at
    assert launches >= 3
    assert launches < len(asked) <= 2 * (took_s + 1) + launches
    assert len(asked) < len(it.turns)
    assert NEW.digest in asked
    assert OLD.digest in asked


def test_image_revoked_a_moment_before_its_launch_is_not_launched(tmp_path: Path) -> None:
    trust = Trusted()
    with driven(tmp_path, trust=trust) as it:
        it.until(State.VERIFIED)
        it.engine._trusted[NEW.digest] = Said(it.engine.around.clock() + 0.6, None, None)  # what was said just now
        trust.refused[NEW.digest] = "CVE-2026-1"
        turn = it.engine.turn()
        while not turn.problems and turn.status.state in (State.VERIFIED, State.LAUNCHING):
            turn = it.engine.turn()
        assert "CVE-2026-1" in " ".join(turn.problems)
        it.until(State.ROLLED_BACK)
        world = it.engine.around.provider._read()  # type: ignore[attr-defined]
        assert NEW.digest not in world.launched


def test_engine_that_takes_over_counts_no_illness_of_the_time_before_it(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.until(State.ANALYSING)
        it.engine.status = replace(it.engine.status, ill_since=1.0, old_ill_since=1.0)
        it.engine.known = replace(it.engine.known, status=msgspec.json.encode(it.engine.status).decode())
        another = Engine(it.engine.around, it.engine.known)
        assert another.turn().status.state == State.ANALYSING


def test_instances_on_their_way_out_are_asked_to_go_every_few_seconds_only(tmp_path: Path) -> None:
    with driven(tmp_path, quick("blue-green", size=6)) as it:
        it.engine.around.provider.stopping_s = 30  # type: ignore[attr-defined]
        it.until(State.SUCCEEDED)
    asked = [turn.at for turn in it.turns for action in turn.made if isinstance(action, Retire)]
    assert len(asked) > 2
    assert min(later - sooner for sooner, later in pairwise(asked)) >= 2
    assert len(it.engine._made) <= 1


class Retiring(SimulatedProvider):
    """Remembers what was to be retired; may fail to remove what is beside instances."""

    retired: list[tuple[str, ...]]
    fails: bool

    def retire(self, instances: Iterable[str]) -> None:
        named = tuple(instances)
        self.retired.append(named)
        if self.fails and not named:
            raise ProviderError("the account is closed")
        super().retire(named)


def retired_when_done(it: Driven, end: State, *, fails: bool = False) -> list[tuple[str, ...]]:
    provider: Any = it.engine.around.provider
    provider.__class__, provider.retired, provider.fails = Retiring, [], fails
    it.until(end)
    retired: list[tuple[str, ...]] = provider.retired
    return retired


def test_what_is_left_beside_instances_is_removed_before_an_end_is_noted(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        retired = retired_when_done(it, State.SUCCEEDED)
        assert retired.count(()) == 1
        assert retired[-1] == ()
        assert it.engine.around.provider._read().beside == [2]  # type: ignore[attr-defined]
        noted = it.catalog.query("SELECT rollout, action FROM rollout_intents ORDER BY id DESC LIMIT 1", [])
        assert [tuple(row.values()) for row in noted] == [("r-1", '{"Retire":{"instances":[]}}')]
        assert rollouts.open_intents(it.catalog, "web") == []


def test_end_is_the_same_where_what_is_left_cannot_be_removed_and_that_is_told(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.until(State.LAUNCHING)
        it.order(Order.ABORT)
        assert retired_when_done(it, State.ROLLED_BACK, fails=True).count(()) == 1
        (_, last) = rollouts.states(it.catalog, "r-1")[-1]
        assert last.notes == ("what is left beside the instances was not removed: the account is closed",)
        known = rollouts.last(it.catalog, "web")
        assert known is not None
        assert known.ended == State.ROLLED_BACK


def test_no_instance_is_retired_where_there_was_no_way_back(tmp_path: Path) -> None:
    """But what was launched and has not come is not to come: neither image may run."""
    trust = Trusted()
    with driven(tmp_path, trust=trust) as it:
        it.until(State.ANALYSING)
        trust.refused |= {NEW.digest: "CVE-2026-1", OLD.digest: "CVE-2026-1"}
        assert retired_when_done(it, State.ROLLBACK_FAILED) == [()]


def test_order_to_abort_is_kept_while_the_provider_does_not_answer(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.until(State.ANALYSING)
        clock, provider = it.engine.around.clock, it.engine.around.provider
        provider.injected = Faults(gone_until=clock() + 30)  # type: ignore[attr-defined]
        it.order(Order.ABORT)
        turn = it.engine.turn()
        assert (turn.status.state, turn.facts.unreachable, turn.made) == (State.ABORTING, "nobody answers", ())
        it.until(State.ROLLING_BACK)
        assert provider.observe().weights == {1: 100}


def test_engine_whose_lease_was_taken_writes_no_more(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.until(State.LAUNCHING)
        rollouts.take_lease(it.catalog, "web", {"pid": 1}, lambda _: False)
        with pytest.raises(ConflictError, match="taken over"):
            it.until(State.SUCCEEDED)


def test_what_is_done_aside_tells_of_a_bug() -> None:
    def broken() -> int:
        raise ZeroDivisionError("no number")

    with pytest.raises(ZeroDivisionError):
        Aside[int]("test").ask("", broken, 5)
