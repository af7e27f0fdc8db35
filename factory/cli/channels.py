"""`factory channels`: what may run where, and until when that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, promotions
from factory.errors import UsageError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.release.listing import ChannelState, Past, Place, Proposal


@click.group()
def channels() -> None:
    """What stands in each channel; sign heads before they expire."""


@channels.command("list")
@click.argument("channel", required=False, metavar="[CHANNEL]")
@click.option("--history", is_flag=True, help="Every promotion to CHANNEL that the catalog here has seen.")
@promotions.JSON
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
                "revocations": {
                    "expires_at": promotions.text(found.revocations_until),
                    "error": promotions.error(found.revocations_fault),
                },
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
@promotions.KEY
@promotions.JSON
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
    done = flow.refresh(layout, promotions.signing(layout, key), every=every)
    if as_json:
        output.document(
            {
                "renewed": [
                    {"file": one.file, "version": one.version, "expires_at": promotions.text(one.expires_at)}
                    for one in done.renewed
                ],
                "fresh": [{"file": file, "expires_at": promotions.text(until)} for file, until in done.fresh],
                "refused": [
                    {"file": file, "error": promotions.error(error)} for file, error in sorted(done.refused.items())
                ],
            }
        )
    else:
        for one in done.renewed:
            output.data(f"{one.file}  version {one.version}, good until {promotions.text(one.expires_at)}")
        for file, until in done.fresh:
            output.say(f"{file}: good until {promotions.text(until)}, left as it is")
        if done.renewed:
            output.say(promotions.COMMIT)
    for file, error in sorted(done.refused.items()):
        output.say(f"{output.colour('refused', 'red', 'bold')} {file}: {error.message}")
        if error.hint:
            output.say(f"  {error.hint}")
    return 6 if done.refused else 0


def _adopt(layout: Layout, key: str | None, *, as_json: bool) -> int:
    from factory.release import adopt as flow

    done = flow.adopt(layout, promotions.signing(layout, key))
    if as_json:
        output.document(
            {
                "renewed": [{"file": head.file, "version": head.version} for head in done.heads],
                "adopted": [{"file": one.file, "of": one.of, "what": one.what} for one in done.events],
                "void": [{"file": one.file, "of": one.of, "what": one.what} for one in done.void],
                "refused": [
                    {"file": file, "error": promotions.error(error)} for file, error in sorted(done.refused.items())
                ],
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
        output.say(
            "what they signed of images: factory bake verifies it again, and signs it" + f"; {promotions.COMMIT}"
        )
    for file, error in sorted(done.refused.items()):
        output.say(f"{output.colour('refused', 'red', 'bold')} {file}: {error.message}")
    return 6 if done.refused else 0


def _tell_channel(state: ChannelState) -> None:
    heading = output.colour(state.name, "bold")
    if state.version is None or state.expires_at is None:
        output.say(f"{heading}: {state.fault.message if state.fault else 'nothing was ever promoted to it'}")
        return
    output.say(f"{heading}: version {state.version}, good until {promotions.text(state.expires_at)}")
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
        made_at = promotions.text(said.made_at)
        output.data(f"{state.name}  {said.image:<{width}}  {said.digest}  {made_at}  {by}  {_state(place)}")
        for line in promotions.odd(said):
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
    for line in promotions.odd(said):
        output.say(f"  {line}")


def _tell_history(channel: str, past: list[Past]) -> None:
    if not past:
        output.say(f"the catalog here has seen no promotion to {channel}")
    for one in past:
        said = one.promotion
        made_at, by = promotions.text(said.made_at), ",".join(one.signers)
        output.data(f"{made_at}  {said.image}  {said.digest}  number {said.number}  {by}")
        for line in promotions.odd(said):
            output.say(f"  {line}")


def _state(place: Place) -> str:
    return "ok" if place.refused is None else place.refused.kind


def _channel_json(state: ChannelState) -> dict[str, Any]:
    return {
        "channel": state.name,
        "version": state.version,
        "expires_at": None if state.expires_at is None else promotions.text(state.expires_at),
        "error": promotions.error(state.fault),
        "images": [
            {
                **({"image": place.image} if place.promotion is None else promotions.promotion_json(place.promotion)),
                "state": _state(place),
                "error": promotions.error(place.refused),
            }
            for place in state.places
        ],
    }


def _proposal_json(proposal: Proposal) -> dict[str, Any]:
    return {**promotions.promotion_json(proposal.promotion), "missing": proposal.missing, "file": proposal.file}


def _past_json(past: Past) -> dict[str, Any]:
    return {**promotions.promotion_json(past.promotion), "signers": list(past.signers)}
