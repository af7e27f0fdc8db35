"""Healing on AWS: what died or fell ill is replaced, and a size that is asked for is come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from healing import Healer
from strict_aws.fleets import Stage, fleet
from strict_aws.worlds import shared

from factory.rollout import heal
from factory.rollout.heal import End, Limits
from factory.rollout.mending import Mended

HERE = "eu-west-1"


@dataclass
class Healed:
    """A fleet of two that serves generation 1."""

    stage: Stage
    folder: Path
    notes: list[str] = field(default_factory=list)

    def heal(self, limits: Limits | None = None) -> Mended:
        stage, clock, generation = self.stage, self.stage.aws.clock, self.stage.account.generation(1, "a")
        return Healer(
            self.folder / "catalog.db", stage.spec, generation, stage.provider(), limits or Limits(), clock.now,
            lambda seconds: clock.sleep(8 * seconds), self.notes.append,
        ).run()  # fmt: skip

    def running(self) -> list[str]:
        found = self.stage.provider().observe().instances
        return sorted(one.id for one in found if one.healthy and one.state == "running")


def native(name: str) -> str:
    """An instance's id without its region."""
    return name.rpartition("/")[2]


@pytest.fixture
def healed(tmp_path: Path) -> Iterator[Healed]:
    aws, account = shared()
    aws.reset()
    stage = Stage(aws, account, fleet(account))
    stage.provider().launch(account.generation(1, "a"), 2)
    aws.clock.sleep(20)
    stage.provider().shift({1: 100})
    stage.until(lambda: sum(one.healthy is True for one in stage.provider().observe().instances) == 2)
    aws.clock.sleep(stage.spec.health.deadline_s)
    yield Healed(stage, tmp_path)
    assert aws.violations == []


def test_instance_that_died_is_launched_again(healed: Healed) -> None:
    first, _ = healed.running()
    healed.stage.aws.region(HERE).end(native(first))
    healed.stage.aws.clock.sleep(20)
    done = healed.heal()
    assert (done.end, len(done.launched), done.retired) == (End.DONE, 1, ())
    assert len(healed.running()) == 2
    assert first not in healed.running()


def test_instance_that_is_ill_is_replaced_before_it_goes(healed: Healed) -> None:
    first, second = healed.running()
    healed.stage.aws.sick.add(native(first))
    healed.stage.until(lambda: healed.running() == [second])
    done = healed.heal()
    assert (done.end, len(done.launched), done.retired) == (End.DONE, 1, (first,))
    assert len(healed.running()) == 2


def test_size_is_come_to_and_gone_back_from(healed: Healed) -> None:
    two, scales = healed.running(), Limits(mends=heal.SCALES)
    healed.stage.spec = replace(healed.stage.spec, size=3)
    assert healed.heal(scales).end == End.DONE
    assert len(healed.running()) == 3
    healed.stage.spec = replace(healed.stage.spec, size=2)
    assert healed.heal(scales).end == End.DONE
    assert healed.running() == two


def test_replacement_that_never_came_does_not_come_when_healing_is_over(healed: Healed) -> None:
    first, second = healed.running()
    aws = healed.stage.aws
    aws.region(HERE).end(native(first))
    aws.clock.sleep(20)
    aws.room[HERE] = 0
    done = healed.heal(Limits(breaker=1))
    assert (done.end, done.launched) == (End.BREAKER, ())
    assert any("never came (eu-west-1: InsufficientInstanceCapacity" in note for note in healed.notes)
    aws.room.clear()
    aws.clock.sleep(120)
    assert healed.running() == [second]
    assert len(aws.region(HERE).launches) == 2


def test_group_of_a_healed_fleet_launches_no_more(healed: Healed) -> None:
    first, _ = healed.running()
    healed.stage.aws.region(HERE).end(native(first))
    healed.stage.aws.clock.sleep(20)
    assert healed.heal().end == End.DONE
    assert healed.stage.aws.region(HERE).is_suspended("factory-web-1", "Launch")
