"""Where AWS documents what the strict layer adds to moto: a page for each behaviour, and what it says in short."""

from __future__ import annotations

_API = "https://docs.aws.amazon.com/"
_AUTOSCALING = _API + "autoscaling/ec2/APIReference/"
_SCALING_GUIDE = _API + "autoscaling/ec2/userguide/"
_ELB = _API + "elasticloadbalancing/latest/"
_EC2 = _API + "AWSEC2/latest/APIReference/"
_EC2_GUIDE = _API + "AWSEC2/latest/UserGuide/"

DOCUMENTED = {
    "unknown-ami": (
        _EC2 + "errors-overview.html",
        "InvalidAMIID.NotFound: the specified AMI does not exist",
    ),
    "ami-of-template": (
        _SCALING_GUIDE + "ts-as-ami.html",
        "The AMI ID ... does not exist: launching your EC2 instance failed",
    ),
    "pending": (
        _EC2_GUIDE + "ec2-instance-lifecycle.html",
        "a launched instance enters the pending state, then running; a terminated one shutting-down, then terminated",
    ),
    "initial": (
        _ELB + "APIReference/API_TargetHealth.html",
        "initial: registering, or the minimum number of health checks has not been sent yet",
    ),
    "unhealthy": (
        _ELB + "APIReference/API_TargetHealth.html",
        "unhealthy, Target.ResponseCodeMismatch: the health checks did not return an expected HTTP code",
    ),
    "unused": (
        _ELB + "APIReference/API_TargetHealth.html",
        "unused, Target.NotInUse: the target group is not used by any load balancer",
    ),
    "draining": (
        _ELB + "application/edit-target-group-attributes.html",
        "deregistering targets are draining for the deregistration delay, so that requests in flight complete",
    ),
    "terminate-takes-time": (
        _AUTOSCALING + "API_TerminateInstanceInAutoScalingGroup.html",
        "makes a termination request; the instance is not terminated immediately",
    ),
    "size-at-creation": (
        _AUTOSCALING + "API_CreateAutoScalingGroup.html",
        "the desired capacity is at least the minimum and at most the maximum size of the group",
    ),
    "launch-takes-time": (
        _SCALING_GUIDE + "ec2-auto-scaling-lifecycle.html",
        "a scale-out event directs the group to launch the instances that it lacks; they start in the Pending state",
    ),
    "launch-suspended": (
        _SCALING_GUIDE + "as-suspend-resume-processes.html",
        "Launch adds instances to the group when it scales out; suspended, the group adds none",
    ),
    "no-capacity": (
        _SCALING_GUIDE + "ts-as-instancelaunchfailure.html",
        "not sufficient capacity in the zone you requested: launching failed, says DescribeScalingActivities",
    ),
    "group-scales": (
        _AUTOSCALING + "API_DeleteAutoScalingGroup.html",
        "ScalingActivityInProgress: the group cannot be deleted while scaling activities are in progress",
    ),
    "group-of-unknown-target-group": (
        _AUTOSCALING + "API_CreateAutoScalingGroup.html",
        "TargetGroupNotFound is none of its errors; input that does not serve is a ValidationError (CommonErrors.html)",
    ),
    "unseen-instance": (
        _API + "ec2/latest/devguide/eventual-consistency.html",
        "InvalidInstanceID.NotFound right after RunInstances: the id has not propagated yet",
    ),
    "tags-of-unknown-target-group": (
        _ELB + "APIReference/API_DescribeTags.html",
        "TargetGroupNotFound: the specified target group does not exist",
    ),
    "minimum-size": (
        _AUTOSCALING + "API_UpdateAutoScalingGroup.html",
        "the desired capacity is not less than the minimum and not more than the maximum size of the group",
    ),
    "replaces": (
        _SCALING_GUIDE + "understand-how-suspending-processes-affects-other-processes.html",
        "unhealthy instances are replaced unless ReplaceUnhealthy is suspended",
    ),
    "group-exists": (
        _AUTOSCALING + "API_CreateAutoScalingGroup.html",
        "AlreadyExists: you already have an Auto Scaling group with this name",
    ),
    "group-in-use": (
        _AUTOSCALING + "API_DeleteAutoScalingGroup.html",
        "if the group has instances or scaling activities in progress, the deletion must be forced",
    ),
    "group-name": (
        _AUTOSCALING + "API_CreateAutoScalingGroup.html",
        "the name of a group cannot contain a colon and has at most 255 characters",
    ),
    "template-name": (
        _EC2 + "API_CreateLaunchTemplate.html",
        "a name of 3 to 128 characters matching [a-zA-Z0-9\\(\\)\\.\\-/_]+",
    ),
    "template-gone": (
        _EC2 + "errors-overview.html",
        "InvalidLaunchTemplateName.NotFoundException: the specified launch template name does not exist",
    ),
    "same-target-group": (
        _ELB + "APIReference/API_CreateTargetGroup.html",
        "idempotent: creating several target groups with the same settings succeeds each time",
    ),
    "weights": (
        _ELB + "APIReference/API_TargetGroupTuple.html",
        "the weight of a target group is 0 to 999",
    ),
    "five-target-groups": (
        _ELB + "application/load-balancer-limits.html",
        "target groups per action on an Application Load Balancer: 5",
    ),
    "unknown-target-group": (
        _ELB + "APIReference/API_ModifyListener.html",
        "TargetGroupNotFound: the specified target group does not exist",
    ),
    "throttling": (
        _API + "ec2/latest/devguide/ec2-api-throttling.html",
        "requests beyond the rate get RequestLimitExceeded; other services say Throttling",
    ),
    "eventual-consistency": (
        _API + "ec2/latest/devguide/eventual-consistency.html",
        "what a command did might not be immediately visible to all subsequent commands",
    ),
    "lost-reply": (
        _API + "ec2/latest/devguide/ec2-api-idempotency.html",
        "a request may complete although the caller sees a timeout or a broken connection",
    ),
    "expired": (
        _EC2 + "errors-overview.html",
        "RequestExpired / ExpiredToken: the security token included in the request is expired",
    ),
}
"""Behaviour -> (the page of AWS's documentation, what it says in short). Each has a test that plain moto fails."""
