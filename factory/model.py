"""The frozen records that flow between the parts. No behaviour beyond what follows from their own fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.digest import Digest


@dataclass(frozen=True, order=True)
class Package:
    """One binary package: the pin `name version arch sha256:…` of images.lock. `sha256` is of the .deb file."""

    name: str
    version: str
    arch: str
    sha256: Digest

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.arch} {self.sha256}"


@dataclass(frozen=True)
class BaseSpec:
    """`[base.NAME]` of images.toml. `path` (absolute) or `url` and `sha256` belong to kind `disk`."""

    name: str
    kind: str
    arch: str
    suite: str | None = None
    include: tuple[str, ...] = ()
    path: Path | None = None
    url: str | None = None
    sha256: Digest | None = None


@dataclass(frozen=True)
class ImageSpec:
    """`[image.NAME]` of images.toml, defaults filled in. Paths are relative to the factory's folder, as written.

    `base` is the name of a base, or of an image when `layered`. `arch` is that of the base at the bottom.
    """

    name: str
    arch: str
    base: str
    layered: bool
    builder: str
    playbook: str
    vars: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[str, ...] | None = None  # None: the checks/ of each role that the playbook names
    skip_checks: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("qcow2",)
    state: tuple[str, ...] = ("/var/log",)
    ports: tuple[int, ...] = (22,)
    secrets: tuple[str, ...] = ()
    disk_mib: int = 2048
    channel: str | None = None


@dataclass(frozen=True)
class CveSpec:
    """`[cve]` of images.toml: where it is said which vulnerabilities there are. Paths (relative to the factory's
    folder, or absolute) or URLs, as written; of `vex` paths only."""

    tracker: tuple[str, ...] = ()
    osv: tuple[str, ...] = ()
    vex: tuple[str, ...] = ()


@dataclass(frozen=True)
class FactorySpec:
    """images.toml as a whole."""

    root: Path
    bases: Mapping[str, BaseSpec]
    images: Mapping[str, ImageSpec]
    store_url: str | None = None
    cve: CveSpec = CveSpec()


@dataclass(frozen=True)
class LockedBase:
    """`[[base]]` of images.lock: the digest of its tree and the packages in it."""

    name: str
    arch: str
    digest: Digest
    packages: tuple[Package, ...] = ()


@dataclass(frozen=True)
class LockedImage:
    """`[[image]]` of images.lock.

    `base` is the parent's digest; `tree` the digest of the sealed tree's manifest; `packages` what it adds to its
    parent or changes; `pins` is there only between a refresh and the next bake: the versions that bake is to use.
    """

    name: str
    arch: str
    digest: Digest
    bake_key: Digest
    base: Digest
    tree: Digest
    packages: tuple[Package, ...] = ()
    pins: tuple[Package, ...] | None = None
    inputs: Mapping[str, Digest] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lock:
    """images.lock as a whole, by (name, arch)."""

    bases: Mapping[tuple[str, str], LockedBase] = field(default_factory=dict)
    images: Mapping[tuple[str, str], LockedImage] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where the files of a factory are. `root` is absolute."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "images.toml"

    @property
    def lock(self) -> Path:
        return self.root / "images.lock"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def policy(self) -> Path:
        return self.trust / "policy.toml"

    @property
    def signed_policy(self) -> Path:
        return self.trust / "policy.dsse"

    @property
    def tickets(self) -> Path:
        return self.trust / "tickets"

    @property
    def channels(self) -> Path:
        return self.trust / "channels"

    @property
    def proposals(self) -> Path:
        return self.trust / "proposals"

    @property
    def revocations(self) -> Path:
        return self.trust / "revocations.dsse"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def state(self) -> Path:
        return self.root / ".factory"

    @property
    def catalog(self) -> Path:
        return self.state / "catalog.db"

    @property
    def store(self) -> Path:
        return self.state / "store"

    @property
    def cache(self) -> Path:
        return self.state / "cache"

    @property
    def image_trees(self) -> Path:
        return self.cache / "image-trees"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def locks(self) -> Path:
        return self.state / "locks"
