from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.rollout.health import MAX_BYTES, Answer, Record, after, due, judged, request
from factory.rollout.model import Health, HttpProbe

HEALTH = Health(http=HttpProbe(80), successes=3, interval_s=1.0)
PLAIN, TEXT, GONE = HttpProbe(80), HttpProbe(80, body="hello"), HttpProbe(80, status=404)
OK, ILL = Answer(True, "status 200"), Answer(False, "status 500, not 200")


def answered(data: bytes, wanted: HttpProbe = PLAIN, *, ended: bool = True) -> bool | None:
    found = judged(data, wanted, ended=ended)
    return None if found is None else found.healthy


@pytest.mark.parametrize(
    ("data", "wanted", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\n", PLAIN, True),
        (b"HTTP/1.0 200\r\n", PLAIN, True),
        (b"HTTP/1.1 200 OK\n", PLAIN, True),
        (b"HTTP/1.1 404 Not Found\r\n", GONE, True),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", PLAIN, False),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n", PLAIN, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000 + b"HTTP/1.1 200 OK\r\n", PLAIN, True),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", PLAIN, False),
        (b"HTTP/1.1 103 Early Hints\r\n", PLAIN, False),
        (b"HTTP/2 200\r\n", PLAIN, False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", PLAIN, False),
        (b"", PLAIN, False),
        (b"HTTP/1.1 200 OK", PLAIN, False),
        (b"HTTP/1.1 200 OK\r\n\r\nwell hello there", TEXT, True),
        (b"HTTP/1.1 200 OK\r\nX: hello\r\n\r\nbye", TEXT, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbyehello", TEXT, False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
            TEXT,
            True,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n\r\nllo hello", TEXT, False),
    ],
)
def test_answer_is_judged(data: bytes, wanted: HttpProbe, healthy: bool) -> None:
    assert answered(data, wanted) is healthy


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", PLAIN),
        (b"HTT", PLAIN),
        (b"HTTP/1.1 200 O", PLAIN),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP", PLAIN),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", TEXT),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhell", TEXT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell", TEXT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r", TEXT),
    ],
)
def test_answer_that_may_still_be_right_is_waited_for(data: bytes, wanted: HttpProbe) -> None:
    assert answered(data, wanted, ended=False) is None
    assert answered(data, wanted, ended=True) is False


@pytest.mark.parametrize(
    "data", [b"<html>", b"HTTX", b"HTTP/1.1 200OK\r\n", b"HTTP/1.1 503 Busy\r\n", b"HTTP/1.1 099 x\r\n"]
)
def test_answer_that_cannot_become_right_is_not_waited_for(data: bytes) -> None:
    assert answered(data, ended=False) is False


def test_whole_body_without_the_text_is_not_waited_for() -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    assert answered(head + b"Content-Length: 3\r\n\r\nbye", TEXT, ended=False) is False
    assert answered(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n", TEXT, ended=False) is False
    assert answered(head + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n", TEXT, ended=False) is False


def test_answer_without_end_is_cut() -> None:
    assert answered(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_BYTES // 6), TEXT, ended=False) is False
    assert answered(b"HTTP/1.1 " + b"9" * MAX_BYTES, ended=False) is False


@given(
    st.binary(max_size=60) | st.lists(
        st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 100 x", b"\r\n", b"\n", b"hello", b"5", b"0",
                         b"Transfer-Encoding: chunked", b"Content-Length: 5", b"ff"]),
        max_size=12,
    ).map(b"".join),
    st.sampled_from([PLAIN, TEXT, GONE]),
)  # fmt: skip
def test_any_bytes_are_judged_and_a_verdict_stands(data: bytes, wanted: HttpProbe) -> None:
    whole = judged(data, wanted, ended=True)
    assert whole is not None
    for cut in range(len(data)):
        early = judged(data[:cut], wanted, ended=False)
        if early is not None and early.healthy:
            assert whole.healthy


def test_request_names_the_path_and_the_address() -> None:
    sent = request(HttpProbe(80, "/ready?x=1"), "127.0.0.1:4000")
    assert sent.startswith(b"GET /ready?x=1 HTTP/1.1\r\nHost: 127.0.0.1:4000\r\n")
    assert sent.endswith(b"\r\n\r\n")


def series(*answers: Answer) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for now, answer in enumerate(answers):
        records = after(records, ["a"], {"a": answer}, HEALTH, float(now))
    return records


def test_instance_serves_after_enough_successes_in_a_row() -> None:
    assert not series(OK, OK)["a"].can_serve(HEALTH)
    assert series(OK, OK, OK)["a"].can_serve(HEALTH)
    assert not series(ILL, ILL, ILL)["a"].can_serve(HEALTH)


def test_one_failure_takes_all_successes_away() -> None:
    fallen = series(OK, OK, OK, ILL, OK, OK)["a"]
    assert not fallen.can_serve(HEALTH)
    assert fallen.flaps == 1
    assert series(OK, OK, OK, ILL, OK, OK, OK)["a"].can_serve(HEALTH)


def test_flaps_count_falls_from_healthy_alone() -> None:
    assert series(ILL, OK, ILL, OK, ILL)["a"].flaps == 0
    assert series(*[OK, OK, OK, ILL, ILL] * 3)["a"].flaps == 3


def test_records_of_instances_that_are_gone_are_forgotten() -> None:
    records = after({}, ["a", "b"], {"a": OK, "b": OK}, HEALTH, 0.0)
    assert set(after(records, ["b", "c"], {"a": OK, "c": ILL}, HEALTH, 1.0)) == {"b", "c"}


def test_only_instances_whose_interval_is_over_are_due() -> None:
    records = after({}, ["a", "b"], {"a": OK}, HEALTH, 100.0)
    assert due(records, ["a", "b"], HEALTH, 100.5) == ["b"]
    assert due(records, ["a", "b"], HEALTH, 101.0) == ["a", "b"]
    assert due(records, ["a"], HEALTH, 50.0) == ["a"]


@given(st.lists(st.booleans(), max_size=20))
def test_serving_is_the_last_answers_being_successes(answers: list[bool]) -> None:
    records = series(*(OK if one else ILL for one in answers))
    serves = "a" in records and records["a"].can_serve(HEALTH)
    assert serves == (len(answers) >= 3 and all(answers[-3:]))
