"""AWS as a world for the contract of providers: one server for all tests of a process, emptied for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from factory.digest import Digest
from factory.rollout.model import Image
from factory.rollout.providers import Provider
from factory.rollout.providers.aws import names
from strict_aws.fleets import Account, clients, fleet, provider
from strict_aws.server import StrictAws, served
from strict_aws.world import NOTHING

_OPEN = ExitStack()


@cache
def shared() -> tuple[StrictAws, Account]:
    """A server that runs until the process ends, and an account in it."""
    aws = StrictAws()
    return aws, Account(clients(_OPEN.enter_context(served(aws)))).make("a")


@dataclass
class AwsWorld:
    """A fleet in one region. `sick` images start and never answer as they should."""

    aws: StrictAws
    account: Account
    name: str = "web"
    images: dict[str, Image] = field(default_factory=dict)

    @property
    def provider(self) -> Provider:
        return provider(replace(fleet(self.account), name=self.name), self.account.connect, self.aws)

    def image(self, version: str) -> Image:
        if version not in self.images:
            digest = Digest("sha256:" + hashlib.sha256(version.encode()).hexdigest())
            references = {
                f"aws/{region}": self.account.connect("ec2", region).register_image(
                    Name=f"{version}-{self.aws.clock.now()}", Architecture="x86_64", RootDeviceName="/dev/xvda"
                )["ImageId"]
                for region in self.account.regions
            }
            self.images[version] = Image("web", "amd64", digest, references)
        return self.images[version]

    def sick_image(self) -> Image:
        image = self.image("sick")
        self.aws.sick |= set(image.references.values())
        return image

    def wait(self, until: Callable[[], bool]) -> None:
        for _ in range(60):
            if until():
                return
            self.aws.clock.sleep(8)
        raise AssertionError("it did not come to be")

    def left(self) -> set[int]:
        """The generations of which there is anything: instances, groups, target groups, templates."""
        found = {one.generation for one in self.provider.observe().instances}
        for region in map(self.aws.region, self.account.regions):
            there = {*region.autoscaling.autoscaling_groups, *region.ec2.launch_template_name_to_ids}
            there |= {one.name for one in region.elb.target_groups.values()}
            found |= {
                number
                for number in range(1, 10)
                if {names.group(self.name, number), names.target_group(self.name, number)} & there
            }
        return found

    def beside(self, name: str) -> AwsWorld:
        """Another fleet in the same account, on a listener of its own."""
        places = {}
        for region, place in self.account.places.items():
            elb = self.account.connect("elbv2", region)
            ours = elb.describe_listeners(ListenerArns=[place["listener"]])["Listeners"][0]["LoadBalancerArn"]
            made = elb.create_listener(LoadBalancerArn=ours, Protocol="HTTP", Port=81, DefaultActions=[NOTHING])
            places[region] = {**place, "listener": made["Listeners"][0]["ListenerArn"]}
        account = Account(self.account.connect, self.account.regions, self.account.amis, places)
        return AwsWorld(self.aws, account, name)


@contextmanager
def aws(_: Path) -> Iterator[AwsWorld]:
    """An AWS without fleets; what was asked and answered fits AWS's models."""
    server, account = shared()
    server.reset()
    yield AwsWorld(server, account)
    assert server.violations == []
