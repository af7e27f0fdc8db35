"""`factory drift`: what runs of a fleet and should not, and what should and does not; replaced on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from factory.cli import output, tables
from factory.errors import DriftError, FactoryError, ProviderError, TrustError, UsageError
from factory.model import Layout

if TYPE_CHECKING:
    from factory.rollout.looking import Look
    from factory.rollout.mending import Mended

_WORDS = {"wrong-image": "of a wrong image", "unknown-image": "of an unknown image", "traffic": "traffic gone astray"}
_COLUMNS = ("kind", "instance", "generation", "digest", "count", "why")


@click.command()
@click.argument("fleet")
@click.option("--heal", "heals", is_flag=True, help="Replace what drifted. Not while a rollout goes on.")
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --heal: launch and retire at most so many.  [default: a third of the fleet]",
)
@click.option(
    "--breaker",
    type=click.IntRange(min=1),
    metavar="K",
    help="With --heal: launch no more after so many replacements that failed.  [default: 3]",
)
@tables.forms
@click.pass_obj
def drift(
    obj: dict[str, Any],
    /,
    fleet: str,
    heals: bool,
    budget: int | None,
    breaker: int | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Instances of FLEET of the wrong, an unknown or a revoked image, missing, extra and unhealthy ones.

    Exit 5 where there are any, 0 where there are none. With --heal, what is left afterwards counts; 3 where
    replacements failed, 6 where the image that serves may not be launched, 7 while a rollout goes on.
    """
    form = tables.form_of(as_json=as_json, as_csv=as_csv)
    for name, given in (("--budget", budget), ("--breaker", breaker)):
        if given is not None and not heals:
            raise UsageError(f"{name} is for --heal", where=name, hint=f"factory drift {fleet} --heal {name} {given}")
    layout = Layout(obj["folder"].resolve())
    healed = _heal(layout, fleet, budget, breaker) if heals else None
    found = _look(layout, fleet)
    rows = [_row(one) for one in found.drifts]
    tables.show(form, _COLUMNS, rows, lambda _: _document(found, rows, healed))
    failure = _judged(found, healed)
    if failure is not None and form == tables.TABLE:
        raise failure
    if failure is not None:
        output.explain(failure)
        raise click.exceptions.Exit(failure.exit_code)
    if form == tables.TABLE:
        output.say(_fine(found))


def _heal(layout: Layout, fleet: str, budget: int | None, breaker: int | None) -> Mended:
    from factory.rollout import mending
    from factory.rollout.heal import Limits

    return mending.mend(
        layout,
        fleet,
        lambda wanted: Limits(budget or max(1, wanted.size // 3), breaker or 3),
        lambda text: output.say(f"{fleet}: {text}"),
    )


def _look(layout: Layout, fleet: str) -> Look:
    from factory.catalog.database import Catalog
    from factory.rollout import looking

    if not layout.catalog.is_file():
        Catalog.open(layout.catalog).close()
    with Catalog.read(layout.catalog) as catalog:
        return looking.look(layout, catalog, fleet)


def _row(one: Any) -> dict[str, Any]:
    return {**{key: getattr(one, key) for key in _COLUMNS}, "kind": str(one.kind)}


def _document(found: Look, rows: list[dict[str, Any]], healed: Mended | None) -> dict[str, Any]:
    standing, serving = found.standing, found.standing.serving
    return {
        "fleet": found.fleet.name,
        "generation": serving and serving.generation,
        "digest": serving and serving.image.digest,
        "size": found.fleet.size,
        "min": found.fleet.min,
        "max": found.fleet.max,
        "instances": len(standing.observed.instances),
        "healthy": len(standing.healthy),
        "rollout": None if found.rollout is None else _state(found),
        "ended": found.ended,
        "refused": found.refused,
        "drift": rows,
        "healed": healed
        and {
            "end": str(healed.end),
            "why": healed.move.why or None,
            "launched": list(healed.launched),
            "retired": list(healed.retired),
            "failed": healed.move.progress.failed,
        },
    }


def _state(found: Look) -> str:
    from factory.rollout import fleet as fleets

    assert found.rollout is not None
    return str(fleets.status_of(found.rollout).state)


def _judged(found: Look, healed: Mended | None) -> FactoryError | None:
    """What a run comes to; None where there is no drift."""
    name = found.fleet.name
    where = f"fleet {name}"
    if healed is not None and (failure := _unhealed(name, healed)) is not None:
        return failure
    if not found.drifts:
        return None
    return DriftError(f"{name} is not as it should be: {_counts(found)}", where=where, hint=_hint(name, found))


def _counts(found: Look) -> str:
    """How many there are of each kind."""
    counts: dict[str, int] = {}
    for one in found.drifts:
        counts[one.kind] = counts.get(one.kind, 0) + one.count
    return ", ".join(f"{count} {_WORDS.get(kind, kind)}" for kind, count in counts.items())


def _hint(name: str, found: Look) -> str:
    """What to do about drift."""
    apply = f"factory rollout apply {name}"
    if found.standing.rolling is not None:
        return f"a rollout goes on; {apply} drives it to its end"
    if found.ended is not None:
        return f"factory fleet destroy {name} --yes ends what is left"
    if found.standing.serving is None:
        brings = f"{apply} brings it up"
        return f"{brings}; factory fleet destroy {name} --yes ends what runs" if found.standing.present else brings
    if found.refused is not None:
        return f"nothing of the image that serves is launched any more: {found.refused}; {apply} brings what may run"
    if found.next_step is not None:
        keeps = f"factory drift {name} --heal keeps generation {found.standing.serving.generation} only"
        return f"{found.next_step}; {keeps}"
    return f"factory drift {name} --heal replaces what drifted"


def _unhealed(name: str, healed: Mended) -> FactoryError | None:
    """Why a run that was to heal did not."""
    from factory.rollout.heal import End

    where, why = f"fleet {name}", healed.move.why
    again = f"factory drift {name} --heal goes on; --budget N lets it replace more"
    match healed.end:
        case End.BREAKER:
            hint = (
                f"factory rollout status {name} shows what runs; a fix is another image: factory rollout apply {name}"
            )
            return ProviderError(why, where=where, hint=hint)
        case End.REFUSED:
            hint = f"nothing of it is launched again; factory rollout apply {name} brings what may run"
            return TrustError(f"the image that serves may not be launched: {why}", where=where, hint=hint)
        case End.BUDGET:
            return DriftError(f"not all is healed: {why}", where=where, hint=again)
        case End.STUCK:
            return DriftError(f"not all is healed: {why}", where=where, hint=f"factory rollout status {name}")
    return None


def _fine(found: Look) -> str:
    name = found.fleet.name
    if found.ended == "destroyed":
        return f"{name} was destroyed; nothing of it runs"
    if found.ended is not None:
        return f"{name} is being destroyed; nothing of it runs"
    if found.standing.rolling is not None:
        return f"{name}: a rollout goes on; nothing runs that is not of it"
    standing = found.standing
    count = sum(one.id not in standing.healthy for one in standing.present)
    unwell = f", {count} of them not healthy yet" if count else ""
    return f"{name} is as it should be: {standing.size} instance{'' if standing.size == 1 else 's'}{unwell}"
