"""What runs and how rollouts went, as metrics in the text format of Prometheus (version 0.0.4) and as JSON lines.

`render` is pure: records in, text out, the same text for the same records. Every number of instances, traffic or a
rollout carries the image's digest, so that a failure is tied to its version. `write` replaces a file whole (for the
textfile collector of node_exporter), `serve` answers on this machine only.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET6

from factory import files
from factory.digest import Digest
from factory.errors import FactoryError, UsageError
from factory.rollout.model import Observation, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Rolled:
    """A rollout, the present or the last one of its fleet. `transitions`: how often it has entered each state."""

    id: str
    generation: int
    digest: Digest
    state: State
    step: int = 0
    steps: int = 0
    is_paused: bool = False
    transitions: Mapping[State, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A fleet at one moment, `at` (None: its provider could not be asked). `images`: generation -> (name, digest) of
    what it should be of; an instance's own digest comes first. `healthy`: id -> whether it can serve; those not in it
    are not known. `wanted`: generation -> percent. `ended`: final state -> how many
    rollouts of the fleet ended so."""

    fleet: str
    size: int
    at: float | None
    observed: Observation
    images: Mapping[int, tuple[str, Digest]] = field(default_factory=dict)
    healthy: Mapping[str, bool] = field(default_factory=dict)
    wanted: Mapping[int, int] = field(default_factory=dict)
    rollout: Rolled | None = None
    ended: Mapping[State, int] = field(default_factory=dict)


Labels = Mapping[str, object]
Sample = tuple[Labels, float]


def render(snapshots: Iterable[Snapshot]) -> str:
    """The metrics of all fleets. Families without a sample are left out."""
    fleets = sorted(snapshots, key=lambda one: one.fleet)
    lines = []
    for name, (kind, told, samples) in _FAMILIES.items():
        found = [({"fleet": one.fleet, **labels}, value) for one in fleets for labels, value in samples(one)]
        if found:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_written(labels)} {_number(value)}" for labels, value in found]
    return "".join(line + "\n" for line in lines)


def _written(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{escaped(str(value))}"' for name, value in labels.items()) + "}"


def escaped(value: str) -> str:
    """A label's value as the format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _of(one: Snapshot, generation: int, digest: Digest | None = None) -> dict[str, object]:
    name, planned = one.images.get(generation, ("", ""))
    return {"generation": generation, "image": name if digest in (None, planned) else "", "digest": digest or planned}


def _whose(one: Snapshot, generation: int, digest: Digest | None) -> dict[str, object]:
    """As `_of`, of an instance: what no tag names is not what was planned, and stands without a digest."""
    return _of(one, generation, digest) if digest else {"generation": generation, "image": "", "digest": ""}


def _size(one: Snapshot) -> Iterator[Sample]:
    yield {}, one.size


def _seen(one: Snapshot) -> Iterator[Sample]:
    if one.at is not None:
        yield {}, one.at


def _instances(one: Snapshot) -> Iterator[Sample]:
    words = {True: "healthy", False: "unhealthy", None: "unknown"}
    counted = Counter(
        (it.generation, it.digest, it.state, words[one.healthy.get(it.id)]) for it in one.observed.instances
    )
    for (generation, digest, state, health), number in sorted(counted.items(), key=str):
        yield {**_whose(one, generation, digest), "state": state, "health": health}, number


def _sessions(one: Snapshot) -> Iterator[Sample]:
    counted: Counter[int] = Counter()
    for it in one.observed.instances:
        if it.sessions is not None:
            counted[it.generation] += it.sessions
    for generation, number in sorted(counted.items()):
        yield _of(one, generation), number


def _wanted(one: Snapshot) -> Iterator[Sample]:
    return _weights(one, one.wanted)


def _actual(one: Snapshot) -> Iterator[Sample]:
    return _weights(one, one.observed.weights)


def _weights(one: Snapshot, weights: Mapping[int, int]) -> Iterator[Sample]:
    for generation, percent in sorted(weights.items()):
        yield _of(one, generation), percent / 100


def _answered(one: Snapshot) -> Iterator[Sample]:
    for it in one.observed.instances:
        for code, number in it.answered:
            yield {**_whose(one, it.generation, it.digest), "instance": it.id, "code": code}, number


def _rolled(name: str) -> Callable[[Snapshot], Iterator[Sample]]:
    def samples(one: Snapshot) -> Iterator[Sample]:
        if one.rollout is not None:
            yield _of_rollout(one.rollout), getattr(one.rollout, name)

    return samples


def _of_rollout(rollout: Rolled) -> dict[str, object]:
    return {"rollout": rollout.id, "generation": rollout.generation, "digest": rollout.digest}


def _state(one: Snapshot) -> Iterator[Sample]:
    if one.rollout is not None:
        for state in State:
            yield {**_of_rollout(one.rollout), "state": state.value}, one.rollout.state == state


def _transitions(one: Snapshot) -> Iterator[Sample]:
    if one.rollout is not None:
        for state in State:
            if state in one.rollout.transitions:
                yield {**_of_rollout(one.rollout), "state": state.value}, one.rollout.transitions[state]


def _ended(one: Snapshot) -> Iterator[Sample]:
    for state in State:
        if state in one.ended:
            yield {"state": state.value}, one.ended[state]


_FAMILIES: Mapping[str, tuple[str, str, Callable[[Snapshot], Iterator[Sample]]]] = {
    "factory_fleet_size": ("gauge", "Instances that a fleet is to have.", _size),
    "factory_fleet_observed_timestamp_seconds": ("gauge", "When the fleet was last looked at.", _seen),
    "factory_fleet_instances": ("gauge", "Instances by state and health.", _instances),
    "factory_fleet_sessions": ("gauge", "Sessions that are open, where they are known.", _sessions),
    "factory_fleet_weight_wanted_ratio": ("gauge", "Share of the traffic that a generation should get.", _wanted),
    "factory_fleet_weight_actual_ratio": ("gauge", "Share of the traffic that a generation gets.", _actual),
    "factory_fleet_answers_total": ("counter", "Answers that the front passed on, by class of status.", _answered),
    "factory_rollout_state": ("gauge", "1 for the state that a rollout is in.", _state),
    "factory_rollout_step": ("gauge", "The step that a rollout is at, from 1.", _rolled("step")),
    "factory_rollout_steps": ("gauge", "How many steps a rollout has.", _rolled("steps")),
    "factory_rollout_paused": ("gauge", "1 while a rollout is paused.", _rolled("is_paused")),
    "factory_rollout_transitions_total": ("counter", "How often a rollout has entered a state.", _transitions),
    "factory_rollouts_total": ("counter", "Rollouts of a fleet by how they ended.", _ended),
}
"""Name -> its kind, what it says, where its samples come from."""


# --- events


@dataclass(frozen=True)
class Event:
    """Something that happened in a rollout, for a log. `what`: a short word, such as `state`, `shift`, `verdict`."""

    at: float
    fleet: str
    rollout: str
    generation: int
    digest: Digest
    what: str
    told: str = ""
    more: Mapping[str, object] = field(default_factory=dict)


def line(event: Event) -> str:
    """An event as one line of JSON, with a newline. Nothing in `more` replaces what ties it to its version."""
    known = {
        "at": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event.what, "fleet": event.fleet, "rollout": event.rollout, "generation": event.generation,
        "digest": str(event.digest), "message": event.told,
    }  # fmt: skip
    rest = {key: _sayable(value) for key, value in event.more.items() if key not in known}
    return json.dumps({**known, **rest}, default=str) + "\n"


def _sayable(value: object) -> object:
    """JSON has no NaN and no infinities."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- handing them out


def write(path: Path, text: str) -> None:
    """Replace the file whole, readable by all. FactoryError where it cannot be written."""
    try:
        files.replace(path, text.encode())
    except OSError as error:
        raise FactoryError(f"cannot write {path.name}: {error.strerror}", where=str(path)) from error


class Server:
    """Metrics over HTTP, at `/metrics` of a loopback address; `text` is asked anew for each answer."""

    def __init__(self, host: str, port: int, text: Callable[[], str]) -> None:
        """UsageError where the address is not of this machine alone, or is taken. Port 0: one that is free."""
        if not ip_address(host).is_loopback:
            raise UsageError(f"{host} is reached from other machines", where="--listen", hint="use 127.0.0.1:PORT")

        class Handler(_Handler):
            metrics = staticmethod(text)

        class Bound(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in host else ThreadingHTTPServer.address_family
            daemon_threads = True

        try:
            self._server = Bound((host, port), Handler)
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", where="--listen") from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def run(self) -> None:
        """Answer until `stop`, or an interrupt."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """End `run`, from another thread."""
        threading.Thread(target=self._server.shutdown, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    metrics: Callable[[], str]
    timeout = 10.0

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._send(404, "metrics are at /metrics\n")
            return
        try:
            text, status = self.metrics(), 200
        except FactoryError as error:
            text, status = f"{error.message}\n", 503
        self._send(status, text)

    def _send(self, status: int, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: who asks for metrics is no event."""
