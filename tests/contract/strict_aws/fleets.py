"""An account with a network and a load balancer in each region, and a fleet for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from factory.digest import Digest
from factory.rollout.model import External, FleetSpec, Generation, Health, HttpProbe, Image
from factory.rollout.providers.aws import AwsProvider, table
from factory.rollout.providers.aws.calls import Clock, Connect
from factory.schema import Faults
from strict_aws.server import StrictAws
from strict_aws.world import NOTHING

REGIONS = ("eu-west-1", "us-east-1")


def clients(url: str, attempts: int = 1) -> Connect:
    """Clients of a server, each made once: making one takes longer than all it does here."""
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(aws_access_key_id="testing", aws_secret_access_key="testing")
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=20)
    made: dict[tuple[str, str], Any] = {}

    def connect(service: str, region: str) -> Any:
        if (service, region) not in made:
            made[service, region] = session.client(service, region_name=region, endpoint_url=url, config=config)
        return made[service, region]

    return connect


def digest_of(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


@dataclass
class Account:
    """What has to be there before a fleet is: made through the API, as people do. `amis`: image letter and region ->
    AMI; `places`: region -> its table."""

    connect: Connect
    regions: tuple[str, ...] = REGIONS[:1]
    amis: dict[tuple[str, str], str] = field(default_factory=dict)
    places: dict[str, dict[str, Any]] = field(default_factory=dict)

    def make(self, images: str = "ab") -> Account:
        for region in self.regions:
            self.places[region] = self._network(region)
            ec2 = self.connect("ec2", region)
            for letter in images:
                made = ec2.register_image(Name=f"image-{letter}", Architecture="x86_64", RootDeviceName="/dev/xvda")
                self.amis[letter, region] = made["ImageId"]
        return self

    def _network(self, region: str) -> dict[str, Any]:
        ec2, elb = self.connect("ec2", region), self.connect("elbv2", region)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{64 * number}.0/18", AvailabilityZone=region + zone)["Subnet"]
            for number, zone in enumerate("ab")
        ]
        ids = [one["SubnetId"] for one in subnets]
        group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
        balancer = elb.create_load_balancer(Name="web", Subnets=ids)["LoadBalancers"][0]["LoadBalancerArn"]
        listener = elb.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=80, DefaultActions=[NOTHING])
        return {
            "name": region,
            "vpc": vpc,
            "subnets": ids,
            "security_groups": [group],
            "listener": listener["Listeners"][0]["ListenerArn"],
        }

    def image(self, letter: str = "a") -> Image:
        references = {f"aws/{region}": self.amis[letter, region] for region in self.regions}
        return Image("web", "amd64", digest_of(letter), references)

    def generation(self, number: int = 1, letter: str = "a") -> Generation:
        return Generation(number, self.image(letter), f"rollout-{number}")


def fleet(there: Account, /, size: int = 2, external: tuple[External, ...] = (), **aws: Any) -> FleetSpec:
    said = {"instance_type": "t3.micro", "regions": [there.places[one] for one in there.regions], "drain_s": 10}
    return FleetSpec(
        name="web", provider="aws", image="web", channel=None, size=size, min=1, max=2 * size, strategy="canary",
        health=Health(http=HttpProbe(80, "/health"), successes=2, interval_s=5), external=external, aws={**said, **aws},
    )  # fmt: skip


def provider(spec: FleetSpec, connect: Connect, aws: StrictAws) -> AwsProvider:
    """A provider with no memory of any before it."""
    faults = Faults("fleets.toml")
    checked = table.read(spec, faults)
    faults.check()
    return AwsProvider(spec, checked, connect, Clock(aws.clock.now, aws.clock.sleep))


@dataclass
class Stage:
    """An AWS, an account in it, and a fleet. Each `provider()` is another process: it remembers nothing."""

    aws: StrictAws
    account: Account
    spec: FleetSpec

    def provider(self) -> AwsProvider:
        return provider(self.spec, self.account.connect, self.aws)

    def until(self, done: Callable[[], object], step_s: float = 8.0, limit_s: float = 900.0) -> None:
        """Let time pass until it is so."""
        until = self.aws.clock.now() + limit_s
        while not done():
            assert self.aws.clock.now() < until, "it did not come to be"
            self.aws.clock.sleep(step_s)

    def left(self) -> list[str]:
        """What there is of fleets, by name, without instances that ended."""
        found: list[str] = []
        for name in self.account.regions:
            region = self.aws.region(name)
            found += [f"group {one}" for one in region.autoscaling.autoscaling_groups]
            found += [f"target group {one.name}" for one in region.elb.target_groups.values()]
            found += [f"template {one}" for one in region.ec2.launch_template_name_to_ids]
            found += [f"instance {one}" for one, life in region.lives.items() if life.ended_at is None]
        return sorted(found)
