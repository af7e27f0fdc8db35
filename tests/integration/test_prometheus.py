"""The metrics and the source of numbers against the real Prometheus (Debian's package): it scrapes what we serve, and
answers what we ask."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_rollout_metrics import SNAPSHOT as WHOLE

from factory import digest
from factory.rollout import metrics
from factory.rollout.analysis import Subject, finding, measure
from factory.rollout.analysis.judgement import Evidence
from factory.rollout.metrics import Server, Snapshot
from factory.rollout.model import Analysis, Instance, Observation, Verdict

NEW = Subject("web", 2, digest.of_bytes(b"new"))
OLD = Subject("web", 1, digest.of_bytes(b"old"))
SEEN = Observation(
    (
        Instance("a", 1, OLD.digest, "running", 0.0, answered=(("2xx", 900), ("5xx", 9))),
        Instance("b", 2, NEW.digest, "running", 0.0, answered=(("2xx", 60), ("5xx", 2))),
        Instance("c", 2, NEW.digest, "running", 0.0, answered=(("2xx", 40), ("5xx", 0))),
    ),
    {1: 90, 2: 10},
)
SNAPSHOT = Snapshot(
    "web", 3, time.time(), SEEN, {1: ("web", OLD.digest), 2: ("web", NEW.digest)}, wanted={1: 90, 2: 10}
)  # fmt: skip
RATE = (
    'sum(factory_fleet_answers_total{generation="{generation}",digest="{digest}",code="5xx"})'
    ' / sum(factory_fleet_answers_total{generation="{generation}"})'
)
CONFIG = """
global: { scrape_interval: 200ms, scrape_timeout: 200ms }
scrape_configs: [{ job_name: factory, static_configs: [{ targets: ["127.0.0.1:%d"] }] }]
"""

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="the package prometheus is not installed")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped our metrics at least once."""
    folder = tmp_path_factory.mktemp("prometheus")
    server = Server("127.0.0.1", 0, lambda: metrics.render([SNAPSHOT]))
    threading.Thread(target=server.run, daemon=True).start()
    (folder / "prometheus.yml").write_text(CONFIG % server.port)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"), start_new_session=True,
    )  # fmt: skip
    try:
        _await(f"http://127.0.0.1:{port}", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        server.stop()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        found = measure(asked(url, "factory_fleet_size"), NEW, None, 0.0)
        if found.value is not None:
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    pytest.fail(f"Prometheus did not begin to answer: {log.read_text()}")


def asked(url: str, query: str) -> Analysis:
    return Analysis("prometheus", url, query, success="< 0.5", timeout_s=10.0)


def test_ratio_of_a_generation_is_measured_and_compared(url: str) -> None:
    one = replace(asked(url, RATE), against=1.5, baseline="fresh")
    found = measure(one, NEW, OLD, 0.0)
    assert found.value == pytest.approx(2 / 102)
    assert found.baseline == pytest.approx(9 / 909)
    evidence = Evidence("2/0").plus(one, found)
    assert finding(one, evidence).verdict == Verdict.FAILED
    assert finding(one, Evidence("2/0").plus(replace(one, against=3.0), found)).verdict == Verdict.RUNNING


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("nothing_of_the_kind", "no series"),
        ("factory_fleet_weight_actual_ratio", "2 series"),
        ("sum(", "parse error"),
        ("factory_fleet_size[1m]", "matrix"),
        ('"text"', "string"),
    ],
)
def test_query_without_one_number_says_why(url: str, query: str, why: str) -> None:
    found = measure(asked(url, query), NEW, None, 0.0)
    assert found.value is None
    assert why in found.problem


@pytest.mark.parametrize("query", ["0/0", "1/0", "vector(0)/0", "-1/0"])
def test_query_that_gives_no_finite_number_never_succeeds(url: str, query: str) -> None:
    one = asked(url, query)
    evidence = Evidence("x")
    for at in range(4):
        evidence = evidence.plus(one, measure(one, NEW, None, float(at)))
    assert finding(one, evidence).verdict == Verdict.INCONCLUSIVE


def test_scalar_is_a_number(url: str) -> None:
    assert measure(asked(url, "scalar(factory_fleet_size) + 0.5"), NEW, None, 0.0).value == 3.5


def test_promtool_finds_no_fault_in_the_metrics() -> None:
    text = metrics.render([SNAPSHOT, replace(WHOLE, fleet="whole")])
    checked = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
