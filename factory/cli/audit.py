"""`factory audit`: who did what when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables, times
from factory.errors import TamperedError
from factory.model import Layout
from factory.tabular import Row

if TYPE_CHECKING:
    from factory.compliance.audit import Acted, Integrity

_COLUMNS = ("at", "who", "action", "subject", "image", "event", "note")
_ALL = (
    "source",
    "event",
    "at",
    "actor",
    "names",
    "authenticated",
    "action",
    "subject",
    "image",
    "attestation",
    "note",
    "details",
)


@click.command()
@click.option("--actor", metavar="A", help="Only what this key (name or fingerprint) or user did.")
@click.option("--action", metavar="A", help="Only these, like promoted, baked, 'signed provenance'.")
@click.option("--image", metavar="NAME|DIGEST", help="Only what is about this image, or all of this name.")
@click.option("--since", metavar="TIME", help="From then on, like 2026-12-31T12:00:00Z or 2026-12-31.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="The last N.  [default: all]")
@tables.forms
@click.pass_obj
def audit(
    obj: dict[str, Any], /, actor: str | None, action: str | None, image: str | None, since: str | None,
    until: str | None, limit: int | None, as_json: bool, as_csv: bool,
) -> int:  # fmt: skip
    """Who did what when, the oldest first; and whether the log is as it was written.

    Who signed is shown by the key's name and fingerprint, who did not as the system's user, unauthenticated. Every
    event is held against the one before it, and the log against what promotions signed of it. Exit 6 where it does not
    fit: the answer is shown all the same, and is not to be believed.
    """
    from factory.compliance import audit as flow
    from factory.compliance.asking import asking

    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    asked = flow.Asked(actor, action, image, times.bound(since, "--since"), times.bound(until, "--until"), limit)
    layout = Layout(obj["folder"].resolve())
    with asking(layout, output.say) as catalog:
        found = flow.integrity(layout, catalog)
        rows = tables.or_say(_rows(flow.acted(layout, catalog, asked), form), "no event fits what was asked for")
        if form == tables.JSON:
            tables.stream_json(integrity_json(found), "events", rows)
        else:
            tables.show(form, _ALL if form == tables.CSV else _COLUMNS, rows, list)
    return tell(found)


def tell(found: Integrity) -> int:
    """Say what the logs are worth; the exit code."""
    from factory.compliance import audit as flow

    for log in found.logs:
        output.say(f"the log of {log.name} ({log.catalog}): {log.length} events, {found.worth(log)}")
    for note in found.notes:
        output.say(note)
    for one in found.held:
        if one.result == flow.ELSEWHERE or (one.result != flow.FITS and not one.proves_tampering):
            output.say(str(one))
    if not found.faults:
        return 0
    for fault in found.faults:
        output.say(f"{output.colour('tampered', 'red', 'bold')}: {fault}")
    error = TamperedError(
        "the log is not as it was written: what is shown is not to be believed",
        hint="hold it against a backup or an export of before (factory catalog import verifies one)",
    )
    output.explain(error)
    return error.exit_code


def integrity_json(found: Integrity) -> dict[str, Any]:
    """What the logs are worth, for programs."""
    return {
        "ok": not found.faults,
        "faults": found.faults,
        "logs": [
            {
                "source": log.name,
                "catalog": log.catalog,
                "length": log.length,
                "head": log.head,
                "proven": found.covered(log),
                "breaks": [
                    {"event": one.seq, "what": one.what, "expected": one.expected, "found": one.found}
                    for one in log.breaks
                ],
            }
            for log in found.logs
        ],
        "promotions": [
            {
                "what": one.what,
                "catalog": one.catalog,
                "length": one.length,
                "digest": one.digest,
                "signers": list(one.by),
                "result": one.result,
            }
            for one in found.held
        ],
        "notes": list(found.notes),
    }


def _rows(acted: Iterator[Acted], form: str) -> Iterator[Row]:
    if form == tables.JSON:
        return map(_json, acted)
    if form == tables.CSV:
        return ({**row, "details": json.dumps(row["details"])} for row in map(_json, acted))
    return ({**_json(one), "who": one.who} for one in acted)


def _json(one: Acted) -> Row:
    event = one.event
    return {
        "source": one.source,
        "event": event.seq,
        "at": event.at,
        "actor": event.actor.split(",") if event.authenticated else [event.actor],
        "names": list(one.names),
        "authenticated": event.authenticated,
        "action": event.action,
        "subject": event.subject,
        "image": event.image,
        "attestation": event.attestation,
        "note": one.note,
        "details": _details(event.details),
    }


def _details(text: str) -> Any:
    """The details of an event; what somebody put there by hand need be no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
