"""The files that pin apt while baking, and what a refresh pins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from factory.apt import pins
from factory.apt.pins import AptEnv
from factory.apt.refresh import changed, refresh_pins
from factory.digest import Digest
from factory.errors import LockError
from factory.model import BaseSpec, FactorySpec, ImageSpec, Lock, LockedBase, LockedImage, Package

ZERO = Digest("sha256:" + "0" * 64)


def package(name: str, version: str) -> Package:
    return Package(name, version, "amd64", Digest("sha256:" + "1" * 64))


def test_the_files_of_a_bake_are_those_the_seal_removes() -> None:
    files = AptEnv("http://10.0.2.2:99", (package("web", "1.0"),), "/factory/pins/x/").files()
    assert tuple(files) == pins.PATHS
    assert 'Acquire::http::Proxy "http://10.0.2.2:99";' in files[pins.CONF]
    assert files[pins.SOURCES] == "deb [trusted=yes] http://10.0.2.2:99/factory/pins/x/ ./\n"
    assert not any("Recommends" in text for text in files.values())


def test_each_pin_is_a_stanza() -> None:
    text = pins.preferences([package("web", "1:1.0~b+1-2"), package("lib", "2")], never=["usrmerge"])
    stanzas = [dict(line.split(": ", 1) for line in part.splitlines()) for part in text.strip().split("\n\n")]
    assert [(s["Package"], s["Pin"], s["Pin-Priority"]) for s in stanzas] == [
        ("lib", "version 2", "1001"),
        ("web", "version 1:1.0~b+1-2", "1001"),
        ("usrmerge", "version *", "-1"),
    ]


@pytest.mark.parametrize("bad", [("web\nPin: x", "1"), ("web", "1\n\nPackage: *"), ("*", "1"), ("web", "1*")])
def test_a_pin_that_would_say_something_else_is_refused(bad: tuple[str, str]) -> None:
    with pytest.raises(LockError, match="pin"):
        pins.preferences([package(*bad)])


def image(name: str, base: str, layered: bool) -> ImageSpec:
    return ImageSpec(name, "amd64", base, layered, "rootfs", "playbook.yml")


def locked(name: str, *packages: Package) -> LockedImage:
    return LockedImage(name, "amd64", ZERO, ZERO, ZERO, ZERO, packages)


SPEC = FactorySpec(
    Path("/factory"),
    {name: BaseSpec(name, "debootstrap", "amd64", "bookworm") for name in ("debian", "other")},
    {
        "plain": image("plain", "debian", False),
        "web": image("web", "plain", True),
        "elsewhere": image("elsewhere", "other", False),
    },
)
LOCK = Lock(
    {("debian", "amd64"): LockedBase("debian", "amd64", ZERO, (package("libc6", "1"),))},
    {
        (name, "amd64"): locked(name, *packages)
        for name, packages in {
            "plain": (package("curl", "1"),),
            "web": (package("nginx", "1"), package("own", "1")),
            "elsewhere": (package("nginx", "1"),),
            "dropped": (package("nginx", "1"),),
        }.items()
    },
)


def offered(base: str, names: Iterable[str]) -> Mapping[str, Package]:
    assert base == "debian"
    there = {"nginx": package("nginx", "2"), "curl": package("curl", "1"), "libc6": package("libc6", "2")}
    return {name: there[name] for name in names if name in there}


def test_a_refresh_pins_what_is_offered_on_the_refreshed_base_only() -> None:
    base = LockedBase("debian", "amd64", ZERO, (package("libc6", "2"),))
    after = refresh_pins(LOCK, SPEC, [base], offered)
    assert after.bases["debian", "amd64"] == base
    pinned = {name: entry.pins for (name, _), entry in after.images.items()}
    assert pinned == {
        "plain": None,  # nothing newer: nothing to bake
        "web": (package("nginx", "2"), package("own", "1")),  # nobody offers own: it stays
        "elsewhere": None,
        "dropped": None,
    }
    assert all(after.images[key].packages == LOCK.images[key].packages for key in LOCK.images)
    assert changed(LOCK, after) == [
        ("debian", package("libc6", "1"), package("libc6", "2")),
        ("web", package("nginx", "1"), package("nginx", "2")),
    ]
