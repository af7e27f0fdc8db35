"""Namespaces: where trees of root-owned files are worked on, as root or as an ordinary user with subuids.

`command` wraps an argument list so that it runs as (mapped) root in mount, pid and uts namespaces of its own. They
vanish with the process: kill -9 of anything around them leaves no mount and no process behind. A file written there
by an ordinary user belongs to one of its subuids, so only another such namespace can read or remove it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from factory import proc


def is_root() -> bool:
    """Whether we run as the real (or a mapped) root."""
    return os.geteuid() == 0


def command(argv: Sequence[str], *, network: bool = True) -> list[str]:
    """`argv` run as root of namespaces of its own; without `network` it sees no network at all."""
    mapping = [] if is_root() else ["--map-auto", "--map-root-user"]
    isolated = [] if network else ["--net"]
    return [
        "unshare", *mapping, "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
        *isolated, "--", *argv,
    ]  # fmt: skip


def python(module: str, *args: str) -> list[str]:
    """An argument list that runs one of our modules with this very interpreter."""
    return [sys.executable, "-m", module, *args]


def remove(path: Path) -> None:
    """Remove a folder whatever user of the namespace owns what is in it. Nothing there is fine."""
    if path.exists() or path.is_symlink():
        proc.run(command(["rm", "-rf", "--one-file-system", "--", str(path)], network=False))
