from __future__ import annotations

import stat
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import lockfile
from factory.digest import Digest, of_bytes
from factory.errors import LockError
from factory.model import Lock, LockedBase, LockedImage, Package

EXAMPLE = """\
lock-version = 1

[[base]]  # debian-12/amd64
name = "debian-12"
arch = "amd64"
digest = "sha256:{0}"
packages = [
  "adduser 3.134 all sha256:{0}",  # debian-12/amd64
  "apt 2.6.1 amd64 sha256:{1}",  # debian-12/amd64
]

[[image]]  # web/amd64
name = "web"
arch = "amd64"
digest = "sha256:{1}"
bake-key = "sha256:{0}"
base = "sha256:{0}"
tree = "sha256:{1}"
packages = []
pins = [
  "nginx-light 1.22.1-9+deb12u1 amd64 sha256:{1}",  # web/amd64
]
[image.inputs]  # web/amd64
playbook = "sha256:{0}"  # web/amd64
"strange key" = "sha256:{1}"  # web/amd64
[image.artifacts]  # web/amd64
"aws/eu-west-1" = "ami-0\\"\\\\\\u001B"
"qcow2" = "sha256:{1}"
""".format("a" * 64, "b" * 64)

A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)
WEB = LockedImage(
    "web", "amd64", B, A, A, B,
    pins=(Package("nginx-light", "1.22.1-9+deb12u1", "amd64", B),),
    inputs={"playbook": A, "strange key": B},
    artifacts={"qcow2": B, "aws/eu-west-1": 'ami-0"\\\x1b'},
)  # fmt: skip
DEBIAN = LockedBase(
    "debian-12", "amd64", A, (Package("adduser", "3.134", "all", A), Package("apt", "2.6.1", "amd64", B))
)
LOCK = Lock({("debian-12", "amd64"): DEBIAN}, {("web", "amd64"): WEB})


def test_dumps_is_the_format_of_the_design() -> None:
    assert lockfile.dumps(LOCK) == EXAMPLE
    assert lockfile.loads(EXAMPLE) == LOCK


K = TypeVar("K")
V = TypeVar("V")

digests = st.binary(max_size=3).map(of_bytes)
names = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)
words = st.from_regex(r"[!#-\[\]-~]{1,12}", fullmatch=True)
packages = st.lists(st.builds(Package, words, words, words, digests), max_size=5, unique_by=lambda p: (p.name, p.arch))
sorted_packages = packages.map(lambda found: tuple(sorted(found)))
images = st.builds(
    LockedImage, names, names, digests, digests, digests, digests, sorted_packages, st.none() | sorted_packages,
    st.dictionaries(st.text(), digests, max_size=4), st.dictionaries(st.text(), st.text(), max_size=4),
)  # fmt: skip
bases = st.builds(LockedBase, names, names, digests, sorted_packages)
locks = st.builds(
    lambda bases, images: lockfile.with_entries(Lock(), [*bases, *images]),
    st.lists(bases, max_size=3),
    st.lists(images, max_size=4),
)


@given(locks)
def test_loads_gives_back_what_dumps_wrote_whatever_the_strings(lock: Lock) -> None:
    text = lockfile.dumps(lock)
    assert lockfile.loads(text) == lock
    assert all(char.isprintable() or char == "\n" or ord(char) >= 128 for char in text)


@given(locks)
def test_dumps_does_not_depend_on_any_order(lock: Lock) -> None:
    def turned(mapping: Mapping[K, V]) -> dict[K, V]:
        return dict(reversed(list(mapping.items())))

    images = {
        key: replace(
            image, packages=image.packages[::-1], inputs=turned(image.inputs), artifacts=turned(image.artifacts)
        )
        for key, image in turned(lock.images).items()
    }
    assert lockfile.dumps(Lock(turned(lock.bases), images)) == lockfile.dumps(lock)


@given(st.integers(0, len(EXAMPLE)), st.integers(0, 8), st.text(max_size=4))
def test_loads_of_a_damaged_lock_is_a_lock_or_a_lock_error(place: int, cut: int, put: str) -> None:
    text = EXAMPLE[:place] + put + EXAMPLE[place + cut :]
    lock = Lock()
    with suppress(LockError):
        lock = lockfile.loads(text)
    assert lockfile.loads(lockfile.dumps(lock)) == lock


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lock-version = 1", "lock-version = 2", "is of lock-version 2; this factory knows 1"),
        ("lock-version = 1", "lock-version = true", "lock-version True"),
        ("lock-version = 1", "", "lock-version None"),
        ("lock-version = 1", "lock-version = 1\nnovel = 1", "images.lock: novel: unknown key"),
        ('bake-key = "', 'bakekey = "', "image.web.bake-key: is missing"),
        ("pins = [", "pinz = [", "image.web.pinz: unknown key"),
        ("bbb\"\nbake-key", "bbX\"\nbake-key", "image.web.digest"),
        ("2.6.1 amd64 ", "2.6.1 amd64  ", "base.debian-12.packages"),
        ('apt 2.6.1', 'adduser 3 all sha256:' + "a" * 64 + '","apt 2.6.1', "a package stands there twice"),
        ("packages = []", "packages = [1]", "image.web.packages"),
        ("packages = []", "packages = {}", "is a dict, not a list"),
        ('name = "web"', 'name = "../web"', "is no name"),
        ("[[base]]", "[base]", "base: is a dict, not a list"),
        ('"qcow2" = "sha256:' + "b" * 64 + '"', '"qcow2" = 1', "image.web.artifacts.qcow2: is a int, not a str"),
        ("[image.inputs]", "digest = 1\n[image.inputs]", "damaged, or two branches changed one image"),
        ("[[image]]", "<<<<<<< HEAD\n[[image]]", "images.lock:12: it holds conflict markers"),
        ("[[image]]", "=======\n[[image]]", "images.lock:12: it holds conflict markers"),
        ("[[image]]", ">>>>>>> side\n[[image]]", "images.lock:12: it holds conflict markers"),
    ],
)  # fmt: skip
def test_loads_refuses_and_says_where(old: str, new: str, said: str) -> None:
    assert EXAMPLE.count(old) >= 1
    with pytest.raises(LockError) as caught:
        lockfile.loads(EXAMPLE.replace(old, new, 1))
    assert said in caught.value.message
    assert caught.value.hint is not None


def test_loads_refuses_an_entry_that_is_there_twice() -> None:
    entry = EXAMPLE[EXAMPLE.index("[[image]]") :]
    with pytest.raises(LockError, match="web/amd64 stands there twice"):
        lockfile.loads(EXAMPLE + entry)


def test_loads_of_conflict_markers_names_the_repair() -> None:
    with pytest.raises(LockError) as caught:
        lockfile.loads("<<<<<<< HEAD\n" + EXAMPLE)
    assert "factory lock --repair" in str(caught.value.hint)


@pytest.mark.parametrize(
    "image",
    [
        replace(WEB, name="a b"),
        replace(WEB, digest=Digest("sha256:x")),
        replace(WEB, inputs={"a": Digest("")}),
        replace(WEB, artifacts={"qcow2": "\ud800"}),
        replace(WEB, packages=(Package("a b", "1", "all", A),)),
        replace(WEB, packages=(Package("a", '1"', "all", A),)),
        replace(WEB, packages=(Package("a", "1\n", "all", A),)),
        replace(WEB, packages=(Package("a", "1", "all", A), Package("a", "2", "all", A))),
    ],
)
def test_dumps_refuses_what_could_not_be_read_back(image: LockedImage) -> None:
    with pytest.raises(LockError):
        lockfile.dumps(Lock({}, {(image.name, image.arch): image}))


def test_read_without_a_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert lockfile.read(tmp_path / "images.lock") == Lock()
    assert lockfile.dumps(Lock()) == "lock-version = 1\n"


def test_read_of_what_is_no_text_is_a_lock_error(tmp_path: Path) -> None:
    (tmp_path / "images.lock").write_bytes(b"lock-version = 1 # \xff\n")
    with pytest.raises(LockError):
        lockfile.read(tmp_path / "images.lock")


def test_write_leaves_one_file_that_all_may_read(tmp_path: Path) -> None:
    path = tmp_path / "images.lock"
    lockfile.write(path, Lock())
    lockfile.write(path, LOCK)
    assert path.read_text() == EXAMPLE
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.lock"]


def test_write_of_the_same_lock_does_not_touch_the_file(tmp_path: Path) -> None:
    path = tmp_path / "images.lock"
    lockfile.write(path, LOCK)
    before = path.stat()
    lockfile.write(path, LOCK)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_update_by_many_threads_loses_no_entry(tmp_path: Path) -> None:
    path, guard = tmp_path / "images.lock", tmp_path / "locks" / "images.lock"

    def add(number: int) -> None:
        for image in [replace(WEB, name=f"i{number}-{step}") for step in range(5)]:
            lockfile.update(path, guard, partial(lockfile.with_entries, entries=[image]))

    threads = [threading.Thread(target=add, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lockfile.read(path).images) == 20


# --- one image's entries alone


def _many(names: list[str]) -> Lock:
    digest = of_bytes(b"many")
    package = Package("nginx", "1.22.1-9", "amd64", digest)
    images = {
        (name, arch): LockedImage(name, arch, of_bytes(f"{name}{arch}".encode()), digest, digest, digest, (package,))
        for name in names
        for arch in ("amd64", "arm64")
    }
    return Lock({("web", "amd64"): LockedBase("web", "amd64", digest, (package,))}, images)


@given(st.lists(st.from_regex(r"[a-z0-9-]{1,4}", fullmatch=True), unique=True), st.from_regex(r"[a-z0-9-]{1,4}"))
def test_find_gives_what_read_gives(names: list[str], asked: str) -> None:
    lock = _many(names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.lock"
        path.write_text(lockfile.dumps(lock))
        for name in (*names, asked.strip("\n")):
            wanted = [image for (found, _), image in sorted(lock.images.items()) if found == name]
            assert lockfile.find(path, name) == wanted


def test_find_reads_no_other_entry(tmp_path: Path) -> None:
    path = tmp_path / "images.lock"
    path.write_text(lockfile.dumps(_many(["db", "web"])).replace('tree = "sha256:', 'tree = "bad:', 1))
    assert [image.name for image in lockfile.find(path, "web")] == ["web", "web"]
    with pytest.raises(LockError):
        lockfile.find(path, "db")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[[image]]  # db/amd64", "[[ image ]]"),
        ("[[image]]  # db/amd64", "  [[image]]"),
        ('\nname = "db"', "\nname = 'db'"),
        ('arch = "arm64"', 'arch = """arm64"""'),
    ],
)
def test_find_in_another_form_of_toml_reads_the_whole(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "images.lock"
    text = lockfile.dumps(_many(["db", "web"]))
    assert old in text
    path.write_text(text.replace(old, new))
    assert lockfile.find(path, "db") == [image for _, image in sorted(_many(["db"]).images.items())]


@pytest.mark.parametrize("damage", ["<<<<<<< ours\n", "=======\n", ">>>>>>> theirs\n"])
def test_find_in_a_conflict_is_refused_wherever_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "images.lock"
    path.write_text(lockfile.dumps(_many(["db", "web"])).replace("\n[[image]]  # db/amd64", f"\n{damage}[[image]]", 1))
    with pytest.raises(LockError, match="conflict markers"):
        lockfile.find(path, "web")


def test_find_of_an_image_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.lock"
    text = lockfile.dumps(_many(["web"]))
    entry = text[text.index("\n[[image]]") : text.rindex("\n[[image]]")]
    path.write_text(text + entry)
    with pytest.raises(LockError, match="twice"):
        lockfile.find(path, "web")
