"""What a fleet has in one region, read from AWS and told apart: its Auto Scaling groups, instances, targets, traffic.

Only looks. Everything is found by tag, never remembered; what several services say of one instance is put together
here. A group lists an instance before EC2 does, and the other way about, since neither is consistent at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from factory.errors import ProviderError
from factory.rollout.model import Instance, InstanceState
from factory.rollout.providers.aws import names, traffic
from factory.rollout.providers.aws.calls import NO_SUCH_TARGET_GROUP, Calls, Refusal
from factory.rollout.providers.aws.table import Region
from factory.rollout.providers.aws.traffic import Front

LAUNCH = "Launch"
"""The process of Auto Scaling by which a group comes to what is desired of it."""
_OVER = frozenset({"shutting-down", "terminated"})
_STOPPING = _OVER | {"stopping", "stopped"}
_ACTIVITIES = 5
"""Of a group, the newest first: while one launch is tried again, the one before it says what failed."""
_TAGS_AT_ONCE = 20
"""Resources that ELB describes the tags of in one request."""


@dataclass(frozen=True)
class Group:
    """An Auto Scaling group of the fleet. `is_held`: it launches nothing (its process `Launch` is suspended), whatever
    is desired. `members`: instance -> its state of life in the group."""

    name: str
    tags: Mapping[str, str]
    least: int
    desired: int
    is_held: bool
    members: Mapping[str, str]
    target_groups: tuple[str, ...]

    @staticmethod
    def read(said: Mapping[str, Any]) -> Group:
        """From what Auto Scaling says of it."""
        return Group(
            name=said["AutoScalingGroupName"],
            tags=names.from_list(said.get("Tags")),
            least=said["MinSize"],
            desired=said["DesiredCapacity"],
            is_held=any(one["ProcessName"] == LAUNCH for one in said.get("SuspendedProcesses", ())),
            members={one["InstanceId"]: one["LifecycleState"] for one in said.get("Instances", ())},
            target_groups=tuple(said.get("TargetGroupARNs", ())),
        )

    @property
    def generation(self) -> int | None:
        """Which generation it is of."""
        return names.generation_of(self.tags)

    @property
    def staying(self) -> frozenset[str]:
        """The members that it is not letting go."""
        return frozenset(one for one, life in self.members.items() if not _leaves(life))

    @property
    def coming(self) -> int:
        """How many it is still going to launch by itself, now or once there is capacity."""
        return 0 if self.is_held else max(0, self.desired - len(self.staying))


def _leaves(life: str) -> bool:
    return life.startswith(("Terminat", "Detach"))


@dataclass(frozen=True)
class Seen:
    """A fleet in one region. `machines`: what EC2 says, by id, also of instances that ended a short while ago.
    `generations`: ARN of a target group -> generation. `health`: instance -> what its target group says of it
    (State; and of those that are not healthy, Description)."""

    region: Region
    groups: Mapping[int, Group]
    machines: Mapping[str, Mapping[str, Any]]
    front: Front
    generations: Mapping[str, int]
    health: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def present(self) -> frozenset[int]:
        """The generations that are to have instances here."""
        return frozenset(number for number, group in self.groups.items() if group.coming or group.staying)

    @cached_property
    def weights(self) -> dict[int, int]:
        """Generation -> percent of the traffic here, as the front sends it to instances: what it would send to a
        generation that has none left goes nowhere, and is left out."""
        return {
            number: share
            for number, share in self.front.percent(self.generations).items()
            if number in self.present or not self.is_empty(number)
        }

    def healthy(self, generation: int) -> int:
        """How many targets of a generation take requests here."""
        tagged = ((one, names.from_list(machine.get("Tags"))) for one, machine in self.machines.items())
        mine = [one for one, tags in tagged if names.generation_of(tags) == generation]
        return sum(self._is_healthy(one) for one in mine)

    def _is_healthy(self, instance: str) -> bool:
        return self.health.get(instance, {}).get("State") == "healthy"

    def target_group(self, generation: int) -> str | None:
        """The ARN of a generation's target group."""
        return next((arn for arn, number in self.generations.items() if number == generation), None)

    def state_of(self, instance: str) -> str:
        """What EC2 says of an instance; `unseen` where it does not show it (yet)."""
        machine = self.machines.get(instance)
        return str(machine["State"]["Name"]) if machine is not None else "unseen"

    def dead(self, group: Group) -> frozenset[str]:
        """Members that a group still counts although they serve no more."""
        return frozenset(one for one in group.staying if self.state_of(one) in _STOPPING)

    def effective(self, generation: int) -> int:
        """How many instances a generation has or is getting here."""
        group = self.groups.get(generation)
        if group is None:
            return 0
        return len(group.staying) + group.coming - len(self.dead(group))

    def generations_of(self, instances: Iterable[str]) -> frozenset[int]:
        """Which generations instances are of, also those that ended."""
        found = set()
        for one in instances:
            tags = names.from_list(self.machines[one].get("Tags")) if one in self.machines else {}
            found.add(names.generation_of(tags))
            found |= {number for number, group in self.groups.items() if one in group.members}
        return frozenset(number for number in found if number is not None)

    def is_empty(self, generation: int) -> bool:
        """Whether nothing of a generation is left here that lives or is to live."""
        group = self.groups.get(generation)
        if group is not None and (group.coming or group.members):
            return False
        mine = (m for m in self.machines.values() if names.generation_of(names.from_list(m.get("Tags"))) == generation)
        return all(machine["State"]["Name"] == "terminated" for machine in mine)

    def instances(self, port: int) -> list[Instance]:
        """Everything that is, as the engine sees it; what ended is left out."""
        members = {one: group for group in self.groups.values() for one in group.members}
        found = []
        for one in sorted({*self.machines, *members}):
            machine, group = self.machines.get(one), members.get(one)
            tags = names.from_list(machine.get("Tags")) if machine is not None else dict(group.tags) if group else {}
            number = names.generation_of(tags)
            state = self._state(one, group.members[one] if group is not None else None)
            if state is None:
                continue
            found.append(
                Instance(
                    id=f"{self.region.name}/{one}",
                    generation=number or 0,
                    digest=names.digest_of(tags),
                    state=state,
                    launched_at=machine["LaunchTime"].timestamp() if machine is not None else 0.0,
                    address=_address(machine, port) if state == "running" else None,
                    healthy=self._is_healthy(one),
                    why=self.health.get(one, {}).get("Description", ""),
                )
            )
        return found

    def _state(self, instance: str, life: str | None) -> InstanceState | None:
        said = self.state_of(instance)
        if said == "terminated":
            return None
        if said in _STOPPING or (life is not None and _leaves(life)):
            return "stopping"
        if said in ("pending", "unseen") or (life is not None and life.startswith("Pending")):
            return "pending"
        return "running"


def _address(machine: Mapping[str, Any] | None, port: int) -> str | None:
    address = machine.get("PrivateIpAddress") if machine is not None else None
    return f"{address}:{port}" if address else None


# --- asking


def see(calls: Calls, fleet: str, region: Region, *, health: bool = False) -> Seen:
    """What a fleet has in a region; what its target groups say of the instances only where asked for."""
    by_tag = [{"Name": f"tag:{names.FLEET}", "Values": [fleet]}]
    groups = {
        group.generation: group
        for group in map(
            Group.read, calls.all("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", Filters=by_tag)
        )
        if group.generation is not None
    }
    reservations = calls.all("ec2", "describe_instances", "Reservations", Filters=by_tag)
    machines = {machine["InstanceId"]: machine for one in reservations for machine in one.get("Instances", ())}
    front = traffic.look(calls, region)
    generations = _generations(calls, fleet, groups, front)
    seen = Seen(region, groups, machines, front, generations)
    if not health:
        return seen
    said: dict[str, Mapping[str, str]] = {}
    for arn in generations:
        said |= _health(calls, arn)
    return Seen(region, groups, machines, front, generations, said)


def why_missing(calls: Calls, seen: Seen) -> dict[int, str]:
    """Generation -> why its group's last launch failed, of the groups that still want instances. It only explains:
    where AWS does not say, nothing is said."""
    found = {}
    for number, group in seen.groups.items():
        if group.coming:
            with suppress(ProviderError):
                said = calls.ask(
                    "autoscaling",
                    "describe_scaling_activities",
                    AutoScalingGroupName=group.name,
                    MaxRecords=_ACTIVITIES,
                )
                failed = (one for one in said["Activities"] if one["StatusCode"] == "Failed")
                if (last := next(failed, None)) is not None:
                    found[number] = f"{seen.region.name}: {last.get('StatusMessage') or last['Cause']}"
    return found


def _generations(calls: Calls, fleet: str, groups: Mapping[int, Group], front: Front) -> dict[str, int]:
    """The target groups of the fleet that its groups or its front name, and whose they are."""
    found = {arn: number for number, group in groups.items() for arn in group.target_groups}
    others = [arn for arn in front.weights if arn not in found]
    for start in range(0, len(others), _TAGS_AT_ONCE):
        described = calls.ask("elbv2", "describe_tags", ResourceArns=others[start : start + _TAGS_AT_ONCE])
        for one in described["TagDescriptions"]:
            tags = names.from_list(one.get("Tags"))
            number = names.generation_of(tags)
            if tags.get(names.FLEET) == fleet and number is not None:
                found[one["ResourceArn"]] = number
    return found


def _health(calls: Calls, target_group: str) -> dict[str, Mapping[str, str]]:
    try:
        said = calls.ask("elbv2", "describe_target_health", TargetGroupArn=target_group)
    except Refusal as refusal:
        if refusal.code != NO_SUCH_TARGET_GROUP:
            raise
        return {}  # it was deleted, or is not seen everywhere yet
    return {one["Target"]["Id"]: one["TargetHealth"] for one in said["TargetHealthDescriptions"]}
