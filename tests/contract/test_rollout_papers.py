"""Rollouts while the signed papers change under them: revoked, gone for a moment. The commands, on the simulator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rollout_factory
from rollout_factory import Shop

from factory.rollout.model import State


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], simulated: None) -> Iterator[Shop]:
    """A fleet that runs the first release; there is a second."""
    made = rollout_factory.build(tmp_path, capsys)
    made.rollout("apply", "web")
    made.release("second")
    yield made
    made.end_all()


@pytest.mark.parametrize("paper", ["revocations", "policy"])
def test_papers_that_are_gone_for_a_moment_end_no_rollout(shop: Shop, paper: str) -> None:
    shop.fleet(pause_s=3)
    driver = shop.start("rollout", "apply", "web")
    shop.until(lambda status: status.state == State.ANALYSING)
    path: Path = getattr(shop.signed.layout, paper)
    aside = path.rename(path.with_suffix(".aside"))
    time.sleep(1.5)  # longer than what was said of an image is believed
    aside.rename(path)
    driver.ended(0)
    assert shop.running == {shop.releases[1]}


def test_papers_that_stay_away_let_nothing_be_launched(shop: Shop) -> None:
    shop.fleet(pause_s=0.5)
    with (shop.signed.root / "fleets.toml").open("a") as file:
        file.write("[fleet.web.deadlines]\nlaunch = { seconds = 2, then = 'abort' }\n")
    driver = shop.start("rollout", "apply", "web")
    shop.until(lambda status: status.state == State.ANALYSING)
    path = shop.signed.layout.revocations
    path.rename(path.with_suffix(".aside"))
    assert "there is no signed set of revocations" in driver.ended(8)
    assert shop.running == {shop.releases[0]}
