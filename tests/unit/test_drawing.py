from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import drawing
from factory.digest import Digest, of_bytes
from factory.drawing import Graph, Node

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script>&amp;\\" \x00\x1b[31m\n\u202e'


def digest(number: int) -> Digest:
    return of_bytes(str(number).encode())


def node(number: int, **more: object) -> Node:
    return replace(Node(digest(number), f"image-{number}", "amd64"), **more)  # type: ignore[arg-type]


def chain(length: int) -> Graph:
    return Graph(tuple(node(n) for n in range(length)), tuple((digest(n), digest(n + 1)) for n in range(length - 1)))


def star(children: int) -> Graph:
    """A base, the focus on it, and many on that."""
    nodes = (node(0, role="base"), node(1, is_focus=True), *(node(n) for n in range(2, children + 2)))
    edges = ((digest(0), digest(1)), *((digest(1), digest(n)) for n in range(2, children + 2)))
    return Graph(nodes, edges)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph: circles, several parents, edges to what is no node, any text."""
    count = draw(st.sampled_from([*range(15), 30]))
    text = st.text(max_size=40)
    nodes = tuple(
        Node(
            digest(n), draw(text), draw(text), draw(st.sampled_from(["image", "base"])),
            draw(st.none() | text), tuple(draw(st.lists(text, max_size=3))), draw(st.booleans()),
        )
        for n in range(count)
    )  # fmt: skip
    ends = st.integers(0, count + 1)
    edges = draw(st.lists(st.tuples(ends, ends), max_size=30))
    return Graph(nodes, tuple((digest(a), digest(b)) for a, b in edges), draw(text), draw(st.integers(0, 3)))


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    found = ET.fromstring(svg).iter(f"{SVG}rect")
    return [tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height")) for rect in found]  # type: ignore[misc]


def overlaps(boxes: list[tuple[float, float, float, float]]) -> int:
    pairs = [(a, b) for index, a in enumerate(boxes) for b in boxes[index + 1 :]]
    return sum(
        a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3] for a, b in pairs
    )


@given(graphs())
@settings(max_examples=120, deadline=None)
def test_svg_of_any_graph_is_well_formed_and_no_nodes_overlap(graph: Graph) -> None:
    drawn = drawing.svg(graph, lambda node: f"/image/{node.name}")
    root = ET.fromstring(drawn)
    found = boxes(drawn)
    assert len(found) == len(graph.nodes)
    assert overlaps(found) == 0
    for x, y, width, height in found:
        assert 0 <= x < x + width <= float(root.attrib["width"])
        assert 0 <= y < y + height <= float(root.attrib["height"])
    tags = "svg title style defs marker path a rect text tspan"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= set(tags.split())
    titles = [element.findtext(f"{SVG}title") for element in root.iter(f"{SVG}a")]
    assert titles == [drawing.visible(node.words) for node in graph.nodes]


def test_overlap_is_found() -> None:
    assert overlaps([(0, 0, 10, 10), (5, 5, 10, 10), (50, 50, 1, 1)]) == 1


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_tree_of_any_graph_tells_every_node(graph: Graph) -> None:
    told = drawing.tree(graph)
    assert all(line.isprintable() for line in told.removesuffix("\n").split("\n"))
    assert all(node.digest[:19] in told for node in graph.nodes)


def dot_strings(text: str) -> list[str]:
    """The quoted strings of a DOT text, read as Graphviz reads them; what is left must be plain words."""
    rest = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", text)
    assert re.fullmatch(r"[\w\s{}\[\]=;,>-]*", rest), rest
    return re.findall(r'"((?:[^"\\]|\\.)*)"', text)


@given(graphs())
@settings(max_examples=80, deadline=None)
def test_dot_of_any_graph_is_quoted(graph: Graph) -> None:
    strings = dot_strings(drawing.dot(graph))
    tooltips = [drawing.visible(node.words) for node in graph.nodes]
    read = [string.replace("&amp;", "&").replace('\\"', '"').replace("\\\\", "\\") for string in strings]
    assert [found for found in read if found in tooltips and "sha256:" in found and ";" in found] == tooltips


def test_svg_escapes_what_is_hostile() -> None:
    hostile = Graph((Node(digest(0), HOSTILE, HOSTILE, revoked=HOSTILE, channels=(HOSTILE,)),), title=HOSTILE)
    drawn = drawing.svg(hostile, lambda _: f'/"><script>{HOSTILE}')
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert "\\u202e" in drawn


def test_svg_has_links_that_can_be_reached_and_read() -> None:
    graph = Graph((node(0, is_focus=True, revoked="CVE-1", channels=("prod", "dev")), node(1)))
    root = ET.fromstring(drawing.svg(graph, lambda node: f"/{node.name}" if node.is_focus else None))
    (link,) = root.iter(f"{SVG}a")
    assert link.attrib["href"] == "/image-0"
    assert link.attrib["aria-label"] == f"image image-0/amd64; {digest(0)}; in prod, dev; revoked: CVE-1"
    assert link.attrib["aria-current"] == "true"
    assert root.attrib["role"] == "group"
    assert ET.fromstring(drawing.svg(graph)).attrib["role"] == "img"


def test_svg_without_a_style_has_none() -> None:
    assert "<style" not in drawing.svg(chain(2), is_styled=False)
    assert "prefers-color-scheme: dark" in drawing.svg(chain(2))


def test_svg_lays_depths_out_from_left_to_right() -> None:
    lefts = [box[0] for box in boxes(drawing.svg(chain(5)))]
    assert lefts == sorted(set(lefts))
    tops = {box[1] for box in boxes(drawing.svg(chain(5)))}
    assert len(tops) == 1


def test_parent_stands_in_the_middle_of_its_children() -> None:
    tops = [box[1] for box in boxes(drawing.svg(star(12)))]
    assert tops[1] == pytest.approx(sum(tops[2:]) / 12, abs=0.2)


def test_parent_of_many_stands_beside_the_first_of_them() -> None:
    tops = [box[1] for box in boxes(drawing.svg(star(100)))]
    assert tops[0] == tops[1] == min(tops)
    assert sorted(tops[2:])[0] == tops[1]


def test_picture_of_too_many_says_how_many_are_left_out() -> None:
    graph = star(5000)
    drawn = drawing.svg(graph)
    assert len(boxes(drawn)) == drawing.LIMIT
    assert "4,802 more not drawn" in drawn
    assert "4,802 more not drawn" in drawing.dot(graph)
    assert drawing.tree(graph, 10).splitlines()[-1] == "4,992 more not drawn"
    assert {digest(0), digest(1)} <= {kept.digest for kept in drawing.bounded(graph).nodes}


def test_bound_keeps_ancestors_before_descendants() -> None:
    long = chain(60)
    nodes = tuple(replace(one, is_focus=one.digest == digest(50)) for one in long.nodes)
    kept = {one.digest for one in drawing.bounded(replace(long, nodes=nodes), 20).nodes}
    assert kept == {digest(n) for n in range(31, 51)}


def test_tree_indents_children_and_marks_the_focus() -> None:
    graph = star(2)
    short = [digest(n)[:19] for n in range(4)]
    assert drawing.tree(graph).splitlines() == [
        f"image-0/amd64  {short[0]}  base",
        f"└── image-1/amd64  {short[1]}  <-",
        f"    ├── image-2/amd64  {short[2]}",
        f"    └── image-3/amd64  {short[3]}",
    ]


def test_tree_tells_the_children_of_one_with_two_parents_once() -> None:
    edges = [(0, 2), (1, 2), (2, 3)]
    graph = Graph(tuple(map(node, range(4))), tuple((digest(a), digest(b)) for a, b in edges))
    told = drawing.tree(graph)
    assert told.count("image-3/amd64") == 1
    assert told.count("(its children are above)") == 1


def test_long_name_is_cut_in_its_box_and_whole_in_its_tooltip() -> None:
    name = "a" * 63
    root = ET.fromstring(drawing.svg(Graph((Node(digest(0), name, "amd64"),))))
    shown = next(element.text for element in root.iter(f"{SVG}text") if element.attrib.get("class") == "name")
    assert shown is not None
    assert shown.endswith("…")
    assert name in str(root.find(f"{SVG}g/{SVG}title").text)  # type: ignore[union-attr]
