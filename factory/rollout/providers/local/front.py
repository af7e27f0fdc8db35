"""The front of a fleet: one HAProxy that outlives us. Brings what runs to what is to be; the file goes first.

Owns `haproxy.cfg` in the fleet's folder (`running` owns the process). Invariants: what is to be is in the file, whole,
before HAProxy is told, so that one that is started again serves as it should; a server gets no traffic before its
weight was given; taking weight away comes after giving it; one that runs with another check or address than it is to
have is replaced without a gap. Only `apply` and `stop` change anything; who calls them holds the fleet's lock.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory import files
from factory.errors import ProviderError
from factory.rollout.model import FleetSpec
from factory.rollout.providers.local import haproxy
from factory.rollout.providers.local.guests import cut
from factory.rollout.providers.local.haproxy import Seen, Server
from factory.rollout.providers.local.running import CONFIG, LOG, Running

_LOG_LIMIT = 1 << 20
_SESSIONS_S = 5.0
_CHECKED_S = 3.0
_DONE = ("", "New server registered.", "Server deleted.")
_THERE_ALREADY = "Already exists a server with the same name in backend."


@dataclass(frozen=True)
class Front:
    """The HAProxy of a fleet, in the fleet's folder."""

    folder: Path
    fleet: FleetSpec

    @property
    def running(self) -> Running:
        """The processes."""
        return Running(self.folder, self.fleet)

    def seen(self) -> dict[str, Seen] | None:
        """Name -> server as HAProxy sees it now; None where none answers. Changes nothing."""
        said = self.running.reach(haproxy.SHOW)
        try:
            return None if said is None else haproxy.seen_in(said)
        except (ValueError, KeyError) as error:
            raise ProviderError(f"HAProxy does not answer: {error}", where=str(self.folder)) from error

    def intended(self) -> dict[str, Server]:
        """Name -> server as it is to be, from the file; where that is lost, as HAProxy has them."""
        try:
            return {server.name: server for server in haproxy.servers_in((self.folder / CONFIG).read_text())}
        except (OSError, UnicodeDecodeError):
            seen = self.seen() or {}
            return {
                name: haproxy.without_weight(one.server) if one.draining else one.server for name, one in seen.items()
            }

    def checked(self, names: Collection[str]) -> dict[str, Seen]:
        """As `seen`, once HAProxy has looked at the health of these servers; it is given a moment for that."""
        ends_at = time.monotonic() + _CHECKED_S
        while True:
            seen = self.seen() or {}
            if time.monotonic() > ends_at or not any(name in seen and seen[name].healthy is None for name in names):
                return seen
            time.sleep(0.05)

    def apply(self, servers: Iterable[Server]) -> None:
        """See to it that HAProxy runs with exactly these servers and weights. Idempotent. Raises ProviderError."""
        wanted = {server.name: server for server in servers}
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        cut(self.folder / LOG, _LOG_LIMIT)
        seen = self.seen()
        if seen is None:
            self._write(wanted.values())
            self.running.start()
            return
        if not self.running.is_wanted():
            self._bring(self._take_over(wanted, seen), self.seen() or {})
            return
        self._write(wanted.values())
        self._bring(wanted, seen)

    def stop(self) -> None:
        """End HAProxy and remove what is its own. Idempotent."""
        self.running.stop()

    def processes(self) -> list[int]:
        """The HAProxy processes of this fleet, whether they answer or not."""
        return [pid for pid, _ in self.running.processes()]

    def _write(self, servers: Iterable[Server]) -> None:
        text, config = haproxy.config(self.fleet, servers).encode(), self.folder / CONFIG
        if not config.exists() or config.read_bytes() != text:
            files.replace(config, text, mode=0o600)

    def _take_over(self, wanted: Mapping[str, Server], seen: Mapping[str, Seen]) -> dict[str, Server]:
        """Have another HAProxy, of the file, take the place of the one that serves. What may be had of `wanted` now.

        It takes every server for a healthy one until it has looked; so those that the other one has not found healthy
        begin without weight, and have it as soon as it has.
        """
        unsure = [name for name in wanted if name not in seen or not seen[name].healthy]
        begins = {**wanted, **{name: haproxy.without_weight(wanted[name]) for name in unsure}}
        self._write(begins.values())
        try:
            self.running.start()
        finally:
            self._write(wanted.values())
        looked = self.checked(unsure)
        return {
            name: server if name in looked and looked[name].healthy is not None else begins[name]
            for name, server in wanted.items()
        }

    def _bring(self, wanted: Mapping[str, Server], seen: dict[str, Seen]) -> None:
        """Tell HAProxy, which has the servers that are seen, those that it is to have."""
        for name in [name for name, one in seen.items() if wanted.get(name, one.server).port != one.server.port]:
            self._remove(name)
            del seen[name]
        for name, server in wanted.items():
            if name not in seen or seen[name].closed:  # perhaps added by somebody who was killed right after
                for command in haproxy.adding(server, self.fleet.health):
                    self._command(command, _THERE_ALREADY)
                for command in haproxy.opening(name):
                    self._command(command)
        for server in sorted(wanted.values(), key=lambda one: -one.weight):
            if not _as_wanted(seen.get(server.name), server):
                for command in haproxy.weighing(server):
                    self._command(command)
        for name in seen.keys() - wanted.keys():
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Take a server away. Sessions that are still open a moment later are ended."""
        for command in haproxy.closing(name):
            self._command(command, "No such server.")
        ends_at = time.monotonic() + _SESSIONS_S
        for delete, cut_off in haproxy.removing(name):
            while (said := self._tell(delete)) not in (*_DONE, "No such server."):
                left = ends_at - time.monotonic()
                if left < 0:
                    raise ProviderError(f"HAProxy does not let go of {name}: {said}", where=str(self.folder))
                if left < _SESSIONS_S * 0.8:
                    self._tell(cut_off)
                time.sleep(0.05)

    def _command(self, command: str, *fine: str) -> None:
        said = self._tell(command)
        if said not in (*_DONE, *fine):
            raise ProviderError(f"HAProxy refuses {command!r}: {said}", where=str(self.folder / CONFIG))

    def _tell(self, command: str) -> str:
        try:
            return self.running.tell(command).strip()
        except OSError as error:
            raise ProviderError(f"HAProxy does not answer: {error}", where=str(self.folder)) from error


def _as_wanted(seen: Seen | None, server: Server) -> bool:
    """Whether a server has its weight; one that was only just added has none."""
    if seen is None or seen.closed:
        return server.weight == 0
    if seen.down:  # it does not say then whether it is kept from sessions, or would have some as soon as it is healthy
        return False
    return seen.draining if server.weight == 0 else not seen.draining and seen.server.weight == server.weight
