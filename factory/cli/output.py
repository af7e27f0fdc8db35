"""What a person or a script reads: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import IO, Any

from factory.errors import FactoryError

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def colour(text: str, *styles: str, stream: IO[str] | None = None) -> str:
    """`text` in ANSI styles where the stream is a terminal and NO_COLOR is not set."""
    if not has_colour(stream or sys.stderr):
        return text
    return f"\x1b[{';'.join(_STYLES[style] for style in styles)}m{text}\x1b[0m"


def has_colour(stream: IO[str]) -> bool:
    """Whether a stream takes colours: a terminal, no NO_COLOR, TERM not dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """A line of progress or explanation."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints


def warn(text: str) -> None:
    """A line about what is not as it should be, and holds nothing up."""
    say(f"{colour('warning:', 'yellow', 'bold')} {text}")


def data(text: str) -> None:
    """A line of the answer."""
    print(text, flush=True)  # noqa: T201 - the one place that prints


def document(value: Any) -> None:
    """The one JSON document of `--json`."""
    data(json.dumps(value, indent=2, ensure_ascii=False))


def flush() -> bool:
    """Hand on what is still held back; whether standard output could take it."""
    with suppress(OSError, ValueError, AttributeError):  # closed, full, or never there
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def fail(error: FactoryError, *, as_json: bool) -> int:
    """Show an error; its exit code. Standard output may be what is at fault."""
    if as_json:
        with suppress(OSError):
            document({"error": error.as_json()})
    explain(error)
    return error.exit_code


def explain(error: FactoryError) -> None:
    """An error as a person reads it: the cause, where, and what to do next."""
    say(f"{colour('error:', 'red', 'bold')} {error.message}")
    if error.where:
        say(f"{colour('   at:', 'dim')} {error.where}")
    if error.hint:
        say(f"\n{colour('hint:', 'cyan', 'bold')} {error.hint}")


def bug(error: Exception, *, as_json: bool) -> int:
    """Show an error nobody foresaw."""
    wrapped = FactoryError(
        f"this is a bug in factory: {type(error).__name__}: {error}", hint="please report it with the traceback above"
    )
    if as_json:
        document({"error": {**wrapped.as_json(), "code": 1, "kind": "bug"}})
    explain(wrapped)
    return 1
