"""factory drift and factory fleet as they are typed: signed images on the simulator, a world that goes its own way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import rollout_factory
from rollout_factory import Shop
from signed_factory import sha
from simulated_provider import World

from factory.catalog import audit, chain, check, rollouts
from factory.catalog.database import Catalog
from factory.errors import ProviderError
from factory.model import Layout
from factory.rollout import acting, log, providers
from factory.rollout.model import FleetSpec, State
from factory.rollout.providers import Provider
from factory.verify.built_in import STATE


@pytest.fixture
def shop(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], simulated: None, template: list[Shop]
) -> Iterator[Shop]:
    """A fleet of three that runs the first release."""
    if not template:
        template.append(rollout_factory.build(tmp_path_factory.mktemp("template"), capsys))
        template[0].rollout("apply", "web")
    made = rollout_factory.copy(template[0], tmp_path_factory.mktemp("shop"), capsys)
    sized(made)
    yield made
    made.end_all()


def sized(shop: Shop, size: int = 3, least: int = 2, most: int = 7, strategy: str = "canary") -> None:
    """Write fleets.toml."""
    shop.fleet(strategy, deadline_s=1)
    path = shop.signed.root / "fleets.toml"
    said = path.read_text().replace("size = 3", f"size = {size}").replace("min = 3", f"min = {least}")
    path.write_text(said.replace("max = 7", f"max = {most}"))


def change(shop: Shop, how: Callable[[World], None]) -> None:
    """What happens to machines behind the factory's back."""
    world = shop.world
    how(world)
    (shop.signed.layout.state / "world-web.json").write_text(json.dumps(asdict(world)))


def add(world: World, generation: int, digest: str | None, count: int = 1) -> None:
    for _ in range(count):
        world.instances[f"i-{world.next_id}"] = {
            "generation": generation, "digest": digest, "launched_at": time.time() - 1000, "stopping_since": None,
            "drained_since": 0.0,
        }  # fmt: skip
        world.next_id += 1


def lose(world: World, count: int = 1) -> None:
    for name in sorted(world.instances)[:count]:
        del world.instances[name]


def stop(world: World, generation: int) -> None:
    """Its instances are on their way out, for a while."""
    for one in world.instances.values():
        if one["generation"] == generation:
            one["stopping_since"] = time.time() + 60


def aged(world: World, age_s: float) -> None:
    for one in world.instances.values():
        one["launched_at"] = time.time() - age_s


def kinds(document: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in document["drift"]:
        counts[one["kind"]] = counts.get(one["kind"], 0) + one["count"]
    return counts


def whole(shop: Shop) -> None:
    """The catalog is as it should be, and says what runs."""
    with Catalog.read(shop.signed.layout.catalog) as catalog:
        found = check.problems(catalog.connection, catalog.path, lambda: list(audit.logs(catalog.connection, {})))
        assert [str(problem) for problem in found] == []
        assert rollouts.open_intents(catalog, "web") == []
        there = {name for name, one in shop.world.instances.items() if one["stopping_since"] is None}
        assert there <= set(rollouts.instances(catalog, "web"))


# --- drift


def test_fleet_as_it_should_be_has_no_drift(shop: Shop) -> None:
    assert "web is as it should be: 3 instances" in shop.run("drift", "web").err
    found = shop.run("drift", "web", "--json").json
    assert (found["drift"], found["digest"], found["size"], found["healed"]) == ([], shop.releases[0], 3, None)
    assert shop.run("drift", "web", "--csv").out.splitlines() == ["kind,instance,generation,digest,count,why"]


def test_fleet_that_never_ran_is_all_missing(shop: Shop) -> None:
    (shop.signed.root / "fleets.toml").write_text(
        (shop.signed.root / "fleets.toml").read_text().replace("fleet.web", "fleet.other")
    )
    assert kinds(shop.run("drift", "other", "--json", code=5).json) == {"missing": 3}
    assert "hint: factory rollout apply other brings it up" in shop.run("drift", "other", code=5).err
    assert "never had a rollout that succeeded" in shop.run("drift", "other", "--heal", code=2).err
    assert "nothing of other runs" in shop.run("fleet", "destroy", "other", "--yes").err
    assert "no rollout yet" in shop.run("fleet", "show", "other").out
    assert kinds(shop.run("drift", "other", "--json", code=5).json) == {"missing": 3}


def test_apply_of_the_image_that_runs_tells_what_is_amiss(shop: Shop) -> None:
    assert "already; nothing was done" in shop.rollout("apply", "web").err
    change(shop, lose)
    told = shop.rollout("apply", "web", code=5).err
    assert "not as it should be" in told
    assert "factory drift web" in told
    assert shop.rollout("apply", "web", "--json", code=5).json["state"] == "SUCCEEDED"


def test_missing_wrong_and_left_over_ones_are_told_and_replaced(shop: Shop) -> None:
    change(shop, lose)
    change(shop, lambda world: add(world, 9, sha("somebody else's")))
    change(shop, lambda world: add(world, 8, shop.releases[0]))
    found = shop.run("drift", "web", code=5)
    assert "wrong-image" in found.out
    assert "1 missing, 1 of a wrong image, 1 extra" in found.err
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"missing": 1, "wrong-image": 1, "extra": 1}
    healed = shop.run("drift", "web", "--heal", "--budget", "2", "--json").json
    assert healed["drift"] == []
    assert (healed["healed"]["end"], len(healed["healed"]["launched"]), len(healed["healed"]["retired"])) == (
        "done",
        1,
        2,
    )
    assert shop.running == {shop.releases[0]}
    whole(shop)


def test_ones_without_a_tag_and_traffic_gone_astray_are_told_and_put_right(shop: Shop) -> None:
    change(shop, lambda world: add(world, 1, None))
    change(shop, lambda world: add(world, 8, shop.releases[0]))
    change(shop, lambda world: world.weights.update({"1": 60, "8": 40}))
    found = shop.run("drift", "web", code=5)
    assert "1 of an unknown image, 1 extra, 1 traffic gone astray" in found.err
    assert "40% goes to generation 8" in found.out
    healed = shop.run("drift", "web", "--heal", "--budget", "2", "--json").json
    assert (healed["drift"], len(healed["healed"]["retired"]), healed["instances"]) == ([], 2, 3)
    change(shop, lambda world: world.weights.clear())
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"traffic": 1}
    shop.run("drift", "web", "--heal")
    assert shop.world.weights == {"1": 100}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--heal", "--budget", "0"], "--budget"),
        (["--heal", "--breaker", "x"], "--breaker"),
        (["--budget", "2"], "factory drift web --heal --budget 2"),
        (["--json", "--csv"], "exclude each other"),
    ],
)
def test_drift_of_bad_input_is_refused(shop: Shop, arguments: list[str], says: str) -> None:
    assert says in shop.run("drift", "web", *arguments, code=2).err


def test_rollout_of_what_serves_is_found_however_long_ago(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "LATELY", 0)
    change(shop, lose)
    shop.run("drift", "web", "--heal")
    with Catalog.read(shop.signed.layout.catalog) as catalog:
        known = rollouts.last(catalog, "web")
        assert known is not None
        by = {row["rollout"] for row in catalog.query("SELECT rollout FROM instances")}
        assert by == {known.id}


def test_what_was_done_stands_in_the_log_with_its_image(shop: Shop) -> None:
    change(shop, lambda world: add(world, 8, sha("somebody else's")))
    change(shop, lose)
    shop.run("drift", "web", "--heal")
    shop.run("fleet", "destroy", "web", "--yes")
    lines = [json.loads(line) for line in log.path_of(shop.signed.layout, "web").read_text().splitlines()]
    ended = max(place for place, line in enumerate(lines) if line["event"] == "state")
    told = [(line["event"], line["generation"], line["digest"]) for line in lines[ended + 1 :]]
    first = shop.releases[0]
    assert ("launch", 1, first) in told
    assert ("retire", 8, sha("somebody else's")) in told
    assert told[-1] == ("retire", 1, first)
    assert {line["rollout"] for line in lines} == {lines[0]["rollout"]}


def test_budget_leaves_the_rest_for_the_next_run(shop: Shop) -> None:
    change(shop, lambda world: lose(world, 2))
    assert "--budget N lets it replace more" in shop.run("drift", "web", "--heal", code=5).err
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"missing": 1}
    shop.run("drift", "web", "--heal")


def test_breaker_stops_with_exit_3(shop: Shop) -> None:
    change(shop, lose)
    shop.behave(shop.releases[0], healthy_after_s=None, pending_s=0)
    change(shop, lambda world: aged(world, 0))
    failed = shop.run("drift", "web", "--heal", "--breaker", "1", "--json", code=3)
    assert failed.json["healed"]["end"] == "breaker"
    assert failed.json["healed"]["failed"] == 1
    assert "no more are launched" in failed.err
    assert len(shop.world.launched) == 4


def test_unhealthy_ones_are_told_after_a_grace(shop: Shop) -> None:
    shop.behave(shop.releases[0], healthy_after_s=None)
    change(shop, lambda world: aged(world, 60))
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"unhealthy": 3}


def test_revoked_image_that_serves_is_not_launched_again(shop: Shop) -> None:
    change(shop, lose)
    shop.signed.revoke(shop.signed.revocation(shop.signed.images["hardened"].digest, "hardened/amd64"))
    found = shop.run("drift", "web", "--json", code=5)
    assert kinds(found.json) == {"missing": 3, "revoked": 2}
    assert "CVE-2026-1" in found.json["refused"]
    assert "factory rollout apply web" in found.err
    failed = shop.run("drift", "web", "--heal", code=6)
    assert "may not be launched" in failed.err
    assert len(shop.world.instances) == 2
    assert "is not launched: " in shop.run("fleet", "scale", "web", "5", code=6).err
    assert len(shop.world.instances) == 2


def test_papers_that_cannot_be_read_are_no_drift_but_nothing_is_launched(shop: Shop) -> None:
    change(shop, lose)
    shop.signed.layout.revocations.unlink()
    found = shop.run("drift", "web", "--json", code=5).json
    assert kinds(found) == {"missing": 1}
    assert "no signed set of revocations" in found["refused"]
    assert shop.run("drift", "web", "--heal", "--json", code=6).json["healed"]["end"] == "refused"
    assert len(shop.world.instances) == 2


# --- while a rollout goes on


def test_healing_scaling_and_destroying_wait_for_a_rollout(shop: Shop) -> None:
    shop.release("second")
    shop.fleet(pause_s=1000)
    driving = shop.start("rollout", "apply", "web")
    shop.until(lambda status: status.state == State.ANALYSING)
    for command in (["drift", "web", "--heal"], ["fleet", "scale", "web", "5"], ["fleet", "destroy", "web", "--yes"]):
        assert "factory rollout watch web" in shop.run(*command, code=7).err
    assert "nothing runs that is not of it" in shop.run("drift", "web").err
    change(shop, lambda world: add(world, 9, sha("somebody else's")))
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"extra": 1}
    driving.send(signal.SIGKILL)
    driving.kill()
    refused = shop.run("fleet", "scale", "web", "5", code=7).err
    assert "a rollout of web goes on (ANALYSING)" in refused
    assert "factory rollout apply web drives it" in refused


# --- what is left over counts in a rollout


@pytest.mark.parametrize(("strategy", "most", "fits"), [("canary", 7, 8), ("blue-green", 7, 8), ("rolling", 5, 6)])
def test_rollout_that_does_not_fit_beside_what_is_left_over_is_refused(
    shop: Shop, strategy: str, most: int, fits: int
) -> None:
    shop.release("second")
    change(shop, lambda world: add(world, 9, sha("somebody else's"), 2))
    sized(shop, most=most, strategy=strategy)
    for command in ("plan", "apply"):
        refused = shop.rollout(command, "web", code=2).err
        assert f"it would have {fits} instances at once, and max is {most}; 2 of them are left over: " in refused
        assert "factory drift web shows what is left over, --heal --budget 2 removes it; or raise max" in refused
    assert len(shop.world.instances) == 5
    other = rollout_factory.copy(shop, shop.signed.root.parent.with_name("other"), shop.capsys)
    sized(other, most=fits, strategy=strategy)
    steps = other.rollout("plan", "web", "--json").json["steps"]
    assert max(step["most"] for step in steps) == fits
    assert "2 of other generations" in steps[-1]["what"]
    shop.run("drift", "web", "--heal", "--budget", "2")
    shop.rollout("apply", "web")
    assert shop.running == {shop.releases[1]}


def test_what_is_left_over_goes_with_the_old_ones_where_there_is_room(shop: Shop) -> None:
    second = shop.release("second")
    change(shop, lambda world: add(world, 9, sha("somebody else's"), 2))
    sized(shop, most=8)
    shop.rollout("apply", "web")
    assert shop.running == {second}


def test_what_is_stopping_and_what_is_left_over_of_a_fleet_that_is_not_to_change_are_no_hindrance(shop: Shop) -> None:
    change(shop, lambda world: add(world, 9, sha("somebody else's"), 2))
    assert "2 of a wrong image" in shop.run("drift", "web", code=5).err
    assert "runs the image that is wanted already" in shop.rollout("apply", "web", code=5).err
    shop.release("second")
    change(shop, lambda world: stop(world, 9))
    assert max(step["most"] for step in shop.rollout("plan", "web", "--json").json["steps"]) == 6


def test_left_overs_of_a_fleet_that_is_to_run_nothing_are_ended_with_it(shop: Shop) -> None:
    shop.run("fleet", "destroy", "web", "--yes")
    change(shop, lambda world: add(world, 9, sha("somebody else's"), 5))
    refused = shop.rollout("plan", "web", code=2).err
    assert "it would have 8 instances at once" in refused
    assert "factory fleet destroy web --yes ends what is left" in refused
    shop.run("fleet", "destroy", "web", "--yes")
    shop.rollout("apply", "web")
    assert shop.running == {shop.releases[0]}


# --- size


def test_scale_adds_the_present_image_only_and_it_stays(shop: Shop) -> None:
    shop.release("second")
    said = shop.run("fleet", "scale", "web", "5").err
    assert "web has 5 instances" in said
    assert "a rollout would have up to 10 instances and be refused: max is 7" in said
    assert "would have 10 instances" in shop.rollout("plan", "web", code=2).err
    assert shop.running == {shop.releases[0]}
    assert len(shop.world.instances) == 5
    shop.run("drift", "web")
    assert shop.run("fleet", "scale", "web", "5", "--json").json["launched"] == []
    assert [row["size"] for row in shop.run("fleet", "list", "--json").json["fleets"]] == [5]
    sized(shop, most=11)
    shop.rollout("apply", "web")
    assert len([one for one in shop.world.instances.values() if one["generation"] == 2]) == 5
    shop.run("fleet", "scale", "web")
    assert sum(one["stopping_since"] is None for one in shop.world.instances.values()) == 3
    whole(shop)


def test_scale_of_fleets_toml_takes_the_place_of_what_was_said(shop: Shop) -> None:
    shop.run("fleet", "scale", "web", "5")
    sized(shop, size=4, most=9)
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"extra": 1}
    shop.run("fleet", "scale", "web")
    shop.run("drift", "web")


@pytest.mark.parametrize(("size", "says"), [("1", "min is 2, max is 7"), ("8", "max is 7"), ("x", "'x'"), ("-1", "")])
def test_scale_outside_of_min_and_max_is_refused(shop: Shop, size: str, says: str) -> None:
    assert says in shop.run("fleet", "scale", "web", size, code=2).err
    assert len(shop.world.instances) == 3


# --- what several instances must not be, and what they are given


@pytest.fixture
def writing(tmp_path: Path, capsys: pytest.CaptureFixture[str], simulated: None) -> Iterator[Shop]:
    """A fleet of one instance, of an image that was not seen to write only to its state."""
    made = rollout_factory.build(tmp_path, capsys)
    made.release("writes", **{STATE: "skipped"})
    sized(made, size=1, least=1)
    made.rollout("apply", "web")
    yield made
    made.end_all()


WRITES = f"was not seen to write only to its state ({STATE}: skipped), and the fleet has 3 instances"


def test_scale_to_several_of_an_image_that_keeps_something_is_refused(writing: Shop) -> None:
    said = writing.run("fleet", "scale", "web", "3", code=6).err
    assert WRITES in said
    assert "allow_state_writes = true" in said
    assert [row["size"] for row in writing.run("fleet", "list", "--json").json["fleets"]] == [1]
    assert len(writing.world.launched) == 1
    path = writing.signed.root / "fleets.toml"
    path.write_text(path.read_text().replace("size = 1", "allow_state_writes = true\nsize = 1"))
    writing.run("fleet", "scale", "web", "3")


def test_healing_launches_no_second_of_an_image_that_keeps_something(writing: Shop) -> None:
    change(writing, lose)
    writing.run("drift", "web", "--heal")
    assert len(writing.world.launched) == 2, "one instance may be replaced"
    sized(writing, size=3, least=1)
    change(writing, lambda world: add(world, 9, sha("somebody else's")))
    found = writing.run("drift", "web", "--json", code=5).json
    assert (kinds(found), WRITES in found["refused"]) == ({"missing": 2, "wrong-image": 1}, True)
    said = writing.run("drift", "web", "--heal", "--budget", "3", code=6).err
    assert WRITES in said
    assert "allow_state_writes = true" in said
    assert len(writing.world.launched) == 2
    assert kinds(writing.run("drift", "web", "--json", code=5).json) == {"missing": 2}, "what was wrong is gone"
    sized(writing, size=1, least=1)
    writing.run("drift", "web")


def test_secret_that_others_can_read_is_refused_where_something_is_launched(shop: Shop) -> None:
    secret, path = shop.signed.root / "database", shop.signed.root / "fleets.toml"
    secret.write_text("postgres://secret")
    path.write_text(path.read_text() + '[fleet.web.external]\nDATABASE_URL = { path = "database" }\n')
    secret.chmod(0o644)
    shop.run("drift", "web", "--heal")
    shop.run("fleet", "scale", "web", "2")
    change(shop, lambda world: add(world, 8, shop.releases[0]))
    shop.run("drift", "web", "--heal")
    for command in (["fleet", "scale", "web", "3"], ["drift", "web", "--heal"]):
        change(shop, lambda world: lose(world, len(world.instances) - 1))
        assert f"chmod 600 {secret}" in shop.run(*command, code=2).err
    assert len(shop.world.launched) == 3
    assert [row["size"] for row in shop.run("fleet", "list", "--json").json["fleets"]] == [2]
    assert kinds(shop.run("drift", "web", "--json", code=5).json) == {"missing": 1}
    secret.chmod(0o600)
    shop.run("drift", "web", "--heal")


# --- list, show, destroy


def test_list_and_show_say_what_runs(shop: Shop) -> None:
    (row,) = shop.run("fleet", "list", "--json").json["fleets"]
    assert row == {
        "fleet": "web", "provider": "local", "image": "web", "digest": shop.releases[0], "size": 3, "instances": 3,
        "healthy": 3, "traffic": "100% to 1", "rollout": "SUCCEEDED", "note": None,
    }  # fmt: skip
    assert "100% to 1" in shop.run("fleet", "list").out
    assert "generation 1" in shop.run("fleet", "show", "web").out
    assert "3 there are to be, min 2, max 7" in shop.run("fleet", "show", "web").out
    shown = shop.run("fleet", "show", "web", "--json").json
    assert (shown["state"], shown["size"], shown["ended"]) == ("SUCCEEDED", 3, None)
    assert "web" in shop.run("fleet", "show", "wbe", code=2).err


def test_fleet_that_cannot_be_asked_is_listed_without_counts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of it, which is not the same as nothing being there."""

    def nobody(_: Layout, __: FleetSpec) -> Provider:
        raise ProviderError("the credentials have expired")

    monkeypatch.setattr(providers, "connect", nobody)
    (row,) = shop.run("fleet", "list", "--json").json["fleets"]
    assert (row["instances"], row["healthy"], row["traffic"]) == (None, None, None)
    assert row["note"] == "not seen: the credentials have expired"
    heading, line = shop.run("fleet", "list").out.splitlines()
    cells = dict(zip(heading.split(), line.split(), strict=False))
    assert (cells["size"], cells["instances"], cells["healthy"], cells["traffic"]) == ("3", "?", "?", "?")


def test_fleet_gone_from_fleets_toml_is_listed_while_it_runs_and_can_be_ended(shop: Shop) -> None:
    (shop.signed.root / "fleets.toml").unlink()
    assert "not in fleets.toml" in shop.run("fleet", "list").out
    shop.run("fleet", "destroy", "web", "--yes")
    assert "none runs" in shop.run("fleet", "list").err


def test_factory_without_a_fleet_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], simulated: None) -> None:
    fresh = rollout_factory.build(tmp_path, capsys)
    (fresh.signed.root / "fleets.toml").unlink()
    assert fresh.run("fleet", "list", "--json").json == {"fleets": []}
    for command in (["fleet", "show", "web"], ["drift", "web"], ["fleet", "scale", "web", "3"]):
        fresh.run(*command, code=2)


def test_destroy_needs_a_yes_and_leaves_nothing(shop: Shop) -> None:
    assert "factory fleet destroy web --yes" in shop.run("fleet", "destroy", "web", code=2).err
    assert len(shop.world.instances) == 3
    assert "3 instances retired" in shop.run("fleet", "destroy", "web", "--yes").err
    assert "nothing of it runs\ndestroyed\n" in shop.run("fleet", "show", "web").out
    seen = shop.run("fleet", "list", "--json").json["fleets"]
    assert [(row["instances"], row["note"]) for row in seen] == [(0, "destroyed")]
    assert "was destroyed" in shop.run("drift", "web").err
    assert "was destroyed" in shop.run("drift", "web", "--heal", code=2).err
    assert shop.run("fleet", "destroy", "web", "--yes", "--json").json == {"fleet": "web", "retired": []}
    with Catalog.read(shop.signed.layout.catalog) as catalog:
        rows = catalog.query("SELECT action FROM events WHERE source = 1 ORDER BY seq DESC LIMIT 1")
        assert rows[0]["action"] == "destroyed fleet"
        assert chain.head(catalog.connection).length > 0
    whole(shop)
    shop.rollout("apply", "web")
    shop.run("drift", "web")
    assert shop.rollout("status", "web", "--json").json["from"] is None


def test_destroy_that_was_interrupted_goes_on(shop: Shop) -> None:
    driving = shop.start("fleet", "destroy", "web", "--yes")
    ends = time.monotonic() + 20
    while shop.world.weights and time.monotonic() < ends:
        time.sleep(0.001)
    driving.kill()
    if shop.world.instances:
        assert "is being destroyed" in shop.run("drift", "web", "--heal", code=2).err
    shop.run("fleet", "destroy", "web", "--yes")
    assert not [one for one in shop.world.instances.values() if one["stopping_since"] is None]
    shop.run("drift", "web")
    whole(shop)
