"""Where something is: a package (by name and versions, or its file's digest) or an image (by a digest or a native id).

Which images hold it or descend from it, which channels point at those, which running instances are of them.

The numbers, the channels and the instances come first; the images stream, however many there are. Channels and
instances of images that are not known here are counted apart: they may hold it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from factory.apt import relation
from factory.catalog import finding, images, lineage, packages, state
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.catalog.lineage import batches
from factory.catalog.packages import KnownPackage
from factory.catalog.state import Assignment, Running, Withdrawal
from factory.digest import Digest, is_digest
from factory.errors import UsageError

_HEX = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}\Z")
Held = tuple[KnownPackage, ...]
"""The packages that were asked for, as an image holds them; empty where an image was asked for."""


@dataclass(frozen=True)
class Found:
    """An image that holds what was asked for, or descends from it (`depth` steps; 0 is the image itself)."""

    image: KnownImage
    packages: Held
    depth: int = 0
    channels: tuple[str, ...] = ()
    instances: int = 0
    withdrawn: Withdrawal | None = None


@dataclass(frozen=True)
class Standing:
    """A channel that points at such an image."""

    assignment: Assignment
    packages: Held


@dataclass(frozen=True)
class Runs:
    """A running instance of such an image."""

    instance: Running
    image: KnownImage
    packages: Held


@dataclass(frozen=True)
class Unknown:
    """What runs or stands in a channel, and is of images whose `lacking` (packages or ancestors) are not known here."""

    lacking: str
    instances: tuple[Running, ...]
    channels: tuple[Assignment, ...]

    def __bool__(self) -> bool:
        return bool(self.instances or self.channels)

    def __str__(self) -> str:
        instances, channels = len(self.instances), len(self.channels)
        one = instances + channels == 1
        return (
            f"{instances} running instance{'' if instances == 1 else 's'} and {channels}"
            f" channel{'' if channels == 1 else 's'} are of {'an image' if one else 'images'} whose {self.lacking} are"
            " not known here"
        )


@dataclass(frozen=True)
class Answer:
    """`packages`: those that match, None where an image was asked for (`of`). `set_count`: distinct sets of packages
    that hold one; `image_count`: how many images; `images` gives them once, as they are found. `unknown`: what there
    is no answer for."""

    asked: str
    of: KnownImage | None
    packages: Held | None
    set_count: int
    image_count: int
    channels: tuple[Standing, ...]
    instances: tuple[Runs, ...]
    unknown: Unknown
    images: Iterator[Found]


def where(catalog: Catalog, asked: str, as_of: str | None = None) -> Answer:
    """Where `asked` is (was, at `as_of`): NAME with bounds, or a digest. Raises UsageError where nothing is known."""
    if _HEX.match(asked.strip()):
        found = _of_digest(catalog, asked.strip(), as_of)
    elif (image := finding.by_native(catalog, asked.strip())) is not None:
        found = _of_image(catalog, asked, image, as_of)
    elif (named := _named(catalog, asked.strip(), as_of)) is not None:
        found = _of_image(catalog, asked, named, as_of)
    else:
        found = _of_relation(catalog, asked, as_of)
    return replace(found, images=_standing(catalog, found.images, as_of))


def holders(catalog: Catalog, wanted: str, as_of: str | None = None) -> Answer:
    """The images that hold packages of NAME with bounds, with nothing said of where they stand."""
    return _of_relation(catalog, wanted, as_of)


def _named(catalog: Catalog, asked: str, as_of: str | None) -> KnownImage | None:
    """The image of this name, where no package is called so."""
    if not finding.is_known(catalog, asked) or packages.is_known(catalog, asked):
        return None
    return finding.one(catalog, asked, as_of)


def _of_digest(catalog: Catalog, asked: str, as_of: str | None) -> Answer:
    if is_digest(asked):
        if (image := finding.by_artifact(catalog, Digest(asked))) is not None:
            return _of_image(catalog, asked, image, as_of)
        if held := packages.of_file(catalog, Digest(asked)):
            return _of_packages(catalog, asked, held, as_of)
    return _of_image(catalog, asked, finding.one(catalog, asked, as_of), as_of)


def _of_relation(catalog: Catalog, asked: str, as_of: str | None) -> Answer:
    wanted = relation.parse(asked)
    held = packages.matching(catalog, wanted)
    if not held and not packages.is_known(catalog, wanted.name, by_source=wanted.by_source):
        near = packages.search(catalog, wanted.name, 5)
        unknown = lacking_packages(catalog, as_of)
        raise UsageError(
            f"no image here ever had a package {wanted.name}" + (f"; {unknown}" if unknown else ""),
            hint=f"names like it: {', '.join(near)}" if near else "src:NAME asks by the source package",
            where=str(catalog.path),
        )
    return _of_packages(catalog, str(wanted), held, as_of)


def _of_packages(catalog: Catalog, asked: str, held: list[KnownPackage], as_of: str | None) -> Answer:
    found = packages.holding(catalog, held, as_of)

    def held_by(image: KnownImage) -> Held:
        return found.sets[image.package_set or 0]

    running, running_unknown = state.running_of_sets(catalog, found.sets, as_of)
    assigned, assigned_unknown = state.assignments_of_sets(catalog, found.sets, as_of)
    runs = tuple(Runs(one, image, held_by(image)) for one, image in running)
    standing = tuple(Standing(one, held_by(image)) for one, image in assigned)
    unknown = Unknown("packages", tuple(running_unknown), tuple(assigned_unknown))
    streamed = (Found(image, holds) for image, holds in packages.images(catalog, found, as_of))
    return Answer(asked, None, found.packages, len(found.sets), found.images, standing, runs, unknown, streamed)


def lacking_packages(catalog: Catalog, as_of: str | None = None) -> Unknown:
    """What runs or stands in a channel of images whose packages are not known here: it may have any."""
    _, running = state.running_of_sets(catalog, (), as_of)
    _, assigned = state.assignments_of_sets(catalog, (), as_of)
    return Unknown("packages", tuple(running), tuple(assigned))


def _of_image(catalog: Catalog, asked: str, image: KnownImage, as_of: str | None) -> Answer:
    below = {relative.image.id: relative for relative in lineage.descendants(catalog, image.id, as_of=as_of)}
    inside = {image.id, *below}
    running, assigned = state.running(catalog, as_of), state.assignments(catalog, as_of)
    known = finding.by_digests(catalog, {one.digest for one in running} | {one.digest for one in assigned})
    within = {digest: of for digest, of in known.items() if of.id in inside}
    recorded = within.keys() | {digest for digest, of in known.items() if of.recorded_at is not None}
    unknown = Unknown(
        "ancestors",
        tuple(one for one in running if one.digest not in recorded),
        tuple(one for one in assigned if one.digest not in recorded),
    )
    runs = tuple(Runs(one, within[one.digest], ()) for one in running if one.digest in within)
    standing = tuple(Standing(one, ()) for one in assigned if one.digest in within)
    streamed = (Found(one.image, (), one.depth) for one in (lineage.Relative(image, 0), *below.values()))
    return Answer(asked, image, None, 0, len(inside), standing, runs, unknown, streamed)


def _standing(catalog: Catalog, found: Iterable[Found], as_of: str | None) -> Iterator[Found]:
    """Each with where it stands, asked for a number of them at once."""
    for part in batches(found):
        of = [one.image for one in part]
        channels = images.channels_of(catalog, of, as_of)
        running = images.running_of(catalog, of, as_of)
        withdrawn = lineage.withdrawn(catalog, [image.id for image in of], as_of)
        for one in part:
            number = one.image.id
            yield Found(
                one.image,
                one.packages,
                one.depth,
                channels=tuple(sorted(channels.get(number, ()))),
                instances=running.get(number, 0),
                withdrawn=withdrawn.get(number),
            )
