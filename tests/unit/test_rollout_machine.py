"""The machine of a rollout over the simulator: whole rollouts, each scenario by its name, and what always holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_drive import NEW, OLD, Drive, analysis, fleet
from simulated_provider import Behaviour, Faults

from examples import some
from factory.rollout import plan
from factory.rollout.model import (
    TERMINAL,
    Action,
    Deadline,
    Deadlines,
    Finding,
    FleetSpec,
    Health,
    Order,
    Retire,
    Shift,
    State,
    Step,
    Verdict,
)

STRATEGIES = ("blue-green", "canary", "rolling")
NEVER = Behaviour(healthy_after_s=None)
UNKNOWN = Finding(Verdict.INCONCLUSIVE, "no data")
BAD = Finding(Verdict.FAILED, "error_rate is 0.5")


def analysed(**more: Any) -> FleetSpec:
    return fleet(analysis=analysis(), **more)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rollout_of_a_good_image_succeeds(strategy: str) -> None:
    drive = Drive(analysed(strategy=strategy, bake_s=5))
    assert drive.run().state == State.SUCCEEDED
    assert drive.generations == {2}
    assert drive.weights == {2: 100}
    assert drive.status.no_return_at is not None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rollout_of_an_image_that_never_serves_goes_back(strategy: str) -> None:
    drive = Drive(analysed(strategy=strategy), new=NEVER)
    assert drive.run().state == State.ROLLED_BACK
    assert drive.generations == {1}
    assert drive.weights == {1: 100}
    assert "did not become healthy" in drive.status.reason


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_new_fleet_is_brought_up_or_taken_away(strategy: str) -> None:
    drive = Drive(analysed(strategy=strategy), old_count=0)
    assert drive.run().state == State.SUCCEEDED
    assert (drive.generations, drive.weights) == ({2}, {2: 100})
    drive = Drive(analysed(strategy=strategy), old_count=0, new=NEVER)
    assert drive.run().state == State.ROLLED_BACK
    assert (drive.generations, drive.weights) == (set(), {})


def test_canary_goes_through_its_steps_with_a_fresh_baseline() -> None:
    drive = Drive(analysed())
    seen: set[tuple[tuple[int, int], ...]] = set()
    drive.on_action = lambda _: seen.add(tuple(sorted(drive.weights.items())))
    assert drive.run().state == State.SUCCEEDED
    assert ((1, 80), (2, 10), (3, 10)) in seen
    assert ((1, 50), (2, 50)) in seen
    assert drive.launched.count(OLD.digest) == 1
    assert drive.launched.count(NEW.digest) == 3
    assert [step for state, step in drive.states if state == State.ANALYSING] == [0, 1, 2]


def test_rolling_records_the_point_before_its_first_retirement() -> None:
    drive = Drive(fleet("rolling", max=4, surge=1))
    drive.run(State.DRAINING)
    assert drive.status.no_return_at is not None
    assert drive.generations == {1, 2}
    assert drive.run().state == State.SUCCEEDED
    assert drive.generations == {2}


def test_rolling_that_fails_midway_brings_the_old_image_back() -> None:
    drive = Drive(fleet("rolling", max=4, surge=1))
    drive.run(State.RETIRING)
    drive.run(State.WARMING)
    assert drive.status.step == 1
    drive.turn(Order.ABORT)
    assert drive.run().state == State.ROLLED_BACK
    old = [one for one in drive.provider.observe().instances if one.generation == 1]
    assert len(old) == 3
    assert drive.weights == {1: 100}
    assert drive.generations == {1}


# --- named scenarios


def test_abort_retry_promote() -> None:
    drive = Drive(fleet(steps=(Step(10, 1000), Step(50, 1000))))
    drive.run(State.ANALYSING)
    drive.turn(Order.ABORT)
    assert drive.run().state == State.ROLLED_BACK
    again = Drive(drive.spec)
    again.run(State.ANALYSING)
    again.turn(Order.PROMOTE)
    again.run(State.ANALYSING)
    again.turn(Order.PROMOTE)
    assert again.run().state == State.SUCCEEDED


def test_bad_to_good() -> None:
    drive = Drive(fleet(), new=NEVER)
    assert drive.run().state == State.ROLLED_BACK
    assert Drive(fleet(), old_count=len(drive.provider.observe().instances)).run().state == State.SUCCEEDED


def test_failure_after_promotion_is_no_business_of_this_rollout() -> None:
    drive = Drive(fleet("blue-green"), new=Behaviour(ill_after_s=30))
    assert drive.run().state == State.SUCCEEDED
    drive.now += 60
    assert drive.serving() == 0
    drive.turn(Order.ABORT)
    assert drive.status.state == State.SUCCEEDED


def test_canary_is_scaled_down_on_abort() -> None:
    drive = Drive(analysed(), finding=BAD)
    assert drive.run().state == State.ROLLED_BACK
    assert drive.generations == {1}
    assert "error_rate is 0.5" in drive.status.reason


def test_canary_is_not_scaled_down_on_abort_before_its_traffic_is_gone() -> None:
    drive = Drive(fleet(steps=(Step(50, 1000),)))
    drive.run(State.ANALYSING)
    canary = len(drive.provider.observe().of(2))
    drive.provider.injected = Faults(refused=frozenset(range(1, 10000)))  # no traffic can be shifted just now
    drive.turn(Order.ABORT)
    drive.run(limit_s=60)
    assert drive.weights == {1: 50, 2: 50}
    assert [one.state for one in drive.provider.observe().of(2)] == ["running"] * canary
    drive.provider.injected = Faults()
    drive.provider.sessions_s = 20
    drive.turn()
    began = drive.now
    while any(one.sessions for one in drive.provider.observe().of(2)):
        assert [one.state for one in drive.provider.observe().of(2)] == ["running"] * canary
        drive.turn()
        drive.now += 1
    assert drive.now - began >= 20
    assert drive.run().state == State.ROLLED_BACK
    assert drive.generations == {1}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pause_at_every_step_in_turn_only_takes_longer(strategy: str) -> None:
    drive = Drive(analysed(strategy=strategy, bake_s=5))
    paused = []
    while drive.status.state not in TERMINAL:
        there = drive.status.state, drive.status.step
        if there not in paused and drive.status.no_return_at is None:
            paused.append(there)
            drive.turn(Order.PAUSE)
            drive.now += 100
            drive.turn()
            assert (drive.status.state, drive.status.step, drive.status.paused) == (*there, "operator")
            drive.turn(Order.RESUME)
        else:
            drive.turn()
        drive.now += 1
    assert drive.status.state == State.SUCCEEDED
    assert {state for state, _ in paused} >= {State.LAUNCHING, State.WARMING, State.SHIFTING, State.ANALYSING}
    assert len(paused) >= (5 if strategy == "rolling" else 6), paused


@pytest.mark.parametrize("state", [State.LAUNCHING, State.WARMING, State.SHIFTING, State.ANALYSING, State.BAKING])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pause_at_every_step_holds_until_resumed(strategy: str, state: State) -> None:
    drive = Drive(fleet(strategy, bake_s=10, steps=(Step(10, 30), Step(50, 30))))
    drive.run(state)
    drive.turn(Order.PAUSE)
    there = drive.status.state, drive.status.step
    for _ in range(4000):
        drive.turn()
        drive.now += 1
    assert (drive.status.state, drive.status.step) == there
    assert drive.status.paused == "operator"
    drive.turn(Order.RESUME)
    assert drive.run().state == State.SUCCEEDED


def test_promote_full_while_paused_goes_to_the_end() -> None:
    drive = Drive(analysed(bake_s=1000, steps=(Step(10, 1000, analyse=True), Step(50, 1000))), finding=UNKNOWN)
    drive.run(State.ANALYSING)
    drive.turn(Order.PAUSE)
    drive.turn(Order.PROMOTE_FULL)
    began = drive.now
    assert drive.run().state == State.SUCCEEDED
    assert drive.now - began < 100


def test_abort_beats_promote() -> None:
    drive = Drive(fleet(steps=(Step(10, 1000),)))
    drive.run(State.ANALYSING)
    drive.turn(Order.PROMOTE_FULL, Order.ABORT)
    assert drive.run().state == State.ROLLED_BACK


@pytest.mark.parametrize("state", [State.ANALYSING, State.BAKING, State.DRAINING, State.RETIRING])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_provider_gone_for_a_minute_is_waited_for(strategy: str, state: State) -> None:
    drive = Drive(fleet(strategy, bake_s=5))
    drive.run(state)
    assert drive.status.state == state
    drive.provider.injected = Faults(gone_until=drive.now + 60)
    assert drive.run().state == State.SUCCEEDED


def test_provider_gone_for_a_minute_on_the_way_back_is_waited_for() -> None:
    drive = Drive(fleet(steps=(Step(50, 1000),)))
    drive.run(State.ANALYSING)
    drive.provider.injected = Faults(gone_until=drive.now + 60)
    drive.turn(Order.ABORT)
    assert drive.run().state == State.ROLLED_BACK
    assert (drive.weights, drive.generations) == ({1: 100}, {1})


def test_health_that_flaps_goes_back() -> None:
    drive = Drive(fleet(steps=(Step(50, 1000),)), new=Behaviour(flaps_every_s=5))
    assert drive.run().state == State.ROLLED_BACK
    assert "healthy" in drive.status.reason


def test_instances_under_traffic_that_fall_ill_while_more_are_launched_go_back_at_once() -> None:
    health = Health(tcp=80, deadline_s=1000)
    drive = Drive(fleet(health=health, steps=(Step(50, 5),)), new=Behaviour(healthy_after_s=2, ill_after_s=14))
    drive.run(State.LAUNCHING)
    drive.run(State.ANALYSING)
    drive.provider.injected = Faults(refused=frozenset(range(1, 10000)))  # nothing more can be launched
    drive.run(State.LAUNCHING)
    assert drive.status.step == 1
    began = drive.now
    while drive.status.state == State.LAUNCHING:
        drive.turn()
        drive.now += 1
    assert drive.now - began < 30
    assert "healthy" in drive.status.reason


def test_source_that_is_empty_pauses_then_goes_back() -> None:
    drive = Drive(analysed(), finding=UNKNOWN)
    while drive.status.paused != "inconclusive":
        drive.turn()
        drive.now += 1
    assert drive.status.why_paused == "no data"
    began = drive.now
    assert drive.run().state == State.ROLLED_BACK
    assert drive.now - began > 3600
    assert "no data" in drive.status.reason


def test_source_that_comes_to_say_that_it_is_bad_goes_back_at_once() -> None:
    drive = Drive(analysed(), finding=UNKNOWN)
    while not drive.status.paused:
        drive.turn()
        drive.now += 1
    began, drive.finding = drive.now, BAD
    assert drive.run().state == State.ROLLED_BACK
    assert drive.now - began < 60
    assert "error_rate is 0.5" in drive.status.reason


def test_source_that_recovers_goes_on_when_resumed() -> None:
    drive = Drive(analysed(), finding=UNKNOWN)
    while not drive.status.paused:
        drive.turn()
        drive.now += 1
    drive.finding = Finding(Verdict.SUCCESS)
    drive.turn(Order.RESUME)
    assert drive.run().state == State.SUCCEEDED


@pytest.mark.parametrize("state", [State.LAUNCHING, State.WARMING, State.SHIFTING, State.ANALYSING, State.BAKING])
def test_image_revoked_in_mid_rollout_goes_back(state: State) -> None:
    drive = Drive(fleet(bake_s=10))
    drive.run(state)
    drive.target_revoked = "CVE-2026-1"
    assert drive.run().state == State.ROLLED_BACK
    assert drive.generations == {1}
    assert "CVE-2026-1" in drive.status.reason


def test_both_images_revoked_ends_without_a_way_back_unless_allowed() -> None:
    for allowed, end in ((False, State.ROLLBACK_FAILED), (True, State.ROLLED_BACK)):
        drive = Drive(fleet(allow_revoked_fallback=allowed))
        drive.run(State.ANALYSING)
        drive.old_revoked = drive.target_revoked = "CVE-2026-1"
        assert drive.run().state == end


def test_baseline_of_a_revoked_image_is_not_launched() -> None:
    drive = Drive(analysed(), old_revoked="CVE-2026-1")
    assert drive.run().state == State.SUCCEEDED
    assert OLD.digest not in drive.launched
    assert any("no baseline" in note for note in drive.notes)


def test_unhealthy_old_generation_does_not_block_the_fix() -> None:
    for strategy in STRATEGIES:
        drive = Drive(analysed(strategy=strategy), old=Behaviour(ill_after_s=10))
        assert drive.run().state == State.SUCCEEDED, strategy
        assert drive.generations == {2}


def test_old_generation_that_is_ill_for_a_moment_keeps_its_share() -> None:
    drive = Drive(fleet(steps=(Step(10, 30),)), old=Behaviour(flaps_every_s=8))
    drive.run(State.ANALYSING)
    was_ill = False
    while drive.status.state == State.ANALYSING:
        assert drive.weights == {1: 90, 2: 10}
        was_ill = was_ill or drive.status.old_ill_since is not None
        drive.turn()
        drive.now += 1
    assert was_ill


def test_ill_new_generation_is_drained_before_it_is_retired() -> None:
    drive = Drive(fleet(), new=Behaviour(ill_after_s=5))
    made: list[Action] = []
    drive.on_action = made.append
    assert drive.run().state == State.ROLLED_BACK
    retired = next(place for place, action in enumerate(made) if isinstance(action, Retire))
    before, then = made[retired - 1], made[retired]
    assert isinstance(before, Shift)
    assert isinstance(then, Retire)
    assert dict(before.weights) == {1: 100}
    assert before.draining == then.instances


def test_first_rollout_that_serves_cannot_go_back_and_is_left() -> None:
    drive = Drive(fleet("blue-green", bake_s=60), old_count=0)
    drive.run(State.BAKING)
    drive.turn(Order.ABORT)
    assert drive.status.state == State.ROLLBACK_FAILED
    assert "nothing ran before it" in drive.status.reason
    assert drive.weights == {2: 100}


def test_first_rollout_without_traffic_goes_back_to_nothing() -> None:
    drive = Drive(fleet("blue-green"), old_count=0)
    drive.run(State.WARMING)
    drive.turn(Order.ABORT)
    assert drive.run().state == State.ROLLED_BACK
    drive.now += 10
    assert not drive.generations


def test_traffic_is_back_in_the_decision_that_goes_back() -> None:
    drive = Drive(analysed(), finding=BAD)
    while drive.status.state not in (State.ABORTING, State.ROLLING_BACK):
        before = drive.now
        drive.turn()
        drive.now += 1
    assert drive.weights == {1: 100}
    assert drive.now - before <= 1


@pytest.mark.parametrize(("then", "end"), [("abort", State.ROLLED_BACK), ("pause", State.LAUNCHING)])
def test_deadline_of_launching_has_its_outcome(then: str, end: State) -> None:
    deadlines = Deadlines(launch=Deadline(20, then))  # type: ignore[arg-type]
    drive = Drive(fleet(deadlines=deadlines), faults=Faults(refused=frozenset(range(1, 10000))))
    drive.faults = drive.provider.injected
    drive.run(limit_s=200)
    if then == "abort":
        drive.provider.injected = Faults()
        drive.run()
    assert drive.status.state == end


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("then", ["continue", "pause"])
def test_deadline_of_going_back_has_its_outcome(strategy: str, then: str) -> None:
    deadlines = Deadlines(rollback=Deadline(20, then))  # type: ignore[arg-type]
    drive = Drive(fleet(strategy, deadlines=deadlines, bake_s=1000, health=Health(tcp=80, deadline_s=10)))
    drive.run(State.BAKING)
    drive.provider.injected = Faults(refused=frozenset(range(1, 10000)))
    drive.turn(Order.ABORT)
    drive.run(limit_s=300)
    if then == "continue":
        assert drive.status.state == State.ROLLBACK_FAILED
        told = "did not come back within 50 s" if strategy == "rolling" else "did not go back within 20 s"
        assert told in drive.status.reason
        return
    assert (drive.status.state, drive.status.paused) == (State.ROLLING_BACK, "deadline")
    drive.provider.injected = Faults()
    while drive.status.state not in TERMINAL:
        drive.turn()
        drive.now += 1
    assert (drive.status.state, drive.status.paused) == (State.ROLLED_BACK, "")
    assert (drive.weights, drive.generations) == ({1: 100}, {1})


def test_sessions_that_never_end_are_cut_at_the_deadline() -> None:
    drive = Drive(fleet("blue-green"))
    drive.provider.sessions_s = 1e9
    assert drive.run().state == State.SUCCEEDED
    assert any("are cut" in note for note in drive.notes)


# --- what always holds


BEHAVIOURS = st.sampled_from(
    [
        Behaviour(),
        NEVER,
        Behaviour(healthy_after_s=8),
        Behaviour(ill_after_s=40),
        Behaviour(dies_after_s=35),
        Behaviour(flaps_every_s=7),
        Behaviour(pending_s=5, healthy_after_s=6),
    ]
)
FAULTS = st.builds(
    Faults, refused=st.frozensets(st.integers(1, 30), max_size=6), lost=st.frozensets(st.integers(1, 30), max_size=6)
)
FINDINGS = st.sampled_from([Finding(Verdict.SUCCESS), UNKNOWN, BAD, Finding(Verdict.RUNNING)])
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 60),
        st.sampled_from([*Order, "revoke-new", "revoke-old", "gone", "good", "bad", "unknown"]),
    ),
    max_size=5,
)


@given(
    strategy=st.sampled_from(STRATEGIES), size=st.integers(1, 5), slack=st.integers(0, 2), surge=st.integers(1, 2),
    new=BEHAVIOURS, old=BEHAVIOURS, faults=FAULTS, finding=FINDINGS, events=EVENTS, bake_s=st.sampled_from([0.0, 7.0]),
    joins_by_itself=st.booleans(),
)  # fmt: skip
@settings(max_examples=some(200))
def test_whatever_happens_it_ends_and_nothing_is_broken(
    strategy: str, size: int, slack: int, surge: int, new: Behaviour, old: Behaviour, faults: Faults,
    finding: Finding, events: list[tuple[int, object]], bake_s: float, joins_by_itself: bool,
) -> None:  # fmt: skip
    spec = fleet(strategy, size, analysis=analysis(pause_deadline_s=100.0), bake_s=bake_s, surge=surge,
                 min=max(1, size - slack), health=Health(tcp=80, deadline_s=30))  # fmt: skip
    spec = replace(spec, max=max(plan.most_instances(spec, size), size + surge))
    drive = Drive(spec, size, new, old, faults, finding, joins_by_itself=joins_by_itself)
    for wait, event in events:
        drive.run(limit_s=wait)
        if isinstance(event, Order):
            drive.turn(event)
        elif event == "revoke-new":
            drive.target_revoked = "revoked"
        elif event == "revoke-old":
            drive.old_revoked = "revoked"
        elif event == "gone":
            drive.provider.injected = replace(faults, gone_until=drive.now + 20)
        else:
            drive.finding = {"good": Finding(Verdict.SUCCESS), "bad": BAD, "unknown": UNKNOWN}[str(event)]
    for _ in range(20):  # an operator comes back to what is paused
        if drive.run(limit_s=20000).state in TERMINAL:
            break
        drive.turn(Order.RESUME)
    assert drive.status.state in TERMINAL, drive.states
    drive.now += 30
    if drive.status.state == State.SUCCEEDED:
        assert drive.generations <= {2}
    if drive.status.state == State.ROLLED_BACK:
        assert drive.generations <= {1}
        assert set(drive.weights) <= {1}
