"""Whether what is signed for the images of a lock counts in this checkout: a bake asks it of every image.

Reads policy, revocations and tickets, nothing else, so that a bake of nothing stays quick. A set of revocations past
its expiry is taken: only a deploy job must not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from factory.digest import Digest
from factory.errors import RevokedError, TamperedError, TrustError, UnsignedError
from factory.model import Layout, LockedImage
from factory.trust import heads, judgement, policy, revocations, ticket
from factory.trust.authority import Authority
from factory.trust.reading import read_file
from factory.trust.revocations import Revocations
from factory.trust.ticket import Vouched


@dataclass(frozen=True)
class Vouching:
    """What counts in this checkout. `fault`: why nothing does, where policy or revocations cannot be believed."""

    layout: Layout
    authority: Authority | None = None
    revocations: Revocations | None = None
    fault: str | None = None
    _read: dict[Digest, Vouched] = field(default_factory=dict, repr=False, compare=False)

    def objection(self, locked: LockedImage) -> str | None:
        """Why what is signed for a locked image does not count; None where it does."""
        try:
            self._vouched(locked)
        except TrustError as error:
            return error.message
        return None

    def withdrawal(self, locked: LockedImage) -> str | None:
        """Why a locked image that is vouched for may not run: it or an ancestor is revoked; None where nothing is."""
        if self.revocations is None:
            return None
        try:
            self.revocations.refuse_revoked(locked.digest, self._vouched(locked).ancestors, datetime.now(UTC))
        except RevokedError as error:
            return error.message
        except TrustError:
            pass
        return None

    def _vouched(self, locked: LockedImage) -> Vouched:
        if self.authority is None:
            raise UnsignedError(self.fault or "nobody is trusted here")
        if (known := self._read.get(locked.digest)) is not None:
            require_same(known, locked)
            return known
        path = self.layout.tickets / f"{locked.name}-{locked.arch}.jsonl"
        found = ticket.loads(_read(self.layout, path, ticket.MAX_BYTES), f"trust/tickets/{path.name}")
        if locked.digest not in found:
            raise UnsignedError(f"it has no ticket in {path.name}")
        said = ticket.verify(found[locked.digest], locked.digest, self.authority)
        require_same(said, locked)
        return self._read.setdefault(locked.digest, said)


def read(layout: Layout) -> Vouching:
    """What counts, as trust/ has it now. Raises SpecError where the policy is no policy."""
    try:
        trusted = policy.loads(_read(layout, layout.policy, policy.MAX_BYTES), layout.policy.name)
        revoked = revocations.verify_unsafe_stale(_read(layout, layout.revocations, heads.MAX_BYTES), trusted)
    except TrustError as error:
        return Vouching(layout, fault=error.message)
    return Vouching(layout, Authority(trusted, revoked.compromised), revoked)


def require_same(said: Vouched, locked: LockedImage) -> None:
    """What is signed for an image must be all that the lock says of it. Raises TamperedError."""
    if (said.name, said.arch, said.digest) != (locked.name, locked.arch, locked.digest):
        raise TamperedError(
            f"what is signed for {locked.name}/{locked.arch} is not what images.lock says", where="images.lock"
        )
    judgement.require_same(locked, said)


def _read(layout: Layout, path: Path, max_bytes: int) -> bytes:
    try:
        return read_file(path, str(path.relative_to(layout.root)), max_bytes=max_bytes, below=layout.root)
    except FileNotFoundError:
        raise UnsignedError(f"there is no {path.relative_to(layout.root)}") from None
