"""Times as people type them in options."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from factory.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])


def parse(text: str | None, option: str) -> datetime | None:
    """A time with its offset, or a day (its first second, UTC), in whole seconds; None for None. Raises UsageError."""
    return None if text is None else _read(text, option).replace(microsecond=0)


def as_of(command: _Command) -> _Command:
    """Adds --as-of to a command; see `moment`."""
    return click.option(
        "--as-of", metavar="TIME", help="What was true then, like 2026-12-31T12:00:00Z.  [default: now]"
    )(command)


def moment(text: str | None) -> str | None:
    """The value of --as-of as the catalog writes times; None for None. Raises UsageError."""
    from factory.catalog import clock

    return None if text is None else clock.text(_read(text, "--as-of"))


def bound(text: str | None, option: str) -> str | None:
    """The value of --since or --until as the catalog writes times; None for None. Raises UsageError."""
    from factory.catalog import clock

    return None if text is None else clock.text(_read(text, option))


def _read(text: str, option: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None and len(text) == len("2026-12-31"):
            found = found.replace(tzinfo=UTC)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{text!r} is no time", where=option, hint="like 2026-12-31T12:00:00Z, or 2026-12-31")
