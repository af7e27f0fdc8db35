"""The strict layer over moto: each behaviour that AWS documents is there, and moto alone does not have it.

What each server is asked, and what it is to answer, stands in `strict_aws.probes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from strict_aws import models
from strict_aws.bench import REGION, Bench, answer
from strict_aws.documented import DOCUMENTED
from strict_aws.fleets import Account, clients
from strict_aws.models import Request
from strict_aws.probes import PROBES
from strict_aws.rules import RULES
from strict_aws.server import StrictAws, plain_moto, served
from strict_aws.world import wipe


@pytest.fixture(scope="module")
def layered() -> Iterator[Bench]:
    aws = StrictAws()
    with served(aws) as url:
        connect = clients(url)
        yield Bench(connect, Account(connect).make("a"), aws)


@pytest.fixture(scope="module")
def bare() -> Iterator[Bench]:
    with served(plain_moto()) as url:
        connect = clients(url)
        yield Bench(connect, Account(connect).make("a"), None)


@pytest.fixture
def strict(layered: Bench) -> Bench:
    assert layered.strict is not None
    layered.strict.reset()
    return layered


@pytest.fixture
def plain(bare: Bench) -> Bench:
    wipe(REGION)
    return bare


# --- behaviours


def test_behaviours_are_documented_and_probed() -> None:
    assert set(PROBES) == set(DOCUMENTED)
    for page, said in DOCUMENTED.values():
        assert page.startswith("https://docs.aws.amazon.com/")
        assert said


PARTS = [(name, part) for name, probe in sorted(PROBES.items()) for part in probe.aws]


@pytest.mark.parametrize(("behaviour", "part"), PARTS)
def test_every_part_of_a_behaviour_tells_aws_from_moto(behaviour: str, part: str) -> None:
    probe = PROBES[behaviour]
    assert probe.aws[part] != probe.moto[part]


@pytest.mark.parametrize("behaviour", sorted(DOCUMENTED))
def test_behaviour_of_aws_is_there(behaviour: str, strict: Bench) -> None:
    probe = PROBES[behaviour]
    seen = probe.ask(strict)
    assert set(seen) == set(probe.aws)
    for part, wanted in probe.aws.items():
        assert seen[part] == wanted, part
    assert strict.strict is not None
    assert strict.strict.violations == []


@pytest.mark.filterwarnings("ignore:Could not find AMI")
@pytest.mark.parametrize("behaviour", sorted(DOCUMENTED))
def test_behaviour_of_aws_is_not_motos_own(behaviour: str, plain: Bench) -> None:
    """Moto differs in just the way that is known of it: a probe that fails by something else shows nothing."""
    probe = PROBES[behaviour]
    seen = probe.ask(plain)
    for part, wanted in probe.moto.items():
        assert seen[part] == wanted, part


# --- the models


def test_request_that_fits_no_model_is_refused_and_noted(strict: Bench) -> None:
    elb = strict.connect("elbv2", REGION)
    assert answer(lambda: elb.create_target_group(Name="one", Protocol="GOPHER", Port=80)) == "ValidationError"
    assert strict.strict is not None
    assert "GOPHER" in strict.strict.violations[0]


@pytest.mark.parametrize(
    ("service", "operation", "reply", "said"),
    [
        ("autoscaling", "DescribeAutoScalingGroups", {"AutoScalingGroups": [{}]}, "AutoScalingGroupName is missing"),
        ("ec2", "DescribeInstances", {"Reservations": [{"Instances": [{"State": {"Name": "asleep"}}]}]}, "asleep"),
        (
            "elbv2",
            "DescribeTargetHealth",
            {"TargetHealthDescriptions": [{"Target": {"Id": "i", "Port": 0}}]},
            "0 is not",
        ),
        ("elbv2", "DescribeListeners", {"Listeners": [{"Port": "80"}]}, "no whole number"),
    ],
)
def test_reply_that_fits_no_model_is_noted(service: str, operation: str, reply: dict[str, Any], said: str) -> None:
    faults = models.reply_faults(Request(service, REGION, operation, {}, 1), reply)
    assert any(said in fault for fault in faults)


def test_tag_that_elb_does_not_take_is_noted() -> None:
    tags = {"ResourceArns": ["arn"], "Tags": [{"Key": "weights", "Value": "3=90,4=10"}]}
    assert models.request_faults(Request("elbv2", REGION, "AddTags", tags, 1))
    tags["Tags"] = [{"Key": "weights", "Value": "1764066000 3:90 4:10"}]
    assert models.request_faults(Request("elbv2", REGION, "AddTags", tags, 1)) == []


def test_operation_that_the_layer_does_not_know_is_refused(strict: Bench) -> None:
    assert ("ec2", "DescribeKeyPairs") not in RULES
    assert answer(strict.connect("ec2", REGION).describe_key_pairs) == "InvalidAction"
