"""`[fleet.NAME.health]` and `[fleet.NAME.analysis]` of fleets.toml: how it is known that a generation is well.

Owns their keys and limits. Every number is finite, every wait is bounded, every condition can be decided, and an
analysis that compares can tell the generation from its baseline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from factory import schema
from factory.redact import url_without_secrets
from factory.rollout.analysis import PLACEHOLDERS, SOURCES
from factory.rollout.analysis.judgement import condition
from factory.rollout.model import Analysis, Health, HttpProbe
from factory.schema import Limits, Range, Table

LONGEST_S = 30 * 86400
SECONDS = Range(0, LONGEST_S, above=True)
WAIT = Range(0, LONGEST_S)
DEFAULT_AGAINST = 1.5
"""Times the baseline's value, where an analysis has a baseline and does not say how much."""

SOURCE_KEYS: Mapping[str, tuple[str, ...]] = {
    "prometheus": ("url", "query", "token_file", "fail_above"),
    "http_json": ("url", "value", "token_file", "fail_above"),
}
_QUERY_KEY = {"prometheus": "query", "http_json": "value"}
_PROBE_KEYS = tuple(one.name for one in fields(HttpProbe))
_HEALTH_KEYS = tuple(one.name for one in fields(Health))
ANALYSIS_KEYS = (
    *SOURCES,
    *(one.name for one in fields(Analysis) if one.name not in ("source", "url", "query", "token_file")),
)

_PORT = Range(1, 65535)
_TIMES = Range(1, 1000)
BRIEF = Range(0, 600, above=True)
_URL_PATH = Limits(pattern=re.compile(r"/[\x21-\x7e]*"), described="a path that begins with /, without spaces")
_BODY = Limits(pattern=re.compile(r"(?s).{1,4096}"), described="at most 4096 characters")
_URL = re.compile(r"https?://[\x21-\x7e]+")
_FILE = Limits(pattern=re.compile(r"[^\x00-\x1f\x7f]+"), described="a path without control characters")
_DOTTED = Limits(pattern=re.compile(r"[^.\x00-\x1f\x7f]+(?:\.[^.\x00-\x1f\x7f]+)*"),
                 described="a dotted path, such as data.error_rate")  # fmt: skip
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def health(table: Table) -> Health:
    """The health of a fleet."""
    found = Health(
        http=_http(table.table("http")) if table.has("http") else None,
        tcp=table.whole("tcp", _PORT) if table.has("tcp") else None,
        successes=table.whole("successes", _TIMES, default=Health.successes),
        interval_s=table.number("interval_s", BRIEF, default=Health.interval_s),
        timeout_s=table.number("timeout_s", BRIEF, default=Health.timeout_s),
        deadline_s=table.number("deadline_s", SECONDS, default=Health.deadline_s),
    )
    table.close(_HEALTH_KEYS)
    if table.has("http") == table.has("tcp"):
        table.faults.add(table.at(), 'health has either "http" or "tcp"')
    needed = (found.successes - 1) * found.interval_s
    if 0 < found.deadline_s <= needed:
        what = f"{found.successes} successes, {found.interval_s:g} s apart, take {needed:g} s"
        table.fault("deadline_s", f"{found.deadline_s:g} s can never do: {what}")
    return found


def _http(table: Table) -> HttpProbe:
    found = HttpProbe(
        port=table.whole("port", _PORT),
        path=table.text("path", _URL_PATH, default=HttpProbe.path),
        status=table.whole("status", Range(200, 599), default=HttpProbe.status),
        body=table.optional_text("body", _BODY),
    )
    table.close(_PROBE_KEYS)
    return found


def analysis(root: Path, table: Table) -> Analysis:
    """The analysis of a fleet."""
    written = [name for name in SOURCES if table.has(name)]
    if len(written) != 1:
        table.faults.add(table.at(), f"an analysis has exactly one of {', '.join(SOURCES)}")
    sources = {name: _source(root, name, table.table(name)) for name in written}
    source = next(iter(sources.values()), {"source": "", "url": "", "query": ""})
    fail_above = source.pop("fail_above", None)
    baseline = table.text("baseline", Limits(choices=("fresh", "none")), default=Analysis.baseline)
    against = table.number("against", Range(0, 1e9, above=True), default=DEFAULT_AGAINST)
    count = table.whole("count", _TIMES, default=Analysis.count)
    found = Analysis(
        **source,
        success=_condition(table, "success"),
        failure=_condition(table, "failure") or (fail_above and f"> {fail_above}"),
        against=against if baseline == "fresh" else None,
        baseline=baseline,  # type: ignore[arg-type]
        count=count,
        interval_s=table.number("interval_s", SECONDS, default=Analysis.interval_s),
        failure_limit=table.whole("failure_limit", Range(0, count - 1), default=Analysis.failure_limit),
        error_limit=table.whole("error_limit", _TIMES, default=Analysis.error_limit),
        timeout_s=table.number("timeout_s", BRIEF, default=Analysis.timeout_s),
        pause_deadline_s=table.number("pause_deadline_s", SECONDS, default=Analysis.pause_deadline_s),
    )
    table.close(ANALYSIS_KEYS)
    _check(found, table, has_fail_above=fail_above is not None)
    return found


def _source(root: Path, name: str, table: Table) -> dict[str, Any]:
    key = _QUERY_KEY[name]
    url = table.text("url", required=True)
    query = table.text(key, _DOTTED if key == "value" else schema.ANY_TEXT, required=True)
    token_file = table.optional_text("token_file", _FILE)
    fail_above = table.number("fail_above", Range(-1e300, 1e300), default=0)
    table.close(SOURCE_KEYS[name])
    if url and (problem := _url_problem(url, has_token=token_file is not None, is_base=name == "prometheus")):
        table.fault("url", f"{schema.quoted(url_without_secrets(url))} {problem}")
    for where, text in (("url", url), (key, query)):
        for found in _PLACEHOLDER.findall(text):
            if found not in PLACEHOLDERS:
                table.fault(where, f"there is no {{{found}}}; {schema.suggestion(found, PLACEHOLDERS)}")
    return {
        "source": name, "url": url, "query": query,
        "token_file": None if token_file is None else str(root / token_file),
        "fail_above": repr(fail_above) if table.has("fail_above") else None,
    }  # fmt: skip


def _url_problem(url: str, *, has_token: bool, is_base: bool) -> str | None:
    if not _URL.fullmatch(url):
        return "must be an address at https:// or http://, of printable ASCII"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        parts.port  # noqa: B018 - raises where it is none
    except ValueError as error:
        return f"is no URL: {error}"
    if not host:
        return "names no host"
    if parts.fragment or (is_base and parts.query):
        return "must end with its path" if is_base else 'must have no "#"'
    if parts.username is not None:
        return "must hold no user and no password: what is planned is kept in the catalog; see token_file"
    if has_token and parts.scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
        return "must begin with https://, for a token goes there"
    return None


def _condition(table: Table, key: str) -> str | None:
    written = table.optional_text(key)
    if written is None:
        return None
    try:
        condition(written)
    except ValueError as error:
        table.fault(key, f"{schema.quoted(written)} {error}")
        return None
    return written


def _check(found: Analysis, table: Table, *, has_fail_above: bool) -> None:
    if has_fail_above and table.has("failure"):
        table.fault("failure", '"fail_above" says it already; write one of them')
    if table.has("against") and found.baseline == "none":
        table.fault("against", 'needs baseline = "fresh": there is nothing else to compare with')
    if found.baseline == "none" and not (
        found.success or found.failure or table.has("success") or table.has("failure")
    ):
        table.faults.add(table.at(), 'says not what is good: add "success" or "failure", or compare with a baseline')
    told_apart = any(f"{{{name}}}" in found.url + found.query for name in ("generation", "digest"))
    if found.baseline == "fresh" and found.url and not told_apart:
        path = table.at(found.source)
        table.faults.add(path, "asks the same of the baseline: {generation} or {digest} must be in it")
