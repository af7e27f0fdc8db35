"""`[fleet.NAME.aws]` of fleets.toml: the keys, their limits, and what of a fleet cannot be had on AWS.

Every fault is collected, as everywhere in files people write. Never asks AWS anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from factory.rollout.model import FleetSpec, Health
from factory.schema import Faults, Limits, Range, Table

KEYS = (
    "account",
    "drain_s",
    "instance_profile",
    "instance_type",
    "protocol",
    "regions",
    "replaces",
    "tags",
    "wait_s",
)
REGION_KEYS = ("listener", "name", "rule", "security_groups", "subnets", "vpc")

_ARN = r"arn:aws[a-z-]*"
_REGION = Limits(pattern=re.compile(r"[a-z]{2}(-[a-z]+)+-\d"), described="a region, such as eu-west-1")
_VPC = Limits(pattern=re.compile(r"vpc-[0-9a-f]{8,17}"), described="the id of a VPC, such as vpc-0123456789abcdef0")
_SUBNET = Limits(pattern=re.compile(r"subnet-[0-9a-f]{8,17}"), described="the id of a subnet")
_SECURITY_GROUP = Limits(pattern=re.compile(r"sg-[0-9a-f]{8,17}"), described="the id of a security group")
_LISTENER = Limits(
    pattern=re.compile(_ARN + r":elasticloadbalancing:[a-z0-9-]+:\d{12}:listener/app/[\w-]+/[0-9a-f]+/[0-9a-f]+"),
    described="the ARN of a listener of an Application Load Balancer",
)
_RULE = Limits(
    pattern=re.compile(
        _ARN + r":elasticloadbalancing:[a-z0-9-]+:\d{12}:listener-rule/app/[\w-]+/[0-9a-f]+/[0-9a-f]+/[0-9a-f]+"
    ),
    described="the ARN of a rule of an Application Load Balancer's listener",
)
_INSTANCE_TYPE = Limits(
    pattern=re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+"), described="an instance type, such as t3.small"
)
_PROFILE = Limits(
    pattern=re.compile(rf"[\w+=,.@-]{{1,128}}|{_ARN}:iam::\d{{12}}:instance-profile/[\w+=,.@/-]+"),
    described="the name or the ARN of an instance profile",
)
_ACCOUNT = Limits(pattern=re.compile(r"\d{12}"), described="the 12 digits of an account")
_PROTOCOL = Limits(choices=("HTTP", "HTTPS"))
_SECRET = re.compile(_ARN + r":secretsmanager:([a-z0-9-]+):\d{12}:secret:[\w/+=.@-]+")
_TAG_KEY = re.compile(r"[A-Za-z0-9+=._:@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")

MOST_TAG = 256
"""Characters in a tag's value."""
_INTERVAL = Range(5, 300)
_TIMEOUT = Range(2, 120)
_SUCCESSES = Range(2, 10)
_STATUS = Range(200, 499)


@dataclass(frozen=True)
class Region:
    """Where part of a fleet runs. `listener` or `rule`: whose forward action belongs to the fleet."""

    name: str
    vpc: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    listener: str | None = None
    rule: str | None = None

    @property
    def front(self) -> str:
        """The ARN of what the traffic comes from."""
        return self.listener or self.rule or ""


@dataclass(frozen=True)
class Check:
    """What a load balancer asks of each target: `port` and `path` by HTTP, every `interval_s`."""

    port: int
    path: str
    status: int
    interval_s: int
    timeout_s: int
    successes: int


@dataclass(frozen=True)
class AwsSpec:
    """The table, checked. `regions` in the order in which traffic is shifted, `wait_s` apart. `drain_s`: how long a
    retired instance may finish its requests. `replaces`: Auto Scaling itself launches an instance for one that died,
    without asking whether the image has been revoked."""

    regions: tuple[Region, ...]
    instance_type: str
    check: Check
    protocol: str = "HTTP"
    instance_profile: str | None = None
    account: str | None = None
    drain_s: int = 60
    wait_s: float = 0.0
    replaces: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


def read(fleet: FleetSpec, faults: Faults) -> AwsSpec:
    """The table of a fleet. Faults are noted in `faults`; what is returned counts only if there are none."""
    table = Table(fleet.aws, ("fleet", fleet.name, "aws"), faults)
    table.close(KEYS)
    spec = AwsSpec(
        regions=_regions(table),
        instance_type=table.text("instance_type", _INSTANCE_TYPE, required=True),
        check=_check(fleet, faults),
        protocol=table.text("protocol", _PROTOCOL, default="HTTP"),
        instance_profile=table.optional_text("instance_profile", _PROFILE),
        account=table.optional_text("account", _ACCOUNT),
        drain_s=table.whole("drain_s", Range(0, 3600), default=60),
        wait_s=table.number("wait_s", Range(0, 86_400), default=0.0),
        replaces=table.truth("replaces"),
        tags=_tags(table),
    )
    _fits(fleet, spec, table)
    return spec


def _regions(table: Table) -> tuple[Region, ...]:
    found: list[Region] = []
    for one in table.list_of_tables("regions"):
        one.close(REGION_KEYS)
        region = Region(
            name=one.text("name", _REGION, required=True),
            vpc=one.text("vpc", _VPC, required=True),
            subnets=one.texts("subnets", _SUBNET, least=1) or (),
            security_groups=one.texts("security_groups", _SECURITY_GROUP, least=1) or (),
            listener=one.optional_text("listener", _LISTENER),
            rule=one.optional_text("rule", _RULE),
        )
        for key in ("subnets", "security_groups"):
            if not one.has(key):
                one.faults.add(one.at(), f'the key "{key}" is missing (a list of ids)')
        if one.has("listener") == one.has("rule"):
            one.faults.add(one.at(), "say where the traffic comes from: either a listener or a rule")
        elif region.front and region.front.split(":")[3] != region.name:
            one.fault("listener" if region.listener else "rule", f"this one is not in {region.name}")
        if any(other.name == region.name for other in found):
            one.fault("name", f"{region.name} stands there twice")
        found.append(region)
    if not found and not table.has("regions"):
        table.faults.add(table.at(), 'the key "regions" is missing (a list of tables: [[fleet.NAME.aws.regions]])')
    elif not found:
        table.fault("regions", "must name at least one")
    return tuple(found)


def _tags(table: Table) -> dict[str, str]:
    tags = table.table("tags")
    found: dict[str, str] = {}
    written = table.take("tags", dict, "a table") or {}
    for key in written:
        value = tags.text(key) if written[key] != "" else ""
        if not _TAG_KEY.fullmatch(key):
            tags.fault(key, "the key of a tag is letters, digits and + = . _ : @ - (instances read them)")
        elif key.lower().startswith(("aws:", "factory:")) or key == "Name":
            tags.fault(key, "this tag is set by AWS or by the factory itself")
        elif not _TAG_VALUE.fullmatch(value):
            tags.fault(key, "the value of a tag is at most 256 letters, digits, spaces and + - = . _ : / @")
        found[key] = value
    return found


def _check(fleet: FleetSpec, faults: Faults) -> Check:
    """The fleet's health as a load balancer asks for it; faults where it cannot."""
    health, where = fleet.health, f"fleet.{fleet.name}.health"
    if health.http is None:
        faults.add(where, "an Application Load Balancer checks by HTTP only: give `http` in place of `tcp`")
    elif health.http.body is not None:
        faults.add(f"{where}.http", "an Application Load Balancer does not look into the body: leave `body` out")
    elif health.http.status not in _STATUS:
        faults.add(f"{where}.http", f"an Application Load Balancer can expect a status of {_STATUS} only")
    if health.successes > _SUCCESSES.most:
        faults.add(where, f"an Application Load Balancer counts at most {_SUCCESSES.most:g} successes")
    if health.interval_s not in _INTERVAL:
        faults.add(where, f"an Application Load Balancer checks every {_INTERVAL} s: give such an `interval_s`")
    return as_check(health)


def as_check(health: Health) -> Check:
    """The nearest check that a load balancer can do: 2 successes at least, and less time to answer than between two."""
    interval_s = min(max(math.ceil(health.interval_s), int(_INTERVAL.least)), int(_INTERVAL.most))
    timeout_s = min(max(math.ceil(health.timeout_s), int(_TIMEOUT.least)), int(_TIMEOUT.most), interval_s - 1)
    return Check(
        port=health.port,
        path=health.http.path if health.http is not None else "/",
        status=health.http.status if health.http is not None else 200,
        interval_s=interval_s,
        timeout_s=timeout_s,
        successes=max(health.successes, int(_SUCCESSES.least)),
    )


def _fits(fleet: FleetSpec, spec: AwsSpec, table: Table) -> None:
    """What the rest of the fleet asks for, against what it is to run on."""
    count = len(spec.regions)
    if fleet.size < count:
        table.fault("regions", f"{fleet.size} instances do not reach {count} regions: raise size, or name fewer")
    longest = spec.wait_s * (count - 1)
    if longest >= fleet.deadlines.shift.seconds:
        table.fault(
            "wait_s",
            f"shifting {count} regions takes {longest:g} s and more; "
            f"the deadline for a shift is {fleet.deadlines.shift.seconds:g} s: raise it",
        )
    if spec.drain_s >= fleet.deadlines.retire.seconds:
        table.fault("drain_s", f"retiring has a deadline of {fleet.deadlines.retire.seconds:g} s: raise it")
    if fleet.external and spec.instance_profile is None:
        table.faults.add(table.at(), 'the key "instance_profile" is missing: instances read their secrets by its role')
    for one in fleet.external:
        where = f"fleet.{fleet.name}.external.{one.name}"
        if one.arn is None or not _SECRET.fullmatch(one.arn):
            table.faults.add(where, "on AWS this must be `arn`: the ARN of a secret in Secrets Manager")
        elif len(one.arn) > MOST_TAG:
            table.faults.add(where, f"an ARN is handed on in a tag, which holds at most {MOST_TAG} characters")


def region_of_secret(arn: str) -> str:
    """The region that a secret is in."""
    return arn.split(":")[3]
