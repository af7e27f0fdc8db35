"""What is signed of an image, judged by this checkout's policy, for those who read and not for those who deploy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from factory.digest import Digest
from factory.errors import FactoryError
from factory.model import Layout
from factory.release import dossier


@dataclass(frozen=True)
class Signed:
    """One thing that was judged. `what`: as factory attest verify names it. `signers`: names of the keys whose
    signatures count; `problem`: why it does not hold, None where it does."""

    what: str
    envelope: Digest | None
    at: datetime | None
    signers: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True)
class Judgement:
    """`refused`: why nothing could be judged at all (no ticket, no policy, revocations not to be believed)."""

    signed: tuple[Signed, ...] = ()
    refused: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return self.refused is None and all(one.problem is None for one in self.signed)


def judge(layout: Layout, digest: Digest, now: datetime) -> Judgement:
    """Every statement about an image that is at hand, one by one. Never raises for what is wrong with them."""
    try:
        found = dossier.verify(layout, digest, None, now)
    except FactoryError as error:
        return Judgement(refused=error.message)
    return Judgement(
        tuple(
            Signed(one.what, one.envelope, one.at, one.signers, None if one.problem is None else one.problem.message)
            for one in found.findings
        )
    )
