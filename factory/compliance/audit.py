"""`factory audit`: who did what when, and whether the logs are what they were.

A log is held against itself, event by event, and against the promotions: each signs how many events the log of its
catalog had, and the hash of the last. Only promotions whose signature counts under the policy here can show that a log
was cut or recomputed; what others say is told, and proves nothing. Reads only; decides nothing about images.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from factory import schema
from factory.catalog import attestations, audit, faults, finding, signed
from factory.catalog import check as checking
from factory.catalog.audit import Log, Wanted
from factory.catalog.chain import Event
from factory.catalog.check import Problem
from factory.catalog.database import Catalog
from factory.catalog.events import CHECKED
from factory.digest import Digest, is_digest
from factory.errors import CatalogError, FactoryError, TrustError, UsageError
from factory.model import Layout
from factory.release import standing
from factory.trust import dsse, heads, policy, promotions, revocations, statements
from factory.trust.authority import Authority
from factory.trust.dsse import Envelope
from factory.trust.policy import Policy
from factory.trust.promotions import Promotion

FITS, CUT, RECOMPUTED, ELSEWHERE = "fits", "cut", "recomputed", "elsewhere"
ACTIONS = frozenset(
    {
        *signed.ACTIONS.values(), signed.HEAD, CHECKED, "baked", "verified", "began", "migrated", "imported",
        "began run", "ended run", "locked base", "began rollout", "ended rollout", "launched", "retired",
        "rollout", "ordered", "scaled fleet", "began to destroy fleet", "destroyed fleet",
    }
)  # fmt: skip
"""What an event may be called."""

_NOTED = frozenset(
    signed.ACTIONS[kind] for kind in (statements.PROMOTION, statements.REVOCATION, statements.KEY_REVOCATION)
)


@dataclass(frozen=True)
class Asked:
    """What is asked for; None: any. `actor`: a key's name, a fingerprint (or 6 digits of it and more), or a user."""

    actor: str | None = None
    action: str | None = None
    image: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Held:
    """A promotion that signs the end of a log, held against that log. `by`: names of the keys that count.

    `result`: it fits, the log was cut below it, it was recomputed, or it stands elsewhere: there is no such log here.
    """

    what: str
    catalog: str
    length: int
    digest: Digest
    result: str
    by: tuple[str, ...]

    @property
    def proves_tampering(self) -> bool:
        """Whether somebody who may sign says that the log was another one."""
        return bool(self.by) and self.result in (CUT, RECOMPUTED)

    def __str__(self) -> str:
        who = f"signed by {', '.join(self.by)}" if self.by else "signed by nobody whom the policy here trusts"
        words = {
            FITS: f"fits its log as it was at event {self.length}",
            CUT: f"says that the log had {self.length} events, and it has fewer: its end was cut off",
            RECOMPUTED: f"says that the log had another event {self.length}: it was written anew from there or before",
            ELSEWHERE: f"signs the log of a catalog that is not here ({self.catalog[:80]})",
        }
        return f"{self.what}, {who}, {words[self.result]}"


@dataclass(frozen=True)
class Integrity:
    """What the logs here are worth. `notes`: why promotions could not be judged, where they could not."""

    logs: tuple[Log, ...]
    held: tuple[Held, ...]
    notes: tuple[str, ...] = ()

    @property
    def faults(self) -> list[str]:
        """Every sign that a log is not as it was written, a sentence each; none: no sign of it."""
        said = []
        for log in self.logs:
            said += [f"the log of {log.name}, {fault}" for fault in log.breaks]
            if log.more_breaks:
                said.append(f"the log of {log.name} breaks at {log.more_breaks} more events")
        return [*said, *(str(one) for one in self.held if one.proves_tampering)]

    def worth(self, log: Log) -> str:
        """What a log is worth, in words."""
        proven = self.covered(log)
        promised = f"promotions prove the first {proven}" if proven else "no promotion proves any of it"
        return f"{'is not as it was written' if log.breaks else 'is unbroken'}; {promised}"

    def covered(self, log: Log) -> int:
        """Up to which event the promotions that count prove a log; none from its first break on."""
        fits = (one for one in self.held if one.by and one.result == FITS and one.catalog == log.catalog)
        before = log.breaks[0].seq if log.breaks else log.length + 1
        return max((one.length for one in fits if one.length < before), default=0)


@dataclass(frozen=True)
class Acted:
    """An event as people read it. `source`: the log's name; `names`: of the signers, as far as the policy has them;
    `note`: why, of a revocation, and what a promotion waives."""

    source: str
    event: Event
    names: tuple[str, ...]
    note: str | None = None

    @property
    def who(self) -> str:
        """The signers by name and fingerprint, or the system's user, who proved nothing."""
        if not self.event.authenticated:
            return f"{self.event.actor} (unauthenticated)"
        signers = self.event.actor.split(",")
        return ", ".join(
            f"{name} {signer[:19]}…" if name != signer else f"{signer[:19]}…"
            for name, signer in zip(self.names, signers, strict=True)
        )


def integrity(layout: Layout, catalog: Catalog, *, is_copy: bool = False) -> Integrity:
    """Read every log to its end, and hold what promotions sign against it.

    `is_copy`: only the promotions that the catalog has: those in trust/ may be newer than a copy, whose log is shorter.
    """
    trusted, notes = _policy(layout)
    authority = None if trusted is None else Authority(trusted, _compromised(layout, trusted))
    papers = _indexed(catalog) if is_copy else itertools.chain(_indexed(catalog), _in_trust(layout))
    promised = dict(_promises(papers, authority))
    lengths: defaultdict[str, set[int]] = defaultdict(set)
    for said, _ in promised.values():
        assert said.log is not None
        lengths[said.log.catalog].add(said.log.length)
    found = tuple(audit.logs(catalog.connection, lengths))
    by_id = {log.catalog: log for log in found}
    held = tuple(_held(said, by, by_id) for said, by in promised.values())
    return Integrity(found, held, tuple(notes))


def acted(layout: Layout, catalog: Catalog, asked: Asked) -> Iterator[Acted]:
    """The events that are asked for, the oldest first. UsageError where what is asked for does not exist. Streams."""
    trusted, _ = _policy(layout)
    names = {} if trusted is None else {key.public.fingerprint: key.name for key in trusted.keys.values()}
    sources = {row["id"]: row["name"] for row in catalog.query("SELECT id, name FROM sources")}
    wanted = Wanted(
        actor=None if asked.actor is None else _actors(catalog, asked.actor, names),
        action=None if asked.action is None else _action(catalog, asked.action),
        images=None if asked.image is None else _images(catalog, asked.image),
        since=asked.since,
        until=asked.until,
        limit=asked.limit,
    )
    found = catalog.streamed(audit.events(catalog.connection, wanted))
    return (Acted(sources[source], event, _signers(event, names), _note(catalog, event)) for source, event in found)


def _signers(event: Event, names: dict[Digest, str]) -> tuple[str, ...]:
    signers = event.actor.split(",") if event.authenticated else []
    return tuple(names.get(Digest(one), one) for one in signers)


def _note(catalog: Catalog, event: Event) -> str | None:
    """Read from the envelope that the event names: what older versions wrote of a promotion does not say it."""
    if event.attestation is None or event.action not in _NOTED:
        return None
    rows = catalog.query("SELECT envelope FROM attestations WHERE digest = ?", [event.attestation])
    try:
        envelope = dsse.parse(rows[0]["envelope"] if rows else b"", "the envelope")
        if event.action == signed.ACTIONS[statements.PROMOTION]:
            waived = promotions.read(envelope).waivers
            return f"waived: {'; '.join(map(str, waived))}" if waived else None
        return revocations.read(envelope).reason
    except TrustError as error:
        return f"cannot be read: {error.message}"


@dataclass(frozen=True)
class Checked:
    """All that is wrong with a catalog. `integrity`: None where the logs cannot be read."""

    problems: tuple[Problem, ...]
    integrity: Integrity | None

    @property
    def ok(self) -> bool:
        """Whether nothing is."""
        return not self.problems and self.integrity is not None and not self.integrity.faults


@contextmanager
def opened(layout: Layout) -> Iterator[Catalog]:
    """The catalog, to be looked over: not told of what trust/ gained, and nothing else is done to it.

    CatalogError, which does not advise to look it over.
    """
    try:
        with Catalog.read(layout.catalog) as catalog, catalog.reading():
            yield catalog
    except CatalogError as error:
        if not (error.hint or "").startswith(faults.CHECK_COMMAND):
            raise
        raise CatalogError(error.message, where=error.where, hint=faults.restore(layout.catalog)) from error


def check(layout: Layout, catalog: Catalog) -> Checked:
    """Look the whole catalog over."""
    found: list[Integrity] = []

    def logs() -> list[Log]:
        found.append(integrity(layout, catalog))
        return []  # what is wrong with them is told with what promotions say of them

    problems = tuple(checking.problems(catalog.connection, catalog.path, logs))
    return Checked(problems, found[0] if found else None)


def _actors(catalog: Catalog, said: str, names: dict[Digest, str]) -> tuple[str, ...]:
    """Each text that may stand as the actor of an event for what was asked. UsageError: nobody is called so."""
    by_name = [fingerprint for fingerprint, name in names.items() if name == said]
    begins = [
        one for one in names if len(said) >= 6 and one.removeprefix("sha256:").startswith(said.removeprefix("sha256:"))
    ]
    if not by_name and not begins and said not in (acted := audit.actors(catalog.connection)):
        known = {*names.values(), *(one for one in acted if not is_digest(one))}
        raise UsageError(
            f"no event is of an actor {said[:80]!r}; {schema.suggestion(said[:80], known)}", where="--actor"
        )
    return tuple(dict.fromkeys([said, *by_name, *begins]))


def _action(catalog: Catalog, said: str) -> str:
    known = ACTIONS | set(audit.actions(catalog.connection))
    if said not in known:
        raise UsageError(f"no event is called {said[:80]!r}; {schema.suggestion(said[:80], known)}", where="--action")
    return said


def _images(catalog: Catalog, said: str) -> tuple[Digest, ...]:
    name, _, arch = said.partition("/")
    found = audit.images_of(catalog.connection, name, arch)
    return tuple(found) or (finding.one(catalog, said).digest,)


def _policy(layout: Layout) -> tuple[Policy | None, list[str]]:
    try:
        return policy.read(layout.policy), []
    except FileNotFoundError:
        return None, ["there is no trust/policy.toml here: nobody's signature counts, and no promotion proves a log"]
    except (FactoryError, OSError) as error:
        return None, [f"trust/policy.toml is not to be read, so no promotion proves a log: {error}"]


def _compromised(layout: Layout, trusted: Policy) -> dict[Digest, frozenset[Digest]]:
    with suppress(TrustError):
        raw = standing.paper(layout, layout.revocations, heads.MAX_BYTES)
        if raw is not None:
            return dict(revocations.verify_unsafe_stale(raw, trusted).compromised)
    return {}


def _promises(
    papers: Iterable[Envelope], authority: Authority | None
) -> Iterator[tuple[Digest, tuple[Promotion, tuple[str, ...]]]]:
    """Envelope -> (promotion, names of the keys that count) of each that signs the end of a log."""
    for envelope in papers:
        with suppress(TrustError):
            said = promotions.read(envelope)
            if said.log is not None:
                roles = ("approver", "verifier")
                keys = () if authority is None else authority.signers(envelope, roles, said.made_at)
                yield envelope.digest, (said, tuple(key.name for key in keys))


def _indexed(catalog: Catalog) -> Iterator[Envelope]:
    """The promotions that the catalog has."""
    for raw in catalog.streamed(attestations.promoted(catalog)):
        with suppress(TrustError):
            yield dsse.parse(raw)


def _in_trust(layout: Layout) -> Iterator[Envelope]:
    """Those of trust/, which the catalog need not have been told of."""
    for path in sorted(layout.channels.glob("*.dsse")):
        with suppress(TrustError):
            head = standing.paper(layout, path, heads.MAX_BYTES)
            if head is not None:
                for event in heads.peek(dsse.parse(head)).events.values():
                    with suppress(TrustError):
                        yield dsse.parse(event)


def _held(said: Promotion, by: tuple[str, ...], logs: dict[str, Log]) -> Held:
    assert said.log is not None
    log = logs.get(said.log.catalog)
    if log is None:
        result = ELSEWHERE
    elif said.log.length > log.length:
        result = CUT
    else:
        result = FITS if log.ends.get(said.log.length) == said.log.digest else RECOMPUTED
    what = f"the promotion of {said.image} to {said.channel} (number {said.number})"
    return Held(what, said.log.catalog, said.log.length, said.log.digest, result, by)
