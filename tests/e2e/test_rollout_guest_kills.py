"""kill -9 of the engine at a boundary of each kind, over real guests under load: nothing is lost, and it ends as if
nobody had died. Every boundary is met by `make soak`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import tiny_images
from guest_fleets import ABORTED, CANARY, Case, GuestFleet
from killing import KINDS, EachKind
from local_fleets import free_port

from benchmarks.load import load

pytestmark = [pytest.mark.boots, pytest.mark.usefixtures("alone")]

PER_S = 20


@pytest.fixture(scope="module")
def fleet(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestFleet]:
    """One guest that serves; it is kept from test to test."""
    made = GuestFleet(tmp_path_factory.mktemp("fleet"), free_port(), tiny_images.bake("tiny-one", "tiny-two"))
    try:
        assert made.rolled(CANARY).end == f"end {CANARY.end}"
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("case", [CANARY, ABORTED], ids=["forward", "back"])
def test_kills_of_each_kind_on_one_way_change_nothing_and_lose_nothing(fleet: GuestFleet, case: Case) -> None:
    undisturbed = fleet.world()
    with load(fleet.url, PER_S) as found:
        rolled = fleet.rolled(case, EachKind())
    sys.stderr.write(f"\n{len(rolled.kills)} kills, {found.sent} requests, {len(found.lost)} lost\n")
    assert {EachKind.of(place) for place in rolled.kills} == KINDS
    assert rolled.end == f"end {case.end}"
    assert found.lost == []
    assert {body.splitlines()[0] for body in found.answers} == {"tiny one", "tiny two"}
    assert fleet.world() == undisturbed
