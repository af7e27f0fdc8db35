"""That an image was verified, and by what: SLSA verification summary v1 (slsa.dev/spec/v1.0/verification_summary).

It binds the ticket together: it names the envelopes of provenance, test result and SBOM by their digests, signatures
included. There is none of an image that failed. The level it claims is what a factory that signs with keys on its own
host reaches: SLSA build level 1.

What `read` gives is a tuple with names, here and beside: defining a dataclass takes seven times as long, and every
`factory resolve` pays for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from factory import __version__
from factory.digest import Digest
from factory.errors import TamperedError
from factory.trust.predicates import as_set, digest_set, image_of, items, table, texts, word
from factory.trust.statements import SUMMARY, Statement, Subject, time_of, time_text

VERIFIER = "urn:x-factory:verifier"
POLICY = "urn:x-factory:policy"
ATTESTATION = "urn:x-factory:attestation:"
LEVELS = ["SLSA_BUILD_LEVEL_1"]
SLSA_VERSION = "1.0"

_INPUTS = ("provenance", "test-result", "sbom")
_FIELDS = ("inputAttestations", "policy", "resourceUri", "slsaVersion", "timeVerified", "verificationResult",
           "verifiedLevels", "verifier")  # fmt: skip


class Inputs(NamedTuple):
    """The envelopes that were looked at, by the digests of their bytes."""

    provenance: Digest
    test_result: Digest
    sbom: Digest


class Summary(NamedTuple):
    """What a summary says; that it was passed goes without saying. `policy`: the digest of the policy's file."""

    name: str
    arch: str
    inputs: Inputs
    policy: Digest
    verified_at: datetime


def statement(subjects: tuple[Subject, ...], inputs: Inputs, policy: Digest, verified_at: datetime) -> Statement:
    """The summary of a verification that was passed, of the image that `subjects` are."""
    said = {
        "inputAttestations": [
            {"digest": as_set(value), "uri": ATTESTATION + kind}
            for kind, value in zip(_INPUTS, inputs, strict=True)
        ],
        "policy": {"digest": as_set(policy), "uri": POLICY},
        "resourceUri": resource(subjects[0].name),
        "slsaVersion": SLSA_VERSION,
        "timeVerified": time_text(verified_at),
        "verificationResult": "PASSED",
        "verifiedLevels": LEVELS,
        "verifier": {"id": VERIFIER, "version": {"factory": __version__}},
    }  # fmt: skip
    return Statement(SUMMARY, subjects, said)


def read(statement: Statement, what: str = "the verification summary") -> Summary:
    """What a summary of ours says. Raises TamperedError, also where it was not passed."""
    found = table(statement.predicate, what, _FIELDS)
    word(found["verificationResult"], f"{what}: verificationResult", "PASSED")
    word(found["slsaVersion"], f"{what}: slsaVersion", SLSA_VERSION)
    if found["verifiedLevels"] != LEVELS:
        raise TamperedError(f"{what}: verifiedLevels is not {LEVELS}")
    verifier = table(found["verifier"], f"{what}: verifier", ("id", "version"))
    word(verifier["id"], f"{what}: verifier.id", VERIFIER)
    texts(verifier["version"], f"{what}: verifier.version", 16)
    policy = table(found["policy"], f"{what}: policy", ("digest", "uri"))
    word(policy["uri"], f"{what}: policy.uri", POLICY)
    image, arch = image_of(statement.subjects, what)
    word(found["resourceUri"], f"{what}: resourceUri", resource(f"{image}/{arch}"))
    return Summary(
        name=image,
        arch=arch,
        inputs=_inputs(found["inputAttestations"], f"{what}: inputAttestations"),
        policy=digest_set(policy["digest"], f"{what}: policy"),
        verified_at=time_of(found["timeVerified"], f"{what}: timeVerified"),
    )


def resource(image: str) -> str:
    """The URI of an image, `NAME/ARCH`."""
    return f"urn:x-factory:image:{image}"


def _inputs(value: object, what: str) -> Inputs:
    entries = items(value, what, len(_INPUTS))
    if len(entries) != len(_INPUTS):
        raise TamperedError(f"{what} must name {len(_INPUTS)} envelopes")
    digests = []
    for kind, item in zip(_INPUTS, entries, strict=True):
        entry = table(item, what, ("digest", "uri"))
        word(entry["uri"], f"{what}: uri", ATTESTATION + kind)
        digests.append(digest_set(entry["digest"], f"{what}: {kind}"))
    return Inputs(*digests)
