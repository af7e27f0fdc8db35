"""`make soak`: kill -9 of bakes and of rollouts for as long as asked, and what leaks, is lost, or ends otherwise.

    python -m benchmarks.soak [bake] [rollouts] --minutes N [--seed N] [--factory DIR] [--scratch DIR] [--keep]

Both where nothing is named; each has an even share of the minutes. Exit 1 where anything was found.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import soak_bakes, soak_rollouts
from benchmarks.scratch import REPOSITORY, copy_of, empty
from factory import namespace


def _bakes(chosen: argparse.Namespace, minutes: float) -> bool:
    with copy_of(chosen.factory.resolve(), chosen.scratch / "factory", keep=chosen.keep) as layout:
        return soak_bakes.soak(layout, minutes, chosen.seed)


def _rollouts(chosen: argparse.Namespace, minutes: float) -> bool:
    with empty(chosen.scratch / "rollouts", keep=chosen.keep) as layout:
        return soak_rollouts.soak(layout.root, minutes, chosen.seed)


SOAKS: Mapping[str, Callable[[argparse.Namespace, float], bool]] = {"rollouts": _rollouts, "bake": _bakes}
"""In this order: who soaks bakes inherits what others leave running, and guests are to be nobody's children."""


def main() -> int:
    """Soak; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"of {', '.join(SOAKS)}  [default: all]")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="the same moments, as far as it goes"
    )
    parser.add_argument("--factory", type=Path, default=REPOSITORY, help="the factory that is copied")
    parser.add_argument("--scratch", type=Path, default=REPOSITORY / ".factory" / "soak", help="where the copy goes")
    parser.add_argument("--keep", action="store_true", help="keep what was soaked")
    chosen = parser.parse_args()
    if unknown := set(chosen.what) - SOAKS.keys():
        parser.error(f"nothing to soak is called {', '.join(sorted(unknown))}")
    chosen.scratch = chosen.scratch.resolve()
    what = [name for name in SOAKS if name in chosen.what or not chosen.what]
    print(f"seed {chosen.seed}", flush=True)
    namespace.remove(chosen.scratch)
    is_well = [SOAKS[name](chosen, chosen.minutes / len(what)) for name in what]
    if not chosen.keep:
        namespace.remove(chosen.scratch)
    return 0 if all(is_well) else 1


if __name__ == "__main__":
    sys.exit(main())
