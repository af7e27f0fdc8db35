"""A lineage as SVG: needs nothing else, readable in light and dark, its nodes links that can be reached by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape, quoteattr

from factory.drawing.graph import Graph, Node, bounded, drawn, note, short
from factory.drawing.layout import HIGH, MARGIN, PER_CHARACTER, Place, placed, wide_of, width_of
from factory.tabular import visible

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


def svg(graph: Graph, link: Callable[[Node], str | None] | None = None, *, is_styled: bool = True) -> str:
    """A picture that needs nothing else, readable in light and dark. `link`: where a node leads, None for nowhere.

    Without `is_styled` STYLE is left out, for a page that brings it. More than LIMIT nodes are not drawn.
    """
    graph = bounded(graph)
    places = placed(graph)
    wide = max((place.x for place in places.values()), default=0) + width_of(graph) + MARGIN
    high = max((place.y for place in places.values()), default=0) + HIGH + MARGIN
    left_out = note(graph)
    if left_out:
        wide, high = max(wide, 340), high + 24
    role = "group" if link else "img"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="{role}" aria-label={_attribute(graph.title)}'
        f' width="{wide:.0f}" height="{high:.0f}" viewBox="0 0 {wide:.0f} {high:.0f}">',
        f"<title>{_text(graph.title)}</title>",
        f"<style>{STYLE}</style>" if is_styled else "",
        '<defs><marker id="lineage-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto"><path class="arrow" d="M0 0L8 4L0 8z"/></marker></defs>',
        *(_edge(places[parent], places[child], width_of(graph)) for parent, child in drawn(graph)),
        *(_node(node, places[node.digest], width_of(graph), link) for node in graph.nodes),
        f'<text x="{MARGIN}" y="{high - 12:.0f}">{_text(left_out)}</text>' if left_out else "",
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _edge(parent: Place, child: Place, width: float) -> str:
    x1, y1, x2, y2 = parent.x + width, parent.y + HIGH / 2, child.x - 2, child.y + HIGH / 2
    bend = max(30.0, abs(x2 - x1) / 2)
    return (
        f'<path class="edge" marker-end="url(#lineage-arrow)"'
        f' d="M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'
    )


def _node(node: Node, place: Place, width: float, link: Callable[[Node], str | None] | None) -> str:
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
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{width:.1f}" height="{HIGH}" rx="8"/>'
        f'<text class="name" x="{left:.1f}" y="{place.y + 22:.1f}">{_text(_fit(node.who, room, PER_CHARACTER))}</text>'
        f'<text class="digest" x="{left:.1f}" y="{place.y + 39:.1f}">{_text(short(node.digest))}</text>'
        f'<text x="{left:.1f}" y="{place.y + 56:.1f}">{" · ".join(third)}</text>'
    )
    target = link(node) if link else None
    classes = " ".join(kinds)
    if target is None:
        return f'<g class="{classes}">{drawn}</g>'
    current = ' aria-current="true"' if node.is_focus else ""
    label = _attribute(node.words)
    return f'<a class="{classes}" href={_attribute(target)} aria-label={label}{current}>{drawn}</a>'


def _text(text: str) -> str:
    return escape(visible(text))


def _attribute(text: str) -> str:
    return quoteattr(visible(text))


def _fit(text: str, room: float, per_character: float) -> str:
    """A text, cut where there is no room for all of it; what has no shape counts as its escape."""
    text = visible(text)
    if wide_of(text) * per_character <= room:
        return text
    while text and (wide_of(text) + 1) * per_character > room:
        text = text[:-1]
    return f"{text}…"
