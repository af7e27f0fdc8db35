"""`factory channels refresh`: sign the heads anew before they expire. What the heads list is left as it is.

Renewed is only what verifies but for its age: its events bear the signatures of people, so whoever may sign heads can
say that they are still in force. What does not verify is refused and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from factory.catalog import attestations
from factory.catalog.database import Catalog
from factory.errors import ExpiredError, TrustError, UnsignedError
from factory.model import Layout
from factory.release import standing
from factory.release.signing import Signing
from factory.release.standing import Standing
from factory.trust import dsse, heads, revocations
from factory.trust.dsse import Signer
from factory.trust.heads import Head
from factory.trust.policy import Policy
from factory.trust.statements import KEY_REVOCATION, REVOCATION, time_text

ROLES = ("verifier", "approver", "root")
"""Who signs a head, in the order in which a key is looked for here."""


@dataclass(frozen=True)
class Renewed:
    """A head that was signed anew."""

    file: str
    version: int
    expires_at: datetime


@dataclass(frozen=True)
class Refresh:
    """What was done. `fresh`: heads that are good for long enough, and until when; `refused`: file -> why."""

    renewed: tuple[Renewed, ...] = ()
    fresh: tuple[tuple[str, datetime], ...] = ()
    refused: dict[str, TrustError] = field(default_factory=dict)


def ensure_revocations(layout: Layout, signing: Signing, now: datetime | None = None) -> bool:
    """Sign an empty set of revocations where there is none; whether that was so. Raises TrustError (as `begin`)."""
    if layout.revocations.is_file():
        return False
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        return begin(layout, catalog, signing, now or standing.this_moment())


def begin(layout: Layout, catalog: Catalog, signing: Signing, now: datetime) -> bool:
    """As `ensure_revocations`, for who holds the lock. TrustError where there was a set once: it is not to be lost."""
    if layout.revocations.is_file():
        return False
    if attestations.highest(catalog, [REVOCATION, KEY_REVOCATION]):
        raise UnsignedError(
            "the set of revocations is gone, but the catalog remembers revocations",
            where="trust/revocations.dsse",
            hint="get it back: git checkout trust/revocations.dsse",
        )
    signer = signing.for_role(*ROLES)  # may make the development key, and the policy with it
    head = standing.next_head(catalog, heads.nothing(heads.REVOCATIONS), {}, now, signing.policy)
    standing.write_head(layout, head, signer)
    standing.index(catalog, layout)
    return True


def refresh(layout: Layout, signing: Signing, *, every: bool = False, now: datetime | None = None) -> Refresh:
    """Renew the heads with less than a third of their life left (with `every`: all). A missing set is begun.

    Signs nothing, and asks for no key, where nothing is due.
    """
    now = now or standing.this_moment()
    with standing.lock(layout), Catalog.open(layout.catalog) as catalog:
        begun = begin(layout, catalog, signing, now)
        found = standing.read(layout, signing.policy)
        standing.index(catalog, layout)
        refused = {f"trust/channels/{name}.dsse": error for name, error in found.faults.items()}
        if lost := _lost(catalog, found):
            refused[found.revocations.head.file] = lost
        due = []
        fresh: list[tuple[str, datetime]] = []
        for head in (found.revocations.head, *(channel.head for channel in found.channels.values())):
            if head.issued_at > now:
                refused[head.file] = _ahead(head, now)
            elif every or head.is_due(found.policy.fresh_days, now):
                due.append(head)
            else:
                fresh.append((head.file, head.good_until(found.policy.fresh_days)))
        renewed = _renew(layout, catalog, due, found, signing, now) if due else []
        if begun and not every:
            head = found.revocations.head
            renewed.insert(0, Renewed(head.file, head.version, head.good_until(found.policy.fresh_days)))
            fresh = [row for row in fresh if row[0] != head.file]
        return Refresh(tuple(renewed), tuple(fresh), refused)


def _lost(catalog: Catalog, found: Standing) -> TrustError | None:
    """Why a set lacks what it must not: a revocation that the catalog remembers, lost in a merge, say."""
    listed = {REVOCATION: found.revocations.images, KEY_REVOCATION: found.revocations.keys}
    for row in (row for kind in listed for row in attestations.of_type(catalog, kind)):
        if any(row.subject in those for those in listed.values()):
            continue
        try:
            envelope = dsse.parse(row.envelope)
            event = revocations.read(envelope)
            found.authority.require(envelope, revocations.ROLES, event.made_at, "it")
        except TrustError:
            continue  # nobody who may has said so
        return TrustError(
            f"the set lacks the revocation of {event.name} {event.digest}, which the catalog remembers",
            where=found.revocations.head.file,
            hint="was it lost in a merge? "
            + (
                f"factory revoke --unknown {event.digest} --reason TEXT"
                if isinstance(event, revocations.Revocation)
                else f"factory key revoke {event.name} --reason TEXT"
            ),
        )
    return None


def _renew(
    layout: Layout, catalog: Catalog, due: list[Head], found: Standing, signing: Signing, now: datetime
) -> list[Renewed]:
    signer: Signer = signing.without(found.revocations.compromised).for_role(*ROLES)
    policy: Policy = found.policy
    renewed = []
    for before in due:
        head = standing.next_head(catalog, before, before.events, now, policy)
        standing.write_head(layout, head, signer)
        renewed.append(Renewed(head.file, head.version, head.good_until(policy.fresh_days)))
    standing.index(catalog, layout)
    return renewed


def _ahead(head: Head, now: datetime) -> ExpiredError:
    return ExpiredError(
        f"this machine's clock says {time_text(now)}, but {head.what} was signed at {time_text(head.issued_at)}",
        where="the clock",
        hint="set the clock (timedatectl), or look who signs with a clock ahead",
    )
