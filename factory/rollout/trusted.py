"""Which image a fleet may be given, and whether one that it has may still be launched.

`target` asks as any deploy job does (release/resolve.py). `require` asks of one digest, at any later moment: is it
still signed, verified and not revoked, under the policy of this checkout and a fresh set of revocations. Nothing is
launched without one of the two having just said yes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from factory.digest import Digest, is_digest
from factory.errors import FactoryError, RevokedError, StoreError, TamperedError, TrustError, UnsignedError
from factory.model import Layout
from factory.release import dossier, resolve, standing
from factory.rollout.model import FleetSpec, Image
from factory.store import Store
from factory.trust import heads, policy, revocations, ticket
from factory.trust.authority import Authority
from factory.trust.ticket import Vouched
from factory.verify.built_in import STATE

LOCAL = "local"
_STORED = ("qcow2", "raw")
"""Stored forms that a local guest can be started from, the preferred first."""


def target(layout: Layout, fleet: FleetSpec, places: Iterable[str], now: datetime | None = None) -> Image:
    """The image that a fleet is to run now. Raises TrustError, UsageError, SpecError, StoreError as resolve does."""
    now = now or datetime.now(UTC)
    name = fleet.image if fleet.arch is None else f"{fleet.image}/{fleet.arch}"
    answer = resolve.resolve(layout, resolve.Asked(name, channel=fleet.channel, now=now))
    return require(layout, fleet, answer.digest, f"{answer.name}/{answer.arch}", places, now)


def require(
    layout: Layout, fleet: FleetSpec, digest: Digest, who: str, places: Iterable[str], now: datetime | None = None
) -> Image:
    """An image by its digest, with what launches it at each place. Raises TrustError where it may not be launched,
    StoreError where its bytes are not here."""
    vouched = _vouched(layout, digest, who, now or datetime.now(UTC))
    references = {place: _reference(layout, vouched, place) for place in places}
    _refuse_state_writes(fleet, vouched)
    return Image(vouched.name, vouched.arch, vouched.digest, references)


def refusal(layout: Layout, digest: Digest, who: str, now: datetime | None = None) -> str | None:
    """Why an image may not be launched any more; None where it may."""
    objection = _objection(layout, digest, who, now)
    return None if objection is None else objection.message


def revoked(layout: Layout, digest: Digest, who: str, now: datetime | None = None) -> str | None:
    """Why an image should not even run: it, an ancestor, or a key that signed it was revoked. None where nobody did, or
    where the papers cannot be read: whether it may be launched is another question."""
    objection = _objection(layout, digest, who, now)
    return objection.message if isinstance(objection, RevokedError) else None


def state_writes(layout: Layout, fleet: FleetSpec, image: Image, now: datetime | None = None) -> TrustError | None:
    """Why a fleet may not have as many of an image as it is to have: it was not seen to write only to its state. None
    where it may, or where the papers do not hold: that is for `refusal` to say."""
    try:
        vouched = _vouched(layout, image.digest, f"{image.name}/{image.arch}", now or datetime.now(UTC))
    except FactoryError:
        return None
    try:
        _refuse_state_writes(fleet, vouched)
    except TrustError as error:
        return error
    return None


def _objection(layout: Layout, digest: Digest, who: str, now: datetime | None) -> FactoryError | None:
    try:
        _vouched(layout, digest, who, now or datetime.now(UTC))
    except FactoryError as error:
        return error
    except OSError as error:
        return TrustError(f"the papers cannot be read: {error}", where=str(layout.policy))
    return None


def _vouched(layout: Layout, digest: Digest, who: str, now: datetime) -> Vouched:
    chosen = policy.read(layout.policy)
    raw = standing.paper(layout, layout.revocations, heads.MAX_BYTES)
    if raw is None:
        raise UnsignedError("there is no signed set of revocations", where="trust/revocations.dsse")
    revoked = revocations.verify(raw, chosen, now)
    found = dossier.gather(layout, digest)
    vouched = ticket.verify(found.ticket, digest, Authority(chosen, revoked.compromised))
    if f"{vouched.name}/{vouched.arch}" != who:
        raise TamperedError(f"{digest} was signed as {vouched.name}/{vouched.arch}, not as {who}")
    revoked.refuse_revoked(digest, vouched.ancestors, now)
    return vouched


def _reference(layout: Layout, vouched: Vouched, place: str) -> str:
    """What launches an image at a place: a native id, or the path of its file."""
    if place != LOCAL:
        native = next((artifact.native for artifact in vouched.artifacts if artifact.place == place), None)
        if native is None or is_digest(native):
            raise UnsignedError(
                f"{vouched.name}/{vouched.arch} {vouched.digest[:19]}… is not published to {place}",
                where=place,
                hint="nothing that the ticket vouches for is there",
            )
        return native
    store = Store(layout.store)
    stored = {artifact.place: artifact.native for artifact in vouched.artifacts if artifact.place in _STORED}
    for form in _STORED:
        if form in stored and store.has(stored[form]):
            return str(store.path(stored[form]))
    raise StoreError(
        f"no disk of {vouched.name}/{vouched.arch} {vouched.digest[:19]}… is in the store here",
        where=str(layout.store),
        hint=f"factory fetch {vouched.name} gets it (with a [store] in images.toml)",
    )


def _refuse_state_writes(fleet: FleetSpec, vouched: Vouched) -> None:
    """Instances are disposable and alike: one that keeps something of its own is refused where there are several."""
    if fleet.size <= 1 or fleet.allow_state_writes:
        return
    outcomes = {check.outcome for check in vouched.checks if check.name == STATE}
    if outcomes != {"passed"}:
        raise TrustError(
            f"{vouched.name}/{vouched.arch} was not seen to write only to its state"
            f" ({STATE}: {', '.join(sorted(outcomes)) or 'not run'}), and the fleet has {fleet.size} instances",
            where=f"fleet.{fleet.name}",
            hint="mend the image, or say allow_state_writes = true for that fleet",
        )
