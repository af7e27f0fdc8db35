"""Sources of numbers against servers that behave and that do not: a number, or why there is none."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import closed_address, reply, scripted

from factory import digest
from factory.rollout import analysis
from factory.rollout.analysis import SOURCES, Subject, http_json, measure, prometheus
from factory.rollout.analysis.asking import NoAnswerError, Reply
from factory.rollout.model import Analysis

NEW = Subject("web", 4, digest.of_bytes(b"new"))
OLD = Subject("web", 3, digest.of_bytes(b"old"))


def vector(*values: str) -> bytes:
    result = [{"metric": {}, "value": [1.5, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def http(url: str, path: str = "rate") -> Analysis:
    return Analysis("http_json", url, path, success="< 1", timeout_s=5.0)


def prom(url: str, query: str = "up") -> Analysis:
    return Analysis("prometheus", url, query, success="< 1", timeout_s=5.0)


# --- what answers say


@pytest.mark.parametrize(
    ("text", "number"), [("0.25", 0.25), ("1e-3", 0.001), ("-5", -5.0), ("+Inf", math.inf), ("-Inf", -math.inf)]
)
def test_prometheus_number_is_read(text: str, number: float) -> None:
    assert prometheus.read(Reply(200, vector(text))) == number


def test_prometheus_nan_is_no_number_of_ours() -> None:
    assert math.isnan(prometheus.read(Reply(200, vector("NaN"))))


def test_prometheus_scalar_is_read() -> None:
    body = b'{"status":"success","infos":["x"],"data":{"resultType":"scalar","result":[1.5,"2"]}}'
    assert prometheus.read(Reply(200, body)) == 2.0


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, vector(), "no series"),
        (200, vector("1", "2"), "2 series"),
        (200, vector("1_0"), '"1_0" is no number'),
        (200, vector("infinity"), "is no number"),
        (400, b'{"status":"error","errorType":"bad_data","error":"parse error"}', '"bad_data: parse error"'),
        (200, b'{"status":"error"}', "no reason given"),
        (503, vector("1"), "status 503"),
        (200, vector("1").replace(b'"data"', b'"warnings": ["one of two stores is gone"], "data"'), "is gone"),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}', '"matrix", not one number'),
        (200, b'{"status":"success","data":{"resultType":"string","result":[1,"1"]}}', "not one number"),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[1]}}', "has no value"),
        (200, b'{"status":"success","data":{"resultType":"scalar","result":[1, 1]}}', "has no value"),
        (200, b'{"status":"success","data":[]}', "not one number"),
        (200, b'{"status":"success"}', "not one number"),
        (200, b"[]", "no answer of Prometheus"),
        (502, b"<html>", "status 502, and what came is no JSON"),
        (200, b"", "no JSON"),
        (200, b"[" * 100_000, "no JSON"),
        (200, b"\xff\xfe", "no JSON"),
    ],
)  # fmt: skip
def test_prometheus_without_one_number_says_why(status: int, body: bytes, why: str) -> None:
    with pytest.raises(NoAnswerError) as caught:
        prometheus.read(Reply(status, body))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "path", "number"),
    [({"a": {"b": 1}}, "a.b", 1.0), ({"a": [1, {"b": 2.5}]}, "a.1.b", 2.5), ([7], "0", 7.0), ({"0": 8}, "0", 8.0)],
)
def test_path_leads_to_a_number(document: object, path: str, number: float) -> None:
    assert http_json.at_path(document, path) == number


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "a"), ({"a": "1"}, "a"), ({"a": True}, "a"), ({"a": None}, "a"), ({"a": {}}, "a"), ([1], "1"), ([1], "-1"),
        ([1], "00"), (5, "a"), ({"a": 10**400}, "a"), ([1], "²"),
    ],
)  # fmt: skip
def test_path_that_leads_to_no_number_says_so(document: object, path: str) -> None:
    with pytest.raises(NoAnswerError):
        http_json.at_path(document, path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["status", "data", "result", "resultType", "value", "a", "0"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(JSON | st.fixed_dictionaries({"status": st.just("success"), "data": st.fixed_dictionaries(
    {"resultType": st.sampled_from(["vector", "scalar"]), "result": JSON})}))  # fmt: skip
def test_any_document_is_a_number_or_a_reason(document: object) -> None:
    for told in (prometheus_told(json.dumps(document).encode()), json_told(document)):
        assert isinstance(told, float) or told


def prometheus_told(body: bytes) -> float | str:
    try:
        return prometheus.read(Reply(200, body))
    except NoAnswerError as error:
        return str(error)


def json_told(document: object) -> float | str:
    try:
        return http_json.at_path(document, "data.0.a")
    except NoAnswerError as error:
        return str(error)


# --- asking


def test_placeholders_are_filled_in_and_other_braces_stay() -> None:
    assert analysis.filled('x{fleet="{fleet}",g="{generation}"} {digest} {other}', NEW) == (
        f'x{{fleet="web",g="4"}} {NEW.digest} {{other}}'
    )


def test_value_is_asked_of_the_generation_and_of_its_baseline() -> None:
    with scripted(reply(b'{"rate": 0.5}')) as server:
        compared = replace(http(server.url + "/{generation}/{digest}"), against=2.0, baseline="fresh")
        found = measure(compared, NEW, OLD, 7.0)
        assert (found.value, found.baseline, found.at, found.compared) == (0.5, 0.5, 7.0, True)
        paths = {sent.split()[1].decode() for sent in server.requests}
        assert paths == {f"/4/{NEW.digest}", f"/3/{OLD.digest}"}
        alone = measure(compared, NEW, None, 8.0)
        assert (alone.baseline, alone.compared) == (None, False)


def test_prometheus_is_asked_for_the_query() -> None:
    with scripted(reply(vector("0.5"))) as server:
        assert measure(prom(server.url + "/base/", 'a{g="{generation}"} + b'), NEW, None, 0.0).value == 0.5
        (sent,) = server.requests
    assert sent.startswith(b"GET /base/api/v1/query?query=a%7Bg%3D%224%22%7D+%2B+b&timeout=5s HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ((reply(b'{"rate": 1}', "302 Found", "Location: /x"),), "redirects are not followed"),
        ((reply(b'{"rate": 1}', "500 Broken"),), "status 500"),
        ((reply(b'{"rate": "1"}'),), "is no number"),
        ((b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"rate": 1}',), "broke off"),
        ((b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ra',), "IncompleteRead"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "IncompleteRead"),
        ((b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (1 << 20) + b"x" * 10,), "more than 1048576 bytes"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n{}",), "headers"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n{}",), "header line"),
        ((b"\x00\xff\r\n\r\n",), ""),
        ((), "closed connection"),
    ],
)  # fmt: skip
def test_source_that_misbehaves_gives_a_reason(script: tuple[bytes, ...], why: str) -> None:
    with scripted(*script) as server:
        found = measure(http(server.url), NEW, None, 0.0)
    assert found.value is None
    assert found.problem
    assert why in found.problem


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_a_reason_where_nobody_listens(source: str) -> None:
    one = Analysis(source, f"http://{closed_address()}", "x", success="< 1")
    assert "refused" in measure(one, NEW, None, 0.0).problem
    assert "of the baseline" not in measure(one, NEW, None, 0.0).problem


def test_problem_of_the_baseline_is_told_as_such() -> None:
    with scripted(reply(b'{"4": 1}')) as server:
        one = replace(http(server.url, "{generation}"), against=2.0, baseline="fresh")
        found = measure(one, NEW, OLD, 0.0)
    assert (found.value, found.baseline) == (1.0, None)
    assert found.problem.startswith("of the baseline: ")


@pytest.mark.parametrize(
    "script",
    [(None,), tuple(x for _ in range(100) for x in (b"HTTP/1.1 200 OK\r\nX: y\r\n", 0.05)),
     (b"HTTP/1.1 200 OK\r\n\r\n", *(x for _ in range(100) for x in (b" ", 0.05)))],
)  # fmt: skip
def test_time_out_is_for_the_answer_as_a_whole_and_no_thread_stays(script: tuple[bytes | float | None, ...]) -> None:
    with scripted(*script) as server:
        begun = time.monotonic()
        found = measure(replace(http(server.url), timeout_s=0.3), NEW, None, 0.0)
        assert time.monotonic() - begun < 4.0
        assert "within 0.3 s" in found.problem
        for _ in range(100):
            if not [one for one in threading.enumerate() if one.name == "analysis"]:
                break
            time.sleep(0.02)
        assert [one for one in threading.enumerate() if one.name == "analysis"] == []


# --- secrets


def test_secret_in_the_query_is_sent_and_never_told() -> None:
    with scripted(reply(b"{}")) as server:
        found = measure(http(server.url + "/x?api_token=abc123&n=1"), NEW, None, 0.0)
        (sent,) = server.requests
    assert b"GET /x?api_token=abc123&n=1 HTTP/1.1" in sent
    refused = measure(http(f"http://{closed_address()}/x?api_token=abc123&n=1"), NEW, None, 0.0)
    assert "n=1" in refused.problem
    for told in (found.problem, refused.problem):
        assert "abc123" not in told


def test_token_of_a_private_file_is_sent(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    token.chmod(0o600)
    with scripted(reply(b'{"rate": 1}')) as server:
        assert measure(replace(http(server.url), token_file=str(token)), NEW, None, 0.0).value == 1.0
        assert b"Authorization: Bearer s3cret-token\r\n" in server.requests[0]


@pytest.mark.parametrize(("text", "mode"), [("s3cret-token", 0o644), ("", 0o600), ("two words", 0o600), (None, 0)])
def test_token_that_cannot_be_used_is_not_sent(tmp_path: Path, text: str | None, mode: int) -> None:
    token = tmp_path / "token"
    if text is not None:
        token.write_text(text)
        token.chmod(mode)
    with scripted(reply(b'{"rate": 1}')) as server:
        found = measure(replace(http(server.url), token_file=str(token)), NEW, None, 0.0)
        assert server.requests == []
    assert found.value is None
    assert "token" in found.problem
    assert "s3cret" not in found.problem
