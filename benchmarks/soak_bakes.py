"""kill -9 of bakes at random moments, for as long as asked, and what leaks: a part of `make soak`.

Works on a copy of a factory. Each round starts a bake, waits for a random moment (some time into a random stage, or
the very instant a process is being started), and kills the factory's own process, nothing else. What is left is counted
twice: a few seconds later, and after the next run has cleaned up. At the end one bake must finish, and lock,
catalog and store must agree.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import leftovers
from benchmarks.leftovers import KINDS, Leftovers, Watch
from benchmarks.scratch import FACTORY
from factory import files, lockfile, namespace
from factory.bake import journal
from factory.catalog import lookups
from factory.catalog.database import Catalog
from factory.digest import Digest, is_digest
from factory.errors import FactoryError
from factory.model import Layout
from factory.store import Store

GRACE_S = 5
SECRET = "SOAK_SECRET"
_STAGE_GUESS_S = {"base": 3, "provision": 25, "seal": 4, "disk": 20, "verify": 60, "record": 0.1, "start": 2}
_IMAGES = """
[image.soak-vm]
base = "image:base"
builder = "qemu"
playbook = "playbooks/web.yml"
vars = { server_name = "soak" }
checks = []
state = ["/var/log", "/var/lib/nginx"]
ports = [22, 80]
secrets = ["SOAK_SECRET"]
"""


@dataclass(frozen=True)
class Plan:
    """One kind of bake to kill: its arguments, the stages it goes through, how often it is chosen."""

    arguments: tuple[str, ...]
    stages: tuple[str, ...]
    weight: int
    bootstrap: bool = False  # the base's tree is taken out of the cache first


PLANS = (
    Plan(("bake", "web"), ("start", "provision", "seal", "disk", "verify", "record"), 6),
    Plan(("bake", "web", "--force"), ("start", "base", "provision", "seal", "disk"), 3),
    Plan(("bake", "base", "--force"), ("start", "base", "base", "provision", "disk"), 2, bootstrap=True),
    Plan(("bake", "soak-vm", "--force"), ("base", "provision", "provision", "provision"), 3),
    Plan(("bake", "web", "soak-vm", "--force", "-j", "2"), ("provision", "disk"), 1),
)


@dataclass
class Tally:
    """What happened at kills in one stage."""

    kills: int = 0
    before: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    after: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))


class Soak:
    """The rounds, and what they found."""

    def __init__(self, layout: Layout, seed: int) -> None:
        self._layout = layout
        self._random = random.Random(seed)
        self._secret = secrets.token_hex(16)
        self._temporary = layout.root.parent / "tmp"
        self._temporary.mkdir()
        self._watch = Watch(layout, self._temporary, self._secret)
        self._reported: set[leftovers.File] = set()
        self._left: tuple[str, Leftovers] | None = None  # of the last kill: its stage, what it left
        self._process: subprocess.Popen[bytes] | None = None
        self._changes = 0
        self._web_is_done = True  # so that a bake of it without --force has nothing to do
        self.tallies: dict[str, Tally] = {}
        self.finished = 0
        self.notes: list[str] = []  # what outlived a kill, for the next run to end
        self.findings: list[str] = []  # what is wrong

    def run(self, minutes: float) -> None:
        """Kill bakes for so long, then let one finish."""
        _add_images(self._layout)
        ends_at = time.monotonic() + minutes * 60
        try:
            while time.monotonic() < ends_at:
                self._round()
            self._finish()
        finally:
            if self._process is not None:
                self._process.kill()

    def _round(self) -> None:
        plan = self._random.choices(PLANS, [plan.weight for plan in PLANS])[0]
        if plan.bootstrap and self._random.random() < 0.7:
            namespace.remove(self._layout.cache / "trees")
        if "--force" not in plan.arguments and (self._web_is_done or self._random.random() < 0.3):
            self._change_a_task()
        known = set(self._layout.runs.glob("*/"))
        process = self._start(*plan.arguments)
        stage, at_spawn = self._random.choice(plan.stages), self._random.random() < 0.35
        self._await_stage(process, known, stage)
        until = time.monotonic() + self._random.uniform(0, _STAGE_GUESS_S[stage])
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        if at_spawn:
            self._await_spawn(process)
        ended_by_itself = process.poll() is not None
        process.kill()
        process.wait()
        if ended_by_itself and plan.arguments[1] == "web":
            self._web_is_done = True
        run = self._new_run(known)
        if self._left is not None and run is not None and _has_cleaned_up(run):
            self._settle()
        if ended_by_itself:
            self._count_end(plan, process.returncode, run)
        else:
            self._count_kill(plan, _stage_of(run) + (" (at a spawn)" if at_spawn else ""))

    def _count_kill(self, plan: Plan, stage: str) -> None:
        left = self._look()
        tally = self.tallies.setdefault(stage, Tally())
        tally.kills += 1
        for kind, count in left.counts().items():
            tally.before[kind] += count
        self._left = (stage, left)
        said = ", ".join(f"{count} {kind}" for kind, count in left.counts().items() if count) or "nothing"
        self._say(plan, f"killed in {stage:<24} left: {said}")
        for pid, command in left.processes.items():
            self._note(f"killed in {stage}, `{' '.join(plan.arguments)}` left process {pid}: {command}")
        for problem in left.torn:
            self._find(f"killed in {stage}: {problem}")

    def _count_end(self, plan: Plan, code: int, run: Path | None) -> None:
        """A bake that ended before it was killed: it must have ended well, and left nothing."""
        self.finished += 1
        self._say(plan, f"ended with exit code {code}")
        if code != 0:
            self._find(f"`{' '.join(plan.arguments)}` ended by itself with exit code {code}")
        if run is not None:
            left = self._look()
            self._forget(left)
            for path, _ in sorted(left.private | left.files):
                self._find(f"left by a bake that ended by itself: {path}")

    def _look(self) -> Leftovers:
        """What is left, without what was reported already."""
        left = self._watch.look(GRACE_S)
        return replace(left, private=left.private - self._reported, files=left.files - self._reported)

    def _forget(self, left: Leftovers) -> None:
        self._reported |= left.private | left.files

    def _say(self, plan: Plan, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {' '.join(plan.arguments):<32} {text}", flush=True)

    def _settle(self) -> None:
        """What the last kill left and is still there is a leak."""
        assert self._left is not None
        stage, before = self._left
        still = before.still_in(self._look())
        self._forget(still)
        for kind, count in still.counts().items():
            self.tallies[stage].after[kind] += count
        for path, _ in sorted(still.private | still.files):
            self._find(f"a kill in {stage} left for good: {path}")
        for pid, command in still.processes.items():
            self._find(f"a kill in {stage} left running for good: {pid} {command}")
            os.kill(pid, signal.SIGKILL)
        for place in sorted(still.mounts | still.loops):
            self._find(f"a kill in {stage} left for good: {place}")
        self._left = None

    def _note(self, text: str) -> None:
        self.notes.append(text)
        print(f"          . {text}", flush=True)

    def _find(self, text: str) -> None:
        self.findings.append(text)
        print(f"          ! {text}", flush=True)

    # --- starting a bake, and waiting for the moment

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TMPDIR": str(self._temporary), SECRET: self._secret}
        with (self._layout.root.parent / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*FACTORY, "-C", str(self._layout.root), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        return self._process

    def _await_stage(self, process: subprocess.Popen[bytes], known: set[Path], stage: str) -> None:
        while stage != "start" and process.poll() is None:
            run = self._new_run(known)
            if run and any(e["event"] == "stage" and e["stage"] == stage for e in journal.read_events(run)):
                return
            time.sleep(0.01)

    def _await_spawn(self, process: subprocess.Popen[bytes]) -> None:
        """Come back the instant the factory has one more child: it has hardly begun to run."""
        before = _children(process.pid)
        until = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < until and not _children(process.pid) - before:
            before &= _children(process.pid)

    def _new_run(self, known: set[Path]) -> Path | None:
        fresh = sorted(set(self._layout.runs.glob("*/")) - known)
        return fresh[-1] if fresh else None

    def _change_a_task(self) -> None:
        """Change an input of `web`, so that it is baked without --force, and goes on where it was killed."""
        self._changes += 1
        self._web_is_done = False
        path = self._layout.root / "playbooks/roles/web/templates/index.html.j2"
        text = path.read_text().partition("<!-- soak")[0]
        files.replace(path, f"{text}<!-- soak {self._changes} -->\n".encode())

    # --- the end

    def _finish(self) -> None:
        print("letting a bake finish", flush=True)
        process = self._start("bake", "-j", "2")
        if process.wait() != 0:
            self._find(f"the last bake ended with exit code {process.returncode}")
        if self._left is not None:
            self._settle()
        left = self._look()
        for kind, count in left.counts().items():
            if count:
                self._find(f"after the last bake: {count} {kind}: {list(getattr(left, kind))[:5]}")
        for problem in disagreements(self._layout):
            self._find(problem)
        again = self._start("bake", "--dry-run").wait()
        if again != 0:
            self._find(f"a dry run after the last bake ended with exit code {again}")


def disagreements(layout: Layout) -> list[str]:
    """Where lock, catalog and store do not agree."""
    found: list[str] = []
    lock, store = lockfile.read(layout.lock), Store(layout.store)
    with Catalog.open(layout.catalog) as catalog:
        remembered = lookups.relock(catalog)
    for key, image in lock.images.items():
        known = remembered.images.get(key)
        if known is not None and known != image:
            found.append(f"{image.name}: images.lock says {image.digest}, the catalog {known.digest}")
        for native in (*filter(is_digest, image.artifacts.values()), image.tree):
            try:
                store.verify(Digest(native))
            except FactoryError as error:
                found.append(f"{image.name}: {error.message}")
    return found


def table(tallies: Mapping[str, Tally]) -> str:
    """Kills by stage, with what was left before and after the next run."""
    head = f"{'killed in':<26}{'kills':>6}  " + "".join(f"{kind:>14}" for kind in KINDS)
    lines = [head]
    for stage, tally in sorted(tallies.items()):
        cells = "".join(f"{f'{tally.before[kind]} / {tally.after[kind]}':>14}" for kind in KINDS)
        lines.append(f"{stage:<26}{tally.kills:>6}  {cells}")
    return "\n".join([*lines, "", "left a few seconds after the kill / still there after the next run"])


def soak(layout: Layout, minutes: float, seed: int) -> bool:
    """Soak a copy of a factory for so long, and print what was found; whether nothing was left for good or torn."""
    leftovers.adopt_orphans()
    soaked = Soak(layout, seed)
    soaked.run(minutes)
    leaks = sum(sum(tally.after.values()) + tally.before["torn"] for tally in soaked.tallies.values())
    print("\n" + table(soaked.tallies))
    print(f"\nbakes that ended by themselves: {soaked.finished}; processes that outlived a kill: {len(soaked.notes)}")
    for note in soaked.notes:
        print(f"  . {note}")
    print(f"leaks: {leaks}; findings: {len(soaked.findings)}")
    for finding in soaked.findings:
        print(f"  ! {finding}")
    return not (leaks or soaked.findings)


def _add_images(layout: Layout) -> None:
    """An image that a booted guest is provisioned for; and a secret for `web`, to be looked for in what is left."""
    text = layout.spec.read_text()
    layout.spec.write_text(text.replace("[image.web]\n", f'[image.web]\nsecrets = ["{SECRET}"]\n') + _IMAGES)


def _has_cleaned_up(run: Path) -> bool:
    """Whether a run got so far that it has cleaned up after those before it."""
    return any(event["event"] == "decided" for event in journal.read_events(run))


def _stage_of(run: Path | None) -> str:
    """The stage a run was in at last."""
    stages = [event["stage"] for event in journal.read_events(run) if event["event"] == "stage"] if run else []
    return stages[-1] if stages else "start"


def _children(pid: int) -> set[str]:
    """The direct children of every thread of a process."""
    found: set[str] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.update(path.read_text().split())
        except OSError:
            continue
    return found
