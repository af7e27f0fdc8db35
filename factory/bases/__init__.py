"""What a bake starts from. One file per kind; a new kind is one module and one line in `KINDS`.

`prepare` gives the base's tree as a tar (and the disk it came from, if any) and what images.lock is to say of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from factory import namespace
from factory.digest import Digest
from factory.errors import SpecError
from factory.model import BaseSpec, LockedBase

if TYPE_CHECKING:  # `recipe` alone is asked for by a bake with nothing to do, which must not load a web server
    from factory.apt.proxy import AptProxy
    from factory.apt.questions import Installed, Repositories

KINDS = {"debootstrap": "factory.bases.debootstrap", "disk": "factory.bases.disk"}
"""Kind -> its module, which holds it as `BASE`."""


@dataclass(frozen=True)
class BaseContext:
    """What a base is made with. `cache`: the factory's (trees/ and disks/ are made in it); `work`: a folder of this
    call's own, which it makes and removes; `say` takes one line of progress."""

    cache: Path
    work: Path
    proxy: AptProxy
    say: Callable[[str], None] = field(default=lambda line: None)

    def repositories(self, arch: str, suite: str | None = None) -> Repositories:
        """What can be asked about the repositories, as the proxy's snapshot has them."""
        from factory.apt.questions import Repositories

        return Repositories(self.proxy.store, self.proxy.snapshot, arch, suite)


@dataclass(frozen=True)
class PreparedBase:
    """A base at hand. `tree`: a tar, names relative to the root; `tree_digest`: of its manifest; `disk`: a raw or qcow2
    disk, never to be written to; `cached`: nothing had to be made. `locked.digest` may differ from what was asked for:
    the caller's to judge."""

    locked: LockedBase
    tree: Path
    tree_digest: Digest
    installed: tuple[Installed, ...]
    cached: bool
    disk: Path | None = None


class Base(Protocol):
    """A kind of base."""

    def recipe(self, spec: BaseSpec) -> Digest:
        """What, beyond its packages' versions, decides the tree: the spec and this kind's own way of making it."""
        ...

    def prepare(
        self, spec: BaseSpec, locked: LockedBase | None, context: BaseContext, *, refresh: bool
    ) -> PreparedBase:
        """The base as it is locked; with `refresh`, or not locked, as it is offered now.

        Raises BaseError; SpecError; LockMismatchError where what is locked can no longer be had.
        """
        ...


def prepare(spec: BaseSpec, locked: LockedBase | None, context: BaseContext, *, refresh: bool = False) -> PreparedBase:
    """The base of `spec`, by its kind: see `Base.prepare`. The work folder is empty before and gone after."""
    kind = kind_of(spec)
    namespace.remove(context.work)
    context.work.mkdir(parents=True)
    try:
        return kind.prepare(spec, locked, context, refresh=refresh)
    finally:
        namespace.remove(context.work)


def recipe(spec: BaseSpec) -> Digest:
    """The digest of how the base is made: see `Base.recipe`."""
    return kind_of(spec).recipe(spec)


def disk_format(disk: Path) -> str:
    """`raw` or `qcow2`, by what is in the file. Raises BaseError."""
    from factory.bases import disk as disks

    return disks.disk_format(disk)


def kind_of(spec: BaseSpec) -> Base:
    """The kind that a spec names. SpecError lists those there are."""
    if spec.kind not in KINDS:
        raise SpecError(
            f"no kind of base is called {spec.kind!r}",
            where=f"images.toml: base.{spec.name}.kind",
            hint=f"there are: {', '.join(sorted(KINDS))}",
        )
    kind: Base = importlib.import_module(KINDS[spec.kind]).BASE
    return kind
