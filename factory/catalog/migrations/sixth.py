"""Version 6: REPLACE is refused as UPDATE and DELETE are.

`INSERT OR REPLACE` takes a row away without firing the triggers that refuse DELETE (unless a connection asks for
`recursive_triggers`), so an insert under a key that is there already is refused before. Not needed by tables whose
whole row is the key (`edges`, `image_sources`, `package_set_members`), and by `events`, which takes only the next.
"""

from __future__ import annotations

KEYS = {
    "sources": ("rowid", "catalog"),
    "packages": ("rowid", "name version arch source source_version type sha256"),
    "package_sets": ("rowid", "digest"),
    "specs": ("rowid", "digest"),
    "input_sets": ("rowid", "digest"),
    "input_files": ("input_set input path",),
    "images": ("rowid", "digest"),
    "image_accounts": ("image source",),
    "bases": ("rowid",),
    "bakes": ("rowid",),
    "artifacts": ("bake format",),
    "locations": ("bake place",),
    "runs": ("rowid", "source id"),
    "run_ends": ("rowid", "source run"),
    "tasks": ("rowid",),
    "checks": ("rowid",),
    "attestations": ("rowid", "digest"),
    "channel_assignments": ("rowid", "source channel name arch number attestation"),
    "revocations": ("rowid",),
    "rollouts": ("rowid", "id"),
    "rollout_ends": ("rowid", "rollout"),
    "instances": ("rowid", "source provider native launched_at"),
    "instance_ends": ("rowid",),
    "intents": ("rowid",),
    "intent_ends": ("rowid",),
    "fleet_leases": ("fleet fence",),
    "fleet_lease_ends": ("fleet fence",),
    "fleet_orders": ("rowid",),
    "rollout_plans": ("rowid", "rollout"),
    "rollout_states": ("rowid",),
    "rollout_orders": ("rowid",),
    "rollout_intents": ("rowid",),
    "rollout_intent_ends": ("rowid",),
}
"""Table -> each of its keys. A rowid that SQLite is yet to give is -1 in such a trigger, and so is no row's."""


def _refusal(table: str, keys: tuple[str, ...]) -> str:
    known = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(map(_same, key.split()))})" for key in keys)
    return (
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {known} "
        f"BEGIN SELECT RAISE(ABORT, 'the catalog is append-only, and has that row: {table}'); END;\n"
    )


def _same(column: str) -> str:
    if column == "sha256":  # as packages_once has it
        return "ifnull(sha256, x'') = ifnull(NEW.sha256, x'')"
    return f"{column} = NEW.{column}"


SQL = "".join(_refusal(table, keys) for table, keys in KEYS.items())
