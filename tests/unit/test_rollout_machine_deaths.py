"""The machine of a rollout when instances die in it: past the point of no return, on the way back, of the front."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rollout_drive import NEW, OLD, Drive, analysis, fleet
from simulated_provider import Behaviour, Faults

from factory.rollout.model import Finding, Generation, Health, Order, Retire, Shift, State, Step, Verdict

BAD = Finding(Verdict.FAILED, "error_rate is 0.5")
FOR_EVER_S = 1e9


def die(drive: Drive, generation: int, count: int = 99) -> None:
    """Instances of a generation are gone, as after a crash of their host."""
    there = drive.provider._memory.instances
    for name in [name for name, one in there.items() if one["generation"] == generation][:count]:
        del there[name]


def sicken(drive: Drive) -> None:
    """All that is of the new image falls ill, and so does what is launched of it from now on."""
    drive.provider.behaviours[NEW.digest] = Behaviour(healthy_after_s=None)


def retired(drive: Drive, turns: int) -> set[str]:
    """What was asked to be retired in so many turns."""
    found: set[str] = set()
    for _ in range(turns):
        for action in drive.turn().actions:
            found |= set(action.instances) if isinstance(action, Retire) else set()
        drive.now += 1
    return found


# --- past the point of no return


def draining() -> Drive:
    """A rollout that waits for the sessions of the old generation."""
    drive = Drive(fleet("blue-green", health=Health(tcp=80, deadline_s=30)))
    drive.provider.sessions_s = FOR_EVER_S
    drive.run(State.DRAINING)
    drive.now += 1
    drive.turn()
    return drive


def test_new_generation_that_dies_while_the_old_one_drains_is_launched_anew_and_the_old_one_serves() -> None:
    drive = draining()
    die(drive, 2)
    for _ in range(2):
        drive.turn()
    assert drive.weights == {1: 100}
    assert drive.serving() == 3
    drive.provider.sessions_s = 2
    assert drive.run().state == State.SUCCEEDED
    assert (drive.weights, drive.generations, drive.serving()) == ({2: 100}, {2}, 3)


@pytest.mark.parametrize("state", [State.DRAINING, State.RETIRING])
def test_new_generation_that_is_ill_past_the_point_of_no_return_fails_and_the_old_one_is_left(state: State) -> None:
    drive = draining()
    drive.provider.sessions_s = 2
    sicken(drive)
    drive.status = replace(drive.status, state=state)
    assert not retired(drive, 5)
    assert drive.weights == {1: 100}
    assert drive.run().state == State.ROLLBACK_FAILED
    assert "past the point of no return only 0 of 3 new instances are healthy for 30 s" in drive.status.reason
    assert (drive.weights, drive.serving()) == ({1: 100}, 3)


def test_nothing_is_retired_while_fewer_than_the_minimum_would_serve() -> None:
    drive = draining()
    drive.provider.sessions_s = 2
    drive.provider.injected = Faults(refused=frozenset(range(1, 10000)))
    die(drive, 2, 1)
    assert not retired(drive, 10)
    assert drive.weights == {2: 100}
    drive.provider.injected = Faults()
    assert drive.run().state == State.SUCCEEDED
    assert drive.serving() == 3


def test_old_generation_that_is_ill_is_retired_though_few_of_the_new_one_serve() -> None:
    drive = draining()
    drive.provider.sessions_s = 2
    drive.provider.behaviours[OLD.digest] = Behaviour(healthy_after_s=None)
    die(drive, 2, 1)
    assert len(retired(drive, 4)) == 3


def test_new_generation_that_dies_once_the_old_one_is_gone_is_launched_before_it_succeeds() -> None:
    drive = draining()
    drive.provider.sessions_s = 2
    drive.run(State.RETIRING)
    drive.turn()
    drive.now += 5
    assert drive.generations == {2}
    die(drive, 2)
    assert drive.run().state == State.SUCCEEDED
    assert drive.serving() == 3


def test_revoked_old_image_gets_no_traffic_back_past_the_point_of_no_return() -> None:
    drive = draining()
    drive.old_revoked = "CVE-2026-1"
    sicken(drive)
    for _ in range(5):
        drive.turn()
    assert drive.weights == {2: 100}


def test_paused_past_the_point_of_no_return_what_died_is_launched_anew() -> None:
    drive = draining()
    drive.turn(Order.PAUSE)
    die(drive, 2)
    drive.turn()
    assert drive.generations == {1, 2}


# --- on the way back


def test_old_instance_that_died_is_launched_anew_on_the_way_back() -> None:
    drive = Drive(fleet(steps=(Step(34, 5, analyse=True),), analysis=analysis(), bake_s=60.0))
    drive.run(State.BAKING)
    die(drive, 1, 1)
    drive.finding = BAD
    drive.turn()
    drive.turn()
    assert drive.weights == {1: 67, 2: 33}, "as much as can be at once"
    began = drive.now
    assert drive.run().state == State.ROLLED_BACK
    assert drive.now - began < 20
    assert (drive.weights, drive.generations, drive.serving()) == ({1: 100}, {1}, 3)


def test_old_generation_that_is_gone_is_launched_anew_on_the_way_back() -> None:
    drive = Drive(fleet(steps=(Step(50, 1000),)))
    drive.run(State.ANALYSING)
    die(drive, 1)
    drive.turn(Order.ABORT)
    assert drive.run().state == State.ROLLED_BACK
    assert (drive.weights, drive.generations) == ({1: 100}, {1})


def test_old_generation_that_is_gone_and_revoked_leaves_no_way_back() -> None:
    drive = Drive(fleet(steps=(Step(50, 1000),), allow_revoked_fallback=True))
    drive.run(State.ANALYSING)
    drive.old_revoked = "CVE-2026-1"
    die(drive, 1)
    drive.turn(Order.ABORT)
    assert drive.run().state == State.ROLLBACK_FAILED
    assert "nothing of the old generation is left" in drive.status.reason


@pytest.mark.parametrize("state", [State.DRAINING, State.RETIRING])
def test_rolling_rollout_is_aborted_while_a_part_of_the_old_generation_goes(state: State) -> None:
    drive = Drive(fleet("rolling", 6, max=7))
    drive.run(state)
    drive.turn(Order.ABORT)
    assert drive.status.state in (State.ABORTING, State.ROLLING_BACK)
    assert drive.run().state == State.ROLLED_BACK
    assert (drive.weights, drive.generations, drive.serving()) == ({1: 100}, {1}, 6)


def test_rolling_rollout_ends_beside_an_instance_that_nobody_knows() -> None:
    drive = Drive(fleet("rolling", max=6))
    drive.provider.launch(Generation(9, OLD, "nobody's"), 1)
    assert drive.run(limit_s=500).state == State.SUCCEEDED
    assert drive.generations == {2}


# --- papers that cannot be read


def test_papers_that_cannot_be_read_for_a_moment_end_no_rollout() -> None:
    drive = Drive(fleet(steps=(Step(50, 20),)))
    drive.run(State.ANALYSING)
    drive.target_refused = "the papers cannot be read"
    drive.turn()
    assert drive.status.state == State.ANALYSING
    drive.target_refused = None
    assert drive.run().state == State.SUCCEEDED


def test_image_that_may_not_be_launched_is_not_begun_with() -> None:
    drive = Drive(fleet(), target_refused="the papers cannot be read")
    assert drive.run().state == State.ROLLED_BACK
    assert drive.launched == []
    assert "the papers cannot be read" in drive.status.reason


# --- the front


@pytest.mark.parametrize("state", [State.LAUNCHING, State.WARMING])
@pytest.mark.parametrize("step", [0, 1])
def test_weights_that_were_lost_are_set_again_before_a_stage_has_shifted(state: State, step: int) -> None:
    drive = Drive(fleet(steps=(Step(34, 3),)), new=Behaviour(pending_s=2, healthy_after_s=5))
    drive.run(state)
    if step:
        drive.run(State.ANALYSING)
        drive.run(state)
    before = drive.weights
    drive.provider._memory.weights = {}
    shifts = [action for action in drive.turn().actions if isinstance(action, Shift)]
    assert len(shifts) == 1
    assert drive.weights == before == ({1: 100} if step == 0 else {1: 66, 2: 34})


@pytest.mark.parametrize("state", [State.WARMING, State.SHIFTING, State.ANALYSING, State.DRAINING])
def test_weights_that_were_lost_are_set_again_while_it_is_paused(state: State) -> None:
    drive = Drive(fleet(steps=(Step(34, 3),)))
    drive.provider.sessions_s = FOR_EVER_S
    drive.run(state)
    before = drive.weights
    drive.turn(Order.PAUSE)
    drive.provider._memory.weights = {}
    drive.turn()
    assert drive.weights == before


# --- what operators and sources say


def test_promote_where_nothing_waits_skips_no_analysis() -> None:
    steps = (Step(34, 5, analyse=True), Step(67, 5, analyse=True))
    drive = Drive(fleet(steps=steps, analysis=analysis()))
    drive.run(State.ANALYSING)
    drive.turn(Order.PROMOTE)
    drive.finding = Finding(Verdict.RUNNING)
    drive.run(State.WARMING)
    assert any("nothing waits" in note for note in drive.turn(Order.PROMOTE).notes)
    drive.run(State.ANALYSING)
    drive.run(limit_s=30)
    assert (drive.status.state, drive.status.step) == (State.ANALYSING, 1)


def test_promote_of_what_is_paused_before_it_waits_only_goes_on() -> None:
    drive = Drive(fleet(steps=(Step(34, 5, analyse=True),), analysis=analysis()), finding=Finding(Verdict.RUNNING))
    drive.run(State.WARMING)
    drive.turn(Order.PAUSE)
    drive.turn(Order.PROMOTE)
    drive.run(State.ANALYSING)
    drive.run(limit_s=30)
    assert (drive.status.state, drive.status.paused, drive.status.skip) == (State.ANALYSING, "", False)


def test_source_that_falls_silent_while_the_new_generation_is_watched_pauses_at_once() -> None:
    drive = Drive(fleet("blue-green", analysis=analysis(), bake_s=3600.0))
    drive.run(State.BAKING)
    drive.finding = Finding(Verdict.INCONCLUSIVE, "no data")
    drive.now += 10
    drive.turn()
    assert (drive.status.state, drive.status.paused) == (State.BAKING, "inconclusive")


# --- what comes up again


@pytest.mark.parametrize("state", [State.RETIRING, State.BAKING])
def test_instance_that_came_up_last_has_its_traffic_before_it_succeeds(state: State) -> None:
    drive = Drive(fleet("blue-green", size=1, bake_s=20.0), old_count=1, joins_by_itself=False)
    drive.run(state)
    drive.turn()
    drive.now += 3
    die(drive, 2)
    assert drive.run().state == State.SUCCEEDED
    assert (drive.weights, drive.serving()) == ({2: 100}, 1)


def test_old_ones_keep_the_traffic_until_enough_of_the_new_ones_are_up_again() -> None:
    drive = draining()
    drive.provider.behaviours[NEW.digest] = Behaviour(healthy_after_s=None)
    drive.turn()
    assert drive.weights == {1: 100}
    die(drive, 2)
    for age_s in range(3):  # they come up one after another; `check` holds the minimum against each shift
        drive.provider.behaviours[NEW.digest] = Behaviour(healthy_after_s=6)
        drive.provider.launch(Generation(2, NEW, "r-1"), age_s + 1)
        drive.now += 2
    drive.provider.sessions_s = 2
    assert drive.run().state == State.SUCCEEDED


def test_first_rollout_that_could_not_go_back_at_once_fails_and_leaves_what_serves() -> None:
    drive = Drive(fleet("blue-green", bake_s=100.0, health=Health(tcp=80, successes=1)), old_count=0)
    drive.run(State.BAKING)
    drive.status = replace(drive.status, state=State.ROLLING_BACK, since=drive.now, reason="it was ill")
    assert drive.run().state == State.ROLLBACK_FAILED
    assert drive.serving() == 3


def test_rolling_rollout_replaces_what_is_ill_first() -> None:
    drive = Drive(fleet("rolling", max=4))
    name = min(drive.provider._memory.instances)
    of = drive.provider._of
    sick = drive.provider._memory.instances[name]["launched_at"] = drive.now - 1
    drive.provider._of = lambda one: Behaviour(healthy_after_s=None) if one["launched_at"] == sick else of(one)  # type: ignore[method-assign]
    drive.run(State.RETIRING)
    assert retired(drive, 1) == {name}
    assert drive.run().state == State.SUCCEEDED


def test_old_image_that_is_revoked_while_it_is_brought_up_gets_no_traffic() -> None:
    drive = Drive(fleet(steps=(Step(50, 1000),)), old=Behaviour(healthy_after_s=20))
    drive.run(State.ANALYSING)
    die(drive, 1, 2)
    drive.turn(Order.ABORT)
    drive.turn()
    assert drive.status.state == State.ROLLING_BACK
    drive.old_revoked = "CVE-2026-1"
    assert drive.run().state == State.ROLLBACK_FAILED
    assert "the old image may not run either" in drive.status.reason


def test_instances_that_nobody_knows_do_not_count_as_serving() -> None:
    drive = Drive(fleet("rolling", max=6))
    drive.provider.launch(Generation(9, OLD, "nobody's"), 1)
    drive.run(State.DRAINING)
    drive.provider.injected = Faults(refused=frozenset(range(1, 10000)))
    die(drive, 2)
    assert not retired(drive, 3)


def test_new_ones_that_flap_past_the_point_of_no_return_fail() -> None:
    drive = draining()
    drive.provider.behaviours[NEW.digest] = Behaviour(flaps_every_s=7)
    assert drive.run().state == State.ROLLBACK_FAILED
    assert "th time" in drive.status.reason


def test_weights_that_were_lost_while_the_old_ones_are_retired_are_set_again() -> None:
    drive = draining()
    drive.provider.sessions_s, drive.provider.stopping_s = 2, 20
    drive.run(State.RETIRING)
    drive.provider._memory.weights = {}
    drive.turn()
    assert drive.weights == {2: 100}
