"""A catalog as JSON lines: `export` writes them, `take_over` reads them into another. docs/catalog.md says the format.

The same catalog gives the same lines, byte for byte. A line says what one row says; rows are named by what they are
(a digest, a run's id), never by their number here. Whatever belongs to one source says so, and stands in the order in
which that source wrote it, so that a later export of the same source begins as the earlier one did.
"""

from __future__ import annotations

FORMAT = 1
"""Rises when a reader of the format before could not read it rightly."""

HEADER, SOURCE, EVENT, PACKAGE, PACKAGE_SET = "catalog", "source", "event", "package", "package-set"
SPEC, INPUTS, IMAGE, ACCOUNT, ATTESTATION, END = "spec", "inputs", "image", "account", "attestation", "end"

LEFT_OUT = {
    "intents": "what a bake was about to record: only the folder it baked in can end it",
    "intent_records": "the same",
    "intent_ends": "the same",
    "fleet_leases": "who acts on a fleet: of one machine, and of one moment",
    "fleet_lease_ends": "the same",
    "fleet_orders": "what operators said here of a fleet; that they did is in the events",
    "rollout_plans": "what an engine must know again after its death; how it went is in the events",
    "rollout_states": "the same",
    "rollout_orders": "the same",
    "rollout_intents": "the same",
    "rollout_intent_ends": "the same",
    "edges": "they follow from the bakes",
    "package_set_counts": "counted anew",
    "package_search": "indexed anew",
}
"""Tables that no line is of, and why."""
