"""What may take long is done aside, so that whoever decides is not held up: one piece of work at a time, in a thread.

What was begun is never interrupted; what it comes to is dropped where it is no longer asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """Work of one kind. Only one thread may ask."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun: _Work[T] | None = None

    def ask(self, subject: str, work: Callable[[], T], patience_s: float) -> T | None:
        """Begin `work`, unless what was begun before still goes on; what it comes to, where that is known within
        `patience_s`. Raises what it raised."""
        if self._begun is not None:
            return None
        self._begun = _Work(subject, work)
        thread = threading.Thread(target=self._begun.run, name=self._name, daemon=True)
        thread.start()
        thread.join(patience_s)
        return self.outcome(subject)

    def outcome(self, subject: str) -> T | None:
        """What was begun earlier about `subject` has come to; None where it goes on, or there is nothing."""
        begun = self._begun
        if begun is None or not begun.ended.is_set():
            return None
        self._begun = None
        if begun.failure is not None:
            raise begun.failure
        return begun.found if begun.subject == subject else None


class _Work(Generic[T]):
    def __init__(self, subject: str, work: Callable[[], T]) -> None:
        self.subject = subject
        self._work = work
        self.ended = threading.Event()
        self.found: T | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self.found = self._work()
        except Exception as error:
            self.failure = error
        finally:
            self.ended.set()
