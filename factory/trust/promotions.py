"""Promotions: signed events that move a channel on to an image. Pure.

The head of a channel lists the promotion in force of each image. Each promotion must itself have the approvals that
the deployer's rule asks for, and what it promotes must meet that rule now: a promotion is what people have seen, the
rule is what the deployer asks; both must hold.

Always: a promotion is verified when it is asked for, so one that is void refuses its own image and no other; the number
of an image's promotions in a channel rises by one; `verified` is proven by the deploy ticket and never waived; what is
waived is waived by an approver, also where a channel asks for no approvals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from factory import digest as digests
from factory.digest import Digest
from factory.errors import ExpiredError, TamperedError, UnsignedError
from factory.trust import dsse, examined, heads, predicates, statements
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope
from factory.trust.examined import Examined
from factory.trust.fields import Fields
from factory.trust.heads import Head
from factory.trust.policy import ChannelRule
from factory.trust.statements import PROMOTION, Statement, Subject, time_text

if TYPE_CHECKING:
    from factory.trust.ticket import Vouched

PASSED, WAIVED = "passed", "waived"
NO_CVE = "no-cve:"
_FIELDS = (
    "channel", "number", "previous", "made_at", "image", "replaces", "baked_at", "requirements", "waivers",
    "allow_older",
)  # fmt: skip
_OPTIONAL = ("catalog", "cve")


@dataclass(frozen=True)
class Waiver:
    """A requirement that need not be met until `expires_at`; `owner` answers for it."""

    requirement: str
    owner: str
    reason: str
    expires_at: datetime

    def plain(self) -> dict[str, str]:
        """As statements and documents say it."""
        end = time_text(self.expires_at)
        return {"requirement": self.requirement, "owner": self.owner, "reason": self.reason, "expires_at": end}

    def __str__(self) -> str:
        return f"{self.requirement} ({self.owner}, until {time_text(self.expires_at)}: {self.reason})"


@dataclass(frozen=True)
class CatalogHead:
    """Where the log of a catalog ended when the promotion was made: the catalog's id, how many events it had, and the
    hash of the last. A log that was cut or recomputed since does not fit it."""

    catalog: str
    length: int
    digest: Digest


@dataclass(frozen=True)
class Promotion:
    """`image` (NAME/ARCH) is `digest` in `channel` from now on.

    `previous` is the digest of the payload of the promotion before it, `replaces` the image that one named.
    `requirements`: name -> passed or waived, as those who signed found it. `approvers`: whose signatures count;
    filled in by `verify`. `log`: of the catalog of whoever proposed it; other approvers have catalogs of their own.
    `cve`: what was looked at where it says that there are no CVEs; other approvers look at data of their own.
    """

    channel: str
    image: str
    digest: Digest
    number: int
    made_at: datetime
    baked_at: datetime
    previous: Digest | None = None
    replaces: Digest | None = None
    requirements: Mapping[str, str] = field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()
    allow_older: bool = False
    log: CatalogHead | None = field(default=None, compare=False)
    cve: Examined | None = field(default=None, compare=False)
    approvers: tuple[str, ...] = field(default=(), compare=False)

    def statement(self) -> Statement:
        """The statement that says it."""
        said: dict[str, Any] = {
            "channel": self.channel,
            "number": self.number,
            "previous": self.previous,
            "made_at": time_text(self.made_at),
            "image": self.image,
            "replaces": self.replaces,
            "baked_at": time_text(self.baked_at),
            "requirements": [{"name": name, "result": result} for name, result in sorted(self.requirements.items())],
            "waivers": [waiver.plain() for waiver in self.waivers],
            "allow_older": self.allow_older,
        }
        if self.log is not None:
            said["catalog"] = {"id": self.log.catalog, "length": self.log.length, "digest": self.log.digest}
        if self.cve is not None:
            said["cve"] = self.cve.plain()
        return Statement(PROMOTION, (Subject(self.image, self.digest),), said)

    @property
    def payload_digest(self) -> Digest:
        """What the next promotion names as `previous`."""
        return digests.of_bytes(statements.dumps(self.statement()))


def make(promotion: Promotion, signer: dsse.Signer) -> Envelope:
    """The promotion with its first signature. Raises TrustError where the signer cannot."""
    return statements.signed(promotion.statement(), [signer])


def read(envelope: Envelope, what: str = "the promotion") -> Promotion:
    """The promotion an envelope carries; its signatures are not looked at. Raises TamperedError."""
    statement = statements.of_envelope(envelope, PROMOTION, what)
    said = Fields(statement.predicate, what, _FIELDS, _OPTIONAL)
    if len(statement.subjects) != 1 or statement.subjects[0].name != said.text("image"):
        raise TamperedError(f"{what} must speak of one image, the one it names")
    predicates.image_of(statement.subjects, what)
    return Promotion(
        channel=said.text("channel"),
        image=said.text("image"),
        digest=statement.subjects[0].sha256,
        number=said.number("number"),
        made_at=said.time("made_at"),
        baked_at=said.time("baked_at"),
        previous=said.optional_digest("previous"),
        replaces=said.optional_digest("replaces"),
        requirements=dict(_requirement(item, what) for item in said.items("requirements")),
        waivers=tuple(_waiver(item, what) for item in said.items("waivers")),
        allow_older=said.flag("allow_older"),
        log=_log(said.object("catalog"), what) if "catalog" in said else None,
        cve=examined.read(said.object("cve"), f"{what}: cve") if "cve" in said else None,
    )


def approvers(envelope: Envelope, promotion: Promotion, rule: ChannelRule, authority: Authority) -> tuple[str, ...]:
    """Whose signatures count so far, enough or not; sorted."""
    return tuple(key.name for key in authority.signers(envelope, _roles(rule, promotion), promotion.made_at))


def only_counting(envelope: Envelope, promotion: Promotion, rule: ChannelRule, authority: Authority) -> Envelope:
    """The promotion with the signatures that count, one of each key: what anybody else put there is not carried on."""
    kept: dict[str, dsse.Signature] = {}
    for signature in envelope.signatures:
        for name in approvers(replace(envelope, signatures=(signature,)), promotion, rule, authority):
            kept.setdefault(name, signature)
    return dsse.only(envelope, tuple(kept.values()))


def verify_event(raw: bytes, rule: ChannelRule, authority: Authority) -> Promotion:
    """One promotion with all the approvals that `rule` asks for. Raises TrustError."""
    what = f"the promotion to {rule.name}"
    envelope = dsse.parse(raw, what)
    promotion = read(envelope, what)
    what = f"the promotion of {promotion.image} to {rule.name}"
    if promotion.channel != rule.name:
        raise TamperedError(f"{what} is one to {promotion.channel[:80]!r}")
    roles = _roles(rule, promotion)
    keys = authority.require(envelope, roles, promotion.made_at, what, threshold=max(1, rule.approvals))
    return replace(promotion, approvers=tuple(key.name for key in keys))


class Promotions(Mapping[str, Promotion]):
    """NAME/ARCH -> its promotion in force. Looking one up verifies it, once; raises TrustError where it is void."""

    def __init__(self, events: Mapping[str, bytes], verified: Callable[[str], Promotion]) -> None:
        self._events = events
        self._verified = verified
        self._known: dict[str, Promotion] = {}

    def __getitem__(self, image: str) -> Promotion:
        if image not in self._known:
            if image not in self._events:
                raise KeyError(image)
            self._known[image] = self._verified(image)
        return self._known[image]

    def __contains__(self, image: object) -> bool:
        return image in self._events

    def __iter__(self) -> Iterator[str]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)


@dataclass(frozen=True)
class Channel:
    """A channel whose head was verified. `newest`: the time of its newest statement."""

    head: Head
    promotions: Promotions

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def version(self) -> int:
        return self.head.version

    @property
    def issued_at(self) -> datetime:
        return self.head.issued_at

    @property
    def expires_at(self) -> datetime:
        return self.head.expires_at

    @property
    def newest(self) -> datetime:
        return self.head.issued_at  # no event is newer than its head


def verify(raw: bytes, rule: ChannelRule, authority: Authority, now: datetime) -> Channel:
    """A channel as it is now. Raises TrustError; ExpiredError where the head is too old, or the clock behind it."""
    channel = verify_unsafe_stale(raw, rule, authority)
    heads.require_fresh(channel.head, authority.policy.fresh_days, now)
    return channel


def verify_unsafe_stale(raw: bytes, rule: ChannelRule, authority: Authority) -> Channel:
    """As `verify`, but at any time: only for whoever renews the head, never for a decision to run something."""
    envelope, head = heads.loads(raw, heads.CHANNEL, rule.name)
    heads.require_signed(envelope, head, authority)

    def verified(image: str) -> Promotion:
        promotion = verify_event(head.events[image], rule, authority)
        if promotion.image != image:
            raise TamperedError(f"{head.what} lists a promotion of {promotion.image[:80]!r} as {image[:80]!r}")
        heads.require_listed_in_time(head, promotion.made_at, f"the promotion of {image}")
        return promotion

    return Channel(head, Promotions(head.events, verified))


def judge(promotion: Promotion, rule: ChannelRule, image: Vouched, now: datetime) -> None:
    """Refuse an image that does not meet the rule now. Raises UnsignedError (not met), ExpiredError (too old)."""
    who = f"{promotion.image} ({promotion.digest[:19]}…)"
    for requirement in rule.requires:
        if _is_met(requirement, promotion, image):
            _require_explained(requirement, promotion, rule, now)
            continue
        waiver = next((waiver for waiver in promotion.waivers if waiver.requirement == requirement), None)
        if waiver is None:
            raise UnsignedError(
                f"{who} may not stand in {rule.name}: {_why_not(requirement, image)}",
                where=f"channel {rule.name}: {requirement}",
                hint="meet it, or have it waived (--waive of factory promote)",
            )
        if waiver.expires_at <= now:
            raise ExpiredError(
                f"{who} may no longer stand in {rule.name}: the waiver of {requirement} by {waiver.owner} ended "
                f"{time_text(waiver.expires_at)}",
                where=f"channel {rule.name}: {requirement}",
                hint="meet it, or have it waived anew (--waive of factory promote)",
            )
    if rule.max_age_days is not None and now - image.baked_at > timedelta(days=rule.max_age_days):
        raise ExpiredError(
            f"{who} may not stand in {rule.name}: it was baked {time_text(image.baked_at)}, more than "
            f"{rule.max_age_days} days ago",
            where=f"channel {rule.name}: max_age_days",
            hint=f"bake it anew and promote that: factory bake --force --refresh {promotion.image.partition('/')[0]}",
        )


def results(
    rule: ChannelRule, image: Vouched, waivers: tuple[Waiver, ...], passed: Collection[str] = ()
) -> dict[str, str]:
    """What is known here of each requirement of a rule; one that is neither met nor waived is left out. `passed`: those
    that whoever asks has found to be met, of those that no ticket proves."""
    waived = {waiver.requirement for waiver in waivers}
    found = {
        name: PASSED if name in passed or _is_proven(name, image) else WAIVED if name in waived else ""
        for name in rule.requires
    }
    return {name: result for name, result in found.items() if result}


def needs_approver(rule: ChannelRule, promotion: Promotion) -> bool:
    """Whether people must sign it: where the rule asks for approvals, and wherever something is waived."""
    return rule.approvals > 0 or bool(promotion.waivers)


def _roles(rule: ChannelRule, promotion: Promotion) -> tuple[str, ...]:
    return ("approver",) if needs_approver(rule, promotion) else ("approver", "verifier")


def _is_proven(requirement: str, image: Vouched) -> bool:
    """Whether the deploy ticket itself proves it."""
    if requirement == "verified":
        return True
    kind, _, name = requirement.partition(":")
    outcomes = [check.outcome for check in image.checks if check.name == name] if kind == "check" else []
    return bool(outcomes) and all(outcome == PASSED for outcome in outcomes)


def _is_met(requirement: str, promotion: Promotion, image: Vouched) -> bool:
    """Proven by the ticket; or, of what no ticket says (CVEs), found so by those who signed the promotion, who then say
    what they looked at, and that it was no old news."""
    if _is_proven(requirement, image):
        return True
    said = promotion.cve if requirement.startswith(NO_CVE) else None
    if said is None or promotion.requirements.get(requirement) != PASSED:
        return False
    return bool(said.data) and said.stale(promotion.made_at) is None


def _require_explained(requirement: str, promotion: Promotion, rule: ChannelRule, now: datetime) -> None:
    """Raises ExpiredError where a requirement rests on an explanation that has ended."""
    until = promotion.cve.good_until if promotion.cve is not None and requirement.startswith(NO_CVE) else None
    if until is not None and until <= now:
        raise ExpiredError(
            f"{promotion.image} ({promotion.digest[:19]}…) may no longer stand in {rule.name}: what explained its CVEs "
            f"away ended {time_text(until)}",
            where=f"channel {rule.name}: {requirement}",
            hint=f"look at them again: factory cve {promotion.image.partition('/')[0]}; and promote it anew",
        )


def _why_not(requirement: str, image: Vouched) -> str:
    kind, _, name = requirement.partition(":")
    if kind == "check":
        outcomes = sorted({check.outcome for check in image.checks if check.name == name})
        return f"the check {name} " + (f"did not pass ({', '.join(outcomes)})" if outcomes else "was not run")
    if kind == "no-cve":
        return f"nothing says that it is free of {name} CVEs, and that is not waived"
    return f"it does not meet {requirement}"


def _requirement(item: Any, what: str) -> tuple[str, str]:
    said = Fields(item, f"{what}: a requirement", ("name", "result"))
    if said.text("result") not in (PASSED, WAIVED):
        raise TamperedError(f"{what}: a requirement is neither {PASSED} nor {WAIVED}")
    return said.text("name"), said.text("result")


def _log(item: Any, what: str) -> CatalogHead:
    said = Fields(item, f"{what}: catalog", ("id", "length", "digest"))
    return CatalogHead(said.text("id"), said.number("length"), said.digest("digest"))


def _waiver(item: Any, what: str) -> Waiver:
    said = Fields(item, f"{what}: a waiver", ("requirement", "owner", "reason", "expires_at"))
    return Waiver(said.text("requirement"), said.text("owner"), said.text("reason"), said.time("expires_at"))
