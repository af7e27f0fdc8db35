"""`factory drift --heal` and `factory fleet scale`: looked at, decided by heal/, done under the fleet's lease.

Nothing here happens while a rollout goes on: it answers for its fleet itself. Trust is asked anew before every launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from factory.catalog import fleet_orders, rollouts
from factory.catalog.database import Catalog
from factory.errors import ConflictError, ProviderError, SpecError, TrustError, UsageError
from factory.model import Layout
from factory.rollout import drift, heal, log, plan, providers, spec, trusted
from factory.rollout import fleet as fleets
from factory.rollout.acting import Hand, rollout_of
from factory.rollout.drift import Kind, Standing
from factory.rollout.engine import AGAIN_S
from factory.rollout.heal import End, Limits, Move, Progress
from factory.rollout.history import Serving
from factory.rollout.looking import FleetTrust, Ground, between_s, images_of, steady
from factory.rollout.model import Action, FleetSpec, Generation, Retire, Shift
from factory.rollout.sight import Seen, Sight

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Mended:
    """What a run did. `launched`: replacements that came to serve; `retired`: what went."""

    move: Move
    standing: Standing
    launched: tuple[str, ...]
    retired: tuple[str, ...]

    @property
    def end(self) -> End:
        assert self.move.end is not None
        return self.move.end


@dataclass
class Mender:
    """Mends one fleet, under its lease, until there is nothing more to be done."""

    hand: Hand
    ground: Ground
    serving: Serving | None
    limits: Limits
    sight: Sight
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    tell: Tell = lambda _: None
    _asked: dict[tuple[Action, frozenset[str]], float] = field(default_factory=dict)
    _problem: str = ""

    def run(self) -> Mended:
        """Turn after turn. Raises ConflictError where the lease is lost, ProviderError where nobody answers, SpecError
        where something is to be launched and the fleet's files are not as they must be."""
        standing = self._stand(steady(self.sight, self.clock, self.sleep))
        progress = heal.begin(standing, self.clock())
        while True:
            self._refuse_files(standing)
            now = self.clock()
            refused = self.ground.said(self.serving, now)[1]
            move = heal.advance(standing, self.limits, progress, refused, now)
            for note in move.notes:
                self.tell(note)
            self.hand.note(standing.observed, dict.fromkeys(move.progress.retired[len(progress.retired) :], "retired"))
            if move.end is not None:
                self._tidy(standing)
                return self._mended(move, standing)
            progress = self._act(move, standing, now)
            self.sleep(between_s(self.sight))
            standing = self._stand(self._see())

    def _refuse_files(self, standing: Standing) -> None:
        found = {one.kind for one in drift.find(standing)}
        if found & self.limits.mends & {Kind.MISSING, Kind.UNHEALTHY}:
            refuse_files(self.hand.fleet)

    def _tidy(self, standing: Standing) -> None:
        """What was launched and did not come does not come later, when nobody asks whether it may still run."""
        problem = self.hand.make(Retire(()), standing.observed)
        if problem is not None:
            self.tell(f"what is left beside the instances was not removed: {problem}")

    def _stand(self, seen: Seen) -> Standing:
        return self.ground.standing(self.serving, seen, None, self.clock())

    def _see(self) -> Seen:
        """Look; where nobody answers, again, for as long as a launch may take."""
        ends = self.clock() + self.ground.fleet.deadlines.launch.seconds
        while True:
            try:
                return self.sight.look(self.clock())
            except ProviderError:
                if self.clock() > ends:
                    raise
                self.sleep(between_s(self.sight))

    def _act(self, move: Move, standing: Standing, now: float) -> Progress:
        """Make the calls that are to be made; what is remembered then. None again for a while: it may still come true,
        or be refused as before. A shift goes by who is healthy, and is another one when others are."""
        progress = move.progress
        self._asked = {asked: at for asked, at in self._asked.items() if abs(now - at) < AGAIN_S}
        for action in move.actions:
            asked = (action, standing.healthy if isinstance(action, Shift) else frozenset())
            if asked in self._asked:
                continue
            self._asked[asked] = now
            problem = self.hand.make(action, standing.observed)
            if problem is None:
                progress = heal.accepted(progress, standing, action, now)
            elif problem != self._problem:
                self.tell(f"not done, and tried again: {problem}")
                self._problem = problem
        return progress

    def _mended(self, move: Move, standing: Standing) -> Mended:
        there = {one.id for one in standing.observed.instances}
        return Mended(move, standing, tuple(sorted(move.progress.up & there)), tuple(sorted(move.progress.retired)))


def mend(layout: Layout, name: str, limits: Callable[[FleetSpec], Limits], tell: Tell) -> Mended:
    """Bring a fleet back to what it should be. Raises ConflictError (7) while a rollout goes on or another process
    works on the fleet, UsageError (2) where nothing is to serve."""
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, name) as fence:
        wanted = fleets.sized(catalog, spec.find(layout.root, name))
        refuse_rollout(catalog, name)
        return mender(layout, catalog, fence, wanted, limits(wanted), tell).run()


def mender(layout: Layout, catalog: Catalog, fence: int, wanted: FleetSpec, limits: Limits, tell: Tell) -> Mender:
    """Who mends a fleet. Raises UsageError (2) where it was ended, or never ran."""
    provider = providers.connect(layout, wanted)
    serving = fleets.settled(catalog, wanted.name, provider.observe())
    if serving is None:
        raise nothing_serves(catalog, wanted.name)
    papers = FleetTrust(layout, wanted)
    rollout = rollout_of(catalog, wanted.name, serving.generation) or ""
    generation = Generation(serving.generation, serving.image, rollout)
    written = log.Log(log.path_of(layout, wanted.name))
    hand = Hand(catalog, provider, wanted, fence, generation, papers.refusal, written)
    ground = Ground(wanted, papers, images_of(catalog, wanted.name))
    return Mender(hand, ground, serving, limits, Sight(provider, wanted.health), tell=tell)


def refuse_files(fleet: FleetSpec) -> None:
    """Raises SpecError where the files that instances are given are missing, or not private."""
    if faults := spec.file_faults(fleet):
        raise SpecError(
            "\n".join(faults), where=f"fleet.{fleet.name}", hint="nothing is launched before that is mended"
        )


def refuse_rollout(catalog: Catalog, name: str) -> None:
    """Raises ConflictError while a rollout goes on, whoever drives it."""
    known = rollouts.last(catalog, name)
    if known is not None and known.ended is None:
        state = fleets.status_of(known).state
        raise ConflictError(
            f"a rollout of {name} goes on ({state})",
            where=f"fleet {name}",
            hint=f"factory rollout apply {name} drives it to its end; factory rollout abort {name} brings it back",
        )


def nothing_serves(catalog: Catalog, name: str) -> UsageError:
    """Why there is nothing that a fleet should be."""
    ended = fleet_orders.end(catalog, name)
    if ended == "destroy":
        return UsageError(
            f"the fleet {name} is being destroyed",
            where=f"fleet {name}",
            hint=f"factory fleet destroy {name} --yes goes on with it",
        )
    since = "has had no rollout that succeeded since it was destroyed"
    never = since if fleet_orders.ends(catalog, name) else "never had a rollout that succeeded"
    why = "was destroyed" if ended is not None else never
    return UsageError(
        f"the fleet {name} {why}", where=f"fleet {name}", hint=f"factory rollout apply {name} brings it up"
    )


# --- size


def scale(layout: Layout, name: str, size: int | None, tell: Tell) -> Mended:
    """Have so many instances of the image that serves; None: as many as fleets.toml says. It stays so: drift, healing
    and rollouts go by it, until fleets.toml says another size than now.

    Raises ConflictError (7) while a rollout goes on, UsageError (2) outside of min and max, where more are wanted
    TrustError (6) if the image may not be launched, SpecError (2) if the fleet's files are not as they must be.
    """
    with Catalog.open(layout.catalog) as catalog, fleets.leased(catalog, name) as fence:
        written = spec.find(layout.root, name)
        refuse_rollout(catalog, name)
        wanted = written if size is None else replace(written, size=size)
        if not written.min <= wanted.size <= written.max:
            raise UsageError(
                f"{name} cannot have {wanted.size} instances: min is {written.min}, max is {written.max}",
                where=f"fleet.{name}",
                hint="both stand in fleets.toml",
            )
        who = mender(layout, catalog, fence, wanted, Limits(mends=heal.SCALES), tell)
        _refuse_growth(layout, who, wanted)
        if (most := plan.most_instances(wanted, wanted.size)) > wanted.max:
            tell(f"a rollout would have up to {most} instances and be refused: max is {wanted.max}")
        if fleets.sized(catalog, written).size != wanted.size:
            order = fleet_orders.Order(name, "size", None if wanted.size == written.size else wanted.size, written.size)
            fleet_orders.put(catalog, fence, order)
        return who.run()


def _refuse_growth(layout: Layout, who: Mender, wanted: FleetSpec) -> None:
    assert who.serving is not None
    image = who.serving.image
    if wanted.size <= len(who.hand.provider.observe().of(who.serving.generation)):
        return
    if (writes := trusted.state_writes(layout, wanted, image)) is not None:
        raise writes
    if (refused := who.hand.refusal(image)) is not None:
        raise TrustError(
            f"{image.name}/{image.arch} {image.digest[:19]}… is not launched: {refused}",
            where=f"fleet {wanted.name}",
            hint=f"factory rollout apply {wanted.name} brings what may run",
        )
    refuse_files(wanted)
