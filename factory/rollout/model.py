"""The frozen records of a rollout: what a fleet is to be, what is seen of it, what is decided, what is to be done.

Times are seconds since 1970 (float, UTC). A weight is a whole number of percent of a fleet's traffic. A generation is a
number that rises by one with each launch of an image for a fleet; it never names two images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from factory.digest import Digest

Strategy = Literal["blue-green", "canary", "rolling"]
Outcome = Literal["abort", "pause", "continue"]


# --- what a fleet is to be (fleets.toml)


@dataclass(frozen=True)
class HttpProbe:
    """GET `path` of a guest's `port`; healthy where the status is `status` and the body contains `body` (if any)."""

    port: int
    path: str = "/"
    status: int = 200
    body: str | None = None


@dataclass(frozen=True)
class Health:
    """How an instance shows that it can serve: `http`, or else a TCP connection to `tcp`. So many consecutive
    `successes`, `interval_s` apart, within `deadline_s` of its launch."""

    http: HttpProbe | None = None
    tcp: int | None = None
    successes: int = 3
    interval_s: float = 1.0
    timeout_s: float = 5.0
    deadline_s: float = 300.0

    @property
    def port(self) -> int:
        """The guest's port that is asked, which is also the one that traffic goes to."""
        return self.http.port if self.http is not None else int(self.tcp or 0)

    @property
    def grace_s(self) -> float:
        """How long one that has served may be seen not to, in seconds."""
        return self.timeout_s + 2 * self.successes * self.interval_s


@dataclass(frozen=True)
class Analysis:
    """Where numbers come from, and what they must be. `source` asks `url` for `query`: `prometheus` an instant query,
    `http_json` a dotted path into a document. `{generation}`, `{digest}` and `{fleet}` in both are filled in for the
    generation that is judged, so that the same can be asked of the baseline. `token_file`: a 0600 file with a bearer
    token.

    A value that meets `success` (an operator and a number, such as `< 0.01`) and not `failure` is a success. `against`:
    at most so many times the baseline's value (None: not compared). `baseline`: `fresh`, an instance of the old image
    launched for it, or none. `count` measurements `interval_s` apart; more than `failure_limit` failures fail;
    `error_limit` measurements in a row that say nothing are inconclusive.
    """

    source: str
    url: str
    query: str
    success: str | None = None
    failure: str | None = None
    against: float | None = None
    baseline: Literal["fresh", "none"] = "none"
    count: int = 3
    interval_s: float = 5.0
    failure_limit: int = 0
    error_limit: int = 3
    timeout_s: float = 10.0
    token_file: str | None = None
    pause_deadline_s: float = 3600.0


@dataclass(frozen=True)
class Step:
    """A step of a canary: `weight` percent of the traffic, then `pause_s` of waiting, then analysis where asked for."""

    weight: int
    pause_s: float = 0.0
    analyse: bool = False


@dataclass(frozen=True)
class Deadline:
    """How long a wait may take, and what happens then."""

    seconds: float
    then: Outcome


@dataclass(frozen=True)
class Deadlines:
    """Of each wait. `warm` is health's own; an inconclusive analysis has `pause_deadline_s` of its own."""

    launch: Deadline = Deadline(300.0, "abort")
    shift: Deadline = Deadline(60.0, "abort")
    drain: Deadline = Deadline(120.0, "continue")
    retire: Deadline = Deadline(300.0, "continue")
    rollback: Deadline = Deadline(120.0, "continue")


@dataclass(frozen=True)
class External:
    """State outside of the instances, handed to them at launch. `path`: a 0600 file with its value (local), absolute;
    `arn`: a secret that the instance's own role reads (aws). Never baked, never on a command line, never user data."""

    name: str
    path: str | None = None
    arn: str | None = None


@dataclass(frozen=True)
class FleetSpec:
    """`[fleet.NAME]` of fleets.toml. `listen`: HOST:PORT that the fleet is reached at (local). `aws`: a table of the
    provider's own, checked by it. `bake_s`: how long all traffic stays on the new generation before the old is
    retired. `allow_state_writes`: also an image that writes outside its `state`, though there is more than one.
    `allow_public_listen`: `listen` may be an address that other machines reach. `response_timeout_s`: how long an
    instance may take to answer a request, or to say something on a connection (local)."""

    name: str
    provider: str
    image: str
    channel: str | None
    size: int
    min: int
    max: int
    strategy: Strategy
    health: Health
    arch: str | None = None
    listen: str | None = None
    steps: tuple[Step, ...] = ()
    surge: int = 1
    analysis: Analysis | None = None
    bake_s: float = 0.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    external: tuple[External, ...] = ()
    memory_mib: int = 512
    response_timeout_s: float = 60.0
    allow_revoked_fallback: bool = False
    allow_state_writes: bool = False
    allow_public_listen: bool = False
    aws: Mapping[str, object] = field(default_factory=dict)


# --- what runs where


@dataclass(frozen=True)
class Image:
    """What is launched: resolved and trusted. `reference`: a path of a disk (local) or a native id (aws, by region)."""

    name: str
    arch: str
    digest: Digest
    references: Mapping[str, str]


@dataclass(frozen=True)
class Generation:
    """One generation of a fleet: what all of its instances are of. `rollout`: the id of the rollout it belongs to."""

    number: int
    image: Image
    rollout: str


InstanceState = Literal["pending", "running", "stopping"]


@dataclass(frozen=True)
class Instance:
    """An instance as its provider sees it. `id` is the provider's own; `digest` None: no tag says it. `address`:
    HOST:PORT of its health port, None while there is none. `healthy`: the provider's own word, None where it has none
    (the engine asks the address then). `why`: what it says of one that is not healthy, if anything. `sessions`: that
    are open through the fleet's front, None: not known. `is_idle`: the front sends it nothing before the next shift,
    whatever its generation's weight. `answered`: class of status (`2xx`) -> how many answers of it the front has passed
    on since it knows the instance; empty where it does not count."""

    id: str
    generation: int
    digest: Digest | None
    state: InstanceState
    launched_at: float
    address: str | None = None
    healthy: bool | None = None
    why: str = ""
    sessions: int | None = None
    is_idle: bool = False
    answered: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Observation:
    """Everything of a fleet that the provider has: gone instances are not in it. `weights`: generation -> percent, as
    the front really sends it; generations without traffic may be left out. `missing`: generation -> why instances that
    it is to have do not come, where the provider says so."""

    instances: tuple[Instance, ...] = ()
    weights: Mapping[int, int] = field(default_factory=dict)
    missing: Mapping[int, str] = field(default_factory=dict)

    def of(self, generation: int | None) -> tuple[Instance, ...]:
        """The instances of one generation."""
        return tuple(one for one in self.instances if one.generation == generation)


class State(StrEnum):
    """Where a rollout is. Those of `TERMINAL` are ends."""

    PLANNED = "PLANNED"
    VERIFIED = "VERIFIED"
    LAUNCHING = "LAUNCHING"
    WARMING = "WARMING"
    SHIFTING = "SHIFTING"
    ANALYSING = "ANALYSING"
    BAKING = "BAKING"
    DRAINING = "DRAINING"
    RETIRING = "RETIRING"
    SUCCEEDED = "SUCCEEDED"
    ABORTING = "ABORTING"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    ROLLBACK_FAILED = "ROLLBACK_FAILED"


TERMINAL = frozenset({State.SUCCEEDED, State.ROLLED_BACK, State.ROLLBACK_FAILED})


class Verdict(StrEnum):
    """What an analysis has come to so far. INCONCLUSIVE: no data, no number, a source that fails: never good news."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Finding:
    """A verdict, and the sentence that says why. `since`: when its evidence was begun; an engine that takes over begins
    it anew."""

    verdict: Verdict
    why: str = ""
    since: float | None = None


class Order(StrEnum):
    """What an operator may tell a rollout. `promote` ends the present wait; `promote-full` all waits to come."""

    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    PROMOTE_FULL = "promote-full"


# --- what is to be done


@dataclass(frozen=True)
class Stage:
    """A step as it is planned: `weight` percent to the new generation, which then has `count` instances. `old_count`:
    how many of the old stay after it (None: all, until the end). `baseline`: one more of the old image is beside."""

    weight: int
    count: int
    pause_s: float = 0.0
    analyse: bool = False
    baseline: bool = False
    old_count: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a rollout is to do; decided once, kept as it is. `old` None: the fleet is new. `old_generation` has the
    instances that serve now; `baseline_generation` a fresh instance of the old image, for the comparison. `back`: the
    target is what ran before, as an operator asked, not what is trusted for the fleet now."""

    rollout: str
    fleet: FleetSpec
    target: Image
    generation: int
    stages: tuple[Stage, ...]
    old: Image | None = None
    old_generation: int | None = None
    baseline_generation: int | None = None
    back: bool = False

    @property
    def is_rolling(self) -> bool:
        """Whether the old generation goes step by step."""
        return self.fleet.strategy == "rolling" and self.old_generation is not None


@dataclass(frozen=True)
class Status:
    """Where a rollout is. `since`: when its state, in this step, began. `paused`: `operator`, `inconclusive`,
    `deadline`, or empty. `ill_since`: since when the new generation has had too few healthy instances.
    `flaps`: how often that has begun. `old_ill_since`: since when all of the old generation is ill. `no_return_at`:
    when the point of no return was recorded. `reason`: why it goes or went back. `brings_up`: some of the old image had
    to be launched on the way back."""

    state: State
    since: float
    step: int = 0
    paused: str = ""
    paused_since: float | None = None
    why_paused: str = ""
    skip: bool = False
    full: bool = False
    no_baseline: bool = False
    ill_since: float | None = None
    flaps: int = 0
    old_ill_since: float | None = None
    no_return_at: float | None = None
    reason: str = ""
    brings_up: bool = False


@dataclass(frozen=True)
class Facts:
    """What is known when a decision is made. `healthy`: ids of the instances that were seen to serve; `ill`: of those
    that were seen not to; the others are not known yet. `finding`: of the analysis of this step, None where none was
    asked for. `target_refused`: why the new image may not be launched just now, be it that papers cannot be read;
    `target_revoked`, `old_revoked`: why an image must not run any more. `orders`: what operators said since the last
    decision. `unreachable`: why the provider cannot be asked now; the rest is then as it was last."""

    now: float
    observed: Observation
    healthy: frozenset[str] = frozenset()
    ill: frozenset[str] = frozenset()
    finding: Finding | None = None
    target_refused: str | None = None
    target_revoked: str | None = None
    old_revoked: str | None = None
    orders: tuple[Order, ...] = ()
    unreachable: str | None = None


@dataclass(frozen=True)
class Launch:
    """See to it that a generation has `count` instances."""

    generation: int
    count: int


@dataclass(frozen=True)
class Shift:
    """Send the traffic by these weights; instances that are draining get no new sessions."""

    weights: tuple[tuple[int, int], ...]
    draining: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retire:
    """Stop these instances for good."""

    instances: tuple[str, ...]


Action = Launch | Shift | Retire


@dataclass(frozen=True)
class Decision:
    """`notes`: what is worth telling, beside the change of state itself."""

    status: Status
    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()
