"""Verification as the bake, `factory verify` and `factory boot` ask for it: a request from spec, lock and store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from factory import namespace
from factory.bake import key
from factory.bake.parents import artifact_of
from factory.bake.session import Session
from factory.catalog import events
from factory.digest import Digest
from factory.disk import formats
from factory.disk.seal import SealFacts
from factory.errors import VerifyError
from factory.model import ImageSpec, LockedImage
from factory.verify import boot_image, built_in
from factory.verify import report as reports
from factory.verify.checks import Checks
from factory.verify.report import VerifyReport
from factory.verify.request import VerifyRequest
from factory.verify.run import verify as run_verification
from factory.vm.accel import accelerator, host_kernel
from factory.vm.session import Way
from factory.vm.way import way_into


class LeakError(VerifyError):
    """A secret of the bake was found where none may be."""


@dataclass(frozen=True)
class Subject:
    """What is verified: an image as images.toml describes it, and the stored bytes that are to be it.

    `work`: a folder for the guest, made and removed by us; `way`: how to get into its guests, where the caller knows;
    `secrets`: values that must not be found.
    """

    image: ImageSpec
    locked: LockedImage
    logs: Path
    work: Path
    way: Way | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def verify(session: Session, subject: Subject) -> VerifyReport:
    """Boot the stored artifact, run every check; note them in the catalog. Raises VerifyError where one fails."""
    name = subject.image.name
    with request_for(session, subject) as request:
        report = run_verification(
            request,
            lambda pid, _: session.run.process(f"{name}-{subject.image.arch}", pid),
            lambda doing: session.listener.detail(name, doing),
        )
    note_checks(session, subject, report)
    if not report.passed:
        leaked = any(case.name == built_in.SECRETS for case in report.failures)
        raise (LeakError if leaked else VerifyError)(
            reports.render(report),
            where=str(report.junit),
            hint=f"factory logs {session.run.id} {name}; nothing was recorded",
        )
    return report


@contextmanager
def request_for(session: Session, subject: Subject) -> Iterator[VerifyRequest]:
    """The request to verify or boot `subject`, with a private folder that is gone afterwards."""
    image, locked, layout = subject.image, subject.locked, session.layout
    work = subject.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)
    try:
        artifact, format_ = artifact_of(session.store, locked)
        way = subject.way or way_of(artifact, format_, work)
        yield VerifyRequest(
            name=image.name,
            artifact=artifact,
            format=format_,
            digest=Digest(locked.artifacts[format_]),
            manifest=session.store.path(locked.tree),
            work=work,
            logs=subject.logs,
            accelerator=accelerator(layout.cache, lambda: _kernel(artifact, format_, work)),
            facts=SealFacts(image.name, locked.bake_key, started_at=0),
            way=way,
            checks=tuple(checks_of(session, image)),
            skip_checks=image.skip_checks,
            state=image.state,
            ports=image.ports,
            secrets={name: value.encode() for name, value in subject.secrets.items()},
            secrets_not_given=tuple(name for name in image.secrets if name not in subject.secrets),
            host_files=tuple(_host_files(session)),
        )
    finally:
        namespace.remove(work)


def checks_of(session: Session, image: ImageSpec) -> Iterator[Checks]:
    """The checks an image must pass: its ancestors' first, then its own; a role that several bring runs once."""
    root, seen = session.layout.root, set[Path]()
    lineage = [image]
    while lineage[0].layered:
        lineage.insert(0, session.factory.images[lineage[0].base])
    for owner in lineage:
        for folder in key.check_folders(root, owner):
            if folder not in seen:
                seen.add(folder)
                yield Checks(owner.name, folder, str(folder.relative_to(root)))


def note_checks(session: Session, subject: Subject, report: VerifyReport) -> None:
    """Write how each check went into the catalog."""
    checks = [
        events.Check(
            f"{case.owner}: {case.name}", case.outcome, case.duration_s, case.message, case.outcome == "exempt"
        )
        for case in report.cases
    ]
    events.add_checks(session.catalog, session.run.id, (subject.image.name, subject.image.arch), checks)


def _kernel(artifact: Path, format_: str, work: Path) -> Path | None:
    """A kernel to try KVM with: the host's, else the image's own."""
    found = host_kernel()
    if found is not None:
        return found
    with _raw(artifact, format_, work) as raw:
        return boot_image.kernel(raw, work)


def way_of(artifact: Path, format_: str, work: Path) -> Way:
    """How to get into guests of a disk."""
    with _raw(artifact, format_, work) as raw:
        return way_into(raw)


@contextmanager
def _raw(artifact: Path, format_: str, work: Path) -> Iterator[Path]:
    """The raw content of an artifact: itself, or a copy that is gone afterwards."""
    if format_ == "raw":
        yield artifact
        return
    raw = work / "unpacked.raw"
    try:
        formats.to_raw(artifact, format_, raw)
        yield raw
    finally:
        raw.unlink(missing_ok=True)


def _host_files(session: Session) -> Iterator[Path]:
    """The files and folders of this host in which a secret of the bake must not be found."""
    layout = session.layout
    yield from (layout.lock, layout.catalog, layout.catalog.with_name("catalog.db-wal"))
    yield session.run.folder
