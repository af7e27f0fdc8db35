"""The front of a fleet: one HAProxy that outlives us. Brings what runs to what is to be; the file goes first.

Owns `haproxy.cfg`, `haproxy.sock`, `haproxy.log` in the fleet's folder. Invariants: what is to be is in the file,
whole, before HAProxy is told, so that one that is started again serves as it should; a server gets no traffic before
its weight was given; taking weight away comes after giving it. Only `apply` and `stop` change anything; who calls them
holds the fleet's lock.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from factory import files, proc
from factory.errors import ProviderError
from factory.rollout.model import FleetSpec
from factory.rollout.providers.local import haproxy, tags
from factory.rollout.providers.local.guests import cut, is_ours, tagged
from factory.rollout.providers.local.haproxy import Seen, Server
from factory.rollout.providers.local.tags import Tag
from factory.vm import qmp

CONFIG = "haproxy.cfg"
LOG = "haproxy.log"
_LOG_LIMIT = 1 << 20
_ANSWERS_S = 5.0
_STARTS_S = 10.0
_SESSIONS_S = 5.0
_CHECKED_S = 3.0
_DONE = ("", "New server registered.", "Server deleted.")


@dataclass(frozen=True)
class Front:
    """The HAProxy of a fleet, in the fleet's folder."""

    folder: Path
    fleet: FleetSpec

    def seen(self) -> dict[str, Seen] | None:
        """Name -> server as HAProxy sees it now; None where none runs. Changes nothing."""
        try:
            return haproxy.seen_in(self._tell(haproxy.SHOW))
        except (ConnectionError, FileNotFoundError):
            return None
        except (OSError, ValueError, KeyError) as error:
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
        text = haproxy.config(self.fleet, wanted.values()).encode()
        config = self.folder / CONFIG
        if not config.exists() or config.read_bytes() != text:
            files.replace(config, text, mode=0o600)
        cut(self.folder / LOG, _LOG_LIMIT)
        seen = self.seen()
        if seen is None:
            self._start()
            return
        for name in [name for name, one in seen.items() if wanted.get(name, one.server).port != one.server.port]:
            self._remove(name)
            del seen[name]
        for name, server in wanted.items():
            if name not in seen:
                self._command(haproxy.adding(server, self.fleet.health))
            if name not in seen or seen[name].closed:  # perhaps added by somebody who was killed right after
                self._command(*haproxy.opening(name))
        for server in sorted(wanted.values(), key=lambda one: -one.weight):
            if not _as_wanted(seen.get(server.name), server):
                self._command(*haproxy.weighing(server))
        for name in seen.keys() - wanted.keys():
            self._remove(name)

    def stop(self) -> None:
        """End HAProxy and remove what is its own. Idempotent."""
        for pid, tag in self._processes():
            proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]
        for name in (CONFIG, haproxy.SOCKET, LOG):
            (self.folder / name).unlink(missing_ok=True)

    def runs(self) -> bool:
        """Whether a HAProxy of this fleet runs, whether it answers or not."""
        return bool(self._processes())

    def _processes(self) -> list[tuple[int, Tag]]:
        return [(pid, tag) for pid, tag in tagged(self.folder) if tag.id == tags.FRONT]

    def _start(self) -> None:
        for pid, tag in self._processes():  # one that nothing can reach any more
            proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]
        log = self.folder / LOG
        log.unlink(missing_ok=True)
        (self.folder / haproxy.SOCKET).unlink(missing_ok=True)
        tag = Tag(str(self.folder), tags.FRONT, launched_at=time.time())
        argv = ["haproxy", "-db", "-f", CONFIG]
        pid = proc.detach(argv, env={tags.VARIABLE: tag.text()}, cwd=self.folder, log=log)
        ends_at = time.monotonic() + _STARTS_S
        while self.seen() is None:
            gone = proc.identity(pid) is None
            if gone or time.monotonic() > ends_at:
                said = _alerts(log)
                raise ProviderError(
                    f"HAProxy {'ended' if gone else 'does not answer'}" + (f":\n{said}" if said else ""),
                    where=f"fleet.{self.fleet.name}.listen",
                    hint="factory rollout plan says what is in its way",
                )
            time.sleep(0.02)

    def _remove(self, name: str) -> None:
        """Take a server away. Sessions that are still open a moment later are ended."""
        maintenance, delete = haproxy.removing(name)
        self._command(maintenance)
        ends_at = time.monotonic() + _SESSIONS_S
        while (said := self._tell(delete).strip()) not in (*_DONE, "No such server."):
            left = ends_at - time.monotonic()
            if left < 0:
                raise ProviderError(f"HAProxy does not let go of {name}: {said}", where=str(self.folder))
            if left < _SESSIONS_S * 0.8:
                self._tell(haproxy.cutting(name))
            time.sleep(0.05)

    def _command(self, *commands: str) -> None:
        for command in commands:
            said = self._tell(command).strip()
            if said not in _DONE:
                raise ProviderError(f"HAProxy refuses {command!r}: {said}", where=str(self.folder / CONFIG))

    def _tell(self, command: str) -> str:
        """What HAProxy answers. Raises OSError: FileNotFoundError and ConnectionError where none runs."""
        with qmp.connect(self.folder, haproxy.SOCKET, _ANSWERS_S) as connection:
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while block := connection.recv(1 << 16):
                answer += block
        return answer.decode("utf-8", "replace")


def _as_wanted(seen: Seen | None, server: Server) -> bool:
    """Whether a server has its weight; one that was only just added has none."""
    if server.weight == 0:
        return seen is None or seen.draining
    return seen is not None and not seen.draining and seen.server.weight == server.weight


def _alerts(log: Path, lines: int = 4) -> str:
    """The complaints at the end of HAProxy's log."""
    try:
        said = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in said if "ALERT" in line or "WARNING" in line][-lines:])
