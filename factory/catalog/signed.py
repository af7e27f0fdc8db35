"""What a signed envelope means for the tables: where an image stands, that it is withdrawn, and who said so.

`put` writes that for an envelope that was just indexed, in the same transaction: an assignment for a promotion, a row
for a revocation, and an event. The actor of the event is who signed, as far as the signatures hold under the keys that
are given; otherwise the system's user, unauthenticated. Like the index, none of it decides what may run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from factory.catalog import chain
from factory.catalog.clock import text
from factory.digest import packed
from factory.errors import TamperedError
from factory.trust import dsse, heads, promotions, revocations, statements
from factory.trust.dsse import Envelope
from factory.trust.keys import PublicKey

ACTIONS = {
    statements.PROVENANCE: "signed provenance",
    statements.TEST_RESULT: "signed test result",
    statements.SUMMARY: "signed summary",
    statements.SBOM: "signed sbom",
    statements.PROMOTION: "promoted",
    statements.REVOCATION: "revoked",
    statements.KEY_REVOCATION: "revoked key",
}
"""Predicate type -> what the log calls it."""

HEAD = "signed head"

_ASSIGNMENT = "channel, name, arch, digest, number, made_at"
_REVOCATION = "digest, name, reason, at, made_at"


def put(
    connection: sqlite3.Connection, number: int, envelope: Envelope, keys: Iterable[PublicKey] = (), source: int = 1
) -> chain.Entry | None:
    """Write what the attestation of this number means; the event it is to have (written for this catalog's own).

    None where the envelope is of no kind that the log tells of.
    """
    try:
        entry = _entry(connection, number, envelope, source)
    except TamperedError:
        return None
    signers = tuple(sorted(dsse.verify(envelope, keys)))
    claimed = sorted({signature.keyid for signature in envelope.signatures if signature.keyid} - set(signers))
    details = {**entry.details, **({"unverified_keyids": claimed} if claimed else {})}
    event = chain.Entry(
        entry.action, entry.subject, entry.image, attestation=envelope.digest, signers=signers, details=details
    )
    if source == chain.OWN:
        chain.append(connection, event)
    return event


def _entry(connection: sqlite3.Connection, number: int, envelope: Envelope, source: int) -> chain.Entry:
    if envelope.payload_type == heads.PAYLOAD_TYPE:
        head = heads.peek(envelope)
        return chain.Entry(HEAD, f"{head.kind} {head.name}".rstrip(), details={"version": head.version})
    statement = statements.loads(envelope.payload)
    kind, first = statement.predicate_type, statement.subjects[0]
    action = ACTIONS.get(kind)
    if action is None:
        raise TamperedError(f"{kind!r} is not told of")
    if kind == statements.PROMOTION:
        said = promotions.read(envelope)
        connection.execute(
            f"INSERT INTO channel_assignments ({_ASSIGNMENT}, source, attestation) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [*_assignment(envelope), source, number],
        )
        details = {
            "number": said.number,
            "replaces": said.replaces,
            "made_at": text(said.made_at),
            "requirements": dict(said.requirements),
            "waivers": [waiver.plain() for waiver in said.waivers],
        }
        return chain.Entry(action, f"{said.channel}: {said.image}", said.digest, details=details)
    if kind == statements.REVOCATION:
        event = revocations.read(envelope)
        assert isinstance(event, revocations.Revocation)
        connection.execute(
            f"INSERT INTO revocations ({_REVOCATION}, source, attestation) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [*_revocation(envelope), source, number],
        )
        return chain.Entry(action, event.name, event.digest, details={"reason": event.reason, "at": text(event.at)})
    if kind == statements.KEY_REVOCATION:
        gone = revocations.read(envelope)
        return chain.Entry(action, gone.name, details={"reason": gone.reason, "fingerprint": gone.digest})
    return chain.Entry(action, first.name, first.sha256)


def _assignment(envelope: Envelope) -> tuple[Any, ...]:
    """The values of _ASSIGNMENT that a promotion gives."""
    said = promotions.read(envelope)
    name, _, arch = said.image.partition("/")
    return said.channel, name, arch, packed(said.digest), said.number, text(said.made_at)


def _revocation(envelope: Envelope) -> tuple[Any, ...]:
    """The values of _REVOCATION that the revocation of an image gives."""
    event = revocations.read(envelope)
    assert isinstance(event, revocations.Revocation)
    return packed(event.digest), event.name, event.reason, text(event.at), text(event.made_at)


def assignment_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Where the channel assignments are not what the promotions among the attestations say: a sentence each."""
    return _faults(connection, "channel_assignments", _ASSIGNMENT, statements.PROMOTION, _assignment)


def revocation_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """The same of the revocations of images."""
    return _faults(connection, "revocations", _REVOCATION, statements.REVOCATION, _revocation)


def _faults(
    connection: sqlite3.Connection, table: str, columns: str, kind: str, said: Callable[[Envelope], tuple[Any, ...]]
) -> Iterator[str]:
    named = ", ".join(f"{table}.{column}" for column in columns.split(", "))
    sql = f"SELECT {table}.id, envelope, {named} FROM {table} JOIN attestations ON attestations.id = attestation"
    for number, raw, *row in connection.execute(sql):
        try:
            fits = tuple(row) == said(dsse.parse(raw))
        except TamperedError:
            fits = False
        if not fits:
            yield f"row {number} of {table} does not say what its envelope says"
    sql = (
        f"SELECT digest FROM attestations WHERE predicate_type = ? AND id NOT IN (SELECT attestation FROM {table})"
        " ORDER BY id"
    )
    for (digest,) in connection.execute(sql, [kind]):
        yield f"the envelope {digest} has no row in {table}"
