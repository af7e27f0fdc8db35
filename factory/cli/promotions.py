"""What `factory promote`, `factory revoke` and `factory channels` share: how a promotion is told, and who signs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output
from factory.model import Layout

if TYPE_CHECKING:
    from factory.release.signing import Signing
    from factory.trust.promotions import Promotion

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
KEY = click.option("--key", metavar="NAME", help="Sign with this key (else FACTORY_KEY, or the only one that may).")
COMMIT = "commit trust/, and hand it on"


def signing(layout: Layout, key: str | None) -> Signing:
    from factory.cli.key import ask_known
    from factory.release.signing import Signing

    return Signing.open(layout, key=key, ask=ask_known, say=output.say)


def odd(said: Promotion) -> list[str]:
    waived = [
        f"waived until {text(waiver.expires_at)}: {waiver.requirement} ({waiver.owner}: {waiver.reason})"
        for waiver in said.waivers
    ]
    explained = [
        f"explained until {text(one.until)}: {one.id} of {one.package} ({one.owner})"
        for one in (said.cve.explained if said.cve else ())
    ]
    return [*waived, *explained, *(["an older image, on purpose"] if said.allow_older else [])]


def promotion_json(said: Promotion) -> dict[str, Any]:
    return {
        "channel": said.channel,
        "image": said.image,
        "digest": said.digest,
        "number": said.number,
        "made_at": text(said.made_at),
        "baked_at": text(said.baked_at),
        "replaces": said.replaces,
        "approvers": list(said.approvers),
        "requirements": dict(said.requirements),
        "waivers": [waiver.plain() for waiver in said.waivers],
        "allow_older": said.allow_older,
        "cve": None if said.cve is None else said.cve.plain(),
    }


def error(error: Any) -> dict[str, object] | None:
    return None if error is None else error.as_json()


def text(moment: datetime) -> str:
    from factory.trust.statements import time_text

    return time_text(moment)


def short(digest: str) -> str:
    return f"{digest[:19]}…"
