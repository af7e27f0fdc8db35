"""How the checks of an image went: in-toto test result v0.1 (in-toto/attestation, spec/predicates/test-result.md).

A check is named `OWNER: NAME`; where several checks bear one name, it stands once, with the worst of their outcomes.
The predicate has no word for what was not run, so an exemption and a check that skipped itself stand in lists of our
own, `exemptTests` and `skippedTests`; neither passed nor failed. `timeVerified` is ours, too. `result` is PASSED only
where a check passed and none failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from factory.digest import Digest, of_bytes
from factory.errors import TamperedError
from factory.trust.facts import EXEMPT, FAILED, PASSED, SKIPPED, CheckOutcome, Verification
from factory.trust.predicates import as_set, digest_set, items, name, table, text
from factory.trust.predicates.provenance import INPUT_DIGEST
from factory.trust.statements import TEST_RESULT, Statement, Subject, time_of, time_text

MAX_CHECKS = 10_000
MAX_CONFIGURATIONS = 64

_WORSE = (PASSED, SKIPPED, EXEMPT, FAILED)
_MOST_OF_A_NAME = 400
_LISTS = {"passedTests": PASSED, "failedTests": FAILED, "exemptTests": EXEMPT, "skippedTests": SKIPPED}
_FIELDS = ("configuration", "result", "timeVerified", "warnedTests", *_LISTS)


class TestResult(NamedTuple):
    """What a test result says. `configuration`: whose checks -> the digest of its `checks` input."""

    passed: bool
    checks: tuple[CheckOutcome, ...]
    configuration: Mapping[str, Digest]
    verified_at: datetime


def statement(subjects: tuple[Subject, ...], verification: Verification) -> Statement:
    """The test result of a verification of the image that `subjects` are. ValueError: an outcome that is none."""
    outcomes: dict[str, str] = {}
    for check in verification.checks:
        if check.outcome not in _WORSE:
            raise ValueError(f"{check.outcome!r} is no outcome of a check")
        said = _named(check)
        outcomes[said] = max(outcomes.get(said, PASSED), check.outcome, key=_WORSE.index)
    lists = {key: sorted(said for said in outcomes if outcomes[said] == outcome) for key, outcome in _LISTS.items()}
    configuration = [
        {"digest": as_set(value, INPUT_DIGEST), "name": owner}
        for owner, value in sorted(verification.configuration.items())
    ]
    predicate = {
        **lists,
        "configuration": configuration,
        "result": "PASSED" if lists["passedTests"] and not lists["failedTests"] else "FAILED",
        "timeVerified": time_text(verification.verified_at),
        "warnedTests": [],
    }
    return Statement(TEST_RESULT, subjects, predicate)


def read(statement: Statement, what: str = "the test result") -> TestResult:
    """What a test result of ours says, passed or not; its checks sorted. Raises TamperedError."""
    found = table(statement.predicate, what, _FIELDS)
    if found["warnedTests"] != []:
        raise TamperedError(f"{what}: warnedTests is not empty: a check of ours never warns")
    outcomes: dict[str, CheckOutcome] = {}
    for key, outcome in _LISTS.items():
        for item in items(found[key], f"{what}: {key}", MAX_CHECKS):
            said = text(item, f"{what}: {key}")
            owner, colon, check = said.partition(": ")
            if not colon or not check:
                raise TamperedError(f"{what}: {key}: {said[:80]!r} is no check (OWNER: NAME)")
            if said in outcomes:
                raise TamperedError(f"{what}: the check {said[:80]!r} stands there twice")
            outcomes[said] = CheckOutcome(owner, check, outcome)
    for owner in {check.owner for check in outcomes.values()}:
        name(owner, f"{what}: whose check it is")
    kinds = {check.outcome for check in outcomes.values()}
    passed = PASSED in kinds and FAILED not in kinds
    if found["result"] != ("PASSED" if passed else "FAILED"):
        raise TamperedError(f"{what}: its result is not what its checks make")
    checks = tuple(outcomes[said] for said in sorted(outcomes))
    when = time_of(found["timeVerified"], f"{what}: timeVerified")
    return TestResult(passed, checks, _configuration(found["configuration"], f"{what}: configuration"), when)


def _named(check: CheckOutcome) -> str:
    """`OWNER: NAME`, printable; of a name of pages (a test's parameters), the beginning and a digest of it all."""
    name = "".join(char if char.isprintable() else repr(char)[1:-1] for char in check.name)
    if len(name) > _MOST_OF_A_NAME:
        name = f"{name[:_MOST_OF_A_NAME]}… {of_bytes(name.encode())[:19]}"
    return f"{check.owner}: {name}"


def _configuration(value: object, what: str) -> Mapping[str, Digest]:
    found: dict[str, Digest] = {}
    for item in items(value, what, MAX_CONFIGURATIONS):
        entry = table(item, what, ("digest", "name"))
        owner = name(entry["name"], f"{what}: name")
        if owner in found:
            raise TamperedError(f"{what}: {owner!r} stands there twice")
        found[owner] = digest_set(entry["digest"], f"{what}: {owner}", INPUT_DIGEST)
    return found
