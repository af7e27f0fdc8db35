"""Fleets on AWS, whatever goes wrong: calls are cut short, throttled, answered too late, seen too late, and repeated by
another process. In the end there is what was asked for, and never was there more, or anything without its tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strict_aws.fleets import Account, Stage, clients, fleet
from strict_aws.models import Request
from strict_aws.server import StrictAws, served
from strict_aws.world import Pace

from factory.errors import ProviderError
from factory.rollout.providers.aws import names, traffic
from factory.rollout.providers.aws.traffic import Memory

HERE = "eu-west-1"


@dataclass(frozen=True)
class Step:
    """A call, and what happens to it: `fault` at its `at`-th request, from 1. After `cut` and `lose` the process is
    dead: nothing it asks for after that arrives."""

    call: str
    count: int
    fault: str
    at: int
    wait_s: float


STEPS = st.builds(
    Step,
    call=st.sampled_from(["launch-1", "launch-2", "shift", "retire-1", "retire-2"]),
    count=st.integers(1, 3),
    fault=st.sampled_from(["", "", "throttle", "lose", "cut"]),
    at=st.integers(1, 14),
    wait_s=st.sampled_from([0.0, 2.0, 20.0]),
)


PACES = st.builds(Pace, lag_s=st.sampled_from([0.0, 0.0, 3.0]), launch_s=st.sampled_from([0.0, 0.0, 12.0]))

EXAMPLES = (
    [Step("launch-1", 2, "", 1, 20.0), Step("retire-1", 1, "lose", 6, 0.0), Step("retire-1", 2, "", 1, 0.0)],
    [Step("launch-1", 3, "", 1, 20.0), Step("launch-2", 1, "lose", 12, 0.0), Step("shift", 2, "cut", 7, 0.0)],
    [Step("launch-2", 3, "", 1, 0.0), Step("launch-1", 1, "", 1, 20.0), Step("launch-1", 1, "", 1, 0.0)],
    [
        Step("launch-2", 1, "", 1, 20.0),
        Step("launch-1", 1, "cut", 8, 20.0),
        Step("launch-1", 1, "cut", 10, 0.0),
        Step("launch-2", 2, "", 1, 0.0),
    ],
)
"""Of the last two: one generation wrote the listener as it was before the other had named itself there; a template was
removed while a target group made a moment before was not seen yet, and was then never found again."""


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[StrictAws, Account]]:
    aws = StrictAws()
    with served(aws) as url:
        yield aws, Account(clients(url)).make()


@dataclass
class Run:
    """One example. `most`: generation -> the greatest count that was ever asked for."""

    stage: Stage
    most: dict[int, int] = field(default_factory=dict)

    def do(self, step: Step) -> None:
        """One step, by a process of its own."""
        number = int(step.call[-1]) if step.call != "shift" else 0
        begun = len(self.stage.aws.requests)
        dead = False

        def fault(request: Request) -> str | None:
            nonlocal dead
            self.check()
            if dead:
                return "cut"
            if not step.fault or len(self.stage.aws.requests) != begun + step.at:
                return None
            dead = step.fault in ("lose", "cut")
            return step.fault

        self.stage.aws.fault = fault
        try:
            if step.call.startswith("launch"):
                self.launch(number, step.count)
            elif step.call == "shift":
                self.stage.provider().shift({1: 100 - 10 * step.count, 2: 10 * step.count})
            else:
                self.retire(number, step.count)
        except ProviderError:
            pass
        self.stage.aws.fault = lambda _: None
        self.stage.aws.clock.sleep(step.wait_s)
        self.check()

    def launch(self, number: int, count: int) -> None:
        self.most[number] = max(count, self.most.get(number, 0))
        self.stage.provider().launch(self.stage.account.generation(number, "ab"[number - 1]), count)

    def retire(self, number: int, count: int) -> None:
        provider = self.stage.provider()
        there = [one.id for one in provider.observe().of(number) if one.state != "stopping"]
        provider.retire(sorted(there)[:count])

    def check(self) -> None:
        """Never more than was asked for, of the right image, and everything tagged."""
        region = self.stage.aws.region(HERE)
        living: dict[int, int] = {}
        for reservation in region.ec2.reservations.values():
            for instance in reservation.instances:
                tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
                number = names.generation_of(tags)
                assert tags.get(names.FLEET) == "web"
                assert number is not None
                assert instance.image_id == self.stage.account.amis["ab"[number - 1], HERE]
                life = region.lives.get(instance.id)
                if life is not None and life.leaving_at is None and life.ended_at is None:
                    living[number] = living.get(number, 0) + 1
        for number, count in living.items():
            assert count <= self.most.get(number, 0)

    def until(self, act: Callable[[], object], done: Callable[[], bool]) -> None:
        """Ask again and again, as the engine does, until it is so."""

        def once() -> bool:
            try:
                act()
                return done()
            except ProviderError:
                return False

        self.stage.until(once, step_s=16)
        self.check()


def rolled(run: Run) -> None:
    """From wherever it is: generation 2 serves with three, generation 1 is gone and leaves nothing."""
    stage = run.stage

    def launched() -> bool:
        return len([one for one in stage.provider().observe().of(2) if one.healthy]) >= 3

    run.until(lambda: run.launch(2, 3), launched)
    run.until(lambda: stage.provider().shift({2: 100}), lambda: stage.provider().observe().weights == {2: 100})

    def retire() -> None:
        provider = stage.provider()
        found = provider.observe()
        extra = [one.id for one in found.of(2) if one.state != "stopping"][3:]
        provider.retire([*(one.id for one in found.of(1)), *extra])  # with none to name, what is left is removed

    wanted = ["group factory-web-2", f"target group {names.target_group('web', 2)}", "template factory-web-2"]

    def is_gone() -> bool:
        left = stage.left()
        return [one for one in left if "instance" not in one] == sorted(wanted) and len(left) == len(wanted) + 3

    run.until(retire, is_gone)
    stage.provider().retire(())
    stage.aws.clock.sleep(60)
    found = stage.provider().observe()
    assert [(one.generation, one.healthy) for one in found.instances] == [(2, True)] * 3
    assert stage.aws.region(HERE).is_suspended("factory-web-2", "Launch")
    assert found.weights == {2: 100}


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=4), pace=PACES)
@example(steps=EXAMPLES[0], pace=Pace(lag_s=3.0))
@example(steps=EXAMPLES[1], pace=Pace(launch_s=12.0))
@example(steps=EXAMPLES[2], pace=Pace(lag_s=3.0))
@example(steps=EXAMPLES[3], pace=Pace(lag_s=3.0, launch_s=12.0))
def test_whatever_goes_wrong_repeated_calls_come_to_the_same_end(
    account: tuple[StrictAws, Account], steps: list[Step], pace: Pace
) -> None:
    aws, there = account
    aws.reset(pace)
    aws.clock.sleep(60)
    run = Run(Stage(aws, there, fleet(there, size=3)))
    for step in steps:
        run.do(step)
    rolled(run)
    assert aws.violations == []


def given_up(run: Run) -> None:
    """From wherever it is: all that there is is retired, and nothing comes after it, however much room there is."""
    stage = run.stage

    def retire() -> None:
        provider = stage.provider()
        provider.retire([one.id for one in provider.observe().instances])

    run.until(retire, lambda: not stage.provider().observe().instances)
    run.until(lambda: stage.provider().retire(()), lambda: True)
    launched = list(stage.aws.region(HERE).launches)
    stage.aws.room.clear()
    for _ in range(5):
        stage.aws.clock.sleep(30)
        assert stage.provider().observe().instances == ()
    assert stage.aws.region(HERE).launches == launched
    run.until(lambda: stage.provider().retire(()), lambda: not [one for one in stage.left() if "instance" not in one])


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=4), pace=PACES, room=st.sampled_from([0, 1, 2, 99]))
@example(steps=[Step("launch-1", 3, "lose", 14, 0.0)], pace=Pace(launch_s=12.0), room=99)
@example(steps=[Step("launch-1", 3, "", 1, 20.0), Step("launch-2", 2, "", 1, 2.0)], pace=Pace(), room=4)
@example(steps=[Step("launch-1", 3, "", 1, 20.0), Step("retire-1", 1, "cut", 6, 2.0)], pace=Pace(), room=2)
def test_whatever_goes_wrong_nothing_is_launched_after_all_was_given_up(
    account: tuple[StrictAws, Account], steps: list[Step], pace: Pace, room: int
) -> None:
    aws, there = account
    aws.reset(pace)
    aws.clock.sleep(60)
    aws.room[HERE] = room
    run = Run(Stage(aws, there, fleet(there, size=3)))
    for step in steps:
        run.do(step)
    aws.clock.sleep(pace.lag_s)
    given_up(run)
    assert aws.violations == []


# --- what is pure


@given(st.dictionaries(st.integers(0, 999_999_999), st.integers(0, 999), max_size=5))
def test_hundredths_are_a_hundred_together(parts: dict[int, int]) -> None:
    shares = traffic.hundredths(parts)
    total = sum(parts.values())
    assert sum(shares.values()) == (100 if total else 0)
    for key, share in shares.items():
        assert abs(share - parts[key] * 100 / total) < 1
    if total == 100:
        assert shares == parts


@given(st.dictionaries(st.integers(0, 999_999_999), st.integers(0, 100), max_size=5), st.integers(0, 2**40))
def test_memory_is_read_as_it_was_written(asked: dict[int, int], at: int) -> None:
    memory = Memory(asked, at)
    assert Memory.parse(memory.text()) == memory
    assert len(memory.text()) <= 256
    assert set(memory.text()) <= set("0123456789: ")


@given(st.text(max_size=40))
def test_memory_that_is_nonsense_is_none_or_numbers(text: str) -> None:
    memory = Memory.parse(text)
    assert memory is None or all(isinstance(one, int) for pair in memory.asked.items() for one in pair)


@given(st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True), st.integers(1, 999_999_999))
def test_names_are_what_aws_takes(name: str, number: int) -> None:
    target = names.target_group(name, number)
    assert len(target) <= 32
    assert not target.endswith("-")
    assert "--" not in target
    assert len(names.group(name, number)) <= 128


@given(
    st.dictionaries(st.integers(1, 9), st.integers(0, 100), max_size=4),
    st.sets(st.integers(1, 9), max_size=4),
)
def test_fitted_weights_are_for_those_that_are_there(asked: dict[int, int], present: set[int]) -> None:
    fitted = traffic.fitted(asked, frozenset(present))
    assert set(fitted) <= present
    assert sum(fitted.values()) in (0, 100)


@given(st.lists(st.dictionaries(st.integers(1, 4), st.integers(1, 100), max_size=3), min_size=1, max_size=4))
def test_weights_together_are_the_first_regions_only_if_all_agree(regions: list[dict[int, int]]) -> None:
    together = traffic.together(regions)
    assert together in regions
    assert (together == regions[0]) == all(one == regions[0] for one in regions)


def test_spread_is_even_and_never_beyond_the_count() -> None:
    from factory.rollout.providers.aws import _spread

    first, second = "first", "second"
    spread: Any = _spread
    assert spread({first: 0, second: 0}, 3) == {first: 2, second: 1}
    assert spread({first: 0, second: 2}, 2) == {}
    assert spread({first: 0, second: 2}, 3) == {first: 1}
    assert spread({first: 3, second: 0}, 2) == {}
