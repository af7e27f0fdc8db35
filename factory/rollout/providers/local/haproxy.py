"""HAProxy's languages: the configuration file of a fleet, the commands of the runtime API, what `show stat` says. Pure.

The file holds what is to be, servers and weights included, so that a HAProxy started from it serves as the one before
it did. It is also our own record of the weights: `servers_in` reads back what `config` wrote. Knowledge of the formats:
HAProxy 2.6 (configuration manual; management guide, section 9), tried with 2.6.12.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from factory.rollout.model import FleetSpec, Health

SOCKET = "haproxy.sock"
BACKEND = "fleet"
RISE_LEAST, FALL = 1, 2

_SERVER = re.compile(r" {4}server (?P<name>[a-z0-9-]+) 127\.0\.0\.1:(?P<port>\d{1,5}) .* weight (?P<weight>\d{1,3})$")
_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_HEALTHY_CHECKS = ("L4OK", "L6OK", "L7OK")


@dataclass(frozen=True)
class Server:
    """An instance as HAProxy is to see it: its port on 127.0.0.1, and its weight; 0: no new sessions."""

    name: str
    port: int
    weight: int = 0


@dataclass(frozen=True)
class Seen:
    """A server as HAProxy sees it. `up`: it would get traffic if its weight says so. `healthy` None: not checked yet.

    `why`: what the last check found, of one that is not healthy. `draining`: kept from new sessions by command,
    whatever its weight. `closed`: in maintenance. `answered`: class of status -> answers passed on; of HTTP only.
    """

    server: Server
    up: bool
    healthy: bool | None
    why: str
    draining: bool
    closed: bool
    sessions: int
    answered: tuple[tuple[str, int], ...] = ()

    @property
    def down(self) -> bool:
        """Whether HAProxy has found it unhealthy: whatever its weight, it gets nothing until that has changed."""
        return not self.up and not self.closed

    @property
    def weight(self) -> int:
        """What it really gets."""
        return self.server.weight if self.up and not self.draining else 0


def config(fleet: FleetSpec, servers: Iterable[Server]) -> str:
    """The whole configuration file. Sockets are named relative to the folder that HAProxy is started in.

    A request that a server did not answer at all (refused, closed) is given to another one where asking twice does no
    harm (GET, HEAD, OPTIONS); others only where they did not reach it. `noreuseport`: the kernel would share the
    address between two HAProxies without a word.
    """
    http = fleet.health.http is not None
    lines = [
        "# Written by factory before each change of what runs. Changes made here by hand are lost.",
        "global",
        f"    stats socket unix@./{SOCKET} mode 600 level admin",
        "    nbthread 1",
        "    noreuseport",
        "    maxconn 2000",
        "    no strict-limits",
        "defaults",
        f"    mode {'http' if http else 'tcp'}",
        "    timeout connect 3s",
        "    timeout client 60s",
        "    timeout server 60s",
        "    timeout queue 10s",
        f"    timeout check {_ms(fleet.health.timeout_s)}",
        "    retries 3",
        "    option redispatch 1",
        *(
            [
                "    retry-on conn-failure empty-response",
                "    timeout http-request 30s",
                "    timeout http-keep-alive 30s",
                "    option forwardfor",
            ]
            if http
            else []
        ),
        "frontend front",
        f"    bind {bind_address(fleet.listen or '')}",
        f"    default_backend {BACKEND}",
        f"backend {BACKEND}",
        "    balance roundrobin",
        *_check_lines(fleet),
        *(f"    {_server_line(server, fleet.health)}" for server in sorted(servers, key=lambda one: one.name)),
    ]
    return "\n".join(lines) + "\n"


def servers_in(text: str) -> list[Server]:
    """The servers of a file that `config` wrote; other lines are passed over."""
    return [
        Server(found["name"], int(found["port"]), int(found["weight"]))
        for found in map(_SERVER.match, text.splitlines())
        if found
    ]


def adding(server: Server, health: Health) -> str:
    """The command that adds a server: in maintenance, until `opening` says otherwise."""
    return f"add server {BACKEND}/{server.name} 127.0.0.1:{server.port} {_check(health)} weight 0"


def opening(name: str) -> list[str]:
    """The commands that end a server's maintenance. Its health is looked at; it gets nothing before `weighing`."""
    return [f"enable health {BACKEND}/{name}", f"set server {BACKEND}/{name} state drain"]


def weighing(server: Server) -> list[str]:
    """The commands that give a server its weight; without one it drains: sessions that are open go on."""
    target = f"{BACKEND}/{server.name}"
    if server.weight == 0:
        return [f"set server {target} state drain"]
    return [f"set server {target} weight {server.weight}", f"set server {target} state ready"]


def removing(name: str) -> list[str]:
    """The commands that take a server away; the last is refused while sessions are open."""
    return [f"set server {BACKEND}/{name} state maint", f"del server {BACKEND}/{name}"]


def cutting(name: str) -> str:
    """The command that ends a server's sessions."""
    return f"shutdown sessions server {BACKEND}/{name}"


SHOW = f"show stat {BACKEND} 4 -1"
"""Asks for the backend's servers, and nothing else."""


def seen_in(stat: str) -> dict[str, Seen]:
    """Name -> server, from the answer to SHOW. Raises ValueError or KeyError where it is none."""
    found = {}
    for row in csv.DictReader(stat.removeprefix("# ").splitlines()):
        status = row["status"].split(" ")[0]
        checked = row["check_status"].removeprefix("* ")
        up = status in ("UP", "DRAIN")
        server = Server(row["svname"], int(row["addr"].rpartition(":")[2]), int(row["uweight"]))
        found[server.name] = Seen(
            server=server,
            up=up,
            healthy=None if up and checked not in _HEALTHY_CHECKS else up,
            why="" if up else _why(checked, row),
            draining=status in ("DRAIN", "MAINT"),
            closed=status == "MAINT",
            sessions=int(row["scur"]),
            answered=tuple((code, int(row[f"hrsp_{code}"])) for code in _CODES if row.get(f"hrsp_{code}")),
        )
    return found


def _why(checked: str, row: Mapping[str, str]) -> str:
    """What a check that failed found."""
    if checked == "L7STS":
        return f"it answers with status {row['check_code']}"
    if checked == "L7RSP" and "content" in row["last_chk"]:
        return "its answer lacks the body that is wanted"
    return row["last_chk"] or row["check_desc"]


def without_weight(server: Server) -> Server:
    """The same server, without traffic."""
    return replace(server, weight=0)


def bind_address(listen: str) -> str:
    """HAProxy's spelling of HOST:PORT ([HOST]:PORT for IPv6)."""
    host, _, port = listen.rpartition(":")
    return f"{host[1:-1]}:{port}" if host.startswith("[") else listen


def _server_line(server: Server, health: Health) -> str:
    return f"server {server.name} 127.0.0.1:{server.port} {_check(health)} weight {server.weight}"


def _check(health: Health) -> str:
    return f"check inter {_ms(health.interval_s)} rise {max(RISE_LEAST, health.successes)} fall {FALL}"


def _check_lines(fleet: FleetSpec) -> list[str]:
    probe = fleet.health.http
    if probe is None:
        return ["    option tcp-check"]
    lines = [
        "    option httpchk",
        "    http-request disable-l7-retry unless { method GET HEAD OPTIONS }",
        f"    http-check send meth GET uri {quoted(probe.path)} ver HTTP/1.1 hdr Host {quoted(fleet.name)}",
        f"    http-check expect status {probe.status}",
    ]
    return lines if probe.body is None else [*lines, f"    http-check expect string {quoted(probe.body)}"]


def quoted(text: str) -> str:
    """A word of the configuration file: in single quotes nothing has a meaning but the quote itself (section 2.2)."""
    return "'" + text.replace("'", "'\\''") + "'"


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}"
