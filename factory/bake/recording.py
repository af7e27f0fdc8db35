"""From a bake that passed to its entry in images.lock and its record in the catalog. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from factory.bake import key
from factory.bake.sealed import Sealed
from factory.catalog.contents import InputFile, InstalledPackage
from factory.catalog.record import BakeRecord
from factory.digest import Digest
from factory.model import FactorySpec, ImageSpec, LockedBase, LockedImage


def locked_image(image: ImageSpec, sealed: Sealed, disk: Mapping[str, Any], base: Digest) -> LockedImage:
    """The lock entry of an image whose disk was made; `disk`: what the disk stage left."""
    return LockedImage(
        name=image.name,
        arch=image.arch,
        digest=disk["digest"],
        bake_key=sealed.bake_key,
        base=base,
        tree=sealed.tree_digest,
        packages=sealed.added,
        inputs=key.Inputs(sealed.inputs).digests,
        artifacts=disk["artifacts"],
    )


def bake_record(
    factory: FactorySpec,
    image: ImageSpec,
    locked: LockedImage,
    run: str,
    inputs: Mapping[str, Mapping[str, str]],
    *,
    installed: tuple[InstalledPackage, ...] = (),
    base: LockedBase | None = None,
    verified_only: bool = False,
) -> BakeRecord:
    """What the catalog keeps of a bake; `base` where it locks one, `verified_only` where nothing was baked."""
    facts = {
        "base": image.base,
        "builder": image.builder,
        "channel": image.channel,
        "disk_mib": image.disk_mib,
        "formats": list(image.formats),
        "playbook": image.playbook,
        "ports": list(image.ports),
        "secrets": list(image.secrets),
        "skip_checks": list(image.skip_checks),
        "state": list(image.state),
        "vars": dict(image.vars),
    }
    files = (InputFile(name, part, value) for name, parts in inputs.items() for part, value in sorted(parts.items()))
    return BakeRecord(
        image=locked,
        base_kind="image" if image.layered else factory.bases[image.base].kind,
        builder=image.builder,
        run=run,
        baked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base=base,
        verified_only=verified_only,
        facts=facts,
        packages=installed,
        inputs=tuple(files),
    )
