"""Keeping Auto Scaling groups of one region from launching: what was asked for once is not launched whenever AWS can.

A group that lacks an instance (no capacity, a quota, a failed launch) tries for ever, and asks nobody whether the image
may still run. So it may launch only between a launch, which was trusted, and the next call that finds its instances
there or gives it up. Held means: its process `Launch` is suspended; of one given up nothing more is desired, either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from factory.rollout.providers.aws.calls import Calls, Refusal, is_gone
from factory.rollout.providers.aws.state import LAUNCH, Group, Seen

Answer = dict[str, Any]


def hold(calls: Calls, seen: Seen, is_due: Callable[[int, Group], bool]) -> Seen:
    """Let those groups launch nothing more; what is seen after it. Gone already is no error."""
    groups = dict(seen.groups)
    for number, group in seen.groups.items():
        if is_due(number, group):
            groups[number] = _held(calls, group)
    return replace(seen, groups=groups)


def stop(calls: Calls, name: str) -> None:
    """Let a group launch nothing more that is not seen yet, and that somebody has given up. Waited for a little."""
    try:
        calls.visible(lambda: _suspend(calls, name), is_gone)
        calls.visible(lambda: _want(calls, name, 0), is_gone)
    except Refusal as refusal:
        if not is_gone(refusal):
            raise


def _held(calls: Calls, group: Group) -> Group:
    there = len(group.staying)
    try:
        if not group.is_held:
            _suspend(calls, group.name)
        if group.desired > there:
            _want(calls, group.name, there)
    except Refusal as refusal:
        if not is_gone(refusal):
            raise
    return replace(group, is_held=True, desired=min(group.desired, there))


def _suspend(calls: Calls, name: str) -> Answer:
    return calls.ask("autoscaling", "suspend_processes", AutoScalingGroupName=name, ScalingProcesses=[LAUNCH])


def _want(calls: Calls, name: str, count: int) -> Answer:
    return calls.ask(
        "autoscaling", "update_auto_scaling_group", AutoScalingGroupName=name, MinSize=0, DesiredCapacity=count
    )
