"""The files that make apt in a tree or guest use the proxy and the pins: placed for a bake, removed by the seal.

Pure: text from values. Whoever bakes writes `AptEnv.files()` below the tree's root and removes `PATHS` afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from factory.errors import LockError
from factory.model import Package

CONF = "etc/apt/apt.conf.d/99factory-bake"
PREFERENCES = "etc/apt/preferences.d/99factory-bake"
SOURCES = "etc/apt/sources.list.d/factory-bake.list"
DPKG = "etc/dpkg/dpkg.cfg.d/99factory-bake"
PATHS = (CONF, PREFERENCES, SOURCES, DPKG)
"""All that is placed, relative to the tree's root."""

PIN_PRIORITY = 1001
"""Above 1000 apt takes a version even if that is a downgrade (apt_preferences(5))."""

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_VERSION = re.compile(r"[A-Za-z0-9.+:~-]+\Z")


@dataclass(frozen=True)
class AptEnv:
    """How apt is to behave in one bake. `proxy`: the proxy's address as seen from there, without a slash at the end;
    `repository`: the path that `AptProxy.offer_pins` gave, None without pins; `never`: packages not to be chosen."""

    proxy: str
    pins: tuple[Package, ...] = ()
    repository: str | None = None
    never: tuple[str, ...] = ()

    def files(self) -> Mapping[str, str]:
        """The files by path relative to the tree's root; mode 0644, owned by root."""
        return {
            CONF: conf(self.proxy),
            PREFERENCES: preferences(self.pins, self.never),
            SOURCES: sources(self.proxy, self.repository),
            DPKG: "# factory: while baking; a bake that is killed is begun again, so nothing need survive it\n"
            "force-unsafe-io\n",
        }


def conf(proxy: str) -> str:
    """apt.conf: the proxy for http, no descriptions in other languages, an old snapshot is fine. Https goes past the
    proxy, which could not look into it."""
    return (
        "// factory: while baking\n"
        f'Acquire::http::Proxy "{proxy}";\n'
        'Acquire::https::Proxy "DIRECT";\n'
        'Acquire::http::Timeout "300";\n'
        'Acquire::Retries "3";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::Languages "none";\n'
    )


def preferences(pins: Iterable[Package], never: Iterable[str] = ()) -> str:
    """apt_preferences: the pinned version of each package, and packages that are not to be chosen."""
    text = ""
    for pin in sorted(set(pins)):
        if not _NAME.match(pin.name) or not _VERSION.match(pin.version):
            raise LockError(
                f"a pin is not a package and its version: {str(pin)!r}", hint="make it again: factory lock --refresh"
            )
        text += _preference(pin.name, pin.version, PIN_PRIORITY)
    return text + "".join(_preference(name, "*", -1) for name in never)


def _preference(name: str, version: str, priority: int) -> str:
    return f"Explanation: factory, while baking\nPackage: {name}\nPin: version {version}\nPin-Priority: {priority}\n\n"


def sources(proxy: str, repository: str | None) -> str:
    """sources.list: the repository of the pins that are cached."""
    if repository is None:
        return "# factory: no pins\n"
    return f"deb [trusted=yes] {proxy}{repository} ./\n"
