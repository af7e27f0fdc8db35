"""What an image descends from, what descends from it, and what withdrew it: walks over the edges, in both directions.

A walk starts from a row id and follows one of the two indexes, so it costs what it finds and not what the catalog
holds. An image has one parent, unless the same bytes were baked on several; then the shorter way counts as its depth.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage
from factory.catalog.state import Withdrawal
from factory.digest import unpacked

T = TypeVar("T")
AT_A_TIME = 500
"""So many values stand in one IN (…)."""

_DEEPEST = 1000
"""A walk of one statement ends here: edges that somebody changed by hand may go round in circles."""

_ABOVE = (
    "WITH RECURSIVE walk(id, depth) AS (VALUES(:start, 0) UNION"
    f" SELECT parent, depth + 1 FROM edges JOIN walk ON child = walk.id AND depth < {_DEEPEST})"
)
_CHILDREN = "SELECT edges.child FROM json_each(?) CROSS JOIN edges ON edges.parent = json_each.value"
_CHILDREN_UNTIL = f"{_CHILDREN} CROSS JOIN images ON images.id = edges.child AND recorded_at <= ?"
_IMAGES = f"SELECT {COLUMNS} FROM json_each(?) CROSS JOIN images ON images.id = json_each.value"
_PARENTS = "SELECT edges.child, edges.parent FROM json_each(?) CROSS JOIN edges ON edges.child = json_each.value"
_REVOKED = (
    "SELECT images.id, revocations.source, revocations.digest, revocations.name, reason, at, made_at, attestation"
    " FROM json_each(?) CROSS JOIN images ON images.id = json_each.value"
    " CROSS JOIN revocations ON revocations.digest = images.digest WHERE at <= ? AND made_at <= ? ORDER BY at"
)


class Relative(NamedTuple):
    """An ancestor or descendant; `depth` 1 is a parent or child."""

    image: KnownImage
    depth: int


def ancestors(catalog: Catalog, image: int) -> list[Relative]:
    """What the image of this row id descends from, the nearest first."""
    sql = (
        f"{_ABOVE} SELECT {COLUMNS}, min(depth) AS depth FROM walk JOIN images ON images.id = walk.id"
        " WHERE walk.id <> :start GROUP BY walk.id ORDER BY depth, walk.id"
    )
    return [
        Relative(KnownImage(identity, unpacked(digest), *rest), depth)
        for identity, digest, *rest, depth in catalog.connection.execute(sql, {"start": image})
    ]


def descendants(
    catalog: Catalog, image: int, *, as_of: str | None = None, limit: int | None = None
) -> Iterator[Relative]:
    """What descends from the image of this row id (and was recorded by `as_of`), the nearest first, `limit` at most."""
    return itertools.islice(_descendants(catalog.connection, image, as_of), limit)


def _descendants(connection: sqlite3.Connection, image: int, as_of: str | None) -> Iterator[Relative]:
    for depth, level in _levels(connection, image, as_of):
        for number, digest, kind, name, arch, recorded_at, builder, package_set in connection.execute(
            _IMAGES, [json.dumps(level)]
        ):
            known = KnownImage(number, unpacked(digest), kind, name, arch, recorded_at, builder, package_set)
            yield Relative(known, depth)


def count_descendants(catalog: Catalog, image: int, *, as_of: str | None = None) -> int:
    """How many images descend from the image of this row id (and were recorded by `as_of`)."""
    return sum(len(level) for _, level in _levels(catalog.connection, image, as_of))


def _levels(connection: sqlite3.Connection, image: int, as_of: str | None) -> Iterator[tuple[int, list[int]]]:
    """(depth, row ids) of each generation below an image: each id once, and sorted, as their rows are."""
    sql, moment = (_CHILDREN, []) if as_of is None else (_CHILDREN_UNTIL, [as_of])
    level, known = [image], {image}
    for depth in itertools.count(1):
        found = {row[0] for row in connection.execute(sql, [json.dumps(level), *moment])} - known
        if not found:
            return
        known |= found
        level = sorted(found)
        yield depth, level


def edges_among(catalog: Catalog, images: Iterable[int]) -> list[tuple[int, int]]:
    """(parent, child) of every edge between two of these row ids."""
    known = set(images)
    found = (
        row
        for part in batches(sorted(known))
        for row in catalog.connection.execute(
            f"SELECT parent, child FROM edges WHERE child IN ({marks(part)})",
            part,
        )
    )
    return [(parent, child) for parent, child in found if parent in known]


def revoked_by(catalog: Catalog, image: int, as_of: str | None = None) -> Withdrawal | None:
    """The revocation that withdraws an image: its own, else that of the nearest ancestor that has one."""
    return withdrawn(catalog, [image], as_of).get(image)


def withdrawn(catalog: Catalog, images: Iterable[int], as_of: str | None = None) -> dict[int, Withdrawal]:
    """Of these row ids, those that are revoked, themselves or by an ancestor, each with the nearest revocation."""
    connection = catalog.connection
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM revocations)").fetchone()[0]:
        return {}
    wanted, moment = sorted(set(images)), as_of or now()
    parents = _above(connection, wanted)
    revoked: dict[int, Withdrawal] = {}
    for number, source, digest, *said in connection.execute(_REVOKED, [json.dumps(list(parents)), moment, moment]):
        revoked.setdefault(number, Withdrawal(source, unpacked(digest), *said))
    nearest = ((image, _nearest(image, parents, revoked)) for image in wanted) if revoked else ()
    return {image: withdrawal for image, withdrawal in nearest if withdrawal is not None}


def _above(connection: sqlite3.Connection, images: list[int]) -> dict[int, list[int]]:
    """Row id -> those of its parents, for these images and all their ancestors, each looked at once."""
    parents: dict[int, list[int]] = {image: [] for image in images}
    level = images
    while level:
        found: set[int] = set()
        for child, parent in connection.execute(_PARENTS, [json.dumps(level)]):
            parents[child].append(parent)
            found.add(parent)
        level = sorted(found - parents.keys())
        parents.update((image, []) for image in level)
    return parents


def _nearest(image: int, parents: dict[int, list[int]], revoked: dict[int, Withdrawal]) -> Withdrawal | None:
    """The revocation of the image, else of the nearest ancestor that has one."""
    level, seen = [image], {image}
    while level:
        found = [revoked[one] for one in level if one in revoked]
        if found:
            return min(found, key=lambda withdrawal: withdrawal.at)
        level = [parent for one in level for parent in parents[one] if parent not in seen]
        seen.update(level)
    return None


def batches(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in lists of AT_A_TIME at most."""
    remaining = iter(values)
    while part := list(itertools.islice(remaining, AT_A_TIME)):
        yield part


def marks(values: Sequence[object]) -> str:
    """The placeholders of an IN (…)."""
    return ", ".join("?" * len(values))
