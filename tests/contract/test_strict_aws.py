"""The strict layer over moto: each behaviour that AWS documents is there, and moto alone does not have it.

A probe says whether a server behaves as the page in `rules.DOCUMENTED` says. It has to be true of the layer, and false
of moto's own server: otherwise the layer would not be needed, or not be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from strict_aws import models
from strict_aws.fleets import Account, clients
from strict_aws.models import AwsError, Request
from strict_aws.rules import DOCUMENTED, RULES
from strict_aws.server import StrictAws, plain_moto, served
from strict_aws.world import Pace, wipe

from factory.rollout.providers.aws.calls import Connect

REGION = "eu-west-1"
NO_AMI = "ami-0123456789abcdef0"


@dataclass
class Bench:
    """A server under test; `strict` None: moto alone, for which no time passes and nothing can be made to go wrong."""

    connect: Connect
    account: Account
    strict: StrictAws | None

    def __getattr__(self, service: str) -> Any:
        return self.connect(service, REGION)

    def wait(self, seconds: float) -> None:
        if self.strict is not None:
            self.strict.clock.sleep(seconds)

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

    def group(self, name: str = "one", *, size: int = 2, least: int = 0, target_group: str | None = None) -> list[str]:
        """The ids of the instances of a new group."""
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchTemplate={"LaunchTemplateId": self.template(name), "Version": "1"},
            MinSize=least,
            MaxSize=size,
            DesiredCapacity=size,
            VPCZoneIdentifier=self.place["subnets"][0],
            **({"TargetGroupARNs": [target_group]} if target_group else {}),
        )
        return [one["InstanceId"] for one in self.members(name)]

    def members(self, name: str = "one") -> list[dict[str, Any]]:
        said = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        members: list[dict[str, Any]] = said["AutoScalingGroups"][0]["Instances"]
        return members

    def state(self, instance: str) -> str:
        said = self.ec2.describe_instances(InstanceIds=[instance])
        return str(said["Reservations"][0]["Instances"][0]["State"]["Name"])

    def health(self, arn: str) -> dict[str, tuple[str, str | None]]:
        said = self.elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {one["Target"]["Id"]: (one["TargetHealth"]["State"], one["TargetHealth"].get("Reason")) for one in said}


def refused(code: str, ask: Callable[[], object]) -> bool:
    """Whether AWS's code for the refusal is this one."""
    try:
        ask()
    except ClientError as error:
        return bool(error.response["Error"]["Code"] == code)
    return False


@pytest.fixture(scope="module")
def layered() -> Iterator[Bench]:
    aws = StrictAws()
    with served(aws) as url:
        connect = clients(url)
        yield Bench(connect, Account(connect).make("a"), aws)


@pytest.fixture(scope="module")
def bare() -> Iterator[Bench]:
    with served(plain_moto()) as url:
        connect = clients(url)
        yield Bench(connect, Account(connect).make("a"), None)


@pytest.fixture
def strict(layered: Bench) -> Bench:
    assert layered.strict is not None
    layered.strict.reset()
    return layered


@pytest.fixture
def plain(bare: Bench) -> Bench:
    wipe(REGION)
    return bare


# --- probes


def unknown_ami(bench: Bench) -> bool:
    return refused("InvalidAMIID.NotFound", lambda: bench.ec2.run_instances(ImageId=NO_AMI, MinCount=1, MaxCount=1))


def ami_of_template(bench: Bench) -> bool:
    said = {"LaunchTemplateId": bench.template(ami=NO_AMI), "Version": "1"}
    group = {"AutoScalingGroupName": "one", "MinSize": 0, "MaxSize": 1, "VPCZoneIdentifier": bench.place["subnets"][0]}
    return refused("ValidationError", lambda: bench.autoscaling.create_auto_scaling_group(LaunchTemplate=said, **group))


def pending(bench: Bench) -> bool:
    instance = bench.ec2.run_instances(ImageId=bench.ami, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    states = [bench.state(instance)]
    bench.wait(10)
    states.append(bench.state(instance))
    bench.ec2.terminate_instances(InstanceIds=[instance])
    states.append(bench.state(instance))
    bench.wait(10)
    return [*states, bench.state(instance)] == ["pending", "running", "shutting-down", "terminated"]


def initial(bench: Bench) -> bool:
    arn = bench.target_group()
    bench.send((arn, 1))
    ids = bench.group(target_group=arn)
    bench.wait(6)
    early = bench.health(arn)
    bench.wait(10)
    late = bench.health(arn)
    return early == dict.fromkeys(ids, ("initial", "Elb.InitialHealthChecking")) and late == dict.fromkeys(
        ids, ("healthy", None)
    )


def unhealthy(bench: Bench) -> bool:
    if bench.strict is not None:
        bench.strict.sick.add(bench.ami)
    arn = bench.target_group()
    bench.send((arn, 1))
    ids = bench.group(target_group=arn)
    bench.wait(60)
    return bench.health(arn) == dict.fromkeys(ids, ("unhealthy", "Target.ResponseCodeMismatch"))


def unused(bench: Bench) -> bool:
    arn = bench.target_group()
    ids = bench.group(target_group=arn)
    bench.wait(60)
    before = bench.health(arn)
    bench.send((arn, 0), (bench.target_group("two"), 1))  # named is enough, with weight 0 too
    bench.wait(60)
    after = bench.health(arn)
    return before == dict.fromkeys(ids, ("unused", "Target.NotInUse")) and after == dict.fromkeys(
        ids, ("healthy", None)
    )


def draining(bench: Bench) -> bool:
    arn = bench.target_group()
    bench.send((arn, 1))
    first, _ = bench.group(target_group=arn)
    bench.wait(60)
    bench.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    bench.wait(19)
    during = bench.health(arn).get(first), bench.state(first)
    bench.wait(10)
    return (
        during == (("draining", "Target.DeregistrationInProgress"), "running")
        and first not in bench.health(arn)
        and bench.state(first) == "terminated"
    )


def terminate_takes_time(bench: Bench) -> bool:
    first, second = bench.group()
    bench.wait(60)
    bench.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    during = {one["InstanceId"]: one["LifecycleState"] for one in bench.members()}
    bench.wait(60)
    return during == {first: "Terminating", second: "InService"} and [one["InstanceId"] for one in bench.members()] == [
        second
    ]


def minimum_size(bench: Bench) -> bool:
    first, _ = bench.group(least=2)
    scale = bench.autoscaling.terminate_instance_in_auto_scaling_group
    update = bench.autoscaling.update_auto_scaling_group
    return refused("ValidationError", lambda: scale(InstanceId=first, ShouldDecrementDesiredCapacity=True)) and refused(
        "ValidationError", lambda: update(AutoScalingGroupName="one", DesiredCapacity=3)
    )


def replaces(bench: Bench) -> bool:
    first, _ = bench.group()
    bench.autoscaling.suspend_processes(AutoScalingGroupName="one", ScalingProcesses=["ReplaceUnhealthy"])
    bench.ec2.terminate_instances(InstanceIds=[first])
    bench.wait(300)
    kept = {one["InstanceId"]: one["HealthStatus"] for one in bench.members()}
    bench.autoscaling.resume_processes(AutoScalingGroupName="one", ScalingProcesses=["ReplaceUnhealthy"])
    bench.wait(300)
    later = {one["InstanceId"] for one in bench.members()}
    return kept.get(first) == "Unhealthy" and len(kept) == 2 and len(later) == 2 and first not in later


def group_exists(bench: Bench) -> bool:
    bench.group()
    said = {"AutoScalingGroupName": "one", "MinSize": 0, "MaxSize": 1, "VPCZoneIdentifier": bench.place["subnets"][0]}
    template = {"LaunchTemplateId": bench.template("two"), "Version": "1"}
    return refused(
        "AlreadyExists", lambda: bench.autoscaling.create_auto_scaling_group(LaunchTemplate=template, **said)
    )


def group_in_use(bench: Bench) -> bool:
    bench.group()
    return refused("ResourceInUse", lambda: bench.autoscaling.delete_auto_scaling_group(AutoScalingGroupName="one"))


def group_name(bench: Bench) -> bool:
    template = {"LaunchTemplateId": bench.template(), "Version": "1"}
    said = {"MinSize": 0, "MaxSize": 0, "VPCZoneIdentifier": bench.place["subnets"][0], "LaunchTemplate": template}
    make = bench.autoscaling.create_auto_scaling_group
    make(AutoScalingGroupName="a-b", **said)
    return refused("ValidationError", lambda: make(AutoScalingGroupName="a:b", **said))


def template_name(bench: Bench) -> bool:
    return refused("InvalidLaunchTemplateName.MalformedException", lambda: bench.template("no spaces"))


def template_gone(bench: Bench) -> bool:
    return refused(
        "InvalidLaunchTemplateName.NotFoundException",
        lambda: bench.ec2.delete_launch_template(LaunchTemplateName="nobody"),
    )


def same_target_group(bench: Bench) -> bool:
    try:
        is_same = bench.target_group() == bench.target_group()
    except ClientError:
        return False
    return is_same and refused("DuplicateTargetGroupName", lambda: bench.target_group(Port=81))


def weights(bench: Bench) -> bool:
    arn = bench.target_group()
    bench.send((arn, 999))
    return refused("ValidationError", lambda: bench.send((arn, 1000)))


def five_target_groups(bench: Bench) -> bool:
    arns = [bench.target_group(f"group-{number}") for number in range(6)]
    bench.send(*((arn, 1) for arn in arns[:5]))
    return refused("ValidationError", lambda: bench.send(*((arn, 1) for arn in arns)))


def unknown_target_group(bench: Bench) -> bool:
    gone = bench.target_group()
    bench.elbv2.delete_target_group(TargetGroupArn=gone)
    return refused("TargetGroupNotFound", lambda: bench.send((gone, 1)))


def throttling(bench: Bench) -> bool:
    if bench.strict is not None:
        bench.strict.fault = lambda _: "throttle"
    return refused("RequestLimitExceeded", bench.ec2.describe_instances) and refused(
        "Throttling", bench.autoscaling.describe_auto_scaling_groups
    )


def eventual_consistency(bench: Bench) -> bool:
    """What was made is not seen, and what was changed is seen as before, for a while; then it is."""
    if bench.strict is not None:
        bench.strict.pace = Pace(lag_s=5)
        bench.strict.regions.clear()
    groups = bench.autoscaling.describe_auto_scaling_groups
    template, ask = bench.template(), bench.ec2.describe_launch_template_versions
    hidden = refused("InvalidLaunchTemplateId.NotFound", lambda: ask(LaunchTemplateId=template))
    bench.wait(6)
    made = {"LaunchTemplateName": "one", "Version": "1"}
    subnet = bench.place["subnets"][0]
    bench.autoscaling.create_auto_scaling_group(
        AutoScalingGroupName="one", LaunchTemplate=made, MinSize=0, MaxSize=1, VPCZoneIdentifier=subnet
    )
    hidden = hidden and groups()["AutoScalingGroups"] == []
    bench.wait(6)
    sizes = [groups()["AutoScalingGroups"][0]["MaxSize"]]
    bench.autoscaling.update_auto_scaling_group(AutoScalingGroupName="one", MaxSize=2)
    sizes.append(groups()["AutoScalingGroups"][0]["MaxSize"])
    bench.wait(6)
    return hidden and [*sizes, groups()["AutoScalingGroups"][0]["MaxSize"]] == [1, 1, 2]


def lost_reply(bench: Bench) -> bool:
    """It was done although nobody said so."""
    if bench.strict is not None:
        bench.strict.fault = lambda request: "lose" if request.operation == "CreateLaunchTemplate" else None
    try:
        bench.template()
    except BotoCoreError:
        pass
    else:
        return False
    return len(bench.ec2.describe_launch_templates()["LaunchTemplates"]) == 1


def expired(bench: Bench) -> bool:
    if bench.strict is not None:
        bench.strict.fault = lambda _: AwsError("ExpiredToken", "The security token included in the request is expired")
    return refused("ExpiredToken", bench.sts.get_caller_identity)


PROBES: dict[str, Callable[[Bench], bool]] = {
    probe.__name__.replace("_", "-"): probe
    for probe in (
        unknown_ami, ami_of_template, pending, initial, unhealthy, unused, draining, terminate_takes_time, minimum_size,
        replaces, group_exists, group_in_use, group_name, template_name, template_gone, same_target_group, weights,
        five_target_groups, unknown_target_group, throttling, eventual_consistency, lost_reply, expired,
    )
}  # fmt: skip


def test_behaviours_are_documented_and_probed() -> None:
    assert set(PROBES) == set(DOCUMENTED)
    for page, said in DOCUMENTED.values():
        assert page.startswith("https://docs.aws.amazon.com/")
        assert said


@pytest.mark.parametrize("behaviour", sorted(DOCUMENTED))
def test_behaviour_of_aws_is_there(behaviour: str, strict: Bench) -> None:
    assert PROBES[behaviour](strict)
    assert strict.strict is not None
    assert strict.strict.violations == []


@pytest.mark.filterwarnings("ignore:Could not find AMI")
@pytest.mark.parametrize("behaviour", sorted(DOCUMENTED))
def test_behaviour_of_aws_is_not_motos_own(behaviour: str, plain: Bench) -> None:
    try:
        behaves = PROBES[behaviour](plain)
    except (ClientError, IndexError, KeyError):
        behaves = False  # it cannot even be asked
    assert not behaves


# --- the models


def test_request_that_fits_no_model_is_refused_and_noted(strict: Bench) -> None:
    elb = strict.connect("elbv2", REGION)
    assert refused("ValidationError", lambda: elb.create_target_group(Name="one", Protocol="GOPHER", Port=80))
    assert strict.strict is not None
    assert "GOPHER" in strict.strict.violations[0]


@pytest.mark.parametrize(
    ("service", "operation", "reply", "said"),
    [
        ("autoscaling", "DescribeAutoScalingGroups", {"AutoScalingGroups": [{}]}, "AutoScalingGroupName is missing"),
        ("ec2", "DescribeInstances", {"Reservations": [{"Instances": [{"State": {"Name": "asleep"}}]}]}, "asleep"),
        (
            "elbv2",
            "DescribeTargetHealth",
            {"TargetHealthDescriptions": [{"Target": {"Id": "i", "Port": 0}}]},
            "0 is not",
        ),
        ("elbv2", "DescribeListeners", {"Listeners": [{"Port": "80"}]}, "no whole number"),
    ],
)
def test_reply_that_fits_no_model_is_noted(service: str, operation: str, reply: dict[str, Any], said: str) -> None:
    faults = models.reply_faults(Request(service, REGION, operation, {}, 1), reply)
    assert any(said in fault for fault in faults)


def test_tag_that_elb_does_not_take_is_noted() -> None:
    tags = {"ResourceArns": ["arn"], "Tags": [{"Key": "weights", "Value": "3=90,4=10"}]}
    assert models.request_faults(Request("elbv2", REGION, "AddTags", tags, 1))
    tags["Tags"] = [{"Key": "weights", "Value": "1764066000 3:90 4:10"}]
    assert models.request_faults(Request("elbv2", REGION, "AddTags", tags, 1)) == []


def test_operation_that_the_layer_does_not_know_is_refused(strict: Bench) -> None:
    assert ("ec2", "DescribeKeyPairs") not in RULES
    assert refused("InvalidAction", strict.connect("ec2", REGION).describe_key_pairs)
