"""What a rollout would do, decided before it begins, and every reason why it cannot be. Launches nothing.

`prepare` is what `factory rollout plan` shows and what `apply` begins with.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from factory import spec as images_spec
from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.errors import FactoryError, SpecError, TrustError, UsageError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import providers, spec, trusted
from factory.rollout.model import FleetSpec, Image, Observation, Plan, Stage, State
from factory.rollout.plan import Moment, preview, stages
from factory.trust import policy

_MOST_LOOKED_BACK = 1000


@dataclass(frozen=True)
class Prepared:
    """A rollout that could begin. `old_count`: instances that serve now. `unchanged`: of that image already."""

    plan: Plan
    old_count: int
    unchanged: bool

    @property
    def moments(self) -> list[Moment]:
        """The steps, for people."""
        return preview(self.plan, self.old_count)


def prepare(layout: Layout, catalog: Catalog, name: str, *, back: bool = False) -> Prepared:
    """What a rollout of a fleet would do now. `back`: of the image before, by the shortest way.

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
            target = (
                previous(layout, catalog, wanted) if back else trusted.target(layout, wanted, fleets.places(wanted))
            )
        except FactoryError as error:
            refused = error
    faults += spec.file_faults(wanted)
    known_image = target or factory.images.get(wanted.image)
    if known_image is not None:
        faults += provider.faults(known_image.arch)
    if faults or refused is not None or target is None:
        raise _refused(name, faults, refused)
    return _prepared(catalog, wanted, target, provider.observe(), back=back)


def _refused(name: str, faults: list[str], refused: FactoryError | None = None) -> FactoryError:
    """All reasons as one error; that an image is not trusted weighs most."""
    if refused is not None and not faults:
        return refused
    kind = type(refused) if isinstance(refused, TrustError) else SpecError
    reasons = [*([refused.message] if refused is not None else []), *faults]
    return kind("\n".join(reasons), where=f"fleet.{name}", hint="nothing was launched")


def _prepared(catalog: Catalog, wanted: FleetSpec, target: Image, observed: Observation, *, back: bool) -> Prepared:
    now = fleets.serving(catalog, wanted.name, observed)
    old_count = 0 if now is None else len(observed.of(now.generation))
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
    most = max([len(observed.instances), *(moment.most for moment in preview(made, old_count))])
    if most > wanted.max:
        raise _refused(
            wanted.name,
            [f"it would have {most} instances at once, and max is {wanted.max}: raise max, or lower size or surge"],
        )
    return Prepared(made, old_count, now is not None and now.image.digest == target.digest)


def previous(layout: Layout, catalog: Catalog, wanted: FleetSpec) -> Image:
    """The image that a fleet ran before the last rollout that succeeded. Raises UsageError where there was none."""
    for known in rollouts.known(catalog, wanted.name, _MOST_LOOKED_BACK):
        old = fleets.plan_of(known).old
        if known.ended == State.SUCCEEDED and old is not None:
            who = f"{old.name}/{old.arch}"
            return trusted.require(layout, wanted, old.digest, who, fleets.places(wanted))
    raise UsageError(
        f"the fleet {wanted.name} never ran another image",
        where=f"fleet.{wanted.name}",
        hint=f"factory rollout status {wanted.name}",
    )
