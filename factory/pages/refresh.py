"""Keeps a site fresh: sees that the catalog (or trust/) changed, makes a copy beside, and swaps it in whole.

Not more often than makes sense: making a copy takes a while for a big catalog, so the next begins no sooner than four
times that after the last. Where a copy cannot be made, what is there goes on being served, and that is said once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from factory.catalog.copies import Watch
from factory.errors import FactoryError
from factory.model import Layout
from factory.pages.edition import Copy, Edition, Making, make_copy
from factory.pages.folder import Copies
from factory.pages.site import Site

LOOK_S = 1.0
"""So often it is looked at whether something changed."""

SHARE = 4
"""A copy that took this many seconds is kept for so many times as long."""

Say = Callable[[str], None]


@dataclass
class Refresher:
    """`say` tells of what went wrong, and of each copy after the first."""

    layout: Layout
    copies: Copies
    watch: Watch
    say: Say
    pause_s: float = LOOK_S
    _trust: object = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _told: str = ""

    def copy(self) -> Copy:
        """A copy of the catalog as it is now. Raises CatalogError."""
        self._trust = self._trust_state()
        return make_copy(self.layout, self.copies.next(), Making(self.watch, self.say, self._ended.is_set))

    def end(self) -> None:
        """Make no further copy; one that is being made is given up."""
        self._ended.set()

    async def run(self, site: Site) -> None:
        """Go on until cancelled. The logs of each copy are followed once it is served."""
        await asyncio.to_thread(site.edition.look_over, self._ended.is_set)
        earliest = 0.0
        while True:
            await asyncio.sleep(self.pause_s)
            if time.monotonic() < earliest:
                continue
            began = time.monotonic()
            try:
                if not await asyncio.to_thread(self._is_changed, site.edition.copy):
                    continue
                copy = await asyncio.to_thread(self.copy)
                await site.swap(await Edition.of(self.layout, copy))
                self._told = ""
            except FactoryError as error:
                self._tell(site, error)
            earliest = time.monotonic() + SHARE * (time.monotonic() - began)
            if not site.edition.is_looked_over:
                await asyncio.to_thread(site.edition.look_over, self._ended.is_set)

    def _is_changed(self, served: Copy) -> bool:
        return self.watch.state() != served.state or self._trust_state() != self._trust

    def _trust_state(self) -> object:
        """What tells that files in trust/ changed."""
        found = []
        for path in sorted(self.layout.trust.rglob("*")):
            try:
                seen = path.lstat()
            except OSError:
                continue
            found.append((path, seen.st_mtime_ns, seen.st_size, seen.st_ino))
        return found

    def _tell(self, site: Site, error: FactoryError) -> None:
        if str(error) != self._told:
            self._told = str(error)
            self.say(f"the pages stay as of {site.edition.copy.made_at}: {error}")
