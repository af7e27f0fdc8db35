"""`factory drift`, `drift --heal` and `fleet scale`: looked at, decided by heal.py, done under the fleet's lease.

Nothing here happens while a rollout goes on: it answers for its fleet itself. Trust is asked anew before every launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from factory.catalog import fleet_orders, rollouts
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import ConflictError, ProviderError, TrustError, UsageError
from factory.model import Layout
from factory.rollout import drift, heal, plan, providers, spec, trusted
from factory.rollout import fleet as fleets
from factory.rollout.acting import Hand, rollout_of
from factory.rollout.drift import Drift, Standing
from factory.rollout.engine import AGAIN_S, TRUST_S
from factory.rollout.fleet import Serving
from factory.rollout.heal import End, Limits, Move, Progress
from factory.rollout.model import Action, FleetSpec, Generation, Image, Retire
from factory.rollout.sight import Seen, Sight

Tell = Callable[[str], None]


class Papers(Protocol):
    """What the signed papers say of images."""

    def refusal(self, image: Image) -> str | None:
        """Why an image may not be launched; None where it may."""
        ...

    def revoked(self, image: Image) -> str | None:
        """Why an image should not run; None where nobody withdrew it."""
        ...


@dataclass(frozen=True)
class LayoutPapers:
    """Those of a checkout, read anew each time."""

    layout: Layout

    def refusal(self, image: Image) -> str | None:
        """Why an image may not be launched; None where it may."""
        return trusted.refusal(self.layout, image.digest, f"{image.name}/{image.arch}")

    def revoked(self, image: Image) -> str | None:
        """Why an image should not run; None where nobody withdrew it."""
        return trusted.revoked(self.layout, image.digest, f"{image.name}/{image.arch}")


@dataclass
class Ground:
    """What a fleet is held against: what is to serve, and what the papers say of the images that it ran lately."""

    fleet: FleetSpec
    papers: Papers
    images: Mapping[Digest, Image]
    _said: tuple[float, dict[Digest, str], str | None] | None = None

    def standing(self, serving: Serving | None, seen: Seen, rolling: frozenset[int] | None, now: float) -> Standing:
        """How the fleet stands."""
        revoked, _ = self.said(serving, now)
        return Standing(self.fleet, serving, seen.observed, seen.healthy, seen.ill, revoked, rolling)

    def said(self, serving: Serving | None, now: float) -> tuple[dict[Digest, str], str | None]:
        """What was said a moment ago, or else is said now: digest -> why it was revoked; why what serves may not be
        launched."""
        if self._said is None or abs(now - self._said[0]) >= TRUST_S:
            asked = ((digest, self.papers.revoked(image)) for digest, image in self.images.items())
            refused = None if serving is None else self.papers.refusal(serving.image)
            self._said = now, {digest: why for digest, why in asked if why is not None}, refused
        return self._said[1], self._said[2]


@dataclass(frozen=True)
class Look:
    """What `factory drift` found. `refused`: why what serves may not be launched any more. `ended`: `destroy` or
    `destroyed`, of a fleet that somebody ended."""

    standing: Standing
    drifts: tuple[Drift, ...]
    refused: str | None
    rollout: rollouts.Known | None
    ended: str | None

    @property
    def fleet(self) -> FleetSpec:
        return self.standing.fleet


def look(layout: Layout, catalog: Catalog, name: str) -> Look:
    """How a fleet differs from what it should be. Takes a moment where somebody is seen not to serve: whether it stays
    so is looked at. Raises ProviderError, UsageError, SpecError."""
    wanted = fleets.sized(catalog, spec.find(layout.root, name))
    known = rollouts.last(catalog, name)
    sight = Sight(providers.connect(layout, wanted), wanted.health)
    is_rolling = known is not None and known.ended is None
    seen = sight.look(time.time()) if is_rolling else steady(sight, time.time, time.sleep)
    serving = fleets.settled(catalog, name, seen.observed)
    ground = Ground(wanted, LayoutPapers(layout), images_of(catalog, name))
    standing = ground.standing(serving, seen, _rolling(known), time.time())
    ended = fleet_orders.end(catalog, name)
    drifts = drift.find(standing)
    if serving is None and ended is None and not is_rolling:
        drifts = (*_never(wanted), *drifts)
    return Look(standing, drifts, ground.said(serving, time.time())[1], known, ended)


def _never(wanted: FleetSpec) -> tuple[Drift, ...]:
    return (Drift(drift.Kind.MISSING, "no rollout of the fleet has succeeded yet", count=wanted.size),)


def _rolling(known: rollouts.Known | None) -> frozenset[int] | None:
    if known is None or known.ended is not None:
        return None
    going = fleets.plan_of(known)
    numbers = (going.generation, going.old_generation, going.baseline_generation)
    return frozenset(number for number in numbers if number is not None)


def images_of(catalog: Catalog, name: str) -> dict[Digest, Image]:
    """The images that a fleet ran in its last rollouts, by digest."""
    plans = [fleets.plan_of(known) for known in rollouts.known(catalog, name)]
    return {image.digest: image for made in plans for image in (made.target, made.old) if image is not None}


def steady(sight: Sight, clock: Callable[[], float], sleep: Callable[[float], None]) -> Seen:
    """Look for as long as it takes to know who is ill; who comes and goes is seen as it is in the end."""
    ends = clock() + 2 * drift.grace_s(sight.health)
    while True:
        seen = sight.look(clock())
        if not seen.undecided or clock() > ends:
            return seen
        sleep(_between(sight))


def _between(sight: Sight) -> float:
    return min(1.0, sight.health.interval_s)


# --- mending


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
    _made: dict[Action, float] = field(default_factory=dict)
    _retired: set[str] = field(default_factory=set)

    def run(self) -> Mended:
        """Turn after turn. Raises ConflictError where the lease is lost, ProviderError where nobody answers."""
        standing = self._stand(steady(self.sight, self.clock, self.sleep))
        progress = heal.begin(standing, self.clock())
        while True:
            now = self.clock()
            refused = self.ground.said(self.serving, now)[1]
            move = heal.advance(standing, self.limits, progress, refused, now)
            for note in move.notes:
                self.tell(note)
            self.hand.note(standing.observed, dict.fromkeys(self._retired, "retired"))
            if move.end is not None:
                return self._mended(move, standing)
            progress = self._act(move, standing, now)
            self.sleep(_between(self.sight))
            standing = self._stand(self._see())

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
                self.sleep(_between(self.sight))

    def _act(self, move: Move, standing: Standing, now: float) -> Progress:
        progress = move.progress
        self._made = {action: at for action, at in self._made.items() if abs(now - at) < AGAIN_S}
        for action in move.actions:
            if action in self._made:
                continue
            if isinstance(action, Retire):
                self._retired |= set(action.instances)
            problem = self.hand.make(action)
            if problem is None:
                self._made[action] = now
                progress = heal.accepted(progress, standing, action, now)
            else:
                self.tell(f"not done, and tried again: {problem}")
        return progress

    def _mended(self, move: Move, standing: Standing) -> Mended:
        there = {one.id for one in standing.observed.instances}
        launched = tuple(sorted(move.progress.up & there))
        return Mended(move, standing, launched, tuple(sorted(self._retired - {one.id for one in standing.present})))


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
    papers = LayoutPapers(layout)
    generation = Generation(serving.generation, serving.image, rollout_of(catalog, wanted.name)[serving.generation])
    hand = Hand(catalog, provider, wanted, fence, generation, papers.refusal)
    ground = Ground(wanted, papers, images_of(catalog, wanted.name))
    return Mender(hand, ground, serving, limits, Sight(provider, wanted.health), tell=tell)


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
    why = "was destroyed" if ended is not None else "never had a rollout that succeeded"
    return UsageError(
        f"the fleet {name} {why}", where=f"fleet {name}", hint=f"factory rollout apply {name} brings it up"
    )


# --- size


def scale(layout: Layout, name: str, size: int | None, tell: Tell) -> Mended:
    """Have so many instances of the image that serves; None: as many as fleets.toml says. It stays so: drift, healing
    and rollouts go by it, until fleets.toml says another size than now.

    Raises ConflictError (7) while a rollout goes on, UsageError (2) outside of min and max, TrustError (6) where more
    are wanted and the image may not be launched.
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
        _refuse_growth(who, wanted)
        if (most := plan.most_instances(wanted, wanted.size)) > wanted.max:
            tell(f"a rollout would have up to {most} instances and be refused: max is {wanted.max}")
        if fleets.sized(catalog, written).size != wanted.size:
            order = fleet_orders.Order(name, "size", None if wanted.size == written.size else wanted.size, written.size)
            fleet_orders.put(catalog, fence, order)
        return who.run()


def _refuse_growth(who: Mender, wanted: FleetSpec) -> None:
    assert who.serving is not None
    there = len(who.hand.provider.observe().of(who.serving.generation))
    refused = who.hand.refusal(who.serving.image) if wanted.size > there else None
    if refused is not None:
        image = who.serving.image
        raise TrustError(
            f"{image.name}/{image.arch} {image.digest[:19]}… is not launched: {refused}",
            where=f"fleet {wanted.name}",
            hint=f"factory rollout apply {wanted.name} brings what may run",
        )
