"""A factory's history, thought up: which images it baked, on what, of which packages. Pure: a shape has one history.

What images share is as in real factories: package sets of which some hundred names are in all of them at a few
versions, playbooks, what images.toml said. Lineages are some 5 to 12 deep; one image has exactly `wide` descendants,
which are in no other image's way.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from factory.catalog.clock import text
from factory.catalog.contents import InputFile, InstalledPackage, Recorded
from factory.digest import Digest
from factory.model import LockedImage, Package

ARCH = "amd64"
BASES = 4
DEEPEST = 12
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
CHANNELS = ("dev", "test", "staging", "prod", "edge")

_VERSIONS = 10
_USUAL_DEPTH = 7
_RECENT = 2000
_WIDE_LEVELS = 5
_INPUT_FILES = 40
_BAKE_S = 50
_KNOWN_CORE = ("openssl", "libc6", "bash", "systemd", "zlib1g", "curl")


@dataclass(frozen=True)
class Shape:
    """How large. `packages` must be ten times a number of names; `core` of a set's packages are in every set.

    `sets`: distinct sets of packages, of `set_size` each, and as many of specs and of inputs. `added`: packages that a
    bake adds to its parent. `per_run`: images that one run bakes. `checks`, `checked`: so many checks of each of the
    last so many images.
    """

    images: int
    sets: int = 200
    packages: int = 50_000
    set_size: int = 800
    core: int = 300
    added: int = 15
    names: int = 2000
    wide: int = 40_000
    per_run: int = 20
    promotions: int = 20_000
    revocations: int = 200
    instances: int = 3000
    checks: int = 60
    checked: int = 2000
    seed: int = 20_261_125

    @property
    def wide_root(self) -> int:
        """The number of the image that has `wide` descendants."""
        return self.images // 4


def shape_of(images: int) -> Shape:
    """The issue's figures for a million images, and fewer of everything but sets and packages for fewer."""
    share = images / 1_000_000
    return Shape(
        images,
        names=max(1, int(2000 * share)),
        wide=int(40_000 * share),
        promotions=int(20_000 * share),
        revocations=int(200 * share),
        instances=int(3000 * share),
        checked=min(images, 2000),
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """One bake. `parent`: the number of an image, or below 0 that of a base (-1 is the first)."""

    number: int
    parent: int
    shared: int
    """Which set of packages, of inputs, and which spec."""


def plans(shape: Shape) -> Iterator[Planned]:
    """Every bake, in order. The first `sets` of them show everything that is shared."""
    chosen = random.Random(shape.seed)
    recent: list[deque[int]] = [deque(maxlen=_RECENT) for _ in range(DEEPEST + 1)]
    below: list[list[int]] = []
    for number in range(shape.images):
        shared = number if number < shape.sets else chosen.randrange(shape.sets)
        of_root = number - shape.wide_root
        if 0 < of_root <= shape.wide:
            yield Planned(number, _wide_parent(shape, below, chosen), shared)
            continue
        depth = 1 if number < BASES else min(DEEPEST, round(chosen.triangular(1, DEEPEST + 1, _USUAL_DEPTH)))
        if of_root == 0:
            depth = min(depth, DEEPEST - _WIDE_LEVELS)
        while depth > 1 and not recent[depth - 1]:
            depth -= 1
        parent = chosen.choice(recent[depth - 1]) if depth > 1 else -1 - number % BASES
        if of_root == 0:
            below = [[number], *([] for _ in range(_WIDE_LEVELS))]
        else:
            recent[depth].append(number)
        yield Planned(number, parent, shared)


def _wide_parent(shape: Shape, below: list[list[int]], chosen: random.Random) -> int:
    """A parent on the level above that of the wide image's next descendant; deeper levels hold more."""
    made = sum(map(len, below))
    level = 1 + int(chosen.random() ** 0.5 * _WIDE_LEVELS)
    while not below[level - 1]:
        level -= 1
    below[level].append(shape.wide_root + made)
    return chosen.choice(below[level - 1])


def digest_of(kind: str, number: int) -> bytes:
    """A digest that looks as random as real ones do, as its 32 bytes."""
    return hashlib.sha256(f"{kind} {number}".encode()).digest()


def named(kind: str, number: int) -> Digest:
    """The same as text."""
    return Digest(f"sha256:{digest_of(kind, number).hex()}")


SIGNER = named("key", 0)
"""The fingerprint of who signed every ticket, and so is the actor of every bake."""


def parent_of(planned: Planned) -> Digest:
    """The digest of an image's parent."""
    return named("base", -1 - planned.parent) if planned.parent < 0 else named("image", planned.parent)


def is_deployed(shape: Shape, number: int) -> bool:
    """Whether images of its name go to channels: a quarter of the names do, the others are what those stand on."""
    return number * 7919 % shape.names % 4 == 0


def name_of(shape: Shape, number: int) -> str:
    """The name of an image; the images of a name are its bakes over time."""
    return f"service-{number * 7919 % shape.names:04}"


def run_of(shape: Shape, number: int) -> str:
    """The id of the run that bakes an image."""
    run = number // shape.per_run
    return f"{at(shape, run * shape.per_run):%Y%m%dT%H%M%SZ}-{run % 65536:04x}"


def at(shape: Shape, number: int) -> datetime:
    """When an image was baked: the history ends with this shape's last one, a minute or so each."""
    return BEGAN + timedelta(seconds=_BAKE_S * number)


def size_bytes(number: int) -> int:
    """Of the stored disk."""
    return 128_000_000 + number % 1000 * 65_536


def facts_of(shared: int) -> dict[str, object]:
    """What images.toml says."""
    return {
        "base": "image:hardened",
        "builder": "rootfs",
        "formats": ["qcow2"],
        "playbook": f"playbooks/service-{shared}.yml",
        "ports": [22, 80],
        "state": ["/var/log", f"/var/lib/service-{shared}"],
        "vars": {"server_name": f"example-{shared}", "workers": 4},
    }


def package(shape: Shape, name: int, version: int) -> InstalledPackage:
    """The package of these two numbers. A good part has another source, as in Debian."""
    called = _KNOWN_CORE[name] if name < len(_KNOWN_CORE) else f"lib{'abcdefgh'[name % 8]}-part{name}"
    source = called if name % 5 == 0 else f"part-{name // 3}"
    said = f"3.0.{version + 11}-1~deb12u{name % 3 + 1}"
    return InstalledPackage(called, said, ARCH, source, said, named("deb", name * _VERSIONS + version))


@functools.lru_cache(maxsize=1024)
def set_of(shape: Shape, shared: int) -> tuple[InstalledPackage, ...]:
    """A set of packages: `core` names that all sets have, and the next of the others, so that all come about."""
    names = shape.packages // _VERSIONS
    others = names - shape.core
    version = shared * _VERSIONS // shape.sets
    core = [package(shape, name, version) for name in range(shape.core)]
    first = shared * (shape.set_size - shape.core)
    rest = range(first, first + shape.set_size - shape.core)
    return (*core, *(package(shape, shape.core + n % others, n // others % _VERSIONS) for n in rest))


_INPUTS = ("base", "checks", "packages", "playbook", "template", "vars")


def recorded(shape: Shape, planned: Planned) -> Recorded:
    """A bake with all that belongs to it, as the product records it."""
    number, shared = planned.number, planned.shared
    packages = set_of(shape, shared)
    return Recorded(
        image=LockedImage(
            name_of(shape, number), ARCH, named("image", number), named("key", number), parent_of(planned),
            named("tree", number),
            packages=tuple(Package(p.name, p.version, p.arch, Digest(p.sha256 or "")) for p in packages[-shape.added:]),
            inputs={name: named(name, shared) for name in _INPUTS},
            artifacts={"qcow2": named("qcow2", number)},
        ),
        parent_kind="debootstrap" if planned.parent < 0 else "image",
        parent_name=f"debian-{10 - planned.parent}" if planned.parent < 0 else name_of(shape, planned.parent),
        builder="rootfs",
        run=run_of(shape, number),
        kind="baked",
        baked_at=text(at(shape, number)),
        facts=facts_of(shared),
        packages=packages,
        inputs=tuple(
            InputFile("playbook", f"roles/it/tasks/{n}.yml", named(f"file {n}", shared)) for n in range(_INPUT_FILES)
        ),
        sizes={named("qcow2", number): size_bytes(number)},
        signers=(SIGNER,),
    )  # fmt: skip
