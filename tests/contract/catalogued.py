"""The signed factory with a catalog: what its bakes recorded, a second `web`, instances that run and one that is gone.

`web` was baked twice: the first has nginx-light 1.22.1-9 and a broken openssl, the second newer ones. Fleet `shop` runs
two instances of the first, one of the second; a third of the first has ended. Times are days of January 2026, noon.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import signed_factory
from signed_factory import ARCH, SignedFactory, sha

from factory.catalog import contents, events, fleets
from factory.catalog.contents import InputFile, InstalledPackage, Recorded
from factory.catalog.database import Catalog
from factory.catalog.events import Check
from factory.catalog.fleets import Instance
from factory.digest import Digest
from factory.disk import manifest
from factory.disk.manifest import Entry
from factory.model import Layout, LockedImage
from factory.trust.promotions import Waiver

HOSTILE = "<script>alert(1)</script>'; DROP TABLE images; --\x1b[31m"


def day(number: int) -> datetime:
    """Noon of a day in January 2026."""
    return datetime(2026, 1, number, 12, tzinfo=UTC)


def deb(name: str, version: str, source: str = "", arch: str = ARCH) -> InstalledPackage:
    """A package; its source has the same version."""
    return InstalledPackage(name, version, arch, source or name, version, sha(f"{name} {version} {arch}"))


COMMON = (deb("libc6", "2.36-9", "glibc"), deb("adduser", "3.134", arch="all"))
OLD = (
    *COMMON,
    deb("openssl", "3.0.11-1"),
    deb("libssl3", "3.0.11-1", "openssl"),
    deb("nginx-light", "1.22.1-9", "nginx"),
)
NEW = (*COMMON, deb("openssl", "3.0.15-1"), deb("libssl3", "3.0.15-1", "openssl"), deb("nginx", "1.24.0-1"))


@dataclass
class Catalogued:
    """A factory and its images by what they are called here: base, hardened, old, web."""

    factory: SignedFactory
    digests: dict[str, Digest]

    @property
    def layout(self) -> Layout:
        return self.factory.layout

    @property
    def root(self) -> Path:
        return self.factory.root

    def catalog(self) -> Catalog:
        return Catalog.open(self.layout.catalog)


def build(folder: Path) -> Catalogued:
    """A whole one, in `folder`/factory."""
    factory = signed_factory.build(folder)
    made = Catalogued(factory, {name: factory.images[name].digest for name in signed_factory.NAMES})
    with made.catalog() as catalog:
        put(catalog, factory, factory.locked("base"), 1, COMMON)
        put(catalog, factory, factory.locked("hardened"), 2, COMMON)
        old = LockedImage(
            "web", ARCH, sha("old web"), sha("key of old web"), made.digests["hardened"], tree(factory, "old"),
            inputs={"playbook": sha("old playbook")}, artifacts={"qcow2": sha("old qcow2")},
        )  # fmt: skip
        made.digests["old"] = old.digest
        put(catalog, factory, old, 3, OLD, server="old")
        put(catalog, factory, factory.locked("web"), 10, NEW, server="new")
        for native, digest, launched, ended in (
            ("i-1", old.digest, 4, None), ("i-2", old.digest, 4, None), ("i-3", old.digest, 4, 6),
            ("i-4", made.digests["web"], 11, None),
        ):  # fmt: skip
            number = fleets.add_instance(catalog, Instance("shop", 1, "local", native, digest, day(launched)))
            if ended is not None:
                fleets.end_instance(catalog, number, day(ended), "scaled down")
    return made


def waive(made: Catalogued) -> None:
    """Promote `web` to prod once more, with a waiver."""
    waiver = Waiver("no-cve:low", "bob", "<b>because</b>", datetime(2030, 1, 1, tzinfo=UTC))
    requirements = {"verified": "passed", "no-cve:low": "waived"}
    said = made.factory.promotion(number=2, requirements=requirements, waivers=(waiver,))
    made.factory.promote(said, "alice", "bob")


def put(
    catalog: Catalog, factory: SignedFactory, locked: LockedImage, on: int, packages: Iterable[InstalledPackage],
    server: str = "",
) -> None:  # fmt: skip
    """Record a bake of a day, with its run and checks."""
    parent = "debian-12" if locked.name == "base" else "base" if locked.name == "hardened" else "hardened"
    run = f"run-{on}"
    events.begin_run(catalog, run, "bake")
    with catalog.writing() as database:
        contents.put_bake(
            database.conn,
            Recorded(
                image=locked,
                parent_kind="debootstrap" if locked.name == "base" else "image",
                parent_name=parent,
                builder="rootfs",
                run=run,
                kind="baked",
                baked_at=day(on).isoformat(),
                facts={"base": parent, "vars": {"server": server}},
                packages=tuple(packages),
                inputs=(InputFile("playbook", f"{locked.name}.yml", sha(f"{locked.name} {server}")),),
                sizes={},
            ),
        )
    checks = [Check("test_tls", "passed", 0.1), Check("test_old", "skipped", 0, HOSTILE, exempted=True)]
    events.add_checks(catalog, run, (locked.name, ARCH), checks)
    events.end_run(catalog, run, 0)


def tree(factory: SignedFactory, content: str) -> Digest:
    """A sealed manifest in the store; its digest."""
    files = [
        Entry("/", "dir", 0o755, 0, 0),
        Entry("/etc/motd", "file", 0o644, 0, 0, len(content), sha(content).removeprefix("sha256:")),
    ]
    return factory.store.put_bytes(manifest.dumps(files))
