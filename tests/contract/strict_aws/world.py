"""What moto has no idea of: that things take time. The lives of instances, groups and targets of one region.

Moto keeps what there is (templates, groups, tags, target groups); this keeps since when, and works out what that comes
to at a moment. Auto Scaling is done here: moto launches at once and ends anything. Driven by `settle`, before and after
each request; it touches moto's objects directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.autoscaling.models import autoscaling_backends
from moto.ec2.models import ec2_backends
from moto.elbv2.models import FakeAction, elbv2_backends

ACCOUNT = "123456789012"
NOTHING = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}
"""The action of a listener that no fleet has taken."""


def wipe(region: str) -> None:
    """Take away all that a fleet has; networks, images and load balancers stay. (Moto's own reset takes long.)"""
    ec2, elb = ec2_backends[ACCOUNT][region], elbv2_backends[ACCOUNT][region]
    for reservation in ec2.reservations.values():
        for instance in reservation.instances:
            if instance.state != "terminated":
                instance.terminate()  # its address is free again
    for balancer in elb.load_balancers.values():
        for listener in balancer.listeners.values():
            listener.default_actions = listener._default_rule[0].actions = [FakeAction(dict(NOTHING))]
            listener._non_default_rules.clear()
            elb.tagging_service.delete_all_tags_for_resource(listener.arn)
    for kept in (
        ec2.reservations,
        ec2.launch_templates,
        ec2.launch_template_name_to_ids,
        ec2.launch_template_insert_order,
        autoscaling_backends[ACCOUNT][region].autoscaling_groups,
        elb.target_groups,
    ):
        kept.clear()


@dataclass
class Clock:
    """Time that passes only when somebody waits."""

    time: float = 1_764_000_000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds."""

    launch_s: float = 0.0
    """Until Auto Scaling launches what a group wants."""
    boot_s: float = 5.0
    shutdown_s: float = 3.0
    health_check_s: float = 30.0
    """Until Auto Scaling notices that an instance has died."""
    lag_s: float = 0.0
    """For how long a read does not see what was just written."""


@dataclass
class Life:
    """An instance: launched, perhaps being let go by its group (`leaving_at`), ended (`ended_at`)."""

    launched_at: float
    group: str | None = None
    leaving_at: float | None = None
    ended_at: float | None = None
    zone: str = ""
    target_groups: tuple[str, ...] = ()


@dataclass
class Region:
    """One region's time. `sick`: instances or AMIs whose instances never answer as they should. `room`: how many more
    instances a region has the capacity for; one that is not named has enough."""

    name: str
    clock: Clock
    pace: Pace
    sick: set[str]
    room: dict[str, int] = field(default_factory=dict)
    lives: dict[str, Life] = field(default_factory=dict)
    in_use_since: dict[str, float] = field(default_factory=dict)
    born: dict[tuple[str, str], float] = field(default_factory=dict)
    launches: list[tuple[str, str]] = field(default_factory=list)
    """(instance, AMI) in order."""
    wants_since: dict[str, float] = field(default_factory=dict)
    """Group -> since when it has been about to launch what it lacks."""
    failures: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Group -> when a launch of its last failed, and how many have in all."""

    @property
    def ec2(self) -> Any:
        return ec2_backends[ACCOUNT][self.name]

    @property
    def autoscaling(self) -> Any:
        return autoscaling_backends[ACCOUNT][self.name]

    @property
    def elb(self) -> Any:
        return elbv2_backends[ACCOUNT][self.name]

    # --- what is so now

    def state(self, instance: str) -> str:
        """An instance's state in EC2."""
        life, now = self.lives[instance], self.clock.now()
        if life.ended_at is not None:
            return "shutting-down" if now < life.ended_at + self.pace.shutdown_s else "terminated"
        return "pending" if now < life.launched_at + self.pace.boot_s else "running"

    def members(self, group: str) -> dict[str, Life]:
        """The instances that a group counts as its own: until it has ended those it lets go, and has noticed those that
        died."""
        return {
            name: life
            for name, life in self.lives.items()
            if life.group == group and not (life.leaving_at is not None and self.state(name) == "terminated")
        }

    def staying(self, group: str) -> dict[str, Life]:
        return {name: life for name, life in self.members(group).items() if life.leaving_at is None}

    def lifecycle(self, instance: str) -> str:
        life = self.lives[instance]
        if life.leaving_at is not None:
            return "Terminating"
        return "Pending" if self.state(instance) == "pending" else "InService"

    def delay_s(self, target_group: str) -> float:
        """The deregistration delay of a target group."""
        found = self.elb.target_groups.get(target_group)
        said = found.attributes["deregistration_delay.timeout_seconds"] if found is not None else 0
        return float(said)

    def targets(self, target_group: str) -> Iterator[tuple[str, dict[str, str]]]:
        """(instance, its health as DescribeTargetHealth says it) of a target group."""
        for name, life in self.lives.items():
            if target_group in life.target_groups and (health := self._health(target_group, name, life)):
                yield name, health

    def _health(self, arn: str, name: str, life: Life) -> dict[str, str] | None:
        now, group = self.clock.now(), self.elb.target_groups[arn]
        since = self.in_use_since.get(arn)
        gone_at = life.leaving_at if life.leaving_at is not None else life.ended_at
        if gone_at is not None:
            if now >= gone_at + self.delay_s(arn):
                return None
            return {"State": "draining", "Reason": "Target.DeregistrationInProgress"}
        running_at = life.launched_at + self.pace.boot_s
        if now < running_at:
            return None  # Auto Scaling registers it when it runs
        if since is None:
            return {"State": "unused", "Reason": "Target.NotInUse"}
        checks_s = int(group.healthy_threshold_count) * int(group.health_check_interval_seconds)
        if now < max(running_at, since) + checks_s:
            return {"State": "initial", "Reason": "Elb.InitialHealthChecking"}
        if {name, self.ec2.get_instance(name).image_id} & self.sick:
            return {"State": "unhealthy", "Reason": "Target.ResponseCodeMismatch"}
        return {"State": "healthy"}

    def is_unseen(self, kind: str, name: str) -> bool:
        """Whether something was made so shortly ago that reads do not show it."""
        born = self.born.get((kind, name))
        return born is not None and self.clock.now() < born + self.pace.lag_s

    def is_suspended(self, group: str, process: str) -> bool:
        found = self.autoscaling.autoscaling_groups[group]
        return any(one["ProcessName"] == process for one in found.suspended_processes)

    def is_scaling_out(self, group: str) -> bool:
        """Whether a group is about to launch instances."""
        desired = self.autoscaling.autoscaling_groups[group].desired_capacity or 0
        return desired > len(self.staying(group)) and not self.is_suspended(group, "Launch")

    # --- what happens

    def let_go(self, instance: str) -> None:
        """A group takes an instance out of service: deregistered, its requests may end, then terminated."""
        life = self.lives[instance]
        if life.leaving_at is None:
            life.leaving_at = self.clock.now()

    def end(self, instance: str) -> None:
        """EC2 ends an instance."""
        life = self.lives[instance]
        if life.ended_at is not None:
            return
        life.ended_at = self.clock.now()
        self.ec2.get_instance(instance).terminate()
        if life.group is not None and (found := self.autoscaling.autoscaling_groups.get(life.group)) is not None:
            found.instance_states = [one for one in found.instance_states if one.instance.id != instance]
        for group in self.elb.target_groups.values():
            group.targets.pop(instance, None)

    def settle(self) -> None:
        """All that has come due by now."""
        self._take_note()
        for name, life in list(self.lives.items()):
            if life.leaving_at is not None and life.ended_at is None:
                delay_s = max((self.delay_s(arn) for arn in life.target_groups if arn in self.in_use_since), default=0)
                if self.clock.now() >= life.leaving_at + delay_s:
                    self.end(name)
                    life.ended_at = life.leaving_at + delay_s
            self._notice_death(name, life)
        for name in list(self.autoscaling.autoscaling_groups):
            self._reach_size(name)
        self._take_note()

    def _notice_death(self, name: str, life: Life) -> None:
        """HealthCheck finds that an instance died, ReplaceUnhealthy takes it out of its group, and Launch follows."""
        if life.ended_at is None or life.group is None or life.leaving_at is not None:
            return
        if life.group not in self.autoscaling.autoscaling_groups:
            return
        if self.clock.now() < life.ended_at + self.pace.health_check_s:
            return
        if not any(self.is_suspended(life.group, process) for process in ("HealthCheck", "ReplaceUnhealthy")):
            life.leaving_at = self.clock.now()

    def _reach_size(self, name: str) -> None:
        group = self.autoscaling.autoscaling_groups[name]
        staying = self.staying(name)
        missing = (group.desired_capacity or 0) - len(staying)
        if not self.is_scaling_out(name):
            self.wants_since.pop(name, None)
        else:
            self._launch(name, missing)
        if missing < 0 and not self.is_suspended(name, "Terminate"):
            unprotected = {one.instance.id for one in group.instance_states if not one.protected_from_scale_in}
            for instance in sorted(unprotected & set(staying))[:-missing]:
                self.let_go(instance)

    def _launch(self, name: str, missing: int) -> None:
        """Auto Scaling launches after a while, as many as there is capacity for, and tries the others again."""
        now = self.clock.now()
        if now < self.wants_since.setdefault(name, now) + self.pace.launch_s:
            return
        count = min(missing, self.room.get(self.name, missing))
        if count:
            group = self.autoscaling.autoscaling_groups[name]
            group.replace_autoscaling_group_instances(count, group.get_propagated_tags())
        if self.name in self.room:
            self.room[self.name] -= count
        if count < missing:
            self.failures[name] = now, self.failures.get(name, (now, 0))[1] + 1

    def _take_note(self) -> None:
        """Instances and target groups that were not known yet, and which of the latter are in use."""
        now = self.clock.now()
        for reservation in self.ec2.reservations.values():
            for instance in reservation.instances:
                if instance.id not in self.lives:
                    self._greet(instance, now)
        for arn in list(self.elb.target_groups):
            if self.elb._any_listener_using(arn):
                self.in_use_since.setdefault(arn, now)
            else:
                self.in_use_since.pop(arn, None)

    def _greet(self, instance: Any, now: float) -> None:
        group = getattr(instance, "autoscaling_group", None)
        self.lives[instance.id] = Life(
            launched_at=now,
            group=group.name if group is not None else None,
            zone=instance.placement.zone,
            target_groups=tuple(group.target_group_arns) if group is not None else (),
        )
        instance.launch_time = datetime.fromtimestamp(now, UTC)
        self.born["instance", instance.id] = now
        self.launches.append((instance.id, instance.image_id))
