"""A fleet of real guests under load, by the command line: brought up, hurt, healed, scaled, revoked, ended."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_images
from local_fleets import free_port
from workshop import Done, Workshop

from benchmarks.load import load
from factory.model import Layout
from factory.rollout.providers.local import folder_of
from factory.rollout.providers.local.guests import tagged

pytestmark = [pytest.mark.boots, pytest.mark.usefixtures("alone")]

FLEET = """\
[fleet.tiny]
provider = "local"
image = "tiny-one"
size = 2
min = 1
max = 4
strategy = "blue-green"
listen = "127.0.0.1:{port}"
memory_mib = 256

[fleet.tiny.health]
http = {{ path = "/", port = 80, body = "IMAGE_VERSION" }}
successes = 2
interval_s = 0.5
"""


@dataclass(frozen=True)
class Shop:
    """A factory with the fleet `tiny`, which `port` leads to."""

    workshop: Workshop
    port: int

    def run(self, *arguments: str, code: int = 0) -> Done:
        done = self.workshop.factory(*arguments)
        assert done.code == code, done.out + done.err
        return done

    @property
    def processes(self) -> dict[str, int]:
        """Instance, or `front`, -> process."""
        return {tag.id: pid for pid, tag in tagged(folder_of(Layout(self.workshop.root), "tiny"))}

    def kill(self, name: str) -> None:
        os.kill(self.processes[name], signal.SIGKILL)
        while name in self.processes:
            time.sleep(0.01)

    def drift(self) -> dict[str, int]:
        """Kind -> how many; the exit code says whether there is any."""
        found: Any = self.workshop.factory("drift", "tiny", "--json")
        assert found.code == (5 if found.json["drift"] else 0), found.err
        return {one["kind"]: one["count"] for one in found.json["drift"]}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """The factory of the tiny images, in another folder: only store and cache are those of the original."""
    tiny_images.bake("tiny-one")
    original, root = tiny_images.CACHE / "tests/tiny", tmp_path / "factory"
    shutil.copytree(original, root, ignore=shutil.ignore_patterns("store", "cache", "runs", "fleets"))
    for name in ("store", "cache"):
        (root / ".factory" / name).symlink_to((original / ".factory" / name).resolve())
    made = Shop(Workshop(root), free_port())
    made.workshop.write("fleets.toml", FLEET.format(port=made.port))
    yield made
    made.workshop.factory("fleet", "destroy", "tiny", "--yes")


def test_fleet_of_guests_is_healed_scaled_and_ended_under_load(shop: Shop) -> None:
    assert shop.drift() == {"missing": 2}
    shop.run("rollout", "apply", "tiny")
    assert shop.drift() == {}
    with load(f"http://127.0.0.1:{shop.port}/") as found:
        time.sleep(1)
        shop.kill("tiny-g1-01")
        assert "1 missing" in shop.run("drift", "tiny", code=5).err
        in_flight = len(found.lost)
        healed = shop.run("drift", "tiny", "--heal", "--json").json
        assert (healed["drift"], healed["healed"]["launched"]) == ([], ["tiny-g1-01"])
        shop.run("fleet", "scale", "tiny", "3")
        assert set(shop.processes) == {"front", "tiny-g1-01", "tiny-g1-02", "tiny-g1-03"}
        shop.run("fleet", "scale", "tiny", "2")
        assert shop.drift() == {}
        shop.run("revoke", "tiny-one", "--reason", "CVE-2026-1")
        shop.kill("tiny-g1-02")
        assert shop.drift() == {"missing": 2, "revoked": 1}
        assert "CVE-2026-1" in shop.run("drift", "tiny", "--heal", code=6).err
        assert set(shop.processes) == {"front", "tiny-g1-01"}
        time.sleep(1)
    sys.stderr.write(
        f"\n{found.sent} requests, {in_flight} lost at the kill, {len(found.lost) - in_flight} from then on\n"
    )
    assert found.lost == []
    assert found.sent > 200
    shop.run("fleet", "destroy", "tiny", "--yes")
    assert shop.processes == {}
    assert shop.workshop.processes() == []
