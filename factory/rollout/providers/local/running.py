"""The process of a fleet's front: which HAProxy serves, one that takes over from another, the end of all.

Owns `haproxy.sock` and `haproxy.log`. The one that serves is the one that answers at the socket; its tag says how it
was started (`haproxy.frame`). Any other that is tagged was taken over from and is ending its sessions, or was started
by somebody who was killed before it took over: either is told to take no new sessions, and ends when it has none, at
the latest `haproxy.ENDS_S` later. So none that serves is killed, none is left for ever, and a successor that does not
start changes nothing.
"""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from factory import proc
from factory.errors import ProviderError
from factory.rollout.model import FleetSpec
from factory.rollout.providers.local import haproxy, tags
from factory.rollout.providers.local.guests import is_ours, tagged
from factory.rollout.providers.local.tags import Tag
from factory.vm import qmp

CONFIG = "haproxy.cfg"
LOG = "haproxy.log"
_ANSWERS_S = 5.0
_STARTS_S = 10.0
_REACHED_S = 0.3
_POLL_S = 0.02


@dataclass(frozen=True)
class Running:
    """The HAProxy processes of a fleet, in the fleet's folder."""

    folder: Path
    fleet: FleetSpec

    def processes(self) -> list[tuple[int, Tag]]:
        """(process id, tag) of each that runs, whether it serves or not."""
        return [(pid, tag) for pid, tag in tagged(self.folder) if tag.id == tags.FRONT]

    def tell(self, command: str, name: str = haproxy.SOCKET) -> str:
        """What the HAProxy at a socket answers. Raises OSError: FileNotFoundError, ConnectionError where none is."""
        with qmp.connect(self.folder, name, _ANSWERS_S) as connection:
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while block := connection.recv(1 << 16):
                answer += block
        return answer.decode("utf-8", "replace")

    def reach(self, command: str) -> str | None:
        """What the HAProxy that serves answers; None where none does. One that is there is given a moment.
        Raises ProviderError where it hangs."""
        ends_at = time.monotonic() + _REACHED_S
        while True:
            try:
                return self.tell(command)
            except (ConnectionError, FileNotFoundError):
                if time.monotonic() > ends_at or not self.processes():
                    return None
            except OSError as error:
                raise ProviderError(f"HAProxy does not answer: {error}", where=str(self.folder)) from error
            time.sleep(_POLL_S)

    def is_wanted(self) -> bool:
        """Whether one serves that was started as it is to be. All others are told to end."""
        serving = haproxy.pid_in(self.reach(haproxy.WHO) or "")
        found = dict(self.processes())
        if serving in found:
            self._let_end({pid: tag for pid, tag in found.items() if pid != serving})
            return found[serving].digest == haproxy.frame(self.fleet)
        return False

    def start(self) -> None:
        """Start one from the file, and have it take over from any that runs, without a gap where that one answers.
        Raises ProviderError where it does not come up: what ran goes on."""
        before = dict(self.processes())
        serving = haproxy.pid_in(self.reach(haproxy.WHO) or "") if before else None
        launched_at = time.time()
        sock = f"haproxy.{int(launched_at * 1000)}.sock"
        tag = Tag(str(self.folder), tags.FRONT, digest=haproxy.frame(self.fleet), launched_at=launched_at)
        argv = ["haproxy", "-db", "-f", CONFIG]
        if serving in before and before[serving].digest:
            argv += ["-x", f"./{haproxy.SOCKET}"]
        elif before:  # its address can be had only from its hands: for a few milliseconds, nobody listens there
            argv += ["-sf", *map(str, before)]
        log = self.folder / LOG
        said_before = log.stat().st_size if log.exists() else 0
        env = {tags.VARIABLE: tag.text(), haproxy.SOCKET_VARIABLE: sock}
        pid = proc.detach(argv, env=env, cwd=self.folder, log=log)
        try:
            self._await(pid, sock)
        except OSError as error:
            proc.kill(pid, lambda: is_ours(pid, tag))
            said = _alerts(log, said_before)
            raise ProviderError(
                f"HAProxy {error}" + (f":\n{said}" if said else ""),
                where=f"fleet.{self.fleet.name}.listen",
                hint="factory rollout plan says what is in its way",
            ) from error
        finally:
            self._sweep(sock)
        (self.folder / sock).replace(self.folder / haproxy.SOCKET)
        self._let_end(before)

    def stop(self) -> None:
        """End all of them, and remove what is theirs. Idempotent."""
        for pid, tag in self.processes():
            proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]
        self._sweep()
        for name in (CONFIG, haproxy.SOCKET, LOG):
            (self.folder / name).unlink(missing_ok=True)

    def _await(self, pid: int, sock: str) -> None:
        """Come back when a HAProxy answers. Raises OSError, with how it is, where it does not come to that."""
        ends_at = time.monotonic() + _STARTS_S
        while True:
            try:
                if haproxy.pid_in(self.tell(haproxy.WHO, sock)) == pid:
                    return
            except OSError:
                pass
            if proc.identity(pid) is None:
                raise OSError("ended")
            if time.monotonic() > ends_at:
                raise OSError("does not answer")
            time.sleep(_POLL_S)

    def _let_end(self, processes: dict[int, Tag]) -> None:
        """Tell some to take nothing new, and to end when they have no session left. Idempotent."""
        for pid, tag in processes.items():
            proc.tell(pid, lambda pid=pid, tag=tag: is_ours(pid, tag), signal.SIGUSR1)  # type: ignore[misc]

    def _sweep(self, but: str = "") -> None:
        """Remove the sockets of those that never took over."""
        for path in self.folder.glob("haproxy.*.sock*"):
            if path.name != but:
                path.unlink(missing_ok=True)


def _alerts(log: Path, since: int, lines: int = 4) -> str:
    """The complaints at the end of HAProxy's log, of what was said since it was so long."""
    try:
        said = log.read_bytes()[since:].decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in said if "ALERT" in line or "WARNING" in line][-lines:])
