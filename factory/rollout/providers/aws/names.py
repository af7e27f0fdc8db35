"""What things of a fleet are called in AWS, and the tags they carry. Pure.

A name is a function of fleet and generation, so that a call repeated after a crash finds what the first one made. The
tags say the rest; a name alone is never taken as proof of what something is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from factory.digest import Digest, is_digest
from factory.rollout.model import External, FleetSpec, Generation

FLEET = "factory:fleet"
GENERATION = "factory:generation"
DIGEST = "factory:digest"
ROLLOUT = "factory:rollout"
EXTERNAL = "factory:external:"
"""Followed by the name of a piece of external state; its value is the ARN of a secret, never the secret."""
SHIFTED = "factory:shifted"
"""On a listener or rule: when a region was shifted, and to what (`traffic.Memory`)."""

Tags = Mapping[str, str]


def group(fleet: str, generation: int) -> str:
    """The Auto Scaling group, and the launch template, of a generation."""
    return f"factory-{fleet}-{generation}"


def target_group(fleet: str, generation: int) -> str:
    """The target group of a generation: at most 32 letters, digits and single hyphens, as ELB wants it."""
    named = hashlib.sha256(f"{fleet}/{generation}".encode()).hexdigest()
    return f"factory-{generation}-{named[:12]}"


def of_generation(fleet: FleetSpec, generation: Generation) -> dict[str, str]:
    """The tags of everything that a generation has."""
    return {
        FLEET: fleet.name,
        GENERATION: str(generation.number),
        DIGEST: str(generation.image.digest),
        ROLLOUT: generation.rollout,
    }


def of_external(external: Iterable[External]) -> dict[str, str]:
    """The tags by which an instance learns where its external state is described."""
    return {EXTERNAL + one.name: one.arn for one in external if one.arn is not None}


def as_list(tags: Tags) -> list[dict[str, str]]:
    """As AWS takes tags."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def from_list(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """As AWS gives tags."""
    return {tag["Key"]: tag["Value"] for tag in tags or ()}


def generation_of(tags: Tags) -> int | None:
    """The generation that tags name; None where they name none."""
    said = tags.get(GENERATION, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= 9 else None


def digest_of(tags: Tags) -> Digest | None:
    """The image that tags name; None where they name none."""
    said = tags.get(DIGEST)
    return Digest(said) if said is not None and is_digest(said) else None
