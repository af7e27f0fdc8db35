"""Times as people type them in options."""

from __future__ import annotations

from datetime import UTC, datetime

from factory.errors import UsageError


def parse(text: str | None, option: str) -> datetime | None:
    """A time with its offset, or a day (its first second, UTC); None for None. Raises UsageError."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and len(text) == len("2026-12-31"):
            moment = moment.replace(tzinfo=UTC)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{text!r} is no time", where=option, hint="like 2026-12-31T12:00:00Z, or 2026-12-31")
