"""A fleet and its rollout as a person reads them: lines of a tree, as many and as wide as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from factory.digest import Digest
from factory.rollout.model import TERMINAL, Instance, Plan, State, Status
from factory.rollout.picture import Picture, nobody_drives, waiting, wanted_weights

MOST_ROWS = 60
_NARROW = 72
"""In fewer columns an instance is shown without its address, and digests are shortened further."""

_MOODS = {State.SUCCEEDED: "good", State.ROLLED_BACK: "bad", State.ROLLBACK_FAILED: "bad"}


@dataclass(frozen=True)
class Line:
    """A line of the tree. `mood`: good, bad, soft, strong or plain; how it is coloured is for who prints it."""

    text: str
    mood: str = "plain"


@dataclass(frozen=True)
class Room:
    """How much there is for a tree."""

    columns: int = 100
    rows: int = MOST_ROWS

    @property
    def is_narrow(self) -> bool:
        """Whether less is said in a line."""
        return self.columns < _NARROW

    def digest(self, digest: Digest | None) -> str:
        """A digest, shortened."""
        if digest is None:
            return "of an unknown image"
        return digest[7:19] if self.is_narrow else f"{digest[:19]}…"


def tree(picture: Picture, room: Room | None = None) -> list[Line]:
    """A fleet as a person reads it: its rollout, its generations, their instances, why it waits."""
    room = room or Room()
    plan, status = picture.plan, picture.status
    lines = [Line(f"fleet {picture.fleet.name}  {picture.fleet.image} on {picture.fleet.provider}", "strong")]
    if plan is not None and status is not None:
        lines += list(_rollout(picture, plan, status, room))
    else:
        lines.append(Line("no rollout yet", "soft"))
    if picture.unseen is not None:
        lines.append(Line(f"its instances cannot be seen: {picture.unseen}", "bad"))
    numbers = sorted({one.generation for one in picture.observed.instances}, reverse=True)
    left = room.rows - len(lines) - len(numbers)
    for place, number in enumerate(numbers):
        most = max(1, left // (len(numbers) - place))
        shown = list(_generation(picture, number, room, most, is_last=place == len(numbers) - 1))
        left -= len(shown) - 1
        lines += shown
    return lines


def _rollout(picture: Picture, plan: Plan, status: Status, room: Room) -> Iterator[Line]:
    step = "" if status.state in TERMINAL else f"  step {status.step + 1} of {len(plan.stages)}"
    was = "nothing" if plan.old is None else room.digest(plan.old.digest)
    yield Line(f"{status.state}{step}  rollout {plan.rollout}", _MOODS.get(status.state, "strong"))
    how = f"{plan.fleet.strategy}, back to what ran before" if plan.back else plan.fleet.strategy
    yield Line(f"  {how}: {was} -> {room.digest(plan.target.digest)}", "soft")
    if status.reason:
        yield Line(f"  {status.reason}", "bad")
    if picture.next_step is not None:
        yield Line(f"  next: {picture.next_step}", "strong")
    if (why := waiting(picture)) is not None:
        yield Line(f"  waits: {why}", "bad" if status.paused or status.ill_since is not None else "plain")
    if status.state not in TERMINAL and status.no_return_at is not None:
        yield Line("  past the point of no return", "soft")
    if status.state not in TERMINAL and not picture.driven:
        yield Line(f"  {nobody_drives(picture.fleet.name)}", "bad")


def _generation(picture: Picture, number: int, room: Room, most: int, *, is_last: bool) -> Iterator[Line]:
    there = sorted(picture.observed.of(number), key=lambda one: one.id)
    healthy = sum(picture.is_healthy(one) is True for one in there)
    weight, wanted = picture.observed.weights.get(number, 0), wanted_weights(picture).get(number, 0)
    sent = f"{weight}%" + ("" if room.is_narrow else " of the traffic")
    sent += "" if abs(weight - wanted) <= 1 else f" (wanted: {wanted}%)"
    role = _role(picture, number)
    yield Line(f"{'└─' if is_last else '├─'} generation {number}{role}  {sent}, {healthy} of {len(there)} healthy")
    shown = _chosen(picture, there, most)
    before = "   " if is_last else "│  "
    for place, one in enumerate(shown):
        ends = place == len(shown) - 1 == len(there) - 1
        yield _instance(picture, one, room, f"{before}{'└─' if ends else '├─'} ")
    if len(there) > len(shown):
        yield Line(f"{before}└─ {len(there) - len(shown)} more", "soft")


def _role(picture: Picture, number: int) -> str:
    plan, status = picture.plan, picture.status
    if plan is None or status is None or status.state in TERMINAL:
        return ""
    roles = {plan.generation: " (new)", plan.old_generation: " (old)", plan.baseline_generation: " (baseline)"}
    return roles.get(number, "")


def _chosen(picture: Picture, there: Sequence[Instance], most: int) -> list[Instance]:
    """As many as there is room for; those that are not healthy before the others."""
    if len(there) <= most:
        return list(there)
    return sorted(there, key=lambda one: (picture.is_healthy(one) is True, one.id))[: max(0, most - 1)]


def _instance(picture: Picture, one: Instance, room: Room, before: str) -> Line:
    is_healthy, is_warming = picture.is_healthy(one), _is_warming(picture, one)
    words = {True: "healthy", False: "not healthy yet" if is_warming else "not healthy", None: ""}[is_healthy]
    answer = picture.answers.get(one.id)
    said = one.why or (answer.why if answer is not None else "")
    why = f": {said}" if is_healthy is False and said else ""
    parts = [
        one.id,
        "" if room.is_narrow and one.digest else room.digest(one.digest),
        one.state if one.state != "running" or not words else "",
        words + why if one.state == "running" else "",
        "" if room.is_narrow else one.address or "",
        "" if one.sessions is None else f"{one.sessions} session{'' if one.sessions == 1 else 's'}",
    ]
    is_bad = is_healthy is False and one.state == "running" and not is_warming
    mood = "good" if is_healthy else "bad" if is_bad else "soft"
    return Line(before + "  ".join(part for part in parts if part), mood)


def _is_warming(picture: Picture, one: Instance) -> bool:
    """Whether it is new, and waited for to become healthy."""
    plan, status = picture.plan, picture.status
    if plan is None or status is None or status.state not in (State.LAUNCHING, State.WARMING):
        return False
    return one.generation in (plan.generation, plan.baseline_generation)
