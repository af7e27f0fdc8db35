"""`factory promote`: move a channel on to an image, or propose it where more people must approve.

Reads what stands in trust/, judges as a deployer would, and only then signs. Each approver's run judges everything
anew. Writes, in this order: the head (or the proposal), then takes away what it made needless: the proposal, tickets
that nothing names any more. A kill in between leaves the next run little to tidy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from factory import lockfile
from factory.catalog import attestations, audit
from factory.catalog.database import Catalog
from factory.digest import Digest, is_digest
from factory.errors import CveError, ExpiredError, TamperedError, TrustError, UsageError
from factory.model import CveSpec, Layout
from factory.release import gate, standing
from factory.release.resolve import locate
from factory.release.signing import Signing
from factory.release.standing import Standing
from factory.trust import dsse, heads, judgement, promotions, statements
from factory.trust.dsse import Envelope
from factory.trust.policy import ChannelRule
from factory.trust.promotions import Promotion, Waiver
from factory.trust.statements import time_text
from factory.trust.ticket import Ticket, Vouched

PROMOTED, PROPOSED, UNCHANGED = "promoted", "proposed", "unchanged"


@dataclass(frozen=True)
class Asked:
    """`image`: NAME or NAME/ARCH; `digest`: None for the locked one. `dry_run`: judge, sign and write nothing.

    `sources`: of CVEs, in place of those of images.toml; `offline`: ask no server for them.
    """

    image: str
    channel: str
    digest: str | None = None
    allow_older: bool = False
    waivers: tuple[Waiver, ...] = ()
    dry_run: bool = False
    sources: CveSpec = field(default_factory=CveSpec)
    offline: bool = False


@dataclass(frozen=True)
class Outcome:
    """`missing`: how many approvals it still lacks; `others`: who of the policy could give them. `version`: the head's
    (None where it was not moved). `proposal`: the file that waits, from the factory's folder."""

    status: str
    promotion: Promotion
    missing: int = 0
    others: tuple[str, ...] = ()
    version: int | None = None
    expires_at: datetime | None = None
    proposal: str | None = None


@dataclass(frozen=True)
class _Case:
    """What is to be decided. `before`: the promotion in force as it is written, believed only where `valid`."""

    asked: Asked
    rule: ChannelRule
    who: str
    image: Vouched
    before: Promotion | None
    valid: bool
    looked: gate.Outcome = field(default_factory=gate.Outcome)


def promote(layout: Layout, asked: Asked, signing: Signing, now: datetime | None = None) -> Outcome:
    """Promote, or add an approval. Raises TrustError where it may not be, UsageError where there is no such image."""
    now = now or standing.this_moment()
    rule = judgement.channel_rule(signing.policy, asked.channel)
    looked_at = replace(rule, requires=tuple({*rule.requires} - {waiver.requirement for waiver in asked.waivers}))
    prepared = gate.prepare(layout, looked_at, asked.sources, signing.say, offline=asked.offline)
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        found = standing.read(layout, signing.policy)
        heads.require_fresh(found.revocations.head, found.policy.fresh_days, now)
        signing.require_known_key(found.policy)
        case = _case(layout, found, catalog, asked, now)
        standing.index(catalog, layout, case.who)
        if _stands_already(case, now):
            assert case.before is not None
            if not asked.dry_run:
                _tidy(layout, found, case)
            return Outcome(UNCHANGED, case.before)
        _refuse_older(case)
        waived = frozenset(waiver.requirement for waiver in asked.waivers)
        candidate = gate.Candidate(case.who, case.image, case.rule, waived)
        _require_sound_waivers(case, now)
        case = replace(case, looked=gate.examine(prepared, layout, catalog, found, candidate, now))
        end = _end_of_log(catalog)
        waiting = _waiting(layout, case, now)
        promotion = waiting[1] if waiting else _next(catalog, case, end, now)
        promotions.judge(promotion, case.rule, case.image, now)
        if asked.dry_run:
            return Outcome(PROMOTED, promotion)
        outcome = _sign(layout, catalog, found, case, promotion, waiting and waiting[0], signing, now)
        standing.index(catalog, layout)
        return outcome


def promote_verified(
    layout: Layout, who: str, channel: str, signing: Signing, say: Callable[[str], None]
) -> Outcome | None:
    """After a bake: move the own channel of NAME/ARCH on to it where nobody need approve.

    None where it did not move; why it could not is said.
    """
    try:
        rule = judgement.channel_rule(signing.policy, channel)
        if rule.approvals:
            say(f"{who}: {channel} needs {rule.approvals} approved: factory promote {who} --to {channel}")
            return None
        outcome = promote(layout, Asked(who, channel), signing)
    except (TrustError, UsageError, CveError) as error:
        say(f"{who}: not promoted to {channel}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return None
    return None if outcome.status == UNCHANGED else outcome


def _case(layout: Layout, found: Standing, catalog: Catalog, asked: Asked, now: datetime) -> _Case:
    rule = judgement.channel_rule(found.policy, asked.channel)
    if (fault := found.faults.get(asked.channel)) is not None:
        raise fault
    who, digest = _image(layout, found, catalog, asked)
    image = found.vouched(who, digest)
    channel = found.channels.get(asked.channel)
    newest = max(image.newest, found.revocations.newest, *([channel.newest] if channel else []))
    if now < newest:
        raise ExpiredError(
            f"this machine's clock says {time_text(now)}, but trust/ holds what was signed at {time_text(newest)}",
            where="the clock",
            hint="set the clock (timedatectl), or look who signs with a clock ahead",
        )
    found.revocations.refuse_revoked(digest, image.ancestors, now)
    before, valid = None, False
    if channel is not None and who in channel.promotions:
        try:
            before, valid = channel.promotions[who], True
        except TrustError:
            with suppress(TrustError):  # one that cannot even be read is as none
                before = promotions.read(dsse.parse(channel.head.events[who]))
    return _Case(asked, rule, who, image, before, valid)


def _image(layout: Layout, found: Standing, catalog: Catalog, asked: Asked) -> tuple[str, Digest]:
    """(NAME/ARCH, digest) of what is asked for: the locked image, or one that has a ticket here or in the catalog."""
    if asked.digest is None:
        locked = locate(layout, asked.image)
        return f"{locked.name}/{locked.arch}", locked.digest
    if not is_digest(asked.digest):
        raise UsageError(f"{asked.digest!r} is no digest", where="NAME@DIGEST", hint="sha256: and all 64 hex digits")
    digest = Digest(asked.digest)
    remembered = _remembered(catalog, digest)
    if remembered is not None:
        image, old = remembered
        found.tickets(image).setdefault(digest, old)
    if "/" in asked.image:
        return asked.image, digest
    archs = {locked.arch for locked in lockfile.find(layout.lock, asked.image)}
    for image in sorted({f"{asked.image}/{arch}" for arch in archs} | ({remembered[0]} if remembered else set())):
        if image.partition("/")[0] == asked.image and digest in found.tickets(image):
            return image, digest
    raise UsageError(
        f"no deploy ticket of {asked.image} is of {digest}",
        where=f"trust/tickets/{asked.image}-*.jsonl",
        hint="is it spelled right? Where another machine promoted it: git log -p trust/tickets",
    )


def _remembered(catalog: Catalog, digest: Digest) -> tuple[str, Ticket] | None:
    """(NAME/ARCH, its ticket) of an image whose ticket stood here once."""
    last = {row.predicate_type: row for row in attestations.of_image(catalog, digest)}
    kinds = (statements.PROVENANCE, statements.TEST_RESULT, statements.SUMMARY)
    if not last.keys() >= set(kinds):
        return None
    return last[statements.PROVENANCE].subject, Ticket(*(dsse.parse(last[kind].envelope) for kind in kinds))


def _stands_already(case: _Case, now: datetime) -> bool:
    """Whether the channel points at the image, and a deployer may still take it there."""
    if case.before is None or not case.valid or case.before.digest != case.image.digest or case.asked.waivers:
        return False
    try:
        promotions.judge(case.before, case.rule, case.image, now)
    except TrustError:
        return False
    return True


def _refuse_older(case: _Case) -> None:
    before = case.before
    if before is None or not case.valid or case.asked.allow_older or case.image.baked_at >= before.baked_at:
        return
    raise TrustError(
        f"{case.who} {case.image.digest} was baked {time_text(case.image.baked_at)}, before the one that is in "
        f"{case.rule.name} ({time_text(before.baked_at)})",
        where=f"channel {case.rule.name}",
        hint="to go back on purpose: --allow-older",
    )


def _waiting(layout: Layout, case: _Case, now: datetime) -> tuple[Envelope, Promotion] | None:
    """The proposal that this run would add an approval to. TrustError where it says anything else than is asked and
    found here: nobody approves what somebody else has made up."""
    path = standing.proposal_path(layout, case.rule.name, case.who)
    found = [(envelope, said) for place, envelope, said in standing.proposals(layout) if place == path]
    if not found:
        return None
    envelope, said = found[0]
    mine = _promotion(case, said.number, said.made_at)
    if (said.channel, said.image, said.digest, said.previous) != (mine.channel, mine.image, mine.digest, mine.previous):
        return None  # overtaken: proposed anew
    if (
        said != mine
        or not _agree(said, mine, now)
        or said.made_at > now
        or (case.before is not None and said.number <= case.before.number)
    ):
        raise TrustError(
            f"what waits for approval is not what you ask for; it says: {said_of(said)}",
            where=str(path.relative_to(layout.root)),
            hint="approve it with the same options; or remove that file, and propose anew",
        )
    return envelope, said


def _agree(said: Promotion, mine: Promotion, now: datetime) -> bool:
    """Whether what waits was found by looking at the same as this run, at data that are no old news by now."""
    if said.cve is None or mine.cve is None:
        return said.cve is mine.cve
    return said.cve.agrees_with(mine.cve) and said.cve.stale(now) is None


def said_of(promotion: Promotion) -> str:
    """What is out of the ordinary in a promotion, for those who are to approve it."""
    odd = [
        f"--waive {waiver.requirement} --owner {waiver.owner!r} --reason {waiver.reason!r} "
        f"--until {time_text(waiver.expires_at)}"
        for waiver in promotion.waivers
    ]
    return " ".join([*odd, *(["--allow-older"] if promotion.allow_older else [])]) or "no waiver, and nothing older"


def _require_sound_waivers(case: _Case, now: datetime) -> None:
    """Raises UsageError where something is waived that cannot be, or no longer."""
    for waiver in case.asked.waivers:
        if waiver.requirement == "verified":
            raise UsageError("verified is never waived", where="--waive", hint="factory bake verifies and signs it")
        if waiver.requirement not in case.rule.requires:
            can = ", ".join(name for name in case.rule.requires if name != "verified") or "nothing"
            raise UsageError(
                f"{case.rule.name} has nothing like {waiver.requirement} to waive",
                where="--waive",
                hint=f"it has: {can}",
            )
        if waiver.expires_at <= now:
            raise UsageError(f"that waiver would have ended already: {time_text(waiver.expires_at)}", where="--until")


def _end_of_log(catalog: Catalog) -> promotions.CatalogHead:
    """Where the log of this catalog ends, followed from its first event: who signs a promotion vouches for all of it.

    Raises TamperedError where it breaks.
    """
    log = audit.own_log(catalog.connection)
    if log.breaks:
        raise TamperedError(
            f"the log of the catalog is not as it was written, {log.breaks[0]}; nothing was signed",
            where=str(catalog.path),
            hint="factory audit tells all; put a backup of before in its place (factory catalog backup makes them)",
        )
    return promotions.CatalogHead(log.catalog, log.length, log.head)


def _next(catalog: Catalog, case: _Case, end: promotions.CatalogHead, now: datetime) -> Promotion:
    """The promotion to be signed. Its number is one that was never used here."""
    subject = attestations.subject_of_promotion(case.rule.name, case.who)
    used = attestations.highest(catalog, [statements.PROMOTION], subject)
    said = _promotion(case, max(used, 0 if case.before is None else case.before.number) + 1, now)
    return replace(said, log=end)


def _promotion(case: _Case, number: int, made_at: datetime) -> Promotion:
    """What this run has to say of the image."""
    before, asked = case.before, case.asked
    return Promotion(
        channel=case.rule.name,
        image=case.who,
        digest=case.image.digest,
        number=number,
        made_at=made_at,
        baked_at=case.image.baked_at,
        previous=None if before is None else before.payload_digest,
        replaces=None if before is None else before.digest,
        requirements=promotions.results(case.rule, case.image, asked.waivers, case.looked.passed),
        waivers=asked.waivers,
        allow_older=asked.allow_older,
        cve=case.looked.examined,
    )


def _sign(
    layout: Layout, catalog: Catalog, found: Standing, case: _Case, promotion: Promotion, waiting: Envelope | None,
    signing: Signing, now: datetime,
) -> Outcome:  # fmt: skip
    """Sign; move the head where that is enough, else leave a proposal."""
    rule = case.rule
    mine = signing.without(found.revocations.compromised)
    roles = ("approver",) if promotions.needs_approver(rule, promotion) else ("verifier", "approver")
    signer = mine.for_role(*roles)
    name = next((key.name for key in found.policy.keys.values() if key.public == signer.public), "this key")
    done = () if waiting is None else promotions.approvers(waiting, promotion, rule, found.authority)
    path = standing.proposal_path(layout, rule.name, case.who)
    if waiting is None:
        envelope = promotions.make(promotion, signer)
    elif name in done:
        envelope = waiting
    else:
        counting = promotions.only_counting(waiting, promotion, rule, found.authority)
        envelope = dsse.add_signature(counting, signer)
    counted = promotions.approvers(envelope, promotion, rule, found.authority)
    signed = replace(promotion, approvers=counted)
    missing = max(1, rule.approvals) - len(counted)
    standing.keep_ticket(layout, found, case.who, case.image.digest)
    if missing > 0:
        if envelope is not waiting:
            promotions.read(dsse.parse(envelope.raw))  # what nobody could read is never put in place
            standing.write(layout, path, envelope.raw)
        keys = found.policy.keys.values()
        able = {key.name for key in keys if "approver" in key.roles and not key.has_ended(now)}
        others = tuple(sorted(able - set(counted)))
        status = UNCHANGED if envelope is waiting else PROPOSED
        return Outcome(status, signed, missing, others, proposal=str(path.relative_to(layout.root)))
    channel = found.channels.get(rule.name)
    before = channel.head if channel else heads.nothing(heads.CHANNEL, rule.name)
    envelope = promotions.only_counting(envelope, promotion, rule, found.authority)
    events = {**before.events, case.who: envelope.raw}
    head = standing.next_head(catalog, before, events, max(now, promotion.made_at), found.policy)
    standing.write_head(layout, head, signer)
    _tidy(layout, standing.read(layout, found.policy), case)
    return Outcome(PROMOTED, signed, version=head.version, expires_at=head.expires_at)


def _tidy(layout: Layout, found: Standing, case: _Case) -> None:
    """Take away a proposal that is in force or overtaken, and tickets that neither the lock nor a channel names."""
    path = standing.proposal_path(layout, case.rule.name, case.who)
    for place, _, proposed in standing.proposals(layout):
        in_force = found.channels[case.rule.name].promotions.get(case.who)
        if place == path and in_force is not None and proposed.number <= in_force.number:
            path.unlink(missing_ok=True)
    standing.prune_tickets(layout, found, case.who)
