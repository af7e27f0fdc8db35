"""Version 5: what operators said of a fleet outside of a rollout: how many instances, and that it shall be no more."""

from __future__ import annotations

SQL = """
CREATE TABLE fleet_orders (
    id INTEGER PRIMARY KEY,
    fleet TEXT NOT NULL,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    wanted TEXT NOT NULL CHECK (wanted IN ('size', 'destroy', 'destroyed')),
    size INTEGER,                   -- of 'size': how many; NULL: as many as fleets.toml says
    written INTEGER,                -- of 'size': what fleets.toml said then
    rollout TEXT REFERENCES rollouts(id)    -- the last one that the fleet had by then
) STRICT;
CREATE INDEX fleet_orders_of_fleet ON fleet_orders(fleet, id);
"""

APPEND_ONLY = ("fleet_orders",)
