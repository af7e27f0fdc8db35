"""`make clean`: removes what a factory keeps here (`.factory`: store, caches, logs, catalog), and says what it removed.

Trees there may belong to the subuids of an ordinary user, so they are removed from inside a namespace. What must not go
stays: the secrets of the user (`.factory/secrets`), and everything while a run is at work.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.scratch import REPOSITORY, size_bytes
from factory import namespace
from factory.bake import journal
from factory.errors import FactoryError
from factory.model import Layout

_KEPT = ("secrets", "keys")


def main() -> int:
    """Remove it; 7 where a run is at work, 3 where something cannot be removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factory", type=Path, default=REPOSITORY, help="the factory to clean")
    layout = Layout(parser.parse_args().factory.resolve())
    if not layout.state.is_dir():
        print("nothing to remove: there is no .factory here")
        return 0
    if alive := [run.name for run in sorted(layout.runs.glob("*/")) if journal.is_alive(run)]:
        print(f"error: a run is at work here: {', '.join(alive)}\nhint: let it end, or end it", file=sys.stderr)
        return 7
    try:
        _remove(layout)
    except FactoryError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    print("images.lock stays: `factory bake` makes the same images again")
    return 0


def _remove(layout: Layout) -> None:
    total = 0
    for path in sorted(layout.state.iterdir()):
        if path.name in _KEPT:
            print(f"  kept     {'':>9}  .factory/{path.name}")
            continue
        size = size_bytes(path) if path.is_dir() else path.stat().st_blocks * 512
        namespace.remove(path)
        total += size
        print(f"  removed  {_mib(size):>9}  .factory/{path.name}")
    if not any(layout.state.iterdir()):
        layout.state.rmdir()
    print(f"removed {_mib(total)}")


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
