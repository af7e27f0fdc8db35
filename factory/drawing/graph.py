"""A lineage as a graph to draw, and how its nodes are called in words."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from factory.digest import Digest

LIMIT = 200
"""So many nodes are drawn."""


@dataclass(frozen=True)
class Node:
    """An image (`role` image) or what it starts from (base). `revoked`: why it is withdrawn, itself or through an
    ancestor; None where it is not. `channels`: where it stands. The focus is the one the picture is about."""

    digest: Digest
    name: str
    arch: str
    role: str = "image"
    revoked: str | None = None
    channels: tuple[str, ...] = ()
    is_focus: bool = False

    @property
    def who(self) -> str:
        """NAME/ARCH."""
        return f"{self.name}/{self.arch}"

    @property
    def words(self) -> str:
        """All of it, as a sentence for a tooltip or a screen reader."""
        parts = [f"{self.role} {self.who}", self.digest]
        if self.channels:
            parts.append("in " + ", ".join(self.channels))
        if self.revoked is not None:
            parts.append(f"revoked: {self.revoked}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Graph:
    """Nodes, each digest once, and edges from parent to child; an edge to what is no node is not drawn.

    `left_out`: how many more there are that whoever made the graph did not put into it.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Digest, Digest], ...] = ()
    title: str = "Lineage"
    left_out: int = 0

    @cached_property
    def children(self) -> dict[Digest, list[Digest]]:
        """Digest -> digests of its children that are nodes, in the order of the nodes."""
        return self._beside(self._known)

    @cached_property
    def parents(self) -> dict[Digest, list[Digest]]:
        """Digest -> digests of its parents that are nodes."""
        return self._beside((child, parent) for parent, child in self._known)

    @property
    def _known(self) -> list[tuple[Digest, Digest]]:
        there = {node.digest for node in self.nodes}
        return [edge for edge in dict.fromkeys(self.edges) if there.issuperset(edge)]

    def _beside(self, edges: Iterable[tuple[Digest, Digest]]) -> dict[Digest, list[Digest]]:
        rank = {node.digest: number for number, node in enumerate(self.nodes)}
        found: dict[Digest, list[Digest]] = {node.digest: [] for node in self.nodes}
        for one, other in edges:
            found[one].append(other)
        return {one: sorted(others, key=rank.__getitem__) for one, others in found.items()}


def bounded(graph: Graph, limit: int = LIMIT) -> Graph:
    """At most `limit` nodes of a graph: the focus, what it descends from, what descends from it, nearest first."""
    if len(graph.nodes) <= limit:
        return graph
    starts = [node.digest for node in graph.nodes if node.is_focus]
    order = [*_reached(starts, graph.parents), *_reached(starts, graph.children), *(n.digest for n in graph.nodes)]
    kept = set(list(dict.fromkeys(order))[:limit])
    nodes = tuple(node for node in graph.nodes if node.digest in kept)
    return replace(graph, nodes=nodes, left_out=graph.left_out + len(graph.nodes) - len(nodes))


def _reached(starts: Iterable[Digest], beside: dict[Digest, list[Digest]]) -> list[Digest]:
    """What can be reached, nearest first."""
    found = dict.fromkeys(starts)
    waiting = deque(found)
    while waiting:
        for other in beside[waiting.popleft()]:
            if other not in found:
                found[other] = None
                waiting.append(other)
    return list(found)


def drawn(graph: Graph) -> list[tuple[Digest, Digest]]:
    """(parent, child) of every edge between two nodes."""
    return [(parent, child) for parent, children in graph.children.items() for child in children]


def short(digest: str) -> str:
    """The beginning of a digest."""
    return digest[:19]


def note(graph: Graph) -> str:
    """What is said of those that are left out; nothing where none is."""
    return f"{graph.left_out:,} more not drawn" if graph.left_out else ""
