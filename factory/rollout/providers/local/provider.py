"""One fleet on this machine: guests behind HAProxy, each in a session of its own. No daemon, no memory: what is, runs.

Owns `.factory/fleets/NAME/` (0700). Every change is made under the folder's lock, and begins by looking; so a call that
was killed anywhere is finished by the next one: guests that it started are taken on, folders of those that it did not
start are removed, HAProxy is brought to what the file says. `observe` takes no lock and changes nothing.

A generation's weight is spread over its healthy guests; those that HAProxy has found unhealthy have the weight of their
peers, which counts once it finds them healthy: in the steady state an instance that recovers is back without anybody's
doing. One that was just launched has none before the next `shift`, and is idle until then. What `observe` says of
weights counts only those that get traffic now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from factory import files
from factory.errors import ProviderError
from factory.rollout.model import FleetSpec, Generation, Instance, Observation
from factory.rollout.providers.local import faults, haproxy, tags, tcp, weights
from factory.rollout.providers.local.front import Front
from factory.rollout.providers.local.guests import Guest, Guests
from factory.rollout.providers.local.haproxy import Seen, Server


@dataclass(frozen=True)
class LocalProvider:
    """The provider `local`: see `factory.rollout.providers.Provider`."""

    folder: Path
    fleet: FleetSpec
    guests: Guests
    front: Front

    def faults(self, image_arch: str) -> list[str]:
        """Why this fleet cannot be run here, each with what to do."""
        running = self.guests.running() if self.folder.is_dir() else {}
        return faults.of(self.fleet, image_arch, self.folder, running=len(running), fronts=self.front.processes())

    def observe(self) -> Observation:
        """All that runs of the fleet, and the weights as HAProxy applies them. ProviderError where HAProxy hangs."""
        seen = self.front.seen() or {}
        guests = [self._addressed(guest, seen) for guest in self.guests.running().values() if not guest.halted]
        health = self._health(guests, seen)
        shares = [(tags.generation_of(self.fleet.name, name), weight) for name, weight in haproxy.sent(seen).items()]
        return Observation(
            instances=tuple(
                _instance(guest, health.get(guest.id), seen.get(guest.id))
                for guest in sorted(guests, key=lambda guest: guest.id)
            ),
            weights=weights.percentages((generation, weight) for generation, weight in shares if generation),
        )

    def launch(self, generation: Generation, count: int) -> None:
        """Have `count` guests of a generation run, and HAProxy look at their health; they get no traffic yet.

        Comes back when their QEMUs answer, long before they have booted.
        """
        with self._changing():
            running = self._clean()
            self._register()  # forgets the dead first: who takes a name over must not have the weight that it had
            here = [one for one in running.values() if one.tag.generation == generation.number and not one.leaving]
            wrong = [one.id for one in here if one.tag.digest != str(generation.image.digest)]
            if wrong:
                raise ProviderError(
                    f"{', '.join(wrong)}: another image than generation {generation.number} is to be of",
                    hint="retire them first",
                )
            missing = max(0, count - len(here))
            free = tags.free_names(self.fleet.name, generation.number, running.keys())
            try:
                started = {guest.id: guest for guest in self.guests.start(generation, islice(free, missing))}
                self.guests.settle({**started, **self.guests.running()}.values())
            finally:
                self._register()

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        """Bring HAProxy to these weights; guests that are draining get nothing new. ProviderError, and nothing changed,
        where a generation that is to get traffic has no healthy guest: the traffic stays where it is."""
        with self._changing():
            running = self._clean()
            self._register()
            self.front.apply(self._weighed(weights, running, frozenset(draining)))

    def retire(self, instances: Iterable[str]) -> None:
        """Take guests from HAProxy and stop them. Sessions that are still open a moment later are cut off."""
        with self._changing():
            running = self._clean()
            going = [running[name] for name in dict.fromkeys(instances) if name in running]
            for guest in going:
                self.guests.dismiss(guest)
            if running:
                self._register()
            for guest in going:
                self.guests.stop(guest)
            if not self.guests.running():
                self.front.stop()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise ProviderError(f"the fleet's folder cannot be made: {error}", where=str(self.folder)) from error
        with files.exclusive(self.folder / "lock"):
            yield

    def _clean(self) -> dict[str, Guest]:
        """All that run, the rest of what was there removed: folders of those that are gone, guests that panicked."""
        running = self.guests.running()
        for guest in [guest for guest in running.values() if guest.halted]:
            self.guests.stop(guest)
            del running[guest.id]
        self.guests.sweep(running)
        return running

    def _register(self) -> None:
        """Have HAProxy run, and know exactly the guests that are to stay, with the weights they are to have."""
        intended = self.front.intended()
        seen = self.front.seen() or {}
        staying = [self._addressed(guest, seen) for guest in self.guests.running().values() if not guest.leaving]
        self.front.apply(
            Server(guest.id, guest.port, intended[guest.id].weight if guest.id in intended else 0)
            for guest in staying
            if guest.port is not None
        )

    def _weighed(
        self, percent: Mapping[int, int], running: Mapping[str, Guest], draining: frozenset[str]
    ) -> list[Server]:
        """What HAProxy is to have for these weights. ProviderError where somebody is to get traffic and cannot.
        Those that are to get none are not asked how they are: they may hang."""
        taking = [guest for guest in running.values() if guest.id not in draining]
        wanted = {guest.id for guest in taking if percent.get(guest.tag.generation)}
        seen = self.front.checked(wanted)
        guests = [self._addressed(guest, seen) for guest in running.values() if not guest.leaving]
        health = self._health([guest for guest in guests if guest.id in wanted], seen)
        healthy: dict[int, list[str]] = {}
        for guest in sorted(guests, key=lambda guest: guest.id):
            if guest.id in seen and seen[guest.id].up and health.get(guest.id):
                healthy.setdefault(guest.tag.generation, []).append(guest.id)
        idle = [generation for generation, share in sorted(percent.items()) if share and generation not in healthy]
        if idle:
            raise ProviderError(
                f"generation {idle[0]} has no healthy instance to send traffic to; it stays where it is",
                where=f"fleet.{self.fleet.name}",
            )
        given = weights.spread(percent, healthy)
        for guest in guests:
            # Never to one that HAProxy has not looked at yet: until then it takes every server for a healthy one.
            if guest.id in seen and seen[guest.id].down and guest.id not in draining:
                peers = healthy.get(guest.tag.generation, ())
                given[guest.id] = max((given[name] for name in peers), default=0)
        return [Server(guest.id, guest.port, given.get(guest.id, 0)) for guest in guests if guest.port is not None]

    def _addressed(self, guest: Guest, seen: Mapping[str, Seen]) -> Guest:
        """A guest with its port, from wherever it can be had."""
        if guest.port is None:
            guest = self.guests.ask_port(guest)
        if guest.port is None and guest.id in seen:
            guest = replace(guest, port=seen[guest.id].server.port)
        return guest

    def _health(self, guests: Iterable[Guest], seen: Mapping[str, Seen]) -> dict[str, bool | None]:
        """Id -> healthy. A TCP port is asked by us: behind QEMU's forward every connection is accepted."""
        if self.fleet.health.http is None:
            return tcp.are_open(self.guests, guests)
        return {guest.id: seen[guest.id].healthy for guest in guests if guest.id in seen}


def _instance(guest: Guest, healthy: bool | None, seen: Seen | None) -> Instance:
    return Instance(
        id=guest.id,
        generation=guest.tag.generation,
        digest=guest.tag.image,
        state="stopping" if guest.leaving else "pending" if guest.port is None else "running",
        launched_at=guest.tag.launched_at,
        address=None if guest.port is None else f"127.0.0.1:{guest.port}",
        healthy=healthy,
        why="" if seen is None or healthy is not False else seen.why,
        sessions=None if seen is None else seen.sessions,
        is_idle=seen is None or seen.draining or not seen.server.weight,
        answered=() if seen is None else seen.answered,
    )


def connect_in(folder: Path, fleet: FleetSpec, guests: Guests) -> LocalProvider:
    """The provider of a fleet in its folder, with these guests."""
    return LocalProvider(folder, fleet, guests, Front(folder, fleet))
