"""The local fleet's front while it serves: what it was started with changes, its guests stall, its socket is lost.
Real HAProxy, no QEMU."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_fleets import LocalWorld, free_port

from benchmarks.load import load
from factory import proc
from factory.errors import ProviderError
from factory.rollout.providers.local import tags
from factory.rollout.providers.local.guests import tagged
from factory.rollout.providers.local.running import Running


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LocalWorld]:
    made = LocalWorld(tmp_path / "world")
    yield made
    made.close()


def asking(world: LocalWorld, body: str, **health: object) -> LocalWorld:
    """The same fleet, whose health asks for another body."""
    spec = world.fleet
    assert spec.health.http is not None
    probe = dataclasses.replace(spec.health.http, body=body)
    return LocalWorld(
        world.root,
        dataclasses.replace(spec, health=dataclasses.replace(spec.health, http=probe, **health)),  # type: ignore[arg-type]
    )


def fronts(world: LocalWorld) -> list[int]:
    return [pid for pid, tag in tagged(world.folder) if tag.id == tags.FRONT]


def test_changed_health_is_in_force_and_nothing_is_lost(world: LocalWorld) -> None:
    world.up(1, 2)
    world.provider.shift({1: 100})
    before = fronts(world)
    with load(world.url, 50) as found:
        time.sleep(0.3)
        other = asking(world, "factory v1", successes=2)
        other.provider.launch(world.generation(2), 1)
        other.wait(lambda: [one.healthy for one in other.of(2)] == [False])
        assert [one.why for one in other.of(2)] == ["its answer lacks the body that is wanted"]
        assert [one.healthy for one in other.of(1)] == [True, True]
        with pytest.raises(ProviderError, match="no healthy"):
            other.provider.shift({2: 100})
        other.wait(lambda: len(fronts(other)) == 1)
        assert dict(other.provider.observe().weights) == {1: 100}
    assert found.lost == []
    assert set(found.answers) == {"factory v1"}
    assert fronts(world) != before
    again = fronts(world)
    other.provider.shift({1: 100})
    assert fronts(world) == again, "it is as it is to be"


def test_changed_health_that_the_old_image_does_not_pass_ends_no_service(world: LocalWorld) -> None:
    world.up(1, 2)
    world.provider.shift({1: 100})
    with load(world.url, 50) as found:
        other = asking(world, "factory v2")
        other.provider.launch(world.generation(2), 2)
        other.wait_healthy(1, 0)
        other.wait_healthy(2, 2)
        time.sleep(0.3)
        assert set(found.answers) == {"factory v1"}, "the new ones have not been given anything yet"
        assert dict(other.provider.observe().weights) == {1: 100}
        other.provider.shift({2: 100})
        assert dict(other.provider.observe().weights) == {2: 100}
        time.sleep(0.3)
    assert found.lost == []
    assert set(found.answers) == {"factory v1", "factory v2"}
    assert all(one.is_idle for one in other.of(1))


def test_changed_listen_is_listened_at_and_the_old_address_no_more(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    other = LocalWorld(world.root, dataclasses.replace(world.fleet, listen=f"127.0.0.1:{free_port()}"))
    assert other.provider.faults("amd64") == []
    other.provider.shift({1: 100})
    assert other.get() == (200, "factory v1")
    other.wait(lambda: len(fronts(other)) == 1)
    with pytest.raises(ConnectionRefusedError):
        world.get()


def test_changed_listen_that_somebody_else_has_is_told_and_changes_nothing(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    before = fronts(world)
    with socket.create_server(("127.0.0.1", 0)) as taken, load(world.url, 50) as found:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        other = LocalWorld(world.root, dataclasses.replace(world.fleet, listen=listen))
        assert "listens there" in "".join(other.provider.faults("amd64"))
        with pytest.raises(ProviderError, match="(?s)HAProxy ended.*cannot bind"):
            other.provider.shift({1: 100})
        world.wait(lambda: found.sent > 0)
    assert found.lost == []
    assert fronts(world) == before
    world.provider.shift({1: 100})
    assert dict(world.provider.observe().weights) == {1: 100}


def test_sessions_of_a_front_that_is_replaced_go_on(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(world.get("/slow?1.5")))
    slow.start()
    world.wait(lambda: any(one.sessions for one in world.of(1)))
    other = asking(world, "factory v1")
    for _ in range(2):
        other.provider.shift({1: 100})
        assert len(fronts(other)) == 2, "the old one ends softly"
    slow.join()
    assert answers == [(200, "factory v1")]
    other.wait(lambda: len(fronts(other)) == 1)


def test_front_whose_maker_was_killed_before_it_took_over_is_told_to_end(
    world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    (before,) = fronts(world)
    other = asking(world, "factory v1")
    with monkeypatch.context() as killed:
        killed.setattr(Running, "_sweep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            other.provider.shift({1: 100})
    assert len(fronts(world)) == 2
    with load(world.url, 50) as found:
        other.provider.shift({1: 100})
        other.wait(lambda: len(fronts(other)) == 1)
    assert found.lost == []
    assert before not in fronts(world)
    assert sorted(path.name for path in world.folder.glob("haproxy*.sock*")) == ["haproxy.sock"]


def test_stall_of_all_guests_loses_nothing(world: LocalWorld) -> None:
    world.up(1, 3)
    world.provider.shift({1: 100})
    guests = [pid for name, pid in world.processes().items() if name != tags.FRONT]
    with load(world.url, 20) as found:
        world.wait(lambda: found.sent > 0)
        for pid in guests:
            os.kill(pid, signal.SIGSTOP)
        world.wait_healthy(1, 0)
        time.sleep(1.5)
        for pid in guests:
            os.kill(pid, signal.SIGCONT)
        world.wait_healthy(1, 3)
    assert [one for one in found.lost if "timed out" not in one[1]] == []  # on a loaded machine it may be a long stall
    assert found.sent > 20


def test_front_whose_socket_is_lost_is_replaced_and_its_sessions_go_on(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    (before,) = fronts(world)
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(world.get("/slow?2.5")))
    slow.start()
    world.wait(lambda: any(one.sessions for one in world.of(1)))
    (world.folder / "haproxy.sock").unlink()
    world.provider.shift({1: 100})
    assert proc.identity(before) is not None, "nobody ended it"
    slow.join()
    assert answers == [(200, "factory v1")]
    assert world.get() == (200, "factory v1")
    world.wait(lambda: before not in fronts(world))


def test_guest_that_was_ill_when_it_was_drained_serves_again_by_itself(world: LocalWorld) -> None:
    world.up(1, 2)
    world.up(2, 1)
    world.provider.shift({1: 100})
    sick = world.folder / "instances/web-g1-02/sick"
    sick.touch()
    world.wait_healthy(1, 1)
    for number in (1, 2, 1):
        world.provider.shift({number: 100})
    sick.unlink()
    world.wait_healthy(1, 2)
    assert [one.id for one in world.of(1) if one.is_idle] == []


def test_guest_that_hangs_loses_nothing_where_answers_have_a_time_limit(world: LocalWorld) -> None:
    world = LocalWorld(world.root, dataclasses.replace(world.fleet, response_timeout_s=0.5))
    world.up(1, 2)
    world.provider.shift({1: 100})
    hung = world.folder / "instances/web-g1-02/hung"
    with load(world.url, 50) as found:
        hung.touch()
        world.wait(lambda: any(one.sessions for one in world.of(1)))
        world.wait_healthy(1, 1)
        time.sleep(1)
    hung.unlink()
    assert found.lost == []
    assert found.sent > 20


def test_request_that_went_wrong_is_remembered_without_what_it_asked_for(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    assert world.get("/fine")[0] == 200
    (world.folder / "instances/web-g1-01/sick").touch()
    assert world.get("/private/path?token=hidden")[0] == 500
    said = world.provider.front.running.tell("show events trouble")
    (line,) = [line for line in said.splitlines() if " GET " in line]
    assert "web-g1-01" in line
    assert " 500 " in line
    assert "private" not in said
    assert "hidden" not in said
