"""Reading the secrets a bake needs: from the environment, or from a file that only its owner can read.

The secret NAME is `$NAME`, else the content of the file `$NAME_FILE`, else of `.factory/secrets/NAME`. Values leave
this process only in a 0600 file for the provisioner, and are never part of a key, a lock, a log or an image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from factory.errors import UsageError
from factory.model import ImageSpec, Layout
from factory.redact import SHORTEST


def read(layout: Layout, image: ImageSpec, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The values of the secrets that `image` names. Raises UsageError for one that is missing, open or too short."""
    return {name: _read_one(layout, image, name, environment or os.environ) for name in image.secrets}


def _read_one(layout: Layout, image: ImageSpec, name: str, environment: Mapping[str, str]) -> str:
    where = f"image.{image.name}.secrets"
    if name in environment:
        value = environment[name]
    else:
        path = Path(environment.get(f"{name}_FILE") or layout.state / "secrets" / name)
        if not path.is_file():
            raise UsageError(
                f"the secret {name} is not given",
                where=where,
                hint=f"set {name} in the environment, or {name}_FILE to a file of mode 0600",
            )
        if path.stat().st_mode & 0o077:
            raise UsageError(f"others can read {path}", where=where, hint=f"chmod 600 {path}")
        value = path.read_text().rstrip("\n")
    if len(value.encode()) < SHORTEST:
        raise UsageError(
            f"the secret {name} is shorter than {SHORTEST} characters",
            where=where,
            hint="so short a value is found in any disk by chance; use a longer one",
        )
    return value
