"""The only place that starts a process.

A child gets an environment rebuilt from a list, no standard input unless some is given, and dies with the thread that
started it (`setpriv --pdeathsig`), so that kill -9 of the factory leaves nothing running. The exception is `detach`:
what a fleet is made of outlives the factory, in a session of its own. A failure is printed as a command line that can
be pasted. Secrets travel in `env` or files, never in `argv`.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from factory.errors import InterruptedRunError, MissingToolError, ToolError

PIPE = subprocess.PIPE
Process = subprocess.Popen[bytes]
TimeoutExpired = subprocess.TimeoutExpired

_guard = threading.Lock()
_live: set[subprocess.Popen[bytes]] = set()
_stopping = False

_BEGINS_S = 5.0

MARKER = "FACTORY_RUN"
"""Every process of a run has its folder in this variable, so that the next run can tell whose a stray one is."""

_KEPT_VARIABLES = (
    MARKER,
    "HOME",
    "LOGNAME",
    "PATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "USER",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGE_OF_TOOL = {
    "debugfs": "e2fsprogs",
    "haproxy": "haproxy",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "objcopy": "binutils",
    "packer": "packer",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "sfdisk": "fdisk",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
    "unshare": "util-linux",
    "xorriso": "xorriso",
}
"""The Debian package that brings each program we call."""


@dataclass(frozen=True)
class Completed:
    """How a process ended: its exit code (negative: the signal) and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment a child gets: the kept variables, a fixed locale, `extra` on top."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    path = kept.get("PATH", "")
    kept["PATH"] = f"{path}:{_SYSTEM_PATH}" if path else _SYSTEM_PATH
    return {**kept, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(extra or {})}


def find(tool: str) -> str:
    """The path of an installed program; MissingToolError names the package that brings it."""
    found = shutil.which(tool, path=environment()["PATH"])
    if found is None:
        package = PACKAGE_OF_TOOL.get(tool, tool)
        raise MissingToolError(
            f"the program {tool} is not installed",
            hint=f"install it: apt-get install {package} (factory doctor lists all that is missing)",
            where=tool,
        )
    return found


def paste(argv: Sequence[str]) -> str:
    """`argv` as a command line for a shell."""
    return shlex.join(argv)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    timeout_s: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end.

    `stdin`: bytes or an open file to read; `stdout`: an open file to write, None captures it. Raises
    MissingToolError, and ToolError when `check` is set and the program fails, or when it takes longer than
    `timeout_s` (it is killed then).
    """
    process = _start(
        argv,
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.PIPE if isinstance(stdin, bytes) else (stdin or subprocess.DEVNULL),
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"{argv[0]} did not end within {timeout_s:g} s", where=paste(argv), hint="run it by hand to see why"
        ) from error
    finally:
        end(process)
    completed = Completed(process.returncode, out or b"", err)
    if check and completed.code != 0:
        raise failure(argv, completed)
    return completed


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_start: Callable[[int], None] | None = None,
) -> int:
    """Run a program and give each line of its output (both streams, no newline) to `on_line`; its exit code.

    `on_start` gets the process id. If `on_line` raises (or the user interrupts), the process is ended first.
    """
    process = spawn(argv, env=env, cwd=cwd, stdout=subprocess.PIPE)
    try:
        if on_start is not None:
            on_start(process.pid)
        assert process.stdout is not None
        for raw in process.stdout:
            on_line(raw.decode("utf-8", "replace").rstrip("\r\n"))
        return process.wait()
    finally:
        end(process)


def attach(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program on the user's own terminal, to its end; its exit code."""
    process = _start(argv, env=environment(env))
    try:
        return process.wait()
    finally:
        end(process)


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program and come back at once; standard error goes where `stdout` goes. End it with `end`.

    It dies with the *thread* that called this, so that thread must outlive it.
    """
    return _start(argv, env=environment(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=subprocess.STDOUT)


def detach(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> int:
    """Start a program that outlives us, and come back with its process id.

    It leads a session of its own, is nobody's child (so no zombie is left when it ends), belongs to no run that the
    reaper could clean up after, and appends what it prints to `log`. It has begun then, so that `marked` finds it: a
    process shows no environment while one program takes another's place. Whether it came up is for the caller to find
    out. Raises MissingToolError. Killed in the middle of this, we leave either nothing or the whole program behind:
    `env` is what it can be found by.
    """
    with log.open("ab") as file:
        os.fchmod(file.fileno(), 0o600)
    # In the background of a shell without job control no process leads a group, so setsid need not fork: $! is its own.
    script = f'unset {MARKER}; log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'
    started = run(["/bin/sh", "-c", script, "sh", str(log), find(argv[0]), *argv[1:]], env=env, cwd=cwd)
    pid, ends_at = int(started.text), time.monotonic() + _BEGINS_S
    while not _has_begun(pid, script) and time.monotonic() < ends_at:
        time.sleep(0.002)
    return pid


def _has_begun(pid: int, script: str) -> bool:
    """Whether a process is the program itself by now, neither the shell nor setsid on the way to it; or is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
        is_shown = bool((folder / "environ").read_bytes())
    except OSError:
        return True
    return is_shown and words[0] not in (b"", b"setsid") and script.encode() not in words


def end(process: subprocess.Popen[bytes], grace_s: float = 5) -> None:
    """End a process started by `spawn`: SIGTERM, then SIGKILL after `grace_s`; nothing if it has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    with _guard:
        _live.discard(process)


def stop_all() -> None:
    """End every process of this program and let none start any more: the user has interrupted. Any thread may call."""
    global _stopping
    with _guard:
        _stopping = True
        running = list(_live)
    for process in running:
        if process.poll() is None:
            process.terminate()


def identity(pid: int) -> str | None:
    """What tells a process from a later one with the same number: its start time since boot. None: it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def marked(variable: str) -> Iterator[tuple[int, str]]:
    """(process id, value) of every running process of ours that was started with `variable` in its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        value = mark(int(folder.name), variable)
        if value is not None:
            yield int(folder.name), value


def mark(pid: int, variable: str) -> str | None:
    """The value of a variable that a process was started with; None where it has none, is gone, or not ours to see."""
    wanted = variable.encode() + b"="
    try:
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((os.fsdecode(one[len(wanted) :]) for one in given if one.startswith(wanted)), None)


def kill(pid: int, is_it: Callable[[], bool], wait_s: float = 10) -> bool:
    """SIGKILL a process that `is_it` still says is the right one, asked when its number cannot be given anew any more.

    Whether it is gone after at most `wait_s` seconds.
    """
    return _await(pid, is_it, wait_s, signal.SIGKILL)


def tell(pid: int, is_it: Callable[[], bool], what: signal.Signals) -> None:
    """Send a signal to a process that `is_it` still says is the right one, asked as `kill` does; nothing if it is gone.
    Comes back at once."""
    _await(pid, is_it, 0, what)


def await_end(pid: int, is_it: Callable[[], bool], wait_s: float) -> bool:
    """Whether a process (of which `is_it` says that it is the right one) has ended after at most `wait_s` seconds."""
    return _await(pid, is_it, wait_s, None)


def _await(pid: int, is_it: Callable[[], bool], wait_s: float, send: signal.Signals | None) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not is_it():
            return True
        if send is not None:
            signal.pidfd_send_signal(descriptor, send)
        return bool(select.select([descriptor], [], [], wait_s)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def failure(argv: Sequence[str], completed: Completed, *, lines: int = 12) -> ToolError:
    """The error for a program that failed: its last lines, and the command to paste."""
    said = (completed.stderr + b"\n" + completed.stdout).decode("utf-8", "replace").strip().splitlines()
    tail = "\n".join(said[-lines:])
    return ToolError(
        f"{argv[0]} failed with exit code {completed.code}" + (f":\n{tail}" if tail else ""),
        where=paste(argv),
    )


def _start(argv: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    leashed = _leashed(argv)
    with _guard:
        if _stopping:
            raise InterruptedRunError("interrupted")
        process = subprocess.Popen(leashed, **how)
        _live.add(process)
    return process


def _leashed(argv: Sequence[str]) -> list[str]:
    # setpriv asks for the signal only once it runs: whoever died before that is noticed by having been replaced.
    guard = ["/bin/sh", "-c", 'test "$PPID" = "$0" || exit 125; exec "$@"', str(os.getpid())]
    return [find("setpriv"), "--pdeathsig", "KILL", "--", *guard, find(argv[0]), *argv[1:]]
