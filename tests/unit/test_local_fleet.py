"""The pure parts of the local provider: weights, names and tags, HAProxy's file, commands and answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.digest import of_bytes
from factory.rollout.model import FleetSpec, Health, HttpProbe
from factory.rollout.providers.local import haproxy, tags, tcp, weights
from factory.rollout.providers.local.haproxy import Server
from factory.rollout.providers.local.tags import Tag

GOLDEN = Path(__file__).parent.parent / "golden"
FLEET = FleetSpec(
    "web", "local", "web", "prod", 3, 3, 6, "canary",
    Health(http=HttpProbe(80, "/health?of='all'", 200, 'it "serves" $well \\ #now')), listen="127.0.0.1:8080",
)  # fmt: skip
STAT = """\
# pxname,svname,qcur,scur,status,weight,uweight,check_status,check_code,check_desc,last_chk,addr,hrsp_2xx,hrsp_5xx,
fleet,web-g1-01,0,3,UP,128,128,L7OK,200,Layer7 check passed,,127.0.0.1:40001,90,7,
fleet,web-g1-01.last,0,2,no check,128,128,,,,,127.0.0.1:40001,5,1,
fleet,web-g1-02,0,0,DOWN 1/3,128,128,L7STS,503,Layer7 wrong status,Service Unavailable,127.0.0.1:40002,
fleet,web-g2-01,0,1,DRAIN,0,30,* L7OK,200,Layer7 check passed,,127.0.0.1:40003,
fleet,web-g2-02,0,0,DRAIN 1/3,0,0,INI,,Initializing,,127.0.0.1:40004,
fleet,web-g2-03,0,0,MAINT,1,0,,,,,127.0.0.1:40005,
fleet,web-g2-04,0,0,UP 1/2,9,9,L7OK,200,Layer7 check passed,,127.0.0.1:40006,
"""


def percents() -> st.SearchStrategy[dict[int, int]]:
    """Weights of one to four generations, together 100."""
    cuts = st.lists(st.integers(0, 100), max_size=3).map(sorted)
    return cuts.map(
        lambda at: {number: high - low for number, (low, high) in enumerate(zip([0, *at], [*at, 100], strict=True), 1)}
    )


@settings(max_examples=300)
@given(percents(), st.lists(st.integers(1, 60), min_size=4, max_size=4))
def test_spread_is_exactly_what_was_asked_for(percent: dict[int, int], counts: list[int]) -> None:
    healthy = {
        number: [tags.name_of("web", number, index) for index in range(1, counts[number - 1] + 1)] for number in percent
    }
    given_weights = weights.spread(percent, healthy)
    assert set(given_weights) == {name for names in healthy.values() for name in names}
    assert all(0 <= weight <= weights.HIGHEST for weight in given_weights.values())
    sums = {number: sum(given_weights[name] for name in names) for number, names in healthy.items()}
    assert all(sums[number] * 100 == percent[number] * sum(sums.values()) for number in percent)
    for names in healthy.values():
        shares = [given_weights[name] for name in names]
        assert max(shares) - min(shares) <= 1
    served = [(tags.generation_of("web", name) or 0, weight) for name, weight in given_weights.items()]
    assert weights.percentages(served) == {number: share for number, share in percent.items() if share}


def test_spread_of_nothing_is_nothing() -> None:
    assert weights.spread({}, {1: ["a"], 2: ["b"]}) == {"a": 0, "b": 0}
    assert weights.spread({1: 0}, {1: ["a"]}) == {"a": 0}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 256)), max_size=30))
def test_percentages_are_together_a_hundred_and_near(served: list[tuple[int, int]]) -> None:
    found = weights.percentages(served)
    total = sum(weight for _, weight in served)
    assert sum(found.values()) == (100 if total else 0)
    for generation, percent in found.items():
        exact = 100 * sum(weight for one, weight in served if one == generation) / total
        assert abs(percent - exact) < 1


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        ("web-g1-01", 1), ("web-g12-107", 12), ("web-g0-01", None), ("web-g1-1", None), ("web-g01-01", None),
        ("other-g1-01", None), ("web-g1-01/..", None), ("../web-g1-01", None), ("web-g1-01\n", None), ("web", None),
        ("web-g2-01-g1-01", None), ("front", None),
    ],
)  # fmt: skip
def test_generation_of_a_name(name: str, generation: int | None) -> None:
    assert tags.generation_of("web", name) == generation


def test_generation_of_a_fleet_that_is_called_like_an_instance() -> None:
    assert tags.generation_of("web-g2-01", "web-g2-01-g1-01") == 1
    assert tags.generation_of("web", "web-g2-01-g1-01") is None


@given(st.sets(st.integers(1, 12)), st.integers(1, 5))
def test_free_names_are_the_lowest_that_are_not_taken(taken: set[int], count: int) -> None:
    names = tags.free_names("web", 3, {tags.name_of("web", 3, number) for number in taken})
    expected = [number for number in range(1, 20) if number not in taken][:count]
    assert [next(names) for _ in range(count)] == [tags.name_of("web", 3, number) for number in expected]


def test_tag_comes_back_as_it_was() -> None:
    tag = Tag("/factory/.factory/fleets/web", "web-g3-01", 3, str(of_bytes(b"image")), "r-1", 1795603979.25)
    assert tags.parse(tag.text()) == tag
    assert tag.image == of_bytes(b"image")
    assert tags.parse(Tag("/x", tags.FRONT).text()) == Tag("/x", tags.FRONT)


@given(st.one_of(st.text(max_size=40), st.sampled_from(["{}", "[]", "1", '{"folder": "/x", "id": "../x"}', "null"])))
def test_tag_of_anything_else_is_none(text: str) -> None:
    assert tags.parse(text) is None


def test_config_is_the_golden_one(golden_write: bool) -> None:
    servers = [Server("web-g2-01", 40003, 20), Server("web-g1-01", 40001, 180), Server("web-g1-02", 40002)]
    for name, fleet in {
        "haproxy-http.cfg": FLEET,
        "haproxy-tcp.cfg": dataclasses.replace(FLEET, health=Health(tcp=5432, interval_s=0.25), listen="[::1]:5432"),
    }.items():
        text = haproxy.config(fleet, servers)
        if golden_write:
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text()


@given(
    st.lists(
        st.builds(Server, st.integers(1, 99).map(lambda n: tags.name_of("web", 1, n)), st.integers(1, 65535),
                  st.integers(0, 256)),
        unique_by=lambda server: server.name,
    )
)  # fmt: skip
def test_servers_in_a_config_are_those_it_was_written_for(servers: list[Server]) -> None:
    assert sorted(haproxy.servers_in(haproxy.config(FLEET, servers)), key=lambda one: one.name) == sorted(
        servers, key=lambda one: one.name
    )


def test_seen_in_a_stat() -> None:
    seen = haproxy.seen_in(STAT)
    assert {name: (one.up, one.healthy, one.draining, one.weight, one.sessions) for name, one in seen.items()} == {
        "web-g1-01": (True, True, False, 128, 5),
        "web-g1-02": (False, False, False, 0, 0),
        "web-g2-01": (True, True, True, 0, 1),
        "web-g2-02": (True, None, True, 0, 0),
        "web-g2-03": (False, False, True, 0, 0),
        "web-g2-04": (True, True, False, 9, 0),
    }
    assert [one.answered for one in seen.values() if one.answered] == [(("2xx", 95), ("5xx", 8))]
    assert seen["web-g2-01"].server == Server("web-g2-01", 40003, 30)
    assert [one.why for one in seen.values() if one.why] == ["it answers with status 503"]


def test_a_server_without_weight_drains() -> None:
    assert haproxy.weighing(Server("a", 1)) == [
        "set server fleet/a.last weight 0", "set server fleet/a.last state drain",
        "set server fleet/a weight 0", "set server fleet/a state drain",
    ]  # fmt: skip
    assert haproxy.weighing(Server("a", 1, 7)) == [
        "set server fleet/a.last weight 7", "set server fleet/a.last state ready",
        "set server fleet/a weight 7", "set server fleet/a state ready",
    ]  # fmt: skip


def test_quoted_has_no_meaning_left() -> None:
    assert haproxy.quoted("a'b\"c $d \\") == "'a'\\''b\"c $d \\'"


def test_state_in_what_qemu_says_of_its_network() -> None:
    said = (
        "Hub -1 (net):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n"
        "  TCP[ESTABLISHED]   26       127.0.0.1 50102       10.0.2.15    80     0     0\n"
        "  TCP[SYN_SENT]      27       127.0.0.1 50104       10.0.2.15    80     0     0\n"
        "  TCP[HOST_FORWARD]  13       127.0.0.1 40599       10.0.2.15    80     0     0\n"
    )
    assert [tcp.state_in(said, port) for port in (50102, 50104, 50106)] == ["ESTABLISHED", "SYN_SENT", None]
