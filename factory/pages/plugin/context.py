"""What the pages know beside the copy they read."""

from __future__ import annotations

from dataclasses import dataclass

from factory.catalog.overview import Numbers
from factory.model import Layout


@dataclass(frozen=True)
class Context:
    """`made_at`: when the copy that is served was made; `numbers`: what it holds. Stands on Datasette as `pages`."""

    layout: Layout
    made_at: str
    numbers: Numbers
