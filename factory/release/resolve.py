"""`factory resolve`: the one trusted image for a deploy job. Reads few files, starts nothing, needs no network.

The judgement is trust/judgement.py's; here is what it is given: the deployer's policy, the lock, the papers in trust/
(of the checkout, or of a bundle), what was seen before; and whether the bytes are here and are what was signed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from factory import digest as digests
from factory import lockfile
from factory.digest import Digest, is_digest
from factory.errors import TamperedError, TrustError, UsageError
from factory.model import Layout, LockedImage
from factory.store import Store
from factory.trust import judgement, policy, seen, signed_policy
from factory.trust.facts import Artifact
from factory.trust.policy import Policy
from factory.trust.reading import read_file

MAX_TICKETS_BYTES = 8 << 20
MAX_HEAD_BYTES = 32 << 20
MAX_POLICY_BYTES = 1 << 20

CHECKOUT, FILE, DIGEST = "checkout", "file", "digest"


@dataclass(frozen=True)
class Asked:
    """What a deploy job asks. `now` is its clock; `bundle` stands for a folder that `factory export` wrote.

    `name` is NAME or NAME/ARCH; None only with a bundle, which holds one image.
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


@dataclass(frozen=True)
class ChosenPolicy:
    """The policy that judges, and why it may: the deployer named its `file` or `digest`, or trusts the `checkout`."""

    policy: Policy
    source: str


@dataclass(frozen=True)
class Answer:
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
    """The answer. Raises TrustError (6), UsageError (no such image, a file that is not there), LockError."""
    now = asked.now or datetime.now(UTC)
    papers_in = Layout(asked.bundle.absolute()) if asked.bundle is not None else layout
    chosen = choose_policy(papers_in, asked, now)
    locked = locate(papers_in, asked.name)
    verdict = judgement.judge(
        read_papers(papers_in, locked, asked.channel), chosen.policy, now, channel=asked.channel, place=asked.place
    )
    image = verdict.image
    observed = seen.observe(chosen.policy, verdict.revocations, verdict.head, f"{image.name}/{image.arch}")
    if asked.seen is not None:
        seen.check(seen.read(asked.seen), observed)
    store = papers_in.root / "store" if asked.bundle is not None else papers_in.store
    path = artifact_path(store, verdict.artifact, check=asked.check_bytes)
    if asked.seen is not None:
        seen.remember(asked.seen, observed)
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
        development=image.development,
    )


def choose_policy(layout: Layout, asked: Asked, now: datetime) -> ChosenPolicy:
    """The policy that judges. Raises UsageError, SpecError, TrustError."""
    if asked.policy_digest is not None and not is_digest(asked.policy_digest):
        raise UsageError("--policy-digest is sha256: and 64 hex digits", hint="factory policy check shows it")
    if asked.bundle is not None and asked.policy is None and asked.policy_digest is None:
        raise UsageError(
            "a bundle is judged by your own policy: whoever can swap a folder can swap the keys in it",
            where="--bundle",
            hint="name yours: --policy FILE (or --policy-digest sha256:… of the one in the bundle)",
        )
    path = asked.policy if asked.policy is not None else layout.policy
    try:
        own = policy.read(path) if asked.policy is not None else policy.loads(_policy_bytes(path), str(path.name))
    except FileNotFoundError:
        raise UsageError(
            "there is no policy to judge by", where=str(path), hint="--policy FILE names the deployer's own"
        ) from None
    if asked.policy_digest is not None and own.digest != asked.policy_digest:
        raise TamperedError(
            f"the policy is {own.digest}, not the one you named", where=str(path),
            hint="factory policy check shows what it says; --policy-digest pins what you have reviewed",
        )  # fmt: skip
    if asked.policy is None:
        return ChosenPolicy(own, CHECKOUT if asked.policy_digest is None else DIGEST)
    try:
        travelling = read_file(layout.signed_policy, "trust/policy.dsse", max_bytes=2 * MAX_POLICY_BYTES)
    except FileNotFoundError:
        travelling = None
    return ChosenPolicy(signed_policy.newest(own, travelling, now) if travelling is not None else own, FILE)


def _policy_bytes(path: Path) -> bytes:
    return read_file(path, f"trust/{path.name}", max_bytes=MAX_POLICY_BYTES)


def locate(layout: Layout, name: str | None) -> LockedImage:
    """The entry of images.lock that NAME or NAME/ARCH names (None: the only one). Raises UsageError, LockError."""
    if name is None:
        every = list(lockfile.read(layout.lock).images.values())
        if len(every) == 1:
            return every[0]
        raise UsageError(f"images.lock holds {len(every)} images: say which", where=str(layout.lock))
    wanted, slash, arch = name.partition("/")
    found = lockfile.find(layout.lock, wanted)
    if not layout.lock.is_file():
        raise UsageError("there is no images.lock here", where=str(layout.lock), hint="-C DIR names the factory")
    fitting = [image for image in found if not slash or image.arch == arch]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"{wanted} is locked for several architectures",
            where="images.lock",
            hint="say which: " + ", ".join(f"{image.name}/{image.arch}" for image in fitting),
        )
    import difflib  # only for the hint

    names = sorted({f"{image.name}" for image in lockfile.read(layout.lock).images.values()})
    close = difflib.get_close_matches(wanted, names, 1)
    hint = (
        f"did you mean {close[0]}?" if close and close[0] != wanted else "images: " + (", ".join(names[:20]) or "none")
    )
    raise UsageError(f"no image {name} is in images.lock", where="images.lock", hint=hint)


def read_papers(layout: Layout, locked: LockedImage, channel: str | None) -> judgement.Papers:
    """What trust/ holds for an image. TamperedError where a file there is not to be read."""
    if channel is not None and not lockfile.is_name(channel):
        raise UsageError(f"{channel!r} is no channel's name", where="--channel")
    tickets = f"{locked.name}-{locked.arch}.jsonl"
    return judgement.Papers(
        name=locked.name,
        arch=locked.arch,
        locked=locked,
        tickets=_paper(layout, f"tickets/{tickets}", MAX_TICKETS_BYTES),
        revocations=_paper(layout, "revocations.dsse", MAX_HEAD_BYTES),
        channel=None if channel is None else _paper(layout, f"channels/{channel}.dsse", MAX_HEAD_BYTES),
    )


def _paper(layout: Layout, name: str, max_bytes: int) -> bytes | None:
    """A file below trust/; None where there is none. No link is followed, of a folder neither."""
    folder = layout.trust
    for part in ("", *name.split("/")[:-1]):
        folder = folder / part
        if folder.is_symlink():
            raise TamperedError(f"trust/{name} cannot be read: {folder.name} is a link", where=str(folder))
    try:
        return read_file(layout.trust / name, f"trust/{name}", max_bytes=max_bytes)
    except FileNotFoundError:
        return None


def artifact_path(store: Path, artifact: Artifact, *, check: bool) -> Path | None:
    """Where an artifact's file is; None for a native id, and where it is not here. TamperedError where it is not it."""
    if not is_digest(artifact.native):
        return None
    path = Store(store).path(artifact.native)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        if check:
            raise TrustError(
                f"the {artifact.place} artifact {artifact.native} is not here: its bytes cannot be checked",
                where=str(path),
                hint="factory fetch gets it; factory export --bytes puts it into a bundle",
            ) from None
        return None
    hint = "move that file away and get it anew: factory fetch, or factory export --bytes"
    if not stat.S_ISREG(status.st_mode):
        raise TamperedError(f"the {artifact.place} artifact is no regular file", where=str(path), hint=hint)
    if artifact.size_bytes is not None and status.st_size != artifact.size_bytes:
        raise TamperedError(
            f"the {artifact.place} artifact has {status.st_size} bytes, but {artifact.size_bytes} were signed",
            where=str(path),
            hint=hint,
        )
    if check and (found := digests.of_file(path)) != artifact.native:
        raise TamperedError(
            f"the {artifact.place} artifact is {found}, but {artifact.native} was signed", where=str(path), hint=hint
        )
    return path
