from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from factory.digest import Digest, of_bytes
from factory.errors import StoreError
from factory.store import Store

DATA = b"an artifact\n" * 1000
DIGEST = of_bytes(DATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_put_moves_the_file_to_its_digest_read_only(tmp_path: Path, store: Store) -> None:
    source = tmp_path / "disk.qcow2"
    source.write_bytes(DATA)
    inode = source.stat().st_ino
    assert store.put(source) == DIGEST
    assert not source.exists()
    assert store.path(DIGEST) == tmp_path / "store/sha256" / DIGEST[7:]
    assert store.path(DIGEST).read_bytes() == DATA
    assert stat.S_IMODE(store.path(DIGEST).stat().st_mode) == 0o444
    assert store.path(DIGEST).stat().st_ino == inode
    assert store.size_bytes(DIGEST) == len(DATA)
    assert files_below(tmp_path) == [f"store/sha256/{DIGEST[7:]}"]


def test_put_from_another_file_system_copies_with_holes(tmp_path: Path, store: Store) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to copy from")
    source = shm / f"factory-test-{os.getpid()}"
    try:
        with source.open("wb") as file:
            file.write(b"head")
            file.truncate(32 << 20)
        digest = store.put(source)
        assert not source.exists()
    finally:
        source.unlink(missing_ok=True)
    stored = store.path(digest).stat()
    assert stored.st_size == 32 << 20
    assert stored.st_blocks * 512 < 4 << 20
    assert store.verify(digest) == store.path(digest)
    assert len(files_below(tmp_path)) == 1


def test_put_bytes_twice_is_one_file(tmp_path: Path, store: Store) -> None:
    assert store.put_bytes(DATA) == store.put_bytes(DATA) == DIGEST
    assert len(files_below(tmp_path)) == 1


def test_put_of_good_bytes_heals_a_damaged_file(store: Store) -> None:
    store.put_bytes(DATA)
    store.path(DIGEST).chmod(0o644)
    store.path(DIGEST).write_bytes(b"rot")
    with pytest.raises(StoreError, match="is damaged"):
        store.verify(DIGEST)
    store.put_bytes(DATA)
    store.verify(DIGEST)


@pytest.mark.parametrize("kind", ["link", "folder", "missing", "pipe"])
def test_put_of_what_is_no_regular_file_is_refused(tmp_path: Path, store: Store, kind: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.write_bytes(DATA)
    if kind == "link":
        source.symlink_to(target)
    elif kind == "folder":
        source.mkdir()
    elif kind == "pipe":
        os.mkfifo(source)
    with pytest.raises(StoreError):
        store.put(source)
    assert target.read_bytes() == DATA
    assert not store.has(DIGEST)


@pytest.mark.parametrize(
    "name", ["", "sha256:", "../../etc/passwd", "sha256:../x", "SHA256:" + "a" * 64, DIGEST + "\n"]
)
def test_path_of_what_is_no_digest_is_refused(store: Store, name: str) -> None:
    for ask in (store.path, store.has, store.remove, store.verify):
        with pytest.raises(StoreError, match="not a digest"):
            ask(name)


def test_has_does_not_follow_a_link(tmp_path: Path, store: Store) -> None:
    store.put_bytes(b"other")
    (tmp_path / "outside").write_bytes(DATA)
    store.path(DIGEST).symlink_to(tmp_path / "outside")
    assert not store.has(DIGEST)
    with pytest.raises(StoreError):
        store.verify(DIGEST)
    store.put_bytes(DATA)
    assert not store.path(DIGEST).is_symlink()
    assert store.has(DIGEST)


def test_remove_takes_it_away_and_again_is_fine(store: Store) -> None:
    store.put_bytes(DATA)
    store.remove(DIGEST)
    store.remove(DIGEST)
    assert not store.has(DIGEST)


def test_receiving_the_wrong_bytes_keeps_nothing(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreError, match="refused and dropped"), store.receiving(DIGEST) as file:  # noqa: PT012
        assert file is not None
        file.write(b"tampered")
    assert not store.has(DIGEST)
    assert files_below(tmp_path) == []


def test_receiving_goes_on_where_it_broke_off(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.receiving(DIGEST) as file:  # noqa: PT012
        assert file is not None
        file.write(DATA[:5000])
        raise KeyboardInterrupt
    with store.receiving(DIGEST) as file:
        assert file is not None
        assert file.tell() == 5000
        file.write(DATA[5000:])
    assert store.verify(DIGEST).read_bytes() == DATA
    with store.receiving(DIGEST) as file:
        assert file is None


def test_receiving_by_two_at_once_lets_one_do_it(store: Store) -> None:
    began, received = threading.Event(), []

    def second() -> None:
        began.set()
        with store.receiving(DIGEST) as file:
            received.append(file)

    thread = threading.Thread(target=second)
    with store.receiving(DIGEST) as file:
        assert file is not None
        thread.start()
        began.wait()
        time.sleep(0.05)
        assert received == []
        file.write(DATA)
    thread.join()
    assert received == [None]
    store.verify(DIGEST)


def test_tidy_removes_what_the_dead_left_and_nothing_in_use(tmp_path: Path, store: Store) -> None:
    store.put_bytes(DATA)
    incoming = tmp_path / "store/incoming"
    old = time.time() - 30 * 24 * 3600
    (incoming / "put-dead").write_bytes(b"x")
    (incoming / "fresh.part").write_bytes(b"x")
    (incoming / "old.part").write_bytes(b"x")
    os.utime(incoming / "old.part", (old, old))
    other = Digest("sha256:" + "0" * 64)
    with pytest.raises(StoreError), store.receiving(other):  # noqa: PT012
        os.utime(incoming / f"{other[7:]}.part", (old, old))
        assert [path.name for path in store.tidy()] == ["old.part", "put-dead"]
    assert store.has(DIGEST)
    assert (incoming / "fresh.part").exists()
