"""Launching in one region: the target group, launch template and Auto Scaling group of a generation, and its size.

Each step makes what is not there and takes what is, so that the whole may be repeated from any point. The size comes
last: a group that has instances is complete. What has a generation's name but is of another image is refused.

Instances are protected from scale-in: Auto Scaling ends only those that it is told to by id. It launches only what a
launch has asked for and has not come yet, unless the fleet says `replaces`: the image might have been revoked since.
So a group is let launch by each launch, after its size is set, and held again by what is called next (`holding`). It
never rebalances between zones, which may go beyond a group's maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory.errors import ProviderError
from factory.rollout.model import FleetSpec, Generation
from factory.rollout.providers.aws import names, traffic
from factory.rollout.providers.aws.calls import (
    GROUP_EXISTS,
    INVALID,
    NO_SUCH_IMAGE,
    NO_SUCH_TARGET_GROUP,
    NO_SUCH_TEMPLATE,
    TARGET_GROUP_EXISTS,
    TEMPLATE_EXISTS,
    Calls,
    Refusal,
)
from factory.rollout.providers.aws.retiring import end_members
from factory.rollout.providers.aws.state import LAUNCH, Group, Seen
from factory.rollout.providers.aws.table import AwsSpec, Region

_NEVER = ("AZRebalance", "AlarmNotification", "ScheduledActions", "InstanceRefresh")
_NOT_BY_ITSELF = (*_NEVER, "ReplaceUnhealthy")
_VERSION = "1"
"""A generation's launch template has this version and no other."""


@dataclass(frozen=True)
class Maker:
    """Makes what a generation needs in one region."""

    calls: Calls
    fleet: FleetSpec
    spec: AwsSpec
    region: Region

    def launch(self, seen: Seen, generation: Generation, more: int) -> None:
        """Bring `more` instances of a generation up here, beside those it has or is getting."""
        wanted = seen.effective(generation.number) + more
        image = self._image(generation)
        name = names.group(self.fleet.name, generation.number)
        template = self._template(name, generation, image)
        target_group = self._target_group(generation)
        self._name_in_front(seen, target_group)
        group = seen.groups.get(generation.number)
        if group is None:
            self._group(name, generation, template, target_group)
        else:
            end_members(self.calls, group, seen.dead(group))
        self._size(name, wanted)

    def _image(self, generation: Generation) -> str:
        """The AMI of the very image that was resolved, which has to be there."""
        place = f"aws/{self.region.name}"
        ami = generation.image.references.get(place)
        if ami is None:
            raise ProviderError(
                f"{generation.image.name} has no AMI in {self.region.name}",
                where=str(generation.image.digest),
                hint=f'its entry in images.lock needs an artifact "{place}"',
            )
        try:
            found = self.calls.ask("ec2", "describe_images", ImageIds=[ami])["Images"]
        except Refusal as refusal:
            if refusal.code not in NO_SUCH_IMAGE:
                raise
            found = []
        if not found or found[0].get("State") != "available":
            state = found[0].get("State") if found else "not there"
            raise ProviderError(f"the AMI {ami} of {generation.image.name} is {state}", where=self.region.name)
        return ami

    def _template(self, name: str, generation: Generation, ami: str) -> str:
        """The id of the launch template."""
        tags = names.of_generation(self.fleet, generation)
        try:
            made = self.calls.ask(
                "ec2",
                "create_launch_template",
                LaunchTemplateName=name,
                VersionDescription=str(generation.image.digest),
                LaunchTemplateData=self._template_data(generation, ami),
                TagSpecifications=[{"ResourceType": "launch-template", "Tags": names.as_list(tags)}],
            )
            return str(made["LaunchTemplate"]["LaunchTemplateId"])
        except Refusal as refusal:
            if refusal.code != TEMPLATE_EXISTS:
                raise
        there = self.calls.visible(
            lambda: self.calls.ask(
                "ec2", "describe_launch_template_versions", LaunchTemplateName=name, Versions=[_VERSION]
            ),
            lambda refusal: refusal.code in NO_SUCH_TEMPLATE,
        )["LaunchTemplateVersions"][0]
        found = there["LaunchTemplateData"].get("ImageId")
        if found != ami:
            raise ProviderError(
                f"the launch template {name} is of {found}, not of {ami}",
                where=self.region.name,
                hint="a fleet of this name is run from elsewhere too, or the catalog here was lost",
            )
        return str(there["LaunchTemplateId"])

    def _template_data(self, generation: Generation, ami: str) -> dict[str, Any]:
        """What instances are made of. No user data: what they need to know are tags, which they read themselves."""
        tags = {
            **self.spec.tags,
            **names.of_external(self.fleet.external),
            **names.of_generation(self.fleet, generation),
            "Name": names.group(self.fleet.name, generation.number),
        }
        profile = self.spec.instance_profile
        return {
            "ImageId": ami,
            "InstanceType": self.spec.instance_type,
            "SecurityGroupIds": list(self.region.security_groups),
            "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": names.as_list(tags)} for kind in ("instance", "volume")
            ],
            **({"IamInstanceProfile": _profile(profile)} if profile is not None else {}),
        }

    def _target_group(self, generation: Generation) -> str:
        """The ARN of the target group."""
        name, check = names.target_group(self.fleet.name, generation.number), self.spec.check
        tags = {**self.spec.tags, **names.of_generation(self.fleet, generation)}
        try:
            made = self.calls.ask(
                "elbv2",
                "create_target_group",
                Name=name,
                Protocol=self.spec.protocol,
                ProtocolVersion="HTTP1",
                Port=check.port,
                VpcId=self.region.vpc,
                TargetType="instance",
                HealthCheckProtocol=self.spec.protocol,
                HealthCheckPort="traffic-port",
                HealthCheckPath=check.path,
                HealthCheckIntervalSeconds=check.interval_s,
                HealthCheckTimeoutSeconds=check.timeout_s,
                HealthyThresholdCount=check.successes,
                UnhealthyThresholdCount=2,
                Matcher={"HttpCode": str(check.status)},
                Tags=names.as_list(tags),
            )
        except Refusal as refusal:
            if refusal.code != TARGET_GROUP_EXISTS:
                raise
            made = self.calls.visible(
                lambda: self.calls.ask("elbv2", "describe_target_groups", Names=[name]),
                lambda refusal: refusal.code == NO_SUCH_TARGET_GROUP,
            )
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(self.spec.drain_s)}
        self.calls.visible(
            lambda: self.calls.ask("elbv2", "modify_target_group_attributes", TargetGroupArn=arn, Attributes=[delay]),
            lambda refusal: refusal.code == NO_SUCH_TARGET_GROUP,
        )
        return arn

    def _name_in_front(self, seen: Seen, target_group: str) -> None:
        """Weight 0 for a target group that the front does not name, since only those it names are health-checked.
        Makes room where there are too many: the oldest of ours without traffic go."""
        if target_group in seen.front.weights:
            return
        weights = dict(seen.front.weights)
        idle = [arn for arn, weight in weights.items() if not weight and arn in seen.generations]
        for arn in sorted(idle, key=lambda arn: seen.generations[arn]):
            if len(weights) < traffic.MOST_NAMED:
                break
            del weights[arn]
        weights[target_group] = 0
        self.calls.visible(
            lambda: {"front": traffic.send(self.calls, seen.front, weights)},
            lambda refusal: refusal.code == NO_SUCH_TARGET_GROUP,
        )

    def _group(self, name: str, generation: Generation, template: str, target_group: str) -> None:
        """An Auto Scaling group without instances, which launches none by itself."""
        tags = {**self.spec.tags, **names.of_generation(self.fleet, generation)}
        by_load_balancer = self.spec.replaces
        try:
            self.calls.visible(
                lambda: self.calls.ask(
                    "autoscaling",
                    "create_auto_scaling_group",
                    AutoScalingGroupName=name,
                    LaunchTemplate={"LaunchTemplateId": template, "Version": _VERSION},
                    MinSize=0,
                    MaxSize=0,
                    DesiredCapacity=0,
                    VPCZoneIdentifier=",".join(self.region.subnets),
                    TargetGroupARNs=[target_group],
                    HealthCheckType="ELB" if by_load_balancer else "EC2",
                    HealthCheckGracePeriod=int(self.fleet.health.deadline_s),
                    NewInstancesProtectedFromScaleIn=True,
                    Tags=_propagated(name, tags),
                ),
                _is_unseen,
            )
        except Refusal as refusal:
            if refusal.code != GROUP_EXISTS:
                raise

    def _size(self, name: str, count: int) -> None:
        never = _NEVER if self.spec.replaces else _NOT_BY_ITSELF
        self._of_group("suspend_processes", name, ScalingProcesses=list(never))
        self._of_group("update_auto_scaling_group", name, MinSize=0, MaxSize=count, DesiredCapacity=count)
        self._of_group("resume_processes", name, ScalingProcesses=[LAUNCH])
        self.calls.wait_for(lambda: self._is_sized(name, count))

    def _is_sized(self, name: str, count: int) -> bool:
        """Whether everybody sees what a group may launch: who gives it up goes by that."""
        groups = self.calls.ask("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[name])
        found = [Group.read(one) for one in groups["AutoScalingGroups"]]
        return bool(found) and found[0].desired == count and not found[0].is_held

    def _of_group(self, operation: str, name: str, **said: Any) -> None:
        self.calls.visible(
            lambda: self.calls.ask("autoscaling", operation, AutoScalingGroupName=name, **said), _is_unseen
        )


def _is_unseen(refusal: Refusal) -> bool:
    """Whether Auto Scaling does not know a template, a target group or a group (yet): it has one code for all."""
    return refusal.code in NO_SUCH_TEMPLATE or refusal.code == INVALID


def _profile(name: str) -> Mapping[str, str]:
    return {"Arn": name} if name.startswith("arn:") else {"Name": name}


def _propagated(group: str, tags: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    return [
        {**tag, "ResourceId": group, "ResourceType": "auto-scaling-group", "PropagateAtLaunch": True}
        for tag in names.as_list(tags)
    ]
