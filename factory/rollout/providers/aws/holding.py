"""Keeping Auto Scaling groups of one region from launching: what was asked for once is not launched whenever AWS can.

A group that lacks an instance (no capacity, a quota, a failed launch) tries for ever, and asks nobody whether the image
may still run. So it may launch only between a launch, which was trusted, and the next call that finds its instances
there or gives it up. Held means: its process `Launch` is suspended; of one given up nothing more is desired, either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from factory.rollout.providers.aws.calls import Calls, Refusal, is_gone
from factory.rollout.providers.aws.state import LAUNCH, Group, Seen


def hold(calls: Calls, seen: Seen, is_due: Callable[[int, Group], bool]) -> Seen:
    """Let those groups launch nothing more; what is seen after it. Gone already is no error."""
    groups = dict(seen.groups)
    for number, group in seen.groups.items():
        if is_due(number, group):
            groups[number] = _held(calls, group)
    return replace(seen, groups=groups)


def _held(calls: Calls, group: Group) -> Group:
    there = len(group.staying)
    try:
        if not group.is_held:
            calls.ask("autoscaling", "suspend_processes", AutoScalingGroupName=group.name, ScalingProcesses=[LAUNCH])
        if group.desired > there:
            calls.ask(
                "autoscaling",
                "update_auto_scaling_group",
                AutoScalingGroupName=group.name,
                MinSize=0,
                DesiredCapacity=there,
            )
    except Refusal as refusal:
        if not is_gone(refusal):
            raise
    return replace(group, is_held=True, desired=min(group.desired, there))
