"""Whole rollouts on AWS: the machine decides, the provider acts; some requests are throttled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from strict_aws.fleets import Account, Stage, fleet
from strict_aws.models import Request
from strict_aws.world import Pace
from strict_aws.worlds import shared

from factory.errors import ProviderError
from factory.rollout import machine, plan
from factory.rollout.model import (
    TERMINAL,
    Deadline,
    Deadlines,
    Facts,
    Generation,
    Launch,
    Order,
    Plan,
    Retire,
    Shift,
    State,
    Step,
)

HERE = "eu-west-1"


@dataclass
class Roll:
    """Generation 2, of image b, over generation 1, of image a, which serves."""

    stage: Stage
    requests: int = 0
    room: int | None = None
    """How many instances of the new image there is capacity for; None: enough."""
    aborts: bool = False
    """An operator aborts it as soon as it has launched something."""
    seen: list[State] = field(default_factory=list)
    reason: str = ""
    """Why it went back."""

    def throttle(self, request: Request) -> str | None:
        """Every 23rd request comes too early."""
        self.requests += 1
        return "throttle" if self.requests % 23 == 0 else None

    def run(self) -> State:
        stage, spec = self.stage, self.stage.spec
        stage.provider().launch(stage.account.generation(1, "a"), spec.size)
        stage.aws.clock.sleep(stage.aws.pace.launch_s)
        stage.provider().observe()
        stage.aws.clock.sleep(20)
        stage.provider().shift({1: 100})
        images = {1: stage.account.image("a"), 2: stage.account.image("b")}
        made = Plan("r-2", spec, images[2], 2, plan.stages(spec, spec.size), images[1], 1)
        status = machine.begin(stage.aws.clock.now())
        stage.aws.fault = self.throttle
        if self.room is not None:
            stage.aws.room[HERE] = self.room
        orders: tuple[Order, ...] = ()
        for _ in range(150):
            with suppress(ProviderError):
                observed = stage.provider().observe()
                healthy = frozenset(one.id for one in observed.instances if one.healthy)
                decision = machine.advance(made, status, Facts(stage.aws.clock.now(), observed, healthy, orders=orders))
                status, self.reason = decision.status, decision.status.reason
                self.seen.append(status.state)
                if status.state in TERMINAL:
                    break
                for action in decision.actions:
                    self.act(action, images)
                    if self.aborts and isinstance(action, Launch):
                        orders = (Order.ABORT,)
            self.check()
            stage.aws.clock.sleep(8)
        stage.aws.fault = lambda _: None
        stage.provider().retire(())  # as the engine does before an end is written down
        return status.state

    def act(self, action: Launch | Shift | Retire, images: dict[int, Any]) -> None:
        provider = self.stage.provider()
        if isinstance(action, Launch):
            provider.launch(Generation(action.generation, images[action.generation], "r-2"), action.count)
        elif isinstance(action, Shift):
            provider.shift(dict(action.weights), action.draining)
        else:
            provider.retire(action.instances)

    def check(self) -> None:
        """Never below the minimum that could serve, never above the maximum."""
        spec, staying = self.stage.spec, 0
        for name in self.stage.account.regions:
            lives = self.stage.aws.region(name).lives.values()
            staying += sum(one.leaving_at is None and one.ended_at is None for one in lives)
        assert spec.min <= staying <= spec.max


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    aws, account = shared()
    aws.reset()
    if ("b", HERE) not in account.amis:
        made = account.connect("ec2", HERE).register_image(
            Name="image-b", Architecture="x86_64", RootDeviceName="/dev/xvda"
        )
        account.amis["b", HERE] = made["ImageId"]
    yield account
    assert aws.violations == []


@pytest.mark.parametrize("strategy", ["blue-green", "canary", "rolling"])
def test_rollout_replaces_the_fleet_and_leaves_nothing_of_the_old(account: Account, strategy: Any) -> None:
    aws, _ = shared()
    steps = (Step(50, 8),) if strategy == "canary" else ()
    stage = Stage(aws, account, replace(fleet(account), strategy=strategy, steps=steps))
    roll = Roll(stage)
    assert roll.run() == State.SUCCEEDED
    found = stage.provider().observe()
    assert [(one.generation, one.healthy) for one in found.instances] == [(2, True)] * 2
    assert found.weights == {2: 100}
    stage.provider().retire([])
    assert [one for one in stage.left() if one.startswith(("group", "template"))] == [
        "group factory-web-2",
        "template factory-web-2",
    ]


def test_rollout_of_an_image_that_never_becomes_healthy_goes_back(account: Account) -> None:
    aws, _ = shared()
    spec = fleet(account)
    stage = Stage(aws, account, replace(spec, strategy="blue-green", health=replace(spec.health, deadline_s=60)))
    aws.sick.add(account.amis["b", HERE])
    roll = Roll(stage)
    assert roll.run() == State.ROLLED_BACK
    found = stage.provider().observe()
    assert [(one.generation, one.healthy) for one in found.instances] == [(1, True)] * 2
    assert found.weights == {1: 100}
    for one in aws.writes:
        if one.operation == "ModifyListener":
            groups = one.said["DefaultActions"][-1].get("ForwardConfig", {}).get("TargetGroups", [])
            assert sum(bool(group["Weight"]) for group in groups) <= 1, "the bad one never got any"


# --- what was launched, and AWS had no room for


def rolled_back(account: Account, because: str = "", **about: Any) -> Stage:
    """A rollout that goes back, and then three minutes in which there is room again."""
    aws, _ = shared()
    deadlines = Deadlines(launch=Deadline(60, "abort"))
    stage = Stage(aws, account, replace(fleet(account), strategy="blue-green", deadlines=deadlines))
    roll = Roll(stage, **about)
    assert roll.run() == State.ROLLED_BACK
    assert because in roll.reason
    aws.room.clear()
    for _ in range(6):
        aws.clock.sleep(30)
        stage.provider().observe()
    return stage


def old_only(stage: Stage) -> None:
    found = stage.provider().observe()
    assert [(one.generation, one.state, one.healthy) for one in found.instances] == [(1, "running", True)] * 2
    assert found.weights == {1: 100}


@pytest.mark.parametrize("aborts", [False, True], ids=["late", "aborted"])
def test_rollout_that_found_no_capacity_launches_nothing_after_it_went_back(account: Account, aborts: bool) -> None:
    because = "an operator" if aborts else "InsufficientInstanceCapacity"
    stage = rolled_back(account, because, room=0, aborts=aborts)
    old_only(stage)
    assert len(stage.aws.region(HERE).launches) == 2
    stage.provider().retire(())
    assert [one for one in stage.left() if one.startswith(("group", "template"))] == [
        "group factory-web-1",
        "template factory-web-1",
    ]


@pytest.mark.parametrize("aborts", [False, True], ids=["late", "aborted"])
def test_rollout_that_found_room_for_one_launches_no_other_after_it_went_back(account: Account, aborts: bool) -> None:
    stage = rolled_back(account, room=1, aborts=aborts)
    old_only(stage)
    assert len(stage.aws.region(HERE).launches) == 3


def test_launches_that_take_long_are_aborted_before_they_come(account: Account) -> None:
    aws, _ = shared()
    aws.reset(Pace(launch_s=60))
    stage = rolled_back(account, aborts=True)
    old_only(stage)
    assert len(aws.region(HERE).launches) == 2
