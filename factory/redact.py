"""Striking secrets from text, and the byte patterns that betray one in a file.

A secret counts as present in any of the forms a bake is likely to write: as it is, percent-encoded, in base64 (standard
or URL-safe) at any of its three alignments inside a longer encoded text; or, where it has several lines (a private
key, say), one line of it that is long enough to be told from chance and is not the `-----BEGIN …-----` of all keys.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

MASK = "*****"
SHORTEST = 8
"""Bytes. A shorter secret occurs in a disk by chance, so nobody could tell whether it leaked: it is refused."""

_SHORTEST_LINE = 16
"""Bytes. A shorter line of a secret of several lines (`version: 1`) may stand anywhere."""

_TELLING = re.compile(r"(?i)([?&][^=&#]*(?:token|key|secret|passw|auth|sig|credential)[^=&#]*=)[^&#]*")
"""Parameters of a URL that are likely to be secret."""

_ARMOUR = re.compile(rb"-----(BEGIN|END) [^-]*-----")


def patterns(value: bytes) -> dict[bytes, str]:
    """The byte strings that betray `value`, and what each is: the value as it is, a line of it, percent-encoded, or the
    part of each base64 form that does not depend on what stands around it."""
    found = {value: "as it is"}
    for line in map(bytes.strip, value.splitlines()):
        if len(line) >= _SHORTEST_LINE and not _ARMOUR.fullmatch(line):
            found.setdefault(line, "a line of it")
    found.setdefault(quote(value, safe="").encode(), "percent-encoded")
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            core = encode(bytes(shift) + value)[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]
            found.setdefault(core, "in base64")
    return found


def url_without_secrets(url: str) -> str:
    """A URL as it may be shown: user and password struck, and the values of parameters whose names sound like it."""
    try:
        place = urlsplit(url).netloc
    except ValueError:
        return MASK
    if "@" in place:
        url = url.replace(place, f"{MASK}@{place.rpartition('@')[2]}", 1)
    return _TELLING.sub(rf"\1{MASK}", url)


class Redactor:
    """Replaces every form of the given secrets in text by a mask."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {form.decode("utf-8", "replace") for value in secrets.values() for form in patterns(value.encode())}
        # JSON and shells escape what a secret may hold; an escaped form is no less a secret.
        forms |= {form.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for form in forms}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text
