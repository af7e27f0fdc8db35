"""What a deploy job has seen before (`--seen FILE`): the highest version and number of everything that only rises.

Owns the file: JSON, `{"seen": 1, "highest": {"policy": 3, "revocations": 7, "channel prod": 9, …}}`. In it too:
each thing that was revoked (`revoked sha256:…`, an image's, a base's or a key's) with its event's number, which no
later set may lack; and of each image that was answered without a channel when it was baked and, digest by digest,
when it was last verified (seconds since 1970).

Always: no number in it ever falls, also with several processes at once; only what verified is remembered; a file that
is damaged is an error, never an empty one. It stays small: a revocation has a line for as long as sets must list it,
an image has those of its newest bake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from factory import files
from factory.errors import ExpiredError, TamperedError, TrustError
from factory.trust import strict
from factory.trust.fields import Fields
from factory.trust.reading import read_file
from factory.trust.statements import time_text

if TYPE_CHECKING:
    from factory.trust.policy import Policy
    from factory.trust.promotions import Channel
    from factory.trust.revocations import Revocations
    from factory.trust.ticket import Vouched

VERSION = 1
MAX_BYTES = 4 << 20
_HINT = "get the newest trust/ (git pull), or find out who hands out the old one; the file of --seen is right"
_HINT_IMAGE = (
    "get the newest images.lock and trust/ (git pull). Is it meant, a git revert? then remove its lines from the file "
    "of --seen, or ask for a channel that it was promoted to with --allow-older"
)
_SET = "revocations"
_REVOKED = "revoked "
_BAKED, _VERIFIED = ": baked at", ": verified at, "

Seen = Mapping[str, int]
"""What it is of -> the highest version or number."""


def observe(policy: Policy, revoked: Revocations, channel: Channel | None = None, image: str | None = None) -> Seen:
    """What verified papers show, whatever is thought of an image. Of a channel, with `image` (NAME/ARCH), only the
    promotion of that one; a promotion that is void shows nothing."""
    shown = {
        "policy": policy.version,
        _SET: revoked.version,
        f"{_SET}: last event": revoked.last_number,
    }
    for events in (revoked.images, revoked.keys):
        shown.update({f"{_REVOKED}{digest}": event.number for digest, event in events.items()})
    if channel is not None:
        shown[f"channel {channel.name}"] = channel.version
        for name in channel.promotions if image is None else (image,):
            with suppress(TrustError):
                if (promotion := channel.promotions.get(name)) is not None:
                    shown[f"channel {channel.name}: {name}"] = promotion.number
    return shown


def observe_image(image: Vouched) -> Seen:
    """What an accepted image shows, where no promotion's number says which is newer."""
    who = f"image {image.name}/{image.arch}"
    baked, verified = int(image.baked_at.timestamp()), int(image.verified_at.timestamp())
    return {who + _BAKED: baked, who + _VERIFIED + image.digest: verified}


def check(before: Seen, shown: Seen) -> None:
    """Refuse what is older than what was seen before, and a set that lacks a revocation. Raises ExpiredError."""
    for name, number in shown.items():
        if number < before.get(name, 0):
            raise _older(name, number, before[name])
    if _SET not in shown:
        return
    for name in before:
        if name.startswith(_REVOKED) and name not in shown:
            raise ExpiredError(
                f"rollback: the set lacks the revocation of {name.removeprefix(_REVOKED)}, which was seen before",
                where="trust/revocations.dsse",
                hint=f"{_HINT}; look who signed this set",
            )


def merge(one: Seen, other: Seen) -> Seen:
    """The highest of both; of an image, what was verified of its newest bake only."""
    dropped = {*_outdated(one, other), *_outdated(other, one)}
    names = sorted((one.keys() | other.keys()) - dropped)
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in names}


def _outdated(older: Seen, newer: Seen) -> Iterator[str]:
    """What `older` holds of bakes that `newer` knows a newer one than."""
    for name in older:
        who, is_image, _ = name.partition(_VERIFIED)
        if is_image and name not in newer and older.get(who + _BAKED, 0) < newer.get(who + _BAKED, 0):
            yield name


def _older(name: str, number: int, known: int) -> ExpiredError:
    if _BAKED in name or _VERIFIED in name:
        said = f"is of {_time(number)}, but {_time(known)} was seen before"
        return ExpiredError(f"rollback: {name} {said}", where="images.lock", hint=_HINT_IMAGE)
    return ExpiredError(f"rollback: {name} is of number {number}, but {known} was seen before", where=name, hint=_HINT)


def _time(seconds: int) -> str:
    try:
        return time_text(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, OSError, ValueError):  # the file may say anything
        return f"second {seconds}"


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
