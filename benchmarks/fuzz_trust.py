"""Throws damaged input at every reader in factory/trust: `python -m benchmarks.fuzz_trust [--seconds N] [--seed S]`.

Two things must hold for each input: nothing but a FactoryError comes out, and whatever is trusted after the damage is
what was signed before it. Each breach is shown with its input (base64), and the exit code is then 1. The keys, the
papers and the damage follow from the seed: the same seed and number of inputs try the same bytes.

Another reader: a line in `targets`.
"""

from __future__ import annotations

import argparse
import base64
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.mutation import mutated
from benchmarks.trust_papers import NOW, P256, Papers, signer
from factory import lockfile
from factory.errors import FactoryError, UnsignedError
from factory.trust import (
    dsse,
    heads,
    judgement,
    keys,
    policy,
    promotions,
    revocations,
    seen,
    signed_policy,
    signers,
    statements,
    strict,
    ticket,
)
from factory.trust.predicates import provenance, sbom, summary, test_result
from factory.trust.signers import file

MAX_SHOWN = 10
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """One reader. `read` gives what is to be trusted after reading (nothing, for a reader that verifies nothing)."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], Iterable[object]]


@dataclass
class Tally:
    """What became of the inputs of one target."""

    tried: int = 0
    read: int = 0
    slowest_s: float = 0.0
    breaches: list[str] = field(default_factory=list)


def _loaded(read: Callable[[bytes], object]) -> Callable[[bytes], Iterable[object]]:
    """A reader that verifies nothing."""

    def reader(raw: bytes) -> Iterable[object]:
        read(raw)
        return ()

    return reader


def _from_file(folder: Path, name: str, read: Callable[[Path], object]) -> Callable[[bytes], Iterable[object]]:
    """A reader that takes a file of the user's own."""
    path = folder / name
    path.touch(mode=0o600)

    def reader(raw: bytes) -> Iterable[object]:
        path.write_bytes(raw)
        read(path)
        return ()

    return reader


def _envelope(papers: Papers, raw: bytes) -> Iterable[object]:
    envelope = dsse.parse(raw)
    if not dsse.verify(envelope, [key.public for key in papers.policy.keys.values()]):
        raise UnsignedError("nobody signed it")
    return [(envelope.payload_type, envelope.payload)]


def _tickets(papers: Papers, raw: bytes) -> Iterable[object]:
    return [ticket.verify(found, digest, papers.authority) for digest, found in ticket.loads(raw).items()]


def _channel(papers: Papers, raw: bytes) -> Iterable[object]:
    found = promotions.verify(raw, papers.policy.channels["prod"], papers.authority, NOW)
    return [(found.head.version, found.head.expires_at, dict(found.promotions))]


def _revocations(papers: Papers, raw: bytes) -> Iterable[object]:
    found = revocations.verify(raw, papers.policy, NOW)
    return [(found.version, found.expires_at, found.images, found.keys)]


def _signed_policy(papers: Papers, raw: bytes) -> Iterable[object]:
    return [signed_policy.newest(papers.policy, raw, NOW)]


def _locked(papers: Papers, raw: bytes) -> Iterable[object]:
    entry = lockfile.loads(raw.decode("utf-8", "replace")).images.get(("web", "amd64"))
    verdict = judgement.judge(replace(papers.judged, locked=entry), papers.policy, NOW, place="qcow2")
    return [(verdict.image, verdict.artifact)]


def _judged(papers: Papers, paper: str) -> Callable[[bytes], Iterable[object]]:
    def reader(raw: bytes) -> Iterable[object]:
        changed = replace(papers.judged, **{paper: raw})  # type: ignore[arg-type]
        channel = "prod" if paper == "channel" else None
        verdict = judgement.judge(changed, papers.policy, NOW, channel=channel, place="qcow2")
        return [(verdict.image, verdict.artifact)]

    return reader


def _strict(raw: bytes) -> None:
    strict.loads(raw, "it", max_bytes=MAX_BYTES)


def _key_file(path: Path) -> object:
    return signers.load(path, lambda: b"a passphrase")


def _key(raw: bytes) -> None:
    try:
        keys.parse(raw.decode("utf-8", "surrogateescape"))
    except ValueError as error:  # what it promises
        raise FactoryError(str(error)) from error


def _spki(raw: bytes) -> None:
    try:
        keys.from_spki(raw)
    except ValueError as error:  # what it promises
        raise FactoryError(str(error)) from error


def targets(folder: Path) -> list[Target]:
    """Every reader there is; `folder` is for those that read files."""
    papers = Papers()
    return [*_plain(papers), *_insiders(papers), *_trusted(papers), *_files(folder)]


def _plain(papers: Papers) -> list[Target]:
    """Readers that verify nothing."""
    made, tests, passed = (envelope.payload for envelope in papers.ticket.envelopes)
    promoted, revoked, withdrawn = papers.event_payloads
    head = dsse.parse(papers.channel).payload

    def predicate(read: Callable[[statements.Statement], object]) -> Callable[[bytes], Iterable[object]]:
        return _loaded(lambda raw: read(statements.loads(raw)))

    def event(read: Callable[[dsse.Envelope], object]) -> Callable[[bytes], Iterable[object]]:
        return _loaded(lambda raw: read(dsse.sign(statements.PAYLOAD_TYPE, raw, [])))

    return [
        Target("strict", (made, head, papers.two_signers), _loaded(_strict)),
        Target("dsse", (papers.two_signers, papers.ticket.summary.raw), _loaded(dsse.parse)),
        Target("keys", (str(signer("a").public).encode(), str(P256.public).encode()), _loaded(_key)),
        Target("keys, DER", (signer("a").public.spki, P256.public.spki), _loaded(_spki)),
        Target("policy", (papers.toml,), _loaded(policy.loads)),
        Target("statements", (made, tests, passed, promoted, revoked), _loaded(statements.loads)),
        Target("provenance", (made,), predicate(provenance.read)),
        Target("test result", (tests,), predicate(test_result.read)),
        Target("summary", (passed,), predicate(summary.read)),
        Target("sbom", (papers.sbom,), predicate(sbom.read)),
        Target("tickets", (papers.tickets,), _loaded(ticket.loads)),
        Target("promotions", (promoted,), event(promotions.read)),
        Target("revocations", (revoked, withdrawn), event(revocations.read)),
    ]  # fmt: skip


def _insiders(papers: Papers) -> list[Target]:
    """Damage that is signed by one who may: what an insider could make us read."""
    channel, revoked = dsse.parse(papers.channel).payload, dsse.parse(papers.revocations).payload

    def resigned(read: Callable[[Papers, bytes], object], kind: str) -> Callable[[bytes], Iterable[object]]:
        return _loaded(lambda raw: read(papers, dsse.sign(kind, raw, [papers.alice, papers.root]).raw))

    return [
        Target("channel, insider", (channel,), resigned(_channel, heads.PAYLOAD_TYPE)),
        Target("revocations, insider", (revoked,), resigned(_revocations, heads.PAYLOAD_TYPE)),
        Target("policy, insider", (papers.newer,), resigned(_signed_policy, signed_policy.PAYLOAD_TYPE)),
    ]


def _trusted(papers: Papers) -> list[Target]:
    """Readers that verify, the judge of deploy jobs among them: what they trust must be what was signed."""

    def of(read: Callable[[Papers, bytes], Iterable[object]]) -> Callable[[bytes], Iterable[object]]:
        return lambda raw: read(papers, raw)

    policies = (signed_policy.sign(papers.newer, [papers.root]).raw, signed_policy.sign(papers.toml, []).raw)
    return [
        Target("dsse, verified", (papers.two_signers, papers.channel, papers.ticket.summary.raw), of(_envelope)),
        Target("tickets, verified", (papers.tickets,), of(_tickets)),
        Target("channel, verified", (papers.channel,), of(_channel)),
        Target("revocations, verified", (papers.revocations,), of(_revocations)),
        Target("policy, verified", policies, of(_signed_policy)),
        Target("judge, by tickets", (papers.tickets,), _judged(papers, "tickets")),
        Target("judge, by revocations", (papers.revocations,), _judged(papers, "revocations")),
        Target("judge, by channel", (papers.channel,), _judged(papers, "channel")),
        Target("judge, by lock", (papers.lock,), of(_locked)),
    ]


def _files(folder: Path) -> list[Target]:
    """Readers that take a file."""
    pem = folder / "seed.pem"
    file.save(pem, Ed25519PrivateKey.from_private_bytes(bytes(32)), None)
    kms = f'kms = "arn:aws:kms:eu-west-1:123456789012:key/5faf1802"\npublic = "{P256.public}"\n'.encode()
    highest = b'{"highest":{"channel prod":9,"policy":3},"seen":1}'
    return [
        Target("seen", (highest,), _from_file(folder, "seen", seen.read)),
        Target("signers, file", (pem.read_bytes(),), _from_file(folder, "a.pem", _key_file)),
        Target("signers, kms", (kms,), _from_file(folder, "a.toml", _key_file)),
    ]


class Run:
    """A run over all targets, in turns; each has a generator of its own, so that one more changes no other's inputs."""

    def __init__(self, table: Iterable[Target], seed: int) -> None:
        self.targets = list(table)
        self.tallies = {target.name: Tally() for target in self.targets}
        self._random = {target.name: Random(f"{seed} {target.name}") for target in self.targets}
        self._trusted = {
            target.name: [fact for raw in target.seeds for fact in target.read(raw)] for target in self.targets
        }

    def step(self) -> None:
        """One input for each target."""
        for target in self.targets:
            self._try(target, mutated(target.seeds, self._random[target.name]))

    @property
    def tried(self) -> int:
        return sum(tally.tried for tally in self.tallies.values())

    @property
    def breaches(self) -> list[str]:
        return [breach for tally in self.tallies.values() for breach in tally.breaches]

    def _try(self, target: Target, raw: bytes) -> None:
        tally = self.tallies[target.name]
        tally.tried += 1
        began = time.perf_counter()
        try:
            facts = list(target.read(raw))
            tally.read += 1
            if any(fact not in self._trusted[target.name] for fact in facts):
                self._note(target, raw, "trusted, and is not what was signed")
        except FactoryError:
            pass
        except Exception:
            self._note(target, raw, traceback.format_exc())
        tally.slowest_s = max(tally.slowest_s, time.perf_counter() - began)

    def _note(self, target: Target, raw: bytes, why: str) -> None:
        shown = base64.b64encode(raw).decode()
        self.tallies[target.name].breaches.append(f"{target.name}: {why}\ninput (base64): {shown}")


def report(run: Run) -> str:
    """The table of a run."""
    lines = [f"{'reader':24} {'inputs':>9} {'refused':>9} {'read':>9} {'breaches':>9} {'slowest':>9}"]
    for name, tally in run.tallies.items():
        refused = tally.tried - tally.read - sum("Traceback" in breach for breach in tally.breaches)
        numbers = "".join(f"{number:10}" for number in (tally.tried, refused, tally.read, len(tally.breaches)))
        lines.append(f"{name:24}{numbers} {tally.slowest_s * 1000:6.1f} ms")
    return "\n".join([*lines, f"{'all':24} {run.tried:9}{'':20} {len(run.breaches):9}"])


def main() -> int:
    """Fuzz for a time; the exit code is 1 where anything came out that should not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_trust", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="the same inputs again")
    parser.add_argument("--only", default="", help="targets whose name contains this")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Run([target for target in targets(Path(folder)) if asked.only in target.name], asked.seed)
        end = time.monotonic() + asked.seconds
        while time.monotonic() < end:
            run.step()
    for breach in run.breaches[:MAX_SHOWN]:
        print(breach, file=sys.stderr)
    print(report(run))
    return 1 if run.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
