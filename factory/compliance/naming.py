"""Names by which answers are limited: one that nothing has is refused, so that no typing error looks like an answer."""

from __future__ import annotations

from contextlib import suppress

from factory import schema
from factory.catalog import state
from factory.catalog.database import Catalog
from factory.errors import FactoryError, UsageError
from factory.model import Layout
from factory.trust import policy


def refuse_unknown_channel(layout: Layout, catalog: Catalog, channel: str) -> None:
    """UsageError for a channel that the trust policy does not name, and where no image ever stood."""
    known = state.channels(catalog)
    with suppress(FactoryError, OSError):
        known |= set(policy.read(layout.policy).channels)
    if channel not in known:
        raise UsageError(
            f"there is no channel {channel[:80]!r}; {schema.suggestion(channel[:80], known)}", where="--channel"
        )
