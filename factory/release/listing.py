"""What stands in the channels, for people: each entry as a deployer of this checkout finds it. Never writes trust/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from factory import schema
from factory.catalog import attestations
from factory.catalog.database import Catalog
from factory.errors import TrustError, UsageError
from factory.model import Layout
from factory.release import standing
from factory.release.standing import Standing
from factory.trust import dsse, heads, judgement, policy, promotions
from factory.trust.policy import Policy
from factory.trust.promotions import Promotion


@dataclass(frozen=True)
class Place:
    """An image in a channel. `refused`: why a deployer would not get it; None where it would. `promotion` is None where
    nobody can read it."""

    image: str
    promotion: Promotion | None
    refused: TrustError | None


@dataclass(frozen=True)
class ChannelState:
    """A channel. `version` and `expires_at` are None where there is no head, or none to be believed (`fault`)."""

    name: str
    version: int | None
    expires_at: datetime | None
    places: tuple[Place, ...]
    fault: TrustError | None = None


@dataclass(frozen=True)
class Proposal:
    """A promotion that waits. `missing`: how many approvals it lacks."""

    promotion: Promotion
    missing: int
    file: str


@dataclass(frozen=True)
class Past:
    """A promotion of the past. `signers`: the names of the keys it gives, or their fingerprints; not verified."""

    promotion: Promotion
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """All channels, what waits, and how long the set of revocations is good for."""

    channels: tuple[ChannelState, ...]
    proposals: tuple[Proposal, ...]
    revocations_until: datetime
    revocations_fault: TrustError | None


def listing(layout: Layout, only: str | None = None, now: datetime | None = None) -> Listing:
    """What stands now; of one channel or of all. Raises TrustError where the revocations cannot be believed."""
    now = now or standing.this_moment()
    found = standing.read(layout, policy.read(layout.policy))
    names = sorted({*found.policy.channels, *found.channels, *found.faults})
    if only is not None:
        judgement.channel_rule(found.policy, only)
        names = [only]
    head = found.revocations.head
    return Listing(
        tuple(_channel(found, name, now) for name in names),
        tuple(one for one in _proposals(found) if only in (None, one.promotion.channel)),
        head.good_until(found.policy.fresh_days),
        _refusal(lambda: heads.require_fresh(head, found.policy.fresh_days, now)),
    )


def history(layout: Layout, channel: str) -> list[Past]:
    """Every promotion to a channel that the catalog here has seen, the newest first. UsageError where there is no such
    channel, and never was."""
    trusted = policy.read(layout.policy)
    known = _names(trusted)
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        standing.index(catalog, layout)
        past = [
            Past(promotion, tuple(known.get(keyid, keyid) for keyid in row.signers))
            for promotion, row in attestations.history(catalog, channel)
        ]
    if not past and channel not in trusted.channels:
        raise UsageError(
            f"there is no channel {channel[:80]!r}; {schema.suggestion(channel[:80], trusted.channels)}",
            where="CHANNEL",
            hint="factory channels list",
        )
    return past


def _names(known: Policy) -> dict[str, str]:
    return {key.public.fingerprint: key.name for key in known.keys.values()}


def _channel(found: Standing, name: str, now: datetime) -> ChannelState:
    channel = found.channels.get(name)
    if channel is None:
        return ChannelState(name, None, None, (), found.faults.get(name))
    days = found.policy.fresh_days
    fault = _refusal(lambda: heads.require_fresh(channel.head, days, now))
    places = tuple(_place(found, name, image, now) for image in sorted(channel.promotions))
    return ChannelState(name, channel.version, channel.head.good_until(days), places, fault)


def _place(found: Standing, name: str, image: str, now: datetime) -> Place:
    channel = found.channels[name]
    try:
        promotion = channel.promotions[image]
    except TrustError as error:
        return Place(image, _written(found, name, image), error)

    def judged() -> None:
        vouched = found.vouched(image, promotion.digest)
        found.revocations.refuse_revoked(promotion.digest, vouched.ancestors, now)
        promotions.judge(promotion, found.policy.channels[name], vouched, now)

    return Place(image, promotion, _refusal(judged))


def _written(found: Standing, channel: str, image: str) -> Promotion | None:
    """The promotion in force as it is written, verified or not; None where there is none that can be read."""
    written = found.channels[channel].head.events.get(image) if channel in found.channels else None
    with suppress(TrustError):
        return None if written is None else promotions.read(dsse.parse(written))
    return None


def _refusal(judged: Callable[[], None]) -> TrustError | None:
    try:
        judged()
    except TrustError as error:
        return error
    return None


def _proposals(found: Standing) -> Iterator[Proposal]:
    for path, envelope, promotion in standing.proposals(found.layout):
        rule = found.policy.channels.get(promotion.channel)
        if rule is None:
            continue
        written = _written(found, promotion.channel, promotion.image)
        if written is not None and written.number >= promotion.number:
            continue  # in force, or overtaken: the next promotion tidies it away
        names = promotions.approvers(envelope, promotion, rule, found.authority)
        missing = max(1, rule.approvals) - len(names)
        yield Proposal(replace(promotion, approvers=names), missing, str(path.relative_to(found.layout.root)))
