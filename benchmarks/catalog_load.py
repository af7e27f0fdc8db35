"""Many processes at one catalog: writers that record bakes as a bake does, readers that ask, and SIGKILL if wanted.

    python -m benchmarks.catalog_load [--seconds 60] [--writers 8] [--readers 4] [--kill] [--folder DIR] [--seed N]

A writer notes each bake in a file of its own once the catalog has taken it: at the end every one of these must be
there, whole, and `factory catalog check` must find nothing. A reader holds one state of the catalog while it asks, and
what it reads there must fit together. Exit 1 for any failure, lost row or problem.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from factory.catalog import attestations, audit, chain, check, contents, events, finding, images, lineage
from factory.catalog.contents import InputFile, InstalledPackage, Recorded
from factory.catalog.database import Catalog
from factory.digest import Digest, of_bytes
from factory.model import LockedImage, Package
from factory.trust import revocations
from factory.trust.revocations import Revocation
from factory.trust.signers import file as key_files

PACKAGES = 100
_ALL = range(PACKAGES)
MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Load:
    """What came of it. `writes`: bakes that were recorded, each in five transactions."""

    seconds: float
    writers: int
    readers: int
    writes: int = 0
    reads: int = 0
    kills: int = 0
    slowest_write_s: float = 0.0
    events: int = 0
    lost: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, was lost, or is wrong."""
        return not (self.lost or self.failures or self.problems) and self.writes > 0 and self.reads > 0


def sha(text: str) -> Digest:
    """A digest to tell things apart by."""
    return of_bytes(text.encode())


def record(catalog: Catalog, run: str) -> None:
    """One bake as a bake records it: run, image with its packages, checks, something signed, the end of the run."""
    group = hash(run) % 7
    packages = [
        InstalledPackage(f"package-{one}", f"1.{group}", "amd64", f"source-{one}", "1") for one in range(PACKAGES)
    ]
    image = LockedImage(
        "web", "amd64", sha(run), sha(f"key {run}"), sha("base"), sha(f"tree {run}"),
        packages=(Package("package-1", f"1.{group}", "amd64", sha("deb")),),
        inputs={"playbook": sha(run)}, artifacts={"qcow2": sha(f"qcow2 {run}")},
    )  # fmt: skip
    events.begin_run(catalog, run, "bake")
    made = Recorded(
        image, "debootstrap", "debian-12", "rootfs", run, "baked", datetime.now(UTC).isoformat(), {"group": group},
        tuple(packages), (InputFile("playbook", "web.yml", sha(run)),),
    )  # fmt: skip
    with catalog.writing() as database:
        contents.put_bake(database.conn, made)
    events.add_checks(catalog, run, ("web", "amd64"), [events.Check(f"test_{one}", "passed", 0.1) for one in range(20)])
    gone = Revocation(sha(run), "web", "load", at=MADE_AT, made_at=MADE_AT, number=1)
    signer = key_files.signer(key_files.generate())
    attestations.index(catalog, [revocations.make(gone, signer)], [signer.public])
    events.end_run(catalog, run, 0)


def write(path: Path, noted: Path, until: float) -> None:
    """Record bakes until then. Notes each: its run, and how long it took."""
    with Catalog.open(path) as catalog, noted.open("a") as notes:
        number = 0
        while time.time() < until:
            run, began = f"{os.getpid()}-{number}", time.monotonic()
            record(catalog, run)
            notes.write(f"{run} {time.monotonic() - began:.4f}\n")
            notes.flush()
            number += 1


def read(path: Path, noted: Path, until: float) -> None:
    """Ask until then. Notes each round."""
    with noted.open("a") as notes:
        while time.time() < until:
            with Catalog.read(path) as catalog, catalog.reading() as connection:
                count = connection.execute("SELECT count(*) FROM bakes").fetchone()[0]
                told = connection.execute("SELECT count(*) FROM events WHERE record IS NOT NULL").fetchone()[0]
                assert count == told, f"{count} bakes, and events tell of {told}"
                assert chain.head(connection).length == connection.execute("SELECT count(*) FROM events").fetchone()[0]
                listed = list(images.listed(catalog, images.Wanted(), 20))
                if listed:
                    image = finding.one(catalog, listed[-1].image.digest)
                    assert [one.image.role for one in lineage.ancestors(catalog, image.id)] == ["base"]
                    assert image.package_set is not None
                    assert len(contents.members(connection, image.package_set)) == PACKAGES
            notes.write("read\n")
            notes.flush()


def _in_child(folder: Path, work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            (folder / f"failed-{os.getpid()}").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return child


def run(folder: Path, load: Load, *, kill: bool = False, seed: int = 0) -> Load:
    """Put the load on a new catalog in `folder`; what came of it."""
    path = folder / "catalog.db"
    Catalog.open(path).close()
    until = time.time() + load.seconds
    chosen = random.Random(seed)

    def writer() -> int:
        return _in_child(folder, lambda: write(path, folder / f"written-{os.getpid()}", until))

    writers = [writer() for _ in range(load.writers)]
    readers = [
        _in_child(folder, lambda: read(path, folder / f"read-{os.getpid()}", until)) for _ in range(load.readers)
    ]
    while kill and time.time() < until - 0.5:
        time.sleep(chosen.uniform(0.02, 0.3))
        at = chosen.randrange(len(writers))
        os.kill(writers[at], signal.SIGKILL)
        os.waitpid(writers[at], 0)
        load.kills += 1
        writers[at] = writer()
    for child in (*writers, *readers):
        os.waitpid(child, 0)
    return _judged(folder, path, load)


def _judged(folder: Path, path: Path, load: Load) -> Load:
    load.failures = [failed.read_text() for failed in sorted(folder.glob("failed-*"))]
    load.reads = sum(len(notes.read_text().splitlines()) for notes in folder.glob("read-*"))
    notes = [line.split() for written in folder.glob("written-*") for line in written.read_text().splitlines()]
    load.writes = len(notes)
    load.slowest_write_s = max((float(took) for _, took in notes), default=0.0)
    with Catalog.read(path) as catalog:
        whole = {
            row["run"]
            for row in catalog.query(
                "SELECT bakes.run FROM bakes JOIN runs ON runs.id = bakes.run JOIN run_ends ON run_ends.run = bakes.run"
                " WHERE (SELECT count(*) FROM checks WHERE checks.run = bakes.run) = 20"
            )
        }
        revoked = {bytes(row["digest"]) for row in catalog.query("SELECT digest FROM revocations")}
        load.lost = [run for run, _ in notes if run not in whole or bytes.fromhex(sha(run)[7:]) not in revoked]
        load.problems = [
            str(one) for one in check.problems(catalog.connection, path, lambda: audit.logs(catalog.connection))
        ]
        load.events = chain.head(catalog.connection).length
    return load


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.catalog_load")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--kill", action="store_true", help="SIGKILL writers at random moments")
    parser.add_argument("--folder", type=Path, help="where the catalog is made, and kept")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="factory-load-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = run(folder, Load(asked.seconds, asked.writers, asked.readers), kill=asked.kill, seed=asked.seed)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps({**asdict(done), "ok": done.ok}, indent=2) + "\n")
    sys.exit(0 if done.ok else 1)


if __name__ == "__main__":
    main()
