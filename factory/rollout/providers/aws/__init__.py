"""Fleets on AWS: EC2 Auto Scaling groups behind the weighted target groups of an Application Load Balancer.

A generation has, in each region, one launch template (pinned to the AMI of one signed digest), one Auto Scaling group
and one target group, under names that are functions of fleet and generation. What is there is found by tag, each time:
nothing is remembered here between two calls, so a call may be repeated, from another machine too, after any crash.
`table` reads the fleet's table, `asking` says what stands in the way, `state` looks, `making`, `traffic` and `retiring`
act; `calls` speaks to AWS. There is no way to enter or change an instance.

Several regions: instances are spread evenly and launched everywhere at once. Traffic is shifted region by region, in
order and `wait_s` apart, where the newest generation gets more; it goes back in all of them at once. `shift` never
waits itself: it does what is due and is called again until `observe` says that every region has it. When a region was
shifted is kept in a tag on its listener or rule, so that the wait outlives the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from factory.errors import ProviderError
from factory.model import Layout
from factory.rollout.model import FleetSpec, Generation, Observation
from factory.rollout.providers.aws import asking, names, table, traffic
from factory.rollout.providers.aws.calls import Calls, Clock, Connect, connector
from factory.rollout.providers.aws.holding import hold
from factory.rollout.providers.aws.making import Maker
from factory.rollout.providers.aws.retiring import Remover
from factory.rollout.providers.aws.state import Group, Seen, see, why_missing
from factory.rollout.providers.aws.table import AwsSpec, Region
from factory.rollout.providers.aws.traffic import Memory
from factory.schema import Faults


def connect(layout: Layout, fleet: FleetSpec) -> AwsProvider:
    """The provider of a fleet; asks nothing yet. Raises SpecError where `[fleet.NAME.aws]` is at fault, ProviderError
    where boto3 is not installed."""
    path = layout.root / "fleets.toml"
    faults = Faults(path.name, path.read_text(errors="replace") if path.is_file() else "")
    spec = table.read(fleet, faults)
    faults.check()
    return AwsProvider(fleet, spec, connector())


@dataclass(frozen=True)
class AwsProvider:
    """One fleet. A `Provider`."""

    fleet: FleetSpec
    spec: AwsSpec
    reach: Connect
    clock: Clock = field(default_factory=Clock)

    def faults(self, image_arch: str) -> list[str]:
        """Why this fleet cannot be run: credentials, and what has to be there beforehand in each region."""
        return asking.faults(self.fleet, self.spec, image_arch, self._calls)

    def observe(self) -> Observation:
        """All instances of all regions; `healthy` as their target groups say. Ids are REGION/INSTANCE."""
        seen = [see(self._calls(one.name), self.fleet.name, one, health=True) for one in self.spec.regions]
        carried = [traffic.carried(one.weights, one.front.memory, one.present) for one in seen]
        return Observation(
            instances=tuple(instance for one in seen for instance in one.instances(self.spec.check.port)),
            weights=traffic.together(carried),
            missing=dict(chain.from_iterable(why_missing(self._calls(one.region.name), one).items() for one in seen)),
        )

    def launch(self, generation: Generation, count: int) -> None:
        """Bring a generation up to `count`, spread over the regions. More than that are left as they are. Launches that
        go on of other rollouts, or of newer generations (this one is gone back to), end."""
        seen = {one: see(self._calls(one.name), self.fleet.name, one) for one in self.spec.regions}
        for one in seen.values():
            self._check_image(one, generation)
        seen = {region: self._all_named(one) for region, one in seen.items()}
        seen = {region: self._held(one, partial(_is_given_up, generation)) for region, one in seen.items()}
        there = {region: one.effective(generation.number) for region, one in seen.items()}
        for region, more in _spread(there, count).items():
            calls = self._calls(region.name)
            remover, number = Remover(calls, self.fleet.name), generation.number
            cleared = remover.clear(seen[region], number.__gt__, spare=number)
            Maker(calls, self.fleet, self.spec, region).launch(cleared, generation, more)

    def shift(self, weights: Mapping[int, int], draining: Iterable[str] = ()) -> None:
        """Do of a shift what is due now. `draining` is left to `retire`, which waits for requests to end. Raises
        ProviderError where a generation is to get more and has no healthy instance; in the way back only after those
        regions went back that can."""
        asked = {number: weight for number, weight in weights.items() if weight}
        seen = [see(self._calls(one.name), self.fleet.name, one, health=True) for one in self.spec.regions]
        places = [self._all_named(one) for one in seen]
        problems = {one.region: problem for one in places if (problem := _unhealthy(one, asked)) is not None}
        nowhere = set(asked).difference(*(one.present for one in places))
        if nowhere:
            raise ProviderError(f"generation {min(nowhere)} has no healthy instance: it has none at all")
        is_forward = any(traffic.rises(traffic.fitted(asked, one.present), one.weights) for one in places)
        if not self.spec.replaces:
            places = [self._held(one, _is_complete) for one in places]
        for one in places:
            if problems and (is_forward or one.region in problems):
                continue
            shifted_at = self._shift_region(one, asked)
            is_last = one is places[-1]
            if shifted_at and not is_last and self.clock.now() - shifted_at < self.spec.wait_s:
                break
        for region, problem in problems.items():
            raise ProviderError(problem, where=region.name)

    def _all_named(self, seen: Seen) -> Seen:
        """Name generations that somebody took out of the front, with weight 0: they are health-checked again."""
        named = {**seen.front.weights, **self._named(seen, {})}
        if len(named) > traffic.MOST_NAMED or named == dict(seen.front.weights):
            return seen
        weights = {arn: seen.front.weights.get(arn, 0) for arn in named}
        return replace(seen, front=traffic.send(self._calls(seen.region.name), seen.front, weights))

    def _shift_region(self, seen: Seen, asked: Mapping[int, int]) -> int:
        """Bring one region to what is asked of it; when that was done, or 0 if nobody needs to wait after it."""
        actual, wanted = seen.weights, traffic.fitted(asked, seen.present)
        memory = seen.front.memory
        if actual == wanted and memory is not None and memory.asked == asked:
            return memory.at
        # Where it is so already but the memory says otherwise (its tag is not seen yet), the wait begins anew.
        before = actual if actual != wanted or memory is None else traffic.fitted(memory.asked, seen.present)
        at = math.ceil(self.clock.now()) if traffic.rises(wanted, before) else 0
        calls = self._calls(seen.region.name)
        front = traffic.remember(calls, seen.front, Memory(asked, at))
        if actual != wanted:
            traffic.send(calls, front, self._named(seen, wanted) if wanted else {})
        return at

    def _named(self, seen: Seen, wanted: Mapping[int, int]) -> dict[str, int]:
        """The weights by target group. Those that get nothing stay named, the newest first, so that they are
        health-checked and traffic can go back to them."""
        found: dict[str, int] = {}
        for number, weight in sorted(wanted.items(), reverse=True):
            arn = seen.target_group(number)
            if arn is None:
                raise ProviderError(
                    f"generation {number} has no target group", where=f"fleet.{self.fleet.name}, {seen.region.name}"
                )
            found[arn] = weight
        for arn, number in sorted(seen.generations.items(), key=lambda item: -item[1]):
            if number in seen.present and len(found) < traffic.MOST_NAMED:
                found.setdefault(arn, 0)
        return found

    def retire(self, instances: Iterable[str]) -> None:
        """End instances, and remove what their generations had once nothing of it is left; with no instances named,
        only the latter, and whatever was to be launched and is not there yet does not come any more. Called again while
        they end, it finds what can be removed by then."""
        ids: dict[str, set[str]] = {}
        named = tuple(instances)
        for one in named:
            place, _, instance = one.partition("/")
            ids.setdefault(place, set()).add(instance)
        for region in self.spec.regions:
            calls = self._calls(region.name)
            seen = see(calls, self.fleet.name, region)
            remover = Remover(calls, self.fleet.name)
            mine = ids.get(region.name, set())
            seen = self._held(seen, partial(_is_ended, mine) if named else lambda *_: True)
            remover.end(seen, mine)
            ended = seen.generations_of(mine)
            remover.clear(seen, ended.__contains__ if named else lambda _: True)

    def _held(self, seen: Seen, is_due: Callable[[int, Group], bool]) -> Seen:
        """Let groups launch no more, but for those that Auto Scaling is to keep whole (`replaces`) under traffic."""
        kept = seen.weights if self.spec.replaces else {}
        return hold(
            self._calls(seen.region.name), seen, lambda number, group: number not in kept and is_due(number, group)
        )

    def _check_image(self, seen: Seen, generation: Generation) -> None:
        """A generation never names two images."""
        group = seen.groups.get(generation.number)
        if group is not None and names.digest_of(group.tags) != generation.image.digest:
            raise ProviderError(
                f"generation {generation.number} of {self.fleet.name} is of {group.tags.get(names.DIGEST)}",
                where=seen.region.name,
                hint="a fleet of this name is run from elsewhere too, or the catalog here was lost",
            )

    def _calls(self, region: str) -> Calls:
        return Calls(region, self.reach, self.clock)


def _is_given_up(launched: Generation, number: int, group: Group) -> bool:
    """Whether another generation is launched instead of this one."""
    is_of_it = group.tags.get(names.ROLLOUT) == launched.rollout and number < launched.number
    return number != launched.number and not is_of_it


def _is_complete(_: int, group: Group) -> bool:
    """Whether a group has what it was to launch."""
    return not group.coming


def _is_ended(instances: Set[str], _: int, group: Group) -> bool:
    """Whether a group is to have nothing once these instances have ended, or has all that it was to launch."""
    is_named = bool(group.members.keys() & instances) and group.staying <= instances
    return is_named or not group.coming


def _unhealthy(seen: Seen, asked: Mapping[int, int]) -> str | None:
    """What keeps a region from a shift: a generation that is to get more there and cannot take it."""
    for number, weight in traffic.fitted(asked, seen.present).items():
        if weight > seen.weights.get(number, 0) and not seen.healthy(number):
            return f"generation {number} has no healthy instance"
    return None


def _spread(there: Mapping[Region, int], count: int) -> dict[Region, int]:
    """How many more each region gets, so that there are `count` together, as even as can be; the first ones first.
    Regions that get none are left out."""
    more = dict.fromkeys(there, 0)
    for _ in range(count - sum(there.values())):
        least = min(there, key=lambda region: there[region] + more[region])
        more[least] += 1
    return {region: number for region, number in more.items() if number}
