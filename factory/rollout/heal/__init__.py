"""From how a fleet stands to what it should be: the next moves. Pure. Nothing is changed, only replaced.

What is missing or wrong is launched anew of the image that serves, and once that serves, what was wrong is drained and
retired. Where there is no room for that, one goes first. Always: what serves is not taken below the fleet's minimum (or
what serves now, if that is less), there are never more than its maximum, at most `budget` are replaced, at most
`breaker` replacements may fail, and whatever is waited for has an end. An action is what is to be, not what is to be
done; it is asked for until it is accepted and seen. What is remembered (`Progress`) is of one run: after a death the
next one sees what there is.
"""

from __future__ import annotations

from dataclasses import replace

from factory.rollout.drift import Standing
from factory.rollout.heal.moves import ALL, SCALES, End, Limits, Move
from factory.rollout.heal.progress import Progress, accepted, begin, seen
from factory.rollout.heal.turn import Turn

__all__ = ["ALL", "SCALES", "End", "Limits", "Move", "Progress", "accepted", "advance", "begin"]


def advance(standing: Standing, limits: Limits, progress: Progress, refused: str | None, now: float) -> Move:
    """The next move. `refused`: why the image that serves may not be launched."""
    progress, notes = seen(progress, standing, now)
    serving = standing.serving
    if serving is None:
        return Move(progress, (), notes, End.STUCK, "no rollout says what is to serve")
    refused = refused or standing.revoked.get(serving.image.digest)
    turn = Turn(standing, serving, limits, progress, refused, now)
    launch, progress = turn.launch(), turn.dismissed()
    notes += tuple(f"draining {name}" for name in sorted(progress.leaving.keys() - turn.progress.leaving.keys()))
    turn = replace(turn, progress=progress)
    actions = tuple(action for action in (launch, turn.shift(), turn.retire()) if action is not None)
    if actions or turn.waits():
        if now - progress.moved_at <= turn.patience_s:
            return Move(progress, actions, notes)
        return Move(progress, (), notes, End.STUCK, f"nothing has come of it for {turn.patience_s:g} s")
    end, why = turn.end()
    return Move(progress, (), notes, end, why)
