"""What `factory init` lays out: templates and base role of this project, an images.toml, a trust policy to start from.

`templates` and `role` beside this file are links to the project's own, so there is one copy of each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from factory.errors import UsageError

_HERE = Path(__file__).parent
_LAYOUT = {
    "gitattributes": ".gitattributes",
    "gitignore": ".gitignore",
    "images.toml": "images.toml",
    "policy.toml": "trust/policy.toml",
    "base.yml": "playbooks/base.yml",
    "role": "playbooks/roles/base",
    "templates": "templates",
}


def policy_text() -> str:
    """The trust policy that a new factory begins with: no key yet, development keys allowed."""
    return (_HERE / "policy.toml").read_text(encoding="utf-8")


def lay_out(folder: Path) -> list[str]:
    """Write a new factory into `folder`; the files written, relative to it. Raises UsageError where one exists."""
    taken = [target for target in _LAYOUT.values() if not target.startswith(".git") and (folder / target).exists()]
    if taken:
        raise UsageError(f"{folder} is a factory already: it has {taken[0]}", where=str(folder / taken[0]))
    try:
        for source, target in _LAYOUT.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            if (_HERE / source).is_dir():
                shutil.copytree(_HERE / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            elif not (folder / target).exists():
                shutil.copy(_HERE / source, folder / target)
    except OSError as error:
        raise UsageError(f"cannot lay out a factory: {error.strerror}", where=str(error.filename or folder)) from error
    names = (path for target in _LAYOUT.values() for path in [folder / target, *(folder / target).rglob("*")])
    return sorted(str(path.relative_to(folder)) for path in names if path.is_file())
