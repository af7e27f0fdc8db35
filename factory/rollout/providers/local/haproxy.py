"""HAProxy's languages: the configuration file of a fleet, the commands of the runtime API, what `show stat` says. Pure.

The file holds what is to be, servers and weights included, so that a HAProxy started from it serves as the one before
it did. It is also our own record of the weights: `servers_in` reads back what `config` wrote. Knowledge of the formats:
HAProxy 2.6 (configuration manual; management guide, section 9), tried with 2.6.12.

Each instance stands there twice: as itself, checked, and as its last resort, a `backup` of the same weight that is not
checked and gets something only while no checked one is up. So checks choose among instances, and never end a service:
a host that stalls, or a new check that the old image does not pass, makes all of them unhealthy at once.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from factory.digest import Digest, of_bytes
from factory.rollout.model import FleetSpec, Health

SOCKET = "haproxy.sock"
SOCKET_VARIABLE = "FACTORY_FRONT_SOCKET"
"""The variable that says what a HAProxy calls its socket while it starts: each another, since one that takes over from
another must not take that one's socket over, too. It is called SOCKET once it answers."""

BACKEND = "fleet"
TROUBLE = "trouble"
"""The ring in HAProxy's memory that tells what became of servers, and of requests that failed or were tried again, but
not what they asked for: a path or a query may hold a secret. The newest 64 KiB of it."""

_RESORT = ".last"
_FALL_LEAST, _FALL_MOST, _FALL_S = 2, 3, 3.0

ENDS_S = 60
"""So long a HAProxy that another one has taken over from may go on with the sessions that it has."""

_SERVER = re.compile(r" {4}server (?P<name>[a-z0-9-]+) 127\.0\.0\.1:(?P<port>\d{1,5}) .* weight (?P<weight>\d{1,3})$")
_TCP_LOG = "%t %s %tsc %Tw/%Tc/%Tt retries=%rc %bc/%sc"
_HTTP_LOG = "%tr %s %ST %tsc %HM %TR/%Tw/%Tc/%Tr/%Ta retries=%rc %bc/%sc"
_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_KEPT = ("DRAIN", "MAINT")
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
    `resort`: the weight that its last resort has, for when none is up.
    """

    server: Server
    up: bool
    healthy: bool | None
    why: str
    draining: bool
    closed: bool
    sessions: int
    answered: tuple[tuple[str, int], ...] = ()
    resort: int = 0

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

    A request that a server did not answer (refused, closed, or not within a time that the fleet sets) is given to
    another one where asking twice does no harm (GET, HEAD, OPTIONS); others only where they did not reach it. QEMU has
    room for one connection that waits: while it is stalled the others are dropped, so they are tried again each second,
    for as long as a client may wait. `noreuseport`: the kernel would share the address between two HAProxies without a
    word.
    """
    http = fleet.health.http is not None
    is_limited = fleet.response_timeout_s < FleetSpec.response_timeout_s
    lines = [
        "# Written by factory before each change of what runs. Changes made here by hand are lost.",
        "global",
        f'    stats socket "unix@./${{{SOCKET_VARIABLE}}}" mode 600 level admin expose-fd listeners',
        f"    hard-stop-after {ENDS_S}s",
        "    nbthread 1",
        "    noreuseport",
        "    maxconn 2000",
        "    no strict-limits",
        f"    log ring@{TROUBLE} format raw local0",
        f"ring {TROUBLE}",
        "    size 65536",
        "    format raw",
        "defaults",
        "    log global",
        "    option dontlog-normal",
        f'    log-format "{_HTTP_LOG if http else _TCP_LOG}"',
        f"    mode {'http' if http else 'tcp'}",
        "    timeout connect 2s",
        "    timeout client 60s",
        f"    timeout server {_ms(fleet.response_timeout_s)}",
        "    timeout queue 10s",
        f"    timeout check {_ms(fleet.health.timeout_s)}",
        "    retries 5",
        "    option redispatch 1",
        *(
            [
                "    retry-on conn-failure empty-response" + (" response-timeout" if is_limited else ""),
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
        "    option allbackups",
        *_check_lines(fleet),
        *(
            f"    server {line} weight {server.weight}"
            for server in sorted(servers, key=lambda one: one.name)
            for line in _server_lines(server, fleet.health)
        ),
    ]
    return "\n".join(lines) + "\n"


def frame(fleet: FleetSpec) -> Digest:
    """What tells whether a HAProxy was started as it is to be now. Its servers can be told to it, the rest cannot."""
    return of_bytes(config(fleet, [Server("any", 1)]).encode())


def servers_in(text: str) -> list[Server]:
    """The servers of a file that `config` wrote; other lines are passed over."""
    return [
        Server(found["name"], int(found["port"]), int(found["weight"]))
        for found in map(_SERVER.match, text.splitlines())
        if found
    ]


def adding(server: Server, health: Health) -> list[str]:
    """The commands that add a server: in maintenance, until `opening` says otherwise. Where there is no last resort
    there may be the server (who added it was killed), never the other way round."""
    return [f"add server {BACKEND}/{line} weight 0" for line in _server_lines(server, health)]


def opening(name: str) -> list[str]:
    """The commands that end a server's maintenance. Its health is looked at; it gets nothing before `weighing`."""
    return [
        f"set server {BACKEND}/{name}{_RESORT} state drain",
        f"enable health {BACKEND}/{name}",
        f"set server {BACKEND}/{name} state drain",
    ]


def weighing(server: Server) -> list[str]:
    """The commands that give a server its weight; without one it drains: sessions that are open go on. The server
    comes last: it is what one sees."""
    targets = [f"{BACKEND}/{server.name}{_RESORT}", f"{BACKEND}/{server.name}"]
    state = "ready" if server.weight else "drain"
    return [
        f"set server {target} {what}" for target in targets for what in (f"weight {server.weight}", f"state {state}")
    ]


def closing(name: str) -> list[str]:
    """The commands that put a server in maintenance: it may be taken away then."""
    return [f"set server {BACKEND}/{one} state maint" for one in (name + _RESORT, name)]


def removing(name: str) -> list[tuple[str, str]]:
    """The commands that take a server away, the server itself last: refused while sessions are open; each with the one
    that ends its sessions."""
    return [
        (f"del server {BACKEND}/{one}", f"shutdown sessions server {BACKEND}/{one}") for one in (name + _RESORT, name)
    ]


WHO = "show info"
"""Asks a HAProxy about itself."""


def pid_in(info: str) -> int | None:
    """Which process it is, from the answer to WHO; None where it is none."""
    found = re.search(r"^Pid: (\d+)$", info, re.MULTILINE)
    return int(found.group(1)) if found else None


SHOW = f"show stat {BACKEND} 4 -1"
"""Asks for the backend's servers, and nothing else."""


def seen_in(stat: str) -> dict[str, Seen]:
    """Name -> server, from the answer to SHOW. Raises ValueError or KeyError where it is none."""
    found = {}
    rows = {row["svname"]: row for row in csv.DictReader(stat.removeprefix("# ").splitlines())}
    for name, row in rows.items():
        if name.endswith(_RESORT):
            continue
        both = [row, *([rows[name + _RESORT]] if name + _RESORT in rows else [])]
        status = row["status"].split(" ")[0]
        checked = row["check_status"].removeprefix("* ")
        up = status in ("UP", "DRAIN")
        server = Server(row["svname"], int(row["addr"].rpartition(":")[2]), int(row["uweight"]))
        found[server.name] = Seen(
            server=server,
            up=up,
            healthy=None if up and checked not in _HEALTHY_CHECKS else up,
            why="" if up else _why(checked, row),
            draining=status in _KEPT,
            closed=status == "MAINT",
            sessions=sum(int(one["scur"]) for one in both),
            answered=tuple(
                (code, sum(int(one[f"hrsp_{code}"] or 0) for one in both)) for code in _CODES if row.get(f"hrsp_{code}")
            ),
            resort=sum(int(one["uweight"]) for one in both[1:] if one["status"].split(" ")[0] not in _KEPT),
        )
    return found


def sent(seen: Mapping[str, Seen]) -> dict[str, int]:
    """Name -> what of the traffic it really gets; where no server is up, their last resorts get it."""
    by_health = {name: one.weight for name, one in seen.items()}
    return by_health if any(by_health.values()) else {name: one.resort for name, one in seen.items()}


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


def _server_lines(server: Server, health: Health) -> list[str]:
    """The server and its last resort, without their weight."""
    address = f"127.0.0.1:{server.port}"
    return [f"{server.name} {address} {_check(health)}", f"{server.name}{_RESORT} {address} backup"]


def _check(health: Health) -> str:
    """A server falls after three looks that found it ill, or two where they are 1.5 s or more apart: a moment's stall
    of a busy host is no illness."""
    fall = max(_FALL_LEAST, min(_FALL_MOST, math.ceil(_FALL_S / health.interval_s)))
    return f"check inter {_ms(health.interval_s)} rise {health.successes} fall {fall}"


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
