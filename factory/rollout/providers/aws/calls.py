"""Asking AWS: one region's clients, and what it says when it refuses or cannot be reached.

Owns retrying: botocore's standard mode for throttling and broken connections, and `visible` for what was just made and
is not seen everywhere yet. Whatever goes wrong leaves here as a ProviderError; a `Refusal` where AWS itself said no,
with its code, so that callers can tell "it is there already" and "it is gone already" from a failure. Never prints or
keeps credentials: boto3 finds them as it does everywhere (AWS_PROFILE, the environment, an instance's role).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from factory.errors import ProviderError

NO_SUCH_IMAGE = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidAMIID.Malformed"})
NO_SUCH_TEMPLATE = frozenset(
    {
        "InvalidLaunchTemplateName.NotFoundException",
        "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateId.VersionNotFound",
    }
)
TEMPLATE_EXISTS = "InvalidLaunchTemplateName.AlreadyExistsException"
NO_SUCH_TARGET_GROUP = "TargetGroupNotFound"
TARGET_GROUP_EXISTS = "DuplicateTargetGroupName"
NO_SUCH_INSTANCE = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})
GROUP_EXISTS = "AlreadyExists"
IN_USE = frozenset({"ResourceInUse", "ScalingActivityInProgress", "ResourceContention"})
INVALID = "ValidationError"
"""What Auto Scaling answers to nearly everything, also where a group or an instance is not there."""

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN_KEY = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "SignatureDoesNotMatch"}
)
_DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})

_VISIBLE_AFTER_S = (1.0, 2.0, 4.0)
_CONNECT_S, _READ_S = 5, 10
_ATTEMPTS = 5
"""So a request that nobody answers is given up after a minute or so: whoever drives a rollout waits for it."""


class Refusal(ProviderError):
    """AWS said no. `code` is its own word for why."""

    def __init__(self, message: str, *, code: str, where: str, hint: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint)
        self.code = code


def is_gone(refusal: Refusal) -> bool:
    """Whether Auto Scaling, which has one code for all, says that something is not there."""
    return refusal.code == INVALID and "not found" in refusal.message.lower()


@dataclass(frozen=True)
class Clock:
    """What time it is (seconds since 1970), and how to wait."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


Connect = Callable[[str, str], Any]
"""A client of (service, region)."""


def connector() -> Connect:
    """Clients by boto3, each made once. Raises ProviderError where boto3 is not installed."""
    with _explained("boto3"):
        from boto3.session import Session
        from botocore.config import Config

        session = Session()
    made: dict[tuple[str, str], Any] = {}
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )

    def connect(service: str, region: str) -> Any:
        if (service, region) not in made:
            made[service, region] = session.client(service, region_name=region, config=config)
        return made[service, region]

    return connect


@dataclass(frozen=True)
class Calls:
    """What is asked of one region."""

    region: str
    connect: Connect
    clock: Clock

    def ask(self, service: str, operation: str, **said: Any) -> dict[str, Any]:
        """One request (`operation` as boto3 spells it). Raises Refusal, and ProviderError where nobody answers."""
        with _explained(f"{self.region}: {service} {operation}"):
            answer: dict[str, Any] = getattr(self.connect(service, self.region), operation)(**said)
            return answer

    def all(self, service: str, operation: str, key: str, **said: Any) -> list[dict[str, Any]]:
        """What `key` lists, over all pages of the answer."""
        with _explained(f"{self.region}: {service} {operation}"):
            pages = self.connect(service, self.region).get_paginator(operation).paginate(**said)
            return [one for page in pages for one in page.get(key, ())]

    def visible(self, ask: Callable[[], dict[str, Any]], is_unseen: Callable[[Refusal], bool]) -> dict[str, Any]:
        """What `ask` answers, asked again for a few seconds while it is refused only because what it names was just
        made and is not seen everywhere yet. The last refusal is raised."""
        for wait_s in _VISIBLE_AFTER_S:
            try:
                return ask()
            except Refusal as refusal:
                if not is_unseen(refusal):
                    raise
            self.clock.sleep(wait_s)
        return ask()

    def wait_for(self, is_seen: Callable[[], bool]) -> None:
        """Ask for a few seconds whether something is seen that was done; it was, seen or not."""
        for wait_s in _VISIBLE_AFTER_S:
            if is_seen():
                return
            self.clock.sleep(wait_s)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turns what boto3 raises into ProviderErrors that say what to do."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
    except ImportError as error:
        raise ProviderError(
            "fleets on AWS need boto3, which is not installed", where=where, hint="pip install boto3"
        ) from error
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))
        raise Refusal(
            f"AWS refused ({code}): {said.get('Message', 'it gave no reason')}",
            code=code,
            where=where,
            hint=_hint(code),
        ) from error
    except ParamValidationError:
        raise  # a bug here, not a fault of AWS or of a user
    except (BotoCoreError, ValueError, OSError) as error:  # ValueError: an endpoint that is no URL
        raise ProviderError(
            f"AWS cannot be asked: {error}", where=where, hint=_HINTS.get(type(error).__name__)
        ) from error


def _hint(code: str) -> str | None:
    if code in EXPIRED:
        return "the credentials have expired: sign in again"
    if code in _UNKNOWN_KEY:
        return "AWS does not know these credentials: look at AWS_PROFILE and AWS_ACCESS_KEY_ID"
    if code == "OptInRequired":
        return "this account has not enabled the region"
    return "these credentials may not do this: docs/fleets-aws.md lists what they need" if code in _DENIED else None


_HINTS = {
    "NoCredentialsError": "there are no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentialsError": "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY, or the other way about",
    "ProfileNotFound": "AWS_PROFILE names a profile that is not in the configuration",
    "TokenRetrievalError": "the session has expired: sign in again",
    "SSOTokenLoadError": "the session has expired: sign in again",
    "UnauthorizedSSOTokenError": "the session has expired: sign in again",
    "CredentialRetrievalError": "the program that gives credentials failed",
    "EndpointConnectionError": "no such region, or no network: look at the region's name and AWS_ENDPOINT_URL",
}
