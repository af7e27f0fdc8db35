"""All that was recorded of one image: each bake and what went into it, its stored forms, checks, instances, papers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from factory.catalog.contents import InputFile
from factory.catalog.database import Catalog
from factory.catalog.events import Check
from factory.catalog.finding import KnownImage
from factory.digest import Digest, packed, unpacked
from factory.trust import dsse, promotions
from factory.trust.promotions import Waiver


@dataclass(frozen=True)
class Bake:
    """One time an image was recorded: `kind` is `baked`, or `verified` (only checked again). `parent`: what it was
    baked on, with its NAME/ARCH. `inputs`: named input -> its digest."""

    id: int
    source: str
    run: str
    kind: str
    baked_at: str
    bake_key: Digest
    parent: Digest
    parent_name: str
    inputs: Mapping[str, Digest]


@dataclass(frozen=True)
class Artifact:
    """A stored form; `digest` is of its file."""

    format: str
    digest: Digest
    size_bytes: int | None


@dataclass(frozen=True)
class Location:
    """Where an image is published, and the id it has there."""

    place: str
    native: str


@dataclass(frozen=True)
class Promoted:
    """A promotion of an image; `in_force` while no later one took its place in the channel.

    `requirements` (name -> passed or waived) and `waivers` are what its `envelope` says; nothing is verified here.
    """

    channel: str
    number: int
    made_at: str
    in_force: bool
    envelope: Digest
    requirements: Mapping[str, str]
    waivers: tuple[Waiver, ...]


@dataclass(frozen=True)
class Machine:
    """An instance of an image; `ended_at` None: it runs."""

    fleet: str
    generation: int
    provider: str
    native: str
    launched_at: str
    ended_at: str | None
    reason: str | None


@dataclass(frozen=True)
class Paper:
    """A signed envelope that speaks of an image. `signers`: the key ids it gives; nothing of it is verified here."""

    predicate_type: str
    digest: Digest
    made_at: str
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Details:
    """`bakes`: the last one first. `spec`: what images.toml said. `checks`: of the last bake. Of an image that is known
    only as a parent, and of a base, most of it is empty."""

    image: KnownImage
    tree: Digest | None
    packages: int
    bakes: tuple[Bake, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    locations: tuple[Location, ...] = ()
    checks: tuple[Check, ...] = ()
    promotions: tuple[Promoted, ...] = ()
    instances: tuple[Machine, ...] = ()
    papers: tuple[Paper, ...] = ()


def details(catalog: Catalog, image: KnownImage, as_of: str | None = None) -> Details:
    """All of it, as it was known at `as_of`."""
    sql = (
        "SELECT tree, facts, ifnull(size, 0) AS size FROM images LEFT JOIN specs ON specs.id = images.spec"
        " LEFT JOIN package_sets ON package_sets.id = package_set WHERE images.id = ?"
    )
    row = catalog.query(sql, [image.id])[0]
    bakes = _bakes(catalog, image, as_of)
    last = bakes[0] if bakes else None
    return Details(
        image,
        None if row["tree"] is None else unpacked(row["tree"]),
        row["size"],
        bakes,
        {} if row["facts"] is None else json.loads(row["facts"]),
        _artifacts(catalog, bakes),
        _locations(catalog, bakes),
        () if last is None else tuple(checks_of(catalog, last.id)),
        _promotions(catalog, image, as_of),
        _instances(catalog, image, as_of),
        _papers(catalog, image, as_of),
    )


def checks_of(catalog: Catalog, bake: int) -> list[Check]:
    """The checks of a bake, in the order they were noted."""
    sql = (
        "SELECT test, outcome, duration_s, message, exempted FROM checks JOIN bakes ON bakes.run = checks.run"
        " AND bakes.name = checks.image AND bakes.arch = checks.arch AND bakes.source = checks.source"
        " WHERE bakes.id = ? ORDER BY checks.id"
    )
    return [Check(**{**row, "exempted": bool(row["exempted"])}) for row in catalog.query(sql, [bake])]


def input_files(catalog: Catalog, bake: int) -> list[InputFile]:
    """The files that went into a bake, by input and path."""
    sql = (
        "SELECT input, path, digest FROM input_files WHERE input_set = (SELECT inputs FROM bakes WHERE id = ?)"
        " ORDER BY input, path"
    )
    return [InputFile(**row) for row in catalog.query(sql, [bake])]


def _bakes(catalog: Catalog, image: KnownImage, as_of: str | None) -> tuple[Bake, ...]:
    sql = (
        "SELECT bakes.id, sources.name AS source, run, bakes.kind, baked_at, bake_key, parents.digest AS parent,"
        " CASE parents.kind WHEN 'image' THEN parents.name || '/' || parents.arch ELSE parents.name END AS parent_name,"
        " named FROM bakes JOIN sources ON sources.id = bakes.source"
        " JOIN images AS parents ON parents.id = bakes.parent LEFT JOIN input_sets ON input_sets.id = bakes.inputs"
        " WHERE image = ? AND (? IS NULL OR baked_at <= ?) ORDER BY bakes.id DESC"
    )
    rows = catalog.query(sql, [image.id, as_of, as_of])
    return tuple(
        Bake(
            **{key: value for key, value in row.items() if key not in ("bake_key", "parent", "named")},
            bake_key=unpacked(row["bake_key"]),
            parent=unpacked(row["parent"]),
            inputs=json.loads(row["named"] or "{}"),
        )
        for row in rows
    )


def _artifacts(catalog: Catalog, bakes: tuple[Bake, ...]) -> tuple[Artifact, ...]:
    """The stored forms, as the last bake that had each says."""
    found: dict[str, Artifact] = {}
    for bake in bakes:
        for row in catalog.query("SELECT format, digest, size_bytes FROM artifacts WHERE bake = ?", [bake.id]):
            found.setdefault(row["format"], Artifact(row["format"], unpacked(row["digest"]), row["size_bytes"]))
    return tuple(found[name] for name in sorted(found))


def _locations(catalog: Catalog, bakes: tuple[Bake, ...]) -> tuple[Location, ...]:
    found: dict[str, Location] = {}
    for bake in bakes:
        for row in catalog.query("SELECT place, native FROM locations WHERE bake = ?", [bake.id]):
            found.setdefault(row["place"], Location(**row))
    return tuple(found[place] for place in sorted(found))


def _promotions(catalog: Catalog, image: KnownImage, as_of: str | None) -> tuple[Promoted, ...]:
    sql = (
        "SELECT channel, number, made_at, number = (SELECT max(number) FROM channel_assignments"
        " WHERE source = held.source AND channel = held.channel AND name = held.name AND arch = held.arch"
        " AND (:as_of IS NULL OR made_at <= :as_of)) AS in_force, envelope FROM channel_assignments AS held"
        " JOIN (SELECT id, envelope FROM attestations) AS signed ON signed.id = held.attestation"
        " WHERE digest = :digest AND (:as_of IS NULL OR made_at <= :as_of) ORDER BY made_at DESC, channel"
    )
    rows = catalog.query(sql, {"digest": packed(image.digest), "as_of": as_of})
    return tuple(_promoted(**row) for row in rows)


def _promoted(channel: str, number: int, made_at: str, in_force: int, envelope: bytes) -> Promoted:
    """A promotion with what its envelope says. TamperedError where that cannot be read."""
    signed = dsse.parse(envelope, f"promotion {number} to {channel[:80]}")
    said = promotions.read(signed)
    return Promoted(channel, number, made_at, bool(in_force), signed.digest, said.requirements, said.waivers)


def _instances(catalog: Catalog, image: KnownImage, as_of: str | None) -> tuple[Machine, ...]:
    sql = (
        "SELECT fleet, generation, provider, native, launched_at, ended_at, reason FROM instances"
        " LEFT JOIN instance_ends ON instance = instances.id"
        " WHERE digest = :digest AND (:as_of IS NULL OR launched_at <= :as_of)"
        " ORDER BY ended_at IS NOT NULL, fleet, generation, native"
    )
    rows = catalog.query(sql, {"digest": packed(image.digest), "as_of": as_of})
    gone = {"ended_at": None, "reason": None}
    return tuple(
        Machine(**(row if as_of is None or (row["ended_at"] or "") <= as_of else {**row, **gone})) for row in rows
    )


def _papers(catalog: Catalog, image: KnownImage, as_of: str | None) -> tuple[Paper, ...]:
    sql = (
        "SELECT predicate_type, digest, made_at, signers FROM attestations"
        " WHERE image = :digest AND (:as_of IS NULL OR made_at <= :as_of) ORDER BY id"
    )
    rows = catalog.query(sql, {"digest": image.digest, "as_of": as_of})
    return tuple(Paper(**{**row, "signers": tuple(json.loads(row["signers"]))}) for row in rows)
