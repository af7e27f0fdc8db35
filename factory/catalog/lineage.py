"""What an image descends from, what descends from it, and what withdrew it: walks over the edges, in both directions.

A walk starts from a row id and follows one of the two indexes, so it costs what it finds and not what the catalog
holds. An image has one parent, unless the same bytes were baked on several; then the shorter way counts as its depth.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage
from factory.catalog.state import Withdrawal
from factory.digest import Digest, unpacked

T = TypeVar("T")
AT_A_TIME = 500
"""So many values stand in one IN (…)."""

_ABOVE = (
    "WITH RECURSIVE walk(id, depth) AS (VALUES(:start, 0) UNION"
    " SELECT parent, depth + 1 FROM edges JOIN walk ON child = walk.id)"
)
_BELOW = (
    "WITH RECURSIVE walk(id, depth) AS (VALUES(:start, 0) UNION"
    " SELECT child, depth + 1 FROM edges JOIN walk ON parent = walk.id)"
)
_BELOW_UNTIL = (
    "WITH RECURSIVE walk(id, depth) AS (VALUES(:start, 0) UNION SELECT child, depth + 1 FROM walk"
    " JOIN edges ON parent = walk.id JOIN images ON images.id = child AND recorded_at <= :as_of)"
)


@dataclass(frozen=True)
class Relative:
    """An ancestor or descendant; `depth` 1 is a parent or child."""

    image: KnownImage
    depth: int


def ancestors(catalog: Catalog, image: int) -> list[Relative]:
    """What the image of this row id descends from, the nearest first."""
    return list(_relatives(catalog, _ABOVE, {"start": image}))


def descendants(
    catalog: Catalog, image: int, *, as_of: str | None = None, limit: int | None = None
) -> Iterator[Relative]:
    """What descends from the image of this row id (and was recorded by `as_of`), the nearest first, `limit` at most."""
    walk = _BELOW if as_of is None else _BELOW_UNTIL
    return _relatives(catalog, walk, {"start": image, "as_of": as_of}, limit)


def count_descendants(catalog: Catalog, image: int, *, as_of: str | None = None) -> int:
    """How many images descend from the image of this row id (and were recorded by `as_of`)."""
    walk = _BELOW if as_of is None else _BELOW_UNTIL
    sql = f"{walk} SELECT count(DISTINCT id) - 1 FROM walk"  # noqa: S608
    return int(catalog.connection.execute(sql, {"start": image, "as_of": as_of}).fetchone()[0])


def edges_among(catalog: Catalog, images: Iterable[int]) -> list[tuple[int, int]]:
    """(parent, child) of every edge between two of these row ids."""
    known = set(images)
    found = (
        row
        for part in batches(sorted(known))
        for row in catalog.connection.execute(
            f"SELECT parent, child FROM edges WHERE child IN ({marks(part)})",  # noqa: S608
            part,
        )
    )
    return [(parent, child) for parent, child in found if parent in known]


def revoked_by(catalog: Catalog, image: int, as_of: str | None = None) -> Withdrawal | None:
    """The revocation that withdraws an image: its own, else that of the nearest ancestor that has one."""
    return withdrawn(catalog, [image], as_of).get(image)


def withdrawn(catalog: Catalog, images: Iterable[int], as_of: str | None = None) -> dict[int, Withdrawal]:
    """Of these row ids, those that are revoked, themselves or by an ancestor, each with the nearest revocation."""
    if not catalog.connection.execute("SELECT EXISTS (SELECT 1 FROM revocations)").fetchone()[0]:
        return {}
    moment = as_of or now()
    found: dict[int, Withdrawal] = {}
    for part in batches(sorted(set(images))):
        sql = (
            f"WITH RECURSIVE walk(start, id, depth) AS (SELECT column1, column1, 0 FROM (VALUES {_rows(part)}) UNION"  # noqa: S608
            " SELECT start, parent, depth + 1 FROM edges JOIN walk ON child = walk.id)"
            " SELECT start, revocations.source, revocations.digest, revocations.name, reason, at, made_at, attestation"
            " FROM walk JOIN images ON images.id = walk.id JOIN revocations ON revocations.digest = images.digest"
            " WHERE at <= ? AND made_at <= ? ORDER BY start, depth, at"
        )
        for start, source, digest, name, reason, at, made_at, attestation in catalog.connection.execute(
            sql, [*part, moment, moment]
        ):
            said = Withdrawal(source, unpacked(digest), name, reason, at, made_at, attestation)
            found.setdefault(start, said)
    return found


def batches(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in lists of AT_A_TIME at most."""
    remaining = iter(values)
    while part := list(itertools.islice(remaining, AT_A_TIME)):
        yield part


def marks(values: Sequence[object]) -> str:
    """The placeholders of an IN (…)."""
    return ", ".join("?" * len(values))


def _rows(values: list[int]) -> str:
    return ", ".join(["(?)"] * len(values))


def _relatives(
    catalog: Catalog, walk: str, parameters: dict[str, int | str | None], limit: int | None = None
) -> Iterator[Relative]:
    sql = (
        f"{walk} SELECT {COLUMNS}, min(depth) AS depth FROM walk JOIN images ON images.id = walk.id"  # noqa: S608
        " WHERE walk.id <> :start GROUP BY walk.id ORDER BY depth, walk.id LIMIT :limit"
    )
    for identity, digest, *rest, depth in catalog.connection.execute(
        sql, {**parameters, "limit": -1 if limit is None else limit}
    ):
        yield Relative(KnownImage(identity, Digest("sha256:" + digest.hex()), *rest), depth)
