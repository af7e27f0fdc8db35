"""The local provider's own: what survives what, what is lost under load, what is in the way. Real HAProxy, no QEMU."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_fleets import LocalWorld, fleet_of, free_port

from benchmarks.load import load
from factory import proc
from factory.errors import ProviderError
from factory.rollout.model import External, Health, HttpProbe, Observation
from factory.rollout.providers.local import guests, running, tags


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LocalWorld]:
    made = LocalWorld(tmp_path / "world")
    yield made
    made.close()


def test_nothing_is_lost_under_load_while_shifting_and_retiring(world: LocalWorld) -> None:
    world.up(1, 2)
    world.provider.shift({1: 100})
    with load(world.url, 50) as found:
        world.up(2, 2)
        for new in (10, 50, 100):
            world.provider.shift({1: 100 - new, 2: new})
            time.sleep(0.3)
        world.wait(lambda: not any(one.sessions for one in world.of(1)))
        world.provider.retire([one.id for one in world.of(1)])
        time.sleep(0.3)
    assert found.lost == []
    assert found.sent > 50
    assert set(found.answers) == {"factory v1", "factory v2"}
    answered = sum(dict(one.answered)["2xx"] for one in world.of(2))
    assert answered == found.answers["factory v2"]


def test_a_guest_that_dies_under_load_loses_nothing_that_can_be_asked_again(world: LocalWorld) -> None:
    world.up(1, 3)
    world.provider.shift({1: 100})
    with load(world.url, 50) as found:
        time.sleep(0.3)
        world.kill("web-g1-02")
        time.sleep(0.7)
    assert found.lost == []
    assert found.sent > 30
    assert [one.id for one in world.of(1)] == ["web-g1-01", "web-g1-03"]


def test_sessions_of_a_drained_generation_go_on(world: LocalWorld) -> None:
    world.up(1, 1)
    world.up(2, 1)
    world.provider.shift({1: 100})
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(world.get("/slow?1.0")))
    slow.start()
    world.wait(lambda: any(one.sessions for one in world.of(1)))
    world.provider.shift({2: 100})
    assert world.get() == (200, "factory v2")
    assert [one.sessions for one in world.of(1)] == [1]
    slow.join()
    assert answers == [(200, "factory v1")]
    world.wait(lambda: not any(one.sessions for one in world.of(1)))


def test_a_session_that_does_not_end_keeps_its_guest_for_a_moment_only(world: LocalWorld) -> None:
    world.up(1, 1)
    world.up(2, 1)
    world.provider.shift({1: 100})
    with load(f"{world.url}slow?15", 0.01) as found:
        world.wait(lambda: any(one.sessions for one in world.of(1)))
        world.provider.shift({2: 100})
        world.provider.retire(["web-g1-01"])
        assert world.of(1) == ()
        assert found.sent == 0, "it was still being answered"
        world.close()  # what HAProxy gave to the other generation, since asking twice does no harm, would take as long


def test_a_killed_haproxy_comes_back_with_the_same_servers_and_weights(world: LocalWorld) -> None:
    world.up(1, 2)
    world.up(2, 1)
    world.provider.shift({1: 90, 2: 10})
    world.kill(tags.FRONT)
    found = world.provider.observe()
    assert found.weights == {}
    assert len(found.instances) == 3
    assert tags.FRONT not in world.processes(), "to observe is to change nothing"
    world.provider.launch(world.generation(2), 1)
    world.wait(lambda: dict(world.provider.observe().weights) == {1: 90, 2: 10})
    assert world.get()[0] == 200


def test_a_haproxy_that_nothing_can_reach_is_replaced(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    before = world.processes()[tags.FRONT]
    (world.folder / "haproxy.sock").unlink()
    world.provider.shift({1: 100})
    assert world.processes()[tags.FRONT] != before
    assert world.get() == (200, "factory v1")


def test_a_haproxy_that_hangs_is_told_and_waited_for_only_a_while(
    world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    monkeypatch.setattr(running, "_ANSWERS_S", 0.2)
    os.kill(world.processes()[tags.FRONT], signal.SIGSTOP)
    with pytest.raises(ProviderError, match="HAProxy does not answer"):
        world.provider.observe()
    with pytest.raises(ProviderError, match="HAProxy does not answer"):
        world.provider.shift({1: 100})
    os.kill(world.processes()[tags.FRONT], signal.SIGCONT)
    assert dict(world.provider.observe().weights) == {1: 100}


def test_a_guest_that_hangs_is_seen_and_can_be_retired(world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up(1, 2)
    world.provider.shift({1: 100})
    for name, limit_s in (("_ASKED_S", 0.2), ("_ENDS_S", 1.0)):
        monkeypatch.setattr(guests, name, limit_s)
    os.kill(world.processes()["web-g1-01"], signal.SIGSTOP)
    (world.folder / "instances/web-g1-01/instance.json").unlink()  # its port must be asked for, and it does not answer
    assert [one.id for one in world.of(1)] == ["web-g1-01", "web-g1-02"]
    world.provider.retire(["web-g1-01"])
    assert [one.id for one in world.of(1)] == ["web-g1-02"]


def test_a_lost_configuration_is_made_again_from_what_runs(world: LocalWorld) -> None:
    world.up(1, 2)
    world.up(2, 1)
    world.provider.shift({1: 90, 2: 10})
    (world.folder / "haproxy.cfg").unlink()
    world.provider.launch(world.generation(2), 1)
    assert "weight" in (world.folder / "haproxy.cfg").read_text()
    assert dict(world.provider.observe().weights) == {1: 90, 2: 10}


def test_a_guest_whose_file_is_lost_is_found_by_what_runs(world: LocalWorld) -> None:
    generation = world.up(1, 2)
    before = world.provider.observe()
    (world.folder / "instances/web-g1-01/instance.json").unlink()
    shutil.rmtree(world.folder / "instances/web-g1-02")
    assert world.provider.observe() == before
    world.provider.launch(generation, 2)
    world.provider.shift({1: 100})
    assert len(world.of(1)) == 2
    world.provider.retire(["web-g1-01", "web-g1-02"])
    assert world.processes() == {}
    assert world.provider.observe() == Observation()


def test_a_file_that_is_about_another_process_is_not_believed(world: LocalWorld) -> None:
    world.up(1, 1)
    before = world.of(1)
    record = world.folder / "instances/web-g1-01/instance.json"
    record.write_text(record.read_text().replace('"boot": "', '"boot": "another').replace('"port": ', '"port": 1'))
    assert world.of(1) == before


def test_what_a_dead_guest_left_is_removed_and_its_name_used_again(world: LocalWorld) -> None:
    generation = world.up(1, 2)
    world.provider.shift({1: 100})
    world.kill("web-g1-01")
    (world.folder / "instances/web-g1-07").mkdir()
    (world.folder / "instances/notes").mkdir()
    world.provider.launch(generation, 2)
    assert sorted(path.name for path in (world.folder / "instances").iterdir()) == ["notes", "web-g1-01", "web-g1-02"]
    world.wait_healthy(1, 2)
    assert "web-g1-07" not in (world.folder / "haproxy.cfg").read_text()


def test_a_guest_whose_kernel_panicked_is_gone_and_the_next_launch_ends_it(world: LocalWorld) -> None:
    generation = world.up(1, 2)
    pid = world.processes()["web-g1-01"]
    console = world.folder / "instances/web-g1-01/console.log"
    with console.open("a") as file:
        file.write("Kernel panic - not syncing: Attempted to kill init!\nCall Trace:\n")
    assert len(world.of(1)) == 2, "it has not said all yet"
    with console.open("a") as file:
        file.write("---[ end Kernel panic - not syncing: Attempted to kill init! ]---\n")
    assert [one.id for one in world.of(1)] == ["web-g1-02"]
    assert world.processes()["web-g1-01"] == pid, "to look changes nothing"
    world.provider.launch(generation, 2)
    assert proc.identity(pid) is None
    world.wait_healthy(1, 2)
    assert world.processes()["web-g1-01"] != pid


def test_who_takes_a_dead_guests_name_over_gets_no_traffic_before_it_is_given(world: LocalWorld) -> None:
    generation = world.generation(1, boot_s=1.5)
    world.provider.launch(generation, 2)
    world.wait_healthy(1, 2)
    world.provider.shift({1: 100})
    world.kill("web-g1-01")
    with load(world.url, 50) as found:
        world.provider.launch(generation, 2)
        world.provider.shift({1: 100})
        seen = world.provider.front.seen() or {}
        assert seen["web-g1-01"].weight == 0
        assert seen["web-g1-02"].weight > 0
        world.wait_healthy(1, 2)
        world.provider.shift({1: 100})
    assert found.lost == []
    assert len({one.weight for one in (world.provider.front.seen() or {}).values()}) == 1


def test_a_sick_guest_gets_no_traffic_and_is_back_by_itself(world: LocalWorld) -> None:
    world.up(1, 2)
    world.provider.shift({1: 100})
    sick = world.folder / "instances/web-g1-02/sick"
    sick.touch()
    world.wait_healthy(1, 1)
    world.provider.shift({1: 100})
    assert {world.get()[0] for _ in range(6)} == {200}
    sick.unlink()
    world.wait_healthy(1, 2)
    weights = [one.weight for one in (world.provider.front.seen() or {}).values()]
    assert len(weights) == 2
    assert all(weights)


def test_a_guest_that_does_not_start_is_told_and_leaves_nothing(world: LocalWorld) -> None:
    world.up(1, 1)
    world.provider.shift({1: 100})
    with pytest.raises(ProviderError, match="this disk is not for me"):
        world.provider.launch(world.generation(2, starts=False), 2)
    with pytest.raises(ProviderError):
        world.provider.launch(world.generation(2, starts=False), 2)
    assert [path.name for path in (world.folder / "instances").iterdir()] == ["web-g1-01"]
    assert dict(world.provider.observe().weights) == {1: 100}


def test_an_image_that_is_not_there_is_told(world: LocalWorld) -> None:
    generation = world.generation(1)
    Path(generation.image.references["local"]).unlink()
    with pytest.raises(ProviderError, match="not in the store"):
        world.provider.launch(generation, 1)
    assert world.processes().keys() <= {tags.FRONT}


def test_external_state_reaches_the_guest_and_no_file_or_command_line_keeps_it(world: LocalWorld) -> None:
    secret = world.root / "database"
    secret.parent.mkdir()
    secret.write_text("postgres://secret-0123456789")
    secret.chmod(0o600)
    fleet = dataclasses.replace(world.fleet, external=(External("database_url", str(secret)),))
    world = LocalWorld(world.root, fleet)
    world.up(1, 1)
    world.provider.shift({1: 100})
    status, said = world.get("/credentials")
    assert (status, said.partition("=")[0]) == (200, "io.systemd.credential.binary:database_url")
    assert said.partition("=")[2] == "cG9zdGdyZXM6Ly9zZWNyZXQtMDEyMzQ1Njc4OQ=="
    hidden = (b"secret-0123456789", b"cG9zdGdyZXM6")
    for pid in world.processes().values():
        told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not any(word in told for word in hidden)
    for path in world.folder.rglob("*"):
        assert not path.is_file() or not any(word in path.read_bytes() for word in hidden), path


def test_a_tcp_fleet_is_healthy_where_the_port_is_open_inside(world: LocalWorld) -> None:
    health = Health(tcp=80, successes=1, interval_s=0.1, timeout_s=0.5)
    world = LocalWorld(world.root, dataclasses.replace(world.fleet, health=health))
    world.up(1, 1)
    world.provider.shift({1: 100})
    assert world.get() == (200, "factory v1")
    world.provider.launch(world.generation(2, boot_s=3600), 1)
    assert [one.healthy for one in world.of(2)] == [False]
    with pytest.raises(ProviderError, match="no healthy"):
        world.provider.shift({2: 100})


def test_guests_that_hang_hold_a_tcp_fleet_up_as_long_as_one_and_its_way_back_not_at_all(world: LocalWorld) -> None:
    health = Health(tcp=80, successes=1, interval_s=0.5, timeout_s=2.0)
    world = LocalWorld(world.root, dataclasses.replace(world.fleet, health=health, max=8))
    world.up(1, 2)
    world.provider.shift({1: 100})
    hung = world.generation(2, boot_s=3600, closes_s=3600)
    world.provider.launch(hung, 1)
    one_s = seconds(world.provider.observe)
    world.provider.launch(hung, 5)
    assert seconds(world.provider.observe) < 2 * one_s
    assert seconds(lambda: world.provider.shift({1: 100})) < one_s
    assert [one.healthy for one in world.of(2)] == [False] * 5
    assert [one.healthy for one in world.of(1)] == [True] * 2


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def test_what_serves_belongs_to_no_run_and_dies_with_nobody(world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(proc.MARKER, str(world.root / "runs/one"))
    world.up(1, 1)
    for pid in world.processes().values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert fields[3] == str(pid), "it leads a session"
        assert proc.mark(pid, proc.MARKER) is None
    assert (world.folder.stat().st_mode & 0o777, (world.folder / "haproxy.sock").stat().st_mode & 0o777) == (
        0o700, 0o600,
    )  # fmt: skip


def test_a_long_folder_is_no_problem(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path / ("deep" * 20) / ("deep" * 20))
    world.root.mkdir(parents=True)
    try:
        world.up(1, 1)
        world.provider.shift({1: 100})
        assert world.get() == (200, "factory v1")
    finally:
        world.close()


def test_faults_name_who_has_the_address(world: LocalWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = LocalWorld(world.root, fleet_of("web", port))
        (fault,) = other.provider.faults("amd64")
        assert f"127.0.0.1:{port}" in fault
        assert "process" in fault
        with pytest.raises(ProviderError, match="(?s)HAProxy ended.*cannot bind"):
            other.provider.launch(other.generation(1), 1)
    other.provider.launch(other.generation(1), 1)
    assert other.provider.faults("amd64") == [], "our own HAProxy is not in our way"


def test_two_fleets_do_not_share_an_address_without_a_word(world: LocalWorld) -> None:
    world.up(1, 1)
    other = LocalWorld(world.root, dataclasses.replace(world.fleet, name="other"))
    with pytest.raises(ProviderError, match="HAProxy ended"):
        other.provider.launch(other.generation(1), 1)


def test_faults_name_each_thing_in_the_way(world: LocalWorld) -> None:
    world.root.mkdir()
    big = world.root / "big"
    big.write_bytes(bytes(40000))
    big.chmod(0o600)
    fleet = dataclasses.replace(
        fleet_of("web", free_port()),
        listen="nonsense",
        memory_mib=1 << 30,
        health=Health(http=HttpProbe(80, "/a b")),
        external=(
            External("ssh.authorized_keys.root", str(big)),
            External("none"),
        ),
    )
    found = "\n".join(LocalWorld(world.root, fleet).provider.faults("arm64"))
    for part in (
        "arm64", "no HOST:PORT", "MiB are free", "letters, digits", "KiB",
        "has no path", "health.http.path",
    ):  # fmt: skip
        assert part in found, part


def test_faults_name_a_missing_program(world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    found = proc.find

    def find(tool: str) -> str:
        return found("no-such-" + tool) if tool == "haproxy" else found(tool)

    monkeypatch.setattr(proc, "find", find)
    (fault,) = world.provider.faults("amd64")
    assert "apt-get install" in fault
