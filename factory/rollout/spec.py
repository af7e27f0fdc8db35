"""fleets.toml -> FleetSpec: what to run, and how it is replaced.

Owns the names of the keys, their types, limits and defaults (those of the records in model.py). Reads fleets.toml and
nothing else; never writes. What it returns can be done: a fleet reaches its minimum, and its strategy replaces it
within its maximum. All faults of the file come in one SpecError. Whether what it names is there (image, channel,
files) is asked separately, when a rollout is planned: `faults_against`, `file_faults`.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

from factory import schema
from factory.errors import UsageError
from factory.model import FactorySpec
from factory.rollout import plan, providers
from factory.rollout.model import Deadline, Deadlines, External, FleetSpec, Step, Strategy
from factory.rollout.spec_evidence import BRIEF, SECONDS, WAIT, analysis, health
from factory.schema import Faults, Limits, Range, Table
from factory.spec import ARCHES
from factory.trust.policy import Policy

FILE = "fleets.toml"
MOST_INSTANCES = 100_000

OUTCOMES = {
    "launch": ("abort", "pause"),
    "shift": ("abort", "pause"),
    "drain": ("continue", "pause"),
    "retire": ("continue", "pause"),
    "rollback": ("continue", "pause"),
}
"""What may happen when a wait has taken too long. Nothing goes on without instances or traffic that were waited for;
after the point of no return nothing is aborted."""

NAMES = Limits(pattern=re.compile(r"[a-z0-9-]{1,63}"), described="1 to 63 of a-z, 0-9 and -")
_EXTERNAL = Limits(pattern=re.compile(r"[A-Z_][A-Z0-9_]{0,62}"), described="1 to 63 of A-Z, 0-9 and _, no digit first")
_PATH = Limits(pattern=re.compile(r"[^\x00-\x1f\x7f]+"), described="a path without control characters")
_ARN = Limits(
    pattern=re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+"),
    described="the ARN of a secret, such as arn:aws:secretsmanager:eu-west-1:123456789012:secret:NAME",
)
_SIZE = Range(1, MOST_INSTANCES)
_DEFAULTS = {one.name: one.default for one in fields(FleetSpec) if one.default is not MISSING}
_FLEET_KEYS = tuple(one.name for one in fields(FleetSpec) if one.name != "name")
_STEP_KEYS = ("weight", "weights", "pause_s", "analyse")
_OF_PROVIDER = {
    **dict.fromkeys(("listen", "allow_public_listen", "memory_mib", "response_timeout_s"), "local"),
    "aws": "aws",
}
_OF_STRATEGY = {"steps": "canary", "surge": "rolling"}


def load(root: Path) -> Mapping[str, FleetSpec]:
    """The fleets of the factory in `root`, by name. SpecError names every fault of the file; none: no fleets.toml."""
    root = Path(root).absolute()
    data, faults = schema.load(root / FILE)
    top = Table(data, (), faults)
    fleets = {name: _fleet(root, name, table) for name, table in top.table("fleet").tables(NAMES).items()}
    top.close(("fleet",))
    _check_listens(fleets, faults)
    faults.check()
    return fleets


def find(root: Path, name: str) -> FleetSpec:
    """One fleet. UsageError with the nearest spelling where there is none; SpecError as `load`."""
    fleets = load(root)
    if name not in fleets:
        hint = schema.suggestion(name, fleets)
        raise UsageError(f"there is no fleet {schema.quoted(name)}", where=FILE, hint=hint)
    return fleets[name]


def _fleet(root: Path, name: str, table: Table) -> FleetSpec:
    noted = len(table.faults.found)
    size = table.whole("size", _SIZE)
    fleet = FleetSpec(
        name=name,
        provider=table.text("provider", Limits(choices=tuple(providers.KINDS)), required=True),
        image=table.text("image", NAMES, required=True),
        channel=table.optional_text("channel", NAMES),
        size=size,
        min=table.whole("min", Range(0, MOST_INSTANCES)),
        max=table.whole("max", _SIZE),
        strategy=table.text("strategy", Limits(choices=get_args(Strategy)), required=True),  # type: ignore[arg-type]
        health=health(table.table("health")),
        arch=table.optional_text("arch", Limits(choices=ARCHES)),
        listen=_listen(table),
        steps=_steps(table),
        surge=table.whole("surge", Range(1, MOST_INSTANCES), default=FleetSpec.surge),
        analysis=analysis(root, table.table("analysis")) if table.has("analysis") else None,
        bake_s=table.number("bake_s", WAIT, default=FleetSpec.bake_s),
        deadlines=_deadlines(table.table("deadlines")),
        external=tuple(_externals(root, table)),
        memory_mib=table.whole("memory_mib", Range(64, 1 << 20), default=FleetSpec.memory_mib),
        response_timeout_s=table.number("response_timeout_s", BRIEF, default=FleetSpec.response_timeout_s),
        **{key: table.truth(key) for key, default in _DEFAULTS.items() if default is False},
        aws=table.take("aws", dict, "a table") or {},
    )
    table.close(_FLEET_KEYS)
    _check(fleet, table, {path for path, _ in table.faults.found[noted:]})
    return fleet


def _check(fleet: FleetSpec, table: Table, faulty: set[str]) -> None:
    """Note what does not fit together in a fleet; only of keys that are right, each by itself."""

    def sound(*keys: str) -> bool:
        below = tuple(table.at(key) + "." for key in keys)
        return not any(path in (table.at(), *map(table.at, keys)) or path.startswith(below) for path in faulty)

    for decides, keys in (("provider", _OF_PROVIDER), ("strategy", _OF_STRATEGY)):
        chosen = getattr(fleet, decides)
        for key, belongs in keys.items():
            if sound(decides) and table.has(key) and chosen != belongs:
                table.fault(key, f"belongs to {belongs}, and this fleet is {chosen}")
    if sound("size", "min", "max") and not fleet.min <= fleet.size <= fleet.max:
        table.fault("size", f"must be from min to max ({fleet.min} to {fleet.max}), is {fleet.size}")
    if sound("strategy", "steps") and fleet.strategy == "canary" and not fleet.steps:
        table.faults.add(table.at(), 'a canary needs "steps", such as [{ weight = 10, pause_s = 60 }]')
    elif sound("size", "max", "strategy", "steps", "surge", "analysis"):
        _check_room(fleet, table)
    if sound("strategy", "steps", "analysis", "bake_s"):
        _check_analysis(fleet, table)


def _check_room(fleet: FleetSpec, table: Table) -> None:
    needed = plan.most_instances(fleet, fleet.size)
    if fleet.size <= fleet.max < needed:
        fresh = any(stage.baseline for stage in plan.stages(fleet, fleet.size))
        among = ", a fresh one to compare with among them" if fresh else ""
        why = f"{fleet.strategy} replaces {fleet.size} instances with up to {needed} of both generations{among}"
        table.fault("max", f"{why}, and {fleet.max} are allowed (nearest: {needed})")


def _check_analysis(fleet: FleetSpec, table: Table) -> None:
    asked = [step for step in fleet.steps if step.analyse]
    if fleet.analysis is None:
        if asked:
            table.fault("steps", "says analyse, and there is no [analysis] that says what to ask")
        return
    if fleet.strategy == "canary" and not asked:
        table.fault("analysis", "would never be asked: no step says analyse = true")
    if fleet.analysis.baseline == "none":
        return
    if fleet.strategy != "canary":
        table.fault("analysis", f'baseline = "fresh" belongs to canary, and this fleet is {fleet.strategy}')
    elif (fleet.bake_s or (asked and asked[-1].weight == 100)) and not (
        fleet.analysis.success or fleet.analysis.failure
    ):
        where = "while bake_s lasts" if fleet.bake_s else "at weight 100"
        table.fault("analysis", f'needs "success" or "failure": {where} there is no baseline any more')


def _listen(table: Table) -> str | None:
    written = table.optional_text("listen", required=table.has("provider") and table.peek("provider") == "local")
    if written is None:
        return None
    host, port = host_and_port(written)
    if not port:
        table.fault(
            "listen", f"{schema.quoted(written)} must be HOST:PORT, an IP address and 1 to 65535: 127.0.0.1:8080"
        )
    elif not host.is_loopback and table.peek("allow_public_listen") is not True:
        what = "is reached from other machines; where that is meant, add allow_public_listen = true"
        table.fault("listen", f"{schema.quoted(written)} {what}")
    return written


def host_and_port(written: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """The two parts of HOST:PORT (`[HOST]:PORT` for IPv6); port 0 where it is none."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+|localhost)):([1-9][0-9]{0,4})", written)
    try:
        host = ipaddress.ip_address((found[1] or found[2]).replace("localhost", "127.0.0.1") if found else "")
    except ValueError:
        return ipaddress.ip_address("0.0.0.0"), 0  # noqa: S104 - nothing listens there
    port = int(found[3]) if found else 0
    bracketed = found is not None and found[1] is not None
    return host, port if port < 1 << 16 and bracketed == (host.version == 6) else 0


def _check_listens(fleets: Mapping[str, FleetSpec], faults: Faults) -> None:
    taken: list[tuple[Any, int, str]] = []
    for name, fleet in fleets.items():
        host, port = host_and_port(fleet.listen or "")
        for other, its_port, owner in taken:
            if port == its_port and (host == other or host.is_unspecified or other.is_unspecified):
                path = schema.dotted("fleet", name, "listen")
                faults.add(path, f"{schema.quoted(fleet.listen)} is where the fleet {owner} listens")
        if port:
            taken.append((host, port, name))


def _steps(table: Table) -> tuple[Step, ...]:
    found: list[Step] = []
    for row in table.list_of_tables("steps"):
        noted = len(row.faults.found)
        step = Step(_weight(row), row.number("pause_s", WAIT, default=Step.pause_s), row.truth("analyse"))
        row.close(_STEP_KEYS)
        if len(row.faults.found) > noted:
            continue
        if found and step.weight <= found[-1].weight:
            row.fault("weight", f"{step.weight} must be more than the step before has, {found[-1].weight}")
        found.append(step)
    return tuple(found)


def _weight(row: Table) -> int:
    if not row.has("weights"):
        return row.whole("weight", Range(1, 100))
    pair = row.take("weights", list, "a list of two whole numbers")
    row.take("weight", int, "a whole number")
    if row.has("weight"):
        row.fault("weight", 'a step has either "weight" or "weights"')
    elif pair is not None and not (len(pair) == 2 and all(type(part) is int for part in pair)):
        row.fault("weights", "must be two whole numbers, of the old and of the new generation, such as [90, 10]")
    elif pair is not None and not (sum(pair) == 100 and 1 <= pair[1] <= 100):
        row.fault("weights", f"{schema.quoted(pair)} must sum to 100, with at least 1 for the new generation")
    else:
        return int(pair[1]) if pair else 1
    return 1  # a fault is noted


def _deadlines(table: Table) -> Deadlines:
    found = {}
    for name, outcomes in OUTCOMES.items():
        default: Deadline = getattr(Deadlines, name)
        row = table.table(name)
        seconds = row.number("seconds", SECONDS, default=default.seconds)
        found[name] = Deadline(seconds, row.text("then", Limits(choices=outcomes), default=default.then))  # type: ignore[arg-type]
        row.close(("seconds", "then"))
    table.close(tuple(OUTCOMES))
    return Deadlines(**found)


def _externals(root: Path, fleet: Table) -> Iterator[External]:
    wanted = {"local": "path", "aws": "arn"}.get(str(fleet.peek("provider")))
    for name, table in fleet.table("external").tables(_EXTERNAL).items():
        path, arn = table.optional_text("path", _PATH), table.optional_text("arn", _ARN)
        table.close(("path", "arn"))
        if table.has("path") == table.has("arn"):
            table.faults.add(table.at(), 'external state has either "path" (local) or "arn" (aws)')
        elif wanted is not None and not table.has(wanted):
            table.faults.add(table.at(), f'needs "{wanted}": this fleet is {fleet.peek("provider")}')
        yield External(name, None if path is None else posixpath.normpath(root / path), arn)


def faults_against(fleet: FleetSpec, factory: FactorySpec, policy: Policy | None) -> list[str]:
    """What a fleet names that the factory, or the policy that is trusted (None: not known), has not; a line each."""
    found = []
    image = factory.images.get(fleet.image)
    if image is None:
        advice = schema.suggestion(fleet.image, factory.images)
        found.append(f"fleet.{fleet.name}.image: there is no image {schema.quoted(fleet.image)}; {advice}")
    elif fleet.arch not in (None, image.arch):
        found.append(f"fleet.{fleet.name}.arch: the image {image.name} is for {image.arch}, not {fleet.arch}")
    if policy is not None and fleet.channel is not None and fleet.channel not in policy.channels:
        advice = schema.suggestion(fleet.channel, policy.channels)
        found.append(f"fleet.{fleet.name}.channel: there is no channel {schema.quoted(fleet.channel)}; {advice}")
    return found


def file_faults(fleet: FleetSpec) -> list[str]:
    """Which of the files that a fleet names are missing, empty, or can be read by others; a line each."""
    named = {f"external.{one.name}.path": one.path for one in fleet.external}
    named["analysis.token_file"] = fleet.analysis.token_file if fleet.analysis else None
    return [
        f"fleet.{fleet.name}.{key}: {problem}"
        for key, path in named.items()
        if path is not None and (problem := _private_problem(Path(path)))
    ]


def _private_problem(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is no file"
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        return f"{path} can be read or changed by others; chmod 600 {path}, and own it"
    return None if status.st_size else f"{path} is empty"
