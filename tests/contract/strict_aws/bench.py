"""A server under test, the strict layer or moto alone: what is made of it, made to happen there, and observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError

from factory.rollout.providers.aws.calls import Connect
from strict_aws.fleets import Account
from strict_aws.server import Fault, StrictAws
from strict_aws.world import Pace

REGION = "eu-west-1"
DONE = "done"


@dataclass
class Bench:
    """A server under test; `strict` None: moto alone."""

    connect: Connect
    account: Account
    strict: StrictAws | None

    def __getattr__(self, service: str) -> Any:
        return self.connect(service, REGION)

    # --- what is made to happen, where it can be

    def wait(self, seconds: float) -> None:
        if self.strict is not None:
            self.strict.clock.sleep(seconds)

    def goes_wrong(self, fault: Fault) -> None:
        if self.strict is not None:
            self.strict.fault = fault

    def pace(self, pace: Pace) -> None:
        if self.strict is not None:
            self.strict.pace = pace
            self.strict.regions.clear()

    def fall_ill(self, ami: str) -> None:
        if self.strict is not None:
            self.strict.sick.add(ami)

    def room(self, count: int | None) -> None:
        """How many more instances there is capacity for; None: enough."""
        if self.strict is not None:
            self.strict.room.clear()
            if count is not None:
                self.strict.room[REGION] = count

    # --- what is made

    @property
    def place(self) -> dict[str, Any]:
        return self.account.places[REGION]

    @property
    def ami(self) -> str:
        return self.account.amis["a", REGION]

    def template(self, name: str = "one", ami: str | None = None) -> str:
        said = {"ImageId": ami or self.ami, "InstanceType": "t3.micro"}
        made = self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=said)
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def target_group(self, name: str = "one", **said: Any) -> str:
        asked = {"Protocol": "HTTP", "Port": 80, "VpcId": self.place["vpc"], "TargetType": "instance"}
        checks = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2}
        made = self.elbv2.create_target_group(Name=name, **{**asked, **checks, **said})
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        delay = {"Key": "deregistration_delay.timeout_seconds", "Value": "20"}
        self.elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
        return arn

    def send(self, *weights: tuple[str, int]) -> None:
        groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights]
        action = {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}
        self.elbv2.modify_listener(ListenerArn=self.place["listener"], DefaultActions=[action])

    def make_group(self, name: str = "one", template: str | None = None, **said: Any) -> None:
        sizes = {"MinSize": 0, "MaxSize": 3, "DesiredCapacity": 0}
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchTemplate={"LaunchTemplateId": template or self.template(), "Version": "1"},
            VPCZoneIdentifier=self.place["subnets"][0],
            **{**sizes, **said},
        )

    def group(self, *, target_group: str | None = None, **said: Any) -> list[str]:
        """The ids of the instances of a new group of two."""
        behind = {"TargetGroupARNs": [target_group]} if target_group else {}
        self.make_group(**{"DesiredCapacity": 2, **behind, **said})
        return list(self.members())

    def resize(self, count: int) -> None:
        self.autoscaling.update_auto_scaling_group(AutoScalingGroupName="one", DesiredCapacity=count)

    # --- what is observed

    def members(self) -> dict[str, str]:
        """Instance -> state of life, of the group."""
        said = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["one"])
        return {one["InstanceId"]: one["LifecycleState"] for one in said["AutoScalingGroups"][0]["Instances"]}

    def most(self) -> list[int]:
        """The greatest sizes of all groups."""
        return [one["MaxSize"] for one in self.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]]

    def state(self, instance: str) -> str:
        said = self.ec2.describe_instances(InstanceIds=[instance])
        return str(said["Reservations"][0]["Instances"][0]["State"]["Name"])

    def health(self, arn: str) -> dict[str, str]:
        """Instance -> state, and reason if there is one, in a target group."""
        said = self.elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {one["Target"]["Id"]: _health(one["TargetHealth"]) for one in said}


def _health(said: Mapping[str, str]) -> str:
    return f"{said['State']} {said.get('Reason', '')}".strip()


def answer(ask: Callable[[], object]) -> str:
    """What becomes of a request: done, AWS's code for the refusal, or that no answer came."""
    try:
        ask()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except HTTPClientError:
        return "no answer"
    return DONE
