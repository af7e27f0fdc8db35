"""Kind `debootstrap`: a Debian suite bootstrapped by mmdebstrap, pinned package by package.

Everything happens inside namespaces, as root or as an ordinary user with subuids alike: when their process ends,
however it does, no mount and no process is left. The base's digest is that of its tree. A tree in the cache that was
made by the same recipe of the same packages is taken as it is.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import factory
from factory import digest, files, namespace, proc
from factory.apt.pins import AptEnv
from factory.bases import BaseContext, PreparedBase, finish, machine
from factory.bases.trees import CachedTree, TreeCache
from factory.digest import Digest, parse_digest
from factory.errors import BaseError, FactoryError, LockMismatchError, SpecError, ToolError
from factory.model import BaseSpec, LockedBase, Package

_WORD = re.compile(r"[a-z0-9][a-z0-9.-]*\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_NOT_FOUND = re.compile(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate")


class Debootstrap:
    """A suite of Debian, as packages."""

    def recipe(self, spec: BaseSpec) -> Digest:
        """Suite, architecture, packages asked for, what `machine` adds and `finish` takes away."""
        wanted = [spec.suite, spec.arch, sorted(spec.include)]
        return digest.of_json(["debootstrap", *wanted, machine.recipe(), finish.RULES])

    def prepare(
        self, spec: BaseSpec, locked: LockedBase | None, context: BaseContext, *, refresh: bool
    ) -> PreparedBase:
        """See `Base.prepare`."""
        suite = _checked_suite(spec)
        with files.exclusive(context.cache / "trees" / f".{spec.name}-{spec.arch}.lock"):
            return _Bootstrap(spec, suite, self.recipe(spec), context).prepare(None if refresh else locked)


class _Bootstrap:
    """One preparation of one base."""

    def __init__(self, spec: BaseSpec, suite: str, recipe: Digest, context: BaseContext) -> None:
        self.spec = spec
        self.suite = suite
        self.recipe = recipe
        self.context = context
        self.trees = TreeCache(context.cache / "trees")

    def prepare(self, locked: LockedBase | None) -> PreparedBase:
        cached = self._cached(locked)
        if cached is not None:
            return self._prepared(cached, cached=True)
        if locked is not None:
            self._require(locked)
        tree = self._bootstrap(() if locked is None else locked.packages)
        if locked is not None:
            self._compare(locked, tree)
        return self._prepared(tree, cached=False)

    def _cached(self, locked: LockedBase | None) -> CachedTree | None:
        """A tree that saves the work: the locked one, or else one whose packages are all what is offered now."""
        if locked is not None:
            return self.trees.get(locked.digest, self.recipe)
        repositories = self.context.repositories(self.spec.arch, self.suite)

        def is_current(tree: CachedTree) -> bool:
            return repositories.candidates({p.name for p in tree.packages}) == {p.name: p for p in tree.packages}

        return next(filter(is_current, self.trees.made_by(self.recipe)), None)

    def _require(self, locked: LockedBase) -> None:
        """LockMismatchError unless every pin can still be had."""
        if not any(dist.name == self.suite for dist in self.context.proxy.snapshot.dists()):
            self._mmdebstrap((), "--simulate")  # asks for the indexes, and for nothing else
        missing = self.context.repositories(self.spec.arch, self.suite).missing(locked.packages, third_parties=False)
        if missing:
            raise self._mismatch("packages that are locked can no longer be had", missing)

    def _bootstrap(self, pins: tuple[Package, ...]) -> CachedTree:
        self.context.say(f"bootstrapping {self.suite} for {self.spec.name}")
        self._mmdebstrap(pins)
        tree, tar = self.context.work / "tree", self.trees.new_tar()
        try:
            argv = namespace.python("factory.bases.finish", str(tree), str(tar))
            done = proc.run(namespace.command(argv, network=False), cwd=Path(factory.__file__).parent.parent)
            tree_digest = parse_digest(done.text.strip())
            installed = self.context.repositories(self.spec.arch, self.suite).installed(tree, pins)
            return self.trees.add(tar, CachedTree(tree_digest, tree_digest, self.recipe, tuple(installed), tar))
        finally:
            tar.unlink(missing_ok=True)

    def _mmdebstrap(self, pins: tuple[Package, ...], *options: str) -> None:
        proxy, tree = self.context.proxy, self.context.work / "tree"
        env = AptEnv(proxy.url(), pins, proxy.offer_pins(pins) if pins else None, machine.NEVER)
        overlay = self.context.work / "overlay.tar"
        overlay.write_bytes(machine.overlay(self.spec.arch, env.files()))
        argv = [
            "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", f"--architectures={self.spec.arch}",
            f"--include={','.join(machine.packages(self.spec.arch, self.suite, self.spec.include))}",
            f"--setup-hook=tar-in {shlex.quote(str(overlay))} /",
            f'--customize-hook=chroot "$1" systemctl --quiet enable {" ".join(machine.ENABLED)}',
            *options, "--", self.suite, str(tree),
        ]  # fmt: skip
        proc.find("mmdebstrap")
        misses, absent = len(proxy.misses), len(proxy.absent)
        try:
            proc.run(namespace.command(argv), env={"SOURCE_DATE_EPOCH": str(machine.EPOCH)})
        except ToolError as error:
            raise self._explained(error, misses, absent) from error
        finally:
            if options:
                namespace.remove(tree)

    def _explained(self, error: ToolError, misses: int, absent: int) -> FactoryError:
        """The reason why mmdebstrap failed, where we know a better one than its last lines."""
        proxy, name = self.context.proxy, self.spec.name
        where = f"images.toml: base.{name}"
        reason = proxy.why_not(misses)
        if reason is not None:
            return BaseError(
                f"base {name}: {reason}", where=where,
                hint="connect this host to the network, or start a new snapshot: factory lock --refresh",
            )  # fmt: skip
        gone = proxy.absent[absent:]
        if any(f"/dists/{self.suite}/" in url and url.endswith("Release") for url in gone):
            return SpecError(
                f"there is no suite {self.suite!r}", where=f"{where}.suite", hint="such as: bookworm, trixie"
            )
        unknown = sorted({first or second for first, second in _NOT_FOUND.findall(error.message)})
        if unknown:
            return SpecError(f"{self.suite} has no package {', '.join(unknown)}", where=f"{where}.include")
        if any(url.endswith(".deb") for url in gone):
            return BaseError(
                f"base {name}: the repository has moved on since the snapshot of it was made, and no longer has "
                + ", ".join(url.rpartition("/")[2] for url in gone if url.endswith(".deb")),
                where=where, hint=f"start a new snapshot: factory lock --refresh {name}",
            )  # fmt: skip
        return BaseError(f"base {name}: {error.message}", where=error.where, hint=error.hint)

    def _compare(self, locked: LockedBase, tree: CachedTree) -> None:
        """LockMismatchError unless exactly the pinned packages were installed."""
        differing = sorted(set(locked.packages) ^ set(tree.packages))
        if differing:
            raise self._mismatch(
                "what is installed is not what is locked; the spec or the repository changed", differing
            )

    def _mismatch(self, what: str, packages: list[Package]) -> LockMismatchError:
        lines = [f"  {package.name} {package.version} {package.arch}" for package in packages[:20]]
        more = [f"  and {len(packages) - 20} more"] if len(packages) > 20 else []
        return LockMismatchError(
            "\n".join([f"base {self.spec.name}: {what}:", *lines, *more]),
            where=f"images.lock: base {self.spec.name}",
            hint=f"pin what is offered now: factory lock --refresh {self.spec.name}",
        )

    def _prepared(self, tree: CachedTree, *, cached: bool) -> PreparedBase:
        locked = LockedBase(self.spec.name, self.spec.arch, tree.digest, tree.packages)
        return PreparedBase(locked, tree.tar, tree.tree_digest, tree.installed, cached)


def _checked_suite(spec: BaseSpec) -> str:
    where = f"images.toml: base.{spec.name}"
    if spec.suite is None or not _WORD.match(spec.suite):
        raise SpecError(f"not the name of a suite: {spec.suite!r}", where=f"{where}.suite", hint="such as: bookworm")
    if not _WORD.match(spec.arch):
        raise SpecError(f"not an architecture: {spec.arch!r}", where=f"{where}.arch", hint="such as: amd64")
    for name in spec.include:
        if not _PACKAGE.match(name):
            raise SpecError(f"not the name of a package: {name!r}", where=f"{where}.include")
    return spec.suite


BASE = Debootstrap()
