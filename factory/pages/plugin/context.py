"""What the pages know beside the copy they read."""

from __future__ import annotations

from dataclasses import dataclass

from factory.catalog.overview import Numbers
from factory.model import Layout


@dataclass(frozen=True)
class Log:
    """What the logs of the copy are worth: in `words`, and each `fault`, where they are not as they were written."""

    words: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """`made_at`: when the copy that is served was made; `numbers`: what it holds; `log`: None while its logs are being
    followed. Stands on Datasette as `pages`."""

    layout: Layout
    made_at: str
    numbers: Numbers
    log: Log | None = None
