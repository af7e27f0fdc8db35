"""Striking secrets from text, and the byte patterns that betray one in a file.

A secret counts as present in any of the forms a bake is likely to write: as it is, or in base64 (standard or URL-safe)
at any of its three alignments inside a longer encoded text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

MASK = "*****"
_SHORTEST = 4
"""A shorter value is found everywhere by chance; such a secret is refused when it is read."""


def patterns(value: str) -> tuple[bytes, ...]:
    """The byte strings that stand for `value`: raw, and the part of each base64 form that does not depend on what
    stands around it."""
    raw = value.encode()
    found = {raw}
    for alignment in range(3):
        encoded = base64.b64encode(b"\0" * alignment + raw)
        start = (0, 2, 3)[alignment]
        end = len(encoded) - (0, 3, 2)[(len(raw) + alignment) % 3]
        core = encoded[start:end]
        if len(core) >= _SHORTEST + 2:
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return tuple(sorted(found))


class Redactor:
    """Replaces every form of the given secrets in text by a mask."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {form.decode("utf-8", "surrogateescape") for value in secrets.values() for form in patterns(value)}
        # JSON and shells escape what a secret may hold; an escaped form is no less a secret.
        forms |= {value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in secrets.values()}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text
