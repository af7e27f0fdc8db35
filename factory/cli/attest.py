"""`factory attest`: what is signed about an image, shown and checked one by one."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output
from factory.cli.promotions import odd
from factory.errors import SpecError, StoreError, TrustError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.release.dossier import Dossier, Finding, Judged, Piece
    from factory.trust.policy import Policy

_STATEMENTS = ("provenance", "test-result", "summary", "sbom")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def attest() -> None:
    """What is signed about an image: show it, check it."""


@attest.command()
@click.argument("target", metavar="NAME|DIGEST")
@click.option("--statement", type=click.Choice(_STATEMENTS), help="Only what this one says, as JSON.")
@_JSON
@click.pass_obj
def show(obj: dict[str, Any], /, target: str, statement: str | None, as_json: bool) -> None:
    """What is signed of the locked image NAME (or NAME/ARCH), or of DIGEST. Verifies nothing.

    With --json the envelopes, byte for byte; `--statement sbom` is a CycloneDX document for other tools.
    """
    from factory.release import dossier as flow

    layout = Layout(obj["folder"].resolve())
    dossier = flow.gather(layout, target)
    if statement is not None:
        output.document(dict(_piece(layout, dossier, statement).statement.predicate))
    elif as_json:
        envelopes = [base64.b64encode(piece.envelope.raw).decode("ascii") for piece in dossier.pieces]
        output.document({"digest": dossier.digest, "envelopes": envelopes})
    else:
        known = _policy(layout)
        output.say(f"{dossier.image} {dossier.digest}")
        _table([_row(piece, known) for piece in dossier.pieces])
        if dossier.sbom is None:
            output.say("its SBOM is not here")
    output.say(f"nothing of it was verified: factory attest verify {target}")


@attest.command()
@click.argument("target", metavar="NAME|DIGEST")
@click.option("--policy", "policy", metavar="FILE", help="The policy to judge by.  [default: the checkout's]")
@_JSON
@click.pass_obj
def verify(obj: dict[str, Any], /, target: str, policy: str | None, as_json: bool) -> int:
    """Check every statement of an image by itself: who signed it, whether that counts, and that all agree.

    Exit 6 where one fails. Whether the image may run is more than that: `factory resolve`.
    """
    from factory.release import dossier as flow

    layout = Layout(obj["folder"].resolve())
    judged = flow.verify(layout, target, Path(policy) if policy is not None else None, datetime.now(UTC))
    if as_json:
        output.document(_judged_json(judged))
    else:
        output.say(f"{judged.dossier.image} {judged.dossier.digest}")
        _table([_finding_row(finding) for finding in judged.findings])
    if judged.ok:
        return 0
    for problem in {str(finding.problem): finding.problem for finding in judged.findings}.values():
        if problem is not None:
            output.explain(problem)
    return TrustError.exit_code


def _piece(layout: Layout, dossier: Dossier, kind: str) -> Piece:
    for piece in dossier.pieces:
        if piece.kind == kind:
            return piece
    raise StoreError(
        "its SBOM is not here", where=str(layout.store), hint="factory attest verify gets it from the shared store"
    )


def _policy(layout: Layout) -> Policy | None:
    """The checkout's policy, for the names of keys; None where it has none that can be read."""
    from factory.trust import policy

    try:
        return policy.read(layout.policy)
    except (FileNotFoundError, SpecError, TrustError):
        return None


def _row(piece: Piece, known: Policy | None) -> tuple[str, ...]:
    from factory.release import dossier as flow
    from factory.trust.statements import time_text

    at = flow.time_of(piece)
    return piece.kind, time_text(at) if at else "-", ", ".join(flow.signed_by(piece.envelope, known)), _facts(piece)


def _facts(piece: Piece) -> str:
    """What a statement says, in a few words."""
    from factory.release import dossier as flow
    from factory.trust import promotions, revocations
    from factory.trust.predicates import provenance, sbom, summary, test_result

    if piece.kind == flow.PROMOTION:
        promotion = promotions.read(piece.envelope)
        return "; ".join([f"to {promotion.channel}, number {promotion.number}", *odd(promotion)])
    if piece.kind == flow.REVOCATION:
        return f"revoked: {revocations.read(piece.envelope).reason}"
    if piece.kind == flow.PROVENANCE:
        made = provenance.read(piece.statement)
        above = ", ".join(ancestor.name for ancestor in made.image.ancestors)
        return f"on {above}; bake key {made.image.bake_key[:19]}…"
    if piece.kind == flow.TEST_RESULT:
        outcomes = [check.outcome for check in test_result.read(piece.statement).checks]
        return ", ".join(f"{outcomes.count(word)} {word}" for word in sorted(set(outcomes)))
    if piece.kind == flow.SUMMARY:
        return f"passed; policy {summary.read(piece.statement).policy[:19]}…"
    return f"packages: {len(sbom.read(piece.statement).purls)}"


def _finding_row(finding: Finding) -> tuple[str, ...]:
    from factory.trust.statements import time_text

    at = time_text(finding.at) if finding.at else "-"
    state = "ok" if finding.problem is None else finding.problem.kind
    return finding.what, at, ", ".join(finding.signers) or "-", state


def _table(rows: Iterable[tuple[str, ...]]) -> None:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        output.data("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _judged_json(judged: Judged) -> dict[str, Any]:
    from factory.trust.statements import time_text

    return {
        "image": judged.dossier.image,
        "digest": judged.dossier.digest,
        "policy": judged.policy.digest,
        "ok": judged.ok,
        "findings": [
            {
                "what": finding.what,
                "envelope": finding.envelope,
                "at": time_text(finding.at) if finding.at else None,
                "signers": list(finding.signers),
                "ok": finding.problem is None,
                "error": finding.problem.as_json() if finding.problem is not None else None,
            }
            for finding in judged.findings
        ],
    }
