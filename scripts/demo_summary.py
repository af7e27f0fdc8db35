"""What `make demo` made and what to try next, from the document of `factory bake --json`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

FACTORY = ".venv/bin/factory"

NEXT = (
    (f"{FACTORY} resolve web", "the one trusted image for a deploy job, or the reason why not"),
    (f"{FACTORY} attest show web", "what was signed of it, and by whom"),
    (f"{FACTORY} boot web", "a disposable guest of it to look around in; Ctrl-C ends it"),
    (f"{FACTORY} verify web", "boot the stored file again and run its checks"),
    (f"{FACTORY} logs web", "its tasks, its checks, where its console log is"),
    (f"{FACTORY} why web", "what differs from its locked bake: nothing, until you change something"),
    ("git diff --stat images.lock trust", "what was baked and signed, for review"),
)
CHANGE = (
    ("echo '<p>Hello.</p>' >> playbooks/roles/web/templates/index.html.j2", ""),
    (f"{FACTORY} why web", "names the file"),
    (f"{FACTORY} bake --dry-run", "only web would be baked; base and hardened stay"),
    (f"{FACTORY} bake", "and does it"),
)


def main() -> int:
    """Print the summary; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="the JSON document of `factory bake --json`")
    parser.add_argument("--refreshed", action="store_true", help="the pins were refreshed before the bake")
    chosen = parser.parse_args()
    images: list[dict[str, Any]] = json.loads(chosen.report.read_text())["images"]
    lines = [_headline(images, refreshed=chosen.refreshed), ""]
    lines += _table(images)
    lines += [
        "",
        "Each of them booted and passed its checks before it was signed and images.lock named it.",
        "",
        _bold("Try next"),
    ]
    lines += _commands(NEXT)
    lines += ["", _bold("Change a task, and only what depends on it is baked again")]
    lines += _commands(CHANGE)
    sys.stdout.write("\n".join(["", *lines, ""]))
    return 0


def _headline(images: list[dict[str, Any]], *, refreshed: bool) -> str:
    worked = [image["name"] for image in images if image["status"] != "unchanged"]
    if not worked:
        return _bold("Nothing needed to be baked: no input has changed since images.lock was written.")
    pins = ", with the package versions that are offered now" if refreshed else ""
    return _bold(f"{len(worked)} of {len(images)} images baked{pins}: {', '.join(worked)}")


def _table(images: list[dict[str, Any]]) -> list[str]:
    rows = [("image", "status", "digest", "form", "size", "took", "file")]
    for image in images:
        for form, artifact in image["artifacts"].items():
            size = artifact["size_bytes"]
            rows.append(
                (
                    image["name"],
                    image["status"],
                    image["digest"][:19],
                    form,
                    f"{size / 2**20:.0f} MiB" if size else "",
                    _duration(image["duration_s"]),
                    _short(artifact["path"] or artifact["digest"]),
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [_bold(lines[0]), *lines[1:]]


def _short(path: str) -> str:
    """A path relative to this folder, shortened so that a shell still finds it."""
    folder, _, name = path.removeprefix(f"{Path.cwd()}/").rpartition("/")
    return f"{folder}/{name[:12]}*" if folder else name[:19]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes and not rest:
        return "-"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _commands(commands: tuple[tuple[str, str], ...]) -> list[str]:
    width = max(len(command) for command, said in commands if said)
    return [f"  {command.ljust(width)}   {said}".rstrip() for command, said in commands]


def _bold(text: str) -> str:
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return text if plain else f"\x1b[1m{text}\x1b[0m"


if __name__ == "__main__":
    sys.exit(main())
