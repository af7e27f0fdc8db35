"""What must be done, in which order, and why: pure functions of facts. Nothing here reads a file or starts anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from factory.bake.key import BESIDE_THE_KEY, Inputs
from factory.model import LockedImage

UNCHANGED, BAKE, VERIFY, FETCH = "unchanged", "bake", "verify", "fetch"


@dataclass(frozen=True)
class Change:
    """One input that differs from the locked bake; `part` is the file, variable or package inside it, if known."""

    input: str
    part: str | None
    locked: str | None
    now: str | None

    def as_json(self) -> dict[str, str | None]:
        """The entry of `factory why --json`."""
        return {"input": self.input, "path": self.part, "locked": self.locked, "now": self.now}

    def __str__(self) -> str:
        if self.part is None:
            return self.input
        verb = "added" if self.locked is None else "removed" if self.now is None else "changed"
        return f"{self.input}: {self.part} {verb}"


@dataclass(frozen=True)
class Decision:
    """What to do with one image: unchanged, bake, verify (its checks changed) or fetch (its bytes are elsewhere)."""

    action: str
    reasons: tuple[str, ...] = ()


def decide(
    inputs: Inputs, locked: LockedImage | None, *, present: bool, forced: bool, objection: str | None = None
) -> Decision:
    """What to do with an image whose parent is done. `present`: all its locked artifacts are in the store here.

    `objection`: why what is signed for it does not count, None where it does.
    """
    if locked is None:
        return Decision(BAKE, ("never baked",))
    if forced:
        return Decision(BAKE, ("forced",))
    if inputs.bake_key != locked.bake_key:
        return Decision(BAKE, tuple(f"{name} changed" for name in changed_inputs(inputs, locked)) or ("key changed",))
    if not present:
        return Decision(FETCH, ("its artifact is not in the store here",))
    if inputs.digests["checks"] != locked.inputs.get("checks"):
        return Decision(VERIFY, ("checks changed",))
    if objection is not None:
        return Decision(VERIFY, (f"to be signed: {objection}",))
    return Decision(UNCHANGED)


def changed_inputs(inputs: Inputs, locked: LockedImage, *, all_of_them: bool = False) -> tuple[str, ...]:
    """The names of the inputs that differ; those beside the key only with `all_of_them`."""
    return tuple(
        name
        for name, value in inputs.digests.items()
        if value != locked.inputs.get(name) and (all_of_them or name not in BESIDE_THE_KEY)
    )


def changes(inputs: Inputs, locked: LockedImage, recorded: Mapping[str, Mapping[str, str]] | None) -> list[Change]:
    """Every difference between what is now and the locked bake, down to its parts where `recorded` still has them."""
    found: list[Change] = []
    now = inputs.digests
    for name in changed_inputs(inputs, locked, all_of_them=True):
        before, after = (recorded or {}).get(name), inputs.parts[name]
        if before is None:
            found.append(Change(name, None, locked.inputs.get(name), now[name]))
            continue
        found.extend(
            Change(name, part, before.get(part), after.get(part))
            for part in sorted(before.keys() | after.keys())
            if before.get(part) != after.get(part)
        )
    return found
