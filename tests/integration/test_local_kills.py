"""kill -9 of whoever changes a local fleet, at every boundary of a call: the next call ends where it would have ended.

The caller is a process of its own. It stops at its n-th boundary (before or after something is done that others can
see: a file replaced, a process started, HAProxy or QEMU told something) and is killed there from outside, for each n.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CONTRACT = Path(__file__).parent.parent / "contract"
sys.path.insert(0, str(CONTRACT))

from local_fleets import LocalWorld, free_port  # noqa: E402

from factory import files, proc  # noqa: E402
from factory.rollout.model import External  # noqa: E402
from factory.rollout.providers.local import tags  # noqa: E402
from factory.rollout.providers.local.guests import tagged  # noqa: E402
from factory.vm import qmp  # noqa: E402

CALLS: dict[str, Callable[[LocalWorld], None]] = {
    "launch": lambda world: world.provider.launch(world.generation(2), 2),
    "shift": lambda world: world.provider.shift({1: 50, 2: 50}),
    "retire": lambda world: world.provider.retire(["web-g1-01"]),
    "replace": lambda world: of_another_health(world).provider.shift({1: 50, 2: 50}),
}
LEAST = {"launch": 20, "shift": 5, "retire": 5, "replace": 10}
"""How many boundaries a call has at least: what shows that they are met at all."""


class Boundaries:
    """Stops at the n-th boundary, or the first of that name, having said so, until it is killed."""

    def __init__(self, stop_at: str) -> None:
        self._left, self._stop_at = int(stop_at) if stop_at.isdigit() else 0, stop_at

    def around(self, owner: object, name: str) -> None:
        does = getattr(owner, name)

        def wrapped(*arguments: object, **named: object) -> object:
            self._pass(f"before {name}")
            done = does(*arguments, **named)
            self._pass(f"after {name}")
            return done

        setattr(owner, name, wrapped)

    def _pass(self, where: str) -> None:
        self._left -= 1
        if self._left == 0 or where == self._stop_at:
            sys.stdout.write(f"{where}\n")
            sys.stdout.flush()
            signal.pause()


def caller(root: Path, address: str, call: str, stop_at: str) -> None:
    """What the killed process does."""
    boundaries = Boundaries(stop_at)
    parts = ((files, "replace"), (proc, "run"), (proc, "detach"), (proc, "kill"), (proc, "tell"), (qmp, "connect"))
    for owner, name in parts:
        boundaries.around(owner, name)
    CALLS[call](world_in(root, address))
    sys.stdout.write("done\n")


def world_in(root: Path, address: str) -> LocalWorld:
    world = LocalWorld(root)
    object.__setattr__(world.fleet, "listen", address)
    object.__setattr__(world.fleet, "external", (External("secret", str(secret_of(root))),))
    return world


def secret_of(root: Path) -> Path:
    return root.with_name("secret")


def of_another_health(world: LocalWorld) -> LocalWorld:
    """The same fleet, with a check that HAProxy must be replaced for."""
    health = dataclasses.replace(world.fleet.health, successes=2)
    return dataclasses.replace(world, fleet=dataclasses.replace(world.fleet, health=health))


def call_and_kill(world: LocalWorld, call: str, stop_at: int | str) -> str:
    """Where the caller was killed, or `done`."""
    argv = [sys.executable, __file__, str(world.root), str(world.fleet.listen), call, str(stop_at)]
    paths = [str(CONTRACT), str(CONTRACT.parents[1])]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    return said


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LocalWorld]:
    made = world_in(tmp_path / "world", f"127.0.0.1:{free_port()}")
    secret_of(made.root).touch(mode=0o600)
    secret_of(made.root).write_text("hidden")
    yield made
    made.close()


def settled(world: LocalWorld) -> tuple[object, ...]:
    """All that can be seen of a fleet, but for what differs from run to run."""
    found = world.provider.observe()
    folders = sorted(path.name for path in (world.folder / "instances").iterdir())
    processes = sorted(world.processes())
    healthy = [(one.id, one.digest, one.state, one.healthy) for one in found.instances]
    return healthy, dict(found.weights), folders, processes


def before(world: LocalWorld, call: str) -> None:
    """The fleet as it is when the call is made."""
    world.up(1, 2)
    world.provider.shift({1: 100})
    if call != "launch":
        world.up(2, 2)
    if call == "retire":
        world.provider.shift({2: 100})


def after(world: LocalWorld, call: str) -> tuple[object, ...]:
    """What the call comes to: made once more, by somebody who knows nothing."""
    CALLS[call](world)
    world.wait(lambda: sum(tag.id == tags.FRONT for _, tag in tagged(world.folder)) == 1)
    world.wait_healthy(2, 2)
    world.provider.observe()
    return settled(world)


@pytest.mark.parametrize("call", CALLS)
def test_kill_at_every_boundary_converges(world: LocalWorld, call: str) -> None:
    before(world, call)
    expected = after(world, call)
    passed = 0
    while True:
        world.provider.retire(list(world.processes()))
        assert world.processes() == {}
        before(world, call)
        where = call_and_kill(world, call, passed + 1)
        if where == "done":
            break
        passed += 1
        assert world.get()[0] == 200, f"killed {where} ({passed}): it serves no more"
        assert after(world, call) == expected, f"killed {where} ({passed})"
    assert passed >= LEAST[call], passed


def test_kill_of_a_launch_leaves_no_secret_when_the_fleet_is_next_changed(world: LocalWorld) -> None:
    before(world, "launch")
    assert call_and_kill(world, "launch", "after detach") == "after detach"
    assert list(world.folder.rglob("secrets/*")) != []
    world.wait_healthy(1, 2)
    world.wait(lambda: [one.state for one in world.of(2)] == ["running"])
    world.provider.shift({1: 100})
    assert list(world.folder.rglob("secrets")) == []


def test_kill_of_haproxy_between_any_two_calls_converges(world: LocalWorld) -> None:
    before(world, "shift")
    for weights in ({1: 90, 2: 10}, {1: 50, 2: 50}, {2: 100}):
        world.kill(tags.FRONT)
        world.provider.shift(weights)
        assert dict(world.provider.observe().weights) == weights
        assert world.get()[0] == 200
    world.kill(tags.FRONT)
    world.provider.retire(["web-g1-01", "web-g1-02"])
    assert dict(world.provider.observe().weights) == {2: 100}


if __name__ == "__main__":
    caller(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
