"""`factory promote`, `factory revoke`, `factory channels`: what may run where, and what must run nowhere."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, times
from factory.errors import UsageError
from factory.model import CveSpec, Layout

if TYPE_CHECKING:
    from factory.release.listing import ChannelState, Past, Place, Proposal
    from factory.release.promote import Outcome
    from factory.release.signing import Signing
    from factory.trust.promotions import Promotion, Waiver

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_KEY = click.option("--key", metavar="NAME", help="Sign with this key (else FACTORY_KEY, or the only one that may).")
_COMMIT = "commit trust/, and hand it on"


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
@_KEY
@click.option("--dry-run", is_flag=True, help="Judge it; sign and write nothing.")
@_JSON
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
    outcome = flow.promote(layout, asked, _signing(layout, key))
    if as_json:
        output.document(_outcome_json(outcome, dry_run=dry_run))
    else:
        _tell(outcome, dry_run=dry_run)


def _tell(outcome: Outcome, *, dry_run: bool) -> None:
    from factory.release import promote as flow
    from factory.trust.statements import time_text

    said = outcome.promotion
    where = f"{said.image} {output.colour(_short(said.digest), 'cyan')} {{}} {output.colour(said.channel, 'bold')}"
    if dry_run:
        output.say(where.format("stands already in" if outcome.status == flow.UNCHANGED else "may be promoted to"))
    elif outcome.status == flow.PROMOTED:
        assert outcome.expires_at is not None
        output.say(f"{output.colour('promoted', 'green', 'bold')} " + where.format("is in"))
        output.say(f"approved by {', '.join(said.approvers)}; good until {time_text(outcome.expires_at)}; {_COMMIT}")
    elif outcome.missing:
        verb = "waits" if outcome.status == flow.UNCHANGED else "proposed"
        output.say(f"{output.colour(verb, 'yellow', 'bold')}: " + where.format("to"))
        output.say(f"approved by {', '.join(said.approvers)}; {outcome.missing} more must approve")
        output.say(_next_step(outcome))
    else:
        output.say(where.format("stands already in") + f" since {time_text(said.made_at)}; nothing was written")
    for line in _odd(said):
        output.say(f"  {line}")
    output.data(said.digest)


def _place(text: str) -> str:
    """A source as an option gives it: a path is one of where the command was run."""
    return text if "://" in text else str(Path(text).absolute())


def _next_step(outcome: Outcome) -> str:
    if not outcome.others:
        return "nobody else in trust/policy.toml may: factory key new NAME --role approver, elsewhere"
    return f"commit trust/, and have {' or '.join(outcome.others)} run the same command ({outcome.proposal})"


@click.command()
@click.argument("target", metavar="DIGEST|NAME[@DIGEST]")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is signed, and shown to whoever is refused.")
@click.option("--at", metavar="TIME", help="From when on, like 2026-12-31 or 2026-12-31T12:00:00Z.  [default: now]")
@click.option("--unknown", is_flag=True, help="Also where nothing here has that digest.")
@_KEY
@_JSON
@click.pass_obj
def revoke(
    obj: dict[str, Any], /, target: str, reason: str, at: str | None, unknown: bool, key: str | None, as_json: bool
) -> None:
    """Withdraw an image (or a base) and all that descends from it: nobody gets it from then on.

    Signed by an approver or root. There is no way back: bake a new image.
    """
    from factory.release import revoke as flow
    from factory.trust.statements import time_text

    layout = Layout(obj["folder"].resolve())
    done = flow.revoke(layout, target, reason, _signing(layout, key), at=times.parse(at, "--at"), unknown=unknown)
    event = done.event
    if as_json:
        output.document(
            {
                "digest": event.digest,
                "name": event.name,
                "reason": event.reason,
                "at": time_text(event.at),
                "number": event.number,
                "version": done.version,
                "status": "revoked" if done.is_new else "unchanged",
                "descendants": [{"name": name, "digest": digest} for name, digest in done.descendants],
                "channels": [{"channel": channel, "image": image} for channel, image in done.channels],
            }
        )
        return
    word = output.colour("revoked", "red", "bold")
    when = f"from {time_text(event.at)} on: {event.reason}"
    output.say(f"{word} {event.name} {event.digest}" + (f" {when}" if done.is_new else f" already, {when}"))
    for name, digest in done.descendants:
        output.say(f"  and with it {name} {_short(digest)}, which descends from it")
    for channel, image in done.channels:
        output.say(f"  {channel} refuses {image} from then on: promote another")
    output.say(f"{_COMMIT}: who has the old set does not know yet" if done.is_new else "nothing was written")
    output.data(event.digest)


@click.group()
def channels() -> None:
    """What stands in each channel; sign heads before they expire."""


@channels.command("list")
@click.argument("channel", required=False, metavar="[CHANNEL]")
@click.option("--history", is_flag=True, help="Every promotion to CHANNEL that the catalog here has seen.")
@_JSON
@click.pass_obj
def list_channels(obj: dict[str, Any], /, channel: str | None, history: bool, as_json: bool) -> None:
    """What each channel points at, since when, by whom; what waits for approval."""
    from factory.release import listing as flow

    layout = Layout(obj["folder"].resolve())
    if history:
        if channel is None:
            raise UsageError(
                "the history of which channel?", where="--history", hint="factory channels list CHANNEL --history"
            )
        past = flow.history(layout, channel)
        if as_json:
            output.document({"channel": channel, "history": [_past_json(one) for one in past]})
        else:
            _tell_history(channel, past)
        return
    try:
        found = flow.listing(layout, channel)
    except FileNotFoundError:
        raise UsageError(
            "there is no trust policy here",
            where=str(layout.policy),
            hint="factory key new NAME --role ROLE begins one",
        ) from None
    if as_json:
        output.document(
            {
                "channels": [_channel_json(one) for one in found.channels],
                "proposals": [_proposal_json(one) for one in found.proposals],
                "revocations": {"expires_at": _text(found.revocations_until), "error": _error(found.revocations_fault)},
            }
        )
        return
    for state in found.channels:
        _tell_channel(state)
    for proposal in found.proposals:
        _tell_proposal(proposal)
    if found.revocations_fault is not None:
        output.say(f"{output.colour('warning:', 'yellow', 'bold')} {found.revocations_fault.message}")


@channels.command("refresh")
@click.option("--all", "every", is_flag=True, help="Also what is good for long enough.")
@click.option(
    "--adopt", "takes_over", is_flag=True, help="Sign what only development keys had signed, with a real key."
)
@_KEY
@_JSON
@click.pass_obj
def refresh(
    obj: dict[str, Any], /, every: bool, takes_over: bool, key: str | None, as_json: bool
) -> int:  # fmt: skip
    """Sign anew the heads with less than a third of their life left, and the set of revocations.

    What they list is not changed. One that does not verify is left as it is: exit 6. With --adopt an approver's or
    root's key takes over what rests on development keys alone.
    """
    from factory.release import refresh as flow

    layout = Layout(obj["folder"].resolve())
    if takes_over:
        if every:
            raise UsageError(
                "--adopt signs what has to be signed, --all everything", where="--all", hint="leave it out"
            )
        return _adopt(layout, key, as_json=as_json)
    done = flow.refresh(layout, _signing(layout, key), every=every)
    if as_json:
        output.document(
            {
                "renewed": [
                    {"file": one.file, "version": one.version, "expires_at": _text(one.expires_at)}
                    for one in done.renewed
                ],
                "fresh": [{"file": file, "expires_at": _text(until)} for file, until in done.fresh],
                "refused": [{"file": file, "error": _error(error)} for file, error in sorted(done.refused.items())],
            }
        )
    else:
        for one in done.renewed:
            output.data(f"{one.file}  version {one.version}, good until {_text(one.expires_at)}")
        for file, until in done.fresh:
            output.say(f"{file}: good until {_text(until)}, left as it is")
        if done.renewed:
            output.say(_COMMIT)
    for file, error in sorted(done.refused.items()):
        output.say(f"{output.colour('refused', 'red', 'bold')} {file}: {error.message}")
        if error.hint:
            output.say(f"  {error.hint}")
    return 6 if done.refused else 0


def _adopt(layout: Layout, key: str | None, *, as_json: bool) -> int:
    from factory.release import adopt as flow

    done = flow.adopt(layout, _signing(layout, key))
    if as_json:
        output.document(
            {
                "renewed": [{"file": head.file, "version": head.version} for head in done.heads],
                "adopted": [{"file": one.file, "of": one.of, "what": one.what} for one in done.events],
                "void": [{"file": one.file, "of": one.of, "what": one.what} for one in done.void],
                "refused": [{"file": file, "error": _error(error)} for file, error in sorted(done.refused.items())],
            }
        )
    else:
        for one in done.events:
            output.say(f"took over {one.what}")
        for one in done.void:
            output.say(f"{output.colour('void', 'yellow', 'bold')}: {one.what}: promote it anew")
        for head in done.heads:
            output.data(f"{head.file}  version {head.version}")
        if not done.heads:
            output.say("no head in trust/ rests on development keys alone")
        output.say("what they signed of images: factory bake verifies it again, and signs it" + f"; {_COMMIT}")
    for file, error in sorted(done.refused.items()):
        output.say(f"{output.colour('refused', 'red', 'bold')} {file}: {error.message}")
    return 6 if done.refused else 0


def _tell_channel(state: ChannelState) -> None:
    heading = output.colour(state.name, "bold")
    if state.version is None or state.expires_at is None:
        output.say(f"{heading}: {state.fault.message if state.fault else 'nothing was ever promoted to it'}")
        return
    output.say(f"{heading}: version {state.version}, good until {_text(state.expires_at)}")
    if state.fault is not None:
        output.say(f"  {output.colour('refused', 'red')}: {state.fault.message}")
    width = max((len(place.image) for place in state.places), default=0)
    for place in state.places:
        said = place.promotion
        if said is None:
            output.data(f"{state.name}  {place.image:<{width}}  -  -  -  {_state(place)}")
            if place.refused is not None:
                output.say(f"  {output.colour('refused', 'red')}: {place.refused.message}")
            continue
        by = ",".join(said.approvers) or "-"
        output.data(f"{state.name}  {said.image:<{width}}  {said.digest}  {_text(said.made_at)}  {by}  {_state(place)}")
        for line in _odd(said):
            output.say(f"  {line}")
        if place.refused is not None:
            output.say(f"  {output.colour('refused', 'red')}: {place.refused.message}")


def _tell_proposal(proposal: Proposal) -> None:
    said = proposal.promotion
    by = ", ".join(said.approvers) or "nobody"
    output.say(
        f"{output.colour('waits', 'yellow', 'bold')}: {said.image} {said.digest} to {said.channel}, approved by {by}, "
        f"{proposal.missing} more must: factory promote {said.image}@{said.digest} --to {said.channel}"
    )
    for line in _odd(said):
        output.say(f"  {line}")


def _tell_history(channel: str, past: list[Past]) -> None:
    if not past:
        output.say(f"the catalog here has seen no promotion to {channel}")
    for one in past:
        said = one.promotion
        output.data(
            f"{_text(said.made_at)}  {said.image}  {said.digest}  number {said.number}  {','.join(one.signers)}"
        )
        for line in _odd(said):
            output.say(f"  {line}")


def _odd(said: Promotion) -> list[str]:
    waived = [
        f"waived until {_text(waiver.expires_at)}: {waiver.requirement} ({waiver.owner}: {waiver.reason})"
        for waiver in said.waivers
    ]
    explained = [
        f"explained until {_text(one.until)}: {one.id} of {one.package} ({one.owner})"
        for one in (said.cve.explained if said.cve else ())
    ]
    return [*waived, *explained, *(["an older image, on purpose"] if said.allow_older else [])]


def _state(place: Place) -> str:
    return "ok" if place.refused is None else place.refused.kind


def _outcome_json(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "dry_run": dry_run,
        **_promotion_json(outcome.promotion),
        "missing": outcome.missing,
        "others": list(outcome.others),
        "version": outcome.version,
        "expires_at": None if outcome.expires_at is None else _text(outcome.expires_at),
        "proposal": outcome.proposal,
    }


def _promotion_json(said: Promotion) -> dict[str, Any]:
    return {
        "channel": said.channel,
        "image": said.image,
        "digest": said.digest,
        "number": said.number,
        "made_at": _text(said.made_at),
        "baked_at": _text(said.baked_at),
        "replaces": said.replaces,
        "approvers": list(said.approvers),
        "requirements": dict(said.requirements),
        "waivers": [
            {
                "requirement": one.requirement,
                "owner": one.owner,
                "reason": one.reason,
                "expires_at": _text(one.expires_at),
            }
            for one in said.waivers
        ],
        "allow_older": said.allow_older,
        "cve": None if said.cve is None else said.cve.plain(),
    }


def _channel_json(state: ChannelState) -> dict[str, Any]:
    return {
        "channel": state.name,
        "version": state.version,
        "expires_at": None if state.expires_at is None else _text(state.expires_at),
        "error": _error(state.fault),
        "images": [
            {
                **({"image": place.image} if place.promotion is None else _promotion_json(place.promotion)),
                "state": _state(place),
                "error": _error(place.refused),
            }
            for place in state.places
        ],
    }


def _proposal_json(proposal: Proposal) -> dict[str, Any]:
    return {**_promotion_json(proposal.promotion), "missing": proposal.missing, "file": proposal.file}


def _past_json(past: Past) -> dict[str, Any]:
    return {**_promotion_json(past.promotion), "signers": list(past.signers)}


def _error(error: Any) -> dict[str, object] | None:
    return None if error is None else error.as_json()


def _text(moment: datetime) -> str:
    from factory.trust.statements import time_text

    return time_text(moment)


def _short(digest: str) -> str:
    return f"{digest[:19]}…"


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


def _signing(layout: Layout, key: str | None) -> Signing:
    from factory.cli.key import ask_known
    from factory.release.signing import Signing

    return Signing.open(layout, key=key, ask=ask_known, say=output.say)
