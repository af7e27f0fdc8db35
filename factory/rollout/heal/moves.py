"""What a run of healing is given, and what it answers: limits, moves, ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from factory.rollout.drift import Kind
from factory.rollout.heal.progress import Progress
from factory.rollout.model import Action

ALL = frozenset(Kind)
SCALES = frozenset({Kind.MISSING, Kind.EXTRA})


@dataclass(frozen=True)
class Limits:
    """How far a run may go. `budget`: so many may be launched, and so many retired, those that failed not counted;
    None: no bound. `breaker`: after so many replacements that failed nothing more is launched. `mends`: what is to be
    done something about."""

    budget: int | None = None
    breaker: int = 3
    mends: frozenset[Kind] = ALL


class End(StrEnum):
    """How a run ended."""

    DONE = "done"
    BUDGET = "budget"
    BREAKER = "breaker"
    REFUSED = "refused"
    STUCK = "stuck"


@dataclass(frozen=True)
class Move:
    """What is to be done now. `end`: nothing any more, and how it ended; `why`: the sentence for it."""

    progress: Progress
    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()
    end: End | None = None
    why: str = ""
