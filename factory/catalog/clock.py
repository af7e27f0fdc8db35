"""The time, as the catalog writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """This moment: UTC, ISO 8601, milliseconds."""
    return text(datetime.now(UTC))


def text(moment: datetime) -> str:
    """A time as the catalog writes it; two of them sort as their times do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
