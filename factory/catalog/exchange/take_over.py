"""Reads an export into a catalog: all of a file, or nothing of it. What is there already is not written again.

Nothing in a file is believed: every digest is computed anew, every log is followed from its first event to the end that
the file claims, what signed envelopes say is read from them, and every record is held against the digest that its event
has of it. A source that was imported before must begin as it did then: one that tells its past otherwise is refused.
Streams: of a file no more is kept than the numbers its packages have here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from factory import digest as digests
from factory.catalog import attestations, chain, contents, exchange, records
from factory.catalog.audit import fault_of
from factory.catalog.clock import now
from factory.catalog.contents import InstalledPackage
from factory.catalog.database import Catalog
from factory.catalog.exchange import kinds, places
from factory.catalog.exchange.export import IMAGE_FIELDS
from factory.digest import Digest, packed, parse_digest, unpacked
from factory.errors import CatalogError, FactoryError, TamperedError
from factory.trust import dsse

LINE_BYTES = 256 << 20
_BAD = (
    LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
    sqlite3.IntegrityError, sqlite3.InterfaceError,
)  # fmt: skip
"""What reading a line that nobody of ours wrote may raise."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Taken:
    """What a file brought. `added`: kind of line -> how many were new. `name`: what its catalog is called here."""

    file: str
    catalog: str
    name: str
    sources: int
    lines: int
    added: Mapping[str, int]


@dataclass
class _Source:
    """A source of the file. `id`: here; `length`, `last`: its log as far as it was followed; `wanted`: its end."""

    id: int
    catalog: str
    name: str
    wanted: tuple[int, str]
    had: int
    length: int = 0
    last: Digest = field(default_factory=lambda: unpacked(chain.START))


def take_over(catalog: Catalog, path: Path, name: str | None = None) -> Taken:
    """Import the export in a file; `name`: what its catalog is to be called here, else as the file says.

    CatalogError: no export, damaged, cut, of a newer format (`where` is the line). TamperedError: a log in it breaks,
    or tells the past of a source otherwise than it was told before. Nothing of the file is kept then.
    """
    with catalog.writing() as database:
        reader = _Reader(database.conn, path, name)
        try:
            return reader.read()
        except FactoryError as error:
            error.where = error.where or reader.where
            raise
        except _BAD as error:
            raise CatalogError(f"a line is not as an export has it: {_said(error)}", where=reader.where) from error
        except (OSError, EOFError, zlib.error) as error:
            raise CatalogError(f"the export cannot be read: {error}", where=reader.where) from error


def require_export(path: Path) -> None:
    """CatalogError where a file does not begin as an export of a format that is read here does."""
    try:
        with _opened(path) as file:
            header = json.loads(file.readline(LINE_BYTES))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _none(path) from error
    if not isinstance(header, dict) or header.get("kind") != exchange.HEADER:
        raise _none(path)
    _require_format(header, path)


def _none(path: Path) -> CatalogError:
    return CatalogError("this is no export of a catalog", where=f"{path}:1", hint="factory catalog export writes one")


def _said(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


class _Reader:
    """One import. `where` is the line at hand."""

    def __init__(self, connection: sqlite3.Connection, path: Path, name: str | None) -> None:
        self._connection, self._path, self._name = connection, path, name
        self._line = 0
        self._sources: dict[str, _Source] = {}
        self._packages: list[int] = []
        self._packages_had = int(connection.execute("SELECT ifnull(max(id), 0) FROM packages").fetchone()[0])
        self._known: dict[tuple[str, str], Iterator[tuple[int, dict[str, Any]]]] = {}
        self._added: Counter[str] = Counter()
        self._of_a_source = {kind.name: kind for kind in (kinds.EVENTS, *kinds.OF_A_SOURCE)}
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            exchange.SOURCE: self._source,
            exchange.PACKAGE: self._package,
            exchange.PACKAGE_SET: self._package_set,
            exchange.SPEC: self._spec,
            exchange.INPUTS: self._inputs,
            exchange.IMAGE: self._image,
            exchange.ACCOUNT: self._account,
            exchange.ATTESTATION: self._attestation,
        }

    @property
    def where(self) -> str:
        return f"{self._path}:{self._line}" if self._line else str(self._path)

    def read(self) -> Taken:
        """All of the file."""
        lines = self._lines()
        header = next(lines, None)
        if header is None or header.get("kind") != exchange.HEADER:
            raise _none(self._path)
        _require_format(header, self._path)
        ended = False
        for record in lines:
            if record["kind"] == exchange.END:
                ended = True
            elif record["kind"] in self._of_a_source:
                self._row(record)
            else:
                self._handlers[_of(record, "kind", self._handlers)](record)
        if not ended:
            raise CatalogError(
                "the export ends before its end: it was cut", hint="export it again (factory catalog export)"
            )
        self._prove()
        return self._taken(_text(header, "catalog"))

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The records of the file. Its last line has the digest of those before it; nothing comes after that."""
        hasher, count, ended = hashlib.sha256(), 0, False
        with _opened(self._path) as file:
            while line := file.readline(LINE_BYTES):
                self._line += 1
                if ended:
                    raise CatalogError("something stands after the end of the export")
                if not line.endswith(b"\n"):
                    raise CatalogError("the export is cut in the middle of a line", hint="export it again")
                record = json.loads(line)
                if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
                    raise ValueError("it is no record of a kind")
                ended = record["kind"] == exchange.END
                if ended and (record.get("lines"), record.get("digest")) != (count, f"sha256:{hasher.hexdigest()}"):
                    raise CatalogError("the export is not as it was written: its digest is another, or lines are gone")
                hasher.update(line)
                count += 1
                yield record

    # --- sources and what belongs to one

    def _source(self, record: dict[str, Any]) -> None:
        catalog, claimed = _text(record, "catalog"), (record["events"], parse_digest(record["head"]))
        first = not self._sources
        name = self._name if first and self._name else _text(record, "name")
        sql = "SELECT id, name FROM sources WHERE catalog = ?"
        found = self._connection.execute(sql, [catalog]).fetchone()
        if found is None:
            values = [catalog, name, now()]
            insert = "INSERT INTO sources (catalog, name, added_at) VALUES (?, ?, ?)"
            found = (self._connection.execute(insert, values).lastrowid, name)
            self._added[exchange.SOURCE] += 1
        had = chain.head(self._connection, found[0]).length
        self._sources[catalog] = _Source(found[0], catalog, found[1], claimed, had)

    def _row(self, record: dict[str, Any]) -> None:
        """A line of one source: as it was told before as far as that goes, then new."""
        source, said, kind = self._of(record), record["said"], self._of_a_source[record["kind"]]
        _exactly(said, kind.columns)
        if kind.name == exchange.EVENT:
            self._follow(source, said)
        key = (kind.name, source.catalog)
        if key not in self._known:
            self._known[key] = kind.rows(self._connection, source.id)
        before = next(self._known[key], None)
        if before is None:
            if source.id == chain.OWN:
                raise TamperedError(
                    f"this export knows more of this very catalog than it does itself (a line of kind {kind.name}): "
                    "was an older backup put in its place?",
                    hint="put the newest backup in its place",
                )
            kind.put(self._connection, source.id, said)
            self._added[kind.name] += 1
        elif before[1] != said:
            at = f"event {said['seq']}" if kind.name == exchange.EVENT else f"a line of kind {kind.name}"
            raise TamperedError(
                f"the past of {source.name} ({source.catalog}) is told otherwise than it was imported before: {at} "
                "differs",
                hint="one of the two catalogs was rewritten: ask who keeps it",
            )

    def _follow(self, source: _Source, said: Mapping[str, Any]) -> None:
        event = kinds.event_of(said)
        fault = fault_of(event, source.length, source.last)
        if fault is not None:
            raise TamperedError(f"the log of {source.name} ({source.catalog}) breaks in this export: {fault}")
        source.length, source.last = event.seq, event.hash(source.catalog)

    def _prove(self) -> None:
        """The logs end where the file says, and what is new is what its events say."""
        for source in self._sources.values():
            if (source.length, source.last) != source.wanted:
                raise TamperedError(
                    f"the log of {source.name} ({source.catalog}) has {source.length} events in this export, and was "
                    f"to have {source.wanted[0]}, ending in {source.wanted[1]}"
                )
            for fault in records.faults(self._connection, source.id, after=source.had):
                raise TamperedError(f"a record of {source.name} is not what its log says: {fault}")

    def _taken(self, catalog: str) -> Taken:
        source = self._sources[_of({"catalog": catalog}, "catalog", self._sources)]
        if any(self._added.values()):
            details = {"catalog": catalog, "events": source.length, "head": source.last, "sources": len(self._sources)}
            chain.append(self._connection, chain.Entry("imported", source.name, details=details))
        return Taken(str(self._path), catalog, source.name, len(self._sources), self._line, dict(self._added))

    def _of(self, record: Mapping[str, Any]) -> _Source:
        return self._sources[_of(record, "source", self._sources)]

    # --- what sources share

    def _package(self, record: dict[str, Any]) -> None:
        kind, *values, sha256 = record["package"]
        if kind != contents.PACKAGE_TYPE or record["number"] != len(self._packages) + 1:
            raise ValueError("a package of a kind that is not known here, or out of order")
        name, version, arch, source, source_version = map(_is_text, values)
        known = kinds.digest_or_none(sha256)
        package = InstalledPackage(name, version, arch, source, source_version, known)
        number = contents.put_package(self._connection, package)
        self._packages.append(number)
        self._added[exchange.PACKAGE] += number > self._packages_had

    def _package_set(self, record: dict[str, Any]) -> None:
        digest = parse_digest(record["digest"])
        if self._is_known("package_sets", digest):
            return
        within = [self._packages[number - 1] for number in record["packages"] if number > 0]
        insert = "INSERT INTO package_sets (digest, size) VALUES (?, ?)"
        number = self._connection.execute(insert, [packed(digest), len(record["packages"])]).lastrowid
        rows = ([number, package] for package in within)
        self._connection.executemany("INSERT INTO package_set_members VALUES (?, ?)", rows)
        assert number is not None
        _require(digest, contents.set_digest(contents.members(self._connection, number)))
        self._added[exchange.PACKAGE_SET] += 1

    def _spec(self, record: dict[str, Any]) -> None:
        digest, facts = parse_digest(record["digest"]), _text(record, "facts")
        _require(digest, digests.of_bytes(facts.encode()))
        if not self._is_known("specs", digest):
            json.loads(facts)
            self._connection.execute("INSERT INTO specs (digest, facts) VALUES (?, ?)", [packed(digest), facts])
            self._added[exchange.SPEC] += 1

    def _inputs(self, record: dict[str, Any]) -> None:
        digest, named = parse_digest(record["digest"]), _text(record, "named")
        _require(digest, digests.of_json([named, record["files"]]))
        if not self._is_known("input_sets", digest):
            json.loads(named)
            insert = "INSERT INTO input_sets (digest, named) VALUES (?, ?)"
            number = self._connection.execute(insert, [packed(digest), named]).lastrowid
            rows = [[number, *part] for part in record["files"]]
            self._connection.executemany("INSERT INTO input_files VALUES (?, ?, ?, ?)", rows)
            self._added[exchange.INPUTS] += 1

    def _image(self, record: dict[str, Any]) -> None:
        known = [self._sources[_of({"source": one}, "source", self._sources)].id for one in record["sources"]]
        said = places.Said(**{name: record[name] for name in IMAGE_FIELDS})
        self._added[exchange.IMAGE] += places.put(self._connection, parse_digest(record["digest"]), said, known)

    def _account(self, record: dict[str, Any]) -> None:
        said = places.Said(**{name: record[name] for name in IMAGE_FIELDS})
        places.put(self._connection, parse_digest(record["digest"]), said, [self._of(record).id])

    def _attestation(self, record: dict[str, Any]) -> None:
        envelope = dsse.parse(kinds.envelope_bytes(_text(record, "envelope")))
        found = self._connection.execute("SELECT 1 FROM attestations WHERE digest = ?", [envelope.digest]).fetchone()
        if found is None:
            row = {**attestations.row_of(envelope), "indexed_at": _text(record, "indexed_at"),
                   "source": self._of(record).id}  # fmt: skip
            marks = ", ".join("?" * len(row))
            sql = f"INSERT INTO attestations ({', '.join(row)}) VALUES ({marks})"
            self._connection.execute(sql, list(row.values()))
            self._added[exchange.ATTESTATION] += 1

    def _is_known(self, table: str, digest: Digest) -> bool:
        sql = f"SELECT 1 FROM {table} WHERE digest = ?"
        return self._connection.execute(sql, [packed(digest)]).fetchone() is not None


def _require_format(header: Mapping[str, Any], path: Path) -> None:
    said = header.get("format")
    if said != exchange.FORMAT:
        raise CatalogError(
            f"this export is of format {str(said)[:20]}; this factory reads {exchange.FORMAT}",
            where=f"{path}:1",
            hint="use the version of factory that wrote it, or a newer one; nothing was imported",
        )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file as bytes, unpacked where it is gzip."""
    with path.open("rb") as raw:
        is_packed = raw.peek(2)[:2] == _GZIP
        if is_packed:
            with gzip.open(raw, "rb") as unzipped:
                yield cast("IO[bytes]", unzipped)
        else:
            yield raw


def _of(record: Mapping[str, Any], key: str, known: Mapping[str, Any]) -> str:
    value = _text(record, key)
    if value not in known:
        raise ValueError(f"{key} {value[:80]!r} is not known here")
    return value


def _text(record: Mapping[str, Any], key: str) -> str:
    return _is_text(record[key])


def _is_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:80]!r} is no text")
    return value


def _exactly(said: Any, columns: tuple[str, ...]) -> None:
    if not isinstance(said, dict) or set(said) != set(columns):
        raise ValueError(f"it is to say {', '.join(columns)}")


def _require(said: Digest, found: Digest) -> None:
    if said != found:
        raise TamperedError(f"it says of itself {said}, and has the digest {found}")
