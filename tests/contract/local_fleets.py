"""A local fleet whose guests are `fake_qemu`, behind the real HAProxy: what tests of the provider are made of."""

from __future__ import annotations

import dataclasses
import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fake_qemu

from factory import proc
from factory.digest import of_file
from factory.rollout.model import FleetSpec, Generation, Health, HttpProbe, Image, Instance
from factory.rollout.providers.local import tags
from factory.rollout.providers.local.guests import Guests, is_ours, tagged
from factory.rollout.providers.local.provider import LocalProvider, connect_in

DEADLINE_S = 60


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def fleet_of(name: str, port: int, **other: object) -> FleetSpec:
    health = Health(http=HttpProbe(80, "/", 200, "factory"), successes=1, interval_s=0.1, timeout_s=2.0)
    spec = FleetSpec(name, "local", "web", None, 2, 1, 4, "canary", health, listen=f"127.0.0.1:{port}", memory_mib=64)
    return dataclasses.replace(spec, **other)  # type: ignore[arg-type]


@dataclass
class LocalWorld:
    """A folder with fleets in it."""

    root: Path
    fleet: FleetSpec = field(default_factory=lambda: fleet_of("web", free_port()))

    @property
    def folder(self) -> Path:
        return self.root / "fleets" / self.fleet.name

    @property
    def url(self) -> str:
        return f"http://{self.fleet.listen}/"

    @property
    def provider(self) -> LocalProvider:
        """One that knows nothing, as after a crash."""
        return connect_in(self.folder, self.fleet, Guests(self.folder, self.fleet, lambda: "tcg", fake_qemu.command))

    def image(self, version: str = "one", **behaviour: object) -> Image:
        self.root.mkdir(exist_ok=True)
        path = fake_qemu.disk(self.root / f"{version}.disk", **{"body": f"factory {version}", **behaviour})
        return Image("web", "amd64", of_file(path), {"local": str(path)})

    def sick_image(self) -> Image:
        """Of an image that never becomes healthy."""
        return self.image("sick", status=500)

    def generation(self, number: int, version: str | None = None, **behaviour: object) -> Generation:
        return Generation(number, self.image(version or f"v{number}", **behaviour), f"rollout-{number}")

    def beside(self, name: str) -> LocalWorld:
        """Another fleet of the same factory."""
        return LocalWorld(self.root, fleet_of(name, free_port()))

    def _told(self) -> str:
        """All that there is, as the provider sees it and as HAProxy does."""
        config = self.folder / "haproxy.cfg"
        text = config.read_text() if config.exists() else "no configuration"
        return f"{self.provider.observe()}\n{self.provider.front.seen()}\n{text}"

    def wait(self, until: Callable[[], bool]) -> None:
        """Let time pass until something is so."""
        ends_at = time.monotonic() + DEADLINE_S
        while not until():
            assert time.monotonic() < ends_at, f"it never came to be: {self._told()}"
            time.sleep(0.02)

    def up(self, number: int, count: int) -> Generation:
        """A generation of which so many are healthy."""
        generation = self.generation(number)
        self.provider.launch(generation, count)
        self.wait_healthy(number, count)
        return generation

    def wait_healthy(self, number: int, count: int) -> None:
        self.wait(lambda: sum(one.healthy is True for one in self.provider.observe().of(number)) == count)

    def of(self, number: int) -> tuple[Instance, ...]:
        return self.provider.observe().of(number)

    def left(self) -> set[int]:
        """The generations of which there is anything."""
        names = [*self.processes(), *(path.name for path in (self.folder / "instances").glob("*"))]
        found = (tags.generation_of(self.fleet.name, name) for name in names)
        return {number for number in found if number is not None}

    def processes(self) -> dict[str, int]:
        return {tag.id: pid for pid, tag in tagged(self.folder)}

    def kill(self, name: str) -> None:
        """kill -9 of one process of the fleet (an instance's id, or `front`)."""
        for pid, tag in tagged(self.folder):
            if tag.id == name:
                assert proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]

    def close(self) -> None:
        """End all of it, this fleet's and others' in the same root."""
        for pid, text in list(proc.marked(tags.VARIABLE)):
            tag = tags.parse(text)
            if tag is not None and Path(tag.folder).is_relative_to(self.root):
                proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]

    def get(self, path: str = "/", timeout_s: float = 10) -> tuple[int, str]:
        return get(str(self.fleet.listen), path, timeout_s)


def get(address: str, path: str, timeout_s: float) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
