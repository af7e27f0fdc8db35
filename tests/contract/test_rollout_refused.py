"""What `factory rollout plan` refuses, each with its reason, over the real providers; nothing is launched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import rollout_factory
from loopback import scripted
from rollout_factory import Shop

from factory import proc
from factory.catalog import rollouts
from factory.catalog.database import Catalog

AWS = """
[fleet.web]
provider = "aws"
image = "web"
channel = "prod"
size = 2
min = 2
max = 4
strategy = "blue-green"
[fleet.web.health]
http = { port = 80 }
interval_s = 5
[fleet.web.aws]
instance_type = "t3.micro"
[[fleet.web.aws.regions]]
name = "eu-west-1"
vpc = "vpc-0123456789abcdef0"
subnets = ["subnet-0123456789abcdef0"]
security_groups = ["sg-0123456789abcdef0"]
listener = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/web/0123456789abcdef/0123456789abcdef"
"""
EXPIRED = b"<ErrorResponse><Error><Code>ExpiredToken</Code><Message>it has expired</Message></Error></ErrorResponse>"


@pytest.fixture(scope="module")
def template() -> list[Shop]:
    """Where the factory is kept that others are copied from, once it is made."""
    return []


@pytest.fixture
def shop(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], template: list[Shop],
    monkeypatch: pytest.MonkeyPatch,
) -> Shop:  # fmt: skip
    """A factory with a release that is trusted; its fleet is to run on this machine, and does not yet."""
    monkeypatch.delenv("FACTORY_KEY", raising=False)
    if not template:
        template.append(rollout_factory.build(tmp_path_factory.mktemp("template"), capsys))
    made = rollout_factory.copy(template[0], tmp_path_factory.mktemp("shop"), capsys)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    edit(made, ("127.0.0.1:8099", f"127.0.0.1:{port}"))
    return made


def fleets(shop: Shop) -> Path:
    return shop.signed.root / "fleets.toml"


def edit(shop: Shop, *pairs: tuple[str, str]) -> None:
    text = fleets(shop).read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    fleets(shop).write_text(text)


def refused(shop: Shop) -> str:
    """What plan and apply say; no rollout begins, nothing of a fleet is there."""
    said = shop.rollout("plan", "web", code=2).err
    shop.rollout("apply", "web", code=2)
    with Catalog.open(shop.signed.layout.catalog) as catalog:
        assert rollouts.last(catalog, "web") is None
    assert not (shop.signed.layout.state / "fleets/web/instances").exists()
    return said


def test_plan_of_a_fleet_that_can_be_says_its_steps(shop: Shop) -> None:
    assert "launch until 3 of generation 1 are healthy" in shop.rollout("plan", "web").out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min = 3", "min = 4", "must be from min to max (4 to 7), is 3"),
        ("max = 7", "max = 4", "with up to 6 of both generations"),
        ("{ weight = 67 }", "{ weights = [40, 50] }", "[40, 50] must sum to 100"),
        ("deadline_s = 5", "deadline_s = 0", "must be more than 0"),
        ('"local"', '"kubernetes"', "valid: aws, local"),
        ('"prod"', '"prud"', 'there is no channel "prud"; did you mean "prod"?'),
        ('"web"', '"wep"', 'there is no image "wep"; did you mean "web"?'),
        ("size = 3", 'arch = "arm64"\nsize = 3', "the image web is for amd64, not arm64"),
        ("size = 3", "memory_mib = 1048576\nsize = 3", "MiB are free; lower fleet.web.max or memory_mib"),
    ],
)
def test_fleet_that_cannot_be_is_refused_with_the_reason(shop: Shop, old: str, new: str, said: str) -> None:
    edit(shop, (old, new))
    assert said in refused(shop)


def test_deadline_of_zero_of_any_wait_is_refused(shop: Shop) -> None:
    text = fleets(shop).read_text()
    for name in ("launch", "shift", "drain", "retire", "rollback"):
        fleets(shop).write_text(f"{text}[fleet.web.deadlines]\n{name}.seconds = 0\n")
        assert f"fleet.web.deadlines.{name}.seconds: must be more than 0" in refused(shop)


def test_host_without_haproxy_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    found = proc.find
    monkeypatch.setattr(proc, "find", lambda tool: found("no-such-" + tool if tool == "haproxy" else tool))
    assert "apt-get install" in refused(shop)


def test_port_that_is_taken_is_refused_with_who_has_it(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        lines = [f'listen = "{address}"' if "listen" in line else line for line in fleets(shop).read_text().split("\n")]
        fleets(shop).write_text("\n".join(lines))
        said = refused(shop)
    assert f"{address} cannot be had: " in said
    assert "listens there; end it, or choose another port" in said


def test_secret_that_others_can_read_is_refused(shop: Shop) -> None:
    secret = shop.signed.root / "database"
    secret.write_text("postgres://secret-0123456789")
    fleets(shop).write_text(fleets(shop).read_text() + '[fleet.web.external]\nDATABASE_URL = { path = "database" }\n')
    secret.chmod(0o644)
    said = refused(shop)
    assert f"{secret} can be read or changed by others; chmod 600 {secret}" in said
    assert "secret-0123456789" not in said
    secret.chmod(0o600)
    shop.rollout("plan", "web")


def test_credentials_that_are_missing_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    fleets(shop).write_text(AWS)
    assert "there are no credentials: set AWS_PROFILE" in refused(shop)


def test_credentials_that_have_expired_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with scripted(head % len(EXPIRED) + EXPIRED) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        fleets(shop).write_text(AWS)
        assert "the credentials have expired: sign in again" in refused(shop)
