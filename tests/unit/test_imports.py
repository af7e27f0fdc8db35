"""The code's layers: imports point one way, and some libraries stay in the one place that is for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "factory"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__version__", "errors", "redact"}),
    frozenset({"digest", "files", "proc", "tabular"}),
    frozenset({"model", "namespace", "schema"}),
    frozenset({"apt", "disk", "drawing", "lockfile", "packer", "render", "spec", "store", "trust"}),
    frozenset({"cve", "vm"}),
    frozenset({"bases", "catalog", "provision", "skeleton", "stores"}),
    frozenset({"builders", "doctor", "verify"}),
    frozenset({"release"}),
    frozenset({"bake", "compliance", "rollout"}),
    frozenset({"pages"}),
    frozenset({"cli", "__main__"}),
)
"""What a part imports stands in an earlier layer. A new part of the factory is put in its place here."""

CONFINED = {
    "click": ("cli/",),
    "sqlite_utils": ("catalog/",),
    "sqlite3": ("catalog/",),
    "subprocess": ("proc.py",),
}
"""Libraries, and the only places that import them."""

LAZY = ("boto3", "botocore")
"""Libraries that are imported where they are used, never when a module is."""


def _imports(tree: ast.AST, package: Sequence[str], *, deferred: bool = False) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether only when a function runs) of every import, those for type checkers left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            prefix = [*above, *([node.module] if node.module else [])]
            yield from ((".".join([*prefix, alias.name]), deferred) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(ast.Module(node.orelse, []), package, deferred=deferred)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(node, package, deferred=deferred or inside)


def _layer(part: str) -> int | None:
    return next((index for index, layer in enumerate(LAYERS) if part in layer), None)


def faults_of(place: str, source: str) -> list[str]:
    """What is wrong with the imports of a module at `place`, relative to factory/."""
    part = place.split("/")[0].removesuffix(".py")
    here = _layer(part)
    if here is None and part != "__init__":
        return [f"{place}: the part {part} stands in no layer"]
    package = ("factory", *place.split("/")[:-1])
    found = []
    for name, deferred in _imports(ast.parse(source), package):
        library, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if library == "factory" and other not in ("", part):
            there = _layer(other)
            if there is None or here is None or there >= here:
                found.append(f"{place}: imports {name}, which does not stand in a lower layer")
        if library in CONFINED and not place.startswith(CONFINED[library]):
            found.append(f"{place}: imports {library}, which belongs in {CONFINED[library]}")
        if library in LAZY and not deferred:
            found.append(f"{place}: imports {library} when it is imported itself")
    return found


def test_imports_of_every_module_point_to_lower_layers() -> None:
    modules = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    assert len(modules) > 10
    assert [fault for place, source in modules.items() for fault in faults_of(place, source)] == []


@pytest.mark.parametrize(
    ("place", "source", "said"),
    [
        ("spec.py", "from factory.cli import main", "lower layer"),
        ("spec.py", "from factory import lockfile", "lower layer"),
        ("spec.py", "def f():\n    from factory.bake import plan", "lower layer"),
        ("spec.py", "from . import lockfile", "lower layer"),
        ("apt/proxy.py", "from ..bake import plan", "lower layer"),
        ("bake/plan.py", "import click", "click"),
        ("cli/bake.py", "import sqlite_utils.db", "sqlite_utils"),
        ("vm/guest.py", "from subprocess import run", "subprocess"),
        ("cli/aws.py", "import boto3", "boto3"),
        ("cli/aws.py", "if True:\n    import boto3.session", "boto3"),
        ("novel/x.py", "", "no layer"),
    ],
)
def test_imports_that_break_a_rule_are_found(place: str, source: str, said: str) -> None:
    faults = faults_of(place, source)
    assert len(faults) == 1
    assert said in faults[0]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("cli/bake.py", "import click\nfrom factory.bake import plan\nfrom factory.errors import UsageError"),
        ("verify/checks.py", "import factory"),
        ("apt/questions.py", "from .snapshot import Snapshot\nfrom . import index"),
        ("cli/aws.py", "def f():\n    import boto3"),
        ("vm/guest.py", "if TYPE_CHECKING:\n    import subprocess"),
        ("catalog/record.py", "import sqlite_utils\nfrom factory.catalog import schema"),
    ],
)
def test_imports_that_keep_the_rules_pass(place: str, source: str) -> None:
    assert faults_of(place, source) == []
