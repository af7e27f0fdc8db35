"""`factory export`: a bundle, the folder with all that `factory resolve --bundle` needs of one image, for an air gap.

What stands in it was judged before, as `resolve` judges, and is judged once more as it stands in the finished folder.
A bundle appears in one step, whole and on the disk, or not at all: it is built beside its place, in a folder that
nobody finds by accident, which the next export takes away where a killed one left it. Only what is listed here goes
in; nothing else of the factory's folder does. Never replaces anything.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from factory import files, lockfile
from factory.digest import Digest, is_digest
from factory.errors import FactoryError, UsageError
from factory.model import Layout, Lock, LockedImage
from factory.release import dossier, resolve, standing
from factory.release.resolve import Asked
from factory.store import Store
from factory.trust import heads, judgement, policy, ticket
from factory.trust.judgement import Papers, Verdict

_PART = ".part"


@dataclass(frozen=True)
class Bundle:
    """What was exported. `sbom` is the digest of its envelope; `good_until`: when its heads expire."""

    folder: Path
    name: str
    arch: str
    digest: Digest
    channel: str | None
    place: str
    artifact: str
    has_bytes: bool
    sbom: Digest
    policy: Digest
    good_until: datetime
    files: tuple[str, ...]


def export(layout: Layout, asked: Asked, to: Path, *, with_bytes: bool) -> Bundle:
    """Judge the image and write its bundle to the folder `to`, which is empty or not there.

    Raises UsageError (the folder), TrustError (the image), StoreError (its SBOM or bytes cannot be had), FactoryError.
    """
    to = to.absolute()
    _require_free(to)
    now = asked.now or datetime.now(UTC)
    locked = resolve.locate(layout, asked.name)
    chosen = resolve.choose_policy(layout, asked, now)
    papers = resolve.read_papers(layout, locked, asked.channel)
    verdict = judgement.judge(papers, chosen.policy, now, channel=asked.channel, place=asked.place)
    stored = _stored(layout, papers, verdict, with_bytes=with_bytes)
    with _built_beside(to) as part:
        _write(layout, Layout(part), papers, locked, asked.channel)
        store = Store(part / "store")
        for digest, source in stored.items():
            store.put_copy(source, expected=digest)
        (part / "store" / "incoming").rmdir()
        inside = asked._replace(policy=layout.policy, bundle=part, check_bytes=with_bytes, now=now, seen=None)
        resolve.resolve(layout, inside)
        names = tuple(sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file()))
    ends = [verdict.revocations.head, *([verdict.head.head] if verdict.head is not None else [])]
    return Bundle(
        folder=to,
        name=locked.name,
        arch=locked.arch,
        digest=verdict.image.digest,
        channel=asked.channel,
        place=verdict.artifact.place,
        artifact=verdict.artifact.native,
        has_bytes=with_bytes,
        sbom=verdict.image.sbom,
        policy=chosen.policy.digest,
        good_until=min(head.good_until(chosen.policy.fresh_days) for head in ends),
        files=names,
    )


def _stored(layout: Layout, papers: Papers, verdict: Verdict, *, with_bytes: bool) -> dict[Digest, Path]:
    """The files that go into the bundle's store, by digest; the SBOM's verified. Raises StoreError, TrustError."""
    found = ticket.loads(papers.tickets or b"")[verdict.image.digest]
    dossier.read_sbom(layout, found, verdict.authority)
    wanted = {verdict.image.sbom: dossier.file_of(layout, verdict.image.sbom, "the SBOM")}
    artifact = verdict.artifact
    if with_bytes and not is_digest(artifact.native):
        raise UsageError(
            f"{artifact.native} at {artifact.place} has no bytes to carry", where="--bytes", hint="leave --bytes out"
        )
    if with_bytes:
        native = Digest(artifact.native)
        wanted[native] = dossier.file_of(layout, native, f"the {artifact.place} artifact")
    return wanted


def _write(layout: Layout, bundle: Layout, papers: Papers, locked: LockedImage, channel: str | None) -> None:
    """The lock's entry and the papers: those that were judged, byte for byte, and the other channels' heads."""
    found: dict[Path, bytes | None] = {
        bundle.lock: lockfile.dumps(Lock(images={(locked.name, locked.arch): locked})).encode(),
        bundle.tickets / f"{locked.name}-{locked.arch}.jsonl": papers.tickets,
        bundle.revocations: papers.revocations,
        bundle.policy: standing.paper(layout, layout.policy, policy.MAX_BYTES),
        bundle.signed_policy: standing.paper(layout, layout.signed_policy, 2 * policy.MAX_BYTES),
    }
    for path in sorted(layout.channels.glob("*.dsse")):
        judged = papers.channel if path.stem == channel else None
        found[bundle.channels / path.name] = judged or standing.paper(layout, path, heads.MAX_BYTES)
    for path, raw in found.items():
        if raw is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, raw)


def _require_free(to: Path) -> None:
    """Refuse a place where something is, before any work is done. Raises UsageError."""
    if not to.parent.is_dir():
        raise UsageError(f"there is no folder {to.parent} to make it in", where="--to", hint=f"mkdir -p {to.parent}")
    if to.is_symlink() or (to.exists() and not to.is_dir()) or (to.is_dir() and any(to.iterdir())):
        raise _taken(to)


def _taken(to: Path) -> UsageError:
    return UsageError(
        f"{to} is there already, and is no empty folder: nothing is overwritten",
        where="--to",
        hint="name a new folder, or remove that one",
    )


@contextmanager
def _built_beside(to: Path) -> Iterator[Path]:
    """A new folder that becomes `to` when the block ends well, and else is removed. UsageError, FactoryError."""
    prefix = f".{to.name}."
    try:
        _take_away_left(to.parent, prefix)
        with _held_folder(to.parent, prefix) as part:
            try:
                built = part / "bundle"  # its mode is what the user's umask says; that of `part` is private
                built.mkdir()
                yield built
                _sync(built)
                _rename(built, to)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        files.sync_folder(to.parent)
    except OSError as error:
        raise FactoryError(
            f"the bundle cannot be written: {error.strerror or error}",
            where=str(to),
            hint="nothing is left there; is there room (df), and may you write there?",
        ) from error


@contextmanager
def _held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder, and a lock on it that says to `_take_away_left` that somebody is at it."""
    while True:
        part = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=_PART))
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # taken away before it was locked
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if part.exists():
                yield part
                return
        finally:
            os.close(descriptor)


def _sync(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        files.sync_folder(Path(path))


def _rename(built: Path, to: Path) -> None:
    """An empty folder is replaced, nothing else ever is."""
    try:
        built.rename(to)
    except (FileExistsError, NotADirectoryError) as error:
        raise _taken(to) from error
    except OSError as error:
        if to.is_dir() and any(to.iterdir()):
            raise _taken(to) from error
        raise


def _take_away_left(parent: Path, prefix: str) -> None:
    """Remove what killed exports to the same place left behind."""
    for left in parent.glob(f"{prefix}*{_PART}"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
