"""Version 3: lineage as edges, contents stored once, the hash-chained log of events, where images stand and run.

Takes the place of the tables of version 1 that repeated themselves: a package, a set of packages, a set of input files
and what images.toml said are each stored once, however many images share them. Digests of images are 32 bytes here,
since a catalog holds a million of them; the views at the end show them as people write them.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from dataclasses import dataclass
from typing import Any

from factory import lockfile
from factory.catalog import chain, contents, signed
from factory.catalog.clock import now
from factory.trust import dsse

SQL = """
CREATE TABLE sources (          -- the catalogs whose rows are here: 1 is this one, others were imported
    id INTEGER PRIMARY KEY,
    catalog TEXT NOT NULL UNIQUE,   -- its own random id
    name TEXT NOT NULL,
    added_at TEXT NOT NULL
) STRICT;

CREATE TABLE packages (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,         -- purl's word for where it is from: deb
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    arch TEXT NOT NULL,
    source TEXT NOT NULL,
    source_version TEXT NOT NULL,
    sha256 BLOB,                -- of its file, NULL where that is not known
    purl TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX packages_once
    ON packages(name, version, arch, source, source_version, type, ifnull(sha256, x''));
CREATE INDEX packages_of_source ON packages(source);
CREATE VIRTUAL TABLE package_search
    USING fts5(name, source, content='packages', content_rowid='id', tokenize='trigram');
CREATE TRIGGER packages_searched AFTER INSERT ON packages BEGIN
    INSERT INTO package_search(rowid, name, source) VALUES (NEW.id, NEW.name, NEW.source);
END;

CREATE TABLE package_sets (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,    -- of its members, as contents.py says
    size INTEGER NOT NULL
) STRICT;
CREATE TABLE package_set_members (
    package_set INTEGER NOT NULL REFERENCES package_sets(id),
    package INTEGER NOT NULL REFERENCES packages(id),
    PRIMARY KEY (package_set, package)
) STRICT, WITHOUT ROWID;
CREATE INDEX package_sets_of_package ON package_set_members(package, package_set);
CREATE TABLE package_set_counts (   -- derived, kept by triggers: how many images have a set
    package_set INTEGER PRIMARY KEY REFERENCES package_sets(id),
    images INTEGER NOT NULL
) STRICT;

CREATE TABLE specs (            -- what images.toml said of an image
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    facts TEXT NOT NULL         -- JSON
) STRICT;

CREATE TABLE input_sets (       -- what went into a bake
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    named TEXT NOT NULL         -- JSON: input -> its digest, as in images.lock
) STRICT;
CREATE TABLE input_files (      -- the same, down to the file
    input_set INTEGER NOT NULL REFERENCES input_sets(id),
    input TEXT NOT NULL,
    path TEXT NOT NULL,         -- inside the input
    digest TEXT NOT NULL,
    PRIMARY KEY (input_set, input, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE images (           -- golden images, and the bases they start from
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,         -- image; of a base: debootstrap, disk, ami
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    recorded_at TEXT,           -- NULL: known only as the parent of another; all below is NULL then
    builder TEXT,
    tree BLOB,
    spec INTEGER REFERENCES specs(id),
    package_set INTEGER REFERENCES package_sets(id)
) STRICT;
CREATE INDEX images_of_name ON images(name);
CREATE INDEX images_of_package_set ON images(package_set);
CREATE TRIGGER images_no_update BEFORE UPDATE ON images
    WHEN OLD.recorded_at IS NOT NULL OR NEW.id <> OLD.id OR NEW.digest <> OLD.digest BEGIN
    SELECT RAISE(ABORT, 'the catalog is append-only: images');
END;
CREATE TRIGGER images_no_delete BEFORE DELETE ON images BEGIN
    SELECT RAISE(ABORT, 'the catalog is append-only: images');
END;
CREATE TRIGGER images_counted AFTER INSERT ON images WHEN NEW.package_set IS NOT NULL BEGIN
    INSERT INTO package_set_counts VALUES (NEW.package_set, 1) ON CONFLICT DO UPDATE SET images = images + 1;
END;
CREATE TRIGGER images_counted_late AFTER UPDATE ON images WHEN NEW.package_set IS NOT NULL BEGIN
    INSERT INTO package_set_counts VALUES (NEW.package_set, 1) ON CONFLICT DO UPDATE SET images = images + 1;
END;

CREATE TABLE image_sources (    -- which catalogs know an image
    image INTEGER NOT NULL REFERENCES images(id),
    source INTEGER NOT NULL REFERENCES sources(id),
    PRIMARY KEY (image, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE image_accounts (   -- what a source says of an image, where that is not what `images` says
    image INTEGER NOT NULL REFERENCES images(id),
    source INTEGER NOT NULL REFERENCES sources(id),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    recorded_at TEXT,           -- NULL: it knows the image only as the parent of another
    builder TEXT,
    tree BLOB,
    spec INTEGER REFERENCES specs(id),
    package_set INTEGER REFERENCES package_sets(id),
    PRIMARY KEY (image, source)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER image_accounts_no_update BEFORE UPDATE ON image_accounts
    WHEN OLD.recorded_at IS NOT NULL OR NEW.image <> OLD.image OR NEW.source <> OLD.source BEGIN
    SELECT RAISE(ABORT, 'the catalog is append-only: image_accounts');
END;
CREATE TRIGGER image_accounts_no_delete BEFORE DELETE ON image_accounts BEGIN
    SELECT RAISE(ABORT, 'the catalog is append-only: image_accounts');
END;

CREATE TABLE edges (            -- child is baked on parent
    child INTEGER NOT NULL REFERENCES images(id),
    parent INTEGER NOT NULL REFERENCES images(id),
    PRIMARY KEY (child, parent)
) STRICT, WITHOUT ROWID;
CREATE INDEX edges_of_parent ON edges(parent, child);
CREATE TRIGGER edges_no_cycle BEFORE INSERT ON edges
    WHEN NEW.child IN (
        WITH RECURSIVE above(id) AS (SELECT NEW.parent UNION SELECT parent FROM edges JOIN above ON child = above.id)
        SELECT id FROM above
    ) BEGIN
    SELECT RAISE(ABORT, 'an image cannot descend from itself');
END;

CREATE TABLE bakes (            -- each time an image was recorded: baked, or only verified again
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES sources(id),
    event INTEGER NOT NULL,     -- the seq of its event in the log of that source
    image INTEGER NOT NULL REFERENCES images(id),
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    parent INTEGER NOT NULL REFERENCES images(id),
    bake_key BLOB NOT NULL,
    run TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('baked', 'verified')),
    baked_at TEXT NOT NULL,
    added INTEGER REFERENCES package_sets(id),      -- what it adds to its parent, or changes
    inputs INTEGER REFERENCES input_sets(id),
    pins TEXT                   -- JSON: the pins of images.lock, where a refresh came in between
) STRICT;
CREATE INDEX bakes_of_image ON bakes(image);
CREATE TABLE artifacts (        -- the stored forms
    bake INTEGER NOT NULL REFERENCES bakes(id),
    format TEXT NOT NULL,
    digest BLOB NOT NULL,       -- of the stored file
    size_bytes INTEGER,
    PRIMARY KEY (bake, format)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifacts_of_digest ON artifacts(substr(digest, 1, 8));  -- enough to find it, and of half the size
CREATE TABLE locations (        -- where an image is published, and the id it has there
    bake INTEGER NOT NULL REFERENCES bakes(id),
    place TEXT NOT NULL,
    native TEXT NOT NULL,
    PRIMARY KEY (bake, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX locations_of_native ON locations(native);

ALTER TABLE runs RENAME TO old_runs;        -- two factories may have runs of one id
ALTER TABLE run_ends RENAME TO old_run_ends;
CREATE TABLE runs (
    source INTEGER NOT NULL DEFAULT 1 REFERENCES sources(id),
    id TEXT NOT NULL,
    started_at TEXT NOT NULL,
    command TEXT NOT NULL,
    PRIMARY KEY (source, id)
) STRICT;
CREATE TABLE run_ends (
    source INTEGER NOT NULL DEFAULT 1,
    run TEXT NOT NULL,
    ended_at TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    PRIMARY KEY (source, run),
    FOREIGN KEY (source, run) REFERENCES runs(source, id)
) STRICT;
INSERT INTO runs (id, started_at, command) SELECT id, started_at, command FROM old_runs ORDER BY rowid;
INSERT INTO run_ends (run, ended_at, exit_code) SELECT run, ended_at, exit_code FROM old_run_ends ORDER BY rowid;
DROP TABLE old_run_ends;
DROP TABLE old_runs;
CREATE TABLE intent_records (   -- of an intent that has no end yet; then it is gone: the tables have it, in less room
    intent INTEGER PRIMARY KEY REFERENCES intents(id),
    old TEXT NOT NULL,          -- the entries it found, as a lock
    record TEXT NOT NULL        -- JSON: the whole of what is to be recorded
) STRICT;
INSERT INTO intent_records SELECT id, old, record FROM open_intents;
DROP VIEW open_intents;
ALTER TABLE intents DROP COLUMN old;
ALTER TABLE intents DROP COLUMN record;
CREATE VIEW open_intents AS
    SELECT * FROM intents WHERE NOT EXISTS (SELECT 1 FROM intent_ends WHERE intent_ends.intent = intents.id);

ALTER TABLE tasks ADD COLUMN source INTEGER NOT NULL DEFAULT 1;
ALTER TABLE checks ADD COLUMN source INTEGER NOT NULL DEFAULT 1;
ALTER TABLE bases ADD COLUMN source INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attestations ADD COLUMN source INTEGER NOT NULL DEFAULT 1;

CREATE TABLE channel_assignments (  -- the promotions among the attestations; the highest number is in force
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES sources(id),
    channel TEXT NOT NULL,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    digest BLOB NOT NULL,       -- of the image, which need not be known here
    number INTEGER NOT NULL,
    made_at TEXT NOT NULL,
    attestation INTEGER NOT NULL REFERENCES attestations(id)
) STRICT;
CREATE UNIQUE INDEX channel_assignments_once ON channel_assignments(source, channel, name, arch, number, attestation);
CREATE INDEX channel_assignments_of_digest ON channel_assignments(digest);

CREATE TABLE revocations (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES sources(id),
    digest BLOB NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL,           -- when it begins to hold
    made_at TEXT NOT NULL,
    attestation INTEGER NOT NULL REFERENCES attestations(id)
) STRICT;
CREATE INDEX revocations_of_digest ON revocations(digest);

CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    source INTEGER NOT NULL DEFAULT 1 REFERENCES sources(id),
    fleet TEXT NOT NULL,
    from_digest BLOB,           -- NULL: the fleet is new
    to_digest BLOB NOT NULL,
    started_at TEXT NOT NULL
) STRICT;
CREATE TABLE rollout_ends (
    rollout TEXT PRIMARY KEY REFERENCES rollouts(id),
    ended_at TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT;
CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL DEFAULT 1 REFERENCES sources(id),
    fleet TEXT NOT NULL,
    generation INTEGER NOT NULL,
    provider TEXT NOT NULL,
    native TEXT NOT NULL,       -- the id it has there
    digest BLOB NOT NULL,       -- of its image
    rollout TEXT REFERENCES rollouts(id),
    launched_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX instances_once ON instances(source, provider, native, launched_at);
CREATE INDEX instances_of_digest ON instances(digest);
CREATE TABLE instance_ends (
    instance INTEGER PRIMARY KEY REFERENCES instances(id),
    ended_at TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE events (           -- who did what when; chain.py says what `previous` is of
    source INTEGER NOT NULL REFERENCES sources(id),
    seq INTEGER NOT NULL,       -- from 1, without a gap
    at TEXT NOT NULL,
    actor TEXT NOT NULL,        -- fingerprints of signers, joined by commas; else the system's user
    authenticated INTEGER NOT NULL CHECK (authenticated IN (0, 1)),
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    image BLOB,                 -- the digest it is about
    record BLOB,                -- digest of what was recorded, so that a change of it shows
    attestation TEXT,           -- digest of the signed envelope that says it
    details TEXT NOT NULL,      -- JSON
    previous BLOB NOT NULL,     -- hash of the event before
    PRIMARY KEY (source, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_of_image ON events(image) WHERE action NOT IN ('baked', 'verified');
CREATE TRIGGER events_in_order BEFORE INSERT ON events
    WHEN NEW.seq <> (SELECT ifnull(max(seq), 0) + 1 FROM events WHERE source = NEW.source) BEGIN
    SELECT RAISE(ABORT, 'the events of a source have no gap');
END;

CREATE VIEW image_list AS
    SELECT id, 'sha256:' || lower(hex(digest)) AS digest, kind, name, arch, recorded_at, builder, package_set
    FROM images;
CREATE VIEW image_packages AS
    SELECT 'sha256:' || lower(hex(images.digest)) AS image, packages.name, packages.arch, version, source,
        source_version, purl, 'sha256:' || nullif(lower(hex(sha256)), '') AS sha256
    FROM images JOIN package_set_members USING (package_set) JOIN packages ON packages.id = package;
CREATE VIEW assignments AS
    SELECT source, channel, name, arch, 'sha256:' || lower(hex(digest)) AS digest, number, made_at
    FROM channel_assignments;
CREATE VIEW current_assignments AS
    SELECT source, channel, name, arch, 'sha256:' || lower(hex(digest)) AS digest, max(number) AS number, made_at
    FROM channel_assignments GROUP BY source, channel, name, arch;
CREATE VIEW revoked AS
    SELECT source, 'sha256:' || lower(hex(digest)) AS digest, name, reason, at, made_at FROM revocations;
CREATE VIEW running_instances AS
    SELECT source, fleet, generation, provider, native, 'sha256:' || lower(hex(digest)) AS digest, launched_at
    FROM instances WHERE NOT EXISTS (SELECT 1 FROM instance_ends WHERE instance = instances.id);
CREATE VIEW event_log AS
    SELECT source, seq, at, actor, authenticated, action, subject,
        'sha256:' || nullif(lower(hex(image)), '') AS image, details
    FROM events;
CREATE VIEW check_results AS
    SELECT bakes.id AS bake, 'sha256:' || lower(hex(images.digest)) AS digest, checks.run, checks.image AS name,
        checks.arch, test, outcome, duration_s, message, exempted
    FROM bakes CROSS JOIN images ON images.id = bakes.image    -- bakes have no index by their run
    CROSS JOIN checks ON checks.run = bakes.run AND checks.image = bakes.name AND checks.arch = bakes.arch
        AND checks.source = bakes.source;
"""

APPEND_ONLY = (
    "sources", "packages", "package_sets", "package_set_members", "specs", "input_sets", "input_files",
    "runs", "run_ends", "image_sources", "edges", "bakes", "artifacts", "locations", "channel_assignments",
    "revocations", "rollouts", "rollout_ends", "instances", "instance_ends", "events",
)  # fmt: skip
"""`images` and `image_accounts` have triggers of their own: what is known only as a parent may become known."""

DROP = "".join(f"DROP TABLE {table};\n" for table in ("inputs", "image_packages", "artifacts", "bakes", "images"))


@dataclass(frozen=True)
class Old:
    """What a catalog of version 2 holds in the tables that are made anew: of each bake, all that was recorded."""

    bakes: list[dict[str, Any]]
    attested: list[tuple[int, bytes]]

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Old:
        """All of it, in the order it was recorded."""
        bakes = _rows(
            connection,
            "SELECT bakes.*, images.base, base_kind, tree, builder, facts FROM bakes JOIN images USING (digest)"
            " ORDER BY id",
        )
        for bake in bakes:
            bake["packages"] = _rows(connection, "SELECT * FROM image_packages WHERE image = ?", bake["digest"])
            bake["files"] = _rows(connection, "SELECT input, path, digest FROM inputs WHERE bake = ?", bake["id"])
            sizes = _rows(connection, "SELECT native, size_bytes FROM artifacts WHERE image = ?", bake["digest"])
            bake["sizes"] = {row["native"]: row["size_bytes"] for row in sizes}
        envelopes = connection.execute("SELECT id, envelope FROM attestations ORDER BY id").fetchall()
        return cls(bakes, [(row[0], row[1]) for row in envelopes])


def _rows(connection: sqlite3.Connection, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def carry_over(connection: sqlite3.Connection, old: Old) -> None:
    """Begin the log of this catalog, and bring the old rows into the new tables."""
    moment = now()
    connection.execute("INSERT INTO sources VALUES (1, ?, 'here', ?)", [uuid.uuid4().hex, moment])
    chain.append(connection, chain.Entry("began", "the catalog", details={"version": 3}))
    if old.bakes or old.attested or connection.execute("SELECT EXISTS (SELECT 1 FROM runs)").fetchone()[0]:
        details = {"bakes": len(old.bakes), "attestations": len(old.attested), "from_version": 2}
        chain.append(connection, chain.Entry("migrated", "the events that follow", details=details))
    for bake in old.bakes:
        locked = next(iter(lockfile.loads(bake["entry"], "the catalog").images.values()))
        facts = json.loads(bake["facts"])
        contents.put_bake(
            connection,
            contents.Recorded(
                image=locked,
                parent_kind=bake["base_kind"],
                parent_name=str(facts.get("base", "")).removeprefix("image:"),
                builder=bake["builder"],
                facts=facts,
                run=bake["run"],
                kind=bake["kind"],
                baked_at=bake["baked_at"],
                packages=tuple(contents.InstalledPackage(**_without(row, "image")) for row in bake["packages"]),
                inputs=tuple(contents.InputFile(**row) for row in bake["files"]),
                sizes=bake["sizes"],
            ),
        )
    for identity, envelope in old.attested:
        signed.put(connection, identity, dsse.parse(envelope))


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
