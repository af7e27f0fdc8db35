"""What AWS does and moto does not, operation by operation; `documented` has the pages that say so.

A rule before moto may answer itself (a result, or an AwsError); a rule after moto may change what moto answered. An
operation that no rule and no setting names is refused: the layer does not vouch for what it has not been taught.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from strict_aws.models import AwsError, Request
from strict_aws.world import Region

_THROUGH = {
    ("ec2", "CreateTags"),
    ("ec2", "CreateVpc"),
    ("ec2", "CreateSubnet"),
    ("ec2", "CreateSecurityGroup"),
    ("ec2", "DescribeInstanceTypes"),
    ("ec2", "DescribeSecurityGroups"),
    ("ec2", "DescribeSubnets"),
    ("ec2", "RegisterImage"),
    ("autoscaling", "SetInstanceProtection"),
    ("autoscaling", "DescribeTags"),
    ("elbv2", "AddTags"),
    ("elbv2", "CreateListener"),
    ("elbv2", "CreateLoadBalancer"),
    ("elbv2", "CreateRule"),
    ("elbv2", "DescribeListeners"),
    ("elbv2", "DescribeLoadBalancers"),
    ("elbv2", "DescribeRules"),
    ("elbv2", "DescribeTargetGroupAttributes"),
    ("secretsmanager", "CreateSecret"),
    ("secretsmanager", "DeleteSecret"),
    ("secretsmanager", "DescribeSecret"),
    ("sts", "GetCallerIdentity"),
}
"""What moto does as AWS, as far as we use it."""

Reply = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """`before` answers in moto's place, or not (None); `after` changes moto's answer."""

    before: Callable[[Region, Request], Reply | None] = lambda _, __: None
    after: Callable[[Region, Request, Reply], None] | None = None


def rule_of(request: Request) -> Rule:
    """The rule for an operation. Raises AwsError for one that the layer does not know."""
    key = (request.service, request.operation)
    if key in RULES:
        return RULES[key]
    if key in _THROUGH:
        return Rule()
    raise AwsError("InvalidAction", f"the strict layer does not know {request.service} {request.operation}")


# --- EC2


def _run(region: Region, request: Request) -> None:
    _known_image(region, request.said.get("ImageId"))


def _known_image(region: Region, ami: str | None) -> None:
    if ami not in region.ec2.amis:
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{ami}]' does not exist")


def _on_ebs(region: Region, request: Request, reply: Reply) -> None:
    for one in reply["Images"]:  # moto has a kind of root device that AWS's model does not know
        one["RootDeviceType"] = "ebs"


def _create_template(region: Region, request: Request) -> None:
    name = request.said["LaunchTemplateName"]
    if not 3 <= len(name) <= 128 or not re.fullmatch(r"[a-zA-Z0-9().\-/_]+", name):
        raise AwsError("InvalidLaunchTemplateName.MalformedException", f"the name {name!r} is malformed")


def _template_made(region: Region, request: Request, reply: Reply) -> None:
    name, made = request.said["LaunchTemplateName"], reply["LaunchTemplate"]["LaunchTemplateId"]
    region.born["template", name] = region.born["template", made] = region.clock.now()


def _template_there(region: Region, request: Request) -> None:
    _find_template(region, request.said)


def _find_template(region: Region, named: Mapping[str, Any]) -> Any:
    """A launch template by name or id, as a request that comes a while after it was made finds it."""
    name, by_id = named.get("LaunchTemplateName"), named.get("LaunchTemplateId")
    there = region.ec2.launch_template_name_to_ids
    if name is not None and (name not in there or region.is_unseen("template", name)):
        raise AwsError(
            "InvalidLaunchTemplateName.NotFoundException",
            f"The specified launch template, with template name {name}, does not exist.",
        )
    if by_id is not None and (by_id not in region.ec2.launch_templates or region.is_unseen("template", by_id)):
        raise AwsError(
            "InvalidLaunchTemplateId.NotFound",
            f"The specified launch template, with template ID {by_id}, does not exist.",
        )
    return region.ec2.launch_templates[by_id or there[name]]


def _template_deletable(region: Region, request: Request) -> None:
    name = request.said.get("LaunchTemplateName")
    if name is not None and name not in region.ec2.launch_template_name_to_ids:
        raise AwsError("InvalidLaunchTemplateName.NotFoundException", f"The launch template {name} does not exist.")


def _hide_templates(region: Region, request: Request, reply: Reply) -> None:
    reply["LaunchTemplates"] = [
        one for one in reply["LaunchTemplates"] if not region.is_unseen("template", one["LaunchTemplateName"])
    ]


_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}


def _no_state_filter(region: Region, request: Request) -> None:
    for one in request.said.get("Filters", ()):
        if one["Name"].startswith("instance-state"):
            raise AwsError("InvalidParameterValue", "the strict layer cannot filter by state: moto knows no states")


def _show_states(region: Region, request: Request, reply: Reply) -> None:
    for reservation in reply["Reservations"]:
        kept = [one for one in reservation["Instances"] if not region.is_unseen("instance", one["InstanceId"])]
        for one in kept:
            state = region.state(one["InstanceId"])
            one["State"] = {"Name": state, "Code": _CODES[state]}
        reservation["Instances"] = kept
    reply["Reservations"] = [one for one in reply["Reservations"] if one["Instances"]]


def _start_pending(region: Region, request: Request, reply: Reply) -> None:
    for one in reply["Instances"]:
        one["State"] = {"Name": "pending", "Code": 0}


def _terminate(region: Region, request: Request) -> Reply:
    ids = request.said["InstanceIds"]
    for one in ids:
        if one not in region.lives or region.is_unseen("instance", one):
            raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{one}' does not exist")
    before = {one: region.state(one) for one in ids}
    for one in ids:
        region.end(one)
    return {
        "TerminatingInstances": [
            {
                "InstanceId": one,
                "PreviousState": {"Name": before[one], "Code": _CODES[before[one]]},
                "CurrentState": {"Name": region.state(one), "Code": _CODES[region.state(one)]},
            }
            for one in ids
        ]
    }


# --- Auto Scaling


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationError", message)


def _create_group(region: Region, request: Request) -> None:
    said, name = request.said, request.said["AutoScalingGroupName"]
    if ":" in name:
        raise _invalid(f"the name {name!r} contains a colon")
    if name in region.autoscaling.autoscaling_groups:
        raise AwsError("AlreadyExists", f"AutoScalingGroup by this name already exists - {name}")
    desired = said.get("DesiredCapacity", said["MinSize"])
    _check_size(said["MinSize"], said["MaxSize"], desired)
    if desired and (region.pace.launch_s or region.name in region.room):
        raise AwsError("InvalidAction", "the strict layer launches at once what a group is made with")
    template = said.get("LaunchTemplate")
    if template is not None:
        try:
            found = _find_template(region, template)
            _known_image(region, found.get_version(template.get("Version", "$Default")).image_id)
        except AwsError as error:
            raise _invalid(f"You must use a valid fully-formed launch template. {error.message}") from error
    for arn in said.get("TargetGroupARNs", ()):
        if arn not in region.elb.target_groups or region.is_unseen("target-group", arn):
            raise _invalid(f"Provided target group {arn} may not be valid")


def _check_size(least: int, most: int, desired: int) -> None:
    if not least <= desired <= most:
        raise _invalid(f"Desired capacity:{desired} must be between the specified min size:{least} and max size:{most}")


def _group_made(region: Region, request: Request, reply: Reply) -> None:
    region.born["group", request.said["AutoScalingGroupName"]] = region.clock.now()


def _group(region: Region, request: Request) -> Any:
    name = request.said["AutoScalingGroupName"]
    if name not in region.autoscaling.autoscaling_groups or region.is_unseen("group", name):
        raise _invalid(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
    return region.autoscaling.autoscaling_groups[name]


def _group_there(region: Region, request: Request) -> None:
    _group(region, request)


def _update_group(region: Region, request: Request) -> Reply:
    """Only sizes: nothing else of a group is changed here."""
    group, said = _group(region, request), request.said
    extra = set(said) - {"AutoScalingGroupName", "MinSize", "MaxSize", "DesiredCapacity"}
    if extra:
        raise AwsError("InvalidAction", f"the strict layer does not know UpdateAutoScalingGroup with {sorted(extra)}")
    least, most = said.get("MinSize", group.min_size), said.get("MaxSize", group.max_size)
    desired = said.get("DesiredCapacity")
    if desired is None:
        desired = min(max(group.desired_capacity, least), most)
    _check_size(least, most, desired)
    group.min_size, group.max_size, group.desired_capacity = least, most, desired
    return {}


def _terminate_member(region: Region, request: Request) -> Reply:
    name = request.said["InstanceId"]
    life = region.lives.get(name)
    if life is None or life.group is None or name not in region.members(life.group):
        raise _invalid(f"Instance Id not found - No managed instance found for instance ID: {name}")
    group = region.autoscaling.autoscaling_groups[life.group]
    if request.said["ShouldDecrementDesiredCapacity"]:
        if group.desired_capacity <= group.min_size:
            raise _invalid(
                f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without replacement "
                "will violate group's min size constraint."
            )
        group.desired_capacity -= 1
    region.let_go(name)
    return {
        "Activity": {
            "ActivityId": "00000000-0000-0000-0000-000000000000",
            "AutoScalingGroupName": group.name,
            "Cause": "a user request",
            "StartTime": region.lives[name].leaving_at,
            "StatusCode": "InProgress",
        }
    }


def _delete_group(region: Region, request: Request) -> None:
    name = request.said["AutoScalingGroupName"]
    if name not in region.autoscaling.autoscaling_groups:
        raise _invalid(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
    if request.said.get("ForceDelete"):
        raise AwsError("InvalidAction", "the strict layer does not know a forced deletion")
    if region.members(name):
        raise AwsError(
            "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances still in the group."
        )
    if region.is_scaling_out(name):
        raise AwsError("ScalingActivityInProgress", "You cannot delete an AutoScalingGroup while it scales.")
    region.wants_since.pop(name, None)
    region.failures.pop(name, None)


def _activities(region: Region, request: Request) -> Reply:
    """Of a group, what last failed: nothing else is looked for here."""
    name = request.said["AutoScalingGroupName"]
    at, count = region.failures.get(name, (0.0, 0))
    failed = {
        "ActivityId": f"00000000-0000-0000-0000-{count:012}",
        "AutoScalingGroupName": name,
        "Cause": "an instance was started in response to a difference between desired and actual capacity",
        "StartTime": at,
        "StatusCode": "Failed",
        "StatusMessage": "InsufficientInstanceCapacity: We currently do not have sufficient capacity in the "
        "Availability Zone you requested. Launching EC2 instance failed.",
    }
    return {"Activities": [failed] if count else []}


def _show_groups(region: Region, request: Request, reply: Reply) -> None:
    reply["AutoScalingGroups"] = [
        one for one in reply["AutoScalingGroups"] if not region.is_unseen("group", one["AutoScalingGroupName"])
    ]
    for group in reply["AutoScalingGroups"]:
        known = {one["InstanceId"]: one for one in group["Instances"]}
        group["Instances"] = [
            {
                **known.get(name, {"ProtectedFromScaleIn": True}),
                "InstanceId": name,
                "AvailabilityZone": life.zone,
                "LifecycleState": region.lifecycle(name),
                "HealthStatus": "Healthy" if life.ended_at is None else "Unhealthy",
            }
            for name, life in region.members(group["AutoScalingGroupName"]).items()
        ]


# --- Elastic Load Balancing


def _create_target_group(region: Region, request: Request) -> Reply | None:
    said = request.said
    there = [one for one in region.elb.target_groups.values() if one.name == said["Name"]]
    if not there:
        return None
    found = there[0]
    settings = {
        "Protocol": found.protocol,
        "Port": found.port,
        "VpcId": found.vpc_id,
        "HealthCheckPath": found.health_check_path,
        "HealthCheckIntervalSeconds": found.health_check_interval_seconds,
        "HealthCheckTimeoutSeconds": found.health_check_timeout_seconds,
        "HealthyThresholdCount": found.healthy_threshold_count,
        "Matcher": found.matcher,
    }
    if any(str(said[key]) != str(value) for key, value in settings.items() if key in said):
        raise AwsError("DuplicateTargetGroupName", "A target group with the same name exists, with other settings")
    return {"TargetGroups": [{"TargetGroupArn": found.arn, "TargetGroupName": found.name}]}


def _target_group_made(region: Region, request: Request, reply: Reply) -> None:
    region.born["target-group", reply["TargetGroups"][0]["TargetGroupArn"]] = region.clock.now()


def _target_group_there(region: Region, request: Request) -> None:
    _find_target_group(region, request.said["TargetGroupArn"])


def _find_target_group(region: Region, arn: str) -> None:
    if arn not in region.elb.target_groups or region.is_unseen("target-group", arn):
        raise AwsError("TargetGroupNotFound", "One or more target groups not found")


def _named_target_groups(region: Region, request: Request) -> None:
    for name in request.said.get("Names", ()):
        found = [arn for arn, one in region.elb.target_groups.items() if one.name == name]
        _find_target_group(region, found[0] if found else "")


def _health(region: Region, request: Request) -> Reply:
    _target_group_there(region, request)
    arn = request.said["TargetGroupArn"]
    port = region.elb.target_groups[arn].port
    return {
        "TargetHealthDescriptions": [
            {"Target": {"Id": name, "Port": int(port)}, "HealthCheckPort": str(port), "TargetHealth": health}
            for name, health in region.targets(arn)
        ]
    }


def _modify_listener(region: Region, request: Request) -> None:
    _check_actions(region, request.said.get("DefaultActions", []))


def _modify_rule(region: Region, request: Request) -> None:
    _check_actions(region, request.said.get("Actions", []))


def _check_actions(region: Region, actions: list[dict[str, Any]]) -> None:
    for action in actions:
        groups = action.get("ForwardConfig", {}).get("TargetGroups", [])
        if len(groups) > 5:
            raise _invalid("a forward action names at most 5 target groups")
        for one in groups:
            if not 0 <= one.get("Weight", 1) <= 999:
                raise _invalid(f"the weight {one['Weight']} is not between 0 and 999")
            _find_target_group(region, one["TargetGroupArn"])


def _tagged_target_groups(region: Region, request: Request) -> None:
    for arn in request.said["ResourceArns"]:
        if ":targetgroup/" in arn:
            _find_target_group(region, arn)


RULES: dict[tuple[str, str], Rule] = {
    ("ec2", "DescribeImages"): Rule(after=_on_ebs),
    ("ec2", "RunInstances"): Rule(_run, _start_pending),
    ("ec2", "CreateLaunchTemplate"): Rule(_create_template, _template_made),
    ("ec2", "DeleteLaunchTemplate"): Rule(_template_deletable),
    ("ec2", "DescribeLaunchTemplateVersions"): Rule(_template_there),
    ("ec2", "DescribeLaunchTemplates"): Rule(after=_hide_templates),
    ("ec2", "DescribeInstances"): Rule(_no_state_filter, _show_states),
    ("ec2", "TerminateInstances"): Rule(_terminate),
    ("autoscaling", "CreateAutoScalingGroup"): Rule(_create_group, _group_made),
    ("autoscaling", "UpdateAutoScalingGroup"): Rule(_update_group),
    ("autoscaling", "SuspendProcesses"): Rule(_group_there),
    ("autoscaling", "ResumeProcesses"): Rule(_group_there),
    ("autoscaling", "TerminateInstanceInAutoScalingGroup"): Rule(_terminate_member),
    ("autoscaling", "DeleteAutoScalingGroup"): Rule(_delete_group),
    ("autoscaling", "DescribeAutoScalingGroups"): Rule(after=_show_groups),
    ("autoscaling", "DescribeScalingActivities"): Rule(_activities),
    ("elbv2", "CreateTargetGroup"): Rule(_create_target_group, _target_group_made),
    ("elbv2", "ModifyTargetGroupAttributes"): Rule(_target_group_there),
    ("elbv2", "DescribeTargetGroups"): Rule(_named_target_groups),
    ("elbv2", "DescribeTargetHealth"): Rule(_health),
    ("elbv2", "DescribeTags"): Rule(_tagged_target_groups),
    ("elbv2", "DeleteTargetGroup"): Rule(),
    ("elbv2", "ModifyListener"): Rule(_modify_listener),
    ("elbv2", "ModifyRule"): Rule(_modify_rule),
}
