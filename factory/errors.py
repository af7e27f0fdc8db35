"""Every error the factory raises on purpose: one tree, each leaf with its exit code.

An error says what was wrong (`message`), where (`where`: a file and key path, an image, a log) and what to do next
(`hint`). Only the command line turns an error into an exit; anything outside this tree is a bug and exits 1.
"""

from __future__ import annotations

from typing import ClassVar


class FactoryError(Exception):
    """A failure with a cause the user can act on.

    `message` is one or a few lines without a trailing newline; `hint` and `where` are None where there is
    nothing useful to say. `kind` is the stable word for the failure in `--json`.
    """

    exit_code: ClassVar[int] = 3
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def as_json(self) -> dict[str, object]:
        """The `error` object of the `--json` contract."""
        return {
            "code": self.exit_code,
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "where": self.where,
        }


class UsageError(FactoryError):
    """The command line asks for something that does not exist or does not fit."""

    exit_code = 2
    kind = "usage"


class SpecError(FactoryError):
    """images.toml (or another file people write) says something that is not allowed."""

    exit_code = 2
    kind = "spec"


class TemplateError(FactoryError):
    """A template cannot be rendered, or Packer refuses what was rendered."""

    exit_code = 2
    kind = "template"


class ToolError(FactoryError):
    """A program this host should have is missing, too old, or failed."""

    kind = "tool"


class MissingToolError(ToolError):
    """A program is not installed."""

    kind = "missing-tool"


class BaseError(FactoryError):
    """A base image cannot be had, or is not the one that was asked for."""

    kind = "base"


class ProvisionError(FactoryError):
    """The playbook failed, or Packer did on its behalf."""

    kind = "provision"


class DiskError(FactoryError):
    """A disk could not be assembled, stored or read back."""

    kind = "disk"


class BootError(FactoryError):
    """A guest did not come up in time."""

    exit_code = 4
    kind = "boot"


class StoreError(FactoryError):
    """An artifact cannot be stored, fetched, or is not what its name says."""

    kind = "store"


class CatalogError(FactoryError):
    """The catalog cannot be read or written."""

    kind = "catalog"


class CveError(FactoryError):
    """What is known of vulnerabilities, or of what is offered, cannot be had or read."""

    kind = "cve"


class VerifyError(FactoryError):
    """The finished image booted but did not pass its checks."""

    exit_code = 4
    kind = "verify"


class LockError(FactoryError):
    """images.lock cannot be read: not our format, a conflict, damaged."""

    exit_code = 5
    kind = "lock"


class LockMismatchError(FactoryError):
    """images.lock is not true to the inputs, or its pins can no longer be had."""

    exit_code = 5
    kind = "lock-mismatch"


class DriftError(FactoryError):
    """What runs of a fleet is not what should."""

    exit_code = 5
    kind = "drift"


class TrustError(FactoryError):
    """An image, or what speaks for it, is not to be trusted. The leaves say why; `kind` is the word for it."""

    exit_code = 6
    kind = "untrusted"


class UnsignedError(TrustError):
    """Nobody who may has signed it: no signature, a bad one, an unknown key, too few."""

    kind = "unsigned"


class TamperedError(TrustError):
    """It is not what was signed, or no statement at all: damaged, swapped, of another image."""

    kind = "tampered"


class RevokedError(TrustError):
    """It, an ancestor, or the key that signed it was revoked."""

    kind = "revoked"


class ExpiredError(TrustError):
    """Its time is over, or has not begun: a key's window, a set's expiry, a clock, a rollback."""

    kind = "expired"


class ProviderError(FactoryError):
    """Where instances run cannot be reached, or refuses, just now."""

    kind = "provider"


class RolledBackError(FactoryError):
    """A rollout failed and went back: what ran before runs."""

    exit_code = 8
    kind = "rolled-back"


class RollbackFailedError(FactoryError):
    """A rollout failed and could not go back: somebody must look."""

    exit_code = 9
    kind = "rollback-failed"


class WaitError(FactoryError):
    """`wait` ran out of time, or found a rollout that is paused."""

    exit_code = 10
    kind = "wait"


class ConflictError(FactoryError):
    """Another run holds what this one needs."""

    exit_code = 7
    kind = "conflict"


class InterruptedRunError(FactoryError):
    """The user pressed Ctrl-C, or the process was asked to end."""

    exit_code = 130
    kind = "interrupted"


PRECEDENCE = (1, 6, 4, 3, 7)
"""Several failures in one run: the exit code is the first of these that occurred, else the smallest other one."""


def worst_exit_code(codes: list[int]) -> int:
    """The exit code of a run whose parts ended with `codes`; 0 for none."""
    failures = [code for code in codes if code]
    for code in PRECEDENCE:
        if code in failures:
            return code
    return min(failures, default=0)
