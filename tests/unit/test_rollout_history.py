"""What a fleet ran, by how its rollouts ended: what is to serve, and what a rollback brings back."""

from __future__ import annotations

import pytest
from rollout_drive import fleet

from factory.digest import of_bytes
from factory.rollout import history
from factory.rollout.history import Before, Ended, Serving
from factory.rollout.model import Image, Instance, Observation, Plan, State

ONE, TWO, THREE = (Image("web", "amd64", of_bytes(name), {}) for name in (b"one", b"two", b"three"))
DONE, BACK, TORN = State.SUCCEEDED, State.ROLLED_BACK, State.ROLLBACK_FAILED


def ended(state: State, target: Serving, old: Serving | None = None, *, back: bool = False) -> Ended:
    image, generation = (None, None) if old is None else (old.image, old.generation)
    return Ended(Plan("r", fleet(), target.image, target.generation, (), image, generation, back=back), state)


def destroyed(one: Ended) -> Ended:
    return Ended(one.plan, one.state, destroyed=True)


def seen(counts: dict[int, int], weights: dict[int, int] | None = None) -> Observation:
    """So many instances of each generation; the traffic on the first of them, if nothing is said."""
    there = [
        Instance(f"i-{number}-{place}", number, None, "running", 0.0)
        for number, count in counts.items()
        for place in range(count)
    ]
    return Observation(tuple(there), {next(iter(counts)): 100} if weights is None and counts else weights or {})


A, B, C, D = Serving(1, ONE), Serving(2, TWO), Serving(3, THREE), Serving(4, THREE)
FIRST, SECOND = ended(DONE, A), ended(DONE, B, A)
AGAIN = Serving(3, ONE)  # the first image, brought back
NOTHING = Observation()


@pytest.mark.parametrize(
    ("past", "observed", "serving", "before"),
    [
        pytest.param([], NOTHING, None, None, id="never"),
        pytest.param([FIRST], seen({1: 3}), A, None, id="first"),
        pytest.param([SECOND, FIRST], seen({2: 3}), B, Before(ONE), id="second"),
        pytest.param([SECOND, FIRST], NOTHING, B, Before(ONE), id="second-that-is-gone"),
        pytest.param([ended(BACK, C, B), SECOND, FIRST], seen({2: 3}), B, Before(ONE), id="went-back"),
        pytest.param([ended(BACK, C, B), SECOND, FIRST], NOTHING, B, Before(TWO), id="went-back-to-what-is-gone"),
        pytest.param(
            [ended(TORN, C, B), SECOND, FIRST], seen({3: 3, 2: 2}, {3: 100}), C, Before(TWO), id="could-not-go-back"
        ),
        pytest.param(
            [ended(TORN, C, B), SECOND, FIRST], seen({3: 3, 2: 2}, {3: 67, 2: 33}), C, Before(TWO), id="half-way"
        ),
        pytest.param(
            [ended(TORN, C, B), SECOND, FIRST], seen({3: 3, 2: 2}, {3: 33, 2: 67}), B, Before(ONE), id="mostly-back"
        ),
        pytest.param([ended(TORN, C, B), SECOND, FIRST], seen({3: 3}, {}), C, Before(TWO), id="front-is-gone"),
        pytest.param([ended(TORN, C, B), SECOND, FIRST], NOTHING, B, Before(TWO), id="could-not-go-back-and-gone"),
        pytest.param([ended(TORN, A)], seen({1: 3}), A, None, id="first-that-failed-and-serves"),
        pytest.param([ended(TORN, A)], NOTHING, None, None, id="first-that-failed"),
        pytest.param([ended(BACK, A)], NOTHING, None, None, id="first-that-went-back"),
        pytest.param([ended(BACK, B), FIRST], NOTHING, A, Before(ONE), id="nothing-there-and-failed"),
        pytest.param([ended(BACK, C), ended(BACK, B), FIRST], NOTHING, A, Before(ONE), id="and-failed-again"),
        pytest.param([ended(BACK, B), FIRST], seen({1: 3}), A, None, id="nothing-there-failed-and-healed"),
        pytest.param([ended(TORN, B), FIRST], NOTHING, A, Before(ONE), id="nothing-there-and-could-not-go-back"),
        pytest.param([ended(TORN, B), FIRST], seen({2: 3}), B, Before(ONE), id="the-same-and-serves"),
        pytest.param([ended(DONE, C), SECOND, FIRST], seen({3: 3}), C, Before(TWO), id="nothing-was-there"),
        pytest.param([ended(DONE, Serving(2, ONE)), FIRST], seen({2: 3}), Serving(2, ONE), None, id="the-same-again"),
        pytest.param(
            [ended(DONE, AGAIN, B, back=True), SECOND, FIRST], seen({3: 3}), AGAIN, Before(TWO, True), id="back"
        ),
        pytest.param([ended(BACK, AGAIN, B, back=True), SECOND, FIRST], seen({2: 3}), B, Before(ONE), id="back-failed"),
        pytest.param(
            [ended(TORN, AGAIN, B, back=True), SECOND, FIRST], seen({3: 3}), AGAIN, Before(TWO, True), id="back-torn"
        ),
        pytest.param(
            [ended(DONE, D, AGAIN), ended(DONE, AGAIN, B, back=True), SECOND, FIRST],
            seen({4: 3}),
            D,
            Before(ONE),
            id="after-a-rollback",
        ),
        pytest.param([destroyed(SECOND), FIRST], NOTHING, None, Before(TWO), id="destroyed"),
        pytest.param([ended(BACK, C), destroyed(SECOND), FIRST], NOTHING, None, Before(TWO), id="destroyed-and-failed"),
        pytest.param([ended(DONE, C), destroyed(SECOND), FIRST], seen({3: 3}), C, Before(TWO), id="after-an-end"),
    ],
)
def test_what_serves_and_what_ran_before(
    past: list[Ended], observed: Observation, serving: Serving | None, before: Before | None
) -> None:
    assert (history.settled(past, observed), history.before(past, observed)) == (serving, before)


@pytest.mark.parametrize(
    ("state", "observed", "is_torn"),
    [
        (TORN, seen({2: 3, 3: 1}, {2: 60, 3: 40}), True),
        (TORN, seen({2: 3, 3: 1}, {2: 100}), True),
        (TORN, seen({2: 3}), False),
        (TORN, seen({3: 3, 2: 2}), False),
        (BACK, seen({2: 3, 3: 1}), False),
    ],
)
def test_way_back_that_was_only_half_gone(state: State, observed: Observation, is_torn: bool) -> None:
    assert history.is_torn(ended(state, C, B), observed) is is_torn
