"""Which image a deploy job may run: one answer, or the TrustError that says why not. Pure: papers in, answer out.

The order of the questions: is the set of revocations true and fresh; which digest is asked for (the lock's, or the one
a channel points at); do its signed statements vouch for it; do they agree with what the lock says; is it, or an
ancestor, revoked; may it stand in that channel by the deployer's own rule; is the clock sane. Nothing that the lock
says is believed unless it was signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from factory.digest import Digest
from factory.errors import ExpiredError, TamperedError, TrustError, UnsignedError
from factory.model import LockedImage
from factory.trust import revocations, statements, ticket
from factory.trust.authority import Authority
from factory.trust.facts import Artifact
from factory.trust.policy import ChannelRule, Policy

if TYPE_CHECKING:
    from factory.trust import promotions

BOOTABLE = ("qcow2", "raw", "vmdk")
"""The stored forms, in the order in which one is chosen where none is asked for."""

_AS_COMMITTED = (
    "are images.lock and trust/ as they were committed? git diff images.lock trust/; "
    "a bundle: factory export makes it anew"
)


@dataclass(frozen=True)
class Papers:
    """What was read, not yet believed. `tickets` holds those of the image; None where a file is not there.

    `locked` is the image's entry in the lock, None where only a channel names it.
    """

    name: str
    arch: str
    locked: LockedImage | None
    tickets: bytes | None
    revocations: bytes | None
    channel: bytes | None = None
    bundled: bool = False
    """They came in a bundle: what is missing is had by another export."""

    @property
    def who(self) -> str:
        return f"{self.name}/{self.arch}"

    def promotion_hint(self, channel: str) -> str:
        """What to do where it was not promoted."""
        if self.bundled:
            return f"where the factory is: factory export {self.who} --bytes --channel {channel} --to DIR"
        return f"factory promote {self.name} --to {channel}"


class Verdict(NamedTuple):
    """An image that may run. `place` and `artifact`: the stored form that was asked for, or would be chosen."""

    image: ticket.Vouched
    channel: str | None
    artifact: Artifact
    revocations: revocations.Revocations
    head: promotions.Channel | None
    authority: Authority
    development: bool
    """The ticket, or the promotion, would not be enough without the signatures of development keys."""


def judge(
    papers: Papers, policy: Policy, now: datetime, *, channel: str | None = None, place: str | None = None
) -> Verdict:
    """The one image that `papers` make trusted under `policy`. Raises TrustError with the reason."""
    revoked = revocations_of(papers, policy, now)
    return judge_image(papers, policy, now, revoked, head_of(papers, channel, policy, revoked, now), place)


def revocations_of(papers: Papers, policy: Policy, now: datetime) -> revocations.Revocations:
    """The set of revocations, true and fresh. Raises TrustError."""
    if papers.revocations is None:
        raise UnsignedError(
            "there is no signed set of revocations",
            where="trust/revocations.dsse",
            hint="factory channels refresh makes it, where the image was baked; commit trust/",
        )
    with _at("trust/revocations.dsse"):
        return revocations.verify(papers.revocations, policy, now)


def head_of(
    papers: Papers, channel: str | None, policy: Policy, revoked: revocations.Revocations, now: datetime
) -> promotions.Channel | None:
    """The channel that is asked for, its head true and fresh; None where none is. Raises TrustError."""
    if channel is None:
        return None
    with _at(f"trust/channels/{channel}.dsse"):
        return _head(papers, channel, policy, Authority(policy, revoked.compromised), now)


def judge_image(
    papers: Papers, policy: Policy, now: datetime, revoked: revocations.Revocations, head: promotions.Channel | None,
    place: str | None = None,
) -> Verdict:  # fmt: skip
    """The one image, by a set of revocations and a channel that were verified. Raises TrustError with the reason."""
    who = papers.who
    authority = Authority(policy, revoked.compromised)
    channel = promotion = None
    if head is not None:
        channel = head.name
        with _at(f"trust/channels/{channel}.dsse"):
            promotion = head.promotions.get(who)
    if channel is None:
        if papers.locked is None:
            raise UnsignedError(f"{who} does not stand in images.lock", where="images.lock")
        digest = papers.locked.digest
    else:
        if promotion is None:
            raise UnsignedError(
                f"{who} was never promoted to {channel}",
                where=f"trust/channels/{channel}.dsse",
                hint=papers.promotion_hint(channel),
            )
        digest = promotion.digest
    with _at(f"trust/tickets/{papers.name}-{papers.arch}.jsonl"):
        image = ticket.verify(_ticket(papers, digest, channel), digest, authority)
        if (image.name, image.arch) != (papers.name, papers.arch):
            raise TamperedError(f"{digest} was signed as {image.name}/{image.arch}, not as {who}")
    if papers.locked is not None and papers.locked.digest == digest:
        require_same(papers.locked, image)
    newest = max(image.newest, revoked.newest, *([head.newest] if head is not None else []))
    if now < newest:
        raise ExpiredError(
            f"this machine's clock says {statements.time_text(now)}, but {who} was spoken for at "
            f"{statements.time_text(newest)}",
            where="the clock",
            hint="set the clock (timedatectl), or look who signs with a clock ahead",
        )
    revoked.refuse_revoked(digest, image.ancestors, now)
    if head is not None and promotion is not None:
        from factory.trust import promotions

        promotions.judge(promotion, policy.channels[head.name], image, now)
    development = image.development or (promotion is not None and _is_by_development(promotion, policy))
    return Verdict(image, channel, _artifact(image, place), revoked, head, authority, development)


def channel_rule(policy: Policy, channel: str) -> ChannelRule:
    """What a policy asks of a channel. Raises TrustError where it does not know it."""
    rule = policy.channels.get(channel)
    if rule is None:
        known = ", ".join(sorted(policy.channels)) or "none"
        raise TrustError(
            f"the policy says nothing of a channel {_shown(channel)} (it knows: {known})",
            where="trust/policy.toml",
            hint="say in the policy what it asks for: [channel.NAME] with approvals = 1",
        )
    return rule


def _is_by_development(promotion: promotions.Promotion, policy: Policy) -> bool:
    """Whether too few have signed a promotion, development keys aside."""
    others = [name for name in promotion.approvers if not policy.keys[name].development]
    return len(others) < max(1, policy.channels[promotion.channel].approvals)


@contextmanager
def _at(file: str) -> Iterator[None]:
    """Say of an error which file it is about, and what to do, where it does not."""
    try:
        yield
    except TrustError as error:
        error.where = error.where or file
        error.hint = error.hint or _AS_COMMITTED
        raise


def _head(papers: Papers, channel: str, policy: Policy, authority: Authority, now: datetime) -> promotions.Channel:
    rule = channel_rule(policy, channel)
    if papers.channel is None:
        raise UnsignedError(
            f"nothing was ever promoted to {channel}",
            where=f"trust/channels/{channel}.dsse",
            hint=papers.promotion_hint(channel),
        )
    from factory.trust import promotions  # only a channel needs it, and a deploy job waits for it to load

    return promotions.verify(papers.channel, rule, authority, now)


def _ticket(papers: Papers, digest: Digest, channel: str | None) -> ticket.Ticket:
    where = f"trust/tickets/{papers.name}-{papers.arch}.jsonl"
    if papers.tickets is None:
        raise UnsignedError(
            f"{papers.name}/{papers.arch} has no deploy ticket",
            where=where,
            hint=f"factory bake {papers.name} verifies and signs it; commit trust/",
        )
    found = ticket.loads(papers.tickets, where)
    if digest not in found:
        others = ", ".join(f"{other[:19]}…" for other in sorted(found)) or "nothing"
        said_by = "images.lock names" if channel is None else f"channel {channel} points at"
        raise UnsignedError(
            f"nothing is signed for {digest}, which {said_by} (there are tickets of {others})",
            where=where,
            hint=_AS_COMMITTED,
        )
    return found[digest]


def require_same(locked: LockedImage, image: ticket.Vouched) -> None:
    """What the lock says of an image must be what was signed, all of it and no more. Raises TamperedError."""
    said: Mapping[str, tuple[str, str]] = {
        "bake-key": (locked.bake_key, image.bake_key),
        "base": (locked.base, image.base),
        "tree": (locked.tree, image.tree),
    }
    for key, (here, signed) in said.items():
        if here != signed:
            raise _edited(locked, f"its {key} is {here}, but {signed} was signed")
    signed_at = {artifact.place: artifact.native for artifact in image.artifacts}
    for place, native in sorted(locked.artifacts.items()):
        if place not in signed_at:
            raise _edited(locked, f"its {_shown(place)} artifact {_shown(native)} was never signed")
        if native != signed_at[place]:
            raise _edited(locked, f"its {place} artifact is {_shown(native)}, but {signed_at[place]} was signed")
    for place in sorted(signed_at.keys() - locked.artifacts.keys()):
        raise _edited(locked, f"its {place} artifact is missing, but {signed_at[place]} was signed")


def _shown(text: str) -> str:
    """A text that anybody may have written, so that it cannot play tricks on a terminal."""
    return text if text.isprintable() and 0 < len(text) <= 100 else repr(text[:100])


def _edited(locked: LockedImage, what: str) -> TamperedError:
    return TamperedError(
        f"images.lock is not what was signed: {what}",
        where=f"images.lock: image {locked.name}",
        hint="git diff images.lock shows what was edited; git checkout images.lock takes it back",
    )


def _artifact(image: ticket.Vouched, place: str | None) -> Artifact:
    at = {artifact.place: artifact for artifact in image.artifacts}
    if place is not None:
        if place in at:
            return at[place]
        raise UnsignedError(
            f"no artifact of {image.name} was signed for {_shown(place)}; there are: {', '.join(sorted(at)) or 'none'}",
            where="--at",
        )
    for known in (*BOOTABLE, *sorted(at)):
        if known in at:
            return at[known]
    raise UnsignedError(f"no artifact of {image.name} was signed")
