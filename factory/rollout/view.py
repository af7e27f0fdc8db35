"""How a fleet and its rollout look: gathered from what is remembered and what is seen, and as a JSON document.

`gather` asks the catalog, and the provider if it can; it changes nothing, so that anybody may look while another
process drives. `of_turn` is what whoever drives knows already.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from factory.catalog import rollouts
from factory.catalog.database import Catalog
from factory.errors import FactoryError
from factory.model import Layout
from factory.rollout import fleet as fleets
from factory.rollout import health, providers
from factory.rollout.engine import Turn
from factory.rollout.health import Answer
from factory.rollout.model import FleetSpec, Observation, Status
from factory.rollout.picture import Event, Picture, waiting, wanted_weights

MOST_EVENTS = 200
_MOST_STATES = 2000


def gather(layout: Layout, catalog: Catalog, wanted: FleetSpec, at: float) -> Picture:
    """How a fleet looks now."""
    driven = is_driven(catalog, wanted.name)  # asked first: whoever drives lets go only once the end is written down
    known = rollouts.last(catalog, wanted.name)
    plan = None if known is None else fleets.plan_of(known)
    fleet = wanted if plan is None or known is None or known.ended is not None else plan.fleet
    observed, unseen, answers = Observation(), None, dict[str, Answer]()
    try:
        observed = providers.connect(layout, fleet).observe()
        addresses = {one.id: one.address for one in observed.instances if one.address and one.healthy is None}
        answers = health.probe_all(addresses, fleet.health)
    except FactoryError as error:
        unseen = error.message
    return Picture(
        fleet,
        at,
        plan,
        None if known is None else fleets.status_of(known),
        () if known is None else tuple(_events(catalog, known)),
        observed,
        unseen,
        answers,
        driven,
        None if unseen is not None else fleets.next_step(catalog, wanted, observed),
    )


def is_driven(catalog: Catalog, fleet: str) -> bool:
    """Whether a living process works on a fleet."""
    holder = rollouts.holder(catalog, fleet)
    return holder is not None and fleets.is_alive(holder)


def of_turn(turn: Turn) -> Picture:
    """How a fleet looks to the engine that drives it; nobody is asked, and there are no events."""
    facts = turn.facts
    answers = {
        **{one: Answer(True) for one in facts.healthy},
        **{one: turn.answers.get(one, Answer(False)) for one in facts.ill},
    }
    return Picture(
        turn.plan.fleet, turn.at, turn.plan, turn.status, (), facts.observed, facts.unreachable, answers, driven=True
    )


def _events(catalog: Catalog, known: rollouts.Known) -> Iterator[Event]:
    """The states that differ from the one before, and those with notes; the last ones."""
    found: list[Event] = []
    for number, past in rollouts.recent_states(catalog, known.id, _MOST_STATES):
        status = msgspec.json.decode(past.status, type=Status)
        event = Event(number, past.at, str(status.state), status.step + 1, status.paused, past.notes)
        before = found[-1] if found else None
        is_same = before is not None and (before.state, before.step, before.paused) == (
            event.state, event.step, event.paused,
        )  # fmt: skip
        if not is_same or event.notes:
            found.append(event)
    yield from found[-MOST_EVENTS:]


def as_json(picture: Picture) -> dict[str, Any]:
    """The document of `rollout status --json`."""
    plan, status = picture.plan, picture.status
    return {
        "fleet": picture.fleet.name,
        "rollout": plan and plan.rollout,
        "state": status and str(status.state),
        "step": status and status.step + 1,
        "steps": plan and len(plan.stages),
        "from": plan and plan.old and plan.old.digest,
        "to": plan and plan.target.digest,
        "weight": 0 if plan is None else picture.observed.weights.get(plan.generation, 0),
        "wanted_weight": wanted_weights(picture).get(plan.generation, 0) if plan else 0,
        "paused": (status and status.paused) or None,
        "reason": (status and (status.why_paused or status.reason)) or None,
        "waiting": waiting(picture),
        "next": picture.next_step,
        "no_return_at": status and _time(status.no_return_at),
        "driven": picture.driven,
        "unseen": picture.unseen,
        "weights": {str(number): weight for number, weight in sorted(picture.observed.weights.items())},
        "instances": [
            {
                "id": one.id,
                "generation": one.generation,
                "digest": one.digest,
                "state": one.state,
                "healthy": picture.is_healthy(one),
                "why": one.why or None,
                "address": one.address,
                "sessions": one.sessions,
                "launched_at": _time(one.launched_at),
            }
            for one in sorted(picture.observed.instances, key=lambda one: (one.generation, one.id))
        ],
        "events": [{**vars(event), "notes": list(event.notes)} for event in picture.events],
    }


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
