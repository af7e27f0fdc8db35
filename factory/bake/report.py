"""What a bake tells: the records behind the `bake --json` contract. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from factory.errors import FactoryError, worst_exit_code
from factory.model import ImageSpec, LockedImage

STAGES = ("base", "provision", "seal", "disk", "verify", "record")


@dataclass(frozen=True)
class StoredArtifact:
    """One stored form of an image; `path` is None where its bytes are not here."""

    digest: str
    path: str | None
    size_bytes: int | None


@dataclass(frozen=True)
class ImageResult:
    """How it went with one image. `status`: baked, verified, unchanged, failed or skipped.

    `stages`: seconds of each stage that ran. `notes` are things a person should read (a digest that changed, say).
    """

    image: ImageSpec
    status: str
    locked: LockedImage | None = None
    artifacts: Mapping[str, StoredArtifact] = field(default_factory=dict)
    duration_s: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: FactoryError | None = None

    @property
    def is_done(self) -> bool:
        """Whether its children may go on."""
        return self.status not in ("failed", "skipped")

    def as_json(self) -> dict[str, object]:
        """The entry of `bake --json`."""
        return {
            "name": self.image.name,
            "arch": self.image.arch,
            "status": self.status,
            "digest": self.locked.digest if self.locked else None,
            "bake_key": self.locked.bake_key if self.locked else None,
            "base": self.locked.base if self.locked else None,
            "artifacts": {name: vars(artifact) for name, artifact in self.artifacts.items()},
            "duration_s": round(self.duration_s, 3),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "error": self.error.as_json() if self.error else None,
        }


@dataclass(frozen=True)
class Report:
    """A whole run. `run` is None where there was nothing to do."""

    run: str | None
    images: tuple[ImageResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or the first of the contract's precedence among the failures."""
        return worst_exit_code([result.error.exit_code for result in self.images if result.error is not None])

    def as_json(self) -> dict[str, object]:
        """The document of `bake --json`."""
        return {
            "run": self.run,
            "images": [result.as_json() for result in self.images],
            "notes": list(self.notes),
        }
