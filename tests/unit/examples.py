"""How many examples a property is tried with: few in `make test`, many in `make soak` (tests/conftest.py)."""

from __future__ import annotations

from hypothesis import settings

_USUAL = 100


def some(count: int) -> int:
    """So many examples, and in a soak as many times more as its profile has more than Hypothesis's usual 100.

    For `max_examples` of a test, which otherwise would beat the profile's.
    """
    return count * settings().max_examples // _USUAL
