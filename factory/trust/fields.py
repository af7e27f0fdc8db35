"""One signed record of ours, field by field: a thin way to say `predicates`' readers of single values.

Exactly the fields it has, each of its kind; every refusal is a TamperedError that names the field.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from factory.digest import Digest
from factory.errors import TamperedError
from factory.trust import predicates, statements

MAX_ITEMS = 1000
MAX_NUMBER = 1 << 40
"""Of a version or of an event: one signed number close to what JSON can say would leave none for those that follow."""


class Fields:
    """An object with exactly the fields `names`, and of those in `optional` any; `what` names it in errors."""

    def __init__(self, value: Any, what: str, names: Collection[str], optional: Collection[str] = ()) -> None:
        self._value = predicates.table(value, what, names, optional)
        self._what = what

    def __contains__(self, key: str) -> bool:
        """Whether an optional field is there."""
        return key in self._value

    def text(self, key: str) -> str:
        """A printable text, neither empty nor huge."""
        return predicates.text(self._value[key], self._at(key))

    def number(self, key: str) -> int:
        """A whole number from 1, none above MAX_NUMBER."""
        if not 1 <= predicates.whole(self._value[key], self._at(key)) <= MAX_NUMBER:
            raise TamperedError(f"{self._at(key)} is no whole number from 1 to {MAX_NUMBER}")
        return int(self._value[key])

    def flag(self, key: str) -> bool:
        """True or false."""
        if not isinstance(self._value[key], bool):
            raise TamperedError(f"{self._at(key)} is neither true nor false")
        return bool(self._value[key])

    def time(self, key: str) -> datetime:
        """A time, UTC."""
        return statements.time_of(self._value[key], self._at(key))

    def digest(self, key: str) -> Digest:
        """A digest."""
        return predicates.digest(self._value[key], self._at(key))

    def optional_digest(self, key: str) -> Digest | None:
        """A digest, or null."""
        return None if self._value[key] is None else self.digest(key)

    def items(self, key: str, most: int = MAX_ITEMS) -> list[Any]:
        """A list of at most so many."""
        return predicates.items(self._value[key], self._at(key), most)

    def object(self, key: str) -> dict[str, Any]:
        """An object with keys that are not said here."""
        if not isinstance(self._value[key], dict):
            raise TamperedError(f"{self._at(key)} is not an object")
        return dict(self._value[key])

    def _at(self, key: str) -> str:
        return f"{self._what}: {key}"
