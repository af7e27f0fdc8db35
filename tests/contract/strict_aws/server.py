"""The strict layer as a server: HTTP on loopback, in front of moto's own.

Every request is read and checked by botocore's models, put to the rules, passed to moto's server, and what that answers
is checked and corrected; whatever fits no model is noted in `violations`, which tests want empty. `fault` says what
goes wrong: `throttle`, `lose` (done, and the connection cut before the reply), `cut` (before anything was done), or an
error of choice.
"""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from strict_aws import models, rules
from strict_aws.models import AwsError, Request
from strict_aws.world import Clock, Pace, Region, wipe

Fault = Callable[[Request], str | AwsError | None]
"""What goes wrong with a request: `throttle`, `lose`, `cut`, an error, or nothing."""

_STATUS = {"ec2": 503}


@dataclass(repr=False)
class StrictAws:
    """AWS for a test. `requests`: all that were made; `writes` those that were not reads."""

    clock: Clock = field(default_factory=Clock)
    pace: Pace = field(default_factory=Pace)
    fault: Fault = lambda _: None
    sick: set[str] = field(default_factory=set)
    room: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    regions: dict[str, Region] = field(default_factory=dict)
    _written_at: dict[str, float] = field(default_factory=dict)
    _answered: dict[str, tuple[float, tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    _moto: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, pace: Pace | None = None) -> None:
        """An AWS without fleets."""
        for region in self.regions:
            wipe(region)
        self.pace, self.fault = pace or Pace(), lambda _: None
        for kept in (self.requests, self.violations, self.regions, self._written_at, self._answered):
            kept.clear()
        self.sick.clear()
        self.room.clear()

    def region(self, name: str) -> Region:
        if name not in self.regions:
            self.regions[name] = Region(name, self.clock, self.pace, self.sick, self.room)
        return self.regions[name]

    @property
    def writes(self) -> list[Request]:
        return [one for one in self.requests if not one.is_read]

    # --- one request

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            try:
                answer = self._answer(environ)
            except _CutError:
                connection: socket.socket = environ["werkzeug.socket"]
                connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError from None  # which the server takes for a client that went away
        status, headers, body = answer
        start_response(f"{status} {'OK' if status < 400 else 'Error'}", [*headers.items(), ("Connection", "close")])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        request = self._read(environ, body)
        self.requests.append(request)
        faults = models.request_faults(request)
        self.violations += faults
        if faults:
            return models.written(request, AwsError("ValidationError", "; ".join(faults)))
        what = self.fault(request)
        if what == "throttle":
            code = "RequestLimitExceeded" if request.service == "ec2" else "Throttling"
            return models.written(request, AwsError(code, "Rate exceeded", _STATUS.get(request.service, 400)))
        if isinstance(what, AwsError):
            return models.written(request, what)
        if what == "cut":
            raise _CutError
        answer = self._stale(request) or self._fresh(environ, request)
        if what == "lose":
            raise _CutError
        return answer

    def _read(self, environ: dict[str, Any], body: bytes) -> Request:
        scope = environ["HTTP_AUTHORIZATION"].split("Credential=")[1].split(",")[0].split("/")
        service = models.SERVICES.get(scope[3], scope[3])
        target = environ.get("HTTP_X_AMZ_TARGET")
        headers = {"X-Amz-Target": target} if target else {}
        return models.read(service, scope[2], headers, body, len(self.requests) + 1)

    def _stale(self, request: Request) -> tuple[int, dict[str, str], bytes] | None:
        """What a read answered before the last write, while that write is not seen everywhere yet."""
        if not request.is_read or not self.pace.lag_s:
            return None
        written_at = self._written_at.get(request.region)
        answered = self._answered.get(_key(request))
        if written_at is None or answered is None or self.clock.now() >= written_at + self.pace.lag_s:
            return None
        return answered[1] if answered[0] <= written_at else None

    def _fresh(self, environ: dict[str, Any], request: Request) -> tuple[int, dict[str, str], bytes]:
        region = self.region(request.region)
        region.settle()
        answer = self._ruled(environ, request, region)
        region.settle()
        if request.is_read:
            self._answered[_key(request)] = (self.clock.now(), answer)
        elif answer[0] < 400:
            self._written_at[request.region] = self.clock.now()
        return answer

    def _ruled(self, environ: dict[str, Any], request: Request, region: Region) -> tuple[int, dict[str, str], bytes]:
        try:
            rule = rules.rule_of(request)
            result = rule.before(region, request)
        except AwsError as error:
            return models.written(request, error)
        if result is not None:
            return self._checked(request, models.written(request, result))
        answer = self._by_moto(environ, request.service)
        if rule.after is None or answer[0] >= 400:
            return self._checked(request, answer)
        parsed = models.parsed(request, *answer)
        parsed.pop("ResponseMetadata", None)
        rule.after(region, request, parsed)
        return self._checked(request, models.written(request, parsed))

    def _by_moto(self, environ: dict[str, Any], service: Any) -> tuple[int, dict[str, str], bytes]:
        """What moto's server for a service answers; its dispatcher, which is slow, has nothing to find out here."""
        if service not in self._moto:
            self._moto[service] = create_backend_app(service)
        told: list[Any] = []
        chunks = self._moto[service](environ, lambda status, headers, *_: told.append((status, headers)))
        body = b"".join(chunks)
        status, headers = told[-1]
        kept = {key: value for key, value in headers if key.lower() not in ("content-length", "connection")}
        return int(status.split()[0]), kept, body

    def _checked(
        self, request: Request, answer: tuple[int, dict[str, str], bytes]
    ) -> tuple[int, dict[str, str], bytes]:
        if answer[0] < 400:
            self.violations += models.reply_faults(request, models.parsed(request, *answer))
        return answer


class _CutError(Exception):
    """The connection is to be cut."""


def _key(request: Request) -> str:
    said = json.dumps(request.said, sort_keys=True, default=str)
    return f"{request.service} {request.region} {request.operation} {said}"


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The URL of an application, on loopback, until the context ends."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def plain_moto() -> Any:
    """Moto's own server, without anything in front."""
    return DomainDispatcherApplication(create_backend_app)
