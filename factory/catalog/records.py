"""Every bake as it stands in the tables, held against the digest that its event in the log has of it.

Reads what `contents.as_plain` reads of one bake, for all bakes at once and in the same words; and for a bake that was
imported as its own source told it (`image_accounts`). Streams.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from factory import digest as digests
from factory.digest import Digest, unpacked

_SQL = """
SELECT bakes.event, coalesce(events.action, ''), events.record, images.digest,
    coalesce(told.kind, images.kind), iif(told.image IS NULL, images.builder, told.builder),
    iif(told.image IS NULL, images.tree, told.tree), specs.digest, sets.digest, bakes.name, bakes.arch, parents.digest,
    coalesce(above.kind, parents.kind), coalesce(above.name, parents.name), bake_key, run, bakes.kind, baked_at,
    added.digest, input_sets.digest, pins,
    (SELECT json_group_array(json_array(format, 'sha256:' || lower(hex(digest)), size_bytes))
        FROM (SELECT * FROM artifacts WHERE bake = bakes.id ORDER BY format)),
    (SELECT json_group_array(json_array(place, native))
        FROM (SELECT * FROM locations WHERE bake = bakes.id ORDER BY place))
FROM bakes JOIN images ON images.id = bakes.image JOIN images AS parents ON parents.id = bakes.parent
LEFT JOIN events ON events.source = bakes.source AND events.seq = bakes.event
LEFT JOIN image_accounts AS told ON told.image = bakes.image AND told.source = bakes.source
LEFT JOIN image_accounts AS above ON above.image = bakes.parent AND above.source = bakes.source
LEFT JOIN specs ON specs.id = iif(told.image IS NULL, images.spec, told.spec)
LEFT JOIN package_sets AS sets ON sets.id = iif(told.image IS NULL, images.package_set, told.package_set)
LEFT JOIN package_sets AS added ON added.id = bakes.added
LEFT JOIN input_sets ON input_sets.id = bakes.inputs
WHERE bakes.source = ? AND bakes.event > ? ORDER BY bakes.id
"""
_NAMES = (
    "digest", "image_kind", "builder", "tree", "spec", "packages", "name", "arch", "parent", "parent_kind",
    "parent_name", "bake_key", "run", "kind", "baked_at", "added", "inputs", "pins",
)  # fmt: skip

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
"""As in chain.py: of texts, whole numbers and null it makes what RFC 8785 asks for."""


def digests_of(connection: sqlite3.Connection, source: int, after: int = 0) -> Iterator[tuple[int, Digest, Any, str]]:
    """(seq of its event, digest of the bake as it stands, digest that the event has, action of the event) of every
    bake of a source whose event comes after `after`."""
    for event, action, record, *values, artifacts, locations in connection.execute(_SQL, [source, after]):
        plain = {
            name: unpacked(value) if isinstance(value, bytes) else value
            for name, value in zip(_NAMES, values, strict=True)
        }
        plain["artifacts"] = [
            {"format": form, "digest": digest, "size_bytes": size} for form, digest, size in json.loads(artifacts)
        ]
        plain["locations"] = [{"place": place, "native": native} for place, native in json.loads(locations)]
        said = None if record is None else unpacked(record)
        yield event, digests.of_bytes(_encode(plain).encode()), said, action


def faults(connection: sqlite3.Connection, source: int, after: int = 0) -> Iterator[str]:
    """What is wrong between the bakes of a source and its log, from the event after `after` on: a sentence each."""
    for event, found, said, action in digests_of(connection, source, after):
        if said is None:
            yield f"event {event} does not tell of the bake that names it" + (f" ({action})" if action else "")
        elif said != found:
            yield f"the bake of event {event} was changed: it had the digest {said}, and has {found}"
    sql = (
        "SELECT seq FROM events WHERE source = ? AND seq > ? AND record IS NOT NULL"
        " AND seq NOT IN (SELECT event FROM bakes WHERE source = ?) ORDER BY seq"
    )
    for (event,) in connection.execute(sql, [source, after, source]):
        yield f"the bake that event {event} tells of is not there"
    sql = "SELECT event FROM bakes WHERE source = ? AND event > ? GROUP BY event HAVING count(*) > 1"
    for (event,) in connection.execute(sql, [source, after]):
        yield f"more than one bake names event {event}"
