"""A local fleet of real guests: launched, shifted, retired under load; whoever does it is killed between the calls."""

from __future__ import annotations

import base64
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_images

CONTRACT = Path(__file__).parent.parent / "contract"
sys.path.insert(0, str(CONTRACT))

from local_fleets import fleet_of, free_port, get  # noqa: E402

from benchmarks.load import load  # noqa: E402
from factory import proc  # noqa: E402
from factory.digest import Digest  # noqa: E402
from factory.model import Layout  # noqa: E402
from factory.rollout.model import External, FleetSpec, Generation, Health, HttpProbe, Image, Observation  # noqa: E402
from factory.rollout.providers.local import connect, folder_of, tags  # noqa: E402
from factory.rollout.providers.local.guests import is_ours, tagged  # noqa: E402
from factory.rollout.providers.local.provider import LocalProvider  # noqa: E402

pytestmark = [pytest.mark.boots, pytest.mark.usefixtures("alone")]

BOOTS_S = 300
PER_S = 20


@dataclasses.dataclass(frozen=True)
class Fleet:
    """A fleet of guests in a folder."""

    root: Path
    spec: FleetSpec
    images: dict[str, Image]

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def provider(self) -> LocalProvider:
        return connect(self.layout, self.spec)

    def generation(self, number: int) -> Generation:
        name = ("tiny-one", "tiny-two")[(number - 1) % 2]
        return Generation(number, self.images[name], f"rollout-{number}")

    def wait_healthy(self, number: int, count: int) -> None:
        ends_at = time.monotonic() + BOOTS_S
        while sum(one.healthy is True for one in self.provider.observe().of(number)) < count:
            assert time.monotonic() < ends_at, self.provider.observe()
            time.sleep(0.2)

    def killed(self, call: str) -> None:
        """Make a call in a process of its own that is killed as soon as it has returned."""
        script = (
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(CONTRACT)]!r}\n"
            "import test_fleet_guests as t, tiny_images, pathlib\n"
            f"fleet = t.made(pathlib.Path({str(self.root)!r}), {str(self.spec.listen)!r}, t.read({str(self.root)!r}))\n"
            f"provider = fleet.provider\n{call}\nprint('done', flush=True)\nimport signal; signal.pause()\n"
        )
        argv, env = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": str(tiny_images.PROJECT)}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        for pid, tag in tagged(folder_of(self.layout, self.spec.name)):
            proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]


def read(root: str) -> dict[str, Image]:
    """The images that the test's fixture left in a fleet's folder for the processes that are killed."""
    rows = [line.split(" ") for line in (Path(root) / "images").read_text().splitlines()]
    return {name: Image(name, "amd64", Digest(digest), {"local": path}) for name, digest, path in rows}


def made(root: Path, listen: str, images: dict[str, Image]) -> Fleet:
    health = Health(http=HttpProbe(80, "/", 200, "IMAGE_VERSION"), successes=2, interval_s=0.5, timeout_s=5)
    external = (External("database_url", str(root / "database_url")),)
    port = int(listen.rpartition(":")[2])
    return Fleet(root, fleet_of("web", port, health=health, memory_mib=512, external=external), images)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    images = tiny_images.bake("tiny-one", "tiny-two")
    rows = [f"{name} {image.digest} {image.references['local']}\n" for name, image in images.items()]
    (tmp_path / "images").write_text("".join(rows))
    secret = tmp_path / "database_url"
    secret.touch(0o600)
    secret.write_text("postgres://outside")
    fleet = made(tmp_path, f"127.0.0.1:{free_port()}", images)
    yield fleet
    fleet.close()


def test_real_guests_are_replaced_under_load_and_nothing_is_lost(fleet: Fleet) -> None:
    provider = fleet.provider
    listen = str(fleet.spec.listen)
    assert provider.faults("amd64") == []
    fleet.killed("provider.launch(fleet.generation(1), 2)")
    fleet.wait_healthy(1, 2)
    fleet.killed("provider.shift({1: 100})")
    assert "tiny one" in get(listen, "/", 10)[1]
    assert get(listen, "/external/database_url", 10) == (200, "postgres://outside")
    with load(f"http://{listen}", PER_S) as found:
        fleet.killed("provider.launch(fleet.generation(2), 2)")
        fleet.wait_healthy(2, 2)
        for new in (10, 50, 100):
            fleet.killed(f"provider.shift({{1: {100 - new}, 2: {new}}})")
            weights = {1: 100 - new, 2: new}
            assert dict(provider.observe().weights) == {number: weight for number, weight in weights.items() if weight}
            time.sleep(2)
        began = time.monotonic()
        provider.shift({1: 100})
        back_s = time.monotonic() - began
        time.sleep(2)
        provider.shift({2: 100})
        while any(one.sessions for one in provider.observe().of(1)):
            time.sleep(0.1)
        fleet.killed("provider.retire([one.id for one in provider.observe().of(1)])")
        time.sleep(2)
    sys.stderr.write(f"\n{found.sent} requests, {len(found.lost)} lost; back in {back_s:.3f} s\n")
    assert found.lost == []
    assert found.sent > 100
    assert {body.splitlines()[0] for body in found.answers} == {"tiny one", "tiny two"}
    assert [one.generation for one in provider.observe().instances] == [2, 2]
    provider.retire([one.id for one in provider.observe().instances])
    assert provider.observe() == Observation()
    assert tagged(folder_of(fleet.layout, "web")) == []


def assert_secret_is_nowhere_else(fleet: Fleet) -> None:
    """The external state is in the guest, and on no command line, in no environment and in no file of the fleet."""
    hidden = (b"postgres://outside", base64.b64encode(b"postgres://outside"))
    folder = folder_of(fleet.layout, "web")
    processes = {tag.id: pid for pid, tag in tagged(folder)}
    assert len(processes) >= 2
    for name, pid in processes.items():
        told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert (b"type=11,path=" in told) == (name != tags.FRONT)
        assert not any(word in told for word in hidden), name
    for path in folder.rglob("*"):
        assert not path.is_file() or not any(word in path.read_bytes() for word in hidden), path
    assert folder.stat().st_mode & 0o077 == 0


def test_a_killed_haproxy_and_a_killed_guest_are_made_good(fleet: Fleet) -> None:
    provider = fleet.provider
    provider.launch(fleet.generation(1), 2)
    fleet.wait_healthy(1, 2)
    provider.shift({1: 100})
    assert get(str(fleet.spec.listen), "/external/database_url", 10) == (200, "postgres://outside")
    assert_secret_is_nowhere_else(fleet)
    pids = {tag.id: pid for pid, tag in tagged(folder_of(fleet.layout, "web"))}
    os.kill(pids[tags.FRONT], signal.SIGKILL)
    while proc.identity(pids[tags.FRONT]) is not None:
        time.sleep(0.01)
    assert provider.observe().weights == {}
    provider.shift({1: 100})
    assert dict(provider.observe().weights) == {1: 100}
    with load(f"http://{fleet.spec.listen}", PER_S) as found:
        time.sleep(1)
        os.kill(pids["web-g1-01"], signal.SIGKILL)
        time.sleep(3)
        assert [one.id for one in provider.observe().instances] == ["web-g1-02"]
        provider.launch(fleet.generation(1), 2)
        fleet.wait_healthy(1, 2)
        provider.shift({1: 100})
        time.sleep(1)
    sys.stderr.write(f"\n{found.sent} requests, {len(found.lost)} lost when a guest was killed\n")
    assert found.lost == []
    assert found.sent > 50
