"""How a rollout looks to a person: in every state, whatever room there is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_drive import NEW, OLD, Drive, fleet

from factory.rollout.health import Answer
from factory.rollout.model import Instance, Observation, Order, State, Status
from factory.rollout.picture import Picture, waiting
from factory.rollout.tree import Room, tree


def picture(drive: Drive, **more: object) -> Picture:
    seen = drive.provider.observe()
    made = Picture(drive.spec, drive.now, drive.plan, drive.status, (), seen, None, {}, driven=True)
    return replace(made, **more)  # type: ignore[arg-type]


def text(seen: Picture, room: Room | None = None) -> str:
    return "\n".join(line.text for line in tree(seen, room))


def test_tree_says_all_that_people_ask_for() -> None:
    drive = Drive(fleet())
    drive.run(State.ANALYSING)
    said = text(picture(drive))
    for part in (
        "fleet web  web on local", "ANALYSING  step 1 of 3", f"{OLD.digest[:19]}… -> {NEW.digest[:19]}…",
        "waits: the step's pause, 0 of 5 s, then analysis", "generation 2 (new)  10% of the traffic, 1 of 1 healthy",
        "generation 1 (old)  90% of the traffic, 3 of 3 healthy", "healthy  192.0.2.1:80  5 sessions",
    ):  # fmt: skip
        assert part in said


def test_weight_that_is_not_yet_as_wanted_is_told() -> None:
    drive = Drive(fleet())
    drive.run(State.ANALYSING)
    seen = picture(drive, observed=replace(drive.provider.observe(), weights={1: 100}))
    assert "generation 2 (new)  0% of the traffic (wanted: 10%)" in text(seen)


def test_instance_that_warms_up_is_not_yet_healthy_and_no_alarm() -> None:
    drive = Drive(fleet())
    drive.run(State.WARMING)
    drive.now += 0.5
    lines = [line for line in tree(picture(drive)) if "not healthy yet" in line.text]
    assert [line.mood for line in lines] == ["soft"]


def test_launch_that_does_not_come_says_why() -> None:
    drive = Drive(fleet())
    drive.run(State.LAUNCHING)
    seen = picture(drive, observed=Observation(missing={2: "no room"}))
    assert re.search(r"waits: 0 of \d launched, \d+ of \d+ s: no room", text(seen))


def test_instance_that_fell_ill_says_why() -> None:
    one = Instance("i-9", 2, NEW.digest, "running", 0.0, "127.0.0.1:1")
    drive = Drive(fleet())
    drive.run(State.ANALYSING)
    seen = picture(drive, observed=Observation((one,), {2: 100}), answers={"i-9": Answer(False, "status 500")})
    (line,) = [line for line in tree(seen) if "i-9" in line.text]
    assert ("not healthy: status 500" in line.text, line.mood) == (True, "bad")


def test_pause_says_its_reason_and_a_lonely_rollout_who_goes_on() -> None:
    drive = Drive(fleet())
    drive.run(State.ANALYSING)
    drive.turn(Order.PAUSE)
    said = text(picture(drive, driven=False))
    assert "waits: paused: an operator paused it" in said
    assert "nobody drives it: factory rollout apply web goes on with it" in said


def test_those_that_are_not_healthy_come_first_where_there_is_no_room_for_all() -> None:
    many = tuple(
        Instance(f"i-{number:03}", 2, NEW.digest, "running", 0.0, healthy=number != 57) for number in range(100)
    )
    drive = Drive(fleet())
    drive.run(State.ANALYSING)
    said = text(picture(drive, observed=Observation(many, {2: 100})), Room(80, 12))
    assert "i-057" in said
    assert "more" in said


@pytest.mark.parametrize("state", [one for one in State if one != State.PLANNED])
def test_every_state_but_the_first_and_last_says_what_it_waits_for(state: State) -> None:
    drive = Drive(fleet(bake_s=5))
    drive.run(State.ANALYSING)
    why = waiting(replace(picture(drive), status=Status(state, drive.now)))
    silent = {State.VERIFIED, State.ABORTING, State.SUCCEEDED, State.ROLLED_BACK, State.ROLLBACK_FAILED}
    assert (why is None) == (state in silent)


@given(
    columns=st.integers(10, 300), rows=st.integers(12, 80), turns=st.integers(0, 60),
    strategy=st.sampled_from(["blue-green", "canary", "rolling"]), size=st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_tree_fits_into_the_rows_there_are(columns: int, rows: int, turns: int, strategy: str, size: int) -> None:
    drive = Drive(fleet(strategy, size, bake_s=5), size)
    for _ in range(turns):
        drive.turn()
        drive.now += 1
    lines = tree(picture(drive), Room(columns, rows))
    assert len(lines) <= rows
    assert all(line.text and "\n" not in line.text for line in lines)
