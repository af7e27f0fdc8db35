"""The lineage of an image as a graph to draw: what it descends from, what descends from it, nearest first."""

from __future__ import annotations

from factory.catalog import images, lineage
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.drawing import LIMIT, Graph, Node


def around(
    catalog: Catalog, image: KnownImage, as_of: str | None = None, *, above: bool = True, below: bool = True
) -> Graph:
    """The graph around an image: all that is `above` it, then the nearest of what is `below`, LIMIT nodes at most."""
    ancestors = [one.image for one in lineage.ancestors(catalog, image.id)] if above else []
    descendants, left_out = _below(catalog, image, as_of, LIMIT - len(ancestors) - 1) if below else ([], 0)
    shown = [*reversed(ancestors), image, *descendants]
    channels = images.channels_of(catalog, shown, as_of)
    withdrawn = lineage.withdrawn(catalog, [one.id for one in shown], as_of)
    nodes = tuple(
        Node(
            one.digest,
            one.name,
            one.arch,
            one.role,
            withdrawn[one.id].reason if one.id in withdrawn else None,
            tuple(sorted(channels.get(one.id, ()))),
            is_focus=one.id == image.id,
        )
        for one in shown
    )
    digests = {one.id: one.digest for one in shown}
    edges = tuple((digests[parent], digests[child]) for parent, child in lineage.edges_among(catalog, digests))
    return Graph(nodes, edges, f"Lineage of {image.who}", left_out)


def _below(catalog: Catalog, image: KnownImage, as_of: str | None, room: int) -> tuple[list[KnownImage], int]:
    """The nearest descendants, and how many more there are."""
    found = [one.image for one in lineage.descendants(catalog, image.id, as_of=as_of, limit=max(0, room))]
    if len(found) < room:
        return found, 0
    return found, lineage.count_descendants(catalog, image.id, as_of=as_of) - len(found)
