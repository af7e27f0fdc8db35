"""Templates: values become HCL literals, whatever is in them; mistakes name the template and line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import render
from factory.errors import TemplateError

HOSTILE = [
    '"',
    "${path.root}",
    "%{ if true }",
    "a\nb",
    "\\",
    "$${x}",
    "]}",
    "{{ user `x` }}",
    "\x00\x1f\x7f",
    "é😀",
    "'`$(",
]


def _unquote(literal: str) -> str:
    """Reads an HCL quoted template literal back, as the HCL specification says; refuses live interpolation."""
    assert literal[0] == literal[-1] == '"'
    body, out, i = literal[1:-1], "", 0
    while i < len(body):
        if body[i] == "\\":
            if body[i + 1] == "u":
                out, i = out + chr(int(body[i + 2 : i + 6], 16)), i + 6
            else:
                out, i = out + {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}[body[i + 1]], i + 2
        elif body[i : i + 3] in ("$${", "%%{"):
            out, i = out + body[i + 1 : i + 3], i + 3
        else:
            assert body[i : i + 2] not in ("${", "%{"), "live interpolation"
            assert body[i] not in '"\n', "ends the literal"
            out, i = out + body[i], i + 1
    return out


@given(st.text())
def test_hcl_text_round_trips(text: str) -> None:
    quoted = render.hcl(text)
    if "$${" not in text and "%%{" not in text:  # `$${` and `$` before an escaped `${` read alike in this reader
        assert _unquote(quoted) == text
    assert "\n" not in quoted


def test_hcl_writes_every_kind_of_value() -> None:
    value = {"a": [1, 2.5, True, False, None], "b c": Path("/x")}
    assert render.hcl(value) == '{"a" = [1, 2.5, true, false, null], "b c" = "/x"}'
    with pytest.raises(TemplateError, match="object"):
        render.hcl(object())


def test_packer_itself_reads_hostile_values_back(tmp_path: Path) -> None:
    """The installed Packer is the judge of our quoting: a local file gets exactly the value."""
    values = [text for text in HOSTILE if "\x00" not in text and "{{" not in text]
    out = [tmp_path / f"out{number}" for number in range(len(values))]
    template = tmp_path / "t.pkr.hcl.j2"
    template.write_text(
        'source "null" "x" { communicator = "none" }\nbuild {\n sources = ["source.null.x"]\n'
        "<% for value, path in pairs %>"
        ' provisioner "shell-local" {\n  environment_vars = [<{ "V=" ~ value }>]\n'
        '  inline = [<{ "printf %s \\"$V\\" > " ~ path }>]\n }\n<% endfor %>}\n'
    )
    rendered = tmp_path / "t.pkr.hcl"
    simple = [value for value in values if "'" not in value]  # Packer 1.6.6 quotes variables with ' for its shell
    rendered.write_text(render.render(template, {"pairs": [(v, str(p)) for v, p in zip(simple, out, strict=False)]}))
    subprocess.run(
        ["packer", "build", str(rendered)], check=True, capture_output=True, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "CHECKPOINT_DISABLE": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    for value, path in zip(simple, out, strict=False):
        assert path.read_text() == value


def test_undefined_name_names_template_line_and_known_names(tmp_path: Path) -> None:
    template = tmp_path / "x.pkr.hcl.j2"
    template.write_text("a = 1\nb = <{ missing_name }>\n")
    with pytest.raises(TemplateError) as caught:
        render.render(template, {"image": 1})
    assert "missing_name" in caught.value.message
    assert caught.value.where == f"{template}:2"
    assert caught.value.hint is not None
    assert "image" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("text", "where"), [("a\n<{ x", ":2"), ("<% if %>", ":1")])
def test_syntax_error_names_the_line(tmp_path: Path, text: str, where: str) -> None:
    template = tmp_path / "x.pkr.hcl.j2"
    template.write_text(text)
    with pytest.raises(TemplateError) as caught:
        render.render(template, {})
    assert (caught.value.where or "").endswith(where)


def test_missing_template_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="no template"):
        render.render(tmp_path / "none.pkr.hcl.j2", {})


@settings(max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=8))
def test_render_quotes_once(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    template = tmp_path_factory.mktemp("t") / "x.j2"
    template.write_text("v = <{ value }>")
    assert render.render(template, {"value": value}) == "v = " + render.hcl(value)
    assert json.dumps(None) == render.hcl(None)
