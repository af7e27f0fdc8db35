"""Fleets on AWS, against moto's server behind the strict layer: what is made, what goes wrong, what is left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from strict_aws.fleets import REGIONS, Account, Stage, clients, digest_of, fleet
from strict_aws.models import AwsError
from strict_aws.server import StrictAws, served
from strict_aws.world import NOTHING, Pace

from factory.errors import ProviderError, SpecError
from factory.model import Layout
from factory.rollout.model import (
    Deadline,
    Deadlines,
    External,
    FleetSpec,
    Health,
    HttpProbe,
    Instance,
    Observation,
)
from factory.rollout.providers import connect
from factory.rollout.providers.aws import AwsProvider, calls, names, table
from factory.rollout.providers.aws.calls import Clock, Refusal, connector
from factory.schema import Faults

HERE = REGIONS[0]
SECRET = f"arn:aws:secretsmanager:{HERE}:123456789012:secret:database-AbCdEf"


@pytest.fixture(scope="module")
def aws_and_accounts() -> Iterator[tuple[StrictAws, Account, Account]]:
    aws = StrictAws()
    with served(aws) as url:
        reach = clients(url)
        both = Account(reach, REGIONS).make()
        one = Account(reach, REGIONS[:1], both.amis, both.places)
        yield aws, one, both


@pytest.fixture
def stage(aws_and_accounts: tuple[StrictAws, Account, Account]) -> Iterator[Stage]:
    """A fleet of two in one region."""
    aws, account, _ = aws_and_accounts
    aws.reset()
    made = Stage(aws, account, fleet(account))
    yield made
    assert aws.violations == []


@pytest.fixture
def wide(aws_and_accounts: tuple[StrictAws, Account, Account]) -> Iterator[Stage]:
    """A fleet of four in two regions, shifted five minutes apart."""
    aws, _, account = aws_and_accounts
    aws.reset()
    deadlines = Deadlines(shift=Deadline(600, "abort"))
    yield Stage(aws, account, replace(fleet(account, size=4, wait_s=300), deadlines=deadlines))
    assert aws.violations == []


def healthy(provider: AwsProvider, generation: int = 1) -> list[Instance]:
    return [one for one in provider.observe().of(generation) if one.healthy]


def up(stage: Stage, number: int = 1, letter: str = "a", count: int = 2) -> list[str]:
    """Launch a generation and wait until it is healthy (booted in 5 s, two checks 5 s apart); the ids."""
    stage.provider().launch(stage.account.generation(number, letter), count)
    stage.aws.clock.sleep(16)
    found = [one.id for one in healthy(stage.provider(), number)]
    assert len(found) >= count
    return found


def instances(stage: Stage, region: str = HERE) -> list[dict[str, Any]]:
    said = stage.account.connect("ec2", region).describe_instances()["Reservations"]
    return [one for reservation in said for one in reservation["Instances"]]


# --- launching


def test_launch_makes_a_generation_of_the_image_that_was_signed(stage: Stage) -> None:
    stage.provider().launch(stage.account.generation(), 2)
    made = instances(stage)
    assert {one["ImageId"] for one in made} == {stage.account.amis["a", HERE]}
    for one in made:
        tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        assert tags[names.FLEET] == "web"
        assert tags[names.DIGEST] == digest_of("a")
        assert tags[names.ROLLOUT] == "rollout-1"
        assert tags[names.GENERATION] == "1"
    template = next(one for one in stage.aws.writes if one.operation == "CreateLaunchTemplate").said
    data = template["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert "UserData" not in data
    assert len(names.target_group("web", 1)) <= 32
    assert stage.left() == sorted(
        [
            "group factory-web-1",
            "template factory-web-1",
            f"target group {names.target_group('web', 1)}",
            *(f"instance {one['InstanceId']}" for one in made),
        ]
    )


def test_launch_again_changes_nothing(stage: Stage) -> None:
    stage.provider().launch(stage.account.generation(), 2)
    before = len(stage.aws.writes)
    stage.provider().launch(stage.account.generation(), 2)
    stage.provider().launch(stage.account.generation(), 1)
    assert len(stage.aws.writes) == before
    stage.provider().launch(stage.account.generation(), 3)
    assert len(instances(stage)) == 3


def test_launch_is_seen_as_pending_then_running_then_healthy(stage: Stage) -> None:
    stage.provider().launch(stage.account.generation(), 2)
    seen = [(one.state, one.healthy) for one in stage.provider().observe().instances]
    assert seen == [("pending", False)] * 2
    stage.aws.clock.sleep(6)
    seen = [(one.state, one.healthy) for one in stage.provider().observe().instances]
    assert seen == [("running", False)] * 2
    stage.aws.clock.sleep(20)
    found = stage.provider().observe()
    assert [(one.state, one.healthy) for one in found.instances] == [("running", True)] * 2
    assert {one.digest for one in found.instances} == {digest_of("a")}
    assert all(one.address and one.address.endswith(":80") for one in found.instances)
    assert found.weights == {}


def test_launch_cut_off_after_any_request_is_finished_by_another_process(stage: Stage) -> None:
    """The answer to each write is lost, and with it the process: what it did is adopted, and nothing is there twice."""
    stage.provider().launch(stage.account.generation(), 2)
    count, whole = len(stage.aws.writes), [one for one in stage.left() if "instance" not in one]
    for number in range(1, count + 1):
        stage.aws.reset()
        already = len(stage.aws.writes)

        def dies(request: Any, at: int = already + number) -> str | None:
            return "lose" if len(stage.aws.writes) == at and not request.is_read else None

        stage.aws.fault = dies
        with pytest.raises(ProviderError):
            stage.provider().launch(stage.account.generation(), 2)
        stage.aws.fault = lambda _: None
        stage.provider().launch(stage.account.generation(), 2)
        assert [one for one in stage.left() if "instance" not in one] == whole
        assert len(instances(stage)) == 2
        assert len(stage.aws.region(HERE).launches) == 2


def test_launch_waits_a_little_for_what_is_not_seen_yet(stage: Stage) -> None:
    stage.aws.reset(Pace(lag_s=3))
    stage.aws.clock.sleep(5)
    stage.provider().launch(stage.account.generation(), 2)
    stage.aws.clock.sleep(5)
    assert len(stage.provider().observe().instances) == 2


def test_launch_that_stays_unseen_is_told_and_can_be_repeated(stage: Stage) -> None:
    stage.aws.reset(Pace(lag_s=30))
    stage.aws.clock.sleep(31)
    with pytest.raises(ProviderError):
        stage.provider().launch(stage.account.generation(), 2)
    stage.until(lambda: _launched(stage), step_s=31)
    assert len(stage.aws.region(HERE).launches) == 2


def _launched(stage: Stage) -> bool:
    try:
        stage.provider().launch(stage.account.generation(), 2)
    except ProviderError:
        return False
    return True


def test_launch_of_an_ami_that_is_not_there_is_refused(stage: Stage) -> None:
    generation = stage.account.generation()
    gone = replace(generation, image=replace(generation.image, references={f"aws/{HERE}": "ami-0123456789abcdef0"}))
    with pytest.raises(ProviderError, match="not there"):
        stage.provider().launch(gone, 2)
    elsewhere = replace(generation, image=replace(generation.image, references={"aws/eu-north-1": "ami-1"}))
    with pytest.raises(ProviderError, match=f"no AMI in {HERE}"):
        stage.provider().launch(elsewhere, 2)
    assert stage.left() == []


def test_generation_of_another_image_is_refused(stage: Stage) -> None:
    stage.provider().launch(stage.account.generation(1, "a"), 1)
    with pytest.raises(ProviderError, match="is of sha256:aaaa"):
        stage.provider().launch(stage.account.generation(1, "b"), 2)
    assert len(instances(stage)) == 1


def test_template_of_another_image_is_refused(stage: Stage) -> None:
    stage.account.connect("ec2", HERE).create_launch_template(
        LaunchTemplateName="factory-web-1", LaunchTemplateData={"ImageId": stage.account.amis["b", HERE]}
    )
    with pytest.raises(ProviderError, match="the launch template factory-web-1 is of"):
        stage.provider().launch(stage.account.generation(1, "a"), 2)


def test_instance_that_died_is_replaced_by_launch_and_by_nobody_else(stage: Stage) -> None:
    first, _ = up(stage)
    stage.account.connect("ec2", HERE).terminate_instances(InstanceIds=[first.partition("/")[2]])
    stage.aws.clock.sleep(300)
    assert len(stage.provider().observe().instances) == 1
    assert len(stage.aws.region(HERE).launches) == 2
    stage.provider().launch(stage.account.generation(), 2)
    stage.until(lambda: len(healthy(stage.provider())) == 2)
    assert len(stage.aws.region(HERE).launches) == 3


def test_instance_that_died_is_replaced_by_aws_where_the_fleet_says_so(stage: Stage) -> None:
    stage.spec = fleet(stage.account, replaces=True)
    first, _ = up(stage)
    stage.account.connect("ec2", HERE).terminate_instances(InstanceIds=[first.partition("/")[2]])
    stage.until(lambda: len(healthy(stage.provider())) == 2)
    assert len(stage.aws.region(HERE).launches) == 3
    assert {ami for _, ami in stage.aws.region(HERE).launches} == {stage.account.amis["a", HERE]}


def test_instances_that_answer_wrongly_are_not_healthy(stage: Stage) -> None:
    stage.aws.sick.add(stage.account.amis["b", HERE])
    stage.provider().launch(stage.account.generation(1, "b"), 2)
    stage.aws.clock.sleep(300)
    assert [one.healthy for one in stage.provider().observe().instances] == [False, False]


# --- what was asked for, and is not there yet


def held(stage: Stage, number: int = 1) -> bool:
    """Whether a generation's group launches nothing."""
    return stage.aws.region(HERE).is_suspended(f"factory-web-{number}", "Launch")


def test_group_that_has_its_count_launches_no_more(stage: Stage) -> None:
    """Whatever becomes of its instances: the image may have been revoked since."""
    stage.provider().launch(stage.account.generation(), 2)
    assert not held(stage)
    stage.aws.clock.sleep(16)
    stage.provider().shift({1: 100})
    assert held(stage)
    scaling = stage.account.connect("autoscaling", HERE)
    scaling.update_auto_scaling_group(AutoScalingGroupName="factory-web-1", MaxSize=3, DesiredCapacity=3)
    stage.aws.clock.sleep(60)
    assert len(stage.provider().observe().instances) == 2
    stage.provider().launch(stage.account.generation(), 3)
    assert len(stage.provider().observe().instances) == 3
    stage.provider().retire([])
    assert held(stage)


def test_what_aws_says_of_a_launch_that_failed_is_told(stage: Stage) -> None:
    stage.aws.room[HERE] = 1
    stage.provider().launch(stage.account.generation(), 2)
    (why,) = stage.provider().observe().missing.values()
    assert why.startswith(f"{HERE}: InsufficientInstanceCapacity: ")
    stage.aws.room.clear()
    stage.aws.clock.sleep(60)
    assert stage.provider().observe().missing == {}


def test_group_that_lacks_some_goes_on_only_with_the_next_launch(stage: Stage) -> None:
    stage.aws.room[HERE] = 1
    stage.provider().launch(stage.account.generation(), 2)
    stage.aws.clock.sleep(16)
    stage.provider().shift({1: 100})
    assert not held(stage), "one is still to come"
    stage.provider().retire([])
    stage.aws.room.clear()
    stage.aws.clock.sleep(60)
    assert len(stage.provider().observe().instances) == 1
    stage.provider().launch(stage.account.generation(), 2)
    assert len(stage.provider().observe().instances) == 2


def test_launch_of_another_rollout_ends_what_an_older_one_still_launches(stage: Stage) -> None:
    stage.aws.reset(Pace(launch_s=20))
    stage.provider().launch(stage.account.generation(1, "a"), 2)
    stage.provider().launch(stage.account.generation(2, "b"), 1)
    stage.aws.clock.sleep(60)
    assert {one.generation for one in stage.provider().observe().instances} == {2}


def test_launch_of_what_is_gone_back_to_ends_the_newer_ones_of_its_rollout(stage: Stage) -> None:
    older, newer = stage.account.generation(1, "a"), stage.account.generation(2, "b")
    stage.aws.room[HERE] = 0
    stage.provider().launch(newer, 2)
    assert not held(stage, 2)
    stage.provider().launch(replace(older, rollout=newer.rollout), 2)
    assert held(stage, 2)
    stage.provider().launch(newer, 2)
    stage.provider().launch(replace(newer, number=3), 1)
    assert not held(stage, 2), "the baseline of a rollout is launched beside it"


def test_retiring_all_that_came_of_a_launch_ends_the_rest_of_it(stage: Stage) -> None:
    stage.aws.room[HERE] = 2
    stage.provider().launch(stage.account.generation(), 3)
    first, second = (one.id for one in stage.provider().observe().instances)
    stage.provider().retire([first])
    assert not held(stage), "one of three has gone, and one is still to come"
    stage.provider().retire([second])
    stage.aws.room.clear()
    stage.until(lambda: not stage.provider().observe().instances)
    stage.aws.clock.sleep(60)
    assert stage.provider().observe().instances == ()
    stage.provider().retire([])
    assert stage.left() == []


def test_launch_given_up_while_its_answer_is_lost_and_nothing_is_seen_yet(stage: Stage) -> None:
    """The last request of a launch is carried out, and the process dies of it; another one gives the rollout up."""
    stage.aws.reset(Pace(launch_s=20))
    stage.aws.fault = lambda request: "lose" if request.operation == "ResumeProcesses" else None
    with pytest.raises(ProviderError):
        stage.provider().launch(stage.account.generation(), 2)
    stage.aws.fault = lambda _: None
    assert stage.provider().observe().instances == ()
    stage.provider().retire([])
    stage.aws.clock.sleep(60)
    assert stage.provider().observe().instances == ()
    stage.provider().retire([])
    assert stage.left() == []


def test_launch_that_is_not_seen_yet_is_given_up_too(stage: Stage) -> None:
    """As before, and whoever gives the rollout up does not see the group, and is told that it is in use."""
    stage.aws.reset(Pace(launch_s=20, lag_s=3))
    stage.aws.clock.sleep(5)
    stage.aws.fault = lambda request: "lose" if request.operation == "ResumeProcesses" else None
    with pytest.raises(ProviderError):
        stage.provider().launch(stage.account.generation(), 2)
    stage.aws.fault = lambda _: None
    stage.provider().retire([])
    stage.aws.clock.sleep(60)
    assert stage.provider().observe().instances == ()
    assert stage.aws.region(HERE).launches == []
    stage.provider().retire([])
    assert stage.left() == []


def test_group_that_replaces_by_itself_is_held_only_without_traffic(stage: Stage) -> None:
    stage.spec = fleet(stage.account, replaces=True)
    up(stage)
    stage.provider().shift({1: 100})
    stage.aws.room[HERE] = 0
    stage.provider().launch(stage.account.generation(2, "b"), 2)
    stage.provider().retire([])
    assert not held(stage, 1)
    stage.aws.room.clear()
    stage.aws.clock.sleep(60)
    assert {one.generation for one in stage.provider().observe().instances} == {1}


# --- traffic


def test_shift_sends_the_percent_that_were_asked(stage: Stage) -> None:
    up(stage)
    provider = stage.provider()
    provider.shift({1: 100})
    assert provider.observe().weights == {1: 100}
    up(stage, 2, "b")
    assert provider.observe().weights == {1: 100}, "a launch sends no traffic"
    provider.shift({1: 83, 2: 17})
    assert stage.provider().observe().weights == {1: 83, 2: 17}
    last = [one for one in stage.aws.writes if one.operation == "ModifyListener"][-1].said["DefaultActions"][-1]
    assert sorted(one["Weight"] for one in last["ForwardConfig"]["TargetGroups"]) == [17, 83]
    assert last["ForwardConfig"]["TargetGroupStickinessConfig"] == {"Enabled": False}
    before = len(stage.aws.writes)
    stage.provider().shift({1: 83, 2: 17})
    assert len(stage.aws.writes) == before
    provider.shift({1: 100})
    assert provider.observe().weights == {1: 100}
    assert len(healthy(provider, 2)) == 2, "without traffic, but health-checked still"
    provider.shift({})
    assert provider.observe().weights == {}


def test_old_generation_that_fell_ill_does_not_hold_up_the_new_one(stage: Stage) -> None:
    up(stage)
    stage.provider().shift({1: 100})
    up(stage, 2, "b")
    stage.aws.sick.add(stage.account.amis["a", HERE])
    stage.provider().shift({1: 50, 2: 50})
    stage.provider().shift({2: 100})
    assert stage.provider().observe().weights == {2: 100}
    with pytest.raises(ProviderError, match="generation 1 has no healthy instance"):
        stage.provider().shift({1: 100})
    assert stage.provider().observe().weights == {2: 100}


def test_weights_that_somebody_else_changed_are_told_and_set_again(stage: Stage) -> None:
    up(stage)
    stage.provider().shift({1: 100})
    elb = stage.account.connect("elbv2", HERE)
    elb.modify_listener(ListenerArn=stage.account.places[HERE]["listener"], DefaultActions=[NOTHING])
    assert stage.provider().observe().weights == {}
    with pytest.raises(ProviderError, match="healthy"):
        stage.provider().shift({1: 100})  # they are not health-checked, which begins again now
    stage.aws.clock.sleep(16)
    stage.provider().shift({1: 100})
    assert stage.provider().observe().weights == {1: 100}


def test_rule_is_steered_and_what_comes_before_it_is_kept(stage: Stage) -> None:
    elb, place = stage.account.connect("elbv2", HERE), stage.account.places[HERE]
    sign_in = {
        "Type": "authenticate-cognito",
        "Order": 1,
        "AuthenticateCognitoConfig": {
            "UserPoolArn": "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/one",
            "UserPoolClientId": "one",
            "UserPoolDomain": "one",
        },
    }
    rule = elb.create_rule(
        ListenerArn=place["listener"],
        Priority=5,
        Conditions=[{"Field": "path-pattern", "Values": ["/shop/*"]}],
        Actions=[sign_in, {**NOTHING, "Order": 2}],
    )["Rules"][0]["RuleArn"]
    here = {key: value for key, value in place.items() if key != "listener"}
    stage.spec = fleet(stage.account, regions=[{**here, "rule": rule}])
    assert stage.provider().faults("amd64") == []
    up(stage)
    stage.provider().shift({1: 100})
    assert stage.provider().observe().weights == {1: 100}
    actions = elb.describe_rules(RuleArns=[rule])["Rules"][0]["Actions"]
    assert [one["Type"] for one in actions] == ["authenticate-cognito", "forward"]
    assert elb.describe_listeners(ListenerArns=[place["listener"]])["Listeners"][0]["DefaultActions"][0]["Type"] == (
        "fixed-response"
    )


def test_sixth_generation_finds_room_only_beside_one_without_traffic(stage: Stage) -> None:
    for number in range(1, 6):
        stage.provider().launch(stage.account.generation(number), 1)
    stage.aws.clock.sleep(16)
    stage.provider().shift(dict.fromkeys(range(1, 6), 20))
    with pytest.raises(ProviderError, match="at most 5"):
        stage.provider().launch(stage.account.generation(6), 1)
    stage.provider().shift({1: 40, 2: 20, 4: 20, 5: 20})
    up(stage, 6, count=1)


# --- several regions


def test_regions_are_shifted_in_order_with_a_wait_between(wide: Stage) -> None:
    up(wide, count=4)
    wide.provider().shift({1: 100})
    assert wide.provider().observe().weights == {1: 100}, "nobody waits where there was no traffic"
    assert len(instances(wide, REGIONS[0])) == len(instances(wide, REGIONS[1])) == 2
    up(wide, 2, "b", count=4)
    wide.provider().shift({1: 90, 2: 10})
    assert wide.provider().observe().weights == {1: 100}, "the second region has not"
    wide.aws.clock.sleep(297)
    wide.provider().shift({1: 90, 2: 10})
    assert wide.provider().observe().weights == {1: 100}, "297 s are not 300"
    wide.aws.clock.sleep(5)
    wide.provider().shift({1: 90, 2: 10})
    assert wide.provider().observe().weights == {1: 90, 2: 10}


def test_going_back_waits_for_no_region(wide: Stage) -> None:
    up(wide, count=4)
    up(wide, 2, "b", count=4)
    wide.provider().shift({1: 100})
    wide.provider().shift({1: 50, 2: 50})
    assert wide.provider().observe().weights == {1: 100}
    wide.provider().shift({1: 100})
    assert wide.provider().observe().weights == {1: 100}
    for region in REGIONS:
        listener = wide.account.places[region]["listener"]
        said = wide.account.connect("elbv2", region).describe_listeners(ListenerArns=[listener])
        groups = said["Listeners"][0]["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
        assert sum(one["Weight"] for one in groups) == 100
        assert max(one["Weight"] for one in groups) == 100


def test_region_that_cannot_go_back_does_not_keep_the_others_from_it(wide: Stage) -> None:
    up(wide, count=4)
    up(wide, 2, "b", count=4)
    wide.provider().shift({1: 100})
    wide.provider().shift({1: 50, 2: 50})
    wide.aws.clock.sleep(301)
    wide.provider().shift({1: 50, 2: 50})
    wide.aws.sick.add(wide.account.amis["a", REGIONS[1]])
    with pytest.raises(ProviderError, match="no healthy instance"):
        wide.provider().shift({1: 100})
    assert wide.provider().observe().weights == {1: 50, 2: 50}, "the second region could not"
    wide.aws.sick.clear()
    wide.aws.sick.add(wide.account.amis["b", REGIONS[1]])
    with pytest.raises(ProviderError, match="no healthy instance"):
        wide.provider().shift({2: 100})  # forward: no region before all can
    wide.provider().shift({1: 100})
    assert wide.provider().observe().weights == {1: 100}


def test_wait_is_not_lost_with_the_process_that_began_it(wide: Stage) -> None:
    up(wide, count=4)
    up(wide, 2, "b", count=4)
    wide.provider().shift({1: 100})
    changes = iter(["", "lose"])
    wide.aws.fault = lambda request: next(changes, "") if request.operation in ("AddTags", "ModifyListener") else None
    with pytest.raises(ProviderError):
        wide.provider().shift({2: 100})  # the first region was told, and nobody knows
    wide.aws.fault = lambda _: None
    wide.aws.clock.sleep(100)
    wide.provider().shift({2: 100})
    assert wide.provider().observe().weights == {1: 100}
    wide.aws.clock.sleep(201)
    wide.provider().shift({2: 100})
    assert wide.provider().observe().weights == {2: 100}


def test_generation_that_is_in_one_region_only_gets_its_traffic_there(wide: Stage) -> None:
    up(wide, count=4)
    wide.provider().shift({1: 100})
    up(wide, 2, "b", count=1)
    wide.provider().shift({1: 75, 2: 25})
    wide.aws.clock.sleep(301)
    wide.provider().shift({1: 75, 2: 25})
    assert wide.provider().observe().weights == {1: 75, 2: 25}
    assert len(instances(wide, REGIONS[1])) == 2
    wide.provider().shift({1: 100})
    assert wide.provider().observe().weights == {1: 100}


def test_launch_fills_up_the_region_that_has_fewest(wide: Stage) -> None:
    ids = up(wide, count=4)
    wide.provider().retire([one for one in ids if one.startswith(REGIONS[0])])
    wide.provider().launch(wide.account.generation(), 2)
    assert len([one for one in wide.provider().observe().instances if one.state != "stopping"]) == 2
    wide.provider().launch(wide.account.generation(), 3)
    wide.until(lambda: len(wide.provider().observe().instances) == 3)
    assert {one.id.partition("/")[0] for one in wide.provider().observe().instances} == set(REGIONS)


# --- retiring


def test_retired_instance_drains_and_nothing_takes_its_place(stage: Stage) -> None:
    first, second = up(stage)
    stage.provider().shift({1: 100})
    stage.provider().retire([first])
    assert {one.id: one.state for one in stage.provider().observe().instances} == {first: "stopping", second: "running"}
    stage.aws.clock.sleep(9)
    elb = stage.account.connect("elbv2", HERE)
    group = elb.describe_target_groups(Names=[names.target_group("web", 1)])["TargetGroups"][0]["TargetGroupArn"]
    health = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    assert sorted(one["TargetHealth"]["State"] for one in health) == ["draining", "healthy"]
    stage.until(lambda: [one.id for one in stage.provider().observe().instances] == [second])
    stage.aws.clock.sleep(600)
    assert [one.id for one in stage.provider().observe().instances] == [second]
    assert len(stage.aws.region(HERE).launches) == 2
    stage.provider().retire([first, "eu-west-1/i-0123456789abcdef0"])  # gone already


def test_retired_generation_leaves_nothing(stage: Stage) -> None:
    old = up(stage)
    stage.provider().shift({1: 100})
    up(stage, 2, "b")
    stage.provider().shift({2: 100})
    kept = [one for one in stage.left() if "instance" not in one and "-2" in one]
    stage.provider().retire(old)

    def gone() -> bool:
        left = stage.provider().observe().of(1)
        stage.provider().retire([one.id for one in left])
        return not left

    stage.until(gone)
    stage.provider().retire([])
    assert [one for one in stage.left() if "instance" not in one] == kept
    assert stage.provider().observe().weights == {2: 100}
    assert len(healthy(stage.provider(), 2)) == 2


def test_generation_whose_share_others_would_get_is_not_removed(stage: Stage) -> None:
    old = up(stage)
    up(stage, 2, "b")
    stage.provider().shift({1: 90, 2: 10})
    stage.provider().retire(old)
    stage.aws.clock.sleep(60)
    assert stage.provider().observe().weights == {2: 10}, "nobody is there to get the rest"
    stage.provider().retire([])
    assert "group factory-web-1" in stage.left()
    stage.provider().shift({2: 100})
    stage.provider().retire([])
    assert "group factory-web-1" not in stage.left()


def test_last_generation_is_removed_with_its_traffic(stage: Stage) -> None:
    ids = up(stage)
    stage.provider().shift({1: 100})
    stage.provider().retire(ids)
    stage.aws.clock.sleep(60)
    assert stage.provider().observe() == Observation()
    stage.provider().retire([])
    assert stage.left() == []


def test_what_is_left_of_a_generation_is_removed_by_the_next_launch(stage: Stage) -> None:
    stage.provider().retire(up(stage))
    stage.aws.clock.sleep(60)
    up(stage, 2, "b")
    assert [one for one in stage.left() if one.startswith(("group", "template"))] == [
        "group factory-web-2",
        "template factory-web-2",
    ]


def test_launch_that_did_not_get_far_is_cleared(stage: Stage) -> None:
    """A target group that only its name betrays, and a template: of a generation that was given up."""
    refuse = {"CreateAutoScalingGroup", "ModifyListener"}
    for operation in refuse:
        stage.aws.fault = lambda request, one=operation: "cut" if request.operation == one else None  # type: ignore[misc]
        with pytest.raises(ProviderError):
            stage.provider().launch(stage.account.generation(), 2)
        stage.aws.fault = lambda _: None
        assert len(stage.left()) == 2
        stage.provider().retire([])
        assert stage.left() == []


def test_group_whose_minimum_was_raised_by_hand_is_retired(stage: Stage) -> None:
    ids = up(stage)
    scaling = stage.account.connect("autoscaling", HERE)
    scaling.update_auto_scaling_group(AutoScalingGroupName="factory-web-1", MinSize=2)
    stage.provider().retire(ids[:1])
    stage.until(lambda: len(stage.provider().observe().instances) == 1)


def test_instance_that_no_group_has_is_seen_and_retired(stage: Stage) -> None:
    tags = names.as_list({names.FLEET: "web", names.GENERATION: "9"})
    stage.account.connect("ec2", HERE).run_instances(
        ImageId=stage.account.amis["b", HERE], MinCount=1, MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )  # fmt: skip
    (found,) = stage.provider().observe().instances
    assert (found.generation, found.digest) == (9, None)
    stage.provider().retire([found.id])
    stage.until(lambda: not stage.provider().observe().instances)


def test_decrement_that_was_answered_too_late_is_not_made_twice(stage: Stage) -> None:
    first, second = up(stage)
    stage.aws.fault = lambda request: "lose" if request.operation.startswith("TerminateInstance") else None
    with pytest.raises(ProviderError):
        stage.provider().retire([first])
    stage.aws.fault = lambda _: None
    stage.provider().retire([first])
    stage.until(lambda: len(stage.provider().observe().instances) == 1)
    assert [one.id for one in healthy(stage.provider())] == [second]
    group = stage.aws.region(HERE).autoscaling.autoscaling_groups["factory-web-1"]
    assert group.desired_capacity == 1


# --- what goes wrong


def test_throttling_is_waited_out_by_botocore(stage: Stage) -> None:
    url = stage.account.connect("ec2", HERE).meta.endpoint_url
    patient = replace(stage.provider(), reach=clients(url, attempts=3))
    once = iter(["throttle"])
    stage.aws.fault = lambda _: next(once, None)
    assert patient.observe().instances == ()


def test_throttling_that_goes_on_is_told_with_its_code(stage: Stage) -> None:
    stage.aws.fault = lambda _: "throttle"
    with pytest.raises(Refusal, match="Throttling") as caught:
        stage.provider().observe()
    assert caught.value.code == "Throttling"
    assert caught.value.exit_code == 3


def test_connection_that_is_cut_is_told(stage: Stage) -> None:
    stage.aws.fault = lambda _: "cut"
    with pytest.raises(ProviderError, match="cannot be asked"):
        stage.provider().observe()


def test_faults_of_a_fleet_that_can_run_are_none(wide: Stage) -> None:
    assert wide.provider().faults("amd64") == []


def test_faults_name_an_architecture_that_does_not_fit(stage: Stage) -> None:
    (fault,) = stage.provider().faults("arm64")
    assert "t3.micro" in fault
    assert "arm64" in fault


@pytest.mark.parametrize(
    ("code", "said"),
    [("ExpiredToken", "expired"), ("InvalidClientTokenId", "does not know"), ("AccessDenied", "may not")],
)
def test_faults_name_credentials_that_do_not_serve(stage: Stage, code: str, said: str) -> None:
    stage.aws.fault = lambda _: AwsError(code, "no", 403)
    (fault,) = stage.provider().faults("amd64")
    assert code in fault
    assert said in fault


def test_faults_name_another_account(stage: Stage) -> None:
    stage.spec = fleet(stage.account, account="999999999999")
    (fault,) = stage.provider().faults("amd64")
    assert "123456789012" in fault
    assert "999999999999" in fault


def test_faults_name_what_is_not_there(stage: Stage) -> None:
    place = stage.account.places[HERE]
    other = stage.account.connect("ec2", HERE).create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    listener = place["listener"][:-4] + "0000"
    wrong = {**place, "vpc": other, "listener": listener}
    stage.spec = fleet(stage.account, instance_type="t3.gigantic", regions=[wrong])
    faults = stage.provider().faults("amd64")
    assert any(place["subnets"][0] in fault and other in fault for fault in faults)
    assert any(place["security_groups"][0] in fault for fault in faults)
    assert any("listener" in fault.lower() for fault in faults)
    assert any("t3.gigantic" in fault for fault in faults)
    stage.aws.violations.clear()  # botocore's list of instance types is not the last word, so it was asked


def test_credentials_that_are_missing_are_told_at_plan(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    provider = connect(Layout(tmp_path), stage.spec)
    (fault,) = provider.faults("amd64")
    assert "AWS_PROFILE" in fault
    with pytest.raises(ProviderError, match="cannot be asked"):
        provider.observe()


def test_region_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    account = Account(connector(), ("eu-nowhere-1",), places={"eu-nowhere-1": _place("eu-nowhere-1")})
    spec = fleet(account)
    faults = Faults("fleets.toml")
    provider = AwsProvider(spec, table.read(spec, faults), connector(), Clock(sleep=lambda _: None))
    (fault,) = provider.faults("amd64")
    assert "region" in fault


def test_aws_that_hangs_is_waited_for_only_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    for name, limit in (("_CONNECT_S", 0.2), ("_READ_S", 0.2), ("_ATTEMPTS", 1)):
        monkeypatch.setattr(calls, name, limit)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        account = Account(connector(), (HERE,), places={HERE: _place(HERE)})
        spec = fleet(account)
        provider = AwsProvider(spec, table.read(spec, Faults("fleets.toml")), connector(), Clock(sleep=lambda _: None))
        with pytest.raises(ProviderError, match="cannot be asked: .*timeout"):
            provider.observe()


# --- state outside


def test_external_state_is_handed_on_as_the_arn_of_a_secret(stage: Stage) -> None:
    secrets = stage.account.connect("secretsmanager", HERE)
    arn = secrets.create_secret(Name=f"database-{stage.aws.clock.now():.0f}", SecretString="s3cret-value")["ARN"]
    stage.spec = fleet(stage.account, external=(External("database", arn=arn),), instance_profile="web")
    assert stage.provider().faults("amd64") == []
    stage.provider().launch(stage.account.generation(), 1)
    tags = {tag["Key"]: tag["Value"] for tag in instances(stage)[0]["Tags"]}
    assert tags["factory:external:database"] == arn
    data = next(one for one in stage.aws.writes if one.operation == "CreateLaunchTemplate").said["LaunchTemplateData"]
    assert data["IamInstanceProfile"] == {"Name": "web"}
    assert data["MetadataOptions"]["InstanceMetadataTags"] == "enabled"
    assert "UserData" not in data
    assert "GetSecretValue" not in {one.operation for one in stage.aws.requests}
    assert "s3cret-value" not in repr([one.said for one in stage.aws.requests if one.service != "secretsmanager"])


def test_secret_that_is_not_there_is_told_at_plan(stage: Stage) -> None:
    stage.spec = fleet(stage.account, external=(External("database", arn=SECRET),), instance_profile="web")
    (fault,) = stage.provider().faults("amd64")
    assert SECRET in fault


# --- the table


def _place(region: str) -> dict[str, Any]:
    listener = "listener/app/web/0123456789abcdef/0123456789abcdef"
    return {
        "name": region,
        "vpc": "vpc-0123456789abcdef0",
        "subnets": ["subnet-0123456789abcdef0"],
        "security_groups": ["sg-0123456789abcdef0"],
        "listener": f"arn:aws:elasticloadbalancing:{region}:123456789012:{listener}",
    }


def _read(tmp_path: Path, aws: dict[str, Any], **fleet_says: Any) -> str:
    """What is wrong with a fleet's table."""
    spec = FleetSpec(
        name="web", provider="aws", image="web", channel=None, size=2, min=1, max=4, strategy="canary",
        health=Health(http=HttpProbe(80)), aws=aws,
    )  # fmt: skip
    with pytest.raises(SpecError) as caught:
        connect(Layout(tmp_path), replace(spec, **fleet_says))
    return str(caught.value)


RIGHT = {"instance_type": "t3.micro", "regions": [_place("eu-west-1")]}


@pytest.mark.parametrize(
    ("aws", "said"),
    [
        ({}, 'the key "regions" is missing'),
        ({"regions": []}, "must name at least one"),
        ({"regions": RIGHT["regions"]}, 'the key "instance_type" is missing'),
        ({**RIGHT, "instance_typ": "x"}, 'did you mean "instance_type"'),
        ({**RIGHT, "instance_type": "small"}, "an instance type"),
        ({**RIGHT, "protocol": "TCP"}, "HTTP"),
        ({**RIGHT, "drain_s": 4000}, "0 to 3600"),
        ({**RIGHT, "drain_s": 300}, "retiring has a deadline of 300 s"),
        ({**RIGHT, "account": "12"}, "12 digits"),
        ({**RIGHT, "replaces": "yes"}, "true or false"),
        ({**RIGHT, "tags": {"factory:fleet": "x"}}, "set by AWS or by the factory"),
        ({**RIGHT, "tags": {"a b": "x"}}, "the key of a tag"),
        ({**RIGHT, "tags": {"a": "x,y"}}, "the value of a tag"),
        ({**RIGHT, "regions": [{**_place("eu-west-1"), "vpc": "vpc"}]}, "the id of a VPC"),
        ({**RIGHT, "regions": [{**_place("eu-west-1"), "subnets": []}]}, "at least 1"),
        ({**RIGHT, "regions": [{**_place("eu-west-1"), "name": "Europe"}]}, "a region, such as"),
        ({**RIGHT, "regions": [{**_place("eu-west-1"), "name": "us-east-1"}]}, "this one is not in us-east-1"),
        ({**RIGHT, "regions": [{**_place("eu-west-1"), "rule": "arn"}]}, "either a listener or a rule"),
        ({**RIGHT, "regions": [_place("eu-west-1")] * 2}, "stands there twice"),
        ({**RIGHT, "regions": [_place(one) for one in (*REGIONS, "eu-north-1")]}, "do not reach 3 regions"),
        ({**RIGHT, "regions": [_place(one) for one in REGIONS], "wait_s": 60}, "the deadline for a shift is 60 s"),
        ({**RIGHT, "wait_s": float("nan")}, "must be a number"),
    ],
)  # fmt: skip
def test_table_that_is_wrong_is_refused_with_its_place(tmp_path: Path, aws: dict[str, Any], said: str) -> None:
    message = _read(tmp_path, aws)
    assert said in message
    assert "fleet.web.aws" in message


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (Health(tcp=22), "checks by HTTP only"),
        (Health(http=HttpProbe(80, body="ok")), "does not look into the body"),
        (Health(http=HttpProbe(80, status=503)), "200 to 499"),
        (Health(http=HttpProbe(80), successes=11), "at most 10 successes"),
        (Health(http=HttpProbe(80), interval_s=301), "checks every 5 to 300 s"),
        (Health(http=HttpProbe(80), interval_s=1), "checks every 5 to 300 s"),
    ],
)
def test_health_that_a_load_balancer_cannot_check_is_refused(tmp_path: Path, health: Health, said: str) -> None:
    assert said in _read(tmp_path, RIGHT, health=health)


@pytest.mark.parametrize(
    ("external", "said"),
    [
        (External("database", path="/run/secret"), "must be `arn`"),
        (External("database", arn="arn:aws:s3:::bucket"), "must be `arn`"),
        (External("database", arn=SECRET), 'the key "instance_profile" is missing'),
        (External("database", arn=SECRET + "x" * 200), "at most 256 characters"),
    ],
)
def test_external_state_that_cannot_be_handed_on_is_refused(tmp_path: Path, external: External, said: str) -> None:
    assert said in _read(tmp_path, RIGHT, external=(external,))


def test_fault_of_a_table_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "fleets.toml").write_text('[fleet.web]\nprovider = "aws"\n[fleet.web.aws]\ninstance_type = "small"\n')
    assert "fleets.toml:4: fleet.web.aws.instance_type" in _read(tmp_path, {**RIGHT, "instance_type": "small"})


def test_check_is_the_nearest_that_a_load_balancer_can_do() -> None:
    check = table.as_check(Health(http=HttpProbe(8080, "/up", 204), successes=1, interval_s=5, timeout_s=5))
    assert (check.port, check.path, check.status) == (8080, "/up", 204)
    assert (check.interval_s, check.timeout_s, check.successes) == (5, 4, 2)
