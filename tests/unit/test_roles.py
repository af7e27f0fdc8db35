"""The repository's own roles keep their promises: described arguments, checks, and one check for each tagged rule."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "playbooks" / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
UNITS = {"_s": "second", "_mib": "mib", "_days": "day", "_percent": "percent"}
"""How the name of an argument with a unit ends, and the word its description must hold."""
RULE = re.compile(r"(?:cis(?:_[0-9]+)+|own_[a-z_]+)\Z")
CHECK = re.compile(r"test_(cis(?:_[0-9]+)+|own_[a-z_]+)")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def tasks_of(role: str) -> list[dict[str, Any]]:
    return [task for path in sorted((ROLES / role / "tasks").glob("*.yml")) for task in read(path)]


def options_of(role: str) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = read(ROLES / role / "meta/argument_specs.yml")["argument_specs"]["main"][
        "options"
    ]
    return options


def rules_of(role: str) -> list[str]:
    return [tag for task in tasks_of(role) for tag in task.get("tags", ()) if RULE.match(tag)]


def checks_of(role: str) -> list[str]:
    trees = [ast.parse(path.read_text()) for path in sorted((ROLES / role / "checks").glob("test_*.py"))]
    return [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_roles_are_the_three_of_this_repository() -> None:
    assert NAMES == ["base", "hardening", "web"]


def test_every_rule_is_one_task_and_one_check() -> None:
    rules = rules_of("hardening")
    checks = [match[1] for match in map(CHECK.match, checks_of("hardening")) if match]
    assert [rule for rule, count in Counter(rules).items() if count > 1] == []
    assert [rule for rule, count in Counter(checks).items() if count > 1] == []
    assert sorted(checks) == sorted(rules)
    assert len(rules) > 60


def test_every_task_of_hardening_is_a_rule() -> None:
    for task in tasks_of("hardening"):
        tags = task.get("tags", [])
        if "ansible.builtin.import_tasks" in task or tags == ["always"]:
            continue
        assert len(tags) == 1, task["name"]
        assert RULE.match(tags[0]), task["name"]


def test_rule_s_name_holds_its_number() -> None:
    for task in tasks_of("hardening"):
        for tag in task.get("tags", ()):
            if tag.startswith("cis_"):
                number = tag.removeprefix("cis_").replace("_", ".")
                assert task["name"].startswith(f"CIS {number} - ")


@pytest.mark.parametrize("role", NAMES)
def test_arguments_are_described_and_cover_every_default(role: str) -> None:
    defaults, options = read(ROLES / role / "defaults/main.yml"), options_of(role)
    assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults
    for name, option in options.items():
        assert option["type"], name
        assert option["description"].endswith("."), name
        assert "default" in option or option.get("required"), name
        assert option["type"] != "list" or option["elements"], name


@pytest.mark.parametrize("role", NAMES)
def test_arguments_that_are_quantities_carry_their_unit(role: str) -> None:
    quantities = {name: option for name, option in options_of(role).items() if option["type"] in ("int", "float")}
    counts = {"hardening_ssh_max_auth_tries", "hardening_ssh_max_sessions"}
    for name, option in quantities.items():
        if name in counts:
            continue
        (word,) = [word for ending, word in UNITS.items() if name.endswith(ending)]
        assert word in option["description"].lower(), name


@pytest.mark.parametrize("role", NAMES)
def test_role_has_checks(role: str) -> None:
    assert any(name.startswith("test_") for name in checks_of(role))


@pytest.mark.parametrize("role", NAMES)
def test_tasks_use_only_modules_that_come_with_ansible(role: str) -> None:
    keywords = {"name", "tags", "notify", "loop", "loop_control", "register", "changed_when", "failed_when", "when"}
    handlers = ROLES / role / "handlers/main.yml"
    for task in [*tasks_of(role), *(read(handlers) if handlers.exists() else ())]:
        assert task["name"]
        (module,) = task.keys() - keywords
        assert module.startswith("ansible.builtin."), task["name"]


@pytest.mark.parametrize("role", NAMES)
def test_handlers_that_are_notified_exist(role: str) -> None:
    path = ROLES / role / "handlers/main.yml"
    handlers = {handler["name"] for handler in read(path)} if path.exists() else set()
    assert {task["notify"] for task in tasks_of(role) if "notify" in task} == handlers
