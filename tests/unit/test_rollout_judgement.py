from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import some
from factory.rollout.analysis.judgement import Evidence, Measurement, Said, condition, finding, judge, said_by
from factory.rollout.model import Analysis, Verdict

PLAIN = Analysis("http_json", "http://x", "x", success="< 10")
BAND = replace(PLAIN, failure="> 20")
COMPARED = Analysis("http_json", "http://x", "x", against=2.0, baseline="fresh")
WORTH = {Verdict.FAILED: 0, Verdict.INCONCLUSIVE: 1, Verdict.RUNNING: 2, Verdict.SUCCESS: 3}
NO_NUMBERS = (None, math.nan, math.inf, -math.inf)


def verdict(analysis: Analysis, *values: float | None) -> Verdict:
    return judge(analysis, [Measurement(at, value, compared=False) for at, value in enumerate(values)]).verdict


def said(analysis: Analysis, value: float | None, baseline: float | None = None, *, compared: bool = True) -> Said:
    return said_by(analysis, Measurement(0.0, value, baseline, compared))[0]


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("< 0.01", 0.009, True), ("<0.01", 0.01, False), ("<= 0.01", 0.01, True), ("> -1e3", 0.0, True),
        (">= 5.", 5.0, True), ("== .5", 0.5, True), ("!= 0", 0.0, False), (" !=  0 ", 1.0, True),
        ("!= 0", math.nan, False), ("> 5", math.inf, True),
    ],
)  # fmt: skip
def test_condition_holds_or_not(text: str, value: float, holds: bool) -> None:
    assert condition(text).holds(value) is holds


@pytest.mark.parametrize(
    "text", ["", "0.01", "< ", "=< 1", "< 1_0", "< 0x1", "< inf", "< nan", "< 1e400", "< 1 2", "<>1"]
)
def test_condition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="and a number"):
        condition(text)


@given(st.text(max_size=12))
def test_condition_is_read_or_refused(text: str) -> None:
    try:
        found = condition(text)
    except ValueError:
        return
    assert math.isfinite(found.bound)
    assert condition(f"{found.sign} {found.bound!r}") == found


def test_enough_successes_succeed() -> None:
    assert verdict(PLAIN) == Verdict.RUNNING
    assert verdict(PLAIN, 1, 2) == Verdict.RUNNING
    assert verdict(PLAIN, 1, 2, 3) == Verdict.SUCCESS


def test_one_failure_fails_at_once_and_for_good() -> None:
    assert verdict(PLAIN, 1, 10) == Verdict.FAILED
    assert verdict(PLAIN, 10, 1, 1, 1, 1) == Verdict.FAILED


def test_failures_up_to_the_limit_are_allowed() -> None:
    lenient = replace(PLAIN, failure_limit=1)
    assert verdict(lenient, 1, 10, 1) == Verdict.SUCCESS
    assert verdict(lenient, 1, 10, 1, 10) == Verdict.FAILED


def test_value_between_the_conditions_is_undecided() -> None:
    assert said(BAND, 15) == Said.UNDECIDED
    assert said(BAND, 21) == Said.FAILURE
    assert verdict(BAND, 1, 15, 1) == Verdict.INCONCLUSIVE
    assert verdict(BAND, 1, 15, 1, 1, 1) == Verdict.SUCCESS


def test_failure_alone_lets_all_else_succeed() -> None:
    only = replace(PLAIN, success=None, failure="> 20")
    assert said(only, 20) == Said.SUCCESS
    assert said(only, 20.5) == Said.FAILURE


def test_value_that_meets_both_conditions_is_a_failure() -> None:
    assert said(replace(PLAIN, failure="> 5"), 7) == Said.FAILURE


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_missing_numbers_in_a_row_are_inconclusive_until_one_comes(value: float | None) -> None:
    assert verdict(PLAIN, 1, value, value) == Verdict.RUNNING
    assert verdict(PLAIN, 1, value, value, value) == Verdict.INCONCLUSIVE
    assert verdict(PLAIN, 1, value, value, value, 1) == Verdict.RUNNING
    assert verdict(PLAIN, 1, value, value, value, 1, 1) == Verdict.SUCCESS


def test_problem_of_a_source_is_the_reason() -> None:
    told = judge(PLAIN, [Measurement(0.0, None, problem="connection refused")] * 3)
    assert told.verdict == Verdict.INCONCLUSIVE
    assert "connection refused (3 measurements in a row)" in told.why


@pytest.mark.parametrize(
    ("value", "baseline", "what"),
    [
        (1.0, 0.5, Said.SUCCESS), (1.1, 0.5, Said.FAILURE), (0.0, 0.0, Said.SUCCESS), (0.1, 0.0, Said.UNDECIDED),
        (0.1, None, Said.NOTHING), (0.1, math.nan, Said.NOTHING), (0.1, math.inf, Said.NOTHING),
        (0.1, -1.0, Said.NOTHING), (math.nan, 1.0, Said.NOTHING), (1.0, 1.7e308, Said.NOTHING),
    ],
)  # fmt: skip
def test_value_is_held_against_the_baseline(value: float, baseline: float | None, what: Said) -> None:
    assert said(COMPARED, value, baseline) == what


def test_conditions_decide_alone_where_the_baseline_is_zero() -> None:
    both = replace(COMPARED, success="< 10")
    assert said(both, 1, 0.0) == Said.SUCCESS
    assert said(both, 11, 0.0) == Said.FAILURE
    assert said(both, 1, 0.1) == Said.FAILURE
    assert said(both, 1, None) == Said.NOTHING


def test_value_that_fails_by_itself_needs_no_baseline() -> None:
    assert said(replace(COMPARED, failure="> 5"), 6, None) == Said.FAILURE


def test_comparison_without_a_baseline_decides_nothing() -> None:
    assert said(COMPARED, 1, compared=False) == Said.UNDECIDED
    assert said(replace(COMPARED, success="< 10"), 1, compared=False) == Said.SUCCESS


def test_evidence_about_another_subject_begins_anew() -> None:
    evidence = Evidence("3/0").plus(PLAIN, Measurement(5.0, 1.0))
    assert evidence.about("3/0") is evidence
    assert evidence.about("4/0") == Evidence("4/0")


def test_measurement_is_due_after_the_interval_or_a_clock_set_back() -> None:
    evidence = Evidence("x").plus(PLAIN, Measurement(100.0, 1.0))
    assert Evidence("x").is_due(PLAIN, 0.0)
    assert not evidence.is_due(PLAIN, 104.0)
    assert evidence.is_due(PLAIN, 105.0)
    assert evidence.is_due(PLAIN, 90.0)


ANALYSES = st.builds(
    Analysis,
    source=st.just("http_json"), url=st.just("http://x"), query=st.just("x"),
    success=st.sampled_from([None, "< 10", "< 15"]), failure=st.sampled_from([None, "> 20", "> 12"]),
    against=st.sampled_from([None, 1.0, 2.0]), count=st.integers(1, 4), error_limit=st.integers(1, 3),
).flatmap(
    lambda one: st.integers(0, one.count - 1).map(lambda limit: replace(one, failure_limit=limit))
)  # fmt: skip
NUMBERS = st.sampled_from([0.0, 5.0, 11.0, 13.0, 25.0])
MEASUREMENTS = st.builds(
    Measurement,
    at=st.just(0.0), value=NUMBERS | st.sampled_from(NO_NUMBERS), baseline=NUMBERS | st.sampled_from(NO_NUMBERS),
    compared=st.booleans(),
)  # fmt: skip


@settings(max_examples=some(200))
@given(ANALYSES, st.lists(MEASUREMENTS, max_size=10))
def test_success_rests_on_numbers_alone(analysis: Analysis, made: list[Measurement]) -> None:
    if judge(analysis, made).verdict != Verdict.SUCCESS:
        return
    told = [one for one in made if said_by(analysis, one)[0] != Said.NOTHING]
    assert len(told) >= analysis.count
    assert all(one.value is not None and math.isfinite(one.value) for one in told)
    successes = [one for one in told[-analysis.count :] if said_by(analysis, one)[0] == Said.SUCCESS]
    assert len(successes) >= max(1, analysis.count - analysis.failure_limit)


@settings(max_examples=some(200))
@given(ANALYSES, st.lists(MEASUREMENTS, max_size=10), st.integers(0, 10), st.sampled_from(NO_NUMBERS))
def test_losing_a_number_never_brings_success(
    analysis: Analysis, made: list[Measurement], place: int, nothing: float | None
) -> None:
    before = judge(analysis, made).verdict
    poorer = [replace(one, value=nothing) if at == place else one for at, one in enumerate(made)]
    if before == Verdict.RUNNING:
        assert judge(analysis, poorer).verdict != Verdict.SUCCESS
    assert judge(analysis, [*made, Measurement(0.0, nothing)]).verdict != Verdict.SUCCESS


@settings(max_examples=some(200))
@given(ANALYSES, st.lists(MEASUREMENTS, max_size=10), st.integers(0, 9))
def test_one_failure_more_never_betters_the_verdict(analysis: Analysis, made: list[Measurement], place: int) -> None:
    if place >= len(made) or said_by(analysis, made[place])[0] == Said.NOTHING:
        return
    worst = Measurement(0.0, 1e9, 1.0)
    if said_by(analysis, worst)[0] != Said.FAILURE:
        return
    worse = [*made[:place], worst, *made[place + 1 :]]
    assert WORTH[judge(analysis, worse).verdict] <= WORTH[judge(analysis, made).verdict]


@given(ANALYSES, st.lists(MEASUREMENTS, max_size=10))
def test_evidence_stays_small(analysis: Analysis, made: list[Measurement]) -> None:
    evidence = Evidence("x")
    for one in made:
        evidence = evidence.plus(analysis, one)
    assert len(evidence.recent) <= analysis.count
    assert evidence.taken == len(made)
    assert finding(analysis, evidence) == judge(analysis, made)
