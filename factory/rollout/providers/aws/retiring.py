"""Retiring in one region: ending instances by id, and removing what a generation had once nothing of it is left.

The order of removal is against that of making: the front names the target group no more, then the Auto Scaling group,
the target group, and last the launch template, by whose tag the rest is found again after a crash. A generation is not
removed while it has an instance, or a share of the traffic that others would get.

AWS lets a group go only when its last instance is gone, which takes a while. What remains of it until then (an empty
group, a target group, a template: they cost nothing) is removed by the next call that retires or launches something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from factory.rollout.providers.aws import names, traffic
from factory.rollout.providers.aws.calls import (
    IN_USE,
    NO_SUCH_INSTANCE,
    NO_SUCH_TARGET_GROUP,
    NO_SUCH_TEMPLATE,
    Calls,
    Refusal,
    is_gone,
)
from factory.rollout.providers.aws.holding import stop
from factory.rollout.providers.aws.state import Group, Seen


def end_members(calls: Calls, group: Group, instances: Iterable[str]) -> None:
    """Have a group end some of its instances: each is taken out of its target group, may finish its requests, and is
    terminated; the group is so many smaller, so that nothing takes their place. Gone already is no error.

    A request that was carried out though its answer was lost has made the group smaller already; it is not made smaller
    a second time. (Even if it were: what stays is protected, and `launch` sets the size.)"""
    if group.least and instances:  # we set it to 0; a group does not go below it
        calls.ask("autoscaling", "update_auto_scaling_group", AutoScalingGroupName=group.name, MinSize=0)
    desired, staying = group.desired, len(group.staying)
    for instance in sorted(instances):
        shrinks = desired >= staying and desired > 0
        try:
            calls.ask(
                "autoscaling",
                "terminate_instance_in_auto_scaling_group",
                InstanceId=instance,
                ShouldDecrementDesiredCapacity=shrinks,
            )
        except Refusal as refusal:
            if not is_gone(refusal):
                raise
        desired, staying = desired - shrinks, staying - 1


@dataclass(frozen=True)
class Remover:
    """Takes away what a fleet has in one region."""

    calls: Calls
    fleet: str

    def end(self, seen: Seen, instances: Iterable[str]) -> None:
        """Terminate instances (EC2's ids); those that are ending or gone are left alone."""
        wanted = set(instances)
        for group in seen.groups.values():
            end_members(self.calls, group, wanted & group.staying)
        for one in sorted(wanted.difference(*(group.members for group in seen.groups.values()))):
            self._end_loose(seen, one)

    def _end_loose(self, seen: Seen, instance: str) -> None:
        """An instance that no group has: taken out of one by hand, or its group is gone."""
        if seen.state_of(instance) in ("unseen", "shutting-down", "terminated"):
            return
        try:
            self.calls.ask("ec2", "terminate_instances", InstanceIds=[instance])
        except Refusal as refusal:
            if refusal.code not in NO_SUCH_INSTANCE:
                raise

    def clear(self, seen: Seen, due: Callable[[int], bool], spare: int | None = None) -> Seen:
        """Remove what is left of generations that have ended: of those that are `due`, and of those older than any that
        lives, which are launches that were given up; never `spare`. (One that is not due may have been launched a
        moment ago, and not be seen everywhere yet.) What is seen after it."""
        known = {*seen.groups, *self._templates(), *seen.generations.values()}
        living = {number for number in known if not seen.is_empty(number)}
        for number in sorted(known - living - {spare}):
            if (due(number) or number < min(living, default=number)) and self._is_idle(seen, number):
                seen = self._remove(seen, number)
        return seen

    def _is_idle(self, seen: Seen, number: int) -> bool:
        """Whether taking a generation out of the front changes nothing for the others: it has no weight there, or
        nobody else has."""
        arn = seen.target_group(number)
        others = {other for other, weight in seen.front.weights.items() if weight and other != arn}
        return not seen.front.weights.get(arn or "", 0) or not others

    def _templates(self) -> frozenset[int]:
        """The generations that have a launch template here."""
        by_tag = [{"Name": f"tag:{names.FLEET}", "Values": [self.fleet]}]
        found = self.calls.all("ec2", "describe_launch_templates", "LaunchTemplates", Filters=by_tag)
        numbers = (names.generation_of(names.from_list(one.get("Tags"))) for one in found)
        return frozenset(number for number in numbers if number is not None)

    def _remove(self, seen: Seen, number: int) -> Seen:
        arn = seen.target_group(number) or self._target_group(number)
        if arn in seen.front.weights:
            kept = {other: weight for other, weight in seen.front.weights.items() if other != arn}
            has_use = any(kept.values()) or seen.present - {number}
            seen = replace(seen, front=traffic.send(self.calls, seen.front, kept if has_use else {}))
        name = names.group(self.fleet, number)
        gone = self._unless_gone(
            lambda: self.calls.ask("autoscaling", "delete_auto_scaling_group", AutoScalingGroupName=name)
        )
        if not gone and number not in seen.groups:
            stop(self.calls, name)
        if gone and arn is not None:
            gone = self._unless_gone(lambda: self.calls.ask("elbv2", "delete_target_group", TargetGroupArn=arn))
        if gone:
            self._unless_gone(lambda: self.calls.ask("ec2", "delete_launch_template", LaunchTemplateName=name))
        return seen

    def _target_group(self, number: int) -> str | None:
        """The ARN of a target group that neither a group nor the front names: a launch that did not get far. Waited for
        a little: one that is not seen yet would never be found again once the template is gone."""
        name = names.target_group(self.fleet, number)
        try:
            said = self.calls.visible(
                lambda: self.calls.ask("elbv2", "describe_target_groups", Names=[name]),
                lambda refusal: refusal.code == NO_SUCH_TARGET_GROUP,
            )
        except Refusal as refusal:
            if refusal.code != NO_SUCH_TARGET_GROUP:
                raise
            return None
        return str(said["TargetGroups"][0]["TargetGroupArn"])

    @staticmethod
    def _unless_gone(delete: Callable[[], object]) -> bool:
        """Whether what `delete` removes is gone now; False where it is still in use: the next call tries again."""
        try:
            delete()
        except Refusal as refusal:
            if refusal.code in IN_USE:
                return False
            if refusal.code not in (NO_SUCH_TARGET_GROUP, *NO_SUCH_TEMPLATE) and not is_gone(refusal):
                raise
        return True
