"""How the pages say times, sizes and digests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_STEPS = ((60, "second"), (60, "minute"), (24, "hour"), (30.4, "day"), (12, "month"), (float("inf"), "year"))


def ago(moment: str | None, now: datetime | None = None) -> str:
    """How long ago a time of the catalog is, in one unit: `3 days ago`; the text itself where it is no time."""
    if not moment:
        return ""
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return moment
    amount, is_past = abs(seconds), seconds >= 0
    step = 0
    while amount >= _STEPS[step][0]:
        amount /= _STEPS[step][0]
        step += 1
    count, unit = int(amount), _STEPS[step][1]
    if unit == "second":
        return "just now" if is_past else "in a moment"
    said = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{said} ago" if is_past else f"in {said}"


def minute(moment: str | None) -> str:
    """A time of the catalog to the minute: `2026-11-25 10:16 UTC`; the text itself where it is no time."""
    if not moment:
        return ""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return moment


def short(digest: Any) -> str:
    """The beginning of a digest."""
    return str(digest).removeprefix("sha256:")[:12]


def hex_of(digest: Any) -> str:
    """The 64 digits of a digest, as addresses of pages have them."""
    return str(digest).removeprefix("sha256:")


def size(size_bytes: int | None) -> str:
    """A size in the unit that suits it: `74.1 MiB`."""
    if size_bytes is None:
        return ""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 image`, `3 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


FILTERS: dict[str, Callable[..., str]] = {
    "ago": ago,
    "minute": minute,
    "short": short,
    "hex": hex_of,
    "size": size,
    "count": count,
    "plural": plural,
}
