"""The guests of one fleet: QEMU processes that outlive us, each with a private folder; found by what runs.

Owns `.factory/fleets/NAME/instances/ID/`: overlay, firmware variables, serial log, `instance.json`. The process and its
tag decide what there is; the file only saves asking for the port, and says that an instance is to go. Invariants: a
process is ended only where its tag is ours when its number can no longer be given anew; a folder is removed only when
no process has its tag; what is in a golden image's file is never written. Nothing here waits for a guest to boot.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from factory import files, proc
from factory.errors import FactoryError, ProviderError, ToolError
from factory.rollout.model import FleetSpec, Generation
from factory.rollout.providers.local import tags
from factory.rollout.providers.local.tags import Tag
from factory.vm import qmp
from factory.vm.guest import forwarded_ports
from factory.vm.machine import QMP, Machine, arguments

RECORD = "instance.json"
LOG = "qemu.log"
CONSOLE = "console.log"
_SECRETS = "secrets"
_CONSOLE_LIMIT = 1 << 20
_PANIC, _PANIC_BYTES = b"end Kernel panic - not syncing", 1 << 12
_STARTS_S = 15.0
_ASKED_S = 2.0
_ENDS_S = 10.0

Command = Callable[[Machine], list[str]]
"""The command that runs one instance: QEMU's, or in tests that of something which behaves like it."""


@dataclass(frozen=True)
class Guest:
    """A guest. `port`: where its health port is on 127.0.0.1, None: not known yet. `leaving`: being retired. `halted`:
    its kernel panicked, so that nothing will come of it any more, though its QEMU runs on."""

    pid: int
    tag: Tag
    port: int | None = None
    leaving: bool = False
    halted: bool = False

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.tag.id


@dataclass(frozen=True)
class Guests:
    """The guests of a fleet, in the fleet's folder."""

    folder: Path
    fleet: FleetSpec
    accelerator: Callable[[], str]
    command: Command = arguments

    def running(self) -> dict[str, Guest]:
        """Id -> guest, of all that run: a look at every process of ours, and at the files of those that are tagged."""
        found = {}
        for pid, tag in tagged(self.folder):
            if tag.id != tags.FRONT and tags.generation_of(self.fleet.name, tag.id) is not None:
                found[tag.id] = self._with_record(Guest(pid, tag, halted=self._has_panicked(tag.id)))
        return found

    def start(self, generation: Generation, names: Iterable[str]) -> list[Guest]:
        """Start guests by these names; none of them runs. Whether they came up, `settle` says."""
        started = []
        disk = Path(generation.image.references.get("local", ""))
        form = _format_of(disk)
        accelerator = self.accelerator()
        for name in names:
            folder = self._fresh_folder(name)
            machine = Machine(
                disk=disk,
                disk_format=form,
                folder=folder,
                accelerator=accelerator,
                memory_mib=self.fleet.memory_mib,
                cpus=1,
                ports=(self.fleet.health.port,),
                credentials=self._secrets(folder),
                name=name,
                detached=True,
            )
            tag = Tag(
                folder=str(self.folder),
                id=name,
                generation=generation.number,
                digest=str(generation.image.digest),
                rollout=generation.rollout,
                launched_at=time.time(),
            )
            started.append(self._start(machine, tag))
        return started

    def settle(self, guests: Iterable[Guest]) -> None:
        """Wait until each guest's QEMU answers, and note its port. ProviderError where one ended instead, with why.

        One whose folder somebody has removed cannot be asked, and is left as it is.
        """
        failed = None
        for guest in guests:
            if guest.port is None and not guest.leaving and self._of(guest.id).is_dir():
                try:
                    self._settle(guest)
                except ProviderError as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    def ask_port(self, guest: Guest) -> Guest:
        """The guest with its port as QEMU says it; unchanged where it does not answer. Writes nothing."""
        try:
            return replace(guest, port=self._ask_port(guest))
        except ToolError:
            return guest

    def usernet(self, guest: Guest) -> str:
        """What a guest's QEMU says of its network: the forwarded ports and the connections. Raises ToolError."""
        how = {"command-line": "info usernet"}
        return str(qmp.ask(self._of(guest.id), QMP, "human-monitor-command", _ASKED_S, **how))

    def dismiss(self, guest: Guest) -> None:
        """Note that a guest is to go: from now on it counts no more."""
        self._record(replace(guest, leaving=True))

    def stop(self, guest: Guest) -> None:
        """End a guest and remove what was its own. Idempotent. ProviderError where it does not end."""
        try:
            qmp.ask(self._of(guest.id), QMP, "quit", _ASKED_S)
            ended = proc.await_end(guest.pid, lambda: is_ours(guest.pid, guest.tag), _ENDS_S)
        except ToolError:
            ended = False
        if not ended and not proc.kill(guest.pid, lambda: is_ours(guest.pid, guest.tag), _ENDS_S):
            raise ProviderError(f"{guest.id} (process {guest.pid}) does not end", where=str(self._of(guest.id)))
        self.remove(guest.id)

    def remove(self, name: str) -> None:
        """Remove the folder of an instance that does not run."""
        shutil.rmtree(self._of(name), ignore_errors=True)

    def sweep(self, running: Mapping[str, Guest]) -> None:
        """Remove the folders of instances that run no more, and secrets that QEMU has read (who started it was killed
        before it could); cut serial logs that have grown too long."""
        for folder in self._instances.glob("*/"):
            if folder.name not in running and tags.generation_of(self.fleet.name, folder.name) is not None:
                self.remove(folder.name)
        for name, guest in running.items():
            secrets = self._of(name) / _SECRETS
            if secrets.is_dir() and self.ask_port(guest).port is not None:
                shutil.rmtree(secrets, ignore_errors=True)
            for log in (self._of(name) / CONSOLE, self._of(name) / LOG):
                cut(log, _CONSOLE_LIMIT)

    @property
    def _instances(self) -> Path:
        return self.folder / "instances"

    def _of(self, name: str) -> Path:
        return self._instances / name

    def _fresh_folder(self, name: str) -> Path:
        folder = self._of(name)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._instances.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise ProviderError(f"cannot make the folder of {name}: {error.strerror}", where=str(folder)) from error
        return folder

    def _start(self, machine: Machine, tag: Tag) -> Guest:
        try:
            shutil.copyfile(
                machine.firmware.with_name(machine.firmware.name.replace("CODE", "VARS")), machine.variables
            )
            create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", machine.disk_format, "-b", str(machine.disk)]
            proc.run([*create, str(machine.overlay)])
            argv, env = self.command(machine), {tags.VARIABLE: tag.text()}
            pid = proc.detach(argv, env=env, cwd=machine.folder, log=machine.folder / LOG)
        except (OSError, FactoryError) as error:
            self.remove(tag.id)
            raise ProviderError(
                f"{tag.id} cannot be started: {error}",
                where=str(machine.disk),
                hint="is there room on this disk (df), and is everything installed (factory doctor)?",
            ) from error
        guest = Guest(pid, tag)
        self._record(guest)
        return guest

    def _settle(self, guest: Guest) -> None:
        ends_at = time.monotonic() + _STARTS_S
        while True:
            try:
                port = self._ask_port(guest)
                break
            except ToolError as error:
                if proc.identity(guest.pid) is None:
                    said = _tail(self._of(guest.id) / LOG)
                    self.remove(guest.id)
                    raise ProviderError(
                        f"{guest.id} ended as soon as it was started" + (f":\n{said}" if said else ""), where=guest.id
                    ) from error
                if time.monotonic() > ends_at:
                    raise ProviderError(
                        f"the QEMU of {guest.id} (process {guest.pid}) does not answer", where=str(self._of(guest.id))
                    ) from error
                time.sleep(0.05)
        shutil.rmtree(self._of(guest.id) / _SECRETS, ignore_errors=True)  # QEMU has read them
        self._record(replace(guest, port=port))

    def _ask_port(self, guest: Guest) -> int:
        port = forwarded_ports(self.usernet(guest)).get(self.fleet.health.port)
        if port is None:
            raise ToolError(f"QEMU does not forward port {self.fleet.health.port} of {guest.id}")
        return port

    def _secrets(self, folder: Path) -> tuple[Path, ...]:
        """A file for each external state, as a systemd credential (systemd.system-credentials(7)); 0600 in a folder of
        ours, removed again when QEMU has read them."""
        paths = []
        for external in self.fleet.external:
            if external.path is not None:
                try:
                    value = Path(external.path).read_bytes()
                    made = folder / _SECRETS / external.name
                    text = f"io.systemd.credential.binary:{external.name}={base64.b64encode(value).decode()}"
                    files.create_private(made, text.encode())
                except OSError as error:
                    raise ProviderError(
                        f"external state {external.name} cannot be read: {error.strerror}", where=external.path
                    ) from error
                paths.append(made)
        return tuple(paths)

    def _record(self, guest: Guest) -> None:
        folder = self._of(guest.id)
        if folder.is_dir():  # somebody may have removed what a running guest had; its tag says enough
            told = {
                "pid": guest.pid,
                "identity": proc.identity(guest.pid),
                "boot": boot_id(),
                "port": guest.port,
                "leaving": guest.leaving,
                "tag": json.loads(guest.tag.text()),
            }
            files.replace(folder / RECORD, json.dumps(told, indent=1).encode() + b"\n", mode=0o600)

    def _has_panicked(self, name: str) -> bool:
        """Whether the last thing on a guest's console is the end of a panic."""
        try:
            with (self._of(name) / CONSOLE).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _PANIC_BYTES))
                return _PANIC in file.read()
        except OSError:
            return False

    def _with_record(self, guest: Guest) -> Guest:
        """What the file adds to a guest, if it is about this very process."""
        try:
            told = json.loads((self._of(guest.id) / RECORD).read_text())
            same = (told["pid"], told["identity"], told["boot"]) == (guest.pid, proc.identity(guest.pid), boot_id())
            return replace(guest, port=told["port"], leaving=bool(told["leaving"])) if same else guest
        except (OSError, ValueError, KeyError, TypeError):
            return guest


def tagged(folder: Path) -> list[tuple[int, Tag]]:
    """(process id, tag) of every running process of the fleet whose folder this is."""
    told = ((pid, tags.parse(text)) for pid, text in proc.marked(tags.VARIABLE))
    return [(pid, tag) for pid, tag in told if tag is not None and tag.folder == str(folder)]


def is_ours(pid: int, tag: Tag) -> bool:
    """Whether a process carries exactly this tag."""
    return proc.mark(pid, tags.VARIABLE) == tag.text()


def boot_id() -> str:
    """Which boot of this host this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def cut(log: Path, limit: int) -> None:
    """Empty a log that has grown beyond `limit` bytes; who writes it appends, and goes on at the start."""
    try:
        if log.stat().st_size > limit:
            with log.open("r+b") as file:
                file.truncate(0)
    except OSError:
        pass


def _tail(log: Path, lines: int = 5) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return ""


def _format_of(disk: Path) -> str:
    """How a disk is stored: qcow2 or raw. A raw disk of ours begins with a boot sector, never with qcow2's mark."""
    try:
        with disk.open("rb") as file:
            return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"
    except OSError as error:
        raise ProviderError(
            f"the image is not in the store: {error.strerror}", where=str(disk), hint="get it: factory fetch"
        ) from error
