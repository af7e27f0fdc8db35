"""A running guest: started, waited for, looked at, stopped. Owns its QEMU process.

The guest dies with the thread that started it (`proc.spawn`), whatever happens to that thread. QMP is spoken over
QEMU's standard input and output; a line there that is not JSON is something QEMU complained about.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from factory import proc
from factory.errors import BootError, ToolError
from factory.vm.machine import Machine, arguments

Started = Callable[[int, int], None]
"""Told the process id and its start time (`proc.identity`) as soon as QEMU runs."""

_FATAL = (
    (re.compile(rb"Kernel panic - not syncing[^\r\n]*"), "its kernel panicked"),
    (re.compile(rb"You are in (emergency|rescue) mode"), "it went into emergency mode"),
    (re.compile(rb"ALERT!\s[^\r\n]*|\(initramfs\) "), "its initial ramdisk found no root file system"),
    (re.compile(rb"can't access tty; job control turned off"), "it found no init, and fell back to a shell"),
    (re.compile(rb"No bootable option or device was found|UEFI Interactive Shell|Shell> "), "its disk is not bootable"),
)
_LATE = (
    (re.compile(rb"login: *$", re.MULTILINE), "it reached its login prompt"),
    (re.compile(rb"Failed to start [^\r\n]*(OpenBSD Secure Shell|ssh\.s)"), "its ssh service failed"),
)
"""Signs that ssh should answer soon if ever: systemd may start a service again that failed."""

_LATE_S = 120
_POLL_S = 0.2


class Guest:
    """A guest that was started. Use it as a context manager: it is stopped at the end."""

    def __init__(self, machine: Machine, process: proc.Process) -> None:
        self.machine = machine
        self._process = process
        self._said: list[str] = []
        self._began = time.monotonic()
        self._hello()
        self.ports = self._forwarded()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.poll() is None

    @property
    def uptime_s(self) -> float:
        """Seconds since QEMU was started."""
        return time.monotonic() - self._began

    def stop(self) -> None:
        """End QEMU at once (the guest is not asked; whoever wants its writes on disk syncs first). Idempotent."""
        if self.alive:
            try:
                self.qmp("quit")
                self._process.wait(10)
            except (ToolError, proc.TimeoutExpired):
                pass
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # what QEMU did not read any more
                self._process.stdin.close()
        proc.end(self._process)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """What QEMU returns for a QMP command. Raises ToolError where it refuses or has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise ToolError(f"QEMU refused {command}: {answer['error'].get('desc')}")

    def screenshot(self, path: Path) -> Path | None:
        """The guest's screen as a PNG at `path`; None where there is none to be had (QEMU older than 7.1, or gone)."""
        try:
            self.qmp("screendump", filename=str(path), format="png")
        except ToolError:
            return None
        return path if path.exists() else None

    def console(self) -> bytes:
        """All that the guest printed on its serial port so far."""
        try:
            return self.machine.console.read_bytes()
        except OSError:
            return b""

    def console_tail(self, lines: int = 15) -> str:
        """The last lines of the console as plain text, escape sequences removed."""
        return tail_of(self.console(), lines)

    def wait_ssh(self, login: Callable[[], bool], deadline_s: float) -> float:
        """Wait until `login` succeeds; the seconds since the start.

        `login` is only tried when something answers as an ssh server. Raises BootError as soon as the console shows
        that it will not come up, when QEMU ends, or after `deadline_s`; it names console tail, log and screenshot.
        """
        late_since: float | None = None
        while True:
            if self._answers() and login():
                return self.uptime_s
            why = self._hopeless()
            late = next((what for pattern, what in _LATE if pattern.search(self.console())), None)
            if late is not None:
                late_since = late_since or self.uptime_s
                if self.uptime_s - late_since > _LATE_S:
                    why = why or f"{late}, but ssh did not let us in within {_LATE_S} s of that"
            if why is None and self.uptime_s > deadline_s:
                why = f"it did not answer within {deadline_s:g} s"
            if why is not None:
                raise self._boot_error(why)
            time.sleep(_POLL_S)

    def _hopeless(self) -> str | None:
        if not self.alive:
            return "QEMU ended" + (f": {self._said[-1]}" if self._said else "")
        console = self.console()
        for pattern, why in _FATAL:
            if found := pattern.search(console):
                return f"{why}: {found.group().decode('utf-8', 'replace').strip()}"
        return None

    def _answers(self) -> bool:
        """Whether an ssh server greets on the forwarded port (QEMU itself accepts every connection)."""
        try:
            with socket.create_connection(("127.0.0.1", self.ports[22]), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _boot_error(self, why: str) -> BootError:
        picture = self.screenshot(self.machine.folder / "screen.png")
        named = f"serial log: {self.machine.console}" + (f", screenshot: {picture}" if picture else "")
        tail = self.console_tail()
        return BootError(
            f"the guest did not come up: {why}\n"
            + (f"the last lines of its console:\n{tail}" if tail else "its console is empty"),
            where=named,
            hint="the end of its serial log says how far it came",
        )

    def _hello(self) -> None:
        while "QMP" not in self._read():
            pass
        self.qmp("qmp_capabilities")

    def _forwarded(self) -> dict[int, int]:
        """The host's port for each forwarded guest port, as QEMU lists them."""
        return forwarded_ports(self.qmp("human-monitor-command", **{"command-line": "info usernet"}))

    def _read(self) -> dict[str, Any]:
        """The next QMP message."""
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            try:
                message = json.loads(raw)
            except ValueError:
                self._said.append(raw.decode("utf-8", "replace").strip())
                continue
            if isinstance(message, dict):
                return message
        raise self._ended()

    def _ended(self) -> ToolError:
        said = "\n".join(self._said[-5:])
        return ToolError("QEMU ended" + (f":\n{said}" if said else ""), where=proc.paste(arguments(self.machine)))


def start(machine: Machine, on_start: Started | None = None) -> Guest:
    """Start a guest on a fresh overlay of its disk. Raises ToolError where QEMU does not start."""
    shutil.copyfile(machine.firmware.with_name(machine.firmware.name.replace("CODE", "VARS")), machine.variables)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", machine.disk_format, "-b", str(machine.disk)]
    proc.run([*create, str(machine.overlay)])
    process = proc.spawn(arguments(machine), stdin=proc.PIPE, stdout=proc.PIPE, cwd=machine.folder)
    try:
        if on_start is not None:
            on_start(process.pid, int(proc.identity(process.pid) or 0))
        return Guest(machine, process)
    except BaseException:
        proc.end(process)
        raise


def forwarded_ports(info_usernet: str) -> dict[int, int]:
    """Guest port -> host port from QEMU's `info usernet` (7.2: protocol[state] fd address port address port …)."""
    rows = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", info_usernet)
    return {int(guest): int(host) for host, guest in rows}


def tail_of(console: bytes, lines: int) -> str:
    """The last non-empty lines of a serial log as plain text."""
    text = re.sub(rb"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>])", b"", console).decode("utf-8", "replace")
    text = "".join(char for char in text.replace("\r", "\n") if char == "\n" or char.isprintable())
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
