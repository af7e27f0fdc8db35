from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import proc
from factory.apt import relation
from factory.apt.relation import Relation
from factory.errors import UsageError

VERSIONS = ["0", "1", "1.0", "1.0-1", "1.0-1~bpo", "1.0~rc1-1", "1:0.5", "2.0+deb12u1", "2.0+deb12u10", "10.0", "1.0a"]
WORDS = {"<": "lt", "<<": "lt", "<=": "le", "=": "eq", "==": "eq", ">=": "ge", ">": "gt", ">>": "gt", "!=": "ne"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("openssl", Relation("openssl")),
        (" src:openssl ", Relation("openssl", by_source=True)),
        ("openssl<3", Relation("openssl", bounds=(("<", "3"),))),
        ("libstdc++6 >= 1:2, < 1:3~", Relation("libstdc++6", bounds=((">=", "1:2"), ("<", "1:3~")))),
    ],
)
def test_relation_is_read(text: str, wanted: Relation) -> None:
    assert relation.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "src:", "< 3", "a <", "a < 3 4", "a, < 3", "a < 3,", "-a", "a ~ 3", "a < $(x)", "a < 1:2:", "a < foo",
     "a < v3", "a = 1:v3", "a >= ~1", "a >= 1, < x"],
)  # fmt: skip
def test_what_is_no_relation_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        relation.parse(text)


@pytest.mark.parametrize("sign", WORDS)
def test_bounds_are_those_of_dpkg(sign: str) -> None:
    script = f'for a in "$@"; do for b in "$@"; do dpkg --compare-versions "$a" {WORDS[sign]} "$b"; echo $?; done; done'
    answers = proc.run(["sh", "-c", script, "sh", *VERSIONS]).text.split()
    ours = [relation.parse(f"p {sign} {bound}").meets(version) for version in VERSIONS for bound in VERSIONS]
    assert ours == [answer == "0" for answer in answers]


NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,12}", fullmatch=True)
BOUNDS = st.lists(st.tuples(st.sampled_from(sorted(WORDS)), st.sampled_from(VERSIONS)), max_size=3)


@given(NAMES, st.booleans(), BOUNDS)
@settings(max_examples=100)
def test_relation_survives_being_written(name: str, by_source: bool, bounds: list[tuple[str, str]]) -> None:
    wanted = Relation(name, by_source, tuple(bounds))
    assert relation.parse(str(wanted)) == wanted


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = relation.parse(text)
    except UsageError:
        return
    assert relation.parse(str(found)) == found
