"""The forms in which `factory resolve` gives its answer: a line, JSON, dotenv, GitHub, Terraform, Ansible. Pure.

Every form says the same. Names are `digest`, `path`, …, with the prefix FACTORY_IMAGE_ in an environment and
factory_image_ among Ansible's variables. Where a form knows only strings, lists are joined by commas and what is
not there is empty.
"""

from __future__ import annotations

import json
import os
from typing import Any

from factory.release.resolve import Answer
from factory.trust.statements import time_text


def document(answer: Answer) -> dict[str, Any]:
    """The document of `resolve --json`."""
    return {
        "name": answer.name,
        "arch": answer.arch,
        "digest": answer.digest,
        "bake_key": answer.bake_key,
        "channel": answer.channel,
        "location": answer.location,
        "artifact": answer.artifact,
        "path": None if answer.path is None else str(answer.path),
        "reference": answer.reference,
        "signers": list(answer.signers),
        "signer_keys": list(answer.signer_keys),
        "ancestors": list(answer.ancestors),
        "baked_at": time_text(answer.baked_at),
        "verified_at": time_text(answer.verified_at),
        "policy": answer.policy,
        "policy_source": answer.policy_source,
        "policy_version": answer.policy_version,
        "rollback": answer.rollback,
        "development": answer.development,
    }


def strings(answer: Answer) -> dict[str, str]:
    """The same, as strings: lists joined by commas, true and false, nothing as the empty string."""
    return {key: _string(value) for key, value in document(answer).items()}


def dotenv(answer: Answer) -> str:
    """Lines for a dotenv file, which a shell can read as well: values stand in single quotes."""
    return "\n".join(f"FACTORY_IMAGE_{key.upper()}={_quoted(value)}" for key, value in strings(answer).items())


def github_output(answer: Answer) -> str:
    """What is appended to the file that GITHUB_OUTPUT names: each value between delimiters that nobody can guess."""
    end = f"end_{os.urandom(16).hex()}"
    return "".join(f"{key}<<{end}\n{value}\n{end}\n" for key, value in strings(answer).items())


def terraform(answer: Answer) -> str:
    """One JSON object of strings: Terraform's protocol for external data sources."""
    return json.dumps(strings(answer))


def ansible(answer: Answer) -> str:
    """Variables for an inventory or `--extra-vars @file`: YAML, one a line, each value as JSON."""
    return "\n".join(f"factory_image_{key}: {json.dumps(value)}" for key, value in document(answer).items())


def _string(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
