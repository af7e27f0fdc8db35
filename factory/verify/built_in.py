"""The checks that every image gets, whatever its roles: pure judgements of what was observed.

Each has a name that `skip_checks` may exempt, and stands in the report like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from factory.digest import Digest
from factory.disk.manifest import Change
from factory.verify.guest_state import GuestState, owner_of, undeclared
from factory.verify.needles import Finding
from factory.verify.report import BUILT_IN_OWNER, Case

SEALED = "sealed"
SECRETS = "secrets-absent"
UNITS = "no-failed-units"
PORTS = "only-declared-ports"
STATE = "nothing-written-outside-state"
UNCHANGED = "artifact-unchanged"
NAMES = (SEALED, SECRETS, UNITS, PORTS, STATE, UNCHANGED)


def case(name: str, problems: Sequence[str], exempt: Sequence[str], duration_s: float = 0.0) -> Case:
    """The case of a built-in check that found these problems."""
    if name in exempt:
        return Case(name, BUILT_IN_OWNER, "exempt", duration_s)
    return Case(name, BUILT_IN_OWNER, "failed" if problems else "passed", duration_s, "\n".join(problems))


def not_looked_for(case: Case, secrets: Sequence[str]) -> Case:
    """The check of the secrets did not pass where the values of some were not given: it is skipped, and says so."""
    if case.name != SECRETS or case.outcome != "passed" or not secrets:
        return case
    return replace(case, outcome="skipped", message=f"not looked for, as they are not given: {', '.join(secrets)}")


def units(state: GuestState) -> list[str]:
    """A line or two for each failed unit."""
    return [f"{unit} failed" + (f": {said}" if said else "") for unit, said in state.failed]


def ports(state: GuestState, declared: Sequence[int]) -> list[str]:
    """A line for each listener that no declared port accounts for."""
    lines = []
    for listener in undeclared(state.listeners, declared):
        owner = owner_of(listener, state.owners)
        lines.append(f"{listener}" + (f" ({owner})" if owner else "") + " listens and is not in ports")
    return lines


def written(changes: Sequence[Change], elsewhere: Sequence[str]) -> list[str]:
    """A line for each change that nothing allows."""
    return [f"{change.path} {change.kind} ({change.what})" for change in changes] + [
        f"{place} was written to" for place in elsewhere
    ]


def secrets(findings: Sequence[Finding]) -> list[str]:
    """A line for each place in which a secret was found."""
    return [str(finding) for finding in sorted(set(findings))]


def unchanged(expected: Digest, before: Digest, after: Digest) -> list[str]:
    """Whether the artifact is, before and after, the one that was asked for."""
    if before != expected:
        return [f"the artifact is not the one it should be: {before} instead of {expected}"]
    if after != before:
        return [f"the artifact changed while it was being verified: {before} became {after}"]
    return []
