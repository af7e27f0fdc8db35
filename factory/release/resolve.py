"""`factory resolve`: the one trusted image for a deploy job. Reads few files, starts nothing, needs no network.

The judgement is trust/judgement.py's; here is what it is given: the deployer's policy, the lock, the papers in trust/
(of the checkout, or of a bundle), what was seen before; and whether the bytes are here and are what was signed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from factory import lockfile
from factory.digest import Digest, is_digest
from factory.errors import LockError, TamperedError, TrustError, UnsignedError, UsageError
from factory.model import Layout, LockedImage
from factory.store import Store
from factory.trust import heads, judgement, policy, reading, revocations, seen, signed_policy, ticket
from factory.trust.facts import Artifact
from factory.trust.policy import Policy

MAX_LOCK_BYTES = 64 << 20

CHECKOUT, FILE, DIGEST, SIGNED = "checkout", "file", "digest", "signed"


class Asked(NamedTuple):
    """What a deploy job asks. `now` is its clock; `bundle` stands for a folder that `factory export` wrote.

    `name` is NAME or NAME/ARCH; None only with a bundle, which holds one image. `frozen`: nobody bakes in this
    checkout, so a lock that cannot be read was tampered with.
    """

    name: str | None
    channel: str | None = None
    place: str | None = None
    policy: Path | None = None
    policy_digest: str | None = None
    seen: Path | None = None
    bundle: Path | None = None
    check_bytes: bool = False
    now: datetime | None = None
    frozen: bool = False


class ChosenPolicy(NamedTuple):
    """The policy that judges, and why it may.

    `source`: the deployer named its `file` or `digest`; root keys of the deployer's own file `signed` it, and it is
    newer; or, where nothing was named, the deployer trusts the `checkout`.
    """

    policy: Policy
    source: str


class Answer(NamedTuple):
    """The one image. `path` is None where its bytes are not here; `artifact` is its native id, or the file's digest."""

    name: str
    arch: str
    digest: Digest
    bake_key: Digest
    channel: str | None
    location: str
    artifact: str
    path: Path | None
    signers: tuple[str, ...]
    signer_keys: tuple[Digest, ...]
    ancestors: tuple[Digest, ...]
    baked_at: datetime
    verified_at: datetime
    policy: Digest
    policy_source: str
    policy_version: int
    rollback: str
    development: bool

    @property
    def reference(self) -> str:
        """What a launch needs: the path of the file, or the id it has where it is published."""
        if self.path is not None:
            return str(self.path)
        return self.digest if is_digest(self.artifact) else self.artifact


def resolve(layout: Layout, asked: Asked) -> Answer:
    """The answer. Raises TrustError (6), UsageError (no such image, a file that is not there), SpecError, LockError.

    What verifies is held against `seen` and remembered there step by step, before the image is judged: whoever has
    learned of a revocation knows of it from then on, whatever the answer is.
    """
    now = asked.now or datetime.now(UTC)
    papers_in = Layout(asked.bundle.absolute()) if asked.bundle is not None else layout
    chosen = choose_policy(papers_in, asked, now)
    if asked.channel is not None:
        judgement.channel_rule(chosen.policy, asked.channel)  # a name that the policy knows is never a path
    bundled = asked.bundle is not None
    locked = locate(papers_in, asked.name, bundled=bundled, frozen=asked.frozen)
    papers = replace(read_papers(papers_in, locked, asked.channel), bundled=bundled)
    revoked = judgement.revocations_of(papers, chosen.policy, now)
    _remember(asked.seen, seen.observe(chosen.policy, revoked))
    head = judgement.head_of(papers, asked.channel, chosen.policy, revoked, now)
    if head is not None:
        _remember(asked.seen, seen.observe(chosen.policy, revoked, head, papers.who))
    verdict = judgement.judge_image(papers, chosen.policy, now, revoked, head, asked.place)
    image = verdict.image
    if asked.bundle is not None:
        path = artifact_path(papers_in.root / "store", verdict.artifact, check=asked.check_bytes, below=papers_in.root)
    else:
        path = artifact_path(papers_in.store, verdict.artifact, check=asked.check_bytes)
    if head is None:
        _remember(asked.seen, seen.observe_image(image))
    return Answer(
        name=image.name,
        arch=image.arch,
        digest=image.digest,
        bake_key=image.bake_key,
        channel=asked.channel,
        location=verdict.artifact.place,
        artifact=verdict.artifact.native,
        path=path,
        signers=tuple(key.name for key in image.signers),
        signer_keys=tuple(key.public.fingerprint for key in image.signers),
        ancestors=tuple(ancestor.digest for ancestor in image.ancestors),
        baked_at=image.baked_at,
        verified_at=image.verified_at,
        policy=chosen.policy.digest,
        policy_source=chosen.source,
        policy_version=chosen.policy.version,
        rollback="checked" if asked.seen is not None else "unchecked",
        development=verdict.development,
    )


def _remember(path: Path | None, shown: seen.Seen) -> None:
    """Refuse what is older than what was seen before, and keep it. UsageError where the file cannot be written."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UsageError("there is no folder for the file of --seen", where=str(path.parent))
    try:
        seen.remember(path, shown)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the file of --seen cannot be written: {why}",
            where=str(path),
            hint="name a file in a folder that this job may write to, and that outlives it",
        ) from error


def choose_policy(layout: Layout, asked: Asked, now: datetime) -> ChosenPolicy:
    """The policy that judges: the deployer's own, or the newer one that came along and its root keys signed.

    A root key does not sign for the newer one where the revocations that came along declare it compromised by the word
    of the deployer's own policy. A policy pinned by its digest judges itself, and no other takes its place.
    Raises UsageError, SpecError, TrustError.
    """
    if asked.policy_digest is not None and not is_digest(asked.policy_digest):
        raise UsageError("--policy-digest is sha256: and 64 hex digits", hint="factory policy check shows it")
    if asked.bundle is not None and asked.policy_digest is None and not _is_outside(asked.policy, asked.bundle):
        raise UsageError(
            "a bundle is judged by your own policy: whoever can swap a folder can swap the keys in it",
            where="--bundle",
            hint="name yours: --policy FILE (or --policy-digest sha256:… of the one in the bundle)",
        )
    own = _own_policy(layout, asked)
    if asked.policy_digest is not None:
        if own.digest != asked.policy_digest:
            raise TamperedError(
                f"the policy is {own.digest}, but {asked.policy_digest} was asked for",
                where=str(asked.policy or layout.policy),
                hint="look at what changed in it (factory policy check) before you take over its new digest",
            )
        return ChosenPolicy(own, DIGEST)
    if asked.policy is None or _is_same(asked.policy, layout.policy):
        return ChosenPolicy(own, CHECKOUT)
    travelling = _paper(layout, "policy.dsse", signed_policy.MAX_BYTES)
    if travelling is None:
        return ChosenPolicy(own, FILE)
    revoked = _paper(layout, "revocations.dsse", heads.MAX_BYTES)
    compromised = {} if revoked is None else revocations.declared(revoked, own)
    newest = signed_policy.newest(own, travelling, now, compromised=compromised)
    return ChosenPolicy(newest, FILE if newest is own else SIGNED)


def _is_outside(path: Path | None, folder: Path) -> bool:
    return path is not None and not path.resolve().is_relative_to(folder.resolve())


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _own_policy(layout: Layout, asked: Asked) -> Policy:
    try:
        if asked.policy is not None:
            return policy.read(asked.policy)
        return policy.read(layout.policy, below=layout.root)
    except FileNotFoundError:
        raise UsageError(
            "there is no policy to judge by",
            where=str(asked.policy or layout.policy),
            hint="--policy FILE names the deployer's own",
        ) from None


def locate(layout: Layout, name: str | None, *, bundled: bool = False, frozen: bool = False) -> LockedImage:
    """The entry of images.lock that NAME or NAME/ARCH names (None: the only one).

    Raises UsageError; LockError; TamperedError where the lock is no file to be read, and instead of LockError in a
    bundle (`bundled`) and, but for the markers of a merge and a version that is not known, where it is `frozen`;
    UnsignedError where a bundle is that of another image.
    """
    try:
        return _located(layout, name, bundled=bundled)
    except LockError as error:
        if not bundled and (not frozen or "conflict markers" in error.message or "lock-version" in error.message):
            raise
        hint = "factory export makes the bundle anew" if bundled else "git checkout images.lock takes it back"
        raise TamperedError(error.message, where=error.where, hint=hint) from error


def _located(layout: Layout, name: str | None, *, bundled: bool) -> LockedImage:
    try:
        raw = reading.read_file(layout.lock, "images.lock", max_bytes=MAX_LOCK_BYTES, below=layout.root)
    except FileNotFoundError:
        hint = "is it what factory export wrote?" if bundled else "-C DIR names the factory"
        raise UsageError("there is no images.lock here", where=str(layout.lock), hint=hint) from None
    wanted, slash, arch = (name or "").partition("/")
    if name is None:
        fitting = list(_all(raw))
    else:
        fitting = [image for image in lockfile.find_in(raw, wanted) if not slash or image.arch == arch]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [f"{image.name}/{image.arch}" for image in fitting]
        raise UsageError(
            "images.lock holds several images" if name is None else f"{wanted} is locked for several architectures",
            where=str(layout.lock),
            hint="say which: " + ", ".join(names[:20]),
        )
    raise _not_there(layout, name, raw, bundled=bundled)


def _all(raw: bytes) -> Iterable[LockedImage]:
    return lockfile.loads(lockfile.decoded(raw, "images.lock")).images.values()


def _not_there(layout: Layout, name: str | None, raw: bytes, *, bundled: bool) -> UsageError | UnsignedError:
    import difflib  # only for the hint

    every = sorted(f"{image.name}/{image.arch}" for image in _all(raw))
    there, where = ", ".join(every[:20]) or "nothing", str(layout.lock)
    if bundled:
        asked = "" if name is None else f", not {name}"
        return UnsignedError(f"this bundle holds {there}{asked}", where=where)
    close = difflib.get_close_matches(name or "", [*every, *(image.partition("/")[0] for image in every)], 1)
    return UsageError(
        f"no image {name or 'at all'} is in images.lock",
        where=where,
        hint=f"did you mean {close[0]}?" if close else f"there is: {there}",
    )


def read_papers(layout: Layout, locked: LockedImage, channel: str | None) -> judgement.Papers:
    """What trust/ holds for an image. `channel` is one that a policy knows. TamperedError where a file is not to be
    read."""
    return judgement.Papers(
        name=locked.name,
        arch=locked.arch,
        locked=locked,
        tickets=_paper(layout, f"tickets/{locked.name}-{locked.arch}.jsonl", ticket.MAX_BYTES),
        revocations=_paper(layout, "revocations.dsse", heads.MAX_BYTES),
        channel=None if channel is None else _paper(layout, f"channels/{channel}.dsse", heads.MAX_BYTES),
    )


def _paper(layout: Layout, name: str, max_bytes: int) -> bytes | None:
    """A file below trust/; None where there is none. No link is followed, of a folder neither."""
    try:
        return reading.read_file(layout.trust / name, f"trust/{name}", max_bytes=max_bytes, below=layout.root)
    except FileNotFoundError:
        return None


def artifact_path(store: Path, artifact: Artifact, *, check: bool, below: Path | None = None) -> Path | None:
    """Where an artifact's file is; None for a native id, and where it is not here.

    No link is followed from `below` (or from the store) on. With `check` its bytes are hashed. Raises TamperedError
    where it is not what was signed; TrustError where `check` finds nothing; UsageError for the bytes of a native id.
    """
    if not is_digest(artifact.native):
        if check:
            raise UsageError(
                f"{artifact.native} lies at {artifact.place}: its bytes cannot be hashed here",
                where="--check-bytes",
                hint="leave it out: the id itself was signed",
            )
        return None
    path = Store(store).path(artifact.native)
    what = f"the {artifact.place} artifact"
    try:
        with reading.opened(path, what, below=below or store) as descriptor:
            _require_signed(descriptor, artifact, path, what, check=check)
    except FileNotFoundError:
        if check:
            raise TrustError(
                f"{what} {artifact.native} is not here: its bytes cannot be checked",
                where=str(path),
                hint="factory fetch gets it" if below is None else "factory export --bytes puts it into the bundle",
            ) from None
        return None
    return path


def _require_signed(descriptor: int, artifact: Artifact, path: Path, what: str, *, check: bool) -> None:
    """Refuse an open file that is not the signed one: by its size; with `check`, by its bytes."""
    hint = "move that file away and get it anew: factory fetch; in a bundle, factory export --bytes"
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise TamperedError(f"{what} is no regular file", where=str(path), hint=hint)
    if artifact.size_bytes is not None and status.st_size != artifact.size_bytes:
        raise TamperedError(
            f"{what} has {status.st_size} bytes, but {artifact.size_bytes} were signed", where=str(path), hint=hint
        )
    if not check:
        return
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        import hashlib  # loads OpenSSL: only where there is something large to hash

        found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if found != artifact.native:
        raise TamperedError(f"{what} is {found}, but {artifact.native} was signed", where=str(path), hint=hint)
