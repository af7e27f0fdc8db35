"""What stands in the way of a fleet on AWS, asked before anything is launched: who we are, and what has to be there.

Only looks; never reads a secret's value. What cannot be known without doing it (whether the role may do a thing,
whether the instance profile exists) is not claimed here: the first launch says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from factory.errors import ProviderError
from factory.rollout.model import FleetSpec
from factory.rollout.providers.aws.calls import Calls, Refusal
from factory.rollout.providers.aws.table import AwsSpec, Region, region_of_secret

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}

Ask = Callable[[str], Calls]


def faults(fleet: FleetSpec, spec: AwsSpec, image_arch: str, ask: Ask) -> list[str]:
    """Each with what to do; none: it can be tried. What AWS does not let us ask is a fault as well."""
    found: list[str] = []
    for region in spec.regions:
        calls = ask(region.name)
        unusable = _told(partial(_account, calls, spec))
        found += unusable
        if unusable:  # the rest would say the same again
            continue
        for look in (_network, _front, _machine):
            found += _told(partial(look, calls, spec, region, image_arch))
    if not found:
        for one in fleet.external:
            found += _told(partial(_secret, ask, one.name, one.arn or ""))
    return list(dict.fromkeys(found))


def _told(look: Callable[[], Iterator[str]]) -> list[str]:
    """The faults that looking finds, and that it could not look."""
    found: list[str] = []
    try:
        found.extend(look())
    except ProviderError as error:
        hint = f" ({error.hint})" if error.hint else ""
        found.append(f"{error.where}: {error.message}{hint}")
    return found


def _account(calls: Calls, spec: AwsSpec) -> Iterator[str]:
    account = str(calls.ask("sts", "get_caller_identity").get("Account"))
    if spec.account is not None and account != spec.account:
        yield (
            f"these credentials are of the account {account}; the fleet belongs in {spec.account}: "
            "choose another AWS_PROFILE"
        )


def _network(calls: Calls, spec: AwsSpec, region: Region, _: str) -> Iterator[str]:
    subnets = calls.ask("ec2", "describe_subnets", SubnetIds=list(region.subnets))["Subnets"]
    for one in subnets:
        if one["VpcId"] != region.vpc:
            yield f"{region.name}: {one['SubnetId']} is in {one['VpcId']}, not in {region.vpc}: name another"
    groups = calls.ask("ec2", "describe_security_groups", GroupIds=list(region.security_groups))["SecurityGroups"]
    for one in groups:
        if one.get("VpcId") != region.vpc:
            yield f"{region.name}: {one['GroupId']} is in {one.get('VpcId')}, not in {region.vpc}: name another"


def _front(calls: Calls, spec: AwsSpec, region: Region, _: str) -> Iterator[str]:
    listener = region.listener
    if region.rule is not None:
        rules = calls.ask("elbv2", "describe_rules", RuleArns=[region.rule])["Rules"]
        if not rules:
            yield f"{region.name}: there is no rule {region.rule}: make it first"
            return
        if rules[0].get("IsDefault"):
            yield f"{region.name}: {region.rule} is a listener's default rule: name the listener instead"
        listener = region.rule.replace(":listener-rule/", ":listener/").rpartition("/")[0]
    found = calls.ask("elbv2", "describe_listeners", ListenerArns=[listener])["Listeners"]
    if not found:
        yield f"{region.name}: there is no listener {listener}: make it first"
        return
    balancers = calls.ask("elbv2", "describe_load_balancers", LoadBalancerArns=[found[0]["LoadBalancerArn"]])
    for one in balancers["LoadBalancers"]:
        if one.get("Type") != "application":
            yield f"{region.name}: {one['LoadBalancerName']} is no Application Load Balancer: make one"
        if one.get("VpcId") != region.vpc:
            yield f"{region.name}: {one['LoadBalancerName']} is in {one.get('VpcId')}, not in {region.vpc}"


def _machine(calls: Calls, spec: AwsSpec, region: Region, image_arch: str) -> Iterator[str]:
    said = calls.ask("ec2", "describe_instance_types", InstanceTypes=[spec.instance_type])["InstanceTypes"]
    if not said:
        yield f"{region.name}: there is no instance type {spec.instance_type}: choose another"
        return
    able = said[0].get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if _ARCHITECTURES.get(image_arch, image_arch) not in able:
        yield (
            f"{region.name}: {spec.instance_type} is for {', '.join(able)}; the image is for {image_arch}: "
            "choose another instance_type"
        )


def _secret(ask: Ask, name: str, arn: str) -> Iterator[str]:
    try:
        said = ask(region_of_secret(arn)).ask("secretsmanager", "describe_secret", SecretId=arn)
    except Refusal as refusal:
        if refusal.code != "ResourceNotFoundException":
            raise
        yield f"external state {name}: there is no secret {arn}: make it first"
        return
    if said.get("DeletedDate") is not None:
        yield f"external state {name}: the secret {arn} is being deleted: restore it, or name another"
