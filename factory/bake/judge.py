"""Judgements on a bake, as pure functions: pins that broke, files that changed meanwhile, a digest that differs."""

from __future__ import annotations

from collections.abc import Sequence

from factory.bake.key import Inputs
from factory.errors import DiskError, LockMismatchError, ProvisionError
from factory.model import LockedImage, Package


def held_pins(parent: Sequence[Package], expected: Sequence[Package]) -> tuple[Package, ...]:
    """The version each package is held at: that of the image where it changes its parent's, else the parent's."""
    held = {(package.name, package.arch): package for package in parent}
    held.update({(package.name, package.arch): package for package in expected})
    return tuple(sorted(held.values()))


def broken_pins(expected: Sequence[Package], added: Sequence[Package]) -> list[Package]:
    """The expected packages of which another version was installed."""
    got = {(package.name, package.arch): package for package in added}
    return [pin for pin in expected if got.get((pin.name, pin.arch), pin) != pin]


def pins_gone(image: str, base: str, packages: Sequence[Package]) -> LockMismatchError:
    """The error for pins of an image (on a base) that can no longer be had."""
    names = ", ".join(f"{package.name} {package.version}" for package in packages[:5])
    more = f" and {len(packages) - 5} more" if len(packages) > 5 else ""
    return LockMismatchError(
        f"packages that are pinned can no longer be had: {names}{more}",
        where=f"images.lock: image {image}",
        hint=f"pin what is offered now: factory lock --refresh {base}",
    )


def require_unchanged(image: str, before: Inputs, now: Inputs, *names: str) -> None:
    """What was baked (or checked) from must be what the key was computed from. Raises ProvisionError."""
    for name in names:
        old, new = before.parts[name], now.parts[name]
        changed = sorted(part for part in old.keys() | new.keys() if old.get(part) != new.get(part))
        if changed:
            raise ProvisionError(
                f"{changed[0]} was changed while {image} was baked", where=changed[0], hint="bake again"
            )


def other_digest(before: LockedImage | None, now: LockedImage) -> str | None:
    """What to say where a bake of the locked key did not give the locked digest."""
    if before is None or before.bake_key != now.bake_key or before.digest == now.digest:
        return None
    return f"the same bake key gave another digest: {before.digest} is locked, {now.digest} was baked"


def refused(error: OSError) -> DiskError:
    """What the system refused (a full disk, a folder that cannot be written), as an error of this image alone."""
    hint = "is there room, and may we write there? (df)"
    return DiskError(f"{error.strerror or error}", where=str(error.filename or ""), hint=hint)
