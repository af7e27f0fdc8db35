"""Secrets: found in every form, struck from text, read from the environment or a private file."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.bake import secrets
from factory.errors import UsageError
from factory.model import ImageSpec, Layout
from factory.provision import runner
from factory.redact import MASK, Redactor, patterns, url_without_secrets

IMAGE = ImageSpec("web", "amd64", "b", False, "rootfs", "p.yml", secrets=("TOKEN",))
VALUES = st.text(min_size=8, max_size=40).filter(
    lambda text: text.encode("utf-8", "ignore") == text.encode("utf-8", "replace")
)


@given(VALUES, st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_base64_of_any_text_around_a_secret_holds_a_pattern(value: str, before: bytes, after: bytes, url: bool) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = encode(before + value.encode() + after)
    assert any(form in text for form in patterns(value.encode()))


@given(VALUES, st.text(), st.text())
def test_redactor_leaves_no_secret(value: str, before: str, after: str) -> None:
    text = Redactor({"TOKEN": value})(f"{before}{value}{after}")
    assert value not in text.replace(MASK, "\0")


@given(st.lists(VALUES, min_size=1, max_size=6), st.data())
def test_redactor_leaves_no_line_of_a_secret_of_many(values: list[str], data: st.DataObject) -> None:
    lines = [line.strip() for line in "\n".join(values).encode().splitlines()]
    long = [line.decode() for line in lines if len(line) >= 16]
    secret = "\n".join(values)
    some = data.draw(st.lists(st.sampled_from(long), max_size=3)) if long else []
    text = Redactor({"KEY": secret})("x".join(some)).replace(MASK, "\0")
    assert not [line for line in some if line in text]


@given(VALUES)
def test_redactor_leaves_no_percent_encoded_secret(value: str) -> None:
    encoded = quote(value, safe="")
    assert encoded not in Redactor({"TOKEN": value})(f"https://user:{encoded}@host/").replace(MASK, "\0")
    assert patterns(value.encode())[encoded.encode()] in ("percent-encoded", "as it is", "a line of it", "in base64")


def test_the_armour_of_a_key_betrays_nothing() -> None:
    """Every image with an ssh client has it: only what is between counts."""
    found = patterns(
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n0123456789abcdef\nshort\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    assert [form for form, what in found.items() if what == "a line of it"] == [b"0123456789abcdef"]


@given(st.integers(2, 60), st.sampled_from(("msg", "stderr", "stdout")), st.text(alphabet="\nab ", max_size=60))
def test_no_part_of_a_long_secret_is_left_in_a_tasks_message(count: int, stream: str, before: str) -> None:
    lines = [f"{number:04}{'k' * 60}" for number in range(count)]
    redact = Redactor({"KEY": "\n".join(lines)})
    message = runner._message({"msg": "it failed", stream: before + "\n".join(lines)}, redact)
    assert not [line for line in lines if line in message]
    assert "kkkkkkkk" not in json.dumps(message)


def test_redactor_strikes_base64_and_json_forms() -> None:
    value = 'top "secret"\nvalue'
    redact = Redactor({"T": value})
    encoded = base64.b64encode(b"xy" + value.encode() + b"z").decode()
    assert MASK in redact(encoded)
    assert "secret" not in redact('{"msg": "top \\"secret\\"\\nvalue"}')


def test_secret_from_environment_file_and_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert secrets.read(layout, IMAGE, {"TOKEN": "from-environment"}) == {"TOKEN": "from-environment"}
    path = tmp_path / "token"
    path.write_text("from-a-file\n")
    path.chmod(0o600)
    assert secrets.read(layout, IMAGE, {"TOKEN_FILE": str(path)}) == {"TOKEN": "from-a-file"}
    folder = tmp_path / ".factory/secrets"
    folder.mkdir(parents=True)
    (folder / "TOKEN").write_text("from-the-folder")
    (folder / "TOKEN").chmod(0o600)
    assert secrets.read(layout, IMAGE, {"X": ""}) == {"TOKEN": "from-the-folder"}


def test_secret_missing_open_or_short_is_refused_without_its_value(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(UsageError, match="TOKEN is not given") as caught:
        secrets.read(layout, IMAGE, {"X": ""})
    assert caught.value.where == "image.web.secrets"
    path = tmp_path / "token"
    path.write_text("readable-by-others")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others can read") as caught:
        secrets.read(layout, IMAGE, {"TOKEN_FILE": str(path)})
    assert "readable-by-others" not in caught.value.message
    with pytest.raises(UsageError, match="shorter than 8"):
        secrets.read(layout, IMAGE, {"TOKEN": "short"})
    assert secrets.read(layout, replace(IMAGE, secrets=()), {}) == {}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://far.example/x?a=1", "https://far.example/x?a=1"),
        ("https://me:pass@far.example:9/x", "https://*****@far.example:9/x"),
        ("https://me:p@ss@far.example/x@y", "https://*****@far.example/x@y"),
        (
            "https://far.example/?n=1&API_KEY=abc&x-auth-sig=z#f",
            "https://far.example/?n=1&API_KEY=*****&x-auth-sig=*****#f",
        ),
        ("https://[::1", "*****"),
    ],
)
def test_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert url_without_secrets(url) == shown
