"""Jinja2 -> Packer text (HCL2).

Delimiters are `<{ value }>`, `<% statement %>` and `<# comment #>`: they clash with neither Packer's `{{ }}` nor HCL's
`[ ]`. A value is quoted as an HCL expression when it is printed, so a template says `memory = <{ memory_mib }>` and
never writes quotes of its own; nothing in a value (`${`, `%{`, quotes, newlines) can become HCL. An undefined name is
an error. Source of the quoting rules: the HCL native syntax specification, "Template Literals".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from factory.errors import TemplateError

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def hcl(value: Any) -> str:
    """`value` (None, bool, int, float, str, a path, lists and dicts of these) as an HCL expression."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return '"' + _escape(str(value)) + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{hcl(str(key))} = {hcl(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(hcl(item) for item in value) + "]"
    raise TemplateError(f"a {type(value).__name__} cannot be written as HCL")


def _escape(text: str) -> str:
    escaped = "".join(
        _ESCAPES.get(char) or (f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F else char)
        for char in text
    )
    return escaped.replace("${", "$${").replace("%{", "%%{")


def _finalize(value: Any) -> Any:
    # Jinja also passes the template's own text through here at compile time, as plain str constants only when
    # they stand inside <{ }>; those are values too and are quoted alike. Undefined must reach StrictUndefined.
    return value if isinstance(value, jinja2.Undefined) else hcl(value)


def render(template: Path, values: Mapping[str, Any]) -> str:
    """The text of `template` with `values`. Raises TemplateError naming the template and line."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        autoescape=False,  # noqa: S701 - the output is HCL, quoted by the finalize hook
        variable_start_string="<{",
        variable_end_string="}>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        return environment.get_template(template.name).render(values)
    except jinja2.TemplateNotFound as error:
        raise TemplateError(
            f"there is no template {error.name}",
            where=str(template),
            hint="factory init shows the templates a factory starts with",
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(str(error.message), where=f"{template}:{error.lineno}") from error
    except jinja2.UndefinedError as error:
        raise TemplateError(
            f"{error.message}",
            where=f"{template}:{_line_of(error, template)}",
            hint="known names: " + ", ".join(sorted(values)),
        ) from error


def _line_of(error: BaseException, template: Path) -> int:
    """The last template line in an exception's traceback (Jinja rewrites it to template lines)."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(template):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
