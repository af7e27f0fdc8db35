"""Recording a bake, killed by SIGKILL at moments all over it, and by several processes at once."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from factory import lockfile
from factory.catalog import lookups
from factory.catalog.clock import now
from factory.catalog.contents import InputFile
from factory.catalog.database import Catalog
from factory.catalog.pending import pending
from factory.catalog.record import BakeRecord, record_bake, recover
from factory.digest import of_bytes
from factory.model import Layout, Lock, LockedBase, LockedImage, Package
from factory.store import Store


def bake(layout: Layout, name: str, content: str) -> BakeRecord:
    salt = f"{name}{content}".encode()
    digest, key, tree = (of_bytes(kind + salt) for kind in (b"raw", b"key", b"tree"))
    return BakeRecord(
        LockedImage(
            name, "amd64", digest, key, of_bytes(b"base"), tree,
            packages=(Package("nginx", "1", "amd64", of_bytes(b"deb")),),
            artifacts={"qcow2": Store(layout.store).put_bytes(salt)},
        ),
        base_kind="debootstrap",
        builder="rootfs",
        run="r",
        baked_at=now(),
        base=LockedBase("debian-12", "amd64", of_bytes(b"base")),
        inputs=(InputFile("playbook", "web.yml", of_bytes(salt)),),
    )  # fmt: skip


def in_child(work: Callable[[], None]) -> int:
    """The process id of a child that does some work and ends with 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def killed_at(moment: int, work: Callable[[], None]) -> Callable[[], None]:
    """`work`, its process killed when it enters or leaves a Python or C function for the n-th time."""

    def run() -> None:
        left = moment

        def count(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        work()
        sys.setprofile(None)

    return run


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def record(layout: Layout, *records: BakeRecord) -> None:
    with Catalog.open(layout.catalog) as catalog:
        for made in records:
            record_bake(catalog, layout, made)


def assert_sound(layout: Layout) -> Lock:
    """Lock and catalog say the same, and nothing is left open or lying about; the lock."""
    lock = lockfile.read(layout.lock)
    with Catalog.open(layout.catalog) as catalog:
        assert lookups.relock(catalog) == lock
        assert catalog.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        for image in lock.images.values():
            assert len(lookups.input_files(catalog, image)) == 1
    assert not pending(layout.catalog)
    assert {path.name for path in layout.root.iterdir()} <= {".factory", "images.lock"}
    return lock


def test_record_killed_at_any_moment_is_old_or_new_after_recovery(tmp_path: Path) -> None:
    def attempt(number: int, moment: int) -> tuple[int, bool, bool]:
        """(exit code, whether the old or the new entry held right after, whether the new one after recovery)."""
        layout = Layout(tmp_path / str(number))
        layout.root.mkdir()
        old, new = bake(layout, "web", "old"), bake(layout, "web", "new")
        record(layout, old)
        code = ended(in_child(killed_at(moment, lambda: record(layout, new))))
        either = [lockfile.with_entries(Lock(), made.entries) for made in (old, new)]
        whole = lockfile.read(layout.lock) in either
        with Catalog.open(layout.catalog) as catalog:
            recover(catalog, layout)
        lock = assert_sound(layout)
        record(layout, new)
        assert assert_sound(layout) == either[1]
        return code, whole and lock in either, lock == either[1]

    last = 1
    while attempt(-last, last)[0] == -signal.SIGKILL:
        last *= 2
    moments = range(1, last, max(1, last // 150))
    outcomes = [attempt(number, moment) for number, moment in enumerate(moments)]
    killed = [outcome for outcome in outcomes if outcome[0] == -signal.SIGKILL]
    assert all(sound for _, sound, _ in outcomes)
    assert len(killed) > 50
    assert {new for _, _, new in killed} == {True, False}


def test_first_record_killed_at_any_moment_can_be_done_again(tmp_path: Path) -> None:
    for number, moment in enumerate(range(1, 1200, 40)):
        layout = Layout(tmp_path / str(number))
        layout.root.mkdir()
        made = bake(layout, "web", "new")
        code = ended(in_child(killed_at(moment, partial(record, layout, made))))
        assert code in (0, -signal.SIGKILL)
        pending(layout.catalog)
        with Catalog.open(layout.catalog) as catalog:
            recover(catalog, layout)
        assert_sound(layout)
        record(layout, made)
        assert assert_sound(layout) == lockfile.with_entries(Lock(), made.entries)


def test_records_of_four_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    records = [[bake(layout, f"i{who}-{number}", "") for number in range(8)] for who in range(4)]
    children = [in_child(partial(record, layout, *mine)) for mine in records]
    assert [ended(child) for child in children] == [0] * 4
    assert set(assert_sound(layout).images) == {(made.image.name, "amd64") for mine in records for made in mine}


def test_records_of_four_processes_of_which_two_are_killed_stay_sound(tmp_path: Path) -> None:
    chance = random.Random(7)
    for round_ in range(6):
        layout = Layout(tmp_path / str(round_))
        layout.root.mkdir()
        records = [[bake(layout, f"i{who}-{number}", "") for number in range(4)] for who in range(4)]
        work: list[Callable[[], None]] = [partial(record, layout, *mine) for mine in records]
        work[:2] = [killed_at(chance.randrange(100, 4000), one) for one in work[:2]]
        codes = [ended(child) for child in [in_child(one) for one in work]]
        assert codes[2:] == [0, 0]
        with Catalog.open(layout.catalog) as catalog:
            recover(catalog, layout)
        assert {made.image.name for mine in records[2:] for made in mine} <= {
            name for name, _ in assert_sound(layout).images
        }
