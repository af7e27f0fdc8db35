"""A lineage as text: DOT for Graphviz, an indented tree for a terminal."""

from __future__ import annotations

from factory.digest import Digest
from factory.drawing.graph import LIMIT, Graph, Node, bounded, drawn, note, short
from factory.tabular import visible


def dot(graph: Graph) -> str:
    """The graph for Graphviz, whose quoting is that of its language page (version 2.43 and later): in a label a
    backslash, a quote and an ampersand mean something of their own."""
    graph = bounded(graph)
    lines = [
        f"digraph {_quoted(graph.title)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif"];',
        *(f"  {_quoted(node.digest)} [{_dot_attributes(node)}];" for node in graph.nodes),
        *(f"  {_quoted(parent)} -> {_quoted(child)};" for parent, child in drawn(graph)),
        *([f"  label={_quoted(note(graph))};"] if note(graph) else []),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _dot_attributes(node: Node) -> str:
    lines = [node.who, short(node.digest), *([", ".join(node.channels)] if node.channels else [])]
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
    return "".join(f"{line}\n" for line in [*lines, *([note(graph)] if note(graph) else [])])


def _line(node: Node) -> str:
    parts = [visible(node.who), visible(short(node.digest))]
    parts += ["base"] if node.role == "base" else []
    parts += [f"[{visible(', '.join(node.channels))}]"] if node.channels else []
    parts += [f"revoked: {visible(node.revoked)}"] if node.revoked is not None else []
    return "  ".join(parts) + ("  <-" if node.is_focus else "")
