"""docs/fleets-aws.md against the code: its keys, its example, and the permissions, which are those that are used."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.loaders import Loader
from test_docs import first_column, section

from factory.rollout.model import Deadline, Deadlines, External, FleetSpec, Health, HttpProbe
from factory.rollout.providers.aws import table
from factory.schema import Faults

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "fleets-aws.md").read_text()
SERVICES = {
    "autoscaling": "autoscaling",
    "ec2": "ec2",
    "elbv2": "elasticloadbalancing",
    "secretsmanager": "secretsmanager",
    "sts": "sts",
}
"""The name that boto3 has for a service -> the one in permissions."""

ON_BEHALF = {"ec2:RunInstances", "ec2:CreateTags", "autoscaling:CreateOrUpdateTags", "iam:PassRole"}
"""What AWS asks of the caller for what it does itself."""

NAMED_ALIKE = {"autoscaling:DescribeTags", "autoscaling:DescribeLoadBalancers", "ec2:DescribeTags"}
"""Operations that are asked of the load balancers, and that other services have under the same name."""


def block(kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def used() -> set[str]:
    """The permissions that the provider's requests need: every operation that its code names."""
    said = {
        node.value
        for path in (ROOT / "factory/rollout/providers/aws").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    found = set()
    for service, name in SERVICES.items():
        operations = Loader().load_service_model(service, "service-2")["operations"]
        found |= {f"{name}:{operation}" for operation in operations if xform_name(operation) in said}
    return found


def test_keys_are_those_that_are_read() -> None:
    assert sorted(first_column(section(TEXT, "[fleet.NAME.aws]"))) == sorted(table.KEYS)
    assert sorted(first_column(section(TEXT, "Regions"))) == sorted(table.REGION_KEYS)


def test_permissions_are_those_that_are_used() -> None:
    statements = json.loads(block("json"))["Statement"]
    allowed = [one["Action"] for one in statements]
    listed = [action for actions in allowed for action in ([actions] if isinstance(actions, str) else actions)]
    assert len(listed) == len(set(listed))
    assert set(listed) == (used() - NAMED_ALIKE) | ON_BEHALF


def test_example_is_a_fleet_that_is_read(tmp_path: Path) -> None:
    fleet: dict[str, Any] = tomllib.loads(block("toml"))["fleet"]["web"]
    faults = Faults("fleets.toml")
    made = FleetSpec(
        name="web",
        provider="aws",
        image="web",
        channel="prod",
        size=fleet["size"],
        min=fleet["min"],
        max=fleet["max"],
        strategy="blue-green",
        health=Health(http=HttpProbe(**fleet["health"]["http"]), interval_s=fleet["health"]["interval_s"]),
        deadlines=Deadlines(shift=Deadline(fleet["deadlines"]["shift"]["seconds"], "abort")),
        external=(External("DATABASE_URL", arn=fleet["external"]["DATABASE_URL"]["arn"]),),
        aws=fleet["aws"],
    )
    read = table.read(made, faults)
    faults.check()
    assert [one.name for one in read.regions] == ["eu-west-1", "us-east-1"]


@pytest.mark.parametrize(
    ("key", "shown"), [("drain_s", "60"), ("protocol", '"HTTP"'), ("wait_s", "0"), ("replaces", "false")]
)
def test_defaults_are_those_of_the_record(key: str, shown: str) -> None:
    default = table.AwsSpec.__dataclass_fields__[key].default
    assert default == tomllib.loads(f"x = {shown}")["x"]
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{key}` |"))
    assert f"| `{shown}` |" in row
