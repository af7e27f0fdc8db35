"""Version 1: runs, images, bakes with what went into them, tasks, checks, and the intents of the lock."""

from __future__ import annotations

SQL = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    command TEXT NOT NULL
) STRICT;
CREATE TABLE run_ends (
    run TEXT PRIMARY KEY REFERENCES runs(id),
    ended_at TEXT NOT NULL,
    exit_code INTEGER NOT NULL
) STRICT;

CREATE TABLE bases (            -- each state of a [[base]] that was locked
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    entry TEXT NOT NULL         -- as it stands in images.lock
) STRICT;
CREATE INDEX bases_of_name ON bases(name, arch, id);

CREATE TABLE images (           -- what an image is
    digest TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    base TEXT NOT NULL,
    base_kind TEXT NOT NULL,
    tree TEXT NOT NULL,
    builder TEXT NOT NULL,
    facts TEXT NOT NULL         -- JSON: what images.toml said
) STRICT;
CREATE INDEX images_of_name ON images(name, arch);
CREATE INDEX images_of_base ON images(base);

CREATE TABLE bakes (            -- each time an image was recorded: baked, or only verified again
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL REFERENCES images(digest),
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    bake_key TEXT NOT NULL,
    run TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('baked', 'verified')),
    baked_at TEXT NOT NULL,
    entry TEXT NOT NULL         -- as it stands in images.lock
) STRICT;
CREATE INDEX bakes_of_name ON bakes(name, arch, id);
CREATE INDEX bakes_of_digest ON bakes(digest, id);

CREATE TABLE artifacts (
    image TEXT NOT NULL REFERENCES images(digest),
    place TEXT NOT NULL,        -- a format ("qcow2"), or where it is published
    native TEXT NOT NULL,       -- its own digest, or the id it has there
    size_bytes INTEGER,
    PRIMARY KEY (image, place, native)
) STRICT;
CREATE INDEX artifacts_of_native ON artifacts(native);

CREATE TABLE image_packages (   -- all that is installed, not only what the image adds to its parent
    image TEXT NOT NULL REFERENCES images(digest),
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    version TEXT NOT NULL,
    sha256 TEXT,
    source TEXT NOT NULL,
    source_version TEXT NOT NULL,
    PRIMARY KEY (image, name, arch)
) STRICT;
CREATE INDEX image_packages_of_name ON image_packages(name, version);
CREATE INDEX image_packages_of_source ON image_packages(source, source_version);

CREATE TABLE inputs (           -- what went into a bake, down to the file
    bake INTEGER NOT NULL REFERENCES bakes(id),
    input TEXT NOT NULL,
    path TEXT NOT NULL,         -- inside the input
    digest TEXT NOT NULL,
    PRIMARY KEY (bake, input, path)
) STRICT;

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    image TEXT NOT NULL,        -- its name: a failed bake has no digest
    arch TEXT NOT NULL,
    play TEXT NOT NULL,
    task TEXT NOT NULL,
    place TEXT NOT NULL,        -- file:line
    started_at TEXT NOT NULL,
    duration_s REAL NOT NULL,
    outcome TEXT NOT NULL,
    changed INTEGER NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX tasks_of_run ON tasks(run, image, arch);

CREATE TABLE checks (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    image TEXT NOT NULL,
    arch TEXT NOT NULL,
    test TEXT NOT NULL,
    outcome TEXT NOT NULL,
    duration_s REAL NOT NULL,
    message TEXT NOT NULL,
    exempted INTEGER NOT NULL   -- left out by skip_checks
) STRICT;
CREATE INDEX checks_of_run ON checks(run, image, arch);

CREATE TABLE intents (          -- a change of images.lock that was about to be made
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    name TEXT NOT NULL,
    arch TEXT NOT NULL,
    began_at TEXT NOT NULL,
    old TEXT NOT NULL,          -- the entries it found, as a lock
    record TEXT NOT NULL        -- JSON: the whole of what is to be recorded
) STRICT;
CREATE TABLE intent_ends (
    intent INTEGER PRIMARY KEY REFERENCES intents(id),
    ended_at TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('done', 'recovered', 'abandoned')),
    message TEXT NOT NULL
) STRICT;
CREATE VIEW open_intents AS
    SELECT * FROM intents WHERE NOT EXISTS (SELECT 1 FROM intent_ends WHERE intent_ends.intent = intents.id);
"""

APPEND_ONLY = (
    "runs", "run_ends", "bases", "images", "bakes", "artifacts", "image_packages", "inputs", "tasks", "checks",
    "intents", "intent_ends",
)  # fmt: skip
