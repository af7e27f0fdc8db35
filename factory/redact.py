"""Striking secrets from text, and the byte patterns that betray one in a file.

A secret counts as present in any of the forms a bake is likely to write: as it is, or in base64 (standard or URL-safe)
at any of its three alignments inside a longer encoded text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

MASK = "*****"
SHORTEST = 8
"""Bytes. A shorter secret occurs in a disk by chance, so nobody could tell whether it leaked: it is refused."""


def patterns(value: bytes) -> dict[bytes, str]:
    """The byte strings that betray `value`, and what each is: the value as it is, or the part of each base64 form that
    does not depend on what stands around it."""
    found = {value: "as it is"}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            core = encode(bytes(shift) + value)[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]
            found.setdefault(core, "in base64")
    return found


class Redactor:
    """Replaces every form of the given secrets in text by a mask."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {form.decode("utf-8", "replace") for value in secrets.values() for form in patterns(value.encode())}
        # JSON and shells escape what a secret may hold; an escaped form is no less a secret.
        forms |= {value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in secrets.values()}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text
