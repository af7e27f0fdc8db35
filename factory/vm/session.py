"""A guest with a way in: the keys, the entry that fits the guest, the machine, and commands over one ssh connection.

Owns the private folder of one disposable guest: keys (0700), overlay, firmware variables, console. The caller removes
the folder; `kept` names what is worth keeping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factory import proc
from factory.errors import ToolError
from factory.vm import entry
from factory.vm.entry import Keys
from factory.vm.guest import Guest, Started, start
from factory.vm.machine import Machine

_LOGIN_TIMEOUT_S = 60


@dataclass(frozen=True)
class Way:
    """How to get into the guests of one image: `smbios` or `nocloud`, and its own /etc/default/ssh."""

    kind: str
    default_ssh: str = ""


@dataclass(frozen=True)
class Session:
    """A running guest and the ssh client configuration that leads into it (host alias `guest`)."""

    guest: Guest
    keys: Keys
    ssh_config: Path

    def command(self, *words: str) -> list[str]:
        """The ssh command line that runs `words` in the guest. Run it in the folder of the keys."""
        return ["ssh", "-F", str(self.ssh_config), "guest", *words]

    def run(self, script: str, *, timeout_s: float = 300) -> proc.Completed:
        """Run a shell script in the guest (on standard input, so no quoting). ToolError where it takes too long."""
        command = self.command("/bin/sh", "-s")
        return proc.run(command, stdin=script.encode(), cwd=self.keys.folder, check=False, timeout_s=timeout_s)

    def wait(self, deadline_s: float) -> float:
        """Wait until the guest lets us in; seconds since its start. Raises BootError."""
        return self.guest.wait_ssh(self._login, deadline_s)

    def _login(self) -> bool:
        try:
            command = self.command("true")
            return proc.run(command, cwd=self.keys.folder, check=False, timeout_s=_LOGIN_TIMEOUT_S).code == 0
        except ToolError:
            return False


@contextmanager
def open_session(
    way: Way, machine: Callable[[Path | None, Path | None], Machine], folder: Path, on_start: Started | None = None
) -> Iterator[Session]:
    """Start a guest that can be entered; it is stopped, and its keys are gone, when the context ends.

    `machine` makes the machine from (credential file, seed ISO), one of which is None.
    """
    keys = entry.make_keys(folder / "keys")
    try:
        if way.kind == "smbios":
            config = machine(entry.write_credential(keys, way.default_ssh), None)
        else:
            config = machine(None, entry.seed_iso(keys, keys.folder / "seed.iso"))
        with start(config, on_start) as guest:
            yield Session(guest, keys, entry.ssh_config(keys, guest.ports[22]))
    finally:
        entry.remove_keys(keys)
