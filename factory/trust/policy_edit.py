"""Changes trust/policy.toml as a person would: text in, text out, comments and order kept. Pure.

What comes out is read again and compared: exactly what was asked for has changed, by the eyes of a TOML parser, and it
is a policy that may be; anything else is a SpecError that shows the lines to write by hand. Every change raises
`version`. It never takes a key away: what was signed in its window stays true.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from factory import schema
from factory.errors import SpecError
from factory.schema import dotted
from factory.trust import policy
from factory.trust.policy import ROLES, TrustedKey

Changes = Mapping[str, Mapping[str, Any]]
"""Name of a key -> what is set in its table: texts, lists of texts, true or false, times."""


def edit(text: str, *, add: Sequence[TrustedKey] = (), change: Changes | None = None, name: str = "policy.toml") -> str:
    """`text` with keys added and keys' tables changed, its version one higher.

    Raises SpecError where `text` is no policy, a name or a key stands in it already, one to change does not, or where
    it is written in a way that cannot be changed here (an inline table, say).
    """
    changes = change or {}
    before = policy.loads(text.encode(), name)
    for key in add:
        if key.name in before.keys:
            raise SpecError(f"{name} has a key {key.name} already", where=dotted("key", key.name))
    for missing in changes.keys() - before.keys.keys():
        there = schema.suggestion(missing, before.keys)
        raise SpecError(f"{name} has no key {missing}; {there}", where=dotted("key", missing))
    wanted = _wanted(tomllib.loads(text), add, changes)
    edited = _edited(text, add, changes, before.version + 1)
    try:
        exact = tomllib.loads(edited) == wanted
    except tomllib.TOMLDecodeError:
        exact = False
    if not exact:
        raise SpecError(
            f"{name} is written in a way that cannot be changed by itself; nothing was written",
            where=name,
            hint="write by hand:\n" + "\n".join(_by_hand(add, changes, before.version + 1)),
        )
    policy.loads(edited.encode(), name)
    return edited


def block(key: TrustedKey) -> list[str]:
    """The lines of `[key.NAME]`, without line ends."""
    return [f"[{dotted('key', key.name)}]", *(f"{name} = {_toml(value)}" for name, value in _table(key).items())]


def _table(key: TrustedKey) -> dict[str, Any]:
    table: dict[str, Any] = {"public": str(key.public), "roles": [role for role in ROLES if role in key.roles]}
    optional = {"not_before": key.not_before, "not_after": key.not_after, "development": key.development or None}
    return {**table, **{name: value for name, value in optional.items() if value is not None}}


def _wanted(data: dict[str, Any], add: Sequence[TrustedKey], changes: Changes) -> dict[str, Any]:
    wanted = copy.deepcopy(data)
    wanted["version"] += 1
    for key in add:
        wanted.setdefault("key", {})[key.name] = _table(key)
    for name, values in changes.items():
        wanted["key"][name].update(values)
    return wanted


def _edited(text: str, add: Sequence[TrustedKey], changes: Changes, version: int) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += end
    _set(lines, (), "version", version, end)
    for name, values in changes.items():
        for setting, value in values.items():
            _set(lines, ("key", name), setting, value, end)
    for key in add:
        headers = [number for path, number in _lines(lines).items() if path.startswith("key.") and path.count(".") == 1]
        place = _end_of_table(lines, max(headers)) if headers else len(lines)
        lines[place:place] = [end, *(line + end for line in block(key))]
    return "".join(lines)


def _set(lines: list[str], table: tuple[str, ...], key: str, value: Any, end: str) -> None:
    """Write `key = value` over the line that says it now, keeping what follows a `#`; else at the table's end."""
    known = _lines(lines)
    if number := known.get(dotted(*table, key)):
        before, _, rest = lines[number - 1].partition("=")
        _, mark, comment = rest.partition("#")
        lines[number - 1] = f"{before}= {_toml(value)}" + (f"  #{comment}" if mark else end)
    elif header := known.get(dotted(*table)):
        lines.insert(_end_of_table(lines, header), f"{key} = {_toml(value)}{end}")


def _lines(lines: Sequence[str]) -> dict[str, int]:
    return schema.key_lines("".join(lines))


def _end_of_table(lines: Sequence[str], header: int) -> int:
    """The index after the last line that says something in the table whose header is line `header` (from 1)."""
    last = header
    for number in range(header + 1, len(lines) + 1):
        said = lines[number - 1].strip()
        if said.startswith("[") and said.partition("#")[0].rstrip().endswith("]"):
            break
        if said and not said.startswith("#"):
            last = number
    return last


def _by_hand(add: Sequence[TrustedKey], changes: Changes, version: int) -> list[str]:
    lines = [f"version = {version}"]
    for name, values in changes.items():
        lines += [f"[{dotted('key', name)}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return [*lines, *(line for key in add for line in block(key))]


def _toml(value: Any) -> str:
    """A value as TOML writes it; texts here hold neither quotes nor backslashes (keys, roles)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        from factory.trust.statements import time_text

        return time_text(value)
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
