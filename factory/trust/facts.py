"""What is attested of an image: plain records, made by a bake or a verification, and had back from a ticket.

No behaviour, no JSON: what a statement looks like is known in `predicates/` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from factory.digest import Digest

IMAGE, BASE = "image", "base"
PASSED, FAILED, SKIPPED, EXEMPT = "passed", "failed", "skipped", "exempt"


@dataclass(frozen=True)
class Ancestor:
    """`role`: `image`, or `base`, whose digest is that of its `[[base]]` in images.lock."""

    digest: Digest
    name: str
    role: str


@dataclass(frozen=True)
class Artifact:
    """One stored form. `place`: `qcow2`, `raw`, `aws/eu-west-1`; `native`: `sha256:…` of a stored file, or `ami-…`.

    `size_bytes` is of the stored file, None where that is not known.
    """

    place: str
    native: str
    size_bytes: int | None = None


@dataclass(frozen=True)
class CheckOutcome:
    """One check of one verification. `owner`: the image whose check it is, or `factory`.

    `outcome`: passed, failed, skipped (by itself) or exempt (by `skip_checks`).
    """

    owner: str
    name: str
    outcome: str


@dataclass(frozen=True)
class ImageFacts:
    """An image. `ancestors`: the nearest first, so that the first has the digest `base`; the last is a base."""

    name: str
    arch: str
    digest: Digest
    bake_key: Digest
    base: Digest
    tree: Digest
    ancestors: tuple[Ancestor, ...]
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True)
class BakeFacts:
    """How an image was made. Times are UTC.

    `parameters`: what images.toml said, by its keys (of secrets the names). `inputs`: input -> part -> digest or
    version, as they went into the bake key. `builder`: its kind. `versions`: of factory, packer, ansible-core, ….
    """

    image: ImageFacts
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    builder: str
    versions: Mapping[str, str]
    run: str
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True)
class Verification:
    """One verification of an image. `policy`: the digest of the trust policy it was made under.

    `configuration`: whose checks -> the digest of its `checks` input, of the image and of each ancestor that has any.
    """

    checks: tuple[CheckOutcome, ...]
    verified_at: datetime
    policy: Digest
    configuration: Mapping[str, Digest] = field(default_factory=dict)
