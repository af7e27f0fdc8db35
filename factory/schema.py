"""Reads files people write: TOML into typed values, every fault of a file collected before one error is raised.

Owns the parsing of TOML, the table reader, and how a fault is told: file, line, key path, what is wrong, the nearest
valid spelling. It knows nothing of images: which keys there are is said by its caller (spec.py). Never stops at the
first fault, except where the file is no TOML at all. A getter that found a fault notes it and returns a value of the
right type, so that its caller reads on; that value is never seen outside, because `Faults.check` raises.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from factory.errors import SpecError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_TOML_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)\Z")
_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")


@dataclass(frozen=True)
class Limits:
    """What a text may be: never empty; one of `choices`, or wholly matched by `pattern` (`described` to people)."""

    choices: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    described: str = ""


ANY_TEXT = Limits()


@dataclass(frozen=True)
class Range:
    """What a number may be: from `least` (with `above`: more than that) to `most`."""

    least: float
    most: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.least < value if self.above else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        least, most = (f"{bound:.12g}" for bound in (self.least, self.most))
        return f"more than {least} and at most {most}" if self.above else f"{least} to {most}"

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, and the nearest that is right; None where nothing is."""
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be a number, is {value}"
        if value in self:
            return None
        near = self.most if value > self.most else None if self.above else self.least
        return f"must be {self}, is {quoted(value)}" + ("" if near is None else f" (nearest: {near:.12g})")


def load(path: Path) -> tuple[dict[str, Any], Faults]:
    """The tables of a TOML file and an empty list of faults for it. SpecError: not there, unreadable, not TOML."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SpecError(
            f"there is no {path.name} here",
            where=str(path),
            hint="name the factory's folder with -C DIR, or lay out a new one: factory init DIR",
        ) from None
    except OSError as error:
        raise SpecError(f"cannot read {path.name}: {error.strerror}", where=str(path)) from error
    return parse(raw, path.name)


def parse(raw: bytes, name: str) -> tuple[dict[str, Any], Faults]:
    """The tables of TOML bytes, read from a file called `name`, and an empty list of faults. SpecError: not TOML."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{name}:{line}: this is not UTF-8 text", where=f"{name}:{line}") from error
    try:
        return tomllib.loads(text), Faults(name, text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(name, text, str(error)) from error
    except ValueError as error:  # a number of thousands of digits
        raise SpecError(f"{name}: a value cannot be read: {error}", where=name) from error
    except RecursionError as error:
        raise SpecError(f"{name}: its values are nested too deeply", where=name) from error


def _syntax_error(file: str, text: str, said: str) -> SpecError:
    place = _TOML_PLACE.search(said)
    lines = text.split("\n")
    line, column = (int(place[1]), int(place[2])) if place else (len(lines), len(lines[-1]) + 1)
    reason = _TOML_PLACE.sub("", said).replace("(at end of document)", "").strip()
    return SpecError(
        f"{file}:{line}:{column}: not valid TOML: {reason}", where=f"{file}:{line}:{column}", hint="mend that line"
    )


def key_lines(text: str) -> dict[str, int]:
    """Where keys are written: path -> line, from 1. A guess by line shape, good for pointing and for nothing else."""
    lines: dict[str, int] = {}
    table: tuple[str, ...] = ()
    fence: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if fence is None:
            if header := _HEADER.match(line):
                table = _parts(header[1])
                lines.setdefault(dotted(*table), number)
            elif assignment := _ASSIGNMENT.match(line):
                lines.setdefault(dotted(*table, *_parts(assignment[1])), number)
        for quotes in ('"""', "'''"):
            if (fence is None or fence == quotes) and line.count(quotes) % 2:
                fence = None if fence else quotes
    return lines


def _parts(written: str) -> tuple[str, ...]:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_KEY, written))


def dotted(*parts: str) -> str:
    """A key's path as people write it: `image.web.disk_mib`, parts that are not bare keys quoted."""
    return ".".join(part if _BARE_KEY.match(part) else f'"{_shown(part)}"' for part in parts)


def _shown(text: str) -> str:
    """`text` with no character that could disturb a terminal, cut where it is long."""
    safe = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return safe if len(safe) <= 80 else safe[:77] + "..."


def quoted(value: object) -> str:
    """A value for a message: one line, printable, not long."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return f'"{_shown(value)}"' if isinstance(value, str) else _shown(str(value))


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid spelling closest to `word`, or None where nothing is near."""
    import difflib  # only errors need it

    candidates = list(valid)
    folded = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def suggestion(word: str, valid: Iterable[str]) -> str:
    """What to write in place of `word`: `did you mean "web"?`, else the valid words, else that there are none."""
    candidates = sorted(set(valid))
    near = nearest(word, candidates)
    if near is not None:
        return f'did you mean "{near}"?'
    if not candidates:
        return "there are none"
    return "valid: " + ", ".join(candidates[:12]) + (", …" if len(candidates) > 12 else "")


@dataclass
class Faults:
    """Everything wrong with one file, in the order it was found."""

    file: str
    text: str = ""
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, problem: str) -> None:
        """Note a fault at a key path."""
        self.found.append((path, problem))

    @cached_property
    def _lines(self) -> dict[str, int]:
        return key_lines(self.text)

    def place(self, path: str) -> str:
        """`file:line` of a key, of its table where only that is known, else just the file."""
        lines = self._lines
        line = lines.get(path)
        while line is None and "." in path:
            path = path.rpartition(".")[0]
            line = lines.get(path)
        return self.file if line is None else f"{self.file}:{line}"

    def check(self) -> None:
        """Raise one SpecError that lists every fault; nothing where there is none."""
        if not self.found:
            return
        told = [f"{self.place(path)}: {path}: {problem}" for path, problem in dict.fromkeys(self.found)]
        first = self.found[0][0]
        heading = [] if len(told) == 1 else [f"{self.file} has {len(told)} errors:"]
        raise SpecError(
            "\n".join(heading + told),
            where=f"{self.place(first)} {first}",
            hint=f"correct {self.file}; nothing was written",
        )


class Table:
    """One table of the file: typed getters, each noting its faults; `close` notes the keys nobody asked for."""

    def __init__(self, data: Mapping[str, Any], path: tuple[str, ...], faults: Faults) -> None:
        self._data = data
        self._path = path
        self._asked: set[str] = set()
        self.faults = faults

    def at(self, *keys: str) -> str:
        """The path of a key of this table."""
        return dotted(*self._path, *keys) or "(top level)"

    def has(self, key: str) -> bool:
        """Whether the key is written."""
        return key in self._data

    def peek(self, key: str) -> Any:
        """What is written there, whatever it is; None where nothing is. It is still to be asked for."""
        return self._data.get(key)

    def fault(self, key: str, problem: str) -> None:
        """Note a fault of a key's value."""
        self.faults.add(self.at(key), problem)

    def take(self, key: str, kind: type | tuple[type, ...], described: str, *, required: bool = False) -> Any:
        """The key's value if it is there and of the kind, else None and (unless just absent) a fault."""
        self._asked.add(key)
        if key not in self._data:
            if required:
                self.faults.add(self.at(), f'the key "{key}" is missing ({described})')
            return None
        value = self._data[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fault(key, f"must be {described}, is {_type_name(value)}")
            return None
        return value

    def text(self, key: str, limits: Limits = ANY_TEXT, *, default: str = "", required: bool = False) -> str:
        """A string within limits."""
        value = self.optional_text(key, limits, required=required)
        return default if value is None else value

    def optional_text(self, key: str, limits: Limits = ANY_TEXT, *, required: bool = False) -> str | None:
        """A string within limits; None where it is absent (or faulty)."""
        value = self.take(key, str, "a string", required=required)
        return value if value is not None and self._within(key, value, limits) else None

    def texts(self, key: str, limits: Limits = ANY_TEXT, *, least: int = 0) -> tuple[str, ...] | None:
        """A list of `least` or more strings, each within limits and there once; None where absent (or no list)."""
        values = self.take(key, list, "a list of strings")
        if values is None:
            return None
        if len(values) < least:
            self.fault(key, f"must name at least {least}" + (f" of {', '.join(limits.choices)}" * bool(limits.choices)))
        kept: list[str] = []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self.fault(key, f"its item {index + 1} must be a string, is {_type_name(value)}")
            elif value in kept:
                self.fault(key, f"{quoted(value)} stands there twice")
            elif self._within(key, value, limits):
                kept.append(value)
        return tuple(kept)

    def integer(self, key: str, *, default: int) -> int:
        """A whole number."""
        value = self.take(key, int, "a whole number")
        return default if value is None else int(value)

    def whole(self, key: str, within: Range, *, default: int | None = None) -> int:
        """A whole number within a range; required where there is no default. A faulty one counts as the least."""
        value = self.take(key, int, "a whole number", required=default is None)
        return int(self._ranged(key, value, within, default))

    def number(self, key: str, within: Range, *, default: float | None = None) -> float:
        """A finite number, whole or decimal, within a range; required where there is no default."""
        value = self.take(key, (int, float), "a number", required=default is None)
        return float(self._ranged(key, value, within, default))

    def _ranged(self, key: str, value: float | None, within: Range, default: float | None) -> float:
        if value is None:
            return within.least if default is None else default
        if problem := within.problem(value):
            self.fault(key, problem)
            return within.least
        return value

    def truth(self, key: str) -> bool:
        """true or false; false where it is absent."""
        return bool(self.take(key, bool, "true or false"))

    def integers(self, key: str, least: int, most: int) -> tuple[int, ...] | None:
        """A list of whole numbers in [least, most], each there once; None where it is absent (or no list)."""
        values = self.take(key, list, "a list of whole numbers")
        if values is None:
            return None
        kept: list[int] = []
        for index, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool):
                self.fault(key, f"its item {index + 1} must be a whole number, is {_type_name(value)}")
            elif not least <= value <= most:
                close = min(max(value, least), most)
                self.fault(key, f"{quoted(value)} is out of range {least} to {most} (nearest: {close})")
            elif value in kept:
                self.fault(key, f"{value} stands there twice")
            else:
                kept.append(value)
        return tuple(kept)

    def table(self, key: str) -> Table:
        """A table below this one; an empty one where it is absent."""
        return Table(self.take(key, dict, "a table") or {}, (*self._path, key), self.faults)

    def list_of_tables(self, key: str) -> tuple[Table, ...]:
        """The tables of a list, counted from 1 in their paths; none where it is absent."""
        found = []
        for number, value in enumerate(self.take(key, list, "a list of tables") or (), start=1):
            if isinstance(value, dict):
                found.append(Table(value, (*self._path, key, str(number)), self.faults))
            else:
                self.fault(key, f"its item {number} must be a table, is {_type_name(value)}")
        return tuple(found)

    def tables(self, names: Limits) -> dict[str, Table]:
        """All keys of this table as tables, where each key is a name that people choose."""
        found: dict[str, Table] = {}
        for name in self._data:
            if names.pattern is not None and not names.pattern.fullmatch(name):
                near = re.sub(r"[^a-z0-9-]+", "-", name.lower())[:63]
                hint = f' (nearest: "{near}")' if names.pattern.fullmatch(near) else ""
                self.faults.add(self.at(name), f"{quoted(name)} is no name: {names.described}{hint}")
                self._asked.add(name)
            elif isinstance(self._data[name], dict):
                found[name] = self.table(name)
            else:
                self.take(name, dict, "a table")
        return found

    def close(self, valid: Sequence[str]) -> None:
        """Note every key that is not in `valid`."""
        for key in self._data:
            if key not in valid and key not in self._asked:
                self.faults.add(self.at(key), f'unknown key "{_shown(key)}"; {suggestion(key, valid)}')

    def _within(self, key: str, value: str, limits: Limits) -> bool:
        if not value:
            self.fault(key, "must not be empty")
            return False
        if limits.choices and value not in limits.choices:
            self.fault(key, f"{quoted(value)} is not one of them; {suggestion(value, limits.choices)}")
            return False
        if limits.pattern is not None and not limits.pattern.fullmatch(value):
            self.fault(key, f"{quoted(value)} must be {limits.described}")
            return False
        return True


def _type_name(value: object) -> str:
    names: dict[type, str] = {
        bool: "true or false", int: "a whole number", float: "a decimal number", str: "a string", list: "a list",
        dict: "a table",
    }  # fmt: skip
    return names.get(type(value), "a date or time")
