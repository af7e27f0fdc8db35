"""Verification of one artifact, from its digest to the verdict. Reads the artifact, never writes it.

Invariants: the artifact is opened read-only below a throw-away overlay; the guest dies with our thread; a report is
made only when every stage was reached; what cannot be observed is an error, never a pass; no secret is left in what
we return, raise or keep.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

from factory import digest as digests
from factory.digest import Digest
from factory.disk import manifest
from factory.disk.manifest import Entry
from factory.errors import BootError, FactoryError, ToolError, VerifyError
from factory.redact import Redactor
from factory.verify import boot_image, built_in, checks, disk_state, needles, report
from factory.verify.guest_state import SETTLE_SCRIPT, STATE_SCRIPT, GuestState, parse
from factory.verify.needles import Finding
from factory.verify.report import Case, VerifyReport
from factory.verify.request import GuestRequest, VerifyRequest
from factory.vm.entry import PLACED
from factory.vm.guest import Started
from factory.vm.machine import Machine
from factory.vm.session import Session, open_session

Progress = Callable[[str], None]
"""Told what happens now, in a few words."""


class _Clock:
    """How long each stage took."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent[name] = time.monotonic() - began


def verify(
    request: VerifyRequest, on_start: Started | None = None, progress: Progress = lambda _: None
) -> VerifyReport:
    """Boot the artifact, run its checks and the built-in ones; the report, passed or not.

    Raises BootError where the guest does not come up, SpecError for an exemption that names no check or a secret too
    short to look for, VerifyError where the checks cannot be run at all.
    """
    wanted = needles.needles(request.secrets)
    redact = redactor(request.secrets)
    try:
        try:
            return _verify(request, wanted, redact, on_start, progress)
        except BootError:
            if not has_stalled(request):
                raise
        progress("booting once more: the emulator stood still")
        return _verify(request, wanted, redact, on_start, progress)
    except FactoryError as error:
        error.message = redact(error.message)
        error.args = (error.message,)
        raise
    finally:
        strike(request.logs / "junit.xml", redact)
        strike(request.logs / "console.log", redact)


def _verify(
    request: VerifyRequest,
    wanted: list[needles.Needle],
    redact: Redactor,
    on_start: Started | None,
    progress: Progress,
) -> VerifyReport:
    clock = _Clock()
    began = time.monotonic()
    request.logs.mkdir(parents=True, exist_ok=True)
    junit = request.logs / "junit.xml"
    junit.unlink(missing_ok=True)
    with clock.stage("hash"):
        before = digests.of_file(request.artifact)
    sealed = manifest.loads(request.manifest.read_bytes())
    suite = checks.stage(request.checks, request.skip_checks, request.work / "checks")
    try:
        progress("booting")
        with open_session(request.way, lambda *entry: machine_of(request, *entry), request.work, on_start) as session:
            with clock.stage("collect"):
                collected = checks.collect(suite, built_in.NAMES)
            boot_s = session.wait(request.boot_deadline_s)
            progress("checking")
            with clock.stage("settle"):
                session.run(SETTLE_SCRIPT)
            with clock.stage("checks"):
                cases = checks.run(suite, collected, session.ssh_config, junit, timeout_s=request.checks_timeout_s)
            with clock.stage("state"):
                state = _state(session)
            failed = any(case.outcome == "failed" for case in cases)
            picture = session.guest.screenshot(request.logs / "screen.png") if failed else None
        progress("comparing")
        strike(junit, redact)
        _keep_console(request)
        cases += _built_in(request, clock, sealed, state, wanted, before)
        cases = [replace(case, name=redact(case.name), message=redact(case.message)) for case in cases]
    except BootError as error:
        raise _kept(request, error) from error
    finally:
        console = _keep_console(request)
        _tidy(request.work)
    report.add_to_junit(junit, [case for case in cases if case.owner == report.BUILT_IN_OWNER])
    return VerifyReport(
        passed=not any(case.outcome == "failed" for case in cases),
        cases=tuple(cases),
        junit=junit,
        console=console,
        screenshot=picture,
        accelerator=request.accelerator,
        boot_s=boot_s,
        duration_s=time.monotonic() - began,
        timings_s=tuple(clock.spent.items()),
    )


def machine_of(request: GuestRequest, credential: Path | None, seed: Path | None) -> Machine:
    """The machine that boots the request's artifact, given its way in."""
    return Machine(
        disk=request.artifact,
        disk_format=request.format,
        folder=request.work,
        accelerator=request.accelerator,
        memory_mib=request.memory_mib,
        cpus=request.cpus,
        ports=request.forward,
        credentials=() if credential is None else (credential,),
        seed=seed,
    )


def _state(session: Session) -> GuestState:
    try:
        return parse(session.run(STATE_SCRIPT).text)
    except (ToolError, ValueError) as error:
        raise VerifyError(
            f"the guest could not be asked about its units and ports: {error}",
            where=f"serial log: {session.guest.machine.console}",
        ) from error


def _built_in(
    request: VerifyRequest,
    clock: _Clock,
    sealed: list[Entry],
    state: GuestState,
    wanted: list[needles.Needle],
    before: Digest,
) -> list[Case]:
    overlay = request.work / "overlay.qcow2"
    with clock.stage("unpack"):
        raw = disk_state.to_raw(request.artifact, request.format, request.work / "artifact.raw")
    with clock.stage("sealed"):
        unsealed = disk_state.unsealed(raw, sealed, request.facts)
    with clock.stage("compare"):
        changes = disk_state.changes(overlay, raw, sealed, request.work)
        unallowed = disk_state.judge(changes, request.state, PLACED[request.way.kind])
        elsewhere = disk_state.outside_root(disk_state.written(overlay), raw)
    with clock.stage("secrets"):
        findings = _secrets(request, wanted, raw)
    with clock.stage("rehash"):
        after = digests.of_file(request.artifact)
    spent = clock.spent
    found = (
        (built_in.SEALED, unsealed, spent["sealed"]),
        (built_in.SECRETS, built_in.secrets(findings), spent["secrets"]),
        (built_in.UNITS, built_in.units(state), spent["state"]),
        (built_in.PORTS, built_in.ports(state, request.ports), 0.0),
        (built_in.STATE, built_in.written(unallowed, elsewhere), spent["compare"]),
        (built_in.UNCHANGED, built_in.unchanged(request.digest, before, after), spent["hash"] + spent["rehash"]),
    )
    cases = [built_in.case(name, problems, request.skip_checks, took) for name, problems, took in found]
    return [built_in.not_looked_for(case, request.secrets_not_given) for case in cases]


def _secrets(request: VerifyRequest, wanted: list[needles.Needle], raw: Path) -> list[Finding]:
    """Where secrets are: in the disk's raw content, inside its initial ramdisks, in files of this host."""
    if not wanted:
        return []
    found = needles.in_file(wanted, raw, "the disk")
    for name, content in boot_image.initrds(raw, request.work):
        found += needles.in_bytes(wanted, content, name)
    for path in files_in((*request.host_files, request.logs)):
        found += needles.in_file(wanted, path, str(path))
    return found


def files_in(places: Iterable[Path]) -> list[Path]:
    """The files among `places` and in the folders among them, each once."""
    found = (path for place in places for path in (place, *place.rglob("*")) if path.is_file())
    return sorted(set(found))


def redactor(secrets: Mapping[str, bytes]) -> Redactor:
    """What strikes the secrets, written plainly or as XML escapes them."""
    values = {name: value.decode("utf-8", "replace") for name, value in secrets.items()}
    in_text = {f"{name} in text": escape(value) for name, value in values.items()}
    escapes = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#09;"}
    in_attributes = {f"{name} in attributes": escape(value, escapes) for name, value in values.items()}
    return Redactor({**values, **in_text, **in_attributes})


def strike(log: Path, redact: Redactor) -> None:
    """Strike the secrets from a log, where there is one."""
    if log.exists():
        text = log.read_bytes().decode("utf-8", "surrogateescape")
        if (struck := redact(text)) != text:
            log.write_bytes(struck.encode("utf-8", "surrogateescape"))


def has_stalled(request: VerifyRequest) -> bool:
    """Whether an emulated guest stood still inside its kernel, before anything of the image ran.

    QEMU's emulation of several processors (7.2) does so once in a great while on a busy host. Judged by the console:
    the kernel had begun, did not panic, and never came to start the first program.
    """
    with suppress(OSError):
        console = (request.logs / "console.log").read_bytes()
        later = (b"Kernel panic", b"Run /init", b"systemd[1]")
        is_inside = b"Linux version" in console and not any(word in console for word in later)
        return is_inside and request.accelerator.startswith("tcg")
    return False


def _keep_console(request: VerifyRequest) -> Path:
    """The serial log, moved to the folder of logs."""
    kept = request.logs / "console.log"
    source = request.work / "console.log"
    if source.exists():
        shutil.move(source, kept)
    return kept


def _kept(request: VerifyRequest, error: BootError) -> BootError:
    """The same error, naming the logs where they are kept."""
    picture = request.work / "screen.png"
    named = f"serial log: {request.logs / 'console.log'}"
    if picture.exists():
        shutil.move(picture, request.logs / "screen.png")
        named += f", screenshot: {request.logs / 'screen.png'}"
    return BootError(error.message, where=named, hint=error.hint)


def _tidy(work: Path) -> None:
    """Remove what is large; the caller removes the folder."""
    for name in ("overlay.qcow2", "artifact.raw", "root.raw", "efivars.fd"):
        (work / name).unlink(missing_ok=True)
