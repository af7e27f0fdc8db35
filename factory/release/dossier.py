"""All that is signed about one image: its deploy ticket, its SBOM, the promotions and revocations in force.

`gather` only collects: nothing of it is verified, and what is shown of it is what it says of itself. `verify` judges
each statement by a policy, one by one, and tells of every one that fails, not only of the first. Whether the image may
run is trust/judgement.py's question. Never writes trust/; a file that is missing here comes from the shared store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from factory import spec, stores
from factory.catalog import attestations
from factory.catalog.database import Catalog
from factory.digest import Digest, is_digest
from factory.errors import FactoryError, StoreError, TamperedError, TrustError, UnsignedError, UsageError
from factory.model import Layout
from factory.release import resolve, standing
from factory.store import Store
from factory.trust import dsse, heads, judgement, policy, promotions, revocations, statements, ticket
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope
from factory.trust.policy import Policy, TrustedKey
from factory.trust.predicates import provenance, sbom, summary, test_result
from factory.trust.reading import read_file
from factory.trust.ticket import BUILDER_ROLES, VERIFIER_ROLES, Ticket

PROVENANCE, TEST_RESULT, SUMMARY, SBOM = "provenance", "test-result", "summary", "sbom"
PROMOTION, REVOCATION = "promotion", "revocation"
TYPES: Mapping[str, str] = {
    PROVENANCE: statements.PROVENANCE,
    TEST_RESULT: statements.TEST_RESULT,
    SUMMARY: statements.SUMMARY,
    SBOM: statements.SBOM,
    PROMOTION: statements.PROMOTION,
    REVOCATION: statements.REVOCATION,
}
"""What people call a statement -> its predicate type."""

_IN_TICKET = {PROVENANCE: "the provenance", TEST_RESULT: "the test result", SUMMARY: "the verification summary"}


@dataclass(frozen=True)
class Piece:
    """One signed statement; `kind` is one of TYPES."""

    kind: str
    envelope: Envelope

    @property
    def statement(self) -> statements.Statement:
        """What it says. Raises TamperedError."""
        return statements.of_envelope(self.envelope, TYPES[self.kind], f"the {self.kind}")


@dataclass(frozen=True)
class Dossier:
    """What was found of an image (`image` is NAME/ARCH). `sbom` is None where its envelope is not here."""

    image: str
    digest: Digest
    ticket: Ticket
    sbom: Envelope | None
    events: tuple[Piece, ...]

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All of it: the ticket, the SBOM, what people signed."""
        kinds = zip(_IN_TICKET, self.ticket.envelopes, strict=True)
        found = [Piece(kind, envelope) for kind, envelope in kinds]
        return (*found, *([Piece(SBOM, self.sbom)] if self.sbom else []), *self.events)


@dataclass(frozen=True)
class Finding:
    """One thing that was judged. `what` is one of TYPES, or `ticket` (do the parts agree) or `revoked` (is it).

    `signers`: whose signatures count. `problem` is None where it is as it should be.
    """

    what: str
    envelope: Digest | None
    at: datetime | None
    signers: tuple[str, ...]
    problem: FactoryError | None


@dataclass(frozen=True)
class Judged:
    """A dossier, and every finding on it under a policy."""

    dossier: Dossier
    policy: Policy
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.problem is None for finding in self.findings)


def gather(layout: Layout, target: str) -> Dossier:
    """What is signed of NAME, NAME/ARCH (the locked image) or a digest. Raises UsageError, TrustError."""
    found = _by_digest(layout, Digest(target)) if is_digest(target) else _by_name(layout, target)
    passed = statements.of_envelope(found.summary, statements.SUMMARY, "the summary")
    named = summary.read(passed).inputs.sbom
    digest = passed.subjects[0].sha256
    return Dossier(
        passed.subjects[0].name, digest, found, _sbom_here(layout, digest, named), tuple(_events(layout, digest))
    )


def verify(layout: Layout, target: str, own_policy: Path | None, now: datetime) -> Judged:
    """Every statement of an image, judged by `own_policy` (else the checkout's) and the revocations in trust/.

    Raises UsageError, SpecError; TrustError where the revocations cannot be believed: then nothing else can.
    """
    path = own_policy if own_policy is not None else layout.policy
    try:
        chosen = policy.read(path)
    except FileNotFoundError:
        raise UsageError("there is no policy to judge by", where=str(path), hint="--policy FILE names one") from None
    dossier = gather(layout, target)
    raw = standing.paper(layout, layout.revocations, heads.MAX_BYTES)
    if raw is None:
        raise UnsignedError(
            "there is no signed set of revocations", where="trust/revocations.dsse", hint="git checkout trust/"
        )
    revoked = revocations.verify(raw, chosen, now)
    authority = Authority(chosen, revoked.compromised)
    findings = [
        _finding(piece.kind, piece.envelope, partial(_ticket_signers, dossier.image, piece, authority))
        for piece in dossier.pieces[: len(_IN_TICKET)]
    ]
    findings.append(_finding("ticket", None, lambda: _vouched(dossier, authority)))
    findings.append(_finding(SBOM, dossier.sbom, lambda: read_sbom(layout, dossier.ticket, authority)[1]))
    for piece in dossier.events:
        judge = _event_judge(piece, chosen, authority)
        if judge is not None:
            findings.append(_finding(piece.kind, piece.envelope, judge))
    findings.append(_finding("revoked", None, lambda: _not_revoked(dossier, revoked, now)))
    return Judged(dossier, chosen, tuple(findings))


def read_sbom(layout: Layout, found: Ticket, authority: Authority) -> tuple[Envelope, tuple[TrustedKey, ...]]:
    """The SBOM that a ticket names, from this store or the shared one, and whose signatures on it count.

    Raises TrustError: it is not what the summary names, speaks of another image, no builder signed it; StoreError.
    """
    passed = summary.read(statements.of_envelope(found.summary, statements.SUMMARY, "the summary"))
    made = statements.of_envelope(found.provenance, statements.PROVENANCE, "the provenance")
    who = f"the SBOM of {made.subjects[0].name}"
    path = file_of(layout, passed.inputs.sbom, who)
    envelope = dsse.parse(read_file(path, who, max_bytes=dsse.MAX_BYTES), who)
    if envelope.digest != passed.inputs.sbom:
        raise TamperedError(f"{who} is {envelope.digest}, but {passed.inputs.sbom} was signed for", where=str(path))
    said = statements.of_envelope(envelope, statements.SBOM, who)
    if said.subjects != made.subjects:
        raise TamperedError(f"{who} speaks of other subjects than the provenance", where=str(path))
    sbom.read(said, who)
    return envelope, authority.require(envelope, BUILDER_ROLES, provenance.read(made).finished_at, who)


def file_of(layout: Layout, digest: Digest, what: str) -> Path:
    """Where the bytes of a digest are; fetched from the shared store where they are not here. Raises StoreError."""
    store = Store(layout.store)
    if store.has(digest):
        return store.path(digest)
    url = spec.load(layout.root).store_url if layout.spec.is_file() else None
    if url is None:
        raise StoreError(
            f"{what} ({digest}) is not in the store here, and images.toml names no shared one",
            where=str(store.path(digest)),
            hint="do it where the image was baked, or name its [store] in images.toml",
        )
    return stores.fetch(store, stores.connect(url), digest)


def signed_by(envelope: Envelope, known: Policy | None) -> tuple[str, ...]:
    """Who signed, as far as it can be told without judging: names for good signatures, else the keyid as it stands."""
    keys = {key.public.fingerprint: key for key in known.keys.values()} if known else {}
    found = []
    for signature in envelope.signatures:
        alone = replace(envelope, signatures=(signature,))
        good = dsse.verify(alone, (key.public for key in keys.values()))
        names = [keys[fingerprint].name for fingerprint in good]
        keyid = signature.keyid or "no keyid"
        found.append(names[0] if names else f"{keys[Digest(keyid)].name} (bad)" if keyid in keys else keyid[:80])
    return tuple(found)


def time_of(piece: Piece) -> datetime | None:
    """When a statement says it was made; None for an SBOM, which is of the bake. Raises TamperedError."""
    if piece.kind == PROMOTION:
        return promotions.read(piece.envelope).made_at
    if piece.kind == REVOCATION:
        return revocations.read(piece.envelope).made_at
    if piece.kind == PROVENANCE:
        return provenance.read(piece.statement).finished_at
    if piece.kind == TEST_RESULT:
        return test_result.read(piece.statement).verified_at
    return summary.read(piece.statement).verified_at if piece.kind == SUMMARY else None


# --- finding it


def _by_name(layout: Layout, name: str) -> Ticket:
    locked = resolve.locate(layout, name)
    raw = resolve.read_papers(layout, locked, None).tickets
    where = f"trust/tickets/{locked.name}-{locked.arch}.jsonl"
    found = ticket.loads(raw, where).get(locked.digest) if raw is not None else None
    if found is None:
        raise UnsignedError(
            f"nothing is signed for {locked.digest}", where=where, hint=f"factory bake {locked.name} signs it"
        )
    signed_as = statements.of_envelope(found.summary, statements.SUMMARY, "the summary").subjects[0].name
    if signed_as != f"{locked.name}/{locked.arch}":
        raise TamperedError(
            f"{locked.digest} was signed as {signed_as}, not as {locked.name}/{locked.arch}", where=where
        )
    return found


def _by_digest(layout: Layout, digest: Digest) -> Ticket:
    unread: TrustError | None = None
    for path in sorted(layout.tickets.glob("*.jsonl")):
        try:
            raw = standing.paper(layout, path, ticket.MAX_BYTES) or b""
            found = ticket.loads(raw, f"trust/tickets/{path.name}").get(digest)
        except TrustError as error:
            unread = unread or error
            continue
        if found is not None:
            return found
    past = _from_catalog(layout, digest)
    if past is not None:
        return past
    raise unread or UsageError(f"nothing here is signed for {digest}", hint="factory attest show NAME, or git pull")


def _from_catalog(layout: Layout, digest: Digest) -> Ticket | None:
    """The last complete ticket of a digest that ever stood here."""
    known = {row.digest: dsse.parse(row.envelope) for row in _indexed(layout, digest)}
    for envelope in reversed(known.values()):
        with suppress(TamperedError):
            inputs = summary.read(statements.of_envelope(envelope, statements.SUMMARY, "")).inputs
            if inputs.provenance in known and inputs.test_result in known:
                return Ticket(known[inputs.provenance], known[inputs.test_result], envelope)
    return None


def _indexed(layout: Layout, digest: Digest) -> list[attestations.Attestation]:
    if not layout.catalog.is_file():
        return []
    with Catalog.open(layout.catalog) as catalog:
        return attestations.of_image(catalog, digest)


def _sbom_here(layout: Layout, digest: Digest, named: Digest) -> Envelope | None:
    store = Store(layout.store)
    if store.has(named):
        with suppress(TamperedError):
            found = dsse.parse(read_file(store.path(named), "the SBOM", max_bytes=dsse.MAX_BYTES), "the SBOM")
            if found.digest == named:
                return found
    return next((dsse.parse(row.envelope) for row in _indexed(layout, digest) if row.digest == named), None)


def _events(layout: Layout, digest: Digest) -> Iterator[Piece]:
    """The promotions and the revocation in force that speak of a digest; a head that cannot be read has none."""
    for path in (*sorted(layout.channels.glob("*.dsse")), layout.revocations):
        with suppress(TamperedError):
            raw = standing.paper(layout, path, heads.MAX_BYTES)
            if raw is None:
                continue
            head = heads.peek(dsse.parse(raw, path.name), path.name)
            for event in head.events.values():
                envelope = dsse.parse(event)
                said = statements.loads(envelope.payload)
                kind = PROMOTION if said.predicate_type == statements.PROMOTION else REVOCATION
                if said.predicate_type == TYPES[kind] and said.subjects[0].sha256 == digest:
                    yield Piece(kind, envelope)


# --- judging it


def _finding(what: str, envelope: Envelope | None, judge: Callable[[], tuple[TrustedKey, ...]]) -> Finding:
    at = None
    if envelope is not None and what in TYPES:
        with suppress(FactoryError):
            at = time_of(Piece(what, envelope))
    digest = envelope.digest if envelope else None
    try:
        return Finding(what, digest, at, tuple(key.name for key in judge()), None)
    except FactoryError as error:
        return Finding(what, digest, at, (), error)


def _ticket_signers(image: str, piece: Piece, authority: Authority) -> tuple[TrustedKey, ...]:
    roles = BUILDER_ROLES if piece.kind == PROVENANCE else VERIFIER_ROLES
    at = time_of(piece)
    assert at is not None
    return authority.require(piece.envelope, roles, at, f"{_IN_TICKET[piece.kind]} of {image}")


def _vouched(dossier: Dossier, authority: Authority) -> tuple[TrustedKey, ...]:
    return ticket.verify(dossier.ticket, dossier.digest, authority).signers


def _not_revoked(dossier: Dossier, revoked: revocations.Revocations, now: datetime) -> tuple[TrustedKey, ...]:
    made = provenance.read(statements.of_envelope(dossier.ticket.provenance, statements.PROVENANCE, "the provenance"))
    revoked.refuse_revoked(dossier.digest, made.image.ancestors, now)
    return ()


def _event_judge(piece: Piece, chosen: Policy, authority: Authority) -> Callable[[], tuple[TrustedKey, ...]] | None:
    """How an event is judged; None for a promotion to a channel that the policy does not speak of."""
    raw = piece.envelope.raw
    if piece.kind == REVOCATION:
        made_at = revocations.read(piece.envelope).made_at
        return lambda: authority.require(piece.envelope, revocations.ROLES, made_at, "the revocation")
    channel = promotions.read(piece.envelope).channel
    if channel not in chosen.channels:
        return None
    rule = judgement.channel_rule(chosen, channel)

    def judged() -> tuple[TrustedKey, ...]:
        names = promotions.verify_event(raw, rule, authority).approvers
        return tuple(chosen.keys[name] for name in names)

    return judged
