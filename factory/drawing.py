"""A lineage as a picture: SVG for a browser, DOT for Graphviz, an indented tree for a terminal.

Pure: a graph in, text out, the same text for the same graph. Never asks the catalog, never writes. What a name or a
reason holds is shown, not run: it is escaped for the form it goes into, and what has no shape is shown as its escape.
A graph of more nodes than `limit` is drawn around its focus, and the picture says how many are left out.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from xml.sax.saxutils import escape, quoteattr

from factory.digest import Digest

LIMIT = 200
"""So many nodes are drawn."""

STYLE = """
.lineage { --line: #8a94a3; --box: #ffffff; --text: #1b2430; --soft: #566070; --base: #eef1f5; --focus: #0b5fb0;
  --held: #1a6e37; --bad: #b3261e; --badbox: #fdf1f0; font-family: system-ui, "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  .lineage { --line: #7d8896; --box: #1c232d; --text: #e8ecf1; --soft: #a9b4c2; --base: #28313d; --focus: #7db8f5;
    --held: #7fd09a; --bad: #ff9d94; --badbox: #38201f; } }
.lineage .edge { fill: none; stroke: var(--line); stroke-width: 1.5; }
.lineage .arrow { fill: var(--line); }
.lineage rect { fill: var(--box); stroke: var(--line); stroke-width: 1.5; }
.lineage .base rect { fill: var(--base); }
.lineage .revoked rect { fill: var(--badbox); stroke: var(--bad); stroke-dasharray: 5 3; }
.lineage .focus rect { stroke: var(--focus); stroke-width: 3; }
.lineage text { fill: var(--soft); font-size: 12px; }
.lineage .name { fill: var(--text); font-size: 14px; font-weight: 600; }
.lineage .digest { font-family: ui-monospace, "Liberation Mono", monospace; }
.lineage .held { fill: var(--held); }
.lineage .bad { fill: var(--bad); font-weight: 600; }
.lineage a { cursor: pointer; outline: none; }
.lineage a:hover rect, .lineage a:focus-visible rect { stroke: var(--focus); stroke-width: 3; }
.lineage a:hover .name, .lineage a:focus-visible .name { text-decoration: underline; }
"""
"""The look of `svg`. A page whose policy forbids styles inside it serves this with its own."""

_NARROWEST, _WIDEST, _HIGH = 190, 330, 66
_BESIDE, _BELOW, _MARGIN = 70, 20, 14
_PER_CHARACTER = 8.2
_SWEEPS = 8
_TALL = 12
"""A column of more nodes than that begins beside its parent and goes down; others have it in their middle."""


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


# --- SVG


def svg(graph: Graph, link: Callable[[Node], str | None] | None = None, *, is_styled: bool = True) -> str:
    """A picture that needs nothing else, readable in light and dark. `link`: where a node leads, None for nowhere.

    Without `is_styled` STYLE is left out, for a page that brings it. More than LIMIT nodes are not drawn.
    """
    graph = bounded(graph)
    places = _placed(graph)
    wide = max((place.x for place in places.values()), default=0) + _width(graph) + _MARGIN
    high = max((place.y for place in places.values()), default=0) + _HIGH + _MARGIN
    note = _note(graph)
    if note:
        wide, high = max(wide, 340), high + 24
    role = "group" if link else "img"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="{role}" aria-label={_attribute(graph.title)}'
        f' width="{wide:.0f}" height="{high:.0f}" viewBox="0 0 {wide:.0f} {high:.0f}">',
        f"<title>{_text(graph.title)}</title>",
        f"<style>{STYLE}</style>" if is_styled else "",
        '<defs><marker id="lineage-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path class="arrow" d="M0 0L8 4L0 8z"/></marker></defs>',
        *(_edge(places[parent], places[child], _width(graph)) for parent, child in _drawn(graph)),
        *(_node(node, places[node.digest], _width(graph), link) for node in graph.nodes),
        f'<text x="{_MARGIN}" y="{high - 12:.0f}">{_text(note)}</text>' if note else "",
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True)
class _Place:
    """Where the upper left corner of a node is."""

    x: float
    y: float


def _drawn(graph: Graph) -> list[tuple[Digest, Digest]]:
    return [(parent, child) for parent, children in graph.children.items() for child in children]


def _edge(parent: _Place, child: _Place, width: float) -> str:
    x1, y1, x2, y2 = parent.x + width, parent.y + _HIGH / 2, child.x - 2, child.y + _HIGH / 2
    bend = max(30.0, abs(x2 - x1) / 2)
    return (
        f'<path class="edge" marker-end="url(#lineage-arrow)"'
        f' d="M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'
    )


def _node(node: Node, place: _Place, width: float, link: Callable[[Node], str | None] | None) -> str:
    kinds = ["node", node.role if node.role == "base" else "image"]
    kinds += ["revoked"] if node.revoked is not None else []
    kinds += ["focus"] if node.is_focus else []
    left, room = place.x + 12, width - 24
    third = []
    if node.revoked is not None:
        third.append('<tspan class="bad">revoked</tspan>')
    if node.channels:
        text = _fit(", ".join(node.channels), room - (60 if third else 0), 7.2)
        third.append(f'<tspan class="held">{_text(text)}</tspan>')
    if not third:
        third.append(f"<tspan>{'base' if node.role == 'base' else ''}</tspan>")
    drawn = (
        f"<title>{_text(node.words)}</title>"
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{width:.1f}" height="{_HIGH}" rx="8"/>'
        f'<text class="name" x="{left:.1f}" y="{place.y + 22:.1f}">{_text(_fit(node.who, room, _PER_CHARACTER))}</text>'
        f'<text class="digest" x="{left:.1f}" y="{place.y + 39:.1f}">{_text(_short(node.digest))}</text>'
        f'<text x="{left:.1f}" y="{place.y + 56:.1f}">{" · ".join(third)}</text>'
    )
    target = link(node) if link else None
    classes = " ".join(kinds)
    if target is None:
        return f'<g class="{classes}">{drawn}</g>'
    current = ' aria-current="true"' if node.is_focus else ""
    label = _attribute(node.words)
    return f'<a class="{classes}" href={_attribute(target)} aria-label={label}{current}>{drawn}</a>'


def _width(graph: Graph) -> float:
    """How wide each node is: as the longest name needs, within bounds."""
    longest = max((_columns(node.who) for node in graph.nodes), default=0)
    return min(max(longest * _PER_CHARACTER + 26, _NARROWEST), _WIDEST)


def _placed(graph: Graph) -> dict[Digest, _Place]:
    """A column for each depth, from left to right; in a column, in an order with few crossings, near what is beside."""
    columns = _columns_of(graph)
    is_tall = any(len(column) > _TALL for column in columns)
    heights: dict[Digest, float] = {}
    for column in columns:
        heights.update((digest, row * (_HIGH + _BELOW)) for row, digest in enumerate(column))
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
    step = _width(graph) + _BESIDE
    return {
        digest: _Place(_MARGIN + number * step, _MARGIN + heights[digest] - top)
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
        found.append(max(height, found[-1] + _HIGH + _BELOW) if found else height)
    return found


@dataclass
class _Block:
    """Nodes that stand as close as they may; `sum` of where they want to be, each less its offset in the column."""

    sum: float
    count: int = field(default=1)

    @property
    def mean(self) -> float:
        return self.sum / self.count


def _apart(wanted: Sequence[float]) -> list[float]:
    """Heights as near (least squares) to those wanted, which are sorted, as they can be without an overlap."""
    step = _HIGH + _BELOW
    blocks: list[_Block] = []
    for row, height in enumerate(wanted):
        blocks.append(_Block(height - row * step))
        while len(blocks) > 1 and blocks[-2].mean >= blocks[-1].mean:
            last = blocks.pop()
            blocks[-1] = _Block(blocks[-1].sum + last.sum, blocks[-1].count + last.count)
    means = [block.mean for block in blocks for _ in range(block.count)]
    return [mean + row * step for row, mean in enumerate(means)]


# --- DOT and text


def dot(graph: Graph) -> str:
    """The graph for Graphviz, whose quoting is that of its language page (version 2.43 and later): in a label a
    backslash, a quote and an ampersand mean something of their own."""
    graph = bounded(graph)
    lines = [
        f"digraph {_quoted(graph.title)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
        *(f"  {_quoted(node.digest)} [{_dot_attributes(node)}];" for node in graph.nodes),
        *(f"  {_quoted(parent)} -> {_quoted(child)};" for parent, child in _drawn(graph)),
        *([f"  label={_quoted(_note(graph))};"] if _note(graph) else []),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _dot_attributes(node: Node) -> str:
    lines = [node.who, _short(node.digest), *([", ".join(node.channels)] if node.channels else [])]
    lines += ["revoked"] if node.revoked is not None else []
    label = "\\n".join(_quoted(line)[1:-1] for line in lines)
    found = [f'label="{label}"', f"tooltip={_quoted(node.words)}"]
    if node.role == "base":
        found.append('style="rounded,filled", fillcolor=gray92')
    if node.revoked is not None:
        found.append("color=red3, fontcolor=red3")
    if node.is_focus:
        found.append("penwidth=3")
    return ", ".join(found)


def _quoted(text: str) -> str:
    inside = visible(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return f'"{inside}"'


def tree(graph: Graph, limit: int = LIMIT) -> str:
    """The graph as lines, children below their parents. One with several parents has its children below the first."""
    graph = bounded(graph, limit)
    nodes = {node.digest: node for node in graph.nodes}
    told: set[Digest] = set()
    lines: list[str] = []

    def tell(start: Digest) -> None:
        waiting = [(start, "", "")]
        while waiting:
            digest, lead, below = waiting.pop()
            again = digest in told and bool(graph.children[digest])
            lines.append(f"{lead}{_line(nodes[digest])}{'  (its children are above)' if again else ''}")
            if digest in told:
                continue
            told.add(digest)
            children = graph.children[digest]
            for child in reversed(children):
                is_last = child == children[-1]
                waiting.append(
                    (child, below + ("└── " if is_last else "├── "), below + ("    " if is_last else "│   "))
                )

    for node in graph.nodes:
        if not graph.parents[node.digest]:
            tell(node.digest)
    for node in graph.nodes:
        if node.digest not in told:  # in a circle: only a damaged catalog has one
            tell(node.digest)
    return "".join(f"{line}\n" for line in [*lines, *([_note(graph)] if _note(graph) else [])])


def _line(node: Node) -> str:
    parts = [visible(node.who), visible(_short(node.digest))]
    parts += ["base"] if node.role == "base" else []
    parts += [f"[{visible(', '.join(node.channels))}]"] if node.channels else []
    parts += [f"revoked: {visible(node.revoked)}"] if node.revoked is not None else []
    return "  ".join(parts) + ("  <-" if node.is_focus else "")


# --- words


def visible(text: str) -> str:
    """A text on one line, with nothing in it that would act on who shows it or is not allowed in XML."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _text(text: str) -> str:
    return escape(visible(text))


def _attribute(text: str) -> str:
    return quoteattr(visible(text))


def _short(digest: str) -> str:
    return digest[:19]


def _note(graph: Graph) -> str:
    return f"{graph.left_out:,} more not drawn" if graph.left_out else ""


def _columns(text: str) -> int:
    """How many columns of a fixed font a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in visible(text))


def _fit(text: str, room: float, per_character: float) -> str:
    """A text, cut where there is no room for all of it; what has no shape counts as its escape."""
    text = visible(text)
    if _columns(text) * per_character <= room:
        return text
    while text and (_columns(text) + 1) * per_character > room:
        text = text[:-1]
    return f"{text}…"
