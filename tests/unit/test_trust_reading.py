"""Reading files of others: only so much, only regular files, never through a link."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from factory.errors import TamperedError, TrustError
from factory.trust import reading

LIMIT = 1000


def read(path: Path, below: Path | None = None) -> bytes:
    return reading.read_file(path, "the thing", max_bytes=LIMIT, below=below)


def test_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    for size in (0, 1, LIMIT):
        (tmp_path / "a").write_bytes(b"x" * size)
        assert read(tmp_path / "a") == b"x" * size
        assert read(tmp_path / "a", tmp_path) == b"x" * size


def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(TamperedError, match="the thing is too large") as refused:
        read(tmp_path / "a")
    assert refused.value.where == str(tmp_path / "a")


def test_file_of_a_hundred_megabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(100 << 20)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(TamperedError, match="too large"):
        read(tmp_path / "a")


def test_file_larger_than_it_says_is_refused() -> None:
    """Files of /proc say that they are empty."""
    with pytest.raises(TamperedError, match="too large"):
        reading.read_file(Path("/proc/self/maps"), "the thing", max_bytes=100)


def test_file_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    for below in (None, tmp_path):
        for missing in ("a", "a/b"):
            with pytest.raises(FileNotFoundError):
                read(tmp_path / missing, below)


def test_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("link", "dangling", "loop"):
        with pytest.raises(TamperedError, match="is a link"):
            read(tmp_path / name)


def test_link_to_a_folder_is_refused_below_the_root_and_followed_above(tmp_path: Path) -> None:
    inner = tmp_path / "real" / "trust" / "channels"
    inner.mkdir(parents=True)
    (inner / "prod.dsse").write_bytes(b"x")
    (tmp_path / "home").symlink_to("real")
    assert read(tmp_path / "home/trust/channels/prod.dsse", tmp_path / "home") == b"x"
    (tmp_path / "real/other").symlink_to("trust")
    assert read(tmp_path / "real/other/channels/prod.dsse") == b"x"
    with pytest.raises(TamperedError, match="other is a link"):
        read(tmp_path / "real/other/channels/prod.dsse", tmp_path / "real")


def test_path_that_climbs_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "a").write_bytes(b"x")
    for path in (
        root / ".." / "a",
        tmp_path / "a",
        root / "b" / ".." / ".." / "a",
        root,
        Path("a"),
        Path("/etc/passwd"),
    ):
        with pytest.raises(TamperedError, match="lies outside"):
            read(path, root)


def test_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    for below in (None, tmp_path):
        with pytest.raises(TamperedError, match="cannot be read"):
            read(tmp_path / "a\x00b", below)


def test_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    for below in (None, tmp_path):
        with pytest.raises(TamperedError, match="cannot be read"):
            read(tmp_path / "a" / "b", below)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        for path in (tmp_path / "fifo", tmp_path / "folder", tmp_path / "s", Path("/dev/zero")):
            with pytest.raises(TamperedError, match=r"no regular file|cannot be read"):
                read(path)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"x" * 2000)
    (tmp_path / "a" / "link").symlink_to("b")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("a/b/c", "a/link/c", "a/b", "a/none/c", "a/b/none"):
        for below in (None, tmp_path):
            with pytest.raises((TamperedError, FileNotFoundError)):
                read(tmp_path / path, below)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_private_file_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0o600)
    assert reading.read_private_file(path, "the key", max_bytes=LIMIT) == b"x"
    path.chmod(0o400)
    assert reading.read_private_file(path, "the key", max_bytes=LIMIT) == b"x"
    path.chmod(0o620)
    with pytest.raises(TrustError, match="its mode is 0620") as refused:
        reading.read_private_file(path, "the key", max_bytes=LIMIT)
    assert refused.value.hint == f"chmod 600 {path}"
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(TrustError, match="belongs to another user"):
        reading.read_private_file(path, "the key", max_bytes=LIMIT)
