"""What docs/catalog.md says of tables, views, lines of an export and errors is so."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from factory.catalog import exchange
from factory.catalog.database import Catalog
from factory.catalog.exchange import kinds
from factory.catalog.exchange.export import IMAGE_FIELDS, export
from factory.compliance.audit import ACTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/catalog.md").read_text()
_SPAN = re.compile(r"`([^`]+)`")


def table(heading: str, first: str) -> dict[str, str]:
    """The rows of the table below a heading whose first column is called `first`: first span -> the rest."""
    below = PAGE.split(f"\n## {heading}\n" if f"\n## {heading}\n" in PAGE else f"\n### {heading}\n")[1].split("\n## ")[
        0
    ]
    rows = below.split(f"| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    return {_SPAN.findall(row.split("|")[1])[0]: row.split("|", 2)[2] for row in rows}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.open(tmp_path_factory.mktemp("doc") / "catalog.db")


@pytest.mark.parametrize("kind", ["table", "view"])
def test_documented_tables_and_views_are_those_there_are(catalog: Catalog, kind: str) -> None:
    names = {row["name"] for row in catalog.query("SELECT name FROM sqlite_master WHERE type = ?", [kind])}
    assert set(table("Tables", kind)) == {name for name in names if not name.startswith(("package_search_", "sqlite_"))}


def test_documented_lines_are_those_of_an_export(catalog: Catalog) -> None:
    said = table("The format", "kind")
    shared = {exchange.HEADER, exchange.SOURCE, exchange.PACKAGE, exchange.PACKAGE_SET, exchange.SPEC}
    shared |= {exchange.INPUTS, exchange.IMAGE, exchange.ACCOUNT, exchange.ATTESTATION, exchange.END}
    of_a_source = {kind.name: kind for kind in (kinds.EVENTS, *kinds.OF_A_SOURCE)}
    assert set(said) == shared | set(of_a_source)
    for name, kind in of_a_source.items():
        assert _SPAN.findall(said[name]) == list(kind.columns)
    assert set(_SPAN.findall(said[exchange.IMAGE])) == {"digest", "sources", *IMAGE_FIELDS}
    for line in export(catalog, "x"):
        record = json.loads(line)
        if record["kind"] not in of_a_source:
            assert set(_SPAN.findall(said[record["kind"]])) == set(record) - {"kind"}


def test_documented_omissions_are_those_of_an_export() -> None:
    sentence = PAGE.split("Left out is ")[1].split(".\n")[0]
    assert set(_SPAN.findall(sentence)) == set(exchange.LEFT_OUT)


def test_documented_errors_are_said_somewhere() -> None:
    source = "\n".join(path.read_text() for path in sorted((ROOT / "factory").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a sentence that goes on in the next line
    source = re.sub(r"\{[^{}]*\}", "…", source)
    below = PAGE.split("\n## When something is wrong\n")[1]
    said = [span for row in below.splitlines() if row.startswith("| `") for span in _SPAN.findall(row.split("|")[1])]
    assert len(said) > 10
    for message in said:
        assert message.replace("catalog.db", "…") in source.replace("catalog.db", "…"), message


def test_every_event_that_is_written_is_one_that_audit_takes() -> None:
    found = set()
    for path in sorted((ROOT / "factory").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Entry") and node.args:
                said = node.args[0]
                if "catalog" in path.parts and isinstance(said, ast.Constant):
                    found.add(said.value)
    assert len(found) > 8
    assert found <= ACTIONS
