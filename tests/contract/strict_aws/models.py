"""AWS's own models, by botocore: a request's parameters read and checked, a reply checked and written.

The parser of requests and the writer of replies are moto's, driven by botocore's models; what is checked against is
botocore's alone. A model knows required members, types, enumerations, patterns and bounds.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from botocore.parsers import create_parser
from botocore.validate import ParamValidator
from moto.core.exceptions import ServiceException
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model

SERVICES = {"elasticloadbalancing": "elbv2"}
"""The name in a signature -> the name of a model, where they differ."""


class AwsError(ServiceException):
    """An answer that is an error: AWS's code for it, and what it says."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One request, read by the model of its operation."""

    service: str
    region: str
    operation: str
    said: dict[str, Any]
    number: int

    @property
    def is_read(self) -> bool:
        return self.operation.startswith(("Describe", "Get", "List"))


@cache
def _operation(service: str, operation: str) -> Any:
    return get_service_model(service).operation_model(operation)


def protocol(service: str) -> str:
    return str(get_service_model(service).protocol)


def read(service: str, region: str, headers: Mapping[str, str], body: bytes, number: int) -> Request:
    """A request as it came over the wire."""
    target = headers.get("X-Amz-Target")
    if target is not None:
        operation = target.rpartition(".")[2]
        values: dict[str, str] = {}
    else:
        values = dict(parse_qsl(body.decode(), keep_blank_values=True))
        operation = values.get("Action", "")
    parser = PROTOCOL_PARSERS[protocol(service)](_operation(service, operation))
    wire: Any = {
        "values": values,
        "body": body,
        "headers": headers,
        "url_path": "/",
        "url_params": {},
        "method": "POST",
    }
    said = parser.parse(wire)
    return Request(service, region, operation, dict(said or {}), number)


def request_faults(request: Request) -> list[str]:
    """What of a request does not fit the model of its operation."""
    shape = _operation(request.service, request.operation).input_shape
    if shape is None:
        return []
    report = ParamValidator().validate(request.said, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return [*found, *_constraints(shape, request.said, request.operation)]


def reply_faults(request: Request, parsed: Mapping[str, Any]) -> list[str]:
    """What of a reply does not fit the model of its operation."""
    shape = _operation(request.service, request.operation).output_shape
    if shape is None:
        return []
    return list(_constraints(shape, parsed, request.operation, is_reply=True))


def _constraints(shape: Any, value: Any, path: str, *, is_reply: bool = False) -> Iterator[str]:
    """Enumerations, patterns and bounds, which botocore's validator leaves to the server, and (in replies) what has to
    be there."""
    if shape.type_name == "structure":
        for name in shape.required_members if is_reply else ():
            if name not in value:
                yield f"{path}: {name} is missing"
        for name, one in value.items():
            if name in shape.members:
                yield from _constraints(shape.members[name], one, f"{path}.{name}", is_reply=is_reply)
    elif shape.type_name == "list":
        most = shape.metadata.get("max")
        if most is not None and len(value) > most:
            yield f"{path}: {len(value)} items, at most {most}"
        for number, one in enumerate(value):
            yield from _constraints(shape.member, one, f"{path}[{number}]", is_reply=is_reply)
    elif shape.type_name == "map":
        for key, one in value.items():
            yield from _constraints(shape.value, one, f"{path}.{key}", is_reply=is_reply)
    elif shape.type_name == "string":
        yield from _text(shape, value, path)
    elif shape.type_name in ("integer", "long") and not isinstance(value, int):
        yield f"{path}: {value!r} is no whole number"
    elif shape.type_name in ("integer", "long"):
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if (least is not None and value < least) or (most is not None and value > most):
            yield f"{path}: {value} is not within {least} to {most}"


def _text(shape: Any, value: str, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path}: {value!r} is no text"
        return
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is none of {', '.join(shape.enum)}"
    most = shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield f"{path}: {len(value)} characters, at most {most}"
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not _pattern(pattern).fullmatch(value):
        yield f"{path}: {value!r} does not match {pattern}"


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of a model, which is Java's, as Python's."""
    for java, python in ((r"\p{L}", "A-Za-z\u00c0-\uffdc"), (r"\p{Z}", " "), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    pattern = re.sub(r"\\uD800\\uDC00-\\uDBFF\\uDFFF", r"\\U00010000-\\U0010FFFF", pattern)
    return re.compile(pattern)


def written(request: Request, result: Mapping[str, Any] | AwsError) -> tuple[int, dict[str, str], bytes]:
    """A reply: status, headers, body."""
    name = get_service_model(request.service).service_name
    serializer = get_serializer_class(name, protocol(request.service))
    with warnings.catch_warnings():  # moto warns of codes that are in no model, such as Throttling
        warnings.simplefilter("ignore", UserWarning)
        made = serializer(_operation(request.service, request.operation)).serialize(result)
    status = result.status if isinstance(result, AwsError) else made["status_code"]
    body = made["body"]
    return status, dict(made["headers"]), body.encode() if isinstance(body, str) else body


def parsed(request: Request, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """A reply as a client reads it."""
    parser = create_parser(protocol(request.service))
    said: dict[str, Any] = parser.parse(
        {"status_code": status, "headers": headers, "body": body, "context": {}},
        _operation(request.service, request.operation).output_shape,
    )
    return said
