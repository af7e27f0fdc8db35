"""The lineage of an image as a graph to draw: what it descends from, what descends from it, nearest first."""

from __future__ import annotations

from factory.catalog import images, lineage
from factory.catalog.database import Catalog
from factory.catalog.finding import KnownImage
from factory.drawing import LIMIT, Graph, Node


def around(catalog: Catalog, image: KnownImage, as_of: str | None = None, limit: int = LIMIT) -> Graph:
    """The graph around an image, `limit` nodes at most: all ancestors, then the nearest descendants."""
    above = [one.image for one in lineage.ancestors(catalog, image.id)]
    room = max(0, limit - len(above) - 1)
    below = [one.image for one in lineage.descendants(catalog, image.id, as_of=as_of, limit=room)]
    total = lineage.count_descendants(catalog, image.id, as_of=as_of) if len(below) == room else len(below)
    shown = [*reversed(above), image, *below]
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
    return Graph(nodes, edges, f"Lineage of {image.who}", total - len(below))
