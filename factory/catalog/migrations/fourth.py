"""Version 4: what an engine that replaces a fleet must know again after its death."""

from __future__ import annotations

SQL = """
CREATE INDEX instances_of_fleet ON instances(fleet, native);
CREATE TABLE fleet_leases (         -- who may act on a fleet; the highest fence, while it has not ended
    fleet TEXT NOT NULL,
    fence INTEGER NOT NULL,         -- rises with every lease
    holder TEXT NOT NULL,           -- JSON: boot, pid and start of the process
    taken_at TEXT NOT NULL,
    PRIMARY KEY (fleet, fence)
) STRICT, WITHOUT ROWID;
CREATE TABLE fleet_lease_ends (
    fleet TEXT NOT NULL,
    fence INTEGER NOT NULL,
    ended_at TEXT NOT NULL,
    PRIMARY KEY (fleet, fence),
    FOREIGN KEY (fleet, fence) REFERENCES fleet_leases(fleet, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_plans (        -- what a rollout is to do, decided once
    rollout TEXT PRIMARY KEY REFERENCES rollouts(id),
    plan TEXT NOT NULL              -- JSON
) STRICT;
CREATE TABLE rollout_states (       -- each state it came to; the last one holds
    id INTEGER PRIMARY KEY,
    rollout TEXT NOT NULL REFERENCES rollouts(id),
    at TEXT NOT NULL,
    status TEXT NOT NULL,           -- JSON
    orders_seen INTEGER NOT NULL,   -- the last order that was taken into account
    notes TEXT NOT NULL             -- JSON: what was worth telling
) STRICT;
CREATE INDEX rollout_states_of_rollout ON rollout_states(rollout, id);
CREATE TABLE rollout_orders (       -- what operators said
    id INTEGER PRIMARY KEY,
    rollout TEXT NOT NULL REFERENCES rollouts(id),
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    wanted TEXT NOT NULL
) STRICT;
CREATE INDEX rollout_orders_of_rollout ON rollout_orders(rollout, id);
CREATE TABLE rollout_intents (      -- a call of a provider that was about to be made
    id INTEGER PRIMARY KEY,
    fleet TEXT NOT NULL,
    rollout TEXT REFERENCES rollouts(id),   -- NULL: of no rollout (healing, scaling)
    fence INTEGER NOT NULL,
    at TEXT NOT NULL,
    action TEXT NOT NULL            -- JSON
) STRICT;
CREATE TABLE rollout_intent_ends (
    intent INTEGER PRIMARY KEY REFERENCES rollout_intents(id),
    ended_at TEXT NOT NULL,
    outcome TEXT NOT NULL,          -- done, or why it could not be
    is_done INTEGER NOT NULL CHECK (is_done IN (0, 1))
) STRICT;
"""

APPEND_ONLY = (
    "fleet_leases", "fleet_lease_ends", "rollout_plans", "rollout_states", "rollout_orders", "rollout_intents",
    "rollout_intent_ends",
)  # fmt: skip
