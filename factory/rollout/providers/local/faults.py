"""What is in the way of a local fleet on this host. Looks, and changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from factory import proc
from factory.errors import MissingToolError
from factory.rollout.model import FleetSpec
from factory.vm.machine import FIRMWARE_CODE

ARCH = "amd64"
_PATH_BYTES = 900
"""A qcow2 overlay names its backing file in at most 1023 bytes."""

_SECRET_BYTES = 32 << 10
"""SMBIOS holds 64 KiB of tables; base64 makes four bytes of three."""

_EXTERNAL = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def of(fleet: FleetSpec, image_arch: str, folder: Path, *, running: int, fronts: Collection[int]) -> list[str]:
    """Every reason why the fleet cannot be run, each with what to do. `running`: guests that it has already;
    `fronts`: the processes that may have its address, since they are its own."""
    return [
        *_missing_programs(),
        *_architecture(image_arch),
        *_listen(fleet, fronts),
        *_memory(fleet, running),
        *_folder(folder),
        *_external(fleet),
        *_health(fleet),
    ]


def _missing_programs() -> Iterator[str]:
    for program in ("haproxy", "qemu-system-x86_64", "qemu-img", "setsid"):
        try:
            proc.find(program)
        except MissingToolError as error:
            yield f"{error.message}; {error.hint}"
    if not FIRMWARE_CODE.exists():
        yield f"there is no firmware to boot with ({FIRMWARE_CODE}); install it: apt-get install ovmf"


def _architecture(image_arch: str) -> Iterator[str]:
    if image_arch != ARCH:
        yield f"the image is for {image_arch}, and local fleets run {ARCH} only; choose an image of that architecture"


def _listen(fleet: FleetSpec, fronts: Collection[int]) -> Iterator[str]:
    where = f"fleet.{fleet.name}.listen"
    if fleet.listen is None:
        yield f'{where} is missing; say where the fleet is reached, such as "127.0.0.1:8080"'
        return
    host, _, port = fleet.listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit() or not 0 < int(port) < 65536 or not host:
        yield f'{where}: {fleet.listen!r} is no HOST:PORT; such as "127.0.0.1:8080"'
        return
    why = _why_not_bound(host, int(port), fronts)
    if why is not None:
        yield f"{where}: {fleet.listen} cannot be had: {why}"


def _why_not_bound(host: str, port: int, fronts: Collection[int]) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
            one.listen(1)
        except PermissionError:
            return "this user may not listen there; choose a port of 1024 or more"
        except OSError as error:
            if error.errno == 98:
                holder = _holder(port)
                if holder in fronts:
                    return None
                return f"{_called(holder)} listens there; end it, or choose another port"
            return f"{error.strerror}; choose an address of this host"
    return None


def _holder(port: int) -> int | None:
    """Which process listens on a port, where we may see that."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(link.readlink()) in inodes for link in (folder / "fd").iterdir()):
                return int(folder.name)
    return None


def _called(pid: int | None) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (process {pid})"
    except OSError:
        return "another program"


def _memory(fleet: FleetSpec, running: int) -> Iterator[str]:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    free_mib = int(found.group(1)) // 1024 if found else 0
    needed_mib = max(0, fleet.max - running) * fleet.memory_mib
    if found and needed_mib > free_mib:
        yield (
            f"{fleet.max} instances of {fleet.memory_mib} MiB want {needed_mib} MiB more, and {free_mib} MiB are free; "
            f"lower fleet.{fleet.name}.max or memory_mib"
        )


def _folder(folder: Path) -> Iterator[str]:
    if len(os.fsencode(folder)) > _PATH_BYTES:
        yield f"the fleet's folder has a path of more than {_PATH_BYTES} bytes; move the factory to a shorter one"
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        yield f"{above} cannot be written by this user; make it yours, or run the fleet as its owner"
    elif shutil.disk_usage(above).free < 256 << 20:
        yield f"less than 256 MiB are free on the disk of {above}; make room"


def _external(fleet: FleetSpec) -> Iterator[str]:
    total = 0
    for external in fleet.external:
        where = f"fleet.{fleet.name}: external state {external.name}"
        if not _EXTERNAL.match(external.name):
            # A credential with a dot means something to systemd: keys, passwords, files to write.
            yield f"{where}: a name may have letters, digits, - and _ only; choose another one"
        if external.path is None:
            yield f"{where} has no path; name a file of mode 0600 with its value"
        else:
            with suppress(OSError):  # `spec.file_faults` says what is wrong with a file
                total += Path(external.path).stat().st_size
    if total > _SECRET_BYTES:
        yield f"the external state of fleet {fleet.name} has more than {_SECRET_BYTES >> 10} KiB; keep it shorter"


def _health(fleet: FleetSpec) -> Iterator[str]:
    probe = fleet.health.http
    if probe is not None:
        for name, text in (("path", probe.path), ("body", probe.body or "")):
            if any(not char.isprintable() for char in text) or (name == "path" and " " in text):
                yield f"fleet.{fleet.name}.health.http.{name} has a character that HAProxy cannot be told; leave it out"
