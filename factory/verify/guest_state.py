"""What a booted guest says about itself: failed units and listening ports, asked for with one shell command.

The script needs only sh, systemd and /proc in the guest. Parsing and judging are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

SETTLE_SCRIPT = "timeout 120 systemctl is-system-running --wait 2>/dev/null || :"
"""Waits until the guest has started all it wants to start."""

STATE_SCRIPT = r"""
echo '== failed'; systemctl list-units --failed --plain --no-legend --no-pager
for table in tcp tcp6 udp udp6; do echo "== $table"; cat /proc/net/$table 2>/dev/null; done
echo '== owners'; ss -Htulnp 2>/dev/null
sleep 1; for table in udp udp6; do echo "== $table again"; cat /proc/net/$table 2>/dev/null; done
echo '== why'; systemctl list-units --failed --plain --no-legend --no-pager | while read -r unit rest; do
  echo "-- $unit"; journalctl -b -o cat -n 4 --no-pager -u "$unit" 2>/dev/null; done
sync
echo '== end'
"""
"""Prints the state in sections, and puts the guest's writes on its disk. UDP is looked at twice: a question asked
of the network looks like a listener for a moment."""

DHCP_CLIENT_PORTS = (68, 546)
"""UDP ports on which a DHCP client waits for the answers it asked for."""

_TCP_LISTEN = "0A"
_UDP_UNCONNECTED = "07"


@dataclass(frozen=True, order=True)
class Listener:
    """A socket that takes what anybody sends: `tcp` or `udp`, port, local address."""

    protocol: str
    port: int
    address: str

    def __str__(self) -> str:
        return f"{self.protocol} {self.port} on {self.address}"


@dataclass(frozen=True)
class GuestState:
    """Names of failed units with the last lines of their logs, and listeners that other machines can reach."""

    failed: tuple[tuple[str, str], ...]
    listeners: tuple[Listener, ...]
    owners: str


def parse(text: str) -> GuestState:
    """What `STATE_SCRIPT` printed. ValueError where it did not get to its end."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            current = sections.setdefault(line[3:], [])
        else:
            current.append(line)
    if "end" not in sections:
        raise ValueError("the guest's answer is incomplete")
    failed = [line.split()[0] for line in sections["failed"] if line.strip()]
    reasons = _reasons(sections["why"])
    listeners = {
        listener
        for table in ("tcp", "tcp6", "udp", "udp6")
        for listener in parse_sockets(table[:3], sections[table])
        if not ip_address(listener.address).is_loopback
    }
    stayed = {one for table in ("udp", "udp6") for one in parse_sockets("udp", sections[f"{table} again"])}
    listeners = {one for one in listeners if one.protocol != "udp" or one in stayed}
    return GuestState(
        tuple((unit, reasons.get(unit, "")) for unit in failed), tuple(sorted(listeners)), "\n".join(sections["owners"])
    )


def parse_sockets(protocol: str, lines: Sequence[str]) -> list[Listener]:
    """The listening sockets in a table of /proc/net (proc(5): hexadecimal, addresses in host byte order by words)."""
    wanted = _TCP_LISTEN if protocol == "tcp" else _UDP_UNCONNECTED
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < 4 or not fields[0].endswith(":") or fields[3] != wanted:
            continue
        address, _, port = fields[1].partition(":")
        found.append(Listener(protocol, int(port, 16), str(_address(address))))
    return found


def undeclared(listeners: Sequence[Listener], ports: Sequence[int]) -> list[Listener]:
    """Listeners that no declared port accounts for."""
    return [
        listener
        for listener in listeners
        if listener.port not in ports and not (listener.protocol == "udp" and listener.port in DHCP_CLIENT_PORTS)
    ]


def owner_of(listener: Listener, owners: str) -> str:
    """The process behind a listener, from the lines of `ss`; empty where it is not known."""
    for line in owners.splitlines():
        fields = line.split()
        if len(fields) > 6 and fields[0] == listener.protocol and fields[4].endswith(f":{listener.port}"):
            return fields[6].partition('(("')[2].partition('"')[0]
    return ""


def _address(text: str) -> IPv4Address | IPv6Address:
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _reasons(lines: Sequence[str]) -> dict[str, str]:
    reasons: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if line.startswith("-- "):
            current = reasons.setdefault(line[3:], [])
        elif line.strip():
            current.append(line.strip())
    return {unit: "\n".join(said) for unit, said in reasons.items()}
