"""Changing trust/policy.toml: exactly what was asked for changes; comments, order and everything else stay."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from factory import skeleton
from factory.errors import SpecError
from factory.trust import keys, policy, policy_edit
from factory.trust.policy import ROLES, TrustedKey

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _public(number: int) -> keys.PublicKey:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    return keys.from_cryptography(private.public_key())


def _key(name: str, number: int, **more: Any) -> TrustedKey:
    return replace(TrustedKey(name, _public(number), frozenset({"builder", "verifier"})), **more)


TEXT = f"""\
# who signs here
version = 3  # only rises

[key.alice]   # Alice, of the platform team
public = "{_public(1)}"
roles = ["approver"]  # and nothing else
# not_after is to come

[key.nightly]
public = "{_public(2)}"
roles = [
  "builder",
  "verifier",
]
not_after = 2027-06-01T00:00:00Z # in summer

# what prod asks for
[channel.prod]
approvals = 2
"""


def test_key_is_added_after_the_last_one_and_the_rest_stays() -> None:
    edited = policy_edit.edit(TEXT, add=[_key("bob", 3, not_after=NOW, development=True)])
    assert edited == TEXT.replace("version = 3  #", "version = 4  #").replace(
        "# in summer\n",
        f'# in summer\n\n[key.bob]\npublic = "{_public(3)}"\nroles = ["builder", "verifier"]\n'
        "not_after = 2026-11-24T12:00:00Z\ndevelopment = true\n",
    )
    assert policy.loads(edited.encode()).keys["bob"] == _key("bob", 3, not_after=NOW, development=True)


def test_value_is_set_in_its_place_and_its_comment_stays() -> None:
    edited = policy_edit.edit(TEXT, change={"nightly": {"not_after": NOW}})
    assert edited == TEXT.replace("version = 3  #", "version = 4  #").replace(
        "not_after = 2027-06-01T00:00:00Z # in", "not_after = 2026-11-24T12:00:00Z  # in"
    )


def test_value_that_is_new_stands_at_the_end_of_its_table() -> None:
    edited = policy_edit.edit(TEXT, change={"alice": {"not_after": NOW}})
    assert edited == TEXT.replace("version = 3  #", "version = 4  #").replace(
        "nothing else\n", "nothing else\nnot_after = 2026-11-24T12:00:00Z\n"
    )


def test_adding_and_changing_is_one_version() -> None:
    found = policy.loads(
        policy_edit.edit(TEXT, add=[_key("nightly-2", 4)], change={"nightly": {"not_after": NOW}}).encode()
    )
    assert found.version == 4
    assert found.keys["nightly"].not_after == NOW
    assert found.keys["nightly-2"].public == _public(4)


def test_skeleton_takes_its_first_keys() -> None:
    text = policy_edit.edit(skeleton.policy_text(), add=[_key("development-1", 5, development=True)])
    text = policy_edit.edit(text, add=[_key("nightly", 6)])
    assert list(policy.loads(text.encode()).keys) == ["development-1", "nightly"]
    kept = [line for line in text.splitlines() if line in skeleton.policy_text().splitlines()]
    assert len(kept) >= len(skeleton.policy_text().splitlines()) - 1


@pytest.mark.parametrize("text", [TEXT.replace("\n", "\r\n"), TEXT.rstrip("\n")])
def test_line_ends_are_kept(text: str) -> None:
    edited = policy_edit.edit(text, add=[_key("bob", 3)], change={"alice": {"not_after": NOW}})
    assert policy.loads(edited.encode()).keys["bob"]
    assert edited.count("\n") == edited.count("\r\n") or "\r" not in text
    assert edited.endswith("\n")


@pytest.mark.parametrize(
    "text",
    [
        f'version = 3\nkey = {{ alice = {{ public = "{_public(1)}", roles = ["root"] }} }}\n',
        f'version = 3\n[key]\nalice = {{ public = "{_public(1)}", roles = ["root"] }}\n',
        f'version = 3\n[key]\nalice.public = "{_public(1)}"\nalice.roles = ["root"]\n',
    ],
)
def test_writing_we_cannot_change_is_refused_with_the_lines_to_write(text: str) -> None:
    with pytest.raises(SpecError, match="cannot be changed") as raised:
        policy_edit.edit(text, change={"alice": {"not_after": NOW}})
    assert raised.value.hint is not None
    assert raised.value.hint.endswith("version = 4\n[key.alice]\nnot_after = 2026-11-24T12:00:00Z")


def test_text_that_looks_like_a_table_does_not_mislead() -> None:
    text = TEXT.replace("# what prod", 'x = """\n[key.alice]\nnot_after = 1\n"""\n# what prod')
    with pytest.raises(SpecError, match="unknown key"):  # the policy takes no such text; the edit must not get that far
        policy_edit.edit(text, change={"alice": {"not_after": NOW}})


@pytest.mark.parametrize(
    ("add", "change", "said"),
    [
        ([_key("alice", 9)], {}, "has a key alice already"),
        ([_key("bob", 1)], {}, "this is the same key as key.alice"),
        ([], {"alic": {"not_after": NOW}}, 'has no key alic; did you mean "alice"?'),
        ([], {"alice": {"roles": ["king"]}}, "is not one of them"),
        ([], {"nightly": {"not_before": NOW + timedelta(days=999)}}, "must be later"),
        ([_key("Bob", 3)], {}, "is no name"),
    ],
)
def test_change_that_makes_no_good_policy_is_refused(add: list[TrustedKey], change: Any, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        policy_edit.edit(TEXT, add=add, change=change)
    assert said in raised.value.message


def test_version_cannot_rise_above_the_highest() -> None:
    with pytest.raises(SpecError, match="out of range"):
        policy_edit.edit(TEXT.replace("version = 3", f"version = {policy.MAX_VERSION}"), add=[_key("bob", 3)])


_COMMENT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
_NAMES = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)


@st.composite
def _policies(draw: st.DrawFn) -> str:
    names = draw(st.lists(_NAMES, max_size=4, unique=True))
    lines = [f"#{draw(_COMMENT)}", f"version = {draw(st.integers(1, 99))}  #{draw(_COMMENT)}"]
    for number, name in enumerate(names, start=1):
        lines += ["" for _ in range(draw(st.integers(0, 2)))]
        lines += [f"[key.{name}]  #{draw(_COMMENT)}", f'public = "{_public(number)}"']
        lines += [f'roles = ["{draw(st.sampled_from(ROLES))}"]  #{draw(_COMMENT)}']
        lines += draw(st.sampled_from([[], [f"#{draw(_COMMENT)}"], ["not_after = 2027-01-01T00:00:00Z"]]))
    lines += draw(st.sampled_from([[], ["[channel.prod] # x", "approvals = 3"]]))
    return "\n".join(lines) + "\n"


@given(_policies(), _NAMES, st.data())
def test_edit_changes_exactly_what_was_asked_or_refuses(text: str, name: str, data: st.DataObject) -> None:
    before = tomllib.loads(text)
    names = sorted(before.get("key", {}))
    changed = data.draw(st.sampled_from(names)) if names and data.draw(st.sampled_from([True, False])) else None
    try:
        edited = policy_edit.edit(
            text, add=[_key(name, 99)], change={} if changed is None else {changed: {"not_after": NOW}}
        )
    except SpecError as error:
        assert name in names or "cannot be changed" in error.message  # noqa: PT017 - the reason is the test
        return
    after = tomllib.loads(edited)
    assert after.pop("version") == before.pop("version") + 1
    assert after["key"].pop(name) == {"public": str(_public(99)), "roles": ["builder", "verifier"]}
    if changed is not None:
        assert after["key"][changed].pop("not_after") == NOW
        before["key"][changed].pop("not_after", None)
    assert after.get("key") == before.get("key", {})
    assert after.get("channel") == before.get("channel")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in edited.splitlines() if line.startswith("#")] == comments
