"""Writes a catalog as JSON lines, as it was at one moment, whatever others write meanwhile. Streams."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from factory.catalog import chain, exchange
from factory.catalog.database import Catalog
from factory.catalog.exchange import kinds
from factory.catalog.exchange.kinds import hexed
from factory.digest import unpacked

_IMAGE = ", ".join(
    [
        "kind, name, arch, recorded_at, builder",
        hexed("tree", "tree"),
        hexed("(SELECT digest FROM specs WHERE id = spec)", "spec"),
        hexed("(SELECT digest FROM package_sets WHERE id = package_set)", "package_set"),
    ]
)
IMAGE_FIELDS = ("image_kind", "name", "arch", "recorded_at", "builder", "tree", "spec", "package_set")


def export(catalog: Catalog, name: str) -> Iterator[str]:
    """The lines, each with its end. `name`: what whoever imports it is to call this catalog. CatalogError."""
    hasher = hashlib.sha256()
    count = 0
    with catalog.reading() as connection:
        for record in _records(connection, name):
            line = encoded(record)
            hasher.update(line.encode())
            count += 1
            yield line
    yield encoded({"kind": exchange.END, "lines": count, "digest": f"sha256:{hasher.hexdigest()}"})


def encoded(record: dict[str, Any]) -> str:
    """A record as its line."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def _records(connection: sqlite3.Connection, name: str) -> Iterator[dict[str, Any]]:
    own = chain.head(connection)
    yield {"kind": exchange.HEADER, "format": exchange.FORMAT, "catalog": own.catalog}
    catalogs: dict[int, str] = {}
    for number, catalog, called, added_at in connection.execute("SELECT * FROM sources ORDER BY id").fetchall():
        end = chain.head(connection, number)
        catalogs[number] = catalog
        yield {
            "kind": exchange.SOURCE,
            "catalog": catalog,
            "name": name if number == chain.OWN else called,
            "added_at": added_at,
            "events": end.length,
            "head": end.digest,
        }
    yield from _of_sources(connection, kinds.EVENTS, catalogs)
    yield from _shared(connection)
    yield from _images(connection, catalogs)
    sql = "SELECT source, envelope, indexed_at FROM attestations ORDER BY id"
    for number, raw, indexed_at in connection.execute(sql):
        envelope = kinds.envelope_text(raw)
        yield {"kind": exchange.ATTESTATION, "source": catalogs[number], "indexed_at": indexed_at, "envelope": envelope}
    for kind in kinds.OF_A_SOURCE:
        yield from _of_sources(connection, kind, catalogs)


def _of_sources(connection: sqlite3.Connection, kind: kinds.Kind, catalogs: dict[int, str]) -> Iterator[dict[str, Any]]:
    for number, said in kind.rows(connection):
        yield {"kind": kind.name, "source": catalogs[number], "said": said}


def _shared(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """What images share. Packages are numbered in their order, sets name them by these numbers."""
    numbers: dict[int, int] = {}
    sql = "SELECT id, type, name, version, arch, source, source_version, sha256 FROM packages ORDER BY id"
    for identity, *values, sha256 in connection.execute(sql):
        numbers[identity] = len(numbers) + 1
        known = None if sha256 is None else unpacked(sha256)
        yield {"kind": exchange.PACKAGE, "number": numbers[identity], "package": [*values, known]}
    for identity, digest in connection.execute("SELECT id, digest FROM package_sets ORDER BY id"):
        members = "SELECT package FROM package_set_members WHERE package_set = ? ORDER BY package"
        within = [numbers[row[0]] for row in connection.execute(members, [identity])]
        yield {"kind": exchange.PACKAGE_SET, "digest": unpacked(digest), "packages": within}
    for digest, facts in connection.execute("SELECT digest, facts FROM specs ORDER BY id"):
        yield {"kind": exchange.SPEC, "digest": unpacked(digest), "facts": facts}
    for identity, digest, named in connection.execute("SELECT id, digest, named FROM input_sets ORDER BY id"):
        files = "SELECT input, path, digest FROM input_files WHERE input_set = ? ORDER BY input, path"
        parts = [list(row) for row in connection.execute(files, [identity])]
        yield {"kind": exchange.INPUTS, "digest": unpacked(digest), "named": named, "files": parts}


def _images(connection: sqlite3.Connection, catalogs: dict[int, str]) -> Iterator[dict[str, Any]]:
    agreeing = (
        "SELECT source FROM image_sources WHERE image = images.id"
        " AND source NOT IN (SELECT source FROM image_accounts WHERE image = images.id) ORDER BY source"
    )
    sql = f"SELECT digest, (SELECT group_concat(source) FROM ({agreeing})), {_IMAGE} FROM images ORDER BY id"
    for digest, sources, *values in connection.execute(sql):
        known = [catalogs[int(number)] for number in str(sources).split(",")] if sources is not None else []
        said = dict(zip(IMAGE_FIELDS, values, strict=True))
        yield {"kind": exchange.IMAGE, "digest": unpacked(digest), **said, "sources": known}
    sql = (
        f"SELECT source, (SELECT digest FROM images WHERE images.id = image), {_IMAGE} FROM image_accounts"
        " ORDER BY image, source"
    )
    for number, digest, *values in connection.execute(sql):
        said = dict(zip(IMAGE_FIELDS, values, strict=True))
        yield {"kind": exchange.ACCOUNT, "source": catalogs[number], "digest": unpacked(digest), **said}
