"""Makes a tree look like a booted machine to the roles that provision it, for as long as one process lives.

Runs as (mapped) root in namespaces of its own (`factory.namespace`): `python -m factory.builders.tree_env REQUEST.json`
mounts /proc, /sys, /dev, /run and /tmp, lends the tree a resolver, a hostname, a machine-id, SSH host keys and a
policy-rc.d, runs the request's command, and takes back what it lent. Mounts vanish with the process whatever happens;
lent files that a kill leaves behind do no harm, as the seal removes them too. What a role changed stays the role's.

It guards the host against accidents: /sys is read-only, /proc/sys is a copy in memory (so that `sysctl -w` works and
changes nothing), and the capabilities that load modules, set clocks or reboot are gone. It is no security boundary
(/proc/1/root leads to the host): roles are trusted.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from factory import namespace, proc
from factory.errors import ProvisionError

_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "ptmx": "pts/ptmx",
    "stderr": "/proc/self/fd/2",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
}
_FORBIDDEN = ("sys_boot", "sys_module", "sys_rawio", "sys_time", "syslog")
_POLICY_RC_D = b"#!/bin/sh\n# A tree has no init: services are enabled here and start when the image boots.\nexit 101\n"
_RESOLVED = ("systemd/resolve/resolv.conf", "systemd/resolve/stub-resolv.conf", "resolvconf/resolv.conf")


@dataclass(frozen=True)
class TreeRequest:
    """A command to run beside a tree that is made to look booted. `files`: lent to the tree, path -> text.

    `env`: what the command finds in its environment, above what every process of ours gets.
    `interactive`: the command gets the user's terminal.
    """

    tree: str
    hostname: str
    command: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    interactive: bool = False


@dataclass(frozen=True)
class Lent:
    """A file lent to the tree; it is taken back unless the role has written another in its place."""

    path: Path
    content: bytes
    before: bytes | None  # None: there was none


def command(request: Path) -> list[str]:
    """The command that carries out the request in `request`, wrapped in its namespaces."""
    dropped = ",".join(f"-{name}" for name in _FORBIDDEN)
    return namespace.command(
        ["setpriv", f"--bounding-set={dropped}", "--", *namespace.python("factory.builders.tree_env", str(request))]
    )


def write_request(path: Path, request: TreeRequest) -> None:
    """Write `request` for `command`."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(request), indent=1))


def run(request: TreeRequest) -> int:
    """Mount, lend, run the command, take back; the command's exit code."""
    tree = Path(request.tree)
    Path("/proc/self/comm").write_text("systemd")  # we are process 1 here, and Ansible asks for its name
    proc.run(["hostname", request.hostname])
    _mount(tree)
    lent = [_lend(tree, path, content, mode) for path, content, mode in _loans(tree, request)]
    keys = _host_keys(tree)
    try:
        if request.interactive:
            return proc.attach(request.command, env={"HOME": "/root", **request.env})
        return proc.stream(
            request.command,
            lambda line: print(line, flush=True),  # noqa: T201 - read by the builder
            env=request.env,
        )
    finally:
        for loan in lent:
            _take_back(loan)
        for key in keys:
            key.unlink(missing_ok=True)


def _mount(tree: Path) -> None:
    def mount(*args: str) -> None:
        proc.run(["mount", *args])

    mount("--make-rslave", "/")
    mount("--bind", str(tree), str(tree))
    for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
        _refuse_links_out(tree, tree / name)
        (tree / name).mkdir(exist_ok=True)
    mount("--rbind", "/proc", str(tree / "proc"))
    _copy_sysctls(tree / "proc/sys")
    mount("--rbind", "/sys", str(tree / "sys"))
    mount("-o", "remount,bind,ro", str(tree / "sys"))
    for below in _mounts_below((tree / "sys").resolve(), Path("/proc/self/mountinfo").read_text()):
        proc.run(["mount", "-o", "remount,bind,ro", str(below)], check=False)  # some are hidden below others
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(tree / "dev"))
    for name in _DEVICES:
        (tree / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(tree / "dev" / name))
    for name, target in _DEVICE_LINKS.items():
        (tree / "dev" / name).symlink_to(target)
    for name, kind, options in (
        ("dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"),
        ("dev/shm", "tmpfs", "mode=1777"),
        ("run", "tmpfs", "mode=0755"),
        ("tmp", "tmpfs", "mode=1777"),
    ):
        (tree / name).mkdir(exist_ok=True)
        mount("-t", kind, "-o", options, kind, str(tree / name))
    (tree / "run/lock").mkdir(mode=0o1777)
    (tree / "run/sshd").mkdir(mode=0o755)  # `sshd -t`, which roles validate its configuration with, wants it


def _mounts_below(folder: Path, mountinfo: str) -> list[Path]:
    """The places below `folder` where something is mounted, from the kernel's table (proc(5): octal escapes)."""
    places = (
        re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in mountinfo.splitlines()
    )
    return [path for path in map(Path, places) if folder in path.parents]


def _copy_sysctls(target: Path) -> None:
    """A writable copy of the kernel's settings in memory, laid over the real ones."""
    settings: dict[Path, bytes] = {}
    source = Path("/proc/sys")
    for folder, _, names in os.walk(source):
        for path in (Path(folder, name) for name in names):
            try:
                settings[path.relative_to(source)] = path.read_bytes()
            except OSError:
                settings[path.relative_to(source)] = b""
    proc.run(["mount", "-t", "tmpfs", "-o", "mode=0555", "tmpfs", str(target)])
    for setting, value in settings.items():
        (target / setting).parent.mkdir(parents=True, exist_ok=True)
        (target / setting).write_bytes(value)


def _loans(tree: Path, request: TreeRequest) -> list[tuple[Path, bytes, int]]:
    resolver = Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else b""
    loans = [(Path(path), text.encode(), 0o644) for path, text in request.files.items()]
    loans += [
        (Path("etc/machine-id"), secrets.token_hex(16).encode() + b"\n", 0o444),
        (Path("usr/sbin/policy-rc.d"), _POLICY_RC_D, 0o755),
    ]
    (tree / "etc/hostname").unlink(missing_ok=True)  # a link would have us write where it leads
    (tree / "etc/hostname").write_text(request.hostname + "\n")  # the image's own from here on: not a loan
    for name in _RESOLVED:
        (tree / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "run" / name).write_bytes(resolver)
    if not (tree / "etc/resolv.conf").is_symlink():
        loans.append((Path("etc/resolv.conf"), resolver, 0o644))
    return loans


def _lend(tree: Path, path: Path, content: bytes, mode: int) -> Lent:
    target = tree / str(path).lstrip("/")
    _refuse_links_out(tree, target.parent)
    before = target.read_bytes() if target.is_file() and not target.is_symlink() else None
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    target.chmod(mode)
    return Lent(target, content, before)


def _refuse_links_out(tree: Path, folder: Path) -> None:
    """A folder of the tree that is a link to somewhere else would have us write to the host."""
    if not folder.resolve().is_relative_to(tree.resolve()):
        raise ProvisionError(f"{folder.relative_to(tree)} of the base leads out of it", where=str(folder))


def _take_back(loan: Lent) -> None:
    if loan.path.is_symlink() or not loan.path.is_file() or loan.path.read_bytes() != loan.content:
        return
    if loan.before is None:
        loan.path.unlink()
    else:
        loan.path.write_bytes(loan.before)


def _host_keys(tree: Path) -> list[Path]:
    """Make the SSH host keys a machine would have; the files made."""
    folder = tree / "etc/ssh"
    _refuse_links_out(tree, folder)
    if not folder.is_dir():
        return []
    before = set(folder.glob("ssh_host_*"))
    proc.run(["ssh-keygen", "-A", "-f", str(tree)])
    return sorted(set(folder.glob("ssh_host_*")) - before)


if __name__ == "__main__":
    sys.exit(run(TreeRequest(**json.loads(Path(sys.argv[1]).read_text()))))
