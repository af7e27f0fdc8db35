"""factory rollout as it is typed: whole rollouts of signed images, by the engine and the commands, on the simulator."""

from __future__ import annotations

import json
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rollout_factory
import simulated_local
from rollout_factory import Result, Shop, numbers
from simulated_provider import SimulatedProvider

from factory.catalog import check
from factory.catalog.database import Catalog
from factory.errors import ProviderError
from factory.rollout import log
from factory.rollout.model import TERMINAL, Observation, State


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], simulated: None) -> Iterator[Shop]:
    """A factory with one release; its fleet does not run yet."""
    made = rollout_factory.build(tmp_path, capsys)
    yield made
    made.end_all()


@pytest.fixture
def running(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], simulated: None, template: list[Shop]
) -> Iterator[Shop]:
    """A fleet that runs the first release; there is a second."""
    if not template:
        template.append(rollout_factory.build(tmp_path_factory.mktemp("template"), capsys))
        template[0].rollout("apply", "web")
        template[0].release("second")
    made = rollout_factory.copy(template[0], tmp_path_factory.mktemp("shop"), capsys)
    yield made
    made.end_all()


def state(shop: Shop) -> State:
    return shop.status.state


# --- from beginning to end


def test_new_fleet_is_planned_brought_up_and_left_alone(shop: Shop) -> None:
    planned = shop.rollout("plan", "web", "--json").json
    assert (planned["from"], planned["to"], planned["unchanged"]) == (None, shop.releases[0], False)
    assert shop.world.instances == {}
    done = shop.rollout("apply", "web")
    assert f"SUCCEEDED, step 1 of 1  {shop.releases[0]}" in done.err
    seen = shop.rollout("status", "web", "--json").json
    assert (seen["state"], seen["weights"], len(seen["instances"])) == ("SUCCEEDED", {"1": 100}, 3)
    again = shop.rollout("apply", "web")
    assert "already; nothing was done" in again.err
    assert shop.rollout("plan", "web", "--json").json["unchanged"] is True
    assert shop.world.next_id == 4


@pytest.mark.parametrize("strategy", ["blue-green", "canary", "rolling"])
def test_second_release_replaces_the_first(running: Shop, strategy: str) -> None:
    running.fleet(strategy)
    said = running.rollout("plan", "web").out
    assert running.releases[0] in said
    assert running.releases[1] in said
    running.rollout("apply", "web", "--json")
    assert running.running == {running.releases[1]}
    seen = running.rollout("status", "web", "--json").json
    assert (seen["from"], seen["to"]) == tuple(running.releases)
    assert seen["no_return_at"] is not None


def test_documents_have_what_others_rely_on(running: Shop) -> None:
    document = running.rollout("apply", "web", "--json").json
    relied_on = {"fleet", "rollout", "state", "step", "steps", "from", "to", "weight", "instances", "events"}
    assert relied_on <= document.keys()
    assert {"id", "generation", "digest", "state"} <= document["instances"][0].keys()
    assert {"at", "state", "step", "notes"} <= document["events"][0].keys()
    assert [event["state"] for event in document["events"]][-1] == "SUCCEEDED"
    assert (document["step"], document["steps"], document["weight"]) == (3, 3, 100)
    followed = [json.loads(line) for line in running.rollout("watch", "web", "--json").out.splitlines()]
    assert followed[-1]["state"] == "SUCCEEDED"
    assert running.rollout("wait", "web", "--json").json["state"] == "SUCCEEDED"


def test_bad_to_good(running: Shop) -> None:
    running.fleet(deadline_s=1)
    running.behave(running.releases[1], healthy_after_s=None)
    failed = running.rollout("apply", "web", code=8)
    assert "did not become healthy within 1 s" in failed.err
    assert running.running == {running.releases[0]}
    assert "ROLLED_BACK" in running.rollout("wait", "web", code=8).err
    good = running.release("third")
    running.rollout("apply", "web")
    assert running.running == {good}


def test_failure_after_promotion_is_rolled_back_by_a_rollout_of_its_own(running: Shop) -> None:
    running.rollout("apply", "web")
    first, second = running.releases
    assert first not in running.signed.ticket_file().read_text()  # its ticket is in the catalog only
    running.behave(second, ill_after_s=0.5)
    running.rollout("rollback", "web")
    assert running.running == {first}
    seen = running.rollout("status", "web", "--json").json
    assert (seen["from"], seen["to"], seen["steps"], seen["state"]) == (second, first, 1, "SUCCEEDED")
    assert "back to what ran before" in running.rollout("status", "web").out


def test_analysis_that_fails_goes_back(running: Shop) -> None:
    with numbers(0.5) as source:
        running.fleet(url=source.url)
        failed = running.rollout("apply", "web", code=8)
    assert "analysis failed: 0.5 is not < 0.01" in failed.err
    assert running.running == {running.releases[0]}


def test_analysis_source_that_is_empty_pauses_and_goes_back_at_its_deadline(running: Shop) -> None:
    with numbers(None) as source:
        running.fleet(url=source.url)
        path = running.signed.root / "fleets.toml"
        path.write_text(f"{path.read_text()}pause_deadline_s = 2\n")
        driving = running.start("rollout", "apply", "web")
        running.until(lambda status: status.paused == "inconclusive")
        assert "it is paused: " in running.rollout("wait", "web", code=10).err
        assert "for longer than 2 s" in driving.ended(8)
    assert running.running == {running.releases[0]}


def test_another_size_in_fleets_toml_changes_nothing_of_a_rollout_that_is_under_way(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    path = running.signed.root / "fleets.toml"
    path.write_text(path.read_text().replace("size = 3", "size = 4").replace("max = 7", "max = 9"))
    assert "another process" in running.run("fleet", "scale", "web", "5", code=7).err
    running.rollout("promote", "web", "--full")
    driving.ended(0)
    seen = running.rollout("status", "web", "--json").json
    assert [one["digest"] for one in seen["instances"]] == [running.releases[1]] * 3


# --- what operators say


def test_abort_retry_promote(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    running.rollout("abort", "web")
    assert "an operator aborted it" in driving.ended(8)
    assert running.running == {running.releases[0]}
    again = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    told = running.rollout("promote", "web", "--json").json
    assert told["order"] == "promote"
    again.ended(0)
    assert running.running == {running.releases[1]}


def test_pause_at_each_step_then_promote_full(running: Shop) -> None:
    running.fleet(pause_s=0.5)
    text = running.signed.root / "fleets.toml"
    text.write_text(text.read_text().replace("{ weight = 67 }", "{ weight = 67, pause_s = 1000 }"))
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING and status.step == 0)
    running.rollout("pause", "web")
    running.until(lambda status: status.paused == "operator")
    waited = running.rollout("wait", "web", code=10)
    assert "it is paused: an operator paused it" in waited.err
    time.sleep(0.6)  # longer than the step's own pause
    assert (state(running), running.status.step) == (State.ANALYSING, 0)
    assert running.rollout("status", "web", "--json").json["paused"] == "operator"
    running.rollout("resume", "web")
    running.until(lambda status: status.state == State.ANALYSING and status.step == 1)
    running.rollout("pause", "web")
    running.until(lambda status: status.paused == "operator")
    running.rollout("promote", "web", "--full")
    driving.ended(0)
    assert running.running == {running.releases[1]}


def test_wait_answers_for_the_last_rollout_where_none_is_under_way_and_says_so(running: Shop) -> None:
    (known,) = {running.rollout("status", "web", "--json").json["rollout"]}
    said = running.rollout("wait", "web").err
    assert f"rollout {known} of {running.releases[0]}" in said
    assert "SUCCEEDED since 20" in said


def test_wait_for_a_digest_waits_until_a_rollout_of_it_begins(running: Shop) -> None:
    second = running.releases[1]
    assert (
        f"no rollout of {second} has begun"
        in running.rollout("wait", "web", "--digest", second, "--timeout", "0.1", code=10).err
    )
    waiting = running.start("rollout", "wait", "web", "--digest", second)
    time.sleep(0.3)
    assert waiting.err == ""
    running.rollout("apply", "web")
    assert f"of {second}" in waiting.ended(0)
    assert "no digest" in running.rollout("wait", "web", "--digest", "second", code=2).err


def test_wait_stays_with_the_rollout_that_it_found(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    known = running.rollout("status", "web", "--json").json["rollout"]
    waiting = running.start("rollout", "wait", "web")
    time.sleep(0.5)
    running.rollout("abort", "web")
    driving.ended(8)
    running.fleet()
    running.rollout("apply", "web")
    assert "ROLLED_BACK: an operator aborted it" in (said := waiting.ended(8))
    assert f"rollout {known} " in said


def test_wait_runs_out_of_time(running: Shop) -> None:
    running.fleet(pause_s=1000)
    running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    assert "it is ANALYSING after 0.1 s" in running.rollout("wait", "web", "--timeout", "0.1", code=10).err


def test_abort_acts_while_the_source_hangs(running: Shop) -> None:
    with numbers() as source:
        source.hang()
        running.fleet(url=source.url)
        text = running.signed.root / "fleets.toml"
        text.write_text(text.read_text().replace("timeout_s = 5\n", "timeout_s = 25\n"))
        driving = running.start("rollout", "apply", "web")
        running.until(lambda status: status.state == State.ANALYSING)
        running.rollout("abort", "web")
        driving.ended(8)  # sooner than in the source's 25 s
    assert running.running == {running.releases[0]}


def test_orders_without_a_rollout_are_refused(running: Shop) -> None:
    for order in ("pause", "resume", "promote", "abort"):
        assert "no rollout of web goes on" in running.rollout(order, "web", code=2).err


# --- interrupted, killed, two at once


def test_interrupt_leaves_it_where_it_is_and_apply_goes_on(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    driving.send(signal.SIGINT)
    said = driving.ended(130)
    assert "interrupted" in said
    assert "left where it is: factory rollout apply web goes on" in said
    assert running.rollout("status", "web", "--json").json["driven"] is False
    assert "nobody drives it" in running.rollout("status", "web").out
    assert state(running) == State.ANALYSING
    world = running.world
    running.rollout("promote", "web")
    running.rollout("apply", "web")
    assert running.running == {running.releases[1]}
    assert set(world.instances) & set(running.world.instances)


def test_two_operators_at_once_and_the_first_is_killed(running: Shop) -> None:
    running.fleet(pause_s=1000)
    first = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    assert "another process" in running.rollout("apply", "web", "--no-wait", code=7).err
    second = running.start("rollout", "apply", "web")
    second.says("watching")
    first.kill()
    running.rollout("promote", "web", "--full")
    second.ended(0)
    assert running.running == {running.releases[1]}
    assert len(running.world.launched) == 3 + 3  # nothing was launched twice


def test_whoever_watched_a_rollout_that_failed_does_not_try_it_again(running: Shop) -> None:
    running.fleet(pause_s=1000)
    first = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    second = running.start("rollout", "apply", "web")
    second.says("watching")
    running.rollout("abort", "web")
    first.ended(8)
    assert "an operator aborted it" in second.ended(8)
    assert running.running == {running.releases[0]}


def test_new_target_mid_analysis_brings_the_first_back_and_begins_anew(running: Shop) -> None:
    running.fleet(pause_s=1000)
    first = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    begun = running.rollout("status", "web", "--json").json
    third = running.release("third")
    running.fleet(pause_s=0)
    second = running.start("rollout", "apply", "web")
    first.ended(8)
    said = second.ended(0)
    assert "another image is wanted now" in said
    assert running.running == {third}
    seen = running.rollout("status", "web", "--json").json
    assert seen["rollout"] != begun["rollout"]
    assert (seen["from"], seen["to"]) == (running.releases[0], third)
    assert [event["state"] for event in seen["events"]].count("ANALYSING") == 3


def test_target_of_a_rollout_that_nobody_drives_is_replaced_too(running: Shop) -> None:
    running.fleet(pause_s=1000)
    first = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    first.kill()
    third = running.release("third")
    running.fleet(pause_s=0)
    running.rollout("apply", "web")
    assert running.running == {third}


def test_second_rollback_does_not_bring_back_what_the_first_went_away_from(running: Shop) -> None:
    running.rollout("apply", "web")
    first, second = running.releases
    running.rollout("rollback", "web")
    refused = running.rollout("rollback", "web", code=2).err
    assert f"went back already, from {second}" in refused
    assert f"factory rollout rollback web --to DIGEST says which of those that it ran: {first}, {second}" in refused
    assert running.running == {first}
    third = running.release("third")
    running.rollout("apply", "web")
    running.rollout("rollback", "web", "--to", second)
    assert running.running == {second}
    assert "runs" in running.rollout("rollback", "web", "--to", second).err
    assert "never ran sha256:0000" in running.rollout("rollback", "web", "--to", f"sha256:{'0' * 64}", code=2).err
    assert "no digest" in running.rollout("rollback", "web", "--to", "second", code=2).err
    assert running.running == {second}
    assert third not in running.running


def test_rollback_after_an_end_of_the_fleet_brings_back_what_ran_before(running: Shop) -> None:
    running.rollout("apply", "web")
    running.run("fleet", "destroy", "web", "--yes")
    running.release("third")
    running.rollout("apply", "web")
    running.rollout("rollback", "web")
    assert running.running == {running.releases[1]}


def test_fleet_that_is_gone_and_whose_next_rollout_failed_is_healed_or_rolled_back(running: Shop) -> None:
    first, second = running.releases
    running.fleet(deadline_s=1)
    running.behave(second, healthy_after_s=None)
    simulated_local.reboot(running.signed.layout)
    running.rollout("apply", "web", code=8)
    assert running.run("fleet", "list", "--json").json["fleets"][0]["digest"] == first
    assert "3 missing" in running.run("drift", "web", code=5).err
    other = rollout_factory.copy(running, running.signed.root.parent.with_name("other"), running.capsys)
    running.rollout("rollback", "web")
    assert running.running == {first}
    assert "never ran another image" in running.rollout("rollback", "web", code=2).err
    other.run("drift", "web", "--heal", "--budget", "3")
    assert other.running == {first}
    assert "never ran another image" in other.rollout("rollback", "web", code=2).err


def test_fleet_that_was_destroyed_and_whose_next_rollout_failed_is_to_run_nothing(running: Shop) -> None:
    running.run("fleet", "destroy", "web", "--yes")
    running.fleet(deadline_s=1)
    running.behave(running.releases[1], healthy_after_s=None)
    running.rollout("apply", "web", code=8)
    assert "no rollout has succeeded since it was destroyed" in running.run("drift", "web", code=5).out
    assert "since it was destroyed" in running.run("drift", "web", "--heal", code=2).err
    running.rollout("rollback", "web")
    assert running.running == {running.releases[0]}


def test_rollback_to_an_image_ends_what_is_under_way_and_goes_there(running: Shop) -> None:
    running.rollout("apply", "web")
    running.release("third")
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    driving.kill()
    running.rollout("rollback", "web", "--to", running.releases[0])
    assert running.running == {running.releases[0]}


def test_rollback_that_was_interrupted_goes_on_and_is_not_brought_back(running: Shop) -> None:
    running.rollout("apply", "web")
    first, second = running.releases
    running.behave(first, healthy_after_s=1.5)
    driving = running.start("rollout", "rollback", "web")
    running.until(lambda status: status.state == State.WARMING)
    driving.kill()
    running.rollout("apply", "web")
    assert running.running == {first}
    assert second not in running.running


def test_rollback_of_a_rollout_that_goes_on_only_brings_it_back(running: Shop) -> None:
    running.rollout("apply", "web")
    running.release("third")
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    assert "factory rollout abort web" in running.rollout("rollback", "web", code=2).err
    driving.kill()
    assert "runs what it ran before" in running.rollout("rollback", "web").err
    assert running.running == {running.releases[1]}


# --- a file that is broken meanwhile

BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "fault": (lambda path: path.write_text(f"{path.read_text()}[fleet.other]\nprovider = 'lcoal'\n"), "fleet.other"),
    "no toml": (lambda path: path.write_text("[fleet"), "not valid TOML"),
    "gone": (Path.unlink, "there is no fleets.toml here"),
    "renamed": (lambda path: path.write_text(path.read_text().replace("fleet.web", "fleet.wob")), 'no fleet "web"'),
}


@pytest.mark.parametrize("name", BREAKS)
def test_fleets_toml_that_is_broken_holds_no_rollout_up_that_is_under_way(running: Shop, name: str) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    driving.kill()
    break_it, why = BREAKS[name]
    break_it(running.signed.root / "fleets.toml")
    for command in (["rollout", "status", "web"], ["rollout", "metrics", "web"], ["fleet", "show", "web"]):
        said = running.run(*command)
        assert said.err.startswith("warning: fleets.toml cannot be used: ")
        assert why in said.err
        assert said.err.endswith("; what was planned is shown\n")
        assert said.err.count("\n") == 1
        assert running.releases[1][:19] in said.out
    assert "it is ANALYSING" in running.rollout("wait", "web", "--timeout", "0", code=10).err
    assert running.run("fleet", "list", "--json").json["fleets"][0]["rollout"] == "ANALYSING"
    running.rollout("promote", "web")
    assert "; what was planned goes on\n" in running.rollout("apply", "web").err
    assert running.running == {running.releases[1]}
    assert running.rollout("watch", "web").err.count("warning: ") == 1
    for beginning in ("apply", "plan", "rollback"):
        refused = running.rollout(beginning, "web", code=2).err
        assert why in refused
        assert "warning" not in refused
    assert running.running == {running.releases[1]}


def test_rollout_under_way_is_brought_back_though_fleets_toml_is_broken(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    driving.kill()
    BREAKS["fault"][0](running.signed.root / "fleets.toml")
    assert "runs what it ran before" in running.rollout("rollback", "web").err
    assert running.running == {running.releases[0]}
    assert "factory_fleet_size" in running.rollout("metrics", "--all").out
    assert "it is ended as it was planned" in running.run("fleet", "destroy", "web", "--yes").err
    assert "fleet.other" in running.rollout("metrics", "--all", code=2).err


# --- where there was no way back

NO_WAY_BACK = """
[fleet.web.deadlines]
rollback = { seconds = 0.5, then = "continue" }
launch = { seconds = 5 }
"""


def torn(shop: Shop, weight: int) -> Result:
    """The second release serves, and the third could not go back: it has so much of the traffic, and an instance of
    the second is gone."""
    shop.rollout("apply", "web")
    shop.release("third")
    shop.fleet(pause_s=1000 if weight == 34 else 0, bake_s=1000)
    path = shop.signed.root / "fleets.toml"
    held = "{ weight = 67, pause_s = 1000 }"
    path.write_text(path.read_text().replace("{ weight = 67 }", held if weight == 67 else "{ weight = 67 }"))
    path.write_text(path.read_text() + NO_WAY_BACK)
    driving = shop.start("rollout", "apply", "web")
    where = State.BAKING if weight == 100 else State.ANALYSING
    shop.until(lambda status: status.state == where and status.step == {34: 0, 67: 1, 100: 2}[weight])
    second = shop.releases[1]
    shop.behave(second, healthy_after_s=None)  # so that nothing of it can take the traffic
    shop.rollout("abort", "web")
    failed = driving.ended(9)
    simulated_local.lose_one(shop.signed.layout, generation=2)
    shop.behave(second)
    shop.fleet()
    return Result(9, "", failed)


def generations(shop: Shop) -> dict[int, int]:
    seen = shop.rollout("status", "web", "--json").json["instances"]
    there = [one["generation"] for one in seen if one["state"] != "stopping"]
    return {number: there.count(number) for number in sorted(set(there))}


def test_rollback_after_exit_9_brings_back_what_ran_before_it(running: Shop) -> None:
    failed = torn(running, 100).err
    _, second, third = running.releases
    brings = f"factory rollout rollback web brings back {second[:19]}…"
    assert brings in failed
    assert f"next: generation 3, which failed, serves: {brings}" in running.rollout("status", "web").out
    assert brings in running.rollout("status", "web", "--json").json["next"]
    assert brings in running.rollout("wait", "web", code=9).err
    assert brings in running.rollout("apply", "web", code=5).err
    assert f"{brings}; " in (drifted := running.run("drift", "web", code=5).err)
    assert "factory drift web --heal keeps generation 3 only" in drifted
    refused = running.rollout("rollback", "web", code=2).err
    assert "it would have 8 instances at once, and max is 7; 2 of them are left over: i-5, i-6" in refused
    assert "--heal --budget 2 removes it; or raise max" in refused
    assert generations(running) == {2: 2, 3: 3}
    running.run("drift", "web", "--heal", "--budget", "2")
    assert running.running == {third}
    running.rollout("rollback", "web")
    assert running.running == {second}
    assert running.rollout("status", "web", "--json").json["next"] is None
    assert f"went back already, from {third}" in running.rollout("rollback", "web", code=2).err


def test_way_back_that_was_half_gone_is_gone_to_its_end(running: Shop) -> None:
    failed = torn(running, 34).err
    first, second, _ = running.releases
    assert "generation 2 of" in failed
    assert "serves: factory drift web --heal --budget 2 has it serve alone" in failed
    assert f"back on {second} already" in running.rollout("rollback", "web", code=2).err
    assert generations(running) == {2: 2, 3: 2}
    running.run("drift", "web", "--heal", "--budget", "2")
    assert generations(running) == {2: 3}
    assert running.rollout("status", "web", "--json").json["next"] is None
    running.rollout("rollback", "web")
    assert running.running == {first}


def test_rollback_where_both_have_traffic_brings_back_what_ran_before(running: Shop) -> None:
    assert "factory rollout rollback web brings back" in torn(running, 67).err
    refused = running.rollout("rollback", "web", code=2).err
    assert "raise max: 33% of the traffic goes there" in refused
    assert "--budget" not in refused
    path = running.signed.root / "fleets.toml"
    path.write_text(path.read_text().replace("max = 7", "max = 8"))
    running.rollout("rollback", "web")
    assert generations(running) == {4: 3}
    assert running.running == {running.releases[1]}


def test_first_rollout_that_could_not_go_back_says_what_is_left_to_do(shop: Shop) -> None:
    shop.fleet(bake_s=1000)
    driving = shop.start("rollout", "apply", "web")
    driving.says("BAKING")
    shop.rollout("abort", "web")
    said = driving.ended(9)
    assert "nothing ran before it: factory rollout apply web brings another image" in said
    assert "never ran another image" in shop.rollout("rollback", "web", code=2).err


# --- trust


def test_image_revoked_in_mid_rollout_goes_back(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    running.run("revoke", "web", "--reason", "CVE-2026-2")
    assert "CVE-2026-2" in driving.ended(8)
    assert running.running == {running.releases[0]}
    refused = running.rollout("apply", "web", code=6)
    assert "revoked" in refused.err


def test_both_revoked_cannot_go_back(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    running.run("revoke", "hardened", "--reason", "CVE-2026-3")
    assert "may not run either" in driving.ended(9)
    assert state(running) == State.ROLLBACK_FAILED
    assert "ROLLBACK_FAILED" in running.rollout("wait", "web", code=9).err


def test_rollback_to_an_image_that_was_revoked_is_refused(running: Shop) -> None:
    running.rollout("apply", "web")
    running.run("revoke", running.releases[0], "--unknown", "--reason", "CVE-2026-4")
    assert "CVE-2026-4" in running.rollout("rollback", "web", code=6).err
    assert running.running == {running.releases[1]}


def test_fleet_that_never_ran_another_image_has_nothing_to_go_back_to(shop: Shop) -> None:
    shop.rollout("apply", "web")
    assert "never ran another image" in shop.rollout("rollback", "web", code=2).err


def test_fleet_without_a_rollout_says_so(shop: Shop) -> None:
    assert "web never had a rollout" in shop.rollout("watch", "web").err
    assert "web never had a rollout" in shop.rollout("wait", "web", code=2).err


# --- refusals


def test_plan_says_all_reasons_at_once_and_launches_nothing(shop: Shop) -> None:
    path = shop.signed.root / "fleets.toml"
    text = path.read_text().replace('image = "web"', 'image = "wep"').replace('"prod"', '"prud"')
    path.write_text(f'{text}[fleet.web.external.DATABASE]\npath = "{shop.signed.root}/none"\n')
    said = shop.rollout("plan", "web", code=2).err
    for reason in ('there is no image "wep"', 'there is no channel "prud"', "No such file"):
        assert reason in said, said
    assert shop.world.instances == {}
    assert not log.path_of(shop.signed.layout, "web").exists()


def test_plan_of_an_image_that_writes_outside_its_state_is_refused(shop: Shop) -> None:
    shop.release("writes", **{"nothing-written-outside-state": "skipped"})
    assert "was not seen to write only to its state" in shop.rollout("plan", "web", code=6).err


def test_plan_of_a_fleet_that_there_is_not_names_those_there_are(shop: Shop) -> None:
    assert "web" in shop.rollout("plan", "wep", code=2).err


# --- what is told


def test_log_has_a_line_per_event_each_with_its_digest(running: Shop) -> None:
    path = log.path_of(running.signed.layout, "web")
    path.write_bytes(path.read_bytes() + b'{"half')  # as a kill leaves it
    running.rollout("apply", "web")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lines = path.read_text().splitlines()
    assert lines.count('{"half') == 1
    told = [json.loads(line) for line in lines if line != '{"half']
    assert all(one["digest"] in running.releases for one in told)
    new = [one for one in told if one["generation"] == 2]
    assert [one["state"] for one in new if one["event"] == "state"][-1] == "SUCCEEDED"
    assert {"launch", "shift", "state"} <= {one["event"] for one in new}
    assert any(one["event"] == "retire" and one["digest"] == running.releases[0] for one in told)


def test_events_go_to_standard_error_where_they_are_asked_for(running: Shop) -> None:
    said = running.rollout("apply", "web", "--events").err
    assert {json.loads(line)["digest"] for line in said.splitlines()} == set(running.releases)


def test_metrics_say_what_runs_and_what_goes_on(running: Shop, tmp_path: Path) -> None:
    running.rollout("apply", "web")
    said = running.rollout("metrics", "web").out
    first, second = running.releases
    assert f'factory_fleet_instances{{fleet="web",generation="2",image="web",digest="{second}"' in said
    assert 'factory_rollouts_total{fleet="web",state="SUCCEEDED"} 2' in said
    assert first not in said
    running.rollout("metrics", "--all", "--to", str(tmp_path / "factory.prom"))
    assert "factory_fleet_size" in (tmp_path / "factory.prom").read_text()
    assert "name a fleet" in running.rollout("metrics", code=2).err


def test_watch_tells_each_event_with_its_digest(running: Shop) -> None:
    running.fleet(pause_s=0.5)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state not in TERMINAL)
    said = running.rollout("watch", "web").err
    driving.ended(0)
    assert f"SUCCEEDED, step 3 of 3  {running.releases[1]}" in said


NOBODY = "web: nobody drives it: factory rollout apply web goes on with it\n"


def test_orders_wait_and_watch_say_once_that_nobody_drives(running: Shop) -> None:
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    running.rollout("wait", "web", "--timeout", "0.3", code=10)
    followers = [running.start("rollout", command, "web") for command in ("wait", "watch")]
    followers[1].says("ANALYSING")
    assert NOBODY not in running.rollout("pause", "web").err
    assert NOBODY not in running.rollout("resume", "web").err
    running.until(lambda status: not status.paused)
    driving.kill()
    for follower in followers:
        follower.says(NOBODY)
    assert running.rollout("wait", "web", "--timeout", "0.5", code=10).err.count(NOBODY) == 1
    assert running.rollout("promote", "web", "--full", "--json").err == NOBODY
    running.rollout("apply", "web")
    for follower in followers:
        assert follower.ended(0).count(NOBODY) == 1


def test_provider_that_cannot_be_asked_is_told_once_and_when_it_is_back(
    running: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, observe = running.signed.root / "gone", SimulatedProvider.observe

    def observed(provider: SimulatedProvider) -> Observation:
        if gone.exists():
            raise ProviderError("the credentials have expired")
        return observe(provider)

    monkeypatch.setattr(SimulatedProvider, "observe", observed)
    running.fleet(pause_s=1000)
    driving = running.start("rollout", "apply", "web")
    running.until(lambda status: status.state == State.ANALYSING)
    watching = running.start("rollout", "watch", "web")
    watching.says("ANALYSING")
    gone.touch()
    driving.says(f"web: its provider cannot be asked  {running.releases[1]}  the credentials have expired\n")
    watching.says("web: its instances cannot be seen: the credentials have expired\n")
    time.sleep(0.5)  # some turns
    gone.unlink()
    driving.says("web: its provider answers again")
    watching.says("web: its instances are seen again")
    running.rollout("promote", "web", "--full")
    assert driving.ended(0).count("cannot be asked") == 1
    assert watching.ended(0).count("cannot be seen") == 1
    lines = map(json.loads, log.path_of(running.signed.layout, "web").read_text().splitlines())
    told = [(one["event"], one["message"], one["digest"]) for one in lines if "reachable" in one["event"]]
    assert told == [
        ("unreachable", "the credentials have expired", running.releases[1]),
        ("reachable", "", running.releases[1]),
    ]


def test_catalog_is_whole_after_all_that(running: Shop) -> None:
    from factory.catalog import audit

    running.rollout("apply", "web")
    running.rollout("rollback", "web")
    with Catalog.open(running.signed.layout.catalog) as catalog:
        logs = list(audit.logs(catalog.connection, {}))
        assert [str(one) for one in check.problems(catalog.connection, catalog.path, lambda: logs)] == []
