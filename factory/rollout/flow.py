"""A rollout from its beginning to its end: begun, driven, gone on with after a death; what other processes say to it.

One process at a time acts on a fleet. A rollout that was begun goes on under the plan it was begun with, whatever
fleets.toml says meanwhile; where another image is wanted now, it is brought back first, and the other begins anew.
What an operator asked to be brought back goes on until it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, RollbackFailedError, RolledBackError, UsageError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import log, machine, providers, spec, trusted, view
from factory.rollout.engine import Around, Engine, Turn
from factory.rollout.model import Image, Order, Plan, State, Status
from factory.rollout.preparing import FORWARD, Wish, prepare

Tell = Callable[[Turn], None]


@dataclass(frozen=True)
class LayoutTrust:
    """Asks the papers of a checkout, anew each time."""

    layout: Layout

    def refusal(self, image: Image) -> str | None:
        """Why an image may not be launched; None where it may."""
        return trusted.refusal(self.layout, image.digest, f"{image.name}/{image.arch}")

    def revoked(self, image: Image) -> str | None:
        """Why an image must not run any more; None where nobody withdrew it."""
        return trusted.revoked(self.layout, image.digest, f"{image.name}/{image.arch}")


def apply(layout: Layout, name: str, tell: Tell, wish: Wish = FORWARD) -> Status | None:
    """Replace a fleet by what it is to run, or go on with what was begun; None where it runs that already.

    Where it is to go back, a rollout that goes on and may still go back is brought back, and that is all.
    Raises RolledBackError (8), RollbackFailedError (9), ConflictError (7), and as `prepare` does.
    """
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, name) as fence:
        known = rollouts.last(catalog, name)
        if known is not None and known.ended is None:
            is_other = _is_other(layout, known, wish)
            if is_other:
                rollouts.order(catalog, known, Order.ABORT)
            status = drive(layout, catalog, fence, known, tell)
            if is_other and wish.back and wish.to is None and status.state == State.ROLLED_BACK:
                return status
            if not is_other or status.state == State.ROLLBACK_FAILED:
                return judged(name, status)
        prepared = prepare(layout, catalog, name, wish)
        if prepared.unchanged:
            return None
        begin(catalog, fence, prepared.plan)
        known = rollouts.last(catalog, name)
        assert known is not None
        return judged(name, drive(layout, catalog, fence, known, tell))


def _is_other(layout: Layout, known: rollouts.Known, wish: Wish) -> bool:
    """Whether what was begun is not what is wanted now."""
    is_back = fleets.plan_of(known).back
    if wish.to is not None:
        return wish.to != known.to_digest
    if wish.back or is_back:
        return not is_back
    wanted = _wanted_digest(layout, known.fleet)
    return wanted is not None and wanted != known.to_digest


def _wanted_digest(layout: Layout, name: str) -> Digest | None:
    """The digest that is trusted for a fleet now; None where that cannot be said: what was begun goes on then."""
    try:
        wanted = spec.find(layout.root, name)
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
    """Drive a rollout to its end; what happens is written to the fleet's log too."""
    made = fleets.plan_of(known)
    written = log.Log(log.path_of(layout, known.fleet))
    provider = providers.connect(layout, made.fleet)
    around = Around(catalog, provider, LayoutTrust(layout), fence, tell=lambda turn: tell(written.turn(turn)))
    return Engine(around, known).run()


def judged(name: str, status: Status) -> Status:
    """The status of a rollout that ended well. Raises RolledBackError, RollbackFailedError."""
    hint = f"factory rollout status {name}"
    if status.state == State.ROLLED_BACK:
        raise RolledBackError(f"the rollout went back: {status.reason}", where=f"fleet {name}", hint=hint)
    if status.state == State.ROLLBACK_FAILED:
        raise RollbackFailedError(
            f"the rollout failed and could not go back: {status.reason}", where=f"fleet {name}", hint=hint
        )
    return status


# --- what other processes say to it


def supersede(layout: Layout, name: str, wish: Wish = FORWARD) -> str | None:
    """Where another process drives a rollout of another image than what is wanted now, tell it to go back; what was
    told. Raises UsageError where the wish is to go back from a rollout that goes on: to abort it is the way."""
    with Catalog.open(layout.catalog) as catalog:
        known = rollouts.last(catalog, name)
        if known is None or known.ended is not None or not _is_other(layout, known, wish):
            return None
        if wish.back:
            raise UsageError(
                f"a rollout of {name} goes on in another process",
                where=f"fleet {name}",
                hint=f"factory rollout abort {name} has it go back",
            )
        said = [order.wanted for order in rollouts.orders(catalog, known.id)]
        if Order.ABORT not in said:
            rollouts.order(catalog, known, Order.ABORT)
        return f"another image is wanted now: the rollout of {known.to_digest[:19]}… was told to go back"


def end_of_other(layout: Layout, name: str, before: str | None, wish: Wish = FORWARD) -> Status | None:
    """How a rollout ended that another process drove and that was after the same: it is not to be tried once more.
    `before`: the id of the last rollout that had ended already. None: there was none, it did not end, or it was after
    something else. Raises as `judged` does."""
    with Catalog.read(layout.catalog) as catalog:
        known = rollouts.last(catalog, name)
        if known is None or known.ended is None or known.id == before or _is_other(layout, known, wish):
            return None
        return judged(name, fleets.status_of(known))


def last_ended(layout: Layout, name: str) -> str | None:
    """The id of a fleet's last rollout, where it has ended."""
    if not layout.catalog.is_file():
        return None
    with Catalog.read(layout.catalog) as catalog:
        known = rollouts.last(catalog, name)
        return known.id if known is not None and known.ended is not None else None


def is_driven(layout: Layout, name: str) -> bool:
    """Whether a living process works on a fleet. To be asked before whether its rollout has ended: who drives lets go
    after that."""
    if not layout.catalog.is_file():
        return False
    with Catalog.read(layout.catalog) as catalog:
        return view.is_driven(catalog, name)


def awaited(layout: Layout, name: str, rollout: str | None, digest: Digest | None) -> rollouts.Known | None:
    """The rollout that one waits for: the one of this id, else the last, if it is of this image; None: there is none
    (yet)."""
    if not layout.catalog.is_file():
        return None
    with Catalog.read(layout.catalog) as catalog:
        if rollout is not None:
            return next((known for known in rollouts.known(catalog, name) if known.id == rollout), None)
        known = rollouts.last(catalog, name)
        return known if known is None or digest in (None, known.to_digest) else None


def ended_at(layout: Layout, known: rollouts.Known) -> str:
    """When a rollout came to where it is."""
    with Catalog.read(layout.catalog) as catalog:
        (_, last), *_ = rollouts.recent_states(catalog, known.id, 1)
        return last.at


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
        return known
