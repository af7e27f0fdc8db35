"""What is offered, what is missing, what is installed: the snapshot, the cache and dpkg's status joined.

A question about a suite sees the repositories of that suite (`bookworm`, `bookworm-updates`, `bookworm-security`) and
those of third parties, not those of other suites of the same distribution, nor what is not chosen by default
(backports). Its rule for a .deb that came from no repository is in `installed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory import digest
from factory.apt.index import Offer, fields, newest, source_of
from factory.apt.snapshot import Dist, Snapshot
from factory.apt.store import Store
from factory.apt.virtual import cached_stanza
from factory.digest import Digest
from factory.model import Package


@dataclass(frozen=True)
class Installed:
    """A package in a tree, and the source package it was built from."""

    package: Package
    source: str
    source_version: str


@dataclass(frozen=True)
class Repositories:
    """What can be asked about the repositories of one suite and architecture, as of a snapshot."""

    store: Store
    snapshot: Snapshot
    arch: str
    suite: str | None = None

    def candidates(self, names: Iterable[str]) -> dict[str, Package]:
        """The highest version offered of each of these packages; a name that nobody offers is left out."""
        found = self.snapshot.offers(self._dists(), names)
        return {name: offer.package for name, offer in newest(o for o in found if self._fits(o.package)).items()}

    def offered(self, names: Iterable[str]) -> dict[str, list[Package]]:
        """Every version offered of each of these packages."""
        found: dict[str, list[Package]] = {}
        for offer in self.snapshot.offers(self._dists(), names):
            if self._fits(offer.package):
                found.setdefault(offer.package.name, []).append(offer.package)
        return found

    def offers(self, names: Iterable[str]) -> Iterator[tuple[Dist, Offer]]:
        """Every offer of these packages, and the repository that makes it."""
        wanted = frozenset(names)
        for dist in self._dists():
            for offer in self.snapshot.offers([dist], wanted):
                if self._fits(offer.package):
                    yield dist, offer

    def missing(self, pins: Iterable[Package], *, third_parties: bool = True) -> list[Package]:
        """The pins that can no longer be had: neither cached nor offered with that very digest.

        With `third_parties` a package whose name no repository of the snapshot knows is not judged: it comes from one
        that the playbook adds, or from a .deb of its own. A base has none of these.
        """
        wanted = sorted(set(pins))
        offered = self.offered({pin.name for pin in wanted})
        return [
            pin
            for pin in wanted
            if pin not in offered.get(pin.name, [])
            and not (third_parties and pin.name not in offered)
            and cached_stanza(self.store, pin) is None
        ]

    def installed(self, tree: Path, prefer: Iterable[Package] = ()) -> list[Installed]:
        """What dpkg's database in a tree says is installed, by name and architecture; nothing where there is none.

        The digest of a package is that of its .deb: of the one among `prefer` (its parent's packages, the pins), else
        one that is offered, else one that is cached, of this name, version and architecture. A .deb that went past all
        of these (a playbook installed a file of its own) is not to be had any more; its digest is that of what dpkg
        keeps of it: its status stanza without `Status` and `Config-Version`, and its md5sums (else its file list).
        """
        database = tree / "var/lib/dpkg"
        try:
            status = (database / "status").read_text("utf-8", "replace")
        except FileNotFoundError:
            return []
        stanzas = [found for found in map(fields, status.split("\n\n")) if _is_installed(found)]
        known = self._known({found["Package"] for found in stanzas}, prefer)
        result = []
        for found in stanzas:
            name, version, arch = found["Package"], found["Version"], found["Architecture"]
            sha256 = known.get((name, version, arch)) or _digest_of_local(found, database / "info")
            source, source_version = source_of(name, version, found.get("Source"))
            result.append(Installed(Package(name, version, arch, sha256), source, source_version))
        return sorted(result, key=lambda item: item.package)

    def _known(self, names: set[str], prefer: Iterable[Package]) -> dict[tuple[str, str, str], Digest]:
        known: dict[tuple[str, str, str], Digest] = {}
        for package in (package for packages in self.offered(names).values() for package in packages):
            key = (package.name, package.version, package.arch)
            if key not in known or (self.store.has(package.sha256) and not self.store.has(known[key])):
                known[key] = package.sha256
        for name in names:
            for stanza in self.store.debs_named(name):
                found = fields(stanza)
                key = (name, found["Version"], found["Architecture"])
                if key not in known:
                    known[key] = Digest(f"sha256:{found['SHA256']}")
        known.update({(pin.name, pin.version, pin.arch): pin.sha256 for pin in prefer})
        return known

    def _fits(self, package: Package) -> bool:
        return package.arch in (self.arch, "all")

    def _dists(self) -> list[Dist]:
        dists = [dist for dist in self.snapshot.dists() if dist.release.by_default]
        suite = self.suite
        if suite is None:
            return dists
        origins = {dist.release.origin for dist in dists if dist.name == suite}
        return [dist for dist in dists if _belongs(dist.name, suite) or dist.release.origin not in origins]


def _belongs(name: str, suite: str) -> bool:
    return name.replace("/", "-").partition("-")[0] == suite or name.startswith((f"{suite}-", f"{suite}/"))


def _is_installed(found: Mapping[str, str]) -> bool:
    return found.get("Status", "").split()[-1:] == ["installed"] and "Package" in found and "Version" in found


def _digest_of_local(found: Mapping[str, str], info: Path) -> Digest:
    name = found["Package"]
    stems = (f"{name}:{found['Architecture']}", name)
    paths = (info / f"{stem}{suffix}" for suffix in (".md5sums", ".list") for stem in stems)
    files = next((path.read_text("utf-8", "replace") for path in paths if path.is_file()), "")
    control = {key: value for key, value in found.items() if key not in ("Status", "Config-Version")}
    return digest.of_json({"control": control, "files": sorted(files.splitlines())})
