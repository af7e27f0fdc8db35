"""Whether what is signed for the images of a lock counts in this checkout: a bake asks it of every image.

Reads policy, revocations and tickets, nothing else, so that a bake of nothing stays quick. A set of revocations past
its expiry is taken: only a deploy job must not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from factory.errors import TamperedError, TrustError, UnsignedError
from factory.model import Layout, LockedImage
from factory.trust import heads, policy, revocations, ticket
from factory.trust.authority import Authority
from factory.trust.reading import read_file
from factory.trust.ticket import Vouched


def objections(layout: Layout) -> Callable[[LockedImage], str | None]:
    """A question for locked images: why what is signed for one does not count; None where it does. Raises SpecError."""
    try:
        trusted = policy.loads(_read(layout, layout.policy, policy.MAX_BYTES), layout.policy.name)
        revoked = revocations.verify_unsafe_stale(_read(layout, layout.revocations, heads.MAX_BYTES), trusted)
    except TrustError as error:
        reason = error.message
        return lambda _: reason
    authority = Authority(trusted, revoked.compromised)

    def objection(locked: LockedImage) -> str | None:
        path = layout.tickets / f"{locked.name}-{locked.arch}.jsonl"
        try:
            found = ticket.loads(_read(layout, path, ticket.MAX_BYTES), f"trust/tickets/{path.name}")
            if locked.digest not in found:
                raise UnsignedError(f"it has no ticket in {path.name}")
            require_same(ticket.verify(found[locked.digest], locked.digest, authority), locked)
        except TrustError as error:
            return error.message
        return None

    return objection


def require_same(said: Vouched, locked: LockedImage) -> None:
    """What is signed for an image must be all that the lock says of it. Raises TamperedError."""
    signed = (said.name, said.arch, said.digest, said.bake_key, said.base, said.tree)
    natives = {artifact.place: artifact.native for artifact in said.artifacts}
    if signed != (locked.name, locked.arch, locked.digest, locked.bake_key, locked.base, locked.tree) or (
        natives != dict(locked.artifacts)
    ):
        raise TamperedError(
            f"what is signed for {locked.name}/{locked.arch} is not what images.lock says", where="images.lock"
        )


def _read(layout: Layout, path: Path, max_bytes: int) -> bytes:
    try:
        return read_file(path, str(path.relative_to(layout.root)), max_bytes=max_bytes, below=layout.root)
    except FileNotFoundError:
        raise UnsignedError(f"there is no {path.relative_to(layout.root)}") from None
