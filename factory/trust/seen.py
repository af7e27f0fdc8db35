"""What a deploy job has seen before (`--seen FILE`): the highest version and number of everything that only rises.

Owns the file: JSON, `{"seen": 1, "highest": {"policy": 3, "revocations": 7, "channel prod": 9, …}}`. Always: no
number in it ever falls, also with several processes at once; a file that is damaged is an error, never an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from factory import files
from factory.errors import ExpiredError, TamperedError
from factory.trust import strict
from factory.trust.fields import Fields
from factory.trust.reading import read_file

if TYPE_CHECKING:
    from factory.trust.policy import Policy
    from factory.trust.promotions import Channel
    from factory.trust.revocations import Revocations

VERSION = 1
MAX_BYTES = 4 << 20
_HINT = "get the newest trust/ (git pull), or find out who hands out the old one; the file of --seen is right"

Seen = Mapping[str, int]
"""What it is of -> the highest version or number."""


def observe(policy: Policy, revoked: Revocations, channel: Channel | None = None, image: str | None = None) -> Seen:
    """What verified papers show. Of a channel, with `image` (NAME/ARCH), only the promotion of that one."""
    shown = {
        "policy": policy.version,
        "revocations": revoked.version,
        "revocations: last event": revoked.last_number,
    }
    if channel is not None:
        shown[f"channel {channel.name}"] = channel.version
        for name in channel.promotions if image is None else (image,):
            if (promotion := channel.promotions.get(name)) is not None:
                shown[f"channel {channel.name}: {name}"] = promotion.number
    return shown


def check(before: Seen, shown: Seen) -> None:
    """Refuse what is older than what was seen before. Raises ExpiredError."""
    for name, number in shown.items():
        if number < before.get(name, 0):
            raise ExpiredError(
                f"rollback: {name} is of number {number}, but {before[name]} was seen before", where=name, hint=_HINT
            )


def merge(one: Seen, other: Seen) -> Seen:
    """The highest of both."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted(one.keys() | other.keys())}


def read(path: Path) -> Seen:
    """What a file holds; nothing where there is none. Raises TamperedError."""
    what = "what was seen before"
    try:
        raw = read_file(path, what, max_bytes=MAX_BYTES)
    except FileNotFoundError:
        return {}
    try:
        fields = Fields(strict.loads(raw, what, max_bytes=MAX_BYTES), what, ("seen", "highest"))
        if fields.number("seen") != VERSION:
            raise TamperedError(f"{what} is of another version")
        highest = fields.object("highest")
        if any(type(number) is not int or number < 0 for number in highest.values()):
            raise TamperedError(f"{what} holds what is no number")
    except TamperedError as error:
        hint = "restore it; only where you know that all is well, remove it: what was seen is then forgotten"
        raise TamperedError(error.message, where=str(path), hint=hint) from error
    return highest


def remember(path: Path, shown: Seen) -> None:
    """Add what verified papers show. Raises as `check` and `read` do (another process may have seen newer), OSError."""
    before = read(path)
    check(before, shown)
    if merge(before, shown) == before:
        return
    with files.exclusive(path.with_name(f".{path.name}.lock")):
        before = read(path)
        check(before, shown)
        files.replace(path, strict.dumps({"seen": VERSION, "highest": dict(merge(before, shown))}) + b"\n")
