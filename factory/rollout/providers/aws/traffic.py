"""Where a region's traffic goes: the weighted forward action of one listener or rule, read and written.

Owns the last action of that listener or rule (what comes before it, such as signing in, is kept) and one tag beside it,
the memory of when it was last shifted, and to what. Percent are kept as they are: a weight in AWS is 0 to 999.

A target group that no action names is not health-checked ("unused"), so a generation is named from its launch on,
with weight 0, until it is retired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from factory.errors import ProviderError
from factory.rollout.providers.aws import names
from factory.rollout.providers.aws.calls import Calls
from factory.rollout.providers.aws.table import Region

MOST_NAMED = 5
"""Target groups in one forward action: ELB's own limit."""
_UNAVAILABLE = {
    "Type": "fixed-response",
    "FixedResponseConfig": {"StatusCode": "503", "ContentType": "text/plain", "MessageBody": "no instance serves this"},
}


@dataclass(frozen=True)
class Memory:
    """What a region was last told to send (as it was asked for, not fitted to the region), and when; `at` 0: in a way
    that nobody has to wait after."""

    asked: Mapping[int, int]
    at: int

    def text(self) -> str:
        """As the tag's value has it: `1764066000 3:90 4:10`."""
        return " ".join([str(self.at), *(f"{number}:{weight}" for number, weight in sorted(self.asked.items()))])

    @staticmethod
    def parse(text: str | None) -> Memory | None:
        """From a tag's value; None where it says nothing we wrote."""
        try:
            at, *pairs = (text or "").split()
            split = (pair.split(":") for pair in pairs)
            return Memory({int(number): int(weight) for number, weight in split}, int(at))
        except ValueError:
            return None


@dataclass(frozen=True)
class Front:
    """A region's listener or rule as it is. `weights`: ARN of a target group -> weight, in order."""

    region: Region
    before: tuple[Mapping[str, Any], ...]
    weights: Mapping[str, int]
    memory: Memory | None = None

    def percent(self, generations: Mapping[str, int]) -> dict[int, int]:
        """Generation -> percent of the traffic, those with none left out; other people's target groups have none of
        ours, so that the sum is then below 100. `generations`: ARN -> generation."""
        shares = hundredths({arn: weight for arn, weight in self.weights.items() if weight})
        return {generations[arn]: share for arn, share in shares.items() if arn in generations and share}


def hundredths(parts: Mapping[Any, int]) -> dict[Any, int]:
    """Parts in percent, together 100 (nothing where there are none): exact where they are percent already."""
    total = sum(parts.values())
    if not total:
        return {}
    floors = {key: part * 100 // total for key, part in parts.items()}
    by_rest = sorted(parts, key=lambda key: -(parts[key] * 100 % total))
    for key in by_rest[: 100 - sum(floors.values())]:
        floors[key] += 1
    return floors


def fitted(asked: Mapping[int, int], present: frozenset[int]) -> dict[int, int]:
    """What a region is to send, where only the generations in `present` have instances: their shares, of 100 again."""
    return hundredths({number: weight for number, weight in asked.items() if weight and number in present})


def carried(actual: Mapping[int, int], memory: Memory | None, present: frozenset[int]) -> dict[int, int]:
    """The weights that a region carries out: those it was asked for if it sends them as well as it can, else what it
    really sends (`actual`)."""
    if memory is not None and actual and actual == fitted(memory.asked, present):
        return {number: weight for number, weight in memory.asked.items() if weight}
    return dict(actual)


def together(regions: list[dict[int, int]]) -> dict[int, int]:
    """The weights of a fleet, from those that its regions carry out. Where they differ, those of the last region that
    does not yet have what the first has: a shift goes through them in order, and counts when all have it."""
    behind = [weights for weights in regions if weights != regions[0]]
    return behind[-1] if behind else regions[0]


def rises(asked: Mapping[int, int], actual: Mapping[int, int]) -> bool:
    """Whether the newest generation is to get more: what one waits after. Going back never waits."""
    numbers = [number for number, weight in (*asked.items(), *actual.items()) if weight]
    if not numbers or not actual:
        return False
    newest = max(numbers)
    return asked.get(newest, 0) > actual.get(newest, 0)


# --- asking and telling


def look(calls: Calls, region: Region) -> Front:
    """The front of a region."""
    ordered = _actions(calls, region)
    described = calls.ask("elbv2", "describe_tags", ResourceArns=[region.front])["TagDescriptions"]
    tags = names.from_list(described[0].get("Tags") if described else None)
    return Front(
        region,
        tuple(_kept(action) for action in ordered[:-1]),
        _weights(ordered[-1]),
        Memory.parse(tags.get(names.SHIFTED)),
    )


def _actions(calls: Calls, region: Region) -> list[Mapping[str, Any]]:
    """The actions of a region's listener or rule, in order: there is always one."""
    if region.listener is not None:
        said = calls.ask("elbv2", "describe_listeners", ListenerArns=[region.listener])["Listeners"]
        actions = said[0]["DefaultActions"]
    else:
        said = calls.ask("elbv2", "describe_rules", RuleArns=[region.rule])["Rules"]
        actions = said[0]["Actions"]
    return sorted(actions, key=lambda action: action.get("Order", 0))


def _weights(action: Mapping[str, Any]) -> dict[str, int]:
    if action.get("Type") != "forward":
        return {}
    groups = action.get("ForwardConfig", {}).get("TargetGroups")
    if groups:
        return {one["TargetGroupArn"]: one.get("Weight", 1) for one in groups}
    return {action["TargetGroupArn"]: 1} if "TargetGroupArn" in action else {}


def _kept(action: Mapping[str, Any]) -> Mapping[str, Any]:
    """An action as it can be sent back: OpenID's secret is never told, only that it stays."""
    oidc = action.get("AuthenticateOidcConfig")
    if oidc is None:
        return action
    return {**action, "AuthenticateOidcConfig": {**oidc, "UseExistingClientSecret": True}}


def remember(calls: Calls, front: Front, memory: Memory) -> Front:
    """Write down what a region was told. Done before it is told, so that a wait is never too short."""
    if front.memory != memory:
        tag = {"Key": names.SHIFTED, "Value": memory.text()}
        calls.ask("elbv2", "add_tags", ResourceArns=[front.region.front], Tags=[tag])
    return replace(front, memory=memory)


def send(calls: Calls, front: Front, weights: Mapping[str, int]) -> Front:
    """Set the weights of target groups; none at all: everybody is told that nothing serves. Nothing is sent where it is
    so already. Waits a little until it is seen, since the next call writes what it sees, and more."""
    if len(weights) > MOST_NAMED:
        raise ProviderError(
            f"{len(weights)} generations want traffic; a forward action names at most {MOST_NAMED}",
            where=front.region.front,
            hint="end or roll back what runs, so that old generations are retired",
        )
    if dict(front.weights) == dict(weights):
        return front
    actions = [*front.before, _forward(weights) if weights else _UNAVAILABLE]
    ordered = [{**action, "Order": number} for number, action in enumerate(actions, start=1)]
    if front.region.listener is not None:
        calls.ask("elbv2", "modify_listener", ListenerArn=front.region.listener, DefaultActions=ordered)
    else:
        calls.ask("elbv2", "modify_rule", RuleArn=front.region.rule, Actions=ordered)
    calls.wait_for(lambda: dict(_weights(_actions(calls, front.region)[-1])) == dict(weights))
    return replace(front, weights=dict(weights))


def _forward(weights: Mapping[str, int]) -> dict[str, Any]:
    groups = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    return {
        "Type": "forward",
        "ForwardConfig": {"TargetGroups": groups, "TargetGroupStickinessConfig": {"Enabled": False}},
    }
