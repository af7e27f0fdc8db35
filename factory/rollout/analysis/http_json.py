"""A number from a JSON document at a URL: a dotted path leads to it, `data.rates.0` by keys and places (from 0)."""

from __future__ import annotations

import re

from factory import schema
from factory.rollout.analysis.asking import NoAnswerError, Question, get

_PLACE = re.compile(r"0|[1-9][0-9]{0,8}")


def value(question: Question) -> float:
    """The number at the path. NoAnswerError: another status than 200, no JSON, nothing there, no number."""
    reply = get(question.url, question)
    if reply.status != 200:
        raise NoAnswerError(f"the answer has status {reply.status}")
    return at_path(reply.json(), question.query)


def at_path(document: object, path: str) -> float:
    """The number at a dotted path. NoAnswerError where there is none; text and truth values are no numbers."""
    found = document
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and _PLACE.fullmatch(part) and int(part) < len(found):
            found = found[int(part)]
        else:
            raise NoAnswerError(f"the document has no {schema.quoted(path)}")
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise NoAnswerError(f"{schema.quoted(path)} of the document is no number")
    try:
        return float(found)
    except OverflowError:
        raise NoAnswerError(f"{schema.quoted(path)} of the document is too large a number") from None
