"""The signed envelopes that ever stood in trust/, found by image, by channel, by what they revoke.

An index only: the files in trust/ decide. Nothing here is verified; whoever believes an envelope verifies it first.
Indexing is done again by every command, so that a killed one leaves nothing out for long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from factory.catalog import faults, signed
from factory.catalog.clock import now
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import TamperedError
from factory.trust import dsse, heads, promotions, revocations, statements
from factory.trust.dsse import Envelope
from factory.trust.keys import PublicKey
from factory.trust.predicates import provenance, summary, test_result
from factory.trust.promotions import Promotion
from factory.trust.statements import Statement, time_text

_AT_A_TIME = 500


@dataclass(frozen=True)
class Attestation:
    """One indexed envelope. `signers`: the keyids it gives; `number`: of an event, or the version of a head."""

    digest: Digest
    predicate_type: str
    subject: str
    image: Digest | None
    number: int | None
    made_at: str
    signers: tuple[str, ...]
    envelope: bytes


def index(catalog: Catalog, envelopes: Iterable[Envelope], keys: Iterable[PublicKey] = ()) -> int:
    """Add the envelopes that are not there yet; how many. What is not understood is left out: nobody believes it.

    `keys`: of those whose signatures make them the actor of what an envelope says, in the log.
    """
    found = {envelope.digest: envelope for envelope in envelopes}
    known = _known(catalog, list(found))
    rows: dict[Digest, dict[str, Any]] = {}
    for digest, envelope in found.items():
        if digest not in known:
            with suppress(TamperedError):
                rows[digest] = row_of(envelope)
    if rows:
        trusted = tuple(keys)
        with catalog.writing() as database:
            known = _known(catalog, list(rows))
            for digest in (one for one in rows if one not in known):
                number = database.table("attestations").insert(rows[digest]).last_pk
                assert isinstance(number, int)
                signed.put(database.conn, number, found[digest], trusted)
    return len(rows)


def of_image(catalog: Catalog, digest: Digest) -> list[Attestation]:
    """All that was ever signed about an image, in the order it came here."""
    return _attestations(catalog, "image = ?", [digest])


def of_type(catalog: Catalog, predicate_type: str) -> list[Attestation]:
    """All of one type, in the order it came here."""
    return _attestations(catalog, "predicate_type = ?", [predicate_type])


def history(catalog: Catalog, channel: str) -> list[tuple[Promotion, Attestation]]:
    """Every promotion to a channel, the newest first."""
    rows = _attestations(catalog, "predicate_type = ? AND subject LIKE ? || ': %'", [statements.PROMOTION, channel])
    read = [(promotions.read(dsse.parse(row.envelope)), row) for row in rows]
    return sorted(read, key=lambda item: (item[0].made_at, item[0].number), reverse=True)


def promoted(catalog: Catalog) -> Iterator[bytes]:
    """The envelope of every promotion, as it is stored; read as it is asked for."""
    sql = "SELECT envelope FROM attestations WHERE predicate_type = ? ORDER BY id"
    for row in catalog.connection.execute(sql, [statements.PROMOTION]):
        yield row[0]


def highest(catalog: Catalog, predicate_types: Iterable[str], subject: str | None = None) -> int:
    """The highest number of events (or version of heads) of these types, of one subject or of all; 0 for none."""
    types = list(predicate_types)
    sql = f"SELECT max(number) AS most FROM attestations WHERE predicate_type IN ({_marks(types)})"
    if subject is not None:
        sql += " AND subject = ?"
    rows = catalog.query(sql, [*types, *([] if subject is None else [subject])])
    return int(rows[0]["most"] or 0)


def _attestations(catalog: Catalog, where: str, parameters: list[Any]) -> list[Attestation]:
    columns = "digest, predicate_type, subject, image, number, made_at, signers, envelope"
    sql = f"SELECT {columns} FROM attestations WHERE {where} ORDER BY id"
    with faults.told(catalog.path):
        return [
            Attestation(**{**row, "signers": tuple(json.loads(row["signers"]))})
            for row in catalog.query(sql, parameters)
        ]


def _known(catalog: Catalog, digests: list[Digest]) -> set[Digest]:
    found: set[Digest] = set()
    for start in range(0, len(digests), _AT_A_TIME):
        part = digests[start : start + _AT_A_TIME]
        sql = f"SELECT digest FROM attestations WHERE digest IN ({_marks(part)})"
        found |= {row["digest"] for row in catalog.query(sql, part)}
    return found


def _marks(items: list[Any]) -> str:
    return ", ".join("?" * len(items))


def row_of(envelope: Envelope) -> dict[str, Any]:
    """The row of an envelope: what its payload says it is. TamperedError for what does not stand in the index."""
    return {
        "digest": envelope.digest,
        **(_of_head(envelope) if envelope.payload_type == heads.PAYLOAD_TYPE else _of_statement(envelope)),
        "signers": json.dumps([signature.keyid for signature in envelope.signatures if signature.keyid]),
        "envelope": envelope.raw,
        "indexed_at": now(),
    }


def _of_head(envelope: Envelope) -> dict[str, Any]:
    head = heads.peek(envelope)
    return {
        "predicate_type": heads.PAYLOAD_TYPE,
        "subject": subject_of_head(head.kind, head.name),
        "image": None,
        "number": head.version,
        "made_at": time_text(head.issued_at),
    }


def subject_of_head(kind: str, name: str) -> str:
    """What the index calls a head."""
    return f"{kind} {name}".rstrip()


def subject_of_promotion(channel: str, image: str) -> str:
    """What the index calls the promotions of an image (NAME/ARCH) to a channel."""
    return f"{channel}: {image}"


def _of_statement(envelope: Envelope) -> dict[str, Any]:
    if envelope.payload_type != statements.PAYLOAD_TYPE:
        raise TamperedError(f"{envelope.payload_type[:80]!r} does not stand in the index")
    statement = statements.loads(envelope.payload)
    kind, first = statement.predicate_type, statement.subjects[0]
    if kind == statements.PROMOTION:
        said = promotions.read(envelope)
        subject, number, made_at = subject_of_promotion(said.channel, said.image), said.number, time_text(said.made_at)
    elif kind in (statements.REVOCATION, statements.KEY_REVOCATION):
        event = revocations.read(envelope)
        subject, number, made_at = event.digest, event.number, time_text(event.made_at)
    elif kind in _TIMES:
        subject, number, made_at = first.name, None, _TIMES[kind](statement)
    else:
        raise TamperedError(f"nothing of the type {kind!r} stands in the index")
    is_of_key = kind == statements.KEY_REVOCATION
    return {
        "predicate_type": kind,
        "subject": subject,
        "image": None if is_of_key else first.sha256,
        "number": number,
        "made_at": made_at,
    }


def _time_of_sbom(statement: Statement) -> str:
    metadata = statement.predicate.get("metadata")
    said = metadata.get("timestamp") if isinstance(metadata, dict) else None
    return str(said or "")


_TIMES: Mapping[str, Callable[[Statement], str]] = {
    statements.PROVENANCE: lambda statement: time_text(provenance.read(statement).finished_at),
    statements.TEST_RESULT: lambda statement: time_text(test_result.read(statement).verified_at),
    statements.SUMMARY: lambda statement: time_text(summary.read(statement).verified_at),
    statements.SBOM: _time_of_sbom,
}
"""Predicate type of what speaks of an image -> when it was said."""
