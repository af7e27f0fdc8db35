"""Where the nodes of a graph go: a column for each depth, from left to right, no two of them on each other."""

from __future__ import annotations

import unicodedata
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from factory.digest import Digest
from factory.drawing.graph import Graph
from factory.tabular import visible

_NARROWEST, _WIDEST, HIGH = 190, 330, 66
_BESIDE, _BELOW, MARGIN = 70, 20, 14
PER_CHARACTER = 8.2
_SWEEPS = 8
_TALL = 12
"""A column of more nodes than that begins beside its parent and goes down; others have it in their middle."""


@dataclass(frozen=True)
class Place:
    """Where the upper left corner of a node is."""

    x: float
    y: float


def width_of(graph: Graph) -> float:
    """How wide each node is: as the longest name needs, within bounds."""
    longest = max((wide_of(node.who) for node in graph.nodes), default=0)
    return min(max(longest * PER_CHARACTER + 26, _NARROWEST), _WIDEST)


def wide_of(text: str) -> int:
    """How many columns of a fixed font a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in visible(text))


def placed(graph: Graph) -> dict[Digest, Place]:
    """A column for each depth, from left to right; in a column, in an order with few crossings, near what is beside."""
    columns = _columns_of(graph)
    is_tall = any(len(column) > _TALL for column in columns)
    heights: dict[Digest, float] = {}
    for column in columns:
        heights.update((digest, row * (HIGH + _BELOW)) for row, digest in enumerate(column))
    for sweep in range(_SWEEPS):
        beside = graph.children if sweep % 2 else graph.parents
        for column in reversed(columns) if sweep % 2 else columns:
            wanted = {
                one: _near([heights[other] for other in beside[one]] or [heights[one]], is_tall) for one in column
            }
            column.sort(key=wanted.__getitem__)
            sorted_heights = [wanted[one] for one in column]
            heights.update(zip(column, (_down if is_tall else _apart)(sorted_heights), strict=True))
    top = min(heights.values(), default=0.0)
    step = width_of(graph) + _BESIDE
    return {
        digest: Place(MARGIN + number * step, MARGIN + heights[digest] - top)
        for number, column in enumerate(columns)
        for digest in column
    }


def _columns_of(graph: Graph) -> list[list[Digest]]:
    """The nodes by depth: the longest way from a node without parents. What goes in a circle stands at the end."""
    depth: dict[Digest, int] = {}
    missing = {digest: len(parents) for digest, parents in graph.parents.items()}
    ready = deque(digest for digest, count in missing.items() if count == 0)
    for digest in ready:
        depth[digest] = 0
    while ready:
        digest = ready.popleft()
        for child in graph.children[digest]:
            depth[child] = max(depth.get(child, 0), depth[digest] + 1)
            missing[child] -= 1
            if missing[child] == 0:
                ready.append(child)
    last = max((depth[digest] for digest, count in missing.items() if count == 0), default=-1)
    columns: dict[int, list[Digest]] = defaultdict(list)
    for node in graph.nodes:
        columns[depth[node.digest] if missing[node.digest] == 0 else last + 1].append(node.digest)
    return [columns[number] for number in sorted(columns)]


def _near(heights: Sequence[float], is_tall: bool) -> float:
    """Where a node wants to be that is beside others: at the first of them, or in their middle."""
    return min(heights) if is_tall else sum(heights) / len(heights)


def _down(wanted: Sequence[float]) -> list[float]:
    """Heights that are those wanted, which are sorted, or as little below as they can be without an overlap."""
    found: list[float] = []
    for height in wanted:
        found.append(max(height, found[-1] + HIGH + _BELOW) if found else height)
    return found


@dataclass
class _Block:
    """Nodes that stand as close as they may; `sum` of where they want to be, each less its offset in the column."""

    sum: float
    count: int = 1

    @property
    def mean(self) -> float:
        return self.sum / self.count


def _apart(wanted: Sequence[float]) -> list[float]:
    """Heights as near (least squares) to those wanted, which are sorted, as they can be without an overlap."""
    step = HIGH + _BELOW
    blocks: list[_Block] = []
    for row, height in enumerate(wanted):
        blocks.append(_Block(height - row * step))
        while len(blocks) > 1 and blocks[-2].mean >= blocks[-1].mean:
            last = blocks.pop()
            blocks[-1] = _Block(blocks[-1].sum + last.sum, blocks[-1].count + last.count)
    means = [block.mean for block in blocks for _ in range(block.count)]
    return [mean + row * step for row, mean in enumerate(means)]
