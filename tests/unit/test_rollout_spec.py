from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import digest, schema
from factory.errors import SpecError, UsageError
from factory.model import FactorySpec, ImageSpec
from factory.rollout import plan, spec
from factory.rollout.model import Analysis, Deadline, Deadlines, External, FleetSpec, Health, HttpProbe, Step
from factory.trust.policy import ChannelRule, Policy

FLEET = """
[fleet.web]
provider = "local"
image = "web"
size = 3
min = 3
max = 7
strategy = "blue-green"
listen = "127.0.0.1:8080"
"""
HEALTH = "[fleet.web.health]\nhttp = { port = 80 }\n"
WHOLE = FLEET + HEALTH
CANARY = WHOLE.replace('"blue-green"', '"canary"\nsteps = [{ weight = 10, analyse = true }]')
ANALYSIS = '[fleet.web.analysis]\nhttp_json = { url = "http://127.0.0.1:9/x", value = "rate" }\n'
JUDGED = CANARY + ANALYSIS + 'success = "< 1"\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("factory")


def load(root: Path, text: str) -> Mapping[str, FleetSpec]:
    (root / "fleets.toml").write_text(text, encoding="utf-8")
    return spec.load(root)


def faults(root: Path, text: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(root, text)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_load_fills_in_the_defaults_of_the_records(root: Path) -> None:
    assert load(root, WHOLE) == {
        "web": FleetSpec(
            "web", "local", "web", None, 3, 3, 7, "blue-green", Health(HttpProbe(80)), listen="127.0.0.1:8080"
        )
    }
    assert load(root, "") == {}


def test_load_reads_every_key(root: Path) -> None:
    text = """
    [fleet.web]
    provider = "local"
    image = "web"
    arch = "amd64"
    channel = "prod"
    size = 4
    min = 2
    max = 9
    strategy = "canary"
    bake_s = 300.5
    listen = "[::]:8080"
    allow_public_listen = true
    memory_mib = 1024
    response_timeout_s = 2.5
    allow_revoked_fallback = true
    allow_state_writes = true
    [[fleet.web.steps]]
    weights = [90, 10]
    pause_s = 60
    analyse = true
    [[fleet.web.steps]]
    weight = 50
    [fleet.web.health]
    http = { path = "/ready?x=1", status = 204, body = "ok", port = 8080 }
    successes = 2
    interval_s = 0.5
    timeout_s = 2
    deadline_s = 100
    [fleet.web.analysis]
    prometheus = { url = "https://metrics.example/x", query = "sum(a{g='{generation}'})" }
    success = "< 0.01"
    failure = ">= 5e-2"
    baseline = "fresh"
    against = 2
    count = 5
    interval_s = 1
    failure_limit = 1
    error_limit = 4
    timeout_s = 3
    pause_deadline_s = 60
    [fleet.web.deadlines]
    launch = { seconds = 10, then = "pause" }
    drain.seconds = 30
    [fleet.web.external]
    DATABASE_URL = { path = "secrets/../db" }
    [fleet.cloud]
    provider = "aws"
    image = "web"
    size = 2
    min = 0
    max = 3
    strategy = "rolling"
    surge = 1
    health = { tcp = 22 }
    aws = { regions = ["eu-west-1"] }
    external.BUCKET.arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b-c"
    """
    found = load(root, text)
    assert found["web"] == FleetSpec(
        name="web", provider="local", image="web", arch="amd64", channel="prod", size=4, min=2, max=9,
        strategy="canary", bake_s=300.5, listen="[::]:8080", allow_public_listen=True, memory_mib=1024,
        response_timeout_s=2.5,
        allow_revoked_fallback=True, allow_state_writes=True,
        steps=(Step(10, 60.0, analyse=True), Step(50)),
        health=Health(HttpProbe(8080, "/ready?x=1", 204, "ok"), None, 2, 0.5, 2.0, 100.0),
        analysis=Analysis(
            "prometheus", "https://metrics.example/x", "sum(a{g='{generation}'})", "< 0.01", ">= 5e-2", 2.0,
            "fresh", 5, 1.0, 1, 4, 3.0, None, 60.0,
        ),
        deadlines=replace(Deadlines(), launch=Deadline(10.0, "pause"), drain=Deadline(30.0, "continue")),
        external=(External("DATABASE_URL", path=str(root / "db")),),
    )  # fmt: skip
    assert found["cloud"].aws == {"regions": ["eu-west-1"]}
    assert found["cloud"].external == (
        External("BUCKET", arn="arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b-c"),
    )
    assert found["cloud"].health.port == 22


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE.replace('"local"', '"locl"'), 'did you mean "local"?'),
        (WHOLE.replace('"blue-green"', '"bluegreen"'), 'did you mean "blue-green"?'),
        (WHOLE.replace("size = 3\n", ""), 'the key "size" is missing'),
        (WHOLE.replace("size = 3", "size = 0"), "must be 1 to 100000, is 0 (nearest: 1)"),
        (WHOLE.replace("size = 3", "size = 3.0"), "must be a whole number, is a decimal number"),
        (WHOLE.replace("min = 3", "min = 4"), "must be from min to max (4 to 7), is 3"),
        (WHOLE.replace("max = 7", "max = 2"), "must be from min to max (3 to 2), is 3"),
        (WHOLE.replace("max = 7", "max = 5"), "(nearest: 6)"),
        (WHOLE.replace("max = 7", "max = 3").replace("blue-green", "rolling"), "(nearest: 4)"),
        (WHOLE.replace("blue-green", "canary"), 'a canary needs "steps"'),
        (CANARY.replace(", analyse = true", "").replace("max = 7", "max = 5"), "(nearest: 6)"),
        (WHOLE.replace("image", "surge = 2\nimage"), "belongs to rolling, and this fleet is blue-green"),
        (WHOLE.replace("image", "memory_mib = 5\nimage"), "must be 64 to 1048576"),
        (WHOLE.replace("image", "imag"), 'unknown key "imag"; did you mean "image"?'),
        (WHOLE.replace("image", "bake_s = nan\nimage"), "must be a number, is nan"),
        (WHOLE.replace("image", "bake_s = inf\nimage"), "must be a number, is inf"),
        (WHOLE.replace("image", "bake_s = true\nimage"), "must be a number, is true or false"),
        (WHOLE.replace("image", "allow_state_writes = 1\nimage"), "must be true or false"),
        (WHOLE.replace('listen = "127.0.0.1:8080"', ""), 'the key "listen" is missing'),
        (WHOLE.replace("127.0.0.1:8080", "127.0.0.1"), "must be HOST:PORT"),
        (WHOLE.replace("127.0.0.1:8080", "127.0.0.1:65536"), "must be HOST:PORT"),
        (WHOLE.replace("127.0.0.1:8080", "::1:8080"), "must be HOST:PORT"),
        (WHOLE.replace("127.0.0.1:8080", "web.example:80"), "must be HOST:PORT"),
        (WHOLE.replace("127.0.0.1:8080", "0.0.0.0:8080"), "add allow_public_listen = true"),
        (WHOLE + WHOLE.replace("web", "shop").replace("127.0.0.1", "localhost"), "is where the fleet web listens"),
        (FLEET, 'health has either "http" or "tcp"'),
        (WHOLE + "tcp = 22\n", 'health has either "http" or "tcp"'),
        (WHOLE + "deadline_s = 0\n", "must be more than 0 and at most 2592000, is 0"),
        (WHOLE + "deadline_s = 2\n", "can never do: 3 successes, 1 s apart, take 2 s"),
        (WHOLE.replace("port = 80", "port = 0"), "must be 1 to 65535, is 0 (nearest: 1)"),
        (WHOLE.replace("port = 80", 'port = 80, path = "x y"'), "must be a path that begins with /"),
        (WHOLE + "[fleet.web.deadlines]\ndrain.seconds = -1\n", "must be more than 0"),
        (WHOLE + '[fleet.web.deadlines]\ndrain.then = "abort"\n', "valid: continue, pause"),
        (WHOLE + "[fleet.web.deadlines]\ndrin.seconds = 1\n", 'did you mean "drain"?'),
        (WHOLE + "[fleet.web.external]\ndb = { path = 'x' }\n", '"db" is no name'),
        (WHOLE + "[fleet.web.external]\nDB = { }\n", 'has either "path" (local) or "arn" (aws)'),
        (WHOLE + "[fleet.web.external]\nDB = { arn = 'arn:aws:s3:::x' }\n", "must be the ARN of a secret"),
        (WHOLE + "[fleet.web.external]\nDB = { arn = 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:x' }\n",
         'needs "path": this fleet is local'),
        (CANARY, "says analyse, and there is no [analysis]"),
        (CANARY.replace("weight = 10", "weight = 0"), "must be 1 to 100, is 0"),
        (CANARY.replace("weight = 10", "weights = [80, 30]"), "[80, 30] must sum to 100"),
        (CANARY.replace("weight = 10", "weights = [100, 0]"), "must sum to 100, with at least 1"),
        (CANARY.replace("weight = 10", "weights = [90.0, 10]"), "must be two whole numbers"),
        (CANARY.replace("weight = 10", "weight = 10, weights = [90, 10]"), 'either "weight" or "weights"'),
        (CANARY.replace("}]", "}, { weight = 10 }]"), "10 must be more than the step before has, 10"),
        (CANARY + ANALYSIS, "says not what is good"),
        (JUDGED.replace(", analyse = true", ""), "would never be asked"),
        (JUDGED.replace("< 1", "under 1"), "must be <, <=, >, >=, == or != and a number"),
        (JUDGED.replace("< 1", "< nan"), "must be <, <=, >, >=, == or != and a number"),
        (JUDGED.replace("< 1", "< 1e999"), "must be <, <=, >, >=, == or != and a number"),
        (JUDGED + "against = 2\n", 'needs baseline = "fresh"'),
        (JUDGED + 'baseline = "fresh"\n', "{generation} or {digest} must be in it"),
        (JUDGED.replace("9/x", "9/{generatoin}"), "did you mean"),
        (JUDGED.replace("http_json", "http_jsn"), "exactly one of prometheus, http_json"),
        (JUDGED + 'prometheus = { url = "http://127.0.0.1", query = "x" }\n', "exactly one of"),
        (JUDGED.replace("http://", "ftp://"), "must be an address at https://"),
        (JUDGED.replace("http://127.0.0.1", "ftp://u:p@far.example"), '"ftp://*****@far.example:9/x" must be an addr'),
        (JUDGED.replace("http://127.0.0.1", "http://u:p@far.example"), '"http://*****@far.example:9/x" must hold no'),
        (JUDGED.replace('"rate"', '"rate", token_file = "t"').replace("127.0.0.1", "far.example"), "must begin with h"),
        (JUDGED.replace('"rate"', '"a..b"'), "must be a dotted path"),
        (JUDGED.replace('"rate"', '"rate", fail_above = 1') + 'failure = "> 2"\n', "says it already"),
        (JUDGED + "failure_limit = 3\n", "must be 0 to 2, is 3 (nearest: 2)"),
        (JUDGED + "pause_deadline_s = 0\n", "must be more than 0"),
        (WHOLE + ANALYSIS.replace("9/x", "9/{digest}") + 'baseline = "fresh"\n', "belongs to canary"),
        (JUDGED.replace("9/x", "9/{digest}").replace("weight = 10", "weight = 50").replace("max = 7", "max = 5")
         + 'baseline = "fresh"\n', "a fresh one to compare with among them, and 5 are allowed (nearest: 6)"),
        ("[fleets.web]\n", 'unknown key "fleets"; did you mean "fleet"?'),
        ("[fleet.Web]\n", 'nearest: "web"'),
        ("[fleet.web\n", "not valid TOML"),
    ],
)  # fmt: skip
def test_fleet_that_cannot_be_is_refused(root: Path, text: str, said: str) -> None:
    assert said in faults(root, text)


def test_room_for_a_baseline_counts_at_steps_that_analyse(root: Path) -> None:
    text = JUDGED.replace("9/x", "9/{digest}") + 'baseline = "fresh"\n'
    step = text.replace("weight = 10", "weight = 90").replace("max = 7", "max = 6")
    assert "(nearest: 7)" in faults(root, step)
    assert load(root, step.replace("max = 6", "max = 7"))["web"].max == 7


def test_analysis_without_a_baseline_needs_a_condition_of_its_own(root: Path) -> None:
    text = JUDGED.replace("9/x", "9/{digest}") + 'baseline = "fresh"\n'
    alone = text.replace('success = "< 1"\n', "")
    assert load(root, alone)["web"].analysis is not None
    for change in (("weight = 10", "weight = 100"), ("image =", "bake_s = 5\nimage =")):
        assert load(root, text.replace(*change))["web"].analysis is not None
        assert "there is no baseline any more" in faults(root, alone.replace(*change))


def test_all_faults_are_told_at_once_with_their_lines(root: Path) -> None:
    told = faults(root, WHOLE.replace("min = 3", "min = 4").replace("port = 80", "prt = 80") + "successes = 0\n")
    assert "fleets.toml has 4 errors" in told
    assert "fleets.toml:11: fleet.web.health.http: the key" in told
    assert 'fleets.toml:11: fleet.web.health.http.prt: unknown key "prt"; did you mean "port"?' in told
    assert "fleets.toml:12: fleet.web.health.successes: must be 1 to 1000, is 0 (nearest: 1)" in told
    assert "fleets.toml:5: fleet.web.size: must be from min to max" in told


def test_faulty_key_brings_no_second_fault_of_what_it_decides(root: Path) -> None:
    told = faults(root, CANARY.replace("size = 3", "size = 'x'"))
    assert told.count("fleet.web.size") == 1
    assert "nearest" not in told


def test_find_names_the_nearest_fleet(root: Path) -> None:
    load(root, WHOLE)
    assert spec.find(root, "web").size == 3
    with pytest.raises(UsageError) as caught:
        spec.find(root, "wbe")
    assert caught.value.hint == 'did you mean "web"?'


def test_what_the_factory_has_not_is_told(root: Path) -> None:
    fleet = replace(load(root, WHOLE)["web"], channel="prud", arch="arm64")
    image = ImageSpec("web", "amd64", "base", layered=False, builder="rootfs", playbook="x.yml")
    policy = Policy(1, digest.of_bytes(b""), channels={"prod": ChannelRule("prod")})
    known = spec.faults_against(fleet, FactorySpec(root, {}, {"web": image}), policy)
    assert known == [
        "fleet.web.arch: the image web is for amd64, not arm64",
        'fleet.web.channel: there is no channel "prud"; did you mean "prod"?',
    ]
    missing = spec.faults_against(replace(fleet, image="wbe"), FactorySpec(root, {}, {"web": image}), None)
    assert missing == ['fleet.web.image: there is no image "wbe"; did you mean "web"?']
    sound = replace(fleet, channel="prod", arch=None)
    assert spec.faults_against(sound, FactorySpec(root, {}, {"web": image}), policy) == []


def test_file_that_others_can_read_is_told(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "db"
    fleet = replace(load(root, WHOLE)["web"], external=(External("DB", path=str(secret)),))
    assert spec.file_faults(fleet) == [f"fleet.web.external.DB.path: {secret}: No such file or directory"]
    secret.touch(mode=0o600)
    assert spec.file_faults(fleet) == [f"fleet.web.external.DB.path: {secret} is empty"]
    secret.write_text("postgres://x")
    assert spec.file_faults(fleet) == []
    secret.chmod(0o640)
    assert "can be read or changed by others" in spec.file_faults(fleet)[0]


def test_fleets_of_this_repository_are_sound() -> None:
    fleet = spec.find(Path(__file__).resolve().parents[2], "web")
    assert (fleet.provider, fleet.listen, fleet.image, fleet.channel) == ("local", "127.0.0.1:8080", "web", "dev")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["weight", "url", "port", "x"]), inner),
    max_leaves=4,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([*spec._FLEET_KEYS, "other"]), VALUES))
def test_any_table_is_a_fleet_or_a_spec_error(values: dict[str, object]) -> None:
    found = schema.Faults("fleets.toml")
    base: dict[str, object] = {"provider": "local", "image": "web", "size": 2, "min": 1, "max": 4}
    fleet = spec._fleet(Path("/f"), "web", schema.Table({**base, **values}, ("fleet", "web"), found))
    with suppress(SpecError):
        found.check()
        assert fleet.min <= fleet.size <= fleet.max


@settings(max_examples=150)
@given(
    st.integers(1, 30), st.integers(0, 3), st.integers(1, 70), st.sampled_from(["blue-green", "canary", "rolling"]),
    st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True).map(sorted), st.integers(1, 40),
)  # fmt: skip
def test_accepted_fleet_is_replaced_within_its_maximum(
    size: int, less: int, most: int, strategy: str, weights: list[int], surge: int
) -> None:
    found = schema.Faults("fleets.toml")
    values: dict[str, object] = {
        "provider": "local", "image": "web", "size": size, "min": max(0, size - less), "max": most,
        "strategy": strategy, "listen": "127.0.0.1:1", "health": {"tcp": 80},
        **({"steps": [{"weight": weight} for weight in weights]} if strategy == "canary" else {}),
        **({"surge": surge} if strategy == "rolling" else {}),
    }  # fmt: skip
    fleet = spec._fleet(Path("/f"), "web", schema.Table(values, ("fleet", "web"), found))
    fits = size <= most and plan.most_instances(fleet, size) <= most
    assert (not found.found) == fits


@given(st.text(alphabet="0123456789abcdef:.[]localhst", max_size=24))
def test_host_and_port_never_fails(written: str) -> None:
    host, port = spec.host_and_port(written)
    assert 0 <= port < 1 << 16
    assert not port or written.endswith(f":{port}")
    assert host is not None
