"""The bake key: one digest over everything that goes into a bake. Pure but for reading the files of the factory.

An input is a name and the digests of what it is made of, so that `factory why` can name not only the input that
changed but the file, variable or package inside it. What is in the key: template, vars, playbook, base, packages,
builder, disk. `checks` (and the promises verification holds the image to) are digested beside it: a change there only
verifies again. Ansible's version counts as part of the
playbook. What is not in it: secrets, times, paths of the host, the versions of the host's other tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory import digest
from factory.bake import closure
from factory.digest import Digest
from factory.errors import SpecError
from factory.model import ImageSpec, Layout, Package

BESIDE_THE_KEY = ("checks",)
"""Inputs that are recorded, but do not change what is baked."""


@dataclass(frozen=True)
class Inputs:
    """Input name -> part -> digest. A part is a file, a variable, a package, a setting."""

    parts: Mapping[str, Mapping[str, str]]

    @property
    def digests(self) -> dict[str, Digest]:
        """One digest per input: the `[image.inputs]` of the lock."""
        return {name: digest.of_json(dict(parts)) for name, parts in sorted(self.parts.items())}

    @property
    def bake_key(self) -> Digest:
        """The digest over all inputs that decide what is baked."""
        return digest.of_json({name: value for name, value in self.digests.items() if name not in BESIDE_THE_KEY})

    def with_base(self, parts: Mapping[str, str]) -> Inputs:
        """The same inputs on another base (`base_parts`)."""
        return Inputs({**self.parts, "base": dict(parts)})

    def with_packages(self, packages: Iterable[Package]) -> Inputs:
        """The same inputs with other packages: those the playbook turned out to install."""
        return Inputs({**self.parts, "packages": _package_parts(packages)})


def collect(
    layout: Layout, image: ImageSpec, builder_version: int, base: Mapping[str, str], packages: Iterable[Package]
) -> Inputs:
    """The inputs of `image` on a base (`base_parts`), with the packages its playbook is expected to install.

    Raises SpecError where a file of the factory is missing.
    """
    playbook = closure.of_playbook(layout.root, image.playbook)
    return Inputs(
        {
            "base": base,
            "builder": {"name": image.builder, "version": str(builder_version)},
            "checks": _check_parts(layout.root, image, playbook),
            "disk": _setting_parts(
                {"arch": image.arch, "disk_mib": image.disk_mib, "formats": sorted(image.formats), "name": image.name}
            ),
            "packages": _package_parts(packages),
            "playbook": playbook.parts,
            "template": _template_parts(layout, image.builder),
            "vars": _setting_parts(image.vars),
        }
    )


def base_parts(recipe: Digest | None, base: Digest | None) -> dict[str, str]:
    """What of a base goes into the key: its digest ("" where it is not known yet), and how it is made.

    `recipe` is None where the base is another image: its digest says it all.
    """
    return {"digest": base or "", **({"recipe": recipe} if recipe else {})}


def check_folders(root: Path, image: ImageSpec) -> tuple[Path, ...]:
    """The folders and files of the image's own checks: those it names, else the checks/ of its playbook's roles."""
    if image.checks is not None:
        return tuple(root / path for path in image.checks)
    roles = closure.of_playbook(root, image.playbook).roles
    return tuple(role / "checks" for role in roles if (role / "checks").is_dir())


def _check_parts(root: Path, image: ImageSpec, playbook: closure.Closure) -> dict[str, str]:
    parts: dict[str, str] = {}
    for folder in check_folders(root, image):
        for path in closure.files_below(folder):
            parts[str(path.relative_to(root))] = closure.file_digest(path)
    return parts | _setting_parts(
        {"ports": sorted(image.ports), "skip_checks": sorted(image.skip_checks), "state": sorted(image.state)}
    )


def _template_parts(layout: Layout, builder: str) -> dict[str, str]:
    """The builder's template, and whatever lies beside the templates for them to include."""
    template = layout.templates / f"{builder}.pkr.hcl.j2"
    if not template.is_file():
        raise SpecError(
            f"there is no template for the builder {builder}",
            where=str(template.relative_to(layout.root)),
            hint="factory init shows the templates a factory starts with",
        )
    shared = (path for path in closure.files_below(layout.templates) if not path.name.endswith(".pkr.hcl.j2"))
    return {str(path.relative_to(layout.root)): closure.file_digest(path) for path in (template, *shared)}


def _package_parts(packages: Iterable[Package]) -> dict[str, str]:
    return {f"{package.name}:{package.arch}": f"{package.version} {package.sha256}" for package in packages}


def _setting_parts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: digest.of_json(value) for name, value in settings.items()}
