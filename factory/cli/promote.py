"""`factory promote`: which image a channel points at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, promotions, times
from factory.errors import UsageError
from factory.model import CveSpec, Layout

if TYPE_CHECKING:
    from factory.release.promote import Outcome
    from factory.trust.promotions import Waiver


@click.command()
@click.argument("target", metavar="NAME[@DIGEST]")
@click.option("--to", "channel", metavar="CHANNEL", required=True, help="The channel that is to point at it.")
@click.option("--allow-older", is_flag=True, help="Also where it was baked before the one it replaces.")
@click.option("--waive", metavar="REQUIREMENT", multiple=True, help="Not met, but let pass until --until; repeatable.")
@click.option("--owner", metavar="WHO", help="Who answers for what is waived.")
@click.option("--reason", metavar="TEXT", help="Why it is waived.")
@click.option("--until", metavar="TIME", help="When the waiver ends, like 2026-12-31 or 2026-12-31T12:00:00Z.")
@click.option("--tracker", metavar="PATH|URL", multiple=True, help="For no-cve: instead of images.toml's [cve].")
@click.option("--osv", metavar="PATH|URL", multiple=True, help="OSV records, likewise.")
@click.option("--vex", metavar="PATH", multiple=True, help="OpenVEX statements, likewise.")
@click.option("--offline", is_flag=True, help="Ask no server for CVEs; use what was fetched before.")
@promotions.KEY
@click.option("--dry-run", is_flag=True, help="Judge it; sign and write nothing.")
@promotions.JSON
@click.pass_obj
def promote(
    obj: dict[str, Any], /, target: str, channel: str, allow_older: bool, waive: tuple[str, ...], owner: str | None,
    reason: str | None, until: str | None, tracker: tuple[str, ...], osv: tuple[str, ...], vex: tuple[str, ...],
    offline: bool, key: str | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Move CHANNEL on to the locked image NAME, or to the one with DIGEST.

    The channel's rule in trust/policy.toml says what must hold and how many must approve. Where more must, this leaves
    a proposal under trust/proposals/, and the next approver runs the same command. Exit 6 where it may not be.
    """
    from factory.release import promote as flow

    name, _, digest = target.partition("@")
    waivers = _waivers(waive, owner, reason, until)
    layout = Layout(obj["folder"].resolve())
    sources = CveSpec(*(tuple(map(_place, given)) for given in (tracker, osv, vex)))
    asked = flow.Asked(name, channel, digest or None, allow_older, waivers, dry_run, sources, offline)
    outcome = flow.promote(layout, asked, promotions.signing(layout, key))
    if as_json:
        output.document(_outcome_json(outcome, dry_run=dry_run))
    else:
        _tell(outcome, dry_run=dry_run)


def _tell(outcome: Outcome, *, dry_run: bool) -> None:
    from factory.release import promote as flow
    from factory.trust.statements import time_text

    said = outcome.promotion
    digest = output.colour(promotions.short(said.digest), "cyan")
    where = f"{said.image} {digest} {{}} {output.colour(said.channel, 'bold')}"
    if dry_run:
        output.say(where.format("stands already in" if outcome.status == flow.UNCHANGED else "may be promoted to"))
    elif outcome.status == flow.PROMOTED:
        assert outcome.expires_at is not None
        output.say(f"{output.colour('promoted', 'green', 'bold')} " + where.format("is in"))
        output.say(
            f"approved by {', '.join(said.approvers)}; good until {time_text(outcome.expires_at)}; {promotions.COMMIT}"
        )
    elif outcome.missing:
        verb = "waits" if outcome.status == flow.UNCHANGED else "proposed"
        output.say(f"{output.colour(verb, 'yellow', 'bold')}: " + where.format("to"))
        output.say(f"approved by {', '.join(said.approvers)}; {outcome.missing} more must approve")
        output.say(_next_step(outcome))
    else:
        output.say(where.format("stands already in") + f" since {time_text(said.made_at)}; nothing was written")
    for line in promotions.odd(said):
        output.say(f"  {line}")
    output.data(said.digest)


def _place(text: str) -> str:
    """A source as an option gives it: a path is one of where the command was run."""
    return text if "://" in text else str(Path(text).absolute())


def _next_step(outcome: Outcome) -> str:
    if not outcome.others:
        return "nobody else in trust/policy.toml may: factory key new NAME --role approver, elsewhere"
    return f"commit trust/, and have {' or '.join(outcome.others)} run the same command ({outcome.proposal})"


def _outcome_json(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "dry_run": dry_run,
        **promotions.promotion_json(outcome.promotion),
        "missing": outcome.missing,
        "others": list(outcome.others),
        "version": outcome.version,
        "expires_at": None if outcome.expires_at is None else promotions.text(outcome.expires_at),
        "proposal": outcome.proposal,
    }


def _waivers(waive: tuple[str, ...], owner: str | None, reason: str | None, until: str | None) -> tuple[Waiver, ...]:
    """What is waived. Raises UsageError unless somebody answers for it, says why and until when."""
    from factory.trust.predicates import MAX_TEXT
    from factory.trust.promotions import Waiver

    given = {"--owner": owner, "--reason": reason, "--until": until}
    if not waive:
        if extra := next((name for name, value in given.items() if value is not None), None):
            raise UsageError(f"{extra} goes with --waive", where=extra)
        return ()
    if missing := next((name for name, value in given.items() if not value), None):
        raise UsageError(
            f"a waiver needs {missing}",
            where=missing,
            hint="--waive REQUIREMENT --owner WHO --reason TEXT --until TIME",
        )
    for name, value in given.items():
        if value is not None and not (value.isprintable() and len(value) <= MAX_TEXT):
            raise UsageError(f"{name} is one line of at most {MAX_TEXT} printable characters", where=name)
    end = times.parse(until, "--until")
    assert owner is not None
    assert reason is not None
    assert end is not None
    return tuple(Waiver(requirement, owner, reason, end) for requirement in dict.fromkeys(waive))
