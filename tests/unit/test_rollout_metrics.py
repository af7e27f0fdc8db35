from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import digest
from factory.errors import CatalogError, FactoryError, UsageError
from factory.rollout import metrics
from factory.rollout.metrics import Event, Rolled, Server, Snapshot
from factory.rollout.model import Instance, Observation, State

OLD, NEW, STRANGE = (digest.of_bytes(name) for name in (b"old", b"new", b"strange"))
SEEN = Observation(
    (
        Instance("a", 1, OLD, "running", 0.0, sessions=2),
        Instance("b", 1, OLD, "running", 0.0, sessions=1),
        Instance("c", 2, NEW, "running", 0.0, answered=(("2xx", 90), ("5xx", 7))),
        Instance("d", 2, NEW, "pending", 0.0),
        Instance("e", 2, STRANGE, "running", 0.0),
        Instance("f", 2, None, "stopping", 0.0),
    ),
    {1: 90, 2: 10},
)
ROLLED = Rolled("r-2", 2, NEW, State.ANALYSING, 1, 2, is_paused=True, transitions={State.SHIFTING: 2})
SNAPSHOT = Snapshot(
    "web", 3, 1000.5, SEEN, {1: ("web", OLD), 2: ("web", NEW)}, {"a": True, "b": False, "c": True}, {1: 50, 2: 50},
    ROLLED, {State.SUCCEEDED: 4},
)  # fmt: skip


def samples(text: str) -> dict[str, float]:
    """The samples of a text in the format; a line that is neither fails."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            name, _, value = line.rpartition(" ")
            assert re.fullmatch(r'[a-z_]+\{([a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*\}', name), line
            assert name not in found
            found[name] = float(value)
    return found


def test_every_number_carries_the_digest_it_is_about() -> None:
    found = samples(metrics.render([SNAPSHOT]))
    old, new = (f'fleet="web",generation="{number}",image="web",digest="{one}"' for number, one in ((1, OLD), (2, NEW)))
    assert found[f'factory_fleet_instances{{{old},state="running",health="healthy"}}'] == 1
    assert found[f'factory_fleet_instances{{{old},state="running",health="unhealthy"}}'] == 1
    assert found[f'factory_fleet_instances{{{new},state="pending",health="unknown"}}'] == 1
    assert found[f"factory_fleet_weight_actual_ratio{{{new}}}"] == 0.1
    assert found[f"factory_fleet_weight_wanted_ratio{{{new}}}"] == 0.5
    assert found[f"factory_fleet_sessions{{{old}}}"] == 3
    assert found[f'factory_fleet_answers_total{{{new},instance="c",code="5xx"}}'] == 7
    about = [
        name for name in found if not name.startswith(("factory_fleet_size", "factory_fleet_obs", "factory_rollouts"))
    ]
    assert all("digest=" in name for name in about)


def test_instance_of_another_image_is_not_called_by_the_planned_one() -> None:
    found = samples(metrics.render([SNAPSHOT]))
    strange = f'fleet="web",generation="2",image="",digest="{STRANGE}",state="running",health="unknown"'
    unknown = 'fleet="web",generation="2",image="",digest="",state="stopping",health="unknown"'
    assert found[f"factory_fleet_instances{{{strange}}}"] == 1
    assert found[f"factory_fleet_instances{{{unknown}}}"] == 1


def test_state_of_a_rollout_is_one_of_all() -> None:
    found = samples(metrics.render([SNAPSHOT]))
    states = {name: value for name, value in found.items() if name.startswith("factory_rollout_state{")}
    assert len(states) == len(State)
    about = f'fleet="web",rollout="r-2",generation="2",digest="{NEW}"'
    assert [name for name, value in states.items() if value] == [f'factory_rollout_state{{{about},state="ANALYSING"}}']
    assert found[f"factory_rollout_step{{{about}}}"] == 1
    assert found[f"factory_rollout_paused{{{about}}}"] == 1
    assert found[f'factory_rollout_transitions_total{{{about},state="SHIFTING"}}'] == 2
    assert found['factory_rollouts_total{fleet="web",state="SUCCEEDED"}'] == 4


def test_each_family_has_its_help_and_type_once() -> None:
    text = metrics.render([SNAPSHOT, Snapshot("api", 1, 1.0, Observation())])
    typed = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(typed) == len({name for name, _ in typed}) == text.count("# HELP")
    assert all((kind == "counter") == name.endswith("_total") for name, kind in typed)
    assert set(metrics._FAMILIES) == {name for name, _ in typed}
    assert text.index('factory_fleet_size{fleet="api"}') < text.index('factory_fleet_size{fleet="web"}')


def test_nothing_to_say_is_an_empty_text() -> None:
    assert metrics.render([]) == ""
    assert "factory_rollout" not in metrics.render([Snapshot("api", 1, 1.0, Observation())])


@given(st.text())
def test_label_of_any_text_reads_back(value: str) -> None:
    text = metrics.escaped(value)
    assert "\n" not in text
    pairs = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
    assert re.sub(r'\\[\\"n]', lambda found: pairs[found[0]], text) == value
    assert not re.search(r'(?<!\\)(?:\\\\)*"', text)


def test_log_line_ties_an_event_to_its_version() -> None:
    more = {"weight": 10, "digest": "forged", "rate": float("nan"), "state": State.SHIFTING, "by": OLD}
    line = metrics.line(Event(1.5, "web", "r-2", 2, NEW, "shift", "10%\nof it", more))
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert json.loads(line, parse_constant=lambda word: pytest.fail(word)) == {
        "at": "1970-01-01T00:00:01.500Z", "event": "shift", "fleet": "web", "rollout": "r-2", "generation": 2,
        "digest": NEW, "message": "10%\nof it", "weight": 10, "rate": "nan", "state": "SHIFTING", "by": OLD,
    }  # fmt: skip


def test_file_is_replaced_whole_and_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "factory.prom"
    metrics.write(path, "a 1\n")
    metrics.write(path, "b 2\n")
    assert path.read_text() == "b 2\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["factory.prom"]
    with pytest.raises(FactoryError, match="cannot write"):
        metrics.write(tmp_path / "none" / "x.prom", "")


def test_metrics_are_served_on_this_machine() -> None:
    texts = iter(["a 1\n", "b 2\n"])

    def text() -> str:
        for one in texts:
            return one
        raise CatalogError("the catalog is locked")

    server = Server("127.0.0.1", 0, text)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.port}"
        with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
            assert answer.read() == b"a 1\n"
        with urllib.request.urlopen(f"{base}/metrics?x", timeout=10) as answer:
            assert answer.read() == b"b 2\n"
        for path, status in (("/metrics", 503), ("/", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{base}{path}", timeout=10)
            assert caught.value.code == status
    finally:
        server.stop()
        thread.join(10)
    assert not thread.is_alive()


def test_metrics_are_not_served_to_others() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(UsageError, match="other machines"):
            Server(host, 0, lambda: "")


def test_address_that_is_taken_is_a_usage_error() -> None:
    server = Server("127.0.0.1", 0, lambda: "")
    with pytest.raises(UsageError, match="cannot listen"):
        Server("127.0.0.1", server.port, lambda: "")
    server._server.server_close()
