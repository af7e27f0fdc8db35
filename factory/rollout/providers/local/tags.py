"""What an instance is called, and the tag that every process of a fleet carries in its environment. Pure.

The name FLEET-gGENERATION-NN is the instance's id, its folder, HAProxy's server and QEMU's `-name`. The tag says all
that must be known to take an instance on again when everything but its process is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass

from factory.digest import Digest, is_digest

VARIABLE = "FACTORY_FLEET"
"""The variable of a process's environment that the tag is in."""

FRONT = "front"
"""The role of a fleet's HAProxy. No instance is called so: their names have a generation."""

_ID = re.compile(r"(?P<fleet>[a-z0-9-]{1,63})-g(?P<generation>[1-9][0-9]{0,8})-(?P<number>[0-9]{2,6})\Z")


@dataclass(frozen=True)
class Tag:
    """A process of a fleet: the fleet's folder, who it is (an instance's id, or FRONT), what it is of, since when."""

    folder: str
    id: str
    generation: int = 0
    digest: str = ""
    rollout: str = ""
    launched_at: float = 0.0

    def text(self) -> str:
        """As it stands in the environment."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def image(self) -> Digest | None:
        """The digest of its image; None where the tag has none."""
        return Digest(self.digest) if is_digest(self.digest) else None


def parse(text: str) -> Tag | None:
    """The tag that a text is; None where it is none."""
    try:
        told = json.loads(text)
        tag = Tag(
            folder=str(told["folder"]),
            id=str(told["id"]),
            generation=int(told["generation"]),
            digest=str(told["digest"]),
            rollout=str(told["rollout"]),
            launched_at=float(told["launched_at"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return tag if tag.id == FRONT or _ID.match(tag.id) else None


def name_of(fleet: str, generation: int, number: int) -> str:
    """The id of an instance; numbers begin with 1."""
    return f"{fleet}-g{generation}-{number:02d}"


def generation_of(fleet: str, name: str) -> int | None:
    """The generation that an id names; None where it is no id of this fleet."""
    found = _ID.match(name)
    return int(found["generation"]) if found and found["fleet"] == fleet else None


def free_names(fleet: str, generation: int, taken: Collection[str]) -> Iterator[str]:
    """Ids of a generation that are not taken, the lowest number first."""
    number = 0
    while True:
        number += 1
        name = name_of(fleet, generation, number)
        if name not in taken:
            yield name
