"""A signed factory with a fleet `web` that runs on the simulator, and `factory` as it is typed in it.

`release` bakes a `web` of other content and promotes it, as a bake and two approvers would leave it: from then on it
is what the fleet should run. Tickets of releases before it are in the catalog only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import signed_factory
import simulated_local
from loopback import Scripted, scripted
from signed_factory import SignedFactory, key_of
from simulated_provider import Behaviour, World

from factory import cli
from factory.catalog import attestations, rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout.model import Status
from factory.trust import dsse, promotions
from factory.trust.signers.file import save
from factory.verify.built_in import STATE

IMAGES = """
[base.debian-12]
kind = "debootstrap"
suite = "bookworm"
arch = "amd64"
"""
IMAGE = """
[image.{name}]
base = "{base}"
playbook = "playbooks/{name}.yml"
"""
FLEET = """
[fleet.web]
provider = "local"
image = "web"
channel = "prod"
size = 3
min = 3
max = 7
strategy = "{strategy}"
{steps}
listen = "127.0.0.1:8099"
bake_s = {bake_s}
[fleet.web.health]
tcp = 80
successes = 1
interval_s = 0.1
timeout_s = 0.5
deadline_s = {deadline_s}
"""
ANALYSIS = """
[fleet.web.analysis]
http_json = {{ url = "{url}", value = "error_rate" }}
success = "< 0.01"
count = 2
interval_s = 0.1
timeout_s = 5
"""
SOON_S = 60


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Process:
    """`factory` in a process of its own, what it says in files."""

    pid: int
    folder: Path
    code: int | None = None

    @classmethod
    def fork(cls, folder: Path, arguments: list[str]) -> Process:
        folder.mkdir()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
            try:
                for number, name in ((1, "out"), (2, "err")):
                    file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                    os.dup2(file, number)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
                cli.main(arguments)
            except SystemExit as done:
                sys.stdout.flush()
                os._exit(int(done.code or 0))
            finally:
                os._exit(99)
        return cls(pid, folder)

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text() if (self.folder / "err").exists() else ""

    def says(self, text: str) -> None:
        """Wait until it has said something."""
        ends = time.monotonic() + SOON_S
        while text not in self.err:
            assert time.monotonic() < ends, self.err
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.code is None:
            self.send(signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _has_ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def ended(self, code: int) -> str:
        """Wait for its end with this code; what it said."""
        ends = time.monotonic() + SOON_S
        while not self._has_ended():
            assert time.monotonic() < ends, f"it goes on: {self.err}"
            time.sleep(0.02)
        assert self.code == code, f"{self.code}: {self.err}"
        return self.err


@dataclass
class Shop:
    """The factory. `run` runs a command in this process, `start` in one of its own."""

    signed: SignedFactory
    capsys: pytest.CaptureFixture[str]
    releases: list[Digest] = field(default_factory=list)
    started: list[Process] = field(default_factory=list)

    # --- commands

    def run(self, *arguments: str, code: int = 0) -> Result:
        self.capsys.readouterr()
        got = cli.run(["-C", str(self.signed.root), *arguments])
        captured = self.capsys.readouterr()
        assert got == code, f"{got}: {captured.err}"
        assert "Traceback" not in captured.err
        return Result(got, captured.out, captured.err)

    def rollout(self, *arguments: str, code: int = 0) -> Result:
        return self.run("rollout", *arguments, code=code)

    def start(self, *arguments: str) -> Process:
        """Forked: to import everything anew would take longer than most rollouts do."""
        folder = self.signed.root / ".factory" / f"process-{len(self.started)}"
        made = Process.fork(folder, ["-C", str(self.signed.root), *arguments])
        self.started.append(made)
        return made

    def end_all(self) -> None:
        for process in self.started:
            process.kill()

    # --- what is to run

    def release(self, content: str, *, channel: str = "prod", **checks: str) -> Digest:
        """Another `web`, baked after the ones before it, and promoted."""
        signed, number = self.signed, len(self.releases)
        before = signed.promoted.get(channel, {}).get("web/amd64")
        made = signed.bake("web", "hardened", content=content)
        at = signed.baked_at + timedelta(minutes=number + 1)
        signed.attest("web", baked_at=at, checks={STATE: "passed", **checks})
        with Catalog.open(signed.layout.catalog) as catalog:
            attestations.index(catalog, signed.tickets["web"].envelopes)
        last = promotions.read(dsse.parse(before)) if before else None
        signed.promote(
            signed.promotion(
                channel=channel, baked_at=at, number=number + 2, replaces=last and last.digest,
                previous=last and last.payload_digest, made_at=signed.now - timedelta(minutes=20 - number),
            ),
            "alice", "bob", version=number + 2,
        )  # fmt: skip
        self.releases.append(made.digest)
        return made.digest

    def fleet(self, strategy: str = "canary", *, pause_s: float = 0.0, url: str | None = None, **more: Any) -> None:
        """Write fleets.toml. `url`: where the analysis asks."""
        analyse = "true" if url else "false"
        steps = f"steps = [{{ weight = 34, pause_s = {pause_s}, analyse = {analyse} }}, {{ weight = 67 }}]"
        steps = {"canary": steps, "rolling": "surge = 1"}.get(strategy, "")
        values = {"strategy": strategy, "steps": steps, "bake_s": 0, "deadline_s": 5, **more}
        text = FLEET.format(**values) + (ANALYSIS.format(url=url) if url else "")
        (self.signed.root / "fleets.toml").write_text(text)

    def behave(self, digest: Digest, **behaviour: Any) -> None:
        made = Behaviour(**{"pending_s": 0.05, "healthy_after_s": 0.1, **behaviour})
        simulated_local.behave(self.signed.layout, digest, made)

    # --- what runs

    @property
    def world(self) -> World:
        path = self.signed.layout.state / "world-web.json"
        return World(**json.loads(path.read_text())) if path.exists() else World()

    @property
    def running(self) -> set[Digest]:
        """What serves, and what else there is."""
        seen = self.rollout("status", "web", "--json").json
        return {Digest(one["digest"]) for one in seen["instances"] if one["state"] != "stopping"}

    @property
    def status(self) -> Status:
        with Catalog.read(self.signed.layout.catalog) as catalog:
            known = rollouts.last(catalog, "web")
            assert known is not None
            return fleets.status_of(known)

    def until(self, holds: Callable[[Status], bool], what: str = "that") -> Status:
        """Wait for the rollout that begins or goes on to come to something."""
        ends = time.monotonic() + SOON_S
        while time.monotonic() < ends:
            status = self.status
            if holds(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come: {self.status}")


def copy(shop: Shop, folder: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    """The same factory at another place."""
    root = shop.signed.root.parent
    shutil.copytree(root, folder, dirs_exist_ok=True)
    signed = replace(
        shop.signed, layout=Layout(folder / "factory"), own_policy=folder / shop.signed.own_policy.relative_to(root),
        images=dict(shop.signed.images), tickets=dict(shop.signed.tickets),
        promoted={channel: dict(events) for channel, events in shop.signed.promoted.items()},
    )  # fmt: skip
    return Shop(signed, capsys, list(shop.releases))


def build(folder: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    """A factory with one release, and a canary fleet that does not run yet."""
    signed = signed_factory.build(folder)
    images = (("base", "debian-12"), ("hardened", "image:base"), ("web", "image:hardened"))
    text = IMAGES + "".join(IMAGE.format(name=name, base=base) for name, base in images)
    signed.layout.spec.write_text(text)
    (signed.root / "playbooks").mkdir()
    for name, _ in images:
        (signed.root / "playbooks" / f"{name}.yml").write_text("- hosts: all\n")
    save(signed.layout.keys / "root.pem", key_of("root")._private, None)
    made = Shop(signed, capsys)
    made.release("first")
    made.fleet()
    return made


@contextmanager
def numbers(value: object = 0.0) -> Iterator[Numbers]:
    """A source of numbers on this machine."""
    with scripted(*Numbers.answer(value)) as server:
        yield Numbers(server)


@dataclass
class Numbers:
    """What it answers may be changed."""

    server: Scripted

    @property
    def url(self) -> str:
        return self.server.url + "/"

    def say(self, value: object) -> None:
        self.server.script = self.answer(value)

    def hang(self) -> None:
        self.server.script = (30.0,)

    @staticmethod
    def answer(value: object) -> tuple[bytes]:
        body = json.dumps({"error_rate": value}).encode()
        return (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),)
