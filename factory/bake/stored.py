"""What is done with one image that is baked already: verify it again, boot it, fetch its bytes. None alters it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from factory import lockfile, namespace, spec, stores
from factory.bake import checking, journal, reaper, secrets
from factory.bake.options import Listener, Options
from factory.bake.scratch import scratch
from factory.bake.session import Session
from factory.bases.disk import disk_format
from factory.digest import Digest, is_digest
from factory.errors import FactoryError, UsageError
from factory.model import FactorySpec, ImageSpec, Layout, LockedImage
from factory.store import Store
from factory.verify import shell
from factory.verify.report import VerifyReport
from factory.verify.request import GuestRequest
from factory.vm.accel import accelerator


def find(layout: Layout, name: str) -> tuple[FactorySpec, ImageSpec, LockedImage]:
    """The image that NAME, NAME/ARCH or a digest names, and its lock entry. Raises UsageError."""
    factory, lock = spec.load(layout.root), lockfile.read(layout.lock)
    if is_digest(name):
        for (image_name, _), locked in lock.images.items():
            if locked.digest == name and image_name in factory.images:
                return factory, factory.images[image_name], locked
        raise UsageError(
            f"no image in images.lock has the digest {name}", where="images.lock", hint="give its name instead"
        )
    image = spec.find(factory, name)
    found = lock.images.get((image.name, image.arch))
    if found is None:
        raise UsageError(f"{image.name} was never baked", where="images.lock", hint=f"factory bake {image.name}")
    return factory, image, found


def verify(layout: Layout, name: str, listener: Listener) -> VerifyReport:
    """Boot the stored artifact and run its checks again. Raises VerifyError where one fails, BootError, StoreError."""
    factory, image, locked = find(layout, name)
    with _session(layout, factory, listener, f"verify {name}") as session:
        id_ = f"{image.name}-{image.arch}"
        with journal.image_lock(layout, id_, wait=True):
            listener.stage(image.name, "verify")
            logs = session.run.logs(id_)
            values: dict[str, str] = {}
            with contextlib.suppress(UsageError):  # not given: then `secrets-absent` says that it could not look
                values = secrets.read(layout, image)
            guest = layout.work / id_ / "verify"
            report = checking.verify(session, checking.Subject(image, locked, logs, guest, secrets=values))
        listener.done(image.name, "verified")
        return report


def boot(layout: Layout, name: str, say: shell.Say, ready: shell.Ready) -> None:
    """A disposable guest to look around in until it ends or the user interrupts. Raises BootError, StoreError.

    `ready` is told the session once the guest can be entered. `name` may also be the path of a disk (with a `/`), such
    as the one that a failed bake kept.
    """
    if "/" in name and Path(name).is_file():
        _boot_disk(layout, Path(name).resolve(), say, ready)
        return
    factory, image, locked = find(layout, name)
    with _session(layout, factory, _Quiet(), f"boot {name}") as session:
        logs = session.run.logs(f"{image.name}-{image.arch}")
        subject = checking.Subject(image, locked, logs, session.run.folder / reaper.GUEST)
        with checking.request_for(session, subject) as request:
            request = replace(request, forward=tuple(sorted({22, *image.ports})))
            shell.look(request, say, lambda pid, _: session.run.process(image.name, pid), ready)


def _boot_disk(layout: Layout, disk: Path, say: shell.Say, ready: shell.Ready) -> None:
    with journal.Run(layout, f"boot {disk.name}") as run:
        reaper.reap(layout)
        work = run.folder / reaper.GUEST
        work.mkdir(mode=0o700)
        with contextlib.ExitStack() as stack:
            stack.enter_context(scratch(run))
            stack.callback(namespace.remove, work)
            format_ = disk_format(disk, layered=True)
            request = GuestRequest(
                name=disk.name,
                artifact=disk,
                format=format_,
                work=work,
                accelerator=accelerator(layout.cache),
                way=checking.way_of(disk, format_, work),
            )
            shell.look(request, say, lambda pid, _: run.process(disk.name, pid), ready)


def fetch(layout: Layout, name: str) -> dict[str, Path]:
    """The locked artifacts of an image, fetched from the shared store where they are not here. Raises StoreError."""
    factory, _, locked = find(layout, name)
    store = Store(layout.store)
    files = {place: Digest(native) for place, native in locked.artifacts.items() if is_digest(native)}
    missing = [wanted for wanted in (*files.values(), locked.tree) if not store.has(wanted)]
    if missing:
        if factory.store_url is None:
            raise UsageError(
                "there is nowhere to fetch from: images.toml names no store",
                where="images.toml: store.url",
                hint=f'add [store] url = "file:…" or "https:…", or bake it here: factory bake {name}',
            )
        shared = stores.connect(factory.store_url)
        for wanted in missing:
            stores.fetch(store, shared, wanted)
    return {place: store.verify(native) for place, native in files.items()}


@contextmanager
def _session(layout: Layout, factory: FactorySpec, listener: Listener, command: str) -> Iterator[Session]:
    with journal.Run(layout, command) as run:
        reaper.reap(layout)
        with Session.open(layout, factory, run, listener, Options(command=command)) as session:
            try:
                yield session
            except FactoryError as error:
                session.finish(error.exit_code)
                raise
            session.finish(0)


class _Quiet:
    """A listener for commands that speak for themselves."""

    def stage(self, image: str, stage: str) -> None: ...

    def detail(self, image: str, detail: str) -> None: ...

    def done(self, image: str, status: str, detail: str = "") -> None: ...

    def note(self, text: str) -> None: ...
