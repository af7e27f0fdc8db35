"""Builders: how a bake provisions. A Protocol, and the registry of those there are.

A builder turns a parent into a provisioned, not yet sealed tree, by one real Packer build of its template
(`templates/<name>.pkr.hcl.j2`) in which Packer runs the provisioner. What follows (seal, disk, verify, record) is the
same for all of them. To add one: a module here, and its line in `_MODULES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from factory.digest import Digest
from factory.errors import SpecError
from factory.model import ImageSpec, Layout
from factory.provision import TaskRecord


@dataclass(frozen=True)
class Parent:
    """What a bake starts from: its tree as a tar and that tree's digest; its disk where the builder asks for one."""

    tree: Path
    tree_digest: Digest
    disk: Callable[[], tuple[Path, str]]  # made or fetched when called: the file and its format


@dataclass(frozen=True)
class BuildJob:
    """One image to provision. `work` is the image's own folder; `lent_files(host)` what apt needs to reach our proxy.

    `secrets` are never written but to a 0600 file in `work` that is removed when provisioning ends.
    """

    image: ImageSpec
    layout: Layout
    work: Path
    parent: Parent
    lent_files: Callable[[str], Mapping[str, str]]
    secrets: Mapping[str, str] = field(default_factory=dict)
    on_task: Callable[[str], None] = lambda _: None
    on_process: Callable[[int], None] = lambda _: None
    keep_failed: bool = False


@dataclass(frozen=True)
class Provisioned:
    """A provisioned tree (a folder, to be worked on in a namespace) and the record of its tasks."""

    tree: Path
    tasks: tuple[TaskRecord, ...]
    via: tuple[str, ...]  # the names of the processes above Ansible


class Builder(Protocol):
    """One way to provision. Raise its number in `_VERSIONS` when the same inputs would give another image."""

    name: str

    def provision(self, job: BuildJob) -> Provisioned:
        """Provision the image. Raises ProvisionError, TemplateError, ToolError, BootError."""
        ...


_MODULES = {"qemu": "factory.builders.qemu", "rootfs": "factory.builders.rootfs"}
_VERSIONS = {"qemu": 2, "rootfs": 1}
NAMES = tuple(sorted(_MODULES))


def version(name: str) -> int:
    """The version of a builder: part of the bake key, so it is known without loading the builder."""
    return _VERSIONS[name]


def get(name: str) -> Builder:
    """The builder called `name`. Raises SpecError naming those there are."""
    if name not in _MODULES:
        raise SpecError(f"there is no builder {name}", hint="builders: " + ", ".join(NAMES))
    builder: Builder = importlib.import_module(_MODULES[name]).BUILDER
    return builder
