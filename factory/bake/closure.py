"""The files that a playbook's outcome depends on: itself, what it imports, its roles and theirs, files, collections.

Read from the YAML alone, without running Ansible, so it errs on the side of more: a role name that is a template means
every role; a string that names a file beside the playbook means that file. A role's `checks/` are not part of it (they
belong to verification), and neither is anything outside the factory's folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from factory import digest
from factory.digest import Digest
from factory.errors import SpecError

_ROLE_KEYS = {"import_role", "include_role", "ansible.builtin.import_role", "ansible.builtin.include_role"}
_BESIDE = ("collections", "group_vars", "host_vars", "library", "module_utils", "requirements.yml")
_PLUGINS = re.compile(r"\w+_plugins\Z")
_SEARCHED = ("", "files", "templates", "vars", "tasks", "handlers")
_COLLECTION = re.compile(r"([a-z_][a-z0-9_]*)\.([a-z_][a-z0-9_]*)\.[a-z_][a-z0-9_.]*\Z")
_QUOTED = re.compile(r"""(?:'([^'\n]+)'|"([^"\n]+)")""")
_LEFT_OUT = {"__pycache__"}
_BESIDE_THE_ROLE = {"checks", "molecule"}
"""Folders of a role that its tasks do not use."""


@dataclass(frozen=True)
class Closure:
    """`files`: path relative to the factory's folder -> digest. `roles`: the role folders, in the order named.

    `versions`: of Ansible, whose modules do the work, and of the installed collections it uses; name -> version, and
    of each collection's manifest the digest.
    """

    files: Mapping[str, Digest]
    roles: tuple[Path, ...]
    versions: Mapping[str, str]

    @property
    def parts(self) -> dict[str, str]:
        """Everything that counts, for the bake key."""
        return {**self.files, **self.versions}


@cache
def of_playbook(root: Path, playbook: str) -> Closure:
    """The closure of a playbook (a path relative to `root`). Raises SpecError for a missing playbook or role."""
    walk = _Walk(root, root / playbook)
    walk.playbook(root / playbook)
    files = {str(path.relative_to(root)): file_digest(path) for path in sorted(walk.files)}
    return Closure(files, tuple(walk.roles), walk.versions)


@cache
def file_digest(path: Path) -> Digest:
    """The digest of a file, or of where a link points; read once a process."""
    if path.is_symlink():
        return digest.of_bytes(b"link:" + str(path.readlink()).encode())
    mode = b"x:" if path.stat().st_mode & 0o100 else b"-:"
    return digest.of_bytes(mode + path.read_bytes())


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, caches left out; `folder` itself where it is a file."""
    if folder.is_file():
        yield folder
    elif folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name not in _LEFT_OUT:
                yield from files_below(path)


def forget() -> None:
    """Read files again from here on: they may have been changed since."""
    for function in (of_playbook, file_digest, _load):
        function.cache_clear()


class _Walk:
    def __init__(self, root: Path, playbook: Path) -> None:
        self._root = root
        self._home = playbook.parent
        self.files: set[Path] = set()
        self.roles: list[Path] = []
        self.versions = {"ansible-core": importlib.metadata.version("ansible-core")}

    def playbook(self, path: Path) -> None:
        if path in self.files:
            return
        if not path.is_file():
            raise SpecError(f"there is no playbook {path.relative_to(self._root)}", where=str(path))
        self.files.add(path)
        for name in sorted(self._home.iterdir()):
            if name.name in _BESIDE or _PLUGINS.match(name.name):
                self.files.update(files_below(name))
        for play in _load(path) or ():
            if isinstance(play, dict):
                for key in ("import_playbook", "ansible.builtin.import_playbook"):
                    if isinstance(play.get(key), str):
                        self.playbook(path.parent / play[key])
                for role in play.get("roles") or ():
                    self._role(role, path)
        self._content(path, path.parent)

    def _role(self, named: Any, where: Path) -> None:
        name = (named.get("role") or named.get("name")) if isinstance(named, dict) else named
        if not isinstance(name, str):
            return
        if "{{" in name:
            for folder in sorted((self._home / "roles").glob("*/")):
                self._role(folder.name, where)
            return
        folder = self._home / "roles" / name
        if folder in self.roles:
            return
        if not folder.is_dir():
            if (found := _COLLECTION.match(name)) is not None:
                self._collection(*found.groups())
                return
            raise SpecError(
                f"there is no role {name}",
                where=str(where.relative_to(self._root)),
                hint=f"roles are looked for in {(self._home / 'roles').relative_to(self._root)}",
            )
        self.roles.append(folder)
        for path in sorted(folder.iterdir()):
            if path.name not in _BESIDE_THE_ROLE:
                self.files.update(files_below(path))
        for part in ("tasks", "handlers", "meta"):
            for path in files_below(folder / part):
                if path.suffix in (".yml", ".yaml"):
                    self._content(path, folder)

    def _content(self, path: Path, folder: Path) -> None:
        """Follow what a file of tasks, plays or role metadata names."""
        for key, value in _pairs(_load(path)):
            if key in _ROLE_KEYS or (key == "dependencies" and isinstance(value, list)):
                for role in value if isinstance(value, list) else [value]:
                    self._role(role, path)
            if isinstance(key, str) and (found := _COLLECTION.match(key)) is not None:
                self._collection(*found.groups())
            if isinstance(value, str):
                self._named(value, folder, path.parent)

    def _named(self, text: str, *folders: Path) -> None:
        """Add the files that a string, or a quoted part of a template in it, names."""
        names = {text} | {one or other for one, other in _QUOTED.findall(text)} if "{{" in text else {text}
        for name in names:
            if not 0 < len(os.fsencode(name)) < 256 or "\n" in name or "\0" in name or name in (".", "..", "/"):
                continue
            for folder in folders:
                for part in _SEARCHED:
                    if not os.path.lexists(os.path.join(folder, part, name)):  # noqa: PTH118 - quick, and rarely so
                        continue
                    found = (folder / part / name).resolve()
                    if found != folder and found.is_relative_to(self._root) and found not in folder.parents:
                        self._add(found, folder)

    def _add(self, named: Path, folder: Path) -> None:
        """Add a file or folder; what tasks in it name in turn is followed."""
        for path in files_below(named):
            if path not in self.files:
                self.files.add(path)
                if path.suffix in (".yml", ".yaml"):
                    self._content(path, folder)

    def _collection(self, namespace: str, name: str) -> None:
        """A collection kept beside the playbooks counts with all its files; one that is installed, by its version."""
        beside = self._home / "collections/ansible_collections" / namespace / name
        if not beside.is_dir() and (namespace, name) not in (("ansible", "builtin"), ("ansible", "legacy")):
            self.versions.update(_installed(namespace, name))


@cache
def _installed(namespace: str, name: str) -> Mapping[str, str]:
    """The version of a collection that a Python package brought ("not installed" where there is none).

    And the digest of its MANIFEST.json, which holds that of its list of files and so of all of them.
    """
    called = f"collection {namespace}.{name}"
    for folder in map(Path, sys.path):
        manifest = folder / "ansible_collections" / namespace / name / "MANIFEST.json"
        if manifest.is_file():
            version = str(json.loads(manifest.read_text())["collection_info"]["version"])
            return {called: version, f"{called}: MANIFEST.json": file_digest(manifest)}
    return {called: "not installed"}


class _Loader(yaml.CSafeLoader):
    """Reads YAML with Ansible's own tags as the plain values they hold."""


def _plain(loader: yaml.CSafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _plain)


@cache
def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return yaml.load(file, Loader=_Loader)  # noqa: S506 - a safe loader with tags read as plain values
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {error}", where=str(path)) from error


def _pairs(value: Any, key: Any = None) -> Iterator[tuple[Any, Any]]:
    """Every (key, value) in nested YAML; the items of a list come with the list's key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield name, item
            yield from _pairs(item, name)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, str):
                yield key, item
            else:
                yield from _pairs(item, key)
