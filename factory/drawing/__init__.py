"""A lineage as a picture: SVG for a browser, DOT for Graphviz, an indented tree for a terminal.

Pure: a graph in, text out, the same text for the same graph. Never asks the catalog, never writes. What a name or a
reason holds is shown, not run: it is escaped for the form it goes into, and what has no shape is shown as its escape.
A graph of more nodes than LIMIT is drawn around its focus, and the picture says how many are left out.
"""

from factory.drawing.graph import LIMIT, Graph, Node, bounded
from factory.drawing.picture import STYLE, svg
from factory.drawing.text import dot, tree
from factory.tabular import visible

__all__ = ["LIMIT", "STYLE", "Graph", "Node", "bounded", "dot", "svg", "tree", "visible"]
