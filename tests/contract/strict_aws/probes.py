"""How a server shows whether it behaves as AWS does: what each is asked, what AWS answers, and what moto alone does.

A probe observes; it judges nothing. Each of its parts says what is observed of AWS (by the page in `documented`)
and what of moto's own server, and the two differ: else the layer would not be needed for it. Moto has no time, no lack
of capacity, and nothing that can be made to go wrong: there it answers as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strict_aws.bench import DONE, Bench, answer
from strict_aws.models import AwsError, Request
from strict_aws.world import Pace

NO_AMI = "ami-0123456789abcdef0"


Seen = dict[str, Any]
"""Part -> what was observed."""


@dataclass(frozen=True)
class Probe:
    """`ask`: what is observed of a server, by part; `aws` and `moto`: what is to be."""

    ask: Callable[[Bench], Seen]
    aws: Seen
    moto: Seen


PROBES: dict[str, Probe] = {}


def probe(**parts: tuple[Any, Any]) -> Callable[[Callable[[Bench], Seen]], Callable[[Bench], Seen]]:
    """Of each part, what AWS does and what moto does."""

    def known(ask: Callable[[Bench], Seen]) -> Callable[[Bench], Seen]:
        name = ask.__name__.replace("_", "-")
        aws, moto = ({part: both[which] for part, both in parts.items()} for which in (0, 1))
        PROBES[name] = Probe(ask, aws, moto)
        return ask

    return known


# --- instances


@probe(run=("InvalidAMIID.NotFound", DONE))
def unknown_ami(bench: Bench) -> Seen:
    return {"run": answer(lambda: bench.ec2.run_instances(ImageId=NO_AMI, MinCount=1, MaxCount=1))}


@probe(make=("ValidationError", DONE))
def ami_of_template(bench: Bench) -> Seen:
    template = bench.template(ami=NO_AMI)
    return {"make": answer(lambda: bench.make_group(template=template))}


@probe(
    begin=(["pending", "running"], ["running", "running"]), end=(["shutting-down", "terminated"], ["terminated"] * 2)
)
def pending(bench: Bench) -> Seen:
    instance = bench.ec2.run_instances(ImageId=bench.ami, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    begin = [bench.state(instance)]
    bench.wait(10)
    begin.append(bench.state(instance))
    bench.ec2.terminate_instances(InstanceIds=[instance])
    end = [bench.state(instance)]
    bench.wait(10)
    return {"begin": begin, "end": [*end, bench.state(instance)]}


@probe(at_once=("InvalidInstanceID.NotFound", DONE))
def unseen_instance(bench: Bench) -> Seen:
    bench.pace(Pace(lag_s=5))
    instance = bench.ec2.run_instances(ImageId=bench.ami, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    return {"at_once": answer(lambda: bench.ec2.terminate_instances(InstanceIds=[instance]))}


# --- targets


def _healths(bench: Bench, *waits: float, in_use: bool = True) -> list[list[str]]:
    """What a target group says of the two instances of a group, after some waits."""
    arn = bench.target_group()
    if in_use:
        bench.send((arn, 1))
    bench.group(target_group=arn)
    found = []
    for seconds in waits:
        bench.wait(seconds)
        found.append(list(bench.health(arn).values()))
    return found


@probe(checks=([["initial Elb.InitialHealthChecking"] * 2, ["healthy"] * 2], [["healthy"] * 2] * 2))
def initial(bench: Bench) -> Seen:
    return {"checks": _healths(bench, 6, 10)}


@probe(checks=([["unhealthy Target.ResponseCodeMismatch"] * 2], [["healthy"] * 2]))
def unhealthy(bench: Bench) -> Seen:
    bench.fall_ill(bench.ami)
    return {"checks": _healths(bench, 60)}


@probe(checks=([["unused Target.NotInUse"] * 2, ["healthy"] * 2], [["healthy"] * 2] * 2))
def unused(bench: Bench) -> Seen:
    (before,) = _healths(bench, 60, in_use=False)
    arn = bench.elbv2.describe_target_groups(Names=["one"])["TargetGroups"][0]["TargetGroupArn"]
    bench.send((arn, 0), (bench.target_group("two"), 1))  # named is enough, with weight 0 too
    bench.wait(60)
    return {"checks": [before, list(bench.health(arn).values())]}


@probe(
    target=(["draining Target.DeregistrationInProgress", None], ["healthy", "healthy"]),
    instance=(["running", "terminated"], ["terminated"] * 2),
)
def draining(bench: Bench) -> Seen:
    arn = bench.target_group()
    bench.send((arn, 1))
    first, _ = bench.group(target_group=arn)
    bench.wait(60)
    bench.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    bench.wait(19)
    target, instance = [bench.health(arn).get(first)], [bench.state(first)]
    bench.wait(10)
    return {"target": [*target, bench.health(arn).get(first)], "instance": [*instance, bench.state(first)]}


# --- groups


@probe(lives=([["InService", "Terminating"], ["InService"]], [["InService"], ["InService"]]))
def terminate_takes_time(bench: Bench) -> Seen:
    first, _ = bench.group()
    bench.wait(60)
    bench.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    during = sorted(bench.members().values())
    bench.wait(60)
    return {"lives": [during, sorted(bench.members().values())]}


@probe(terminate=("ValidationError", DONE), update=("ValidationError", DONE))
def minimum_size(bench: Bench) -> Seen:
    first, _ = bench.group(MinSize=2)
    scaling = bench.autoscaling
    terminate = scaling.terminate_instance_in_auto_scaling_group
    return {
        "terminate": answer(lambda: terminate(InstanceId=first, ShouldDecrementDesiredCapacity=True)),
        "update": answer(lambda: bench.resize(4)),
    }


@probe(beyond=("ValidationError", DONE), below=("ValidationError", DONE), bounds=("ValidationError", DONE))
def size_at_creation(bench: Bench) -> Seen:
    template = bench.template()

    def made(name: str, least: int, desired: int, most: int) -> str:
        sizes = {"MinSize": least, "DesiredCapacity": desired, "MaxSize": most}
        return answer(lambda: bench.make_group(name, template, **sizes))

    return {"beyond": made("one", 0, 2, 1), "below": made("two", 2, 1, 3), "bounds": made("three", 2, 2, 1)}


@probe(sizes=([0, 2], [2, 2]))
def launch_takes_time(bench: Bench) -> Seen:
    bench.pace(Pace(launch_s=5))
    bench.make_group()
    bench.resize(2)
    at_once = len(bench.members())
    bench.wait(6)
    return {"sizes": [at_once, len(bench.members())]}


@probe(sizes=([0, 2], [2, 2]))
def launch_suspended(bench: Bench) -> Seen:
    bench.make_group()
    bench.autoscaling.suspend_processes(AutoScalingGroupName="one", ScalingProcesses=["Launch"])
    bench.resize(2)
    bench.wait(60)
    held = len(bench.members())
    bench.autoscaling.resume_processes(AutoScalingGroupName="one", ScalingProcesses=["Launch"])
    bench.wait(1)
    return {"sizes": [held, len(bench.members())]}


@probe(sizes=([1, 2], [2, 2]), activities=([("Failed", "InsufficientInstanceCapacity")], []))
def no_capacity(bench: Bench) -> Seen:
    bench.room(1)
    bench.make_group()
    bench.resize(2)
    bench.wait(60)
    found = bench.autoscaling.describe_scaling_activities(AutoScalingGroupName="one")["Activities"]
    short = len(bench.members())
    bench.room(None)
    bench.wait(60)
    return {
        "sizes": [short, len(bench.members())],
        "activities": [(one["StatusCode"], one["StatusMessage"].partition(":")[0]) for one in found],
    }


@probe(members=([["same", "same"], ["other", "same"]], [["other", "same"]] * 2))
def replaces(bench: Bench) -> Seen:
    ids = bench.group()
    bench.autoscaling.suspend_processes(AutoScalingGroupName="one", ScalingProcesses=["ReplaceUnhealthy"])
    bench.ec2.terminate_instances(InstanceIds=ids[:1])
    bench.wait(300)
    kept = sorted("same" if one in ids else "other" for one in bench.members())
    bench.autoscaling.resume_processes(AutoScalingGroupName="one", ScalingProcesses=["ReplaceUnhealthy"])
    bench.wait(300)
    return {"members": [kept, sorted("same" if one in ids else "other" for one in bench.members())]}


@probe(make=("AlreadyExists", DONE))
def group_exists(bench: Bench) -> Seen:
    bench.group()
    template = bench.template("two")
    return {"make": answer(lambda: bench.make_group(template=template))}


@probe(delete=("ResourceInUse", DONE))
def group_in_use(bench: Bench) -> Seen:
    bench.group()
    return {"delete": answer(lambda: bench.autoscaling.delete_auto_scaling_group(AutoScalingGroupName="one"))}


@probe(delete=("ScalingActivityInProgress", DONE))
def group_scales(bench: Bench) -> Seen:
    bench.pace(Pace(launch_s=60))
    bench.make_group()
    bench.resize(2)
    return {"delete": answer(lambda: bench.autoscaling.delete_auto_scaling_group(AutoScalingGroupName="one"))}


@probe(make=("ValidationError", DONE))
def group_name(bench: Bench) -> Seen:
    template = bench.template()
    return {"make": answer(lambda: bench.make_group("a:b", template))}


@probe(make=("ValidationError", "TargetGroupNotFound"))
def group_of_unknown_target_group(bench: Bench) -> Seen:
    gone = bench.target_group()
    bench.elbv2.delete_target_group(TargetGroupArn=gone)
    template = bench.template()
    return {"make": answer(lambda: bench.make_group(template=template, TargetGroupARNs=[gone]))}


# --- launch templates


@probe(make=("InvalidLaunchTemplateName.MalformedException", DONE))
def template_name(bench: Bench) -> Seen:
    return {"make": answer(lambda: bench.template("no spaces"))}


@probe(delete=("InvalidLaunchTemplateName.NotFoundException", "MissingParameter"))
def template_gone(bench: Bench) -> Seen:
    return {"delete": answer(lambda: bench.ec2.delete_launch_template(LaunchTemplateName="nobody"))}


# --- traffic


@probe(again=([DONE, "DuplicateTargetGroupName"], ["DuplicateTargetGroupName"] * 2))
def same_target_group(bench: Bench) -> Seen:
    """Again as it is, and with another port."""
    bench.target_group()
    return {"again": [answer(bench.target_group), answer(lambda: bench.target_group(Port=81))]}


@probe(thousand=("ValidationError", DONE))
def weights(bench: Bench) -> Seen:
    arn = bench.target_group()
    return {"thousand": answer(lambda: bench.send((arn, 1000)))}


@probe(six=("ValidationError", DONE))
def five_target_groups(bench: Bench) -> Seen:
    arns = [bench.target_group(f"group-{number}") for number in range(6)]
    bench.send(*((arn, 1) for arn in arns[:5]))
    return {"six": answer(lambda: bench.send(*((arn, 1) for arn in arns)))}


@probe(send=("TargetGroupNotFound", DONE))
def unknown_target_group(bench: Bench) -> Seen:
    gone = bench.target_group()
    bench.elbv2.delete_target_group(TargetGroupArn=gone)
    return {"send": answer(lambda: bench.send((gone, 1)))}


@probe(gone=("TargetGroupNotFound", DONE), unseen=("TargetGroupNotFound", DONE))
def tags_of_unknown_target_group(bench: Bench) -> Seen:
    tags = bench.elbv2.describe_tags
    gone = bench.target_group()
    bench.elbv2.delete_target_group(TargetGroupArn=gone)
    seen = {"gone": answer(lambda: tags(ResourceArns=[gone]))}
    bench.pace(Pace(lag_s=5))
    made = bench.elbv2.create_target_group(Name="two", Protocol="HTTP", Port=80, VpcId=bench.place["vpc"])
    return {**seen, "unseen": answer(lambda: tags(ResourceArns=[made["TargetGroups"][0]["TargetGroupArn"]]))}


# --- what goes wrong on the way


@probe(ec2=("RequestLimitExceeded", DONE), autoscaling=("Throttling", DONE))
def throttling(bench: Bench) -> Seen:
    bench.goes_wrong(lambda _: "throttle")
    return {
        "ec2": answer(bench.ec2.describe_instances),
        "autoscaling": answer(bench.autoscaling.describe_auto_scaling_groups),
    }


@probe(
    template=(["InvalidLaunchTemplateId.NotFound", DONE], [DONE, DONE]),
    group=([[], [1]], [[1], [1]]),
    size=([[1], [2]], [[2], [2]]),
)
def eventual_consistency(bench: Bench) -> Seen:
    """What was made is not seen, and what was changed is seen as before, for a while; then it is."""
    bench.pace(Pace(lag_s=5))
    bench.most()
    template, versions = bench.template(), bench.ec2.describe_launch_template_versions
    found = [answer(lambda: versions(LaunchTemplateId=template))]
    bench.wait(6)
    found.append(answer(lambda: versions(LaunchTemplateId=template)))
    bench.make_group(template=template, MaxSize=1)
    groups = [bench.most()]
    bench.wait(6)
    groups.append(bench.most())
    bench.autoscaling.update_auto_scaling_group(AutoScalingGroupName="one", MaxSize=2)
    sizes = [bench.most()]
    bench.wait(6)
    return {"template": found, "group": groups, "size": [*sizes, bench.most()]}


@probe(answer=("no answer", DONE))
def lost_reply(bench: Bench) -> Seen:
    """It was carried out all the same."""

    def fault(request: Request) -> str | None:
        return "lose" if request.operation == "CreateLaunchTemplate" else None

    bench.goes_wrong(fault)
    said = answer(bench.template)
    assert len(bench.ec2.describe_launch_templates()["LaunchTemplates"]) == 1
    return {"answer": said}


@probe(answer=("ExpiredToken", DONE))
def expired(bench: Bench) -> Seen:
    bench.goes_wrong(lambda _: AwsError("ExpiredToken", "The security token included in the request is expired"))
    return {"answer": answer(bench.sts.get_caller_identity)}
