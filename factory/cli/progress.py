"""How a bake looks while it runs: on a terminal one live line per image, elsewhere a line per stage."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from dataclasses import dataclass, field

from factory.cli import output

_MARKS = {"baked": ("✓", "green"), "verified": ("✓", "green"), "unchanged": ("·", "dim")}
_FAILED = ("✗", "red")
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_S = 0.2


@dataclass
class _Line:
    name: str
    started_at: float = field(default_factory=time.monotonic)
    stage: str = "waiting"
    detail: str = ""
    status: str | None = None
    ended_at: float | None = None

    def text(self, tick: int, width: int) -> str:
        elapsed = (self.ended_at or time.monotonic()) - self.started_at
        if self.status is None:
            mark = output.colour(_SPINNER[tick % len(_SPINNER)], "cyan")
        else:
            mark = output.colour(*_MARKS.get(self.status, _FAILED))
        words = f"{self.name:<{width}}  {self.status or self.stage:<10} {elapsed:6.1f} s"
        detail = f"  {self.detail}" if self.detail else ""
        room = shutil.get_terminal_size().columns - len(words) - 4
        return f"{mark} {words}{output.colour(detail[: max(room, 0)], 'dim')}"


class Progress:
    """Shows stages as they go by. Any thread may call it; use it as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._live = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._lines: dict[str, _Line] = {}
        self._drawn = 0
        self._guard = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._live:
            self._thread = threading.Thread(target=self._draw_until_stopped, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._draw(0)

    def stage(self, image: str, stage: str) -> None:
        """An image enters a stage."""
        with self._guard:
            line = self._lines.setdefault(image, _Line(image))
            line.stage, line.detail = stage, ""
            if not self._live and not self._quiet:
                output.say(f"{image}: {stage}")

    def detail(self, image: str, detail: str) -> None:
        """What goes on inside the stage: the task that runs."""
        with self._guard:
            self._lines.setdefault(image, _Line(image)).detail = detail

    def done(self, image: str, status: str, detail: str = "") -> None:
        """An image has ended."""
        with self._guard:
            line = self._lines.setdefault(image, _Line(image))
            line.status, line.detail, line.ended_at = status, detail, time.monotonic()
            if not self._live and not self._quiet:
                output.say(f"{image}: {status}" + (f" ({detail})" if detail else ""))

    def note(self, text: str) -> None:
        """A line that stays, above the live ones."""
        with self._guard:
            self._erase()
            if not self._quiet:
                output.say(text)

    def _draw_until_stopped(self) -> None:
        tick = 0
        while not self._stop.wait(_TICK_S):
            self._draw(tick)
            tick += 1

    def _draw(self, tick: int) -> None:
        with self._guard:
            self._erase()
            width = max((len(name) for name in self._lines), default=0)
            for line in self._lines.values():
                sys.stderr.write(line.text(tick, width) + "\n")
            self._drawn = len(self._lines)
            sys.stderr.flush()

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0
