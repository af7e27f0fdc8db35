"""Deploy tickets: provenance, test result and verification summary of one image, signed; all a deployer needs of it.

A file of tickets has one DSSE envelope a line, in any order; it may hold the tickets of several digests. A line that is
no envelope of the three kinds, a second one of a kind for a digest, or a digest that lacks one: the whole file is
refused, because nobody but a tool writes it.

What one ticket says always agrees, whoever signed it: the three speak of exactly the same subjects, the summary names
the digests of these very envelopes, and everything was passed. `make` and `renew` give nothing that `verify` refuses
for another reason than its signatures. The SBOM lies elsewhere: the summary names its envelope by digest. What the
signatures need: a `builder` for the provenance, a `verifier` for the others, each at the statement's own time. Whether
that time is over, or the image revoked, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from factory.digest import Digest
from factory.errors import TamperedError, TrustError, VerifyError
from factory.trust import dsse, statements
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope, Signer
from factory.trust.facts import Ancestor, Artifact, BakeFacts, CheckOutcome, Verification
from factory.trust.policy import TrustedKey
from factory.trust.predicates import provenance, subjects_of, summary, test_result
from factory.trust.predicates.provenance import Provenance
from factory.trust.predicates.summary import Summary
from factory.trust.predicates.test_result import TestResult
from factory.trust.statements import PAYLOAD_TYPE, PROVENANCE, SUMMARY, TEST_RESULT, Subject

MAX_BYTES = 8 << 20
"""Of a file of tickets: give it to reading.read_file."""
MAX_LINES = 3 * 1024
MAX_LINE_BYTES = 2 << 20

BUILDER_ROLES = ("builder",)
VERIFIER_ROLES = ("verifier",)

_NAMES = {PROVENANCE: "the provenance", TEST_RESULT: "the test result", SUMMARY: "the verification summary"}
_MIXED = ": one of the two was changed since it was signed, or they are not of one ticket"


@dataclass(frozen=True)
class Ticket:
    """The three envelopes that speak for one image. Nothing of it is verified."""

    provenance: Envelope
    test_result: Envelope
    summary: Envelope

    @property
    def envelopes(self) -> tuple[Envelope, Envelope, Envelope]:
        """All three, in the order of the file."""
        return self.provenance, self.test_result, self.summary

    @property
    def digest(self) -> Digest:
        """The raw digest that all three speak of. Raises TamperedError."""
        return _said(self).subjects[0].sha256


@dataclass(frozen=True)
class Vouched:
    """What a verified ticket says of an image.

    `sbom`: the digest of the SBOM's envelope; `policy`: of the policy it was verified under. `newest`: the latest time
    in it. `development`: one of the three has no signature but a development key's.
    """

    name: str
    arch: str
    digest: Digest
    bake_key: Digest
    base: Digest
    tree: Digest
    ancestors: tuple[Ancestor, ...]
    artifacts: tuple[Artifact, ...]
    baked_at: datetime
    verified_at: datetime
    checks: tuple[CheckOutcome, ...]
    sbom: Digest
    policy: Digest
    signers: tuple[TrustedKey, ...]
    newest: datetime
    development: bool


def loads(raw: bytes, what: str = "the tickets") -> dict[Digest, Ticket]:
    """The tickets of a file, by the digest they speak of. Raises TamperedError."""
    if len(raw) > MAX_BYTES:
        raise TamperedError(f"{what}: too large, {len(raw)} bytes; at most {MAX_BYTES} are read", where=what)
    lines = raw.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > MAX_LINES:
        raise TamperedError(f"{what}: too many lines; at most {MAX_LINES} are read", where=what)
    found: dict[Digest, dict[str, Envelope]] = {}
    for number, line in enumerate(lines, start=1):
        place = f"{what}, line {number}"
        envelope = dsse.parse(line, place, max_bytes=MAX_LINE_BYTES)
        kind, digest = _spoken_of(envelope, place)
        if found.setdefault(digest, {}).setdefault(kind, envelope) is not envelope:
            raise TamperedError(f"{place}: {_NAMES[kind]} of {digest} stands there twice", where=what)
    return {digest: _complete(digest, kinds, what) for digest, kinds in found.items()}


def dumps(tickets: Iterable[Ticket]) -> bytes:
    """The file that holds `tickets`: sorted by digest, and so the same in any order. Raises TamperedError."""
    ordered = {ticket.digest: ticket for ticket in tickets}
    lines = [envelope.raw for digest in sorted(ordered) for envelope in ordered[digest].envelopes]
    if any(b"\n" in line for line in lines):
        raise TamperedError("an envelope of several lines cannot stand in a file of tickets")
    return b"".join(line + b"\n" for line in lines)


def make(bake: BakeFacts, verification: Verification, sbom: Digest, *, builder: Signer, verifier: Signer) -> Ticket:
    """A new ticket; `sbom` is the digest of the SBOM's envelope.

    Raises VerifyError where a check failed or none passed; TrustError where a signer cannot sign, or a fact is not to
    be said (a name that is none, say); ValueError where the facts do not fit together.
    """
    made = statements.signed(provenance.statement(bake), [builder])
    return _verified(made, subjects_of(bake.image), verification, sbom, verifier)


def renew(ticket: Ticket, verification: Verification, *, verifier: Signer) -> Ticket:
    """The ticket of an image that was verified again: the same provenance and SBOM, a new test result and summary.

    `verify` the old one first. Raises VerifyError and TrustError as `make` does.
    """
    said = _said(ticket)
    return _verified(ticket.provenance, said.subjects, verification, said.summary.inputs.sbom, verifier)


def verify(ticket: Ticket, digest: Digest, authority: Authority) -> Vouched:
    """What the ticket says of the image `digest`. Raises TrustError unless everything is signed, and agrees."""
    said = _said(ticket)
    made, tests, passed = said.provenance, said.test_result, said.summary
    if made.image.digest != digest:
        raise TamperedError(f"the ticket speaks of {made.image.digest}, not of {digest}")
    who = f"of {made.image.name}/{made.image.arch}"
    signers = [
        authority.require(ticket.provenance, BUILDER_ROLES, made.finished_at, f"{_NAMES[PROVENANCE]} {who}"),
        authority.require(ticket.test_result, VERIFIER_ROLES, tests.verified_at, f"{_NAMES[TEST_RESULT]} {who}"),
        authority.require(ticket.summary, VERIFIER_ROLES, passed.verified_at, f"{_NAMES[SUMMARY]} {who}"),
    ]
    by_material = {key.public: key for keys in signers for key in keys}
    return Vouched(
        name=made.image.name,
        arch=made.image.arch,
        digest=digest,
        bake_key=made.image.bake_key,
        base=made.image.base,
        tree=made.image.tree,
        ancestors=made.image.ancestors,
        artifacts=made.image.artifacts,
        baked_at=made.finished_at,
        verified_at=passed.verified_at,
        checks=tests.checks,
        sbom=passed.inputs.sbom,
        policy=passed.policy,
        signers=tuple(sorted(by_material.values(), key=lambda key: key.name)),
        newest=max(made.finished_at, tests.verified_at, passed.verified_at),
        development=any(all(key.development for key in keys) for keys in signers),
    )


class _Said(NamedTuple):
    """What the three statements of a ticket say, once they agree."""

    subjects: tuple[Subject, ...]
    provenance: Provenance
    test_result: TestResult
    summary: Summary


def _said(ticket: Ticket) -> _Said:
    """Read the three and hold them against each other. Raises TamperedError; TrustError where a check failed."""
    made, tests, passed = (
        statements.of_envelope(envelope, kind, what)
        for envelope, (kind, what) in zip(ticket.envelopes, _NAMES.items(), strict=True)
    )
    for other in (tests, passed):
        if other.subjects != made.subjects:
            raise TamperedError(
                f"{_NAMES[other.predicate_type]} speaks of other subjects than {_NAMES[PROVENANCE]} "
                f"({other.subjects[0].name}, {other.subjects[0].sha256})"
            )
    said = _Said(made.subjects, provenance.read(made), test_result.read(tests), summary.read(passed))
    if said.summary.inputs.provenance != ticket.provenance.digest:
        raise TamperedError(f"{_NAMES[SUMMARY]} is of another provenance than the one beside it{_MIXED}")
    if said.summary.inputs.test_result != ticket.test_result.digest:
        raise TamperedError(f"{_NAMES[SUMMARY]} is of another test result than the one beside it{_MIXED}")
    if not said.test_result.passed:
        raise TrustError(f"{said.subjects[0].name} did not pass its checks")
    return said


def _verified(
    made: Envelope, subjects: tuple[Subject, ...], verification: Verification, sbom: Digest, verifier: Signer
) -> Ticket:
    tests = test_result.statement(subjects, verification)
    if not test_result.read(tests).passed:
        raise VerifyError(f"{subjects[0].name} did not pass its checks, so nothing is signed for it")
    signed_tests = statements.signed(tests, [verifier])
    inputs = summary.Inputs(made.digest, signed_tests.digest, sbom)
    said = summary.statement(subjects, inputs, verification.policy, verification.verified_at)
    ticket = Ticket(made, signed_tests, statements.signed(said, [verifier]))
    _said(ticket)  # what we could not read ourselves is never given away
    return ticket


def _spoken_of(envelope: Envelope, what: str) -> tuple[str, Digest]:
    """The kind of a line's statement, and the digest it is of."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TamperedError(f"{what} carries {envelope.payload_type[:80]!r}, not an in-toto statement")
    statement = statements.loads(envelope.payload, what)
    if statement.predicate_type not in _NAMES:
        raise TamperedError(f"{what} is no part of a ticket: {statement.predicate_type[:80]!r}")
    return statement.predicate_type, statement.subjects[0].sha256


def _complete(digest: Digest, kinds: dict[str, Envelope], what: str) -> Ticket:
    for kind, name in _NAMES.items():
        if kind not in kinds:
            raise TamperedError(f"{what}: {name} of {digest} is missing", where=what)
    return Ticket(kinds[PROVENANCE], kinds[TEST_RESULT], kinds[SUMMARY])
