"""What a rollout would do, decided before it begins, and every reason why it cannot be. Launches nothing.

`prepare` is what `factory rollout plan` shows and what `apply` begins with.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from factory import spec as images_spec
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, SpecError, TrustError, UsageError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import history, providers, spec, trusted
from factory.rollout.history import Serving
from factory.rollout.model import FleetSpec, Image, Observation, Plan, Stage, State
from factory.rollout.plan import Moment, preview, stages
from factory.rollout.providers import Provider
from factory.trust import policy


@dataclass(frozen=True)
class Wish:
    """What a fleet is to run: what is trusted for it now; with `back` what it ran before, or of that the image `to`."""

    back: bool = False
    to: Digest | None = None


FORWARD = Wish()


@dataclass(frozen=True)
class Prepared:
    """A rollout that could begin. `old_count`: instances that serve now. `unchanged`: of that image already.
    `others`: ids of instances of other generations, which are there until its end."""

    plan: Plan
    old_count: int
    unchanged: bool
    others: tuple[str, ...] = ()

    @property
    def moments(self) -> list[Moment]:
        """The steps, for people."""
        return preview(self.plan, self.old_count, len(self.others))

    @property
    def most(self) -> int:
        """How many instances there would be at once."""
        return max(moment.most for moment in self.moments)


def prepare(layout: Layout, catalog: Catalog, name: str, wish: Wish = FORWARD) -> Prepared:
    """What a rollout of a fleet would do now. Back it goes by the shortest way.

    Raises SpecError (2) with every reason why it cannot be; TrustError (6) where the image may not run, with the other
    reasons, if there are.
    """
    wanted = fleets.sized(catalog, spec.find(layout.root, name))
    provider = providers.connect(layout, wanted)
    factory = images_spec.load(layout.root)
    known = policy.read(layout.policy) if layout.policy.is_file() else None
    faults = spec.faults_against(wanted, factory, known)
    target: Image | None = None
    refused: FactoryError | None = None
    if not faults:  # else there is no such image or channel to be asked for
        try:
            before = None if not wish.back else _before(catalog, wanted.name, wish.to, provider)
            target = _target(layout, wanted, before)
        except FactoryError as error:
            refused = error
    faults += spec.file_faults(wanted)
    known_image = target or factory.images.get(wanted.image)
    if known_image is not None:
        faults += provider.faults(known_image.arch)
    if faults or refused is not None or target is None:
        raise _refused(name, faults, refused)
    return _prepared(catalog, wanted, target, provider.observe(), back=wish.back)


def _before(catalog: Catalog, fleet: str, to: Digest | None, provider: Provider) -> Image:
    return previous(catalog, fleet, provider.observe()) if to is None else ran(catalog, fleet, to)


def _target(layout: Layout, wanted: FleetSpec, before: Image | None) -> Image:
    """What is to run, trusted; `before`: where it is to go back."""
    places = fleets.places(wanted)
    if before is None:
        return trusted.target(layout, wanted, places)
    return trusted.require(layout, wanted, before.digest, f"{before.name}/{before.arch}", places)


def _refused(name: str, faults: list[str], refused: FactoryError | None = None) -> FactoryError:
    """All reasons as one error; that an image is not trusted weighs most."""
    if refused is not None and not faults:
        return refused
    kind = type(refused) if isinstance(refused, TrustError) else SpecError
    reasons = [*([refused.message] if refused is not None else []), *faults]
    return kind("\n".join(reasons), where=f"fleet.{name}", hint="nothing was launched")


def _prepared(catalog: Catalog, wanted: FleetSpec, target: Image, observed: Observation, *, back: bool) -> Prepared:
    now = fleets.serving(catalog, wanted.name, observed)
    staying = [one for one in observed.instances if one.state != "stopping"]
    others = tuple(sorted(one.id for one in staying if now is None or one.generation != now.generation))
    old_count = len(staying) - len(others)
    number = fleets.next_generation(catalog, wanted.name, observed)
    steps = stages(wanted, old_count)
    if back and old_count and wanted.strategy != "rolling":
        steps = (Stage(100, wanted.size),)
    made = Plan(
        rollout=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        fleet=wanted,
        target=target,
        generation=number,
        stages=steps,
        old=None if now is None else now.image,
        old_generation=None if now is None else now.generation,
        baseline_generation=number + 1 if now is not None and any(stage.baseline for stage in steps) else None,
        back=back,
    )
    prepared = Prepared(made, old_count, now is not None and now.image.digest == target.digest, others)
    crowd = prepared.most - (len(others) if prepared.unchanged else 0)
    if crowd > wanted.max:
        raise _crowded(prepared, crowd, observed, fleets.settled(catalog, wanted.name, observed))
    return prepared


def _crowded(prepared: Prepared, most: int, observed: Observation, settled: Serving | None) -> SpecError:
    """Why there is no room, and how it is made. What is left over goes only by healing, which keeps what serves."""
    wanted, others = prepared.plan.fleet, prepared.others
    name, where = wanted.name, f"fleet.{wanted.name}"
    said = f"it would have {most} instances at once, and max is {wanted.max}"
    if most - len(others) > wanted.max or not others:
        return SpecError(f"{said}: raise max, or lower size or surge", where=where, hint="nothing was launched")
    said += f"; {len(others)} of them {'is' if len(others) == 1 else 'are'} left over: {_listed(others)}"
    heal = f"factory drift {name} --heal"
    apart = {one.generation for one in observed.instances if one.id in others}
    if settled is None:
        how = f"raise max; or factory fleet destroy {name} --yes ends what is left"
    elif sent := sum(observed.weights.get(number, 0) for number in apart - {settled.generation}):
        alone = f"{heal} would have generation {settled.generation} serve alone"
        how = f"raise max: {sent}% of the traffic goes there, and {alone}"
    else:
        budget = max(len(others), wanted.size - prepared.old_count)
        how = f"factory drift {name} shows what is left over, --heal --budget {budget} removes it; or raise max"
    return SpecError(said, where=where, hint=f"nothing was launched; {how}")


def _listed(ids: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def previous(catalog: Catalog, fleet: str, observed: Observation) -> Image:
    """The image that a fleet ran before what serves now. Raises UsageError where there was none; where what serves was
    brought by a rollback: what that went away from is hardly what is wanted; and where the way back was only half
    gone: it is to be gone to its end."""
    past = list(fleets.past(catalog, fleet))
    if past and history.is_torn(past[0], observed):
        old = past[0].plan.old
        raise UsageError(
            f"most of the traffic of {fleet} is back on {old and old.digest} already",
            where=f"fleet {fleet}",
            hint=f"factory drift {fleet} --heal brings the rest back; --to DIGEST goes back further",
        )
    before = history.before(past, observed)
    if before is None:
        raise UsageError(
            f"the fleet {fleet} never ran another image",
            where=f"fleet.{fleet}",
            hint=f"factory rollout status {fleet}; factory drift {fleet} --heal brings back what is gone of it",
        )
    if before.was_left:
        raise UsageError(
            f"the last rollout of {fleet} went back already, from {before.image.digest}",
            where=f"fleet {fleet}",
            hint=f"factory rollout rollback {fleet} --to DIGEST says which of those that it ran: "
            + ", ".join(_ran(catalog, fleet)),
        )
    return before.image


def ran(catalog: Catalog, fleet: str, digest: Digest) -> Image:
    """An image that a fleet ran once. Raises UsageError where it never did."""
    found = _ran(catalog, fleet)
    if digest not in found:
        known = f"it ran {', '.join(found)}" if found else "it never ran any"
        raise UsageError(f"the fleet {fleet} never ran {digest}", where="--to", hint=known)
    return found[digest]


def _ran(catalog: Catalog, fleet: str) -> dict[Digest, Image]:
    """The images that a fleet ran, the last one first; what could not be brought back among them."""
    found: dict[Digest, Image] = {}
    for one in fleets.past(catalog, fleet):
        target = one.plan.target if one.state != State.ROLLED_BACK else None
        for image in (target, one.plan.old):
            if image is not None:
                found.setdefault(image.digest, image)
    return found
