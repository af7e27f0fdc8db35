"""A rollout from its beginning to its end: planned, refused where it cannot be, driven, gone on with after a death.

`prepare` is what `factory rollout plan` shows; `apply` drives. One process at a time acts on a fleet. A rollout that
was begun goes on under the plan it was begun with, whatever fleets.toml says meanwhile; where another image is wanted
now, it is brought back first, and the other begins anew.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from factory import spec as images_spec
from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, RollbackFailedError, RolledBackError, SpecError, UsageError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import machine, providers, spec, trusted
from factory.rollout.engine import Around, Engine, Turn
from factory.rollout.model import FleetSpec, Image, Observation, Order, Plan, Stage, State, Status
from factory.rollout.plan import Moment, preview, stages
from factory.rollout.providers import Provider
from factory.trust import policy

Tell = Callable[[Turn], None]


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


@dataclass(frozen=True)
class LayoutTrust:
    """Asks the papers of a checkout, anew each time."""

    layout: Layout

    def refusal(self, image: Image) -> str | None:
        """Why an image may not be launched; None where it may."""
        return trusted.refusal(self.layout, image.digest, f"{image.name}/{image.arch}")


def prepare(layout: Layout, catalog: Catalog, name: str, *, back: bool = False) -> Prepared:
    """What a rollout of a fleet would do now. `back`: of the image before, by the shortest way.

    Raises SpecError (2) with every reason why it cannot be; TrustError (6) where the image may not run.
    """
    wanted = fleets.sized(catalog, spec.find(layout.root, name))
    faults = _faults_of_files(layout, wanted)
    provider = providers.connect(layout, wanted)
    if faults:
        raise _refused(name, faults)
    target = previous(layout, catalog, wanted) if back else trusted.target(layout, wanted, fleets.places(wanted))
    if faults := provider.faults(target.arch):
        raise _refused(name, faults)
    return _prepared(catalog, wanted, target, provider.observe(), back=back)


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
    for known in rollouts.known(catalog, wanted.name):
        old = fleets.plan_of(known).old
        if known.ended == State.SUCCEEDED and old is not None:
            who = f"{old.name}/{old.arch}"
            return trusted.require(layout, wanted, old.digest, who, fleets.places(wanted))
    raise UsageError(
        f"the fleet {wanted.name} never ran another image",
        where=f"fleet.{wanted.name}",
        hint=f"factory rollout status {wanted.name}",
    )


def _faults_of_files(layout: Layout, wanted: FleetSpec) -> list[str]:
    known = policy.read(layout.policy) if layout.policy.is_file() else None
    return [*spec.faults_against(wanted, images_spec.load(layout.root), known), *spec.file_faults(wanted)]


def _refused(name: str, faults: list[str]) -> SpecError:
    return SpecError("\n".join(faults), where=f"fleet.{name}", hint="nothing was launched")


def apply(layout: Layout, name: str, tell: Tell, *, back: bool = False) -> Status | None:
    """Replace a fleet by what is trusted for it now, or go on with what was begun; None where it runs that already.

    Raises RolledBackError (8), RollbackFailedError (9), ConflictError (7), and as `prepare` does.
    """
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, name) as fence:
        known = rollouts.last(catalog, name)
        if known is not None and known.ended is None:
            status = _go_on(layout, catalog, fence, known, tell, back=back)
            if status is not None:
                return _judged(name, status)
        prepared = prepare(layout, catalog, name, back=back)
        if prepared.unchanged:
            return None
        begin(catalog, fence, prepared.plan)
        known = rollouts.last(catalog, name)
        assert known is not None
        return _judged(name, drive(layout, catalog, fence, known, tell))


def _go_on(
    layout: Layout, catalog: Catalog, fence: int, known: rollouts.Known, tell: Tell, *, back: bool
) -> Status | None:
    """Drive a rollout that was begun to its end; None where another image is wanted, and it was brought back first."""
    wanted = _wanted_digest(layout, known)
    is_other = back or (wanted is not None and wanted != known.to_digest)
    if is_other:
        rollouts.order(catalog, known, Order.ABORT)
    status = drive(layout, catalog, fence, known, tell)
    return None if is_other and status.state != State.ROLLBACK_FAILED else status


def _wanted_digest(layout: Layout, known: rollouts.Known) -> Digest | None:
    """The digest that is trusted for a fleet now; None where that cannot be said: what was begun goes on then."""
    try:
        wanted = spec.find(layout.root, known.fleet)
        return trusted.target(layout, wanted, fleets.places(wanted)).digest
    except FactoryError:
        return None


def begin(catalog: Catalog, fence: int, made: Plan) -> None:
    """Note that a rollout begins."""
    rollouts.begin(
        catalog,
        fence,
        rollouts.Begun(
            made.rollout,
            made.fleet.name,
            None if made.old is None else made.old.digest,
            made.target.digest,
            msgspec.json.encode(made).decode(),
            msgspec.json.encode(machine.begin(time.time())).decode(),
        ),
    )


def drive(layout: Layout, catalog: Catalog, fence: int, known: rollouts.Known, tell: Tell) -> Status:
    """Drive a rollout to its end."""
    made = fleets.plan_of(known)
    provider: Provider = providers.connect(layout, made.fleet)
    around = Around(catalog, provider, LayoutTrust(layout), fence, tell=tell)
    return Engine(around, known).run()


def _judged(name: str, status: Status) -> Status:
    hint = f"factory rollout status {name}"
    if status.state == State.ROLLED_BACK:
        raise RolledBackError(f"the rollout went back: {status.reason}", where=f"fleet {name}", hint=hint)
    if status.state == State.ROLLBACK_FAILED:
        raise RollbackFailedError(
            f"the rollout failed and could not go back: {status.reason}", where=f"fleet {name}", hint=hint
        )
    return status


def order(layout: Layout, name: str, wanted: Order) -> rollouts.Known:
    """Tell the rollout of a fleet something. Raises UsageError where none goes on."""
    with Catalog.open(layout.catalog) as catalog:
        known = rollouts.last(catalog, name)
        if known is None or known.ended is not None:
            raise UsageError(
                f"no rollout of {name} goes on",
                where=f"fleet {name}",
                hint=f"factory rollout status {name} says what came of the last",
            )
        rollouts.order(catalog, known, wanted)
        return replace(known)
