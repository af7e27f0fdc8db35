"""A number from Prometheus: the instant query of its HTTP API (`/api/v1/query`, as documented for 2.x), or of what
speaks it. Exactly one series must come: which of several is meant, nobody can know."""

from __future__ import annotations

import math
import re
from urllib.parse import urlencode

from factory import schema
from factory.rollout.analysis.asking import NoAnswerError, Question, Reply, get

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAMED = {"NaN": math.nan, "+Inf": math.inf, "-Inf": -math.inf, "Inf": math.inf}


def value(question: Question) -> float:
    """The number that the query gives now; NaN and infinities as such. NoAnswerError where there is none."""
    asked = urlencode({"query": question.query, "timeout": f"{max(1, math.floor(question.timeout_s))}s"})
    return read(get(f"{question.url.rstrip('/')}/api/v1/query?{asked}", question))


def read(reply: Reply) -> float:
    """The number in an answer of the API. NoAnswerError: an error, a warning, no series, several, no number."""
    answer = reply.json()
    if not isinstance(answer, dict):
        raise NoAnswerError(f"status {reply.status}, and no answer of Prometheus")
    if answer.get("status") != "success" or reply.status != 200:
        said = f"{answer.get('errorType', 'error')}: {answer.get('error', 'no reason given')}"
        raise NoAnswerError(f"Prometheus refuses (status {reply.status}): {schema.quoted(said)}")
    if answer.get("warnings"):  # what is missing is not in the data: it may be the half that fails
        raise NoAnswerError(f"Prometheus warns: {schema.quoted(answer['warnings'])}")
    return _number(_sample(answer.get("data")))


def _sample(data: object) -> object:
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar":
        return result
    if kind != "vector" or not isinstance(result, list):
        raise NoAnswerError(f"the query gives {schema.quoted(kind)}, not one number")
    if not result:
        raise NoAnswerError("the query gives no series: there are no data")
    if len(result) > 1:
        raise NoAnswerError(f"the query gives {len(result)} series; make one of them, such as by sum()")
    return result[0].get("value") if isinstance(result[0], dict) else None


def _number(sample: object) -> float:
    text = sample[1] if isinstance(sample, list) and len(sample) == 2 else None
    if not isinstance(text, str):
        raise NoAnswerError("the answer of Prometheus has no value")
    if text in _NAMED:
        return _NAMED[text]
    if not _NUMBER.fullmatch(text):
        raise NoAnswerError(f"{schema.quoted(text)} is no number")
    return float(text)
