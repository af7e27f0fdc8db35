"""What is signed of an image, each statement judged now, by the policy of this checkout: who signed, and does it count.

The statements in force come from trust/ (`release.dossier`); those that stood there once, or came with another catalog,
from the index. Nothing is claimed that was not checked: where the policy or the revocations cannot be read, every
statement is told as not verified, with the reason. Whether an image may run is not asked here, nor does a revocation
make a signature worth less: it is told beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from factory.catalog import attestations
from factory.catalog.attestations import Attestation
from factory.catalog.clock import text
from factory.catalog.database import Catalog
from factory.catalog.details import Promoted
from factory.digest import Digest
from factory.errors import FactoryError, UnsignedError, UsageError
from factory.model import Layout
from factory.release import dossier, standing
from factory.release.dossier import Finding, Piece
from factory.trust import dsse, heads, judgement, policy, promotions, revocations, statements, ticket
from factory.trust.authority import Authority
from factory.trust.policy import Policy
from factory.trust.ticket import BUILDER_ROLES, VERIFIER_ROLES

VERIFIED, NOT_VERIFIED, NO_TICKET = "verified", "not verified", "no ticket"
_REVOKED = "revoked"
_NAMES = {kind: name for name, kind in dossier.TYPES.items()}
_SAID = {
    "ticket": "the deploy ticket holds together",
    _REVOKED: "neither it nor what it descends from is revoked",
    dossier.TEST_RESULT: "test result",
    dossier.SUMMARY: "verification summary",
    dossier.SBOM: "SBOM",
}


_FOLLOWS = ("ticket", _REVOKED)


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

    @property
    def verdict(self) -> str:
        """In one or two words: of what is signed whether it is verified, of what follows whether it holds."""
        if self.follows:
            return "holds" if self.problem is None else "does not hold"
        return VERIFIED if self.problem is None else NOT_VERIFIED


@dataclass(frozen=True)
class Attested:
    """`policy`: what judged, None where nothing could. `problem`: why not all that is signed of the image is verified;
    that it is revoked is none. `has_ticket`: whether anything is signed for it at all, as far as that can be told."""

    policy: str | None
    problem: str | None
    statements: tuple[Statement, ...]
    has_ticket: bool = True

    @property
    def revoked(self) -> str | None:
        """Why it is not to be run, where the revocations in trust/ say so."""
        return next((one.problem for one in self.statements if one.what == _SAID[_REVOKED]), None)

    @property
    def by_envelope(self) -> dict[Digest, Statement]:
        """Envelope -> the statement that it makes."""
        return {one.envelope: one for one in self.statements if one.envelope is not None}

    @property
    def verdict(self) -> str:
        """The same in one or two words."""
        if not self.has_ticket:
            return NO_TICKET
        return VERIFIED if self.problem is None else NOT_VERIFIED


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
    has_ticket = True
    findings: tuple[Finding, ...] = ()
    try:
        judged = dossier.verify(layout, digest, None, now)
        findings = judged.findings
        _require_readable(layout, judged.dossier.image)
    except UsageError:
        problem, has_ticket = "nothing here is signed for it", False
    except FactoryError as error:
        problem = error.message
    known = {row.digest: row for row in indexed}
    current = [_found(finding, known.get(finding.envelope or Digest("")), chosen) for finding in findings]
    seen = {finding.envelope for finding in findings}
    rest = [_indexed(row, chosen, authority) for row in indexed if row.digest not in seen]
    past = [replace(one, is_past=bool(findings)) for one in rest]
    signed = (one for one, finding in zip(current, findings, strict=True) if finding.what != _REVOKED)
    if problem is None and (bad := [one for one in signed if one.problem is not None]):
        problem = f"{bad[0].what}: {bad[0].problem}"
    return Attested(name, problem, (*current, *past), has_ticket)


def promotions_of(layout: Layout, catalog: Catalog, digest: Digest) -> dict[Digest, Statement]:
    """Envelope -> verdict on each promotion of an image that the catalog has, by itself. Raises CatalogError only."""
    rows = [row for row in attestations.of_image(catalog, digest) if row.predicate_type == statements.PROMOTION]
    try:
        chosen, authority = _judges(layout)
    except FactoryError as error:
        return {row.digest: _unjudged(row, None, f"nobody can judge it: {error.message}") for row in rows}
    return {row.digest: _indexed(row, chosen, authority) for row in rows}


def promotion_rows(promoted: Iterable[Promoted], judged: Mapping[Digest, Statement]) -> list[dict[str, Any]]:
    """Promotions with who signed them and whether that counts, as rows. `judged`: by envelope."""
    rows = []
    for one in promoted:
        signed = judged.get(one.envelope)
        rows.append(
            {
                "channel": one.channel,
                "number": one.number,
                "made_at": one.made_at,
                "in_force": one.in_force,
                "signers": [] if signed is None else list(signed.signers),
                "verdict": NOT_VERIFIED if signed is None else signed.verdict,
                "problem": "its envelope speaks of another image" if signed is None else signed.problem,
                "requirements": dict(one.requirements),
                "waivers": one.waivers,
                "envelope": one.envelope,
            }
        )
    return rows


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
