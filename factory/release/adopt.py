"""`factory channels refresh --adopt`: a real key takes over what only development keys have signed in trust/.

Verified is all of it first, as if the policy still allowed development keys; what does not verify even so is refused
and left alone. Then whoever takes over signs the events that need it, and the heads around them. Never touches what
already counts without development keys; never signs for an image: a bake verifies it again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from factory.catalog.database import Catalog
from factory.errors import TrustError
from factory.model import Layout
from factory.release import refresh, standing
from factory.release.signing import Signing
from factory.release.standing import Standing
from factory.trust import dsse, heads, promotions, revocations, ticket
from factory.trust.authority import Authority
from factory.trust.dsse import Signer
from factory.trust.heads import Head
from factory.trust.policy import Policy

ROLES = ("approver", "root")
"""Who may take over."""


@dataclass(frozen=True)
class Event:
    """An event of a head; `of` is its key in there, `what` says it to people."""

    file: str
    of: str
    what: str


@dataclass(frozen=True)
class Adopted:
    """`heads`: signed anew; `events`: signed by the new key too; `void`: promotions that lack signatures without
    development keys, which this key alone cannot give; `refused`: file -> why it was left alone."""

    heads: tuple[Head, ...] = ()
    events: tuple[Event, ...] = ()
    void: tuple[Event, ...] = ()
    refused: dict[str, TrustError] = field(default_factory=dict)


def adopt(layout: Layout, signing: Signing, now: datetime | None = None) -> Adopted:
    """Take over, with an approver's or root's key that is no development key. Raises TrustError, UsageError."""
    now = now or standing.this_moment()
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        refresh.begin(layout, catalog, signing, now)
        found = standing.read(layout, _lenient(signing.policy))
        standing.index(catalog, layout)
        signer = signing.without(found.revocations.compromised).for_role(*ROLES, development=False)
        changes = [_set(found, signer), *(_channel(found, name, signer) for name in sorted(found.channels))]
        renewed = []
        for before, events in (change.head for change in changes if change.head is not None):
            head = standing.next_head(catalog, before, events, now, found.policy)
            standing.write_head(layout, head, signer)
            renewed.append(head)
        standing.index(catalog, layout)
        return Adopted(
            tuple(renewed),
            tuple(event for change in changes for event in change.taken),
            tuple(event for change in changes for event in change.void),
            {f"trust/channels/{name}.dsse": error for name, error in found.faults.items()},
        )


def resting(layout: Layout, policy: Policy) -> list[str]:
    """The files of trust/ that count only where development keys are allowed. Verifies all of it; signs nothing."""
    if not any(key.development for key in policy.keys.values()):
        return []
    try:
        found = standing.read(layout, _lenient(policy))
    except TrustError:
        return []
    changes = [_set(found, None), *(_channel(found, name, None) for name in sorted(found.channels))]
    files = [change.file for change in changes if change.head is not None or change.void]
    for path in sorted(layout.tickets.glob("*.jsonl")):
        with suppress(TrustError):
            tickets = ticket.loads(standing.paper(layout, path, ticket.MAX_BYTES) or b"", path.name)
            if any(ticket.verify(one, digest, found.authority).development for digest, one in tickets.items()):
                files.append(f"trust/tickets/{path.name}")
    return files


@dataclass(frozen=True)
class _Change:
    """What is to be done to a file. `head`: the head as it is, and the events of the next one; None where it counts."""

    file: str
    head: tuple[Head, dict[str, bytes]] | None
    taken: tuple[Event, ...] = ()
    void: tuple[Event, ...] = ()


def _set(found: Standing, signer: Signer | None) -> _Change:
    """The set of revocations: each event is judged as revocations.verify does."""
    head, taken = found.revocations.head, []
    events = dict(head.events)
    for key, raw in head.events.items():
        envelope = dsse.parse(raw)
        event = revocations.read(envelope)
        of_others = {one: keep for one, keep in found.revocations.compromised.items() if one != key}
        authority = Authority(_strict(found.policy), of_others)
        if authority.signers(envelope, revocations.ROLES, event.made_at):
            continue
        what = f"the revocation of {event.name} ({event.digest[:19]}…): {event.reason}"
        taken.append(Event(head.file, key, what))
        if signer is not None:
            signed = dsse.add_signature(envelope, signer)
            authority.require(signed, revocations.ROLES, event.made_at, what)
            events[key] = signed.raw
    return _Change(head.file, (head, events) if taken or not _stands(found, head) else None, tuple(taken))


def _channel(found: Standing, name: str, signer: Signer | None) -> _Change:
    """A channel: promotions that count, and would not without development keys."""
    channel, rule = found.channels[name], found.policy.channels[name]
    head, strict = channel.head, Authority(_strict(found.policy), found.revocations.compromised)
    events, taken, void = dict(head.events), [], []
    for image, raw in head.events.items():
        with suppress(TrustError):
            promotion = channel.promotions[image]
            needed = max(1, rule.approvals)
            envelope = dsse.parse(raw)
            if len(promotions.approvers(envelope, promotion, rule, strict)) >= needed:
                continue
            waived = "".join(f", {one.requirement} waived for {one.owner}" for one in promotion.waivers)
            what = f"{image} {promotion.digest} in {name}{waived}"
            counting = promotions.only_counting(envelope, promotion, rule, found.authority)
            signed = counting if signer is None else dsse.add_signature(counting, signer)
            if len(promotions.approvers(signed, promotion, rule, strict)) >= needed:
                events[image] = signed.raw
                taken.append(Event(head.file, image, what))
            else:
                void.append(Event(head.file, image, what))
    changed = (head, events) if taken or not _stands(found, head) else None
    return _Change(head.file, changed, tuple(taken), tuple(void))


def _stands(found: Standing, head: Head) -> bool:
    """Whether a head counts without development keys."""
    strict = Authority(_strict(found.policy), found.revocations.compromised)
    raw = standing.paper(found.layout, found.layout.root / head.file, heads.MAX_BYTES) or b""
    return bool(strict.signers(dsse.parse(raw), heads.ROLES, head.issued_at))


def _lenient(policy: Policy) -> Policy:
    return replace(policy, allow_development=True)


def _strict(policy: Policy) -> Policy:
    return replace(policy, allow_development=False)
