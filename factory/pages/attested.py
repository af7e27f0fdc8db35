"""What is signed of an image, each statement judged now, by the policy of this checkout: who signed, and does it count.

The statements in force come from trust/ (`release.dossier`); those that stood there once, or came with another catalog,
from the index. Nothing is claimed that was not checked: where the policy or the revocations cannot be read, every
statement is told as not verified, with the reason. Whether an image may run is not asked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from factory.catalog import attestations
from factory.catalog.attestations import Attestation
from factory.catalog.clock import text
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, UnsignedError, UsageError
from factory.model import Layout
from factory.release import dossier, standing
from factory.release.dossier import Finding, Piece
from factory.trust import dsse, heads, judgement, policy, promotions, revocations, ticket
from factory.trust.authority import Authority
from factory.trust.policy import Policy
from factory.trust.ticket import BUILDER_ROLES, VERIFIER_ROLES

_NAMES = {kind: name for name, kind in dossier.TYPES.items()}
_SAID = {
    "ticket": "the deploy ticket holds together",
    "revoked": "neither it nor what it descends from is revoked",
    dossier.TEST_RESULT: "test result",
    dossier.SUMMARY: "verification summary",
    dossier.SBOM: "SBOM",
}


_FOLLOWS = ("ticket", "revoked")


@dataclass(frozen=True)
class Statement:
    """One thing that is signed, or that `follows` from what is.

    `signers`: names where they are known. `problem`: why it does not count; None where it does. `envelope`: None where
    it is not here. `is_past`: others are in force here, and it is not.
    """

    what: str
    made_at: str
    signers: tuple[str, ...]
    problem: str | None
    envelope: Digest | None
    is_past: bool = False
    follows: bool = False


@dataclass(frozen=True)
class Attested:
    """`policy`: what judged, None where nothing could. `problem`: why the image as a whole is not verified."""

    policy: str | None
    problem: str | None
    statements: tuple[Statement, ...]


def attested(layout: Layout, catalog: Catalog, digest: Digest, now: datetime) -> Attested:
    """All of it. Raises CatalogError only."""
    indexed = attestations.of_image(catalog, digest)
    try:
        chosen, authority = _judges(layout)
    except FactoryError as error:
        told = tuple(_unjudged(row, None, f"nobody can judge it: {error.message}") for row in indexed)
        return Attested(None, error.message, told)
    name = f"trust/policy.toml, version {chosen.version}"
    problem: str | None = None
    findings: tuple[Finding, ...] = ()
    try:
        judged = dossier.verify(layout, digest, None, now)
        findings = judged.findings
        _require_readable(layout, judged.dossier.image)
    except UsageError:
        problem = "nothing here is signed for it"
    except FactoryError as error:
        problem = error.message
    known = {row.digest: row for row in indexed}
    current = [_found(finding, known.get(finding.envelope or Digest("")), chosen) for finding in findings]
    seen = {finding.envelope for finding in findings}
    rest = [_indexed(row, chosen, authority) for row in indexed if row.digest not in seen]
    past = [replace(one, is_past=bool(findings)) for one in rest]
    if problem is None and (bad := [one for one in current if one.problem is not None]):
        problem = f"{bad[0].what}: {bad[0].problem}"
    return Attested(name, problem, (*current, *past))


def _require_readable(layout: Layout, image: str) -> None:
    """Raises TrustError where the tickets in trust/ cannot be read: the index has them too, a deployer only these."""
    path = standing.tickets_path(layout, image)
    raw = standing.paper(layout, path, ticket.MAX_BYTES)
    if raw is not None:
        ticket.loads(raw, f"trust/tickets/{path.name}")


def _judges(layout: Layout) -> tuple[Policy, Authority]:
    """The policy of the checkout, and whose signatures count under it. Raises FactoryError."""
    try:
        chosen = policy.read(layout.policy)
    except FileNotFoundError:
        raise UsageError("there is no trust/policy.toml here") from None
    raw = standing.paper(layout, layout.revocations, heads.MAX_BYTES)
    if raw is None:
        raise UnsignedError("there is no signed set of revocations here")
    return chosen, Authority(chosen, revocations.verify_unsafe_stale(raw, chosen).compromised)


def _found(finding: Finding, row: Attestation | None, chosen: Policy) -> Statement:
    """A statement in force, or what follows from several."""
    signers = finding.signers
    if not signers and row is not None:
        signers = dossier.signed_by(dsse.parse(row.envelope), chosen)
    return Statement(
        _what(row) if row is not None else _SAID.get(finding.what, finding.what),
        "" if finding.at is None else text(finding.at),
        signers,
        None if finding.problem is None else finding.problem.message,
        finding.envelope,
        follows=finding.what in _FOLLOWS,
    )


def _indexed(row: Attestation, chosen: Policy, authority: Authority) -> Statement:
    """A statement that is only in the index."""
    try:
        names = _judge(row, chosen, authority)()
    except FactoryError as error:
        return _unjudged(row, chosen, error.message)
    return Statement(_what(row), row.made_at, names, None, row.digest)


def _unjudged(row: Attestation, chosen: Policy | None, problem: str) -> Statement:
    signers = row.signers
    if chosen is not None:
        signers = dossier.signed_by(dsse.parse(row.envelope), chosen)
    return Statement(_what(row), row.made_at, signers, problem, row.digest)


def _what(row: Attestation) -> str:
    name = _NAMES.get(row.predicate_type, row.predicate_type)
    if name == dossier.PROMOTION:
        return f"promotion to {row.subject.partition(':')[0]}"
    return _SAID.get(name, name)


def _judge(row: Attestation, chosen: Policy, authority: Authority) -> Callable[[], tuple[str, ...]]:
    """What gives the names of those whose signatures count, or raises TrustError."""
    envelope = dsse.parse(row.envelope)
    what = _what(row)

    def required() -> tuple[str, ...]:
        kind = _NAMES.get(row.predicate_type, "")
        if kind == dossier.PROMOTION:
            rule = judgement.channel_rule(chosen, promotions.read(envelope).channel)
            return promotions.verify_event(row.envelope, rule, authority).approvers
        roles: tuple[str, ...] = VERIFIER_ROLES
        if kind == dossier.REVOCATION:
            roles, at = revocations.ROLES, revocations.read(envelope).made_at
        elif kind == dossier.SBOM:
            roles, at = BUILDER_ROLES, datetime.fromisoformat(row.made_at)
        else:
            made_at = dossier.time_of(Piece(kind, envelope))
            assert made_at is not None
            roles, at = (BUILDER_ROLES if kind == dossier.PROVENANCE else roles), made_at
        return tuple(key.name for key in authority.require(envelope, roles, at, f"the {what}"))

    return required
