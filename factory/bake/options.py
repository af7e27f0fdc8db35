"""What a bake is asked for, and whom it tells how it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Options:
    """What the command line asks for. `locked`: a digest that differs from the locked one is an error.

    `key`: the name of the key that is to sign; `ask`: who knows the passphrase of a key.
    """

    names: tuple[str, ...] = ()
    force: bool = False
    refresh: bool = False
    jobs: int = 1
    keep_failed: bool = False
    wait: bool = True
    locked: bool = False
    command: str = "bake"
    key: str | None = None
    ask: Callable[[str], bytes | None] | None = None


class Listener(Protocol):
    """Who is told how it goes, from several threads."""

    def stage(self, image: str, stage: str) -> None:
        """An image enters a stage."""

    def detail(self, image: str, detail: str) -> None:
        """What goes on inside the stage."""

    def done(self, image: str, status: str, detail: str = "") -> None:
        """An image has ended."""

    def note(self, text: str) -> None:
        """Something a person should read."""
