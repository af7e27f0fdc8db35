"""What held at a moment: which image stood in which channel, what was withdrawn, what ran. `as_of` None is now.

`as_of` is a time as the catalog writes it (clock.text). An index of signed statements and of what rollouts noted: the
papers in trust/ decide what may run, not these rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.catalog.finding import COLUMNS, KnownImage
from factory.digest import Digest, unpacked

_IN_SETS = "(images.package_set IS NULL OR images.package_set IN (SELECT value FROM json_each(:sets)))"


@dataclass(frozen=True)
class Assignment:
    """An image in a channel. `source`: the catalog that says so (1: this one); `attestation`: row of its promotion."""

    source: int
    channel: str
    name: str
    arch: str
    digest: Digest
    number: int
    made_at: str
    attestation: int


@dataclass(frozen=True)
class Withdrawal:
    """A revoked image, or base, from `at` on."""

    source: int
    digest: Digest
    name: str
    reason: str
    at: str
    made_at: str
    attestation: int


@dataclass(frozen=True)
class Running:
    """An instance that runs. `native`: the id that its provider knows it by."""

    source: int
    fleet: str
    generation: int
    provider: str
    native: str
    digest: Digest
    launched_at: str


def assignments(catalog: Catalog, as_of: str | None = None) -> list[Assignment]:
    """The promotion in force of each image in each channel, sorted by channel and name."""
    sql = (
        "SELECT source, channel, name, arch, digest, max(number) AS number, made_at, attestation"
        " FROM channel_assignments WHERE :as_of IS NULL OR made_at <= :as_of"
        " GROUP BY source, channel, name, arch ORDER BY channel, name, arch, source"
    )
    return [Assignment(**{**row, "digest": unpacked(row["digest"])}) for row in catalog.query(sql, {"as_of": as_of})]


def channels(catalog: Catalog) -> set[str]:
    """The names of all channels that an image ever stood in."""
    return {row["channel"] for row in catalog.query("SELECT DISTINCT channel FROM channel_assignments")}


def assignments_of_sets(
    catalog: Catalog, package_sets: Iterable[int], as_of: str | None = None
) -> tuple[list[tuple[Assignment, KnownImage]], list[Assignment]]:
    """Of `assignments`, those of an image that has one of these sets of packages, each with the image; and those of an
    image that is not known, or whose packages are not."""
    until = "" if as_of is None else "WHERE made_at <= :as_of"
    sql = (
        "SELECT held.source, held.channel, held.name, held.arch, held.digest, held.number, held.made_at,"
        f" held.attestation, {COLUMNS} FROM (SELECT id AS last, max(number) FROM channel_assignments {until}"
        " GROUP BY source, channel, name, arch) CROSS JOIN channel_assignments AS held ON held.id = last"
        f" LEFT JOIN images ON images.digest = held.digest WHERE {_IN_SETS}"
        " ORDER BY held.channel, held.name, held.arch, held.source"
    )
    found, unknown = [], []
    for source, channel, name, arch, packed, number, made_at, attestation, *image in catalog.connection.execute(
        sql, {"as_of": as_of, "sets": json.dumps(list(package_sets))}
    ):
        digest = unpacked(packed)
        assignment = Assignment(source, channel, name, arch, digest, number, made_at, attestation)
        if (known := _with_packages(digest, image)) is not None:
            found.append((assignment, known))
        else:
            unknown.append(assignment)
    return found, unknown


def _with_packages(digest: Digest, columns: list[Any]) -> KnownImage | None:
    """The image of COLUMNS; None where it, or its packages, are not known."""
    row, _, *rest = columns
    return KnownImage(row, digest, *rest) if rest[-1] is not None else None


def withdrawals(catalog: Catalog, as_of: str | None = None) -> dict[Digest, Withdrawal]:
    """What is revoked, each with the revocation that began first. Not its descendants: see lineage.py."""
    sql = (
        "SELECT source, digest, name, reason, min(at) AS at, made_at, attestation FROM revocations"
        " WHERE at <= :moment AND made_at <= :moment GROUP BY digest ORDER BY at"
    )
    found: dict[Digest, Withdrawal] = {}
    for row in catalog.query(sql, {"moment": as_of or now()}):
        digest = unpacked(row["digest"])
        found[digest] = Withdrawal(**{**row, "digest": digest})
    return found


def running(catalog: Catalog, as_of: str | None = None) -> list[Running]:
    """The instances that run, sorted by fleet, generation and id."""
    sql = (
        "SELECT source, fleet, generation, provider, native, digest, launched_at FROM instances"
        " LEFT JOIN instance_ends ON instance = instances.id"
        " WHERE (ended_at IS NULL OR ended_at > :as_of) AND (:as_of IS NULL OR launched_at <= :as_of)"
        " ORDER BY fleet, generation, native"
    )
    return [Running(**{**row, "digest": unpacked(row["digest"])}) for row in catalog.query(sql, {"as_of": as_of})]


def running_of_sets(
    catalog: Catalog, package_sets: Iterable[int], as_of: str | None = None
) -> tuple[list[tuple[Running, KnownImage]], list[Running]]:
    """Of `running`, those of an image that has one of these sets of packages, each with the image; and those of an
    image that is not known, or whose packages are not."""
    sql = (
        f"SELECT source, fleet, generation, provider, native, launched_at, instances.digest, {COLUMNS}"
        " FROM instances LEFT JOIN instance_ends ON instance = instances.id"
        " LEFT JOIN images ON images.digest = instances.digest"
        " WHERE (ended_at IS NULL OR ended_at > :as_of) AND (:as_of IS NULL OR launched_at <= :as_of)"
        f" AND {_IN_SETS} ORDER BY fleet, generation, native"
    )
    found, unknown = [], []
    for source, fleet, generation, provider, native, launched_at, packed, *image in catalog.connection.execute(
        sql, {"as_of": as_of, "sets": json.dumps(list(package_sets))}
    ):
        digest = unpacked(packed)
        running = Running(source, fleet, generation, provider, native, digest, launched_at)
        if (known := _with_packages(digest, image)) is not None:
            found.append((running, known))
        else:
            unknown.append(running)
    return found, unknown
