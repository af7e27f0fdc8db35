"""What the images of one run share: the proxy that apt goes through, the store, the catalog, the listener.

Opened only when there is something to do. Also the refresh of the pins, since that needs all of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factory import bases, lockfile, stores
from factory.apt.pins import AptEnv
from factory.apt.proxy import AptProxy
from factory.apt.questions import Repositories
from factory.apt.refresh import base_of, changed, refresh_pins
from factory.bake import journal
from factory.bake.options import Listener, Options
from factory.bake.scratch import scratch
from factory.bases import BaseContext, PreparedBase
from factory.catalog import events
from factory.catalog.database import Catalog
from factory.digest import Digest
from factory.errors import StoreError
from factory.model import BaseSpec, FactorySpec, ImageSpec, Layout, Lock, Package
from factory.release.signing import Signing
from factory.store import Store


@dataclass(frozen=True)
class Session:
    """One run's shared parts; every method may be called from several threads."""

    layout: Layout
    factory: FactorySpec
    run: journal.Run
    listener: Listener
    options: Options
    proxy: AptProxy
    store: Store
    catalog: Catalog
    signing: Signing

    @classmethod
    @contextmanager
    def open(
        cls, layout: Layout, factory: FactorySpec, run: journal.Run, listener: Listener, options: Options
    ) -> Iterator[Session]:
        """Open them; they are closed at the end, and the run is noted in the catalog."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(scratch(run))
            catalog = stack.enter_context(Catalog.open(layout.catalog))
            events.begin_run(catalog, run.id, run.command)
            proxy = stack.enter_context(AptProxy(layout.cache / "apt"))
            signing = Signing.open(layout, key=options.key, ask=options.ask, say=listener.note)
            yield cls(layout, factory, run, listener, options, proxy, Store(layout.store), catalog, signing)

    def finish(self, exit_code: int) -> None:
        """Note how the run ended."""
        events.end_run(self.catalog, self.run.id, exit_code)

    def lock(self) -> Lock:
        """images.lock as it is now."""
        return lockfile.read(self.layout.lock)

    def base_spec(self, image: ImageSpec) -> BaseSpec:
        """The base at the bottom of an image's layers."""
        return self.factory.bases[base_of(self.factory, image)]

    def repositories(self, image: ImageSpec) -> Repositories:
        """What can be asked about the repositories an image's packages come from."""
        base = self.base_spec(image)
        return Repositories(self.proxy.store, self.proxy.snapshot, base.arch, base.suite)

    def lent_files(self, pins: Sequence[Package]) -> Callable[[str], Mapping[str, str]]:
        """The files that make apt use our proxy and these pins, for a tree or guest that sees this host as `host`."""
        repository = self.proxy.offer_pins(pins) if pins else None

        def files(host: str) -> Mapping[str, str]:
            return AptEnv(self.proxy.url(host), tuple(pins), repository).files()

        return files

    def prepare_base(self, spec: BaseSpec, *, refresh: bool = False) -> PreparedBase:
        """The base as it is locked, or (refresh) as it is offered now; one thread or process at a time."""
        locked = self.lock().bases.get((spec.name, spec.arch))
        key = f"base_{spec.name}-{spec.arch}"  # no image is called so
        with journal.image_lock(self.layout, key, wait=True):
            context = BaseContext(self.layout.cache, self.layout.work / key, self.proxy, self.listener.note)
            return bases.prepare(spec, locked, context, refresh=refresh)

    def refresh(self, images: Sequence[ImageSpec]) -> list[str]:
        """Pin what is offered now for the bases of `images`, and say what that changed."""
        specs = {base_of(self.factory, image): self.base_spec(image) for image in images}
        return refresh_bases(self, list(specs.values()))

    def fetch(self, digest: Digest) -> Path | None:
        """A file of the store, fetched from the shared one where it is not here; None where it cannot be had."""
        if self.store.has(digest):
            return self.store.path(digest)
        if self.factory.store_url is None:
            return None
        try:
            return stores.fetch(self.store, stores.connect(self.factory.store_url), digest)
        except StoreError as error:
            self.listener.note(f"{digest[:19]}… is not to be had from the shared store: {error.message}")
            return None

    def share(self, digest: Digest) -> None:
        """Put a file of the store into the shared one, where images.toml names one that can be written."""
        url = self.factory.store_url
        if url is not None and url.startswith("file:"):
            stores.push(self.store, stores.connect(url), digest)


def refresh_bases(session: Session, specs: Sequence[BaseSpec]) -> list[str]:
    """Pin what the repositories offer now for these bases and the images on them; a line per changed package."""
    session.proxy.refresh()
    prepared = [session.prepare_base(spec, refresh=True) for spec in specs]

    def offered(base: str, names: Iterable[str]) -> Mapping[str, Package]:
        spec = session.factory.bases[base]
        return Repositories(session.proxy.store, session.proxy.snapshot, spec.arch, spec.suite).candidates(names)

    before = session.lock()
    locked_before = {(base.locked.name, base.locked.arch) for base in prepared} & before.bases.keys()

    def change(lock: Lock) -> Lock:
        return refresh_pins(lock, session.factory, [base.locked for base in prepared], offered)

    after = lockfile.update(session.layout.lock, session.layout.locks / "images.lock", change)
    if not locked_before:
        return [f"pinned {len(base.locked.packages)} packages of {base.locked.name}" for base in prepared]
    return [_line(*difference) for difference in changed(before, after)]


def _line(owner: str, before: Package | None, after: Package | None) -> str:
    if after is None:
        return f"{owner}: {before.name if before else ''} is gone"
    if before is None:
        return f"{owner}: {after.name} {after.version} is new"
    return f"{owner}: {after.name} {before.version} -> {after.version}"
