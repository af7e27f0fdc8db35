"""Every command that reads the catalog, against every damage: a clear error with what to do, never a traceback, never a
silent repair. The file stays as it was found.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import catalogued
import pytest

from factory import cli
from factory.catalog import faults
from factory.catalog.database import Catalog
from factory.catalog.pending import pending
from factory.cli.catalog import SUBCOMMANDS
from factory.errors import CatalogError

Damage = Callable[[Path], None]

READERS: dict[str, list[str]] = {
    "images": ["images"],
    "show": ["show", "web"],
    "lineage": ["lineage", "web"],
    "diff": ["diff", "OLD", "web"],
    "packages": ["packages", "--find", "openssl < 3.0.15"],
    "where": ["where", "openssl"],
    "outdated": ["outdated", "web"],
    "cve": ["cve", "web", "--offline", "--suite", "bookworm", "--osv", "OSV"],
    "audit": ["audit"],
    "report": ["report", "web", "--to", "NEW"],
    "channels": ["channels", "list", "dev", "--history"],
    "catalog backup": ["catalog", "backup", "--to", "NEW"],
    "catalog check": ["catalog", "check"],
    "catalog export": ["catalog", "export"],
    "catalog import": ["catalog", "import", "EXPORT"],
    "catalog serve": ["catalog", "serve", "--port", "0"],
}
"""Command -> how it is called. OLD, NEW, OSV, EXPORT stand for a digest and for files."""

ONLY_WHERE_REFUSED = ("outdated", "catalog serve")
"""One asks the network, one serves until it is stopped: called only where they get no further than the catalog."""

WRITERS = ("channels", "catalog import")
"""They tell the catalog something before they answer."""

ELSEWHERE = {
    "attest": "reads trust/ and the store; tells the catalog at the end, by Catalog.open",
    "bake": "asks `pending`, then Catalog.open, which are held against every damage below",
    "boot": "reads images.lock and the store",
    "doctor": "reads no factory",
    "export": "reads trust/ and the store; what only the catalog has, by Catalog.open",
    "fetch": "reads images.lock and the stores",
    "init": "makes a factory",
    "key": "reads and writes keys and the policy; a revocation is told to the catalog by Catalog.open",
    "logs": "reads the journals; the checks of a run by Catalog.open",
    "lock": "reads images.lock; --repair and --check by Catalog.open",
    "policy": "reads the policy",
    "promote": "Catalog.open",
    "resolve": "never reads the catalog",
    "revoke": "Catalog.open",
    "verify": "boots a guest; Catalog.open",
    "why": "Catalog.open",
}
"""Commands that are not called here, and why."""


def test_every_command_is_called_here_or_said_why_not() -> None:
    flat = {name for name in cli.COMMANDS if name != "catalog"} | {f"catalog {name}" for name in SUBCOMMANDS}
    elsewhere = {name for name in flat - READERS.keys() - ELSEWHERE.keys() if name not in ROLLOUT}
    assert elsewhere == set()
    assert READERS.keys() | ELSEWHERE.keys() <= flat


ROLLOUT = ("rollout", "fleet", "drift")
"""They come with rollouts, and have tests of their own."""


@dataclass(frozen=True)
class Made:
    """A factory that is whole, what there is beside it, and the digest of its old image."""

    root: Path
    old: str
    osv: Path
    export: Path

    def copy(self, folder: Path) -> Path:
        """It again, for one to damage: its root."""
        return Path(shutil.copytree(self.root, folder / "factory"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("whole")
    whole = catalogued.build(folder)
    osv = folder / "osv"
    osv.mkdir()
    export = folder / "e.jsonl"
    assert cli.run(["-C", str(whole.root), "audit", "--limit", "1"]) == 0  # tells the catalog of what is in trust/
    assert cli.run(["-C", str(whole.root), "catalog", "export", "--to", str(export)]) == 0
    other = catalogued.build(folder / "other")
    assert cli.run(["-C", str(other.root), "catalog", "export", "--to", str(export), "--force"]) == 0
    return Made(whole.root, whole.digests["old"], osv, export)


def edited(sql: str, *, keep_triggers: bool = False) -> Damage:
    """The catalog changed by hand."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            if not keep_triggers:
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                    connection.execute(f"DROP TRIGGER {name}")
            connection.executescript(sql)

    return damage


def changed(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: _write(path, change(path.read_bytes()))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _other_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE accounts (id, name)")
        connection.commit()


def _only_the_log_is_left(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(path.read_bytes())
    path.unlink()


REFUSED: dict[str, tuple[Damage, str]] = {
    "of no bytes": (changed(lambda raw: b""), "a file of no bytes"),
    "cut": (changed(lambda raw: raw[: len(raw) // 2]), "is damaged"),
    "cut in a page": (changed(lambda raw: raw[: len(raw) // 3 + 100]), "is damaged"),
    "no database": (changed(lambda raw: b"hello, I am no database " * 1000), "is no catalog"),
    "a header only": (changed(lambda raw: raw[:100] + b"\xff" * 20000), "is damaged"),
    "of a newer version": (edited("PRAGMA user_version = 99"), "is of version 99"),
    "another database": (_other_database, "but no catalog"),
    "gone but for its log": (_only_the_log_is_left, "catalog"),
}
"""What no command gets past, and what they all say."""

ODD: dict[str, tuple[Damage, dict[str, int]]] = {
    "without bakes": (edited("DROP TABLE bakes"), {"catalog check": 3, "catalog export": 3}),
    "without events": (edited("DROP TABLE events"), {"catalog check": 3, "audit": 3, "catalog export": 3}),
    "without a column": (
        edited("ALTER TABLE attestations DROP COLUMN made_at"),
        {"catalog check": 3},
    ),
    "without triggers": (edited(""), {"catalog check": 3, "images": 0, "audit": 0}),
    "without an index": (edited("DROP INDEX bakes_of_image", keep_triggers=True), {"catalog check": 3, "images": 0}),
    "with a broken chain": (
        edited("UPDATE events SET actor = 'mallory' WHERE seq = 3"),
        {"catalog check": 6, "audit": 6, "catalog backup": 6, "images": 0},
    ),
    "with a cut chain": (edited("DELETE FROM events WHERE seq > 5"), {"catalog check": 6}),
    "with no events": (edited("DELETE FROM events"), {"catalog check": 6}),
    "with no sources": (edited("DELETE FROM sources"), {"catalog check": 3}),
    "with details that are no JSON": (edited("UPDATE events SET details = '{'"), {"catalog check": 6, "audit": 6}),
    "with digests that are none": (edited("UPDATE images SET digest = substr(digest, 1, 3)"), {"catalog check": 6}),
    "with records that are none": (edited("UPDATE bakes SET bake_key = x'00'"), {"catalog check": 6}),
    "with signers that are none": (edited("UPDATE attestations SET signers = 'x'"), {"catalog check": 6}),
    "with envelopes that are none": (edited("UPDATE attestations SET envelope = x'7b'"), {"catalog check": 6}),
    "with specs that are none": (edited("UPDATE specs SET facts = '{'"), {"catalog check": 6}),
    "with times that are none": (
        edited("UPDATE bakes SET baked_at = 'yesterday'; UPDATE images SET recorded_at = '' WHERE recorded_at > '';"),
        {"catalog check": 6},
    ),
    "with text that is no UTF-8": (edited("UPDATE packages SET version = CAST(x'ff00' AS TEXT)"), {}),
    "with a wrong count": (edited("UPDATE package_set_counts SET images = 99"), {"catalog check": 3}),
    "with a garbled page": (
        changed(lambda raw: raw[: len(raw) // 2] + b"\xa5" * 8192 + raw[len(raw) // 2 + 8192 :]),
        {"catalog check": 3},
    ),
}
"""What some get past: command -> the exit code it must have. The others may end with 0, 2 (what was
asked for is not found), 3 or 6."""


def arguments_of(command: str, made: Made, folder: Path) -> list[str]:
    said = {"OLD": made.old, "OSV": str(made.osv), "EXPORT": str(made.export), "NEW": str(folder / f"new {command}")}
    return [said.get(word, word) for word in READERS[command]]


def held(capsys: pytest.CaptureFixture[str], root: Path, arguments: list[str]) -> tuple[int, str]:
    """A command's exit code and what it says."""
    capsys.readouterr()
    code = cli.run(["-C", str(root), *arguments])
    return code, capsys.readouterr().err


def is_bug(code: int, said: str) -> bool:
    """Whether a command ended as none may."""
    return "Traceback" in said or code not in (0, 2, 3, 6) or (code != 0 and "error:" not in said)


@pytest.mark.parametrize("name", REFUSED)
def test_no_command_gets_past_a_catalog(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, message = REFUSED[name]
    root = made.copy(tmp_path)
    path = root / ".factory/catalog.db"
    damage(path)
    before = {item.name: item.read_bytes() for item in path.parent.glob("catalog.db*") if item.suffix != ".lock"}
    wrong = {}
    for command in READERS:
        code, said = held(capsys, root, arguments_of(command, made, tmp_path))
        if is_bug(code, said) or code != 3 or message not in said or "hint:" not in said:
            wrong[command] = (code, said[-600:])
        assert not (tmp_path / f"new {command}").exists()
    assert wrong == {}
    for ask in (Catalog.open, *([] if name == "gone but for its log" else [Catalog.read])):
        with pytest.raises(CatalogError):
            ask(path).close()
    with_pending = ("of a newer version", "gone but for its log", "another database")
    if name not in with_pending:
        with pytest.raises(CatalogError):
            pending(path)
    after = {item.name: item.read_bytes() for item in path.parent.glob("catalog.db*") if item.suffix != ".lock"}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("name", ODD)
def test_command_answers_or_explains_with_a_catalog(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, wanted = ODD[name]
    root = made.copy(tmp_path)
    path = root / ".factory/catalog.db"
    damage(path)
    for trust in root.glob("trust/*/*"):  # nothing there that the catalog is to be told first
        trust.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    wrong = {}
    for command in sorted(READERS, key=lambda one: one in WRITERS):
        if command in WRITERS:
            assert path.read_bytes() == before
        if command not in ONLY_WHERE_REFUSED:
            code, said = held(capsys, root, arguments_of(command, made, tmp_path))
            if is_bug(code, said) or code != wanted.get(command, code):
                wrong[command] = (code, said[-600:])
    assert wrong == {}


@pytest.mark.parametrize("change", [lambda data: data[: len(data) // 2], lambda data: b"x" * 16 + data[16:]])
def test_damage_is_told_once_and_check_does_not_advise_itself(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[bytes], bytes]
) -> None:
    root = made.copy(tmp_path)
    changed(change)(root / ".factory/catalog.db")
    code, said = held(capsys, root, ["images"])
    assert (code, said.count("SQLite") + said.count("malformed")) == (3, 1)
    code, said = held(capsys, root, ["catalog", "check"])
    assert code == 3
    assert "put a backup in its place" in said
    assert "catalog check" not in said


@contextmanager
def holding(path: Path) -> Iterator[int]:
    """Another process that has the catalog for itself; its pid."""
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            os.write(done, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(done)


def test_command_says_who_holds_the_catalog(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "BUSY_S", 0.05)
    monkeypatch.setattr("factory.compliance.asking.BUSY_S", 0.05)
    root = made.copy(tmp_path)
    wrong = {}
    with holding(root / ".factory/catalog.db") as holder:
        for command in READERS:
            code, said = held(capsys, root, arguments_of(command, made, tmp_path))
            if code != 3 or f"process {holder} (" not in said or "wait until it has ended" not in said:
                wrong[command] = (code, said[-600:])
    assert wrong == {}


def test_writer_says_who_writes(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "BUSY_S", 0.05)
    path = made.copy(tmp_path) / ".factory/catalog.db"
    with Catalog.open(path) as writer, Catalog.open(path) as other, writer.writing():
        with pytest.raises(CatalogError, match=rf"process {os.getpid()} \(.*this one"), other.writing():
            pass
        assert other.query("SELECT count(*) AS n FROM sources") == [{"n": 1}]


def in_child(work: Callable[[], int]) -> int:
    """The exit code of some work, done in a child; 77 for what it raises."""
    child = os.fork()
    if child == 0:
        code = 77
        try:
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_reader_that_may_not_write_gets_an_answer_and_a_writer_an_error(made: Made, tmp_path: Path) -> None:
    root = made.copy(tmp_path)
    for item in (tmp_path, *tmp_path.parents):
        if item.stat().st_uid == 0 and item != Path("/") and not item.stat().st_mode & 0o005:
            item.chmod(item.stat().st_mode | 0o055)
    for item in root.rglob("*"):
        item.chmod(0o555 if item.is_dir() else 0o444)
    path = root / ".factory/catalog.db"
    before = path.read_bytes()
    free = tmp_path / "free"
    free.mkdir()
    free.chmod(0o777)

    def as_nobody(command: str) -> Callable[[], int]:
        def work() -> int:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            return cli.run(["-C", str(root), *arguments_of(command, made, free)])

        return work

    codes = {one: in_child(as_nobody(one)) for one in READERS if one not in (*ONLY_WHERE_REFUSED, "cve")}
    assert codes == {command: 3 if command in WRITERS else 0 for command in codes}
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["catalog backup", "catalog export", "catalog import", "report"])
def test_full_disk_leaves_nothing_behind(made: Made, tmp_path: Path, command: str) -> None:
    root = made.copy(tmp_path)
    path = root / ".factory/catalog.db"
    target = tmp_path / "there"
    target.mkdir()
    words = arguments_of(command, made, target)
    if command == "catalog export":
        words = [*words, "--to", str(target / "e.jsonl")]

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return cli.run(["-C", str(root), *words])

    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        assert in_child(work) == 3
    finally:
        signal.signal(signal.SIGXFSZ, signal_before)
    assert list(target.iterdir()) == []
    with Catalog.open(path) as catalog:
        assert catalog.query("SELECT count(*) AS n FROM sources") == [{"n": 1}]
    assert cli.run(["-C", str(root), "catalog", "check"]) == 0


def test_full_catalog_is_told_and_stays_whole(made: Made, tmp_path: Path) -> None:
    path = made.copy(tmp_path) / ".factory/catalog.db"
    with Catalog.open(path) as catalog:
        pages = catalog.query("PRAGMA page_count")[0]["page_count"]
        catalog.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(CatalogError, match="full") as caught, catalog.writing() as database:
            database.conn.execute("INSERT INTO runs (id, started_at, command) VALUES ('x', 'x', ?)", ["x" * 100_000])
        assert "make room" in str(caught.value.hint)
        assert catalog.query("SELECT count(*) AS n FROM runs WHERE id = 'x'") == [{"n": 0}]
