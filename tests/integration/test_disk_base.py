"""Disks as bases: fetched from files and servers that are not what they should be."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from factory import bases, digest, proc
from factory.apt.proxy import AptProxy
from factory.bases import BaseContext, PreparedBase
from factory.digest import Digest
from factory.errors import BaseError, SpecError
from factory.model import BaseSpec

Prepare = Callable[..., PreparedBase]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partitioned disk whose second partition is the root file system."""
    folder = tmp_path_factory.mktemp("disk")
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=small\n")
    (tree / "var/lib/dpkg/info").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_text(
        "Package: web\nStatus: install ok installed\nVersion: 1.0\nArchitecture: amd64\nSource: site (0.9)\n"
    )
    root, raw = folder / "root", folder / "disk.raw"
    proc.run(["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(tree), str(root), "16M"])
    with raw.open("wb") as file:
        file.truncate(24 << 20)
    proc.run(["sfdisk", "--quiet", str(raw)], stdin=b"label: gpt\nstart=2048, size=2048\nstart=4096, size=32768\n")
    with raw.open("r+b") as file:
        file.seek(4096 * 512)
        file.write(root.read_bytes())
    return raw


@pytest.fixture
def prepare(tmp_path: Path) -> Iterator[Prepare]:
    with AptProxy(tmp_path / "cache/apt") as proxy:
        context = BaseContext(tmp_path / "cache", tmp_path / "work", proxy)

        def call(source: Path | str, sha256: Digest) -> PreparedBase:
            path, url = (source, None) if isinstance(source, Path) else (None, source)
            return bases.prepare(BaseSpec("small", "disk", "amd64", path=path, url=url, sha256=sha256), None, context)

        yield call


def left(cache: Path) -> list[str]:
    """What is in the cache but for locks."""
    return sorted(p.name for p in (cache / "disks").iterdir() if not p.name.endswith(".lock"))


def test_raw_and_qcow2_are_the_same_base(disk: Path, tmp_path: Path, prepare: Prepare) -> None:
    qcow2 = tmp_path / "misnamed.raw"
    proc.run(["qemu-img", "convert", "-O", "qcow2", str(disk), str(qcow2)])
    one, two = prepare(disk, digest.of_file(disk)), prepare(f"file://{qcow2}", digest.of_file(qcow2))
    assert one.locked == two.locked
    assert one.locked.digest == digest.of_file(disk)
    [item] = one.installed
    assert (item.package.name, item.package.version, item.source, item.source_version) == ("web", "1.0", "site", "0.9")
    with tarfile.open(one.tree) as tar:
        assert "./etc/os-release" in tar.getnames()
    assert one.disk is not None
    assert one.disk.stat().st_mode & 0o222 == 0


def test_a_disk_whose_guest_was_not_shut_down_is_read_and_left_alone(
    disk: Path, tmp_path: Path, prepare: Prepare
) -> None:
    dirty = tmp_path / "dirty.raw"
    shutil.copy(disk, dirty)
    with dirty.open("r+b") as file:  # the flag needs_recovery of the superblock
        file.seek(4096 * 512 + 1024 + 0x60)
        flags = bytearray(file.read(4))
        flags[0] |= 0x04
        file.seek(-4, 1)
        file.write(flags)
    prepared = prepare(dirty, digest.of_file(dirty))
    assert prepared.locked.digest == digest.of_file(dirty)
    with tarfile.open(prepared.tree) as tar:
        assert "./etc/os-release" in tar.getnames()


def test_another_content_is_refused_and_nothing_is_left(disk: Path, tmp_path: Path, prepare: Prepare) -> None:
    wanted = Digest("sha256:" + "0" * 64)
    with pytest.raises(BaseError) as raised:
        prepare(disk, wanted)
    assert raised.value.exit_code == 3
    assert wanted in raised.value.message
    assert digest.of_file(disk) in raised.value.message
    assert left(tmp_path / "cache") == []
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path, disk: None, "No such file"),
        (lambda path, disk: path.mkdir(), "not a file"),
        (lambda path, disk: path.symlink_to(disk), "symbolic link"),
        (lambda path, disk: path.symlink_to(path), "symbolic link"),
    ],
    ids=["missing", "folder", "link", "loop"],
)
def test_a_path_that_is_no_file(
    make: Callable[[Path, Path], None], says: str, disk: Path, tmp_path: Path, prepare: Prepare
) -> None:
    path = tmp_path / "named"
    make(path, disk)
    with pytest.raises(BaseError, match=says) as raised:
        prepare(path, digest.of_file(disk))
    assert str(path) in raised.value.message


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(gzip.compress(bytes(10_000))), "gzip"),
        (lambda path: proc.run(["qemu-img", "create", "-q", "-f", "vmdk", str(path), "8M"]), "VMDK"),
        (lambda path: path.write_bytes(bytes(4 << 20)), "no ext4 root file system"),
        (lambda path: path.write_bytes(b""), "no ext4 root file system"),
        (lambda path: path.write_bytes(b"QFI\xfb" + bytes(2)), "qemu-img failed"),
        (
            lambda path: proc.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", str(path), "1M"]
            ),
            "upper layer",
        ),
    ],
    ids=["gzip", "vmdk", "zeros", "empty", "cut", "backed"],
)
def test_a_file_that_is_no_disk_to_start_from(
    make: Callable[[Path], object], says: str, tmp_path: Path, prepare: Prepare
) -> None:
    path = tmp_path / "disk"
    make(path)
    with pytest.raises(BaseError, match=says):
        prepare(path, digest.of_file(path))
    assert list((tmp_path / "cache/trees").glob("*")) == []


class Server:
    """Serves one content; the first `breaks` answers end half-way."""

    def __init__(self, content: bytes, breaks: int, *, ranges: bool) -> None:
        self.content, self.breaks, self.ranges = content, breaks, ranges
        self.starts: list[int] = []

    def __enter__(self) -> Server:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Range", "bytes=0-")
                start = int(given.removeprefix("bytes=").rstrip("-")) if outer.ranges else 0
                outer.starts.append(start)
                data = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if len(outer.starts) <= outer.breaks else data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/disk"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_gone_on_with(disk: Path, tmp_path: Path, prepare: Prepare, ranges: bool) -> None:
    content = disk.read_bytes()
    with Server(content, 1, ranges=ranges) as server:
        with pytest.raises(BaseError, match="broke off"):
            prepare(server.url, digest.of_file(disk))
        prepared = prepare(server.url, digest.of_file(disk))
        assert server.starts == [0, len(content) // 2 if ranges else 0]
    again = prepare(server.url, digest.of_file(disk))  # the server is gone
    assert again.cached
    assert again.locked == prepared.locked
    assert left(tmp_path / "cache") == [digest.hex_of(digest.of_file(disk))]


def test_no_network_and_no_cache(disk: Path, prepare: Prepare) -> None:
    with Server(b"", 0, ranges=True) as server:
        url = server.url
    with pytest.raises(BaseError, match="not cached and cannot be fetched") as raised:
        prepare(url, digest.of_file(disk))
    assert raised.value.exit_code == 3


def test_another_kind_of_url_is_refused(disk: Path, prepare: Prepare) -> None:
    with pytest.raises(BaseError, match="cannot fetch"):
        prepare("ftp://127.0.0.1/disk", digest.of_file(disk))


def test_a_disk_without_a_digest_is_refused(disk: Path) -> None:
    with pytest.raises(SpecError, match="sha256"):
        bases.recipe(BaseSpec("small", "disk", "amd64", path=disk))
