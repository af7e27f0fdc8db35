"""Sealing, disks and formats with the real tools, on a small awkward tree (disk_tree.py)."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import disk_tree
import pytest

from factory import digest, namespace, proc
from factory.digest import Digest
from factory.disk import formats, manifest, rootdisk, seal, work
from factory.disk.ext4 import FileSystem
from factory.disk.image import MIB, DiskPlan
from factory.disk.manifest import Entry
from factory.errors import DiskError
from factory.verify import boot_image

KEY = digest.of_bytes(b"a bake key")
STARTED = disk_tree.EPOCH + 1000
FACTS = seal.SealFacts("web", KEY, STARTED, ("ssh-ed25519 AAAAbake",))
SIZE_MIB = 256


@dataclass(frozen=True)
class Baked:
    """A sealed tree, its disk and what read it."""

    tree: Path
    sealed: work.SealedTree
    raw: Path
    digest: Digest

    @property
    def entries(self) -> list[Entry]:
        return manifest.loads(self.sealed.manifest.read_bytes())


def make_tree(tree: Path, *words: str) -> None:
    script = str(Path(disk_tree.__file__))
    proc.run(namespace.command([sys.executable, script, str(tree), *words]))


def plan(epoch: int, size_mib: int = SIZE_MIB) -> DiskPlan:
    return DiskPlan("web", "amd64", KEY, size_mib, epoch)


def bake(tree: Path, out: Path) -> Baked:
    out.mkdir(parents=True)
    sealed = work.seal_tree(tree, out, FACTS)
    raw = out / "disk.raw"
    work.build_disk(tree, sealed.manifest, plan(sealed.epoch), raw)
    return Baked(tree, sealed, raw, formats.raw_digest(raw, "raw"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("disk")
    yield path
    namespace.remove(path)


@pytest.fixture(scope="module")
def baked(folder: Path) -> Baked:
    make_tree(folder / "tree", "forward")
    return bake(folder / "tree", folder / "out")


@pytest.fixture(scope="module")
def qcow2(baked: Baked) -> Path:
    stored = baked.raw.with_name("stored.qcow2")
    formats.convert(baked.raw, "qcow2", stored)
    return stored


def part(raw: Path, number: int, out: Path) -> Path:
    """One partition as a file of its own."""
    found = rootdisk.partitions(raw)[number - 1]
    blocks = ["bs=1M", f"skip={found.offset // MIB}", f"count={found.size // MIB}", "conv=sparse"]
    proc.run(["dd", f"if={raw}", f"of={out}", *blocks])
    return out


def test_disk_is_the_same_bytes_whatever_the_order_and_file_system(folder: Path) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("there is no tmpfs to write to")
    memory = Path(tempfile.mkdtemp(dir=shared))
    try:
        make_tree(folder / "one", "forward", "plain")
        make_tree(memory / "two", "backward", "plain")
        one, two = bake(folder / "one", folder / "out1"), bake(memory / "two", folder / "out2")
        assert one.sealed.tree_digest == two.sealed.tree_digest
        assert one.sealed.epoch == two.sealed.epoch == disk_tree.EPOCH
        assert one.digest == two.digest
        stored = [bake.raw.with_name("stored.qcow2") for bake in (one, two)]
        for bake_, path in zip((one, two), stored, strict=True):
            formats.convert(bake_.raw, "qcow2", path)
        assert digest.of_file(stored[0]) == digest.of_file(stored[1])
    finally:
        namespace.remove(memory)


def test_disk_of_another_bake_key_has_other_identifiers(baked: Baked, tmp_path: Path) -> None:
    other = replace(plan(baked.sealed.epoch), bake_key=digest.of_bytes(b"another"))
    work.build_disk(baked.tree, baked.sealed.manifest, other, tmp_path / "other.raw")
    dumps = [proc.run(["sfdisk", "--dump", str(raw)]).text for raw in (baked.raw, tmp_path / "other.raw")]
    uuids = [{word for word in dump.replace(",", "").split() if word.startswith("uuid=")} for dump in dumps]
    assert len(uuids[0]) == 2
    assert not uuids[0] & uuids[1]


def test_disk_is_exactly_as_large_as_asked_and_sparse(baked: Baked) -> None:
    status = baked.raw.stat()
    assert status.st_size == SIZE_MIB * MIB
    assert status.st_blocks * 512 < 100 * MIB


def test_disk_is_clean_for_the_tools_that_know(baked: Baked, tmp_path: Path) -> None:
    assert "No errors detected" in proc.run(["sfdisk", "--verify", str(baked.raw)]).text
    esp, root = part(baked.raw, 1, tmp_path / "esp"), part(baked.raw, 2, tmp_path / "root")
    proc.run(["fsck.fat", "-n", str(esp)])
    assert proc.run(["e2fsck", "-fn", str(root)]).code == 0


def test_kernel_image_holds_the_newest_kernel_and_nothing_overlaps(baked: Baked, tmp_path: Path) -> None:
    image = tmp_path / "boot.efi"
    proc.run(["mcopy", "-i", f"{baked.raw}@@{MIB}", "::EFI/BOOT/BOOTX64.EFI", str(image)])
    content = image.read_bytes()
    assert boot_image.section(content, b".linux") == disk_tree.KERNEL
    assert (boot_image.section(content, b".cmdline") or b"").startswith(b"root=PARTUUID=")
    assert b"IMAGE_ID=web" in (boot_image.section(content, b".osrel") or b"")
    packed = boot_image.section(content, b".initrd") or b""
    assert b"#!/bin/sh" in boot_image.unpack(packed)
    spans = []
    for line in proc.run(["objdump", "-h", str(image)]).text.splitlines():
        words = line.split()
        if len(words) >= 6 and words[0].isdigit():
            spans.append((int(words[3], 16), int(words[3], 16) + int(words[2], 16)))
    assert len(spans) >= 8
    assert all(end <= start for (_, end), (start, _) in zip(sorted(spans), sorted(spans)[1:], strict=False))


def test_manifest_of_the_tree_is_the_one_read_out_of_the_stored_file(baked: Baked, qcow2: Path, tmp_path: Path) -> None:
    raw = tmp_path / "back.raw"
    formats.to_raw(qcow2, "qcow2", raw)
    with FileSystem(raw, rootdisk.find_root(raw)) as fs:
        found = rootdisk.entries(fs)
        assert manifest.compare(baked.entries, found) == []
        assert manifest.digest(found) == baked.sealed.tree_digest
        times = {path: inode.mtime for path, inode in rootdisk.walk(fs)}
    assert times["/"] == times["/opt"] == times["/etc/hostname"] == baked.sealed.epoch
    assert times["/usr/bin/su"] == disk_tree.EPOCH - 100


def test_tar_taken_out_of_the_disk_is_the_same_tree(baked: Baked, folder: Path) -> None:
    tar, tree = folder / "out.tar", folder / "taken"
    with FileSystem(baked.raw, rootdisk.find_root(baked.raw)) as fs, tar.open("wb") as out:
        rootdisk.write_tar(fs, out)
    work.unpack(tar, tree)
    assert manifest.compare(baked.entries, work.scan(tree)) == []


def test_sealed_tar_is_the_same_tree_again_and_sealing_it_changes_nothing(baked: Baked, folder: Path) -> None:
    work.unpack(baked.sealed.tar, folder / "again")
    (folder / "again.out").mkdir()
    again = work.seal_tree(folder / "again", folder / "again.out", replace(FACTS, started_at=STARTED + 9e6))
    assert (again.tree_digest, again.epoch) == (baked.sealed.tree_digest, baked.sealed.epoch)


def test_awkward_things_survive(baked: Baked) -> None:
    found = {entry.path: entry for entry in baked.entries}
    assert found["/usr/bin/su"].mode == 0o4755
    assert found["/var/tmp"].mode == 0o1777
    assert ("security.capability", disk_tree.CAPABILITY.hex()) in found["/usr/bin/bind"].xattrs
    assert ("system.posix_acl_access", disk_tree.ACL.hex()) in found["/usr/lib/acl"].xattrs
    assert dict(found["/usr/lib/user"].xattrs) == {"user.large": (b"v\0\n" * 300).hex(), "user.small": ""}
    linked = [path for path, entry in found.items() if entry.hardlink == "/opt/middle"]
    assert sorted(linked) == ["/opt/middle", "/usr/bin/a first", "/usr/bin/one name", "/z last"]
    assert {f"/opt/odd/{name}" for name in disk_tree.ODD_NAMES} <= found.keys()
    assert (found["/opt/fifo"].type, found["/opt/fifo"].uid, found["/opt/fifo"].gid) == ("fifo", 1000, 60000)
    assert found["/usr/lib/long"].content == disk_tree.LINKS["usr/lib/long"]
    assert found["/usr/lib/sparse"].size == 40 << 20
    with FileSystem(baked.raw, rootdisk.find_root(baked.raw)) as fs:
        inode = rootdisk.lookup(fs, "/usr/lib/sparse")
        assert inode is not None
        written = sum(length for length, view in fs.chunks(inode) if view is not None)
        zeros = rootdisk.lookup(fs, "/usr/lib/zeros")
        assert zeros is not None
        assert fs.content(zeros) == disk_tree.FILES["usr/lib/zeros"]
    assert written == 300 * 4096


def test_device_nodes_survive(tmp_path: Path) -> None:
    if not namespace.is_root():
        pytest.skip("only real root makes device nodes")
    tree = tmp_path / "tree"
    make_tree(tree, "forward")
    (tree / "srv/jail").mkdir()
    os.mknod(tree / "srv/jail/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "srv/jail/disk", stat.S_IFBLK | 0o600, os.makedev(259, 7000))
    done = bake(tree, tmp_path / "out")
    with FileSystem(done.raw, rootdisk.find_root(done.raw)) as fs:
        found = {entry.path: entry for entry in rootdisk.entries(fs)}
    assert (found["/srv/jail/null"].type, found["/srv/jail/null"].content) == ("char", "1:3")
    assert (found["/srv/jail/disk"].type, found["/srv/jail/disk"].content) == ("block", "259:7000")
    assert "/dev/null" not in found


@pytest.mark.parametrize("format_", formats.FORMATS)
def test_raw_digest_is_recomputed_from_each_format(baked: Baked, tmp_path: Path, format_: str) -> None:
    stored = tmp_path / f"disk.{format_}"
    formats.convert(baked.raw, format_, stored)
    assert formats.raw_digest(stored, format_) == baked.digest == digest.of_file(baked.raw)


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_tampered_file_has_another_digest(baked: Baked, tmp_path: Path, format_: str) -> None:
    stored = tmp_path / f"disk.{format_}"
    formats.convert(baked.raw, format_, stored)
    data = baked.raw.read_bytes()
    at = data.index(disk_tree.KERNEL[:64]) + 99 if format_ == "raw" else stored.stat().st_size // 2
    with stored.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    try:
        found = formats.raw_digest(stored, format_)
    except DiskError:
        return  # a cluster that cannot be decompressed any more
    assert found != baked.digest


def test_digest_and_scan_finds_needles_across_chunks_and_in_free_space(baked: Baked, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    formats.convert(baked.raw, "raw", raw)
    with raw.open("r+b") as file:
        file.seek((SIZE_MIB - 20) * MIB - 7)
        file.write(b"straddling-secret")
        file.seek(SIZE_MIB * MIB - 5)
        file.write(b"final")
    needles = {b"straddling-secret", b"final", b"nowhere-at-all", disk_tree.KERNEL[:99], b"\0\0straddling"}
    formats.convert(raw, "qcow2", tmp_path / "disk.qcow2")
    wanted = digest.of_file(raw)
    for path, format_ in ((raw, "raw"), (tmp_path / "disk.qcow2", "qcow2")):
        assert formats.digest_and_scan(path, format_, needles) == (wanted, needles - {b"nowhere-at-all"})
    with pytest.raises(ValueError, match="empty"):
        formats.scan(raw, "raw", [b""])


def test_stored_file_that_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no image" * 999)
    with pytest.raises(DiskError):
        formats.raw_digest(tmp_path / "x", "qcow2")
    with pytest.raises(DiskError, match="cannot be read"):
        formats.raw_digest(tmp_path / "missing", "raw")
    with pytest.raises(DiskError, match="no disk format"):
        formats.convert(tmp_path / "x", "vdi", tmp_path / "y")


def test_disk_that_is_too_small_says_how_large_it_must_be(baked: Baked, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"does not fit on a disk of 100 MiB.* needs \d+ MiB") as caught:
        work.build_disk(baked.tree, baked.sealed.manifest, plan(baked.sealed.epoch, 100), tmp_path / "small.raw")
    assert "disk_mib = 1024" in str(caught.value.hint)
    assert caught.value.where == "images.toml: image.web.disk_mib"
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from factory.disk import formats, work
from factory.disk.image import DiskPlan
from factory.disk.seal import SealFacts
from factory.errors import DiskError
what, tree, sealed, small, raw = sys.argv[1], *map(Path, sys.argv[2:])
size = "256k" if what == "convert" else "4m"
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=True)
key = "sha256:" + "0" * 64
try:
    if what == "seal":
        work.seal_tree(tree, small, SealFacts("web", key, 0.0))
    elif what == "unpack":
        work.unpack(sealed / "tree.tar", small / "tree")
    elif what == "convert":
        formats.convert(raw, "qcow2", small / "x.qcow2")
    else:
        plan = DiskPlan("web", "amd64", key, 256, 1700000000)
        work.build_disk(tree, sealed / "manifest.jsonl", plan, small / "disk.raw")
except DiskError as error:
    print("said", error.message.splitlines()[0], "| left", sorted(p.name for p in small.iterdir()))
"""


@pytest.mark.parametrize("what", ["seal", "unpack", "convert", "disk"])
def test_full_host_disk_is_an_error_and_leaves_nothing(baked: Baked, folder: Path, tmp_path: Path, what: str) -> None:
    tree = baked.tree
    if what == "seal":
        tree = folder / "for-full"
        make_tree(tree, "forward")
    argv = [what, str(tree), str(baked.sealed.tar.parent), str(tmp_path), str(baked.raw)]
    root = str(Path(work.__file__).parents[2])
    done = proc.run(namespace.command([sys.executable, "-c", FULL_DISK, *argv]), cwd=Path(root))
    assert done.text.startswith("said ")
    assert done.text.strip().endswith("| left []")


def test_journal_must_be_replayed_and_can_be(baked: Baked, tmp_path: Path) -> None:
    raw = tmp_path / "killed.raw"
    formats.convert(baked.raw, "raw", raw)
    offset = rootdisk.find_root(raw)
    assert rootdisk.replay(raw, offset) is False
    device = f"{raw}?offset={offset}"
    block = proc.run(["debugfs", "-R", "bmap /usr/bin/bind 0", device]).text.split()[-1]
    (tmp_path / "block").write_bytes(b"from the journal".ljust(4096, b"."))
    proc.run(["debugfs", "-w", "-f", "-", device], stdin=f"jo\njw -b {block} {tmp_path}/block\njc\n".encode())
    with pytest.raises(DiskError, match="journal"):
        FileSystem(raw, offset)
    with FileSystem(raw, offset, dirty_ok=True) as fs:
        assert (rootdisk.read(fs, "/usr/bin/bind") or b"").startswith(b"capable")
    assert rootdisk.replay(raw, offset) is True
    with FileSystem(raw, offset) as fs:
        assert (rootdisk.read(fs, "/usr/bin/bind") or b"").startswith(b"from the journal")
        changed = manifest.compare(baked.entries, rootdisk.entries(fs))
    assert [(change.path, change.what) for change in changed] == [("/usr/bin/bind", "content")]


@pytest.mark.parametrize(
    "options",
    [
        ["-t", "ext2", "-b", "1024", "-I", "128"],
        ["-t", "ext3", "-b", "2048", "-I", "256"],
        ["-t", "ext4", "-b", "4096", "-O", "^64bit,^metadata_csum"],
        ["-t", "ext4", "-b", "1024", "-O", "metadata_csum_seed"],
    ],
)
def test_file_systems_made_otherwise_are_read_as_well(folder: Path, tmp_path: Path, options: list[str]) -> None:
    tree = folder / "plain"
    if not tree.exists():
        make_tree(tree, "forward", "plain")
    disk = tmp_path / "disk"
    proc.run(namespace.command(["mke2fs", "-q", "-F", "-d", str(tree), *options, str(disk), "300M"]))
    with FileSystem(disk) as fs:
        assert manifest.compare(work.scan(tree), rootdisk.entries(fs)) == []
        assert rootdisk.find_root(disk) == 0


def test_inline_data_is_refused(tmp_path: Path) -> None:
    proc.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "inline_data", str(tmp_path / "disk"), "20M"])
    with pytest.raises(DiskError, match="inline_data"):
        FileSystem(tmp_path / "disk")


def test_root_is_found_by_its_os_release_and_not_by_its_place(baked: Baked, tmp_path: Path) -> None:
    root = part(baked.raw, 2, tmp_path / "root")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(SIZE_MIB * MIB + 80 * MIB)
    layout = "label: dos\nstart=2048, size=65536, type=83\nstart=67584, type=83\n"
    proc.run(["sfdisk", "--quiet", str(disk)], stdin=layout.encode())
    other = tmp_path / "other"
    proc.run(["mke2fs", "-q", "-F", "-t", "ext4", str(other), "32M"])
    for source, seek in ((other, 1), (root, 33)):
        proc.run(["dd", f"if={source}", f"of={disk}", "bs=1M", f"seek={seek}", "conv=notrunc,sparse"])
    assert rootdisk.find_root(disk) == 33 * MIB


def test_disk_without_a_root_is_an_error_that_tells_what_was_seen(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    proc.run(["sfdisk", "--quiet", str(disk)], stdin=b"label: gpt\nstart=2048, size=8192\nstart=10240\n")
    with pytest.raises(
        DiskError, match="no ext4 root file system: partition 1: there is no ext4.*partition 2"
    ) as caught:
        rootdisk.find_root(disk)
    assert "ext4" in str(caught.value.hint)


def test_damaged_file_system_is_an_error_and_not_a_crash(baked: Baked, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    formats.convert(baked.raw, "raw", raw)
    offset = rootdisk.find_root(raw)
    with raw.open("r+b") as file:
        file.seek(offset + 4096 + 8)  # the first group descriptor: where the inode table is
        file.write(b"\xff" * 8)
    with FileSystem(raw, offset) as fs, pytest.raises(DiskError):
        rootdisk.entries(fs)
    with raw.open("r+b") as file:
        file.truncate(offset + 8 * MIB)
    with FileSystem(raw, offset) as fs, pytest.raises(DiskError):
        rootdisk.entries(fs)


def test_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, "forward", "plain")
    proc.run(namespace.command(["touch", str(tree / "opt/two\nlines")]))
    (tmp_path / "out").mkdir()
    sealed = work.seal_tree(tree, tmp_path / "out", FACTS)
    with pytest.raises(DiskError, match="line break") as caught:
        work.build_disk(tree, sealed.manifest, plan(sealed.epoch), tmp_path / "disk.raw")
    assert caught.value.where == repr("/opt/two\nlines")
    assert not (tmp_path / "disk.raw").exists()
    namespace.remove(tree)


def test_tree_without_a_kernel_is_an_error(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, "forward", "plain")
    proc.run(namespace.command(["rm", "-r", str(tree / "boot")]))
    (tmp_path / "out").mkdir()
    with pytest.raises(DiskError, match="no kernel"):
        work.seal_tree(tree, tmp_path / "out", FACTS)
    assert list((tmp_path / "out").iterdir()) == []
    namespace.remove(tree)


def test_put_back_gives_files_their_text_again(folder: Path) -> None:
    tree = folder / "put-back"
    make_tree(tree, "forward", "plain")
    work.put_back(tree, {"etc/hostname": "before\n", "etc/ssh/sshd_config": None, "etc/never-there": None})
    found = {entry.path for entry in work.scan(tree)}
    assert "/etc/ssh/sshd_config" not in found
    assert (tree / "etc/hostname").read_text() == "before\n"
