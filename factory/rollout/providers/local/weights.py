"""Percent of traffic per generation, as whole weights of servers, and back. Pure.

HAProxy gives a server the share weight/sum of all weights, each a whole number of 0 to 256. With k the largest factor
for which no server of a generation with w percent and n healthy servers needs more than 256 of the w*k to be spread
over them, the generations' shares are exactly what was asked for; k is at least 2, so there always is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

HIGHEST = 256


def spread(percent: Mapping[int, int], healthy: Mapping[int, Sequence[str]]) -> dict[str, int]:
    """The weight of each healthy server (generation -> names). Those of generations without traffic have 0.

    Where a generation has more servers than its share has parts, the last of them get nothing. Every generation that
    is to get traffic must have a healthy server.
    """
    busy = {generation: share for generation, share in percent.items() if share}
    factor = min((HIGHEST * len(healthy[generation]) // share for generation, share in busy.items()), default=0)
    weights: dict[str, int] = {}
    for generation, names in healthy.items():
        parts = busy.get(generation, 0) * factor
        for index, name in enumerate(names):
            weights[name] = parts // len(names) + (1 if index < parts % len(names) else 0)
    return weights


def percentages(weights: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Percent per generation from (generation, weight) of the servers that get traffic; together 100, or empty.

    Rounded so that the sum is kept: what is left goes to the largest remainders.
    """
    sums: dict[int, int] = {}
    for generation, weight in weights:
        if weight > 0:
            sums[generation] = sums.get(generation, 0) + weight
    total = sum(sums.values())
    percent = {generation: parts * 100 // total for generation, parts in sums.items()}
    by_remainder = sorted(sums, key=lambda generation: (-(sums[generation] * 100 % total), generation))
    for generation in by_remainder[: 100 - sum(percent.values())] if sums else ():
        percent[generation] += 1
    return percent
