"""The installed Packer: which version it is, whether it takes a template, and one build of it.

Packer is only called, never linked. The build is read from its machine-readable stream (format: "Machine-Readable
Output" in Packer's documentation; 1.6.6 prints errors to stdout there) and from a manifest file of the build's own.
Sensitive values never travel through Packer: its stream would print them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory import proc
from factory.errors import ProvisionError, TemplateError, ToolError

OLDEST = (1, 6, 6)
"""The oldest Packer we render for."""


@dataclass(frozen=True, order=True)
class PackerVersion:
    """Packer's version, and what of HCL2 it speaks."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def needs_required_plugins(self) -> bool:
        """From 1.7 a template names its plugins; from 1.10 none but the core ones are bundled."""
        return (self.major, self.minor) >= (1, 7)


def parse_version(text: str) -> PackerVersion:
    """The version in what `packer version` prints. Raises ToolError for none, or one too old."""
    found = re.search(r"Packer v(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ToolError(f"packer version said something unexpected: {text.strip()[:200]!r}", where="packer")
    version = PackerVersion(*(int(part) for part in found.groups()))
    if (version.major, version.minor, version.patch) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ToolError(
            f"Packer {version} is too old; {wanted} or later is needed",
            where=proc.find("packer"),
            hint="install a newer Packer",
        )
    return version


def installed_version() -> PackerVersion:
    """The version of the Packer that is installed. Raises MissingToolError, ToolError."""
    return parse_version(proc.run(["packer", "version"], env=settings(None)).text)


@dataclass(frozen=True)
class StreamLine:
    """One line of the machine-readable stream."""

    target: str
    kind: str
    data: tuple[str, ...]


def parse_line(line: str) -> StreamLine | None:
    """A line `timestamp,target,type,data…`, with Packer's escapes undone; None where it is not one."""
    parts = line.split(",", 3)
    if len(parts) < 4 or not parts[0].isdigit():
        return None
    data = tuple(
        item.replace("%!(PACKER_COMMA)", ",").replace("\\n", "\n").replace("\\r", "\r") for item in parts[3].split(",")
    )
    return StreamLine(parts[1], parts[2], data)


@dataclass(frozen=True)
class Artifact:
    """What the manifest says of one build."""

    builder_type: str
    artifact_id: str
    files: tuple[str, ...]


def read_manifest(path: Path) -> tuple[Artifact, ...]:
    """The builds of the last run in a manifest file (earlier runs may stand there too). Raises ProvisionError."""
    try:
        manifest = json.loads(path.read_text())
        return tuple(
            Artifact(build["builder_type"], build["artifact_id"], tuple(f["name"] for f in build["files"] or ()))
            for build in manifest["builds"]
            if build["packer_run_uuid"] == manifest["last_run_uuid"]
        )
    except FileNotFoundError as error:
        raise ProvisionError(
            "Packer ended well but wrote no manifest",
            where=str(path),
            hint="the template needs a manifest post-processor that writes there",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ProvisionError(f"Packer's manifest is not understood: {error!r}", where=str(path)) from error


def validate(template: Path, version: PackerVersion) -> None:
    """Have the installed Packer check a rendered template; its plugins are installed first where it has any.

    Raises TemplateError with Packer's own words.
    """
    if version.needs_required_plugins:
        proc.run(["packer", "init", str(template)], env=settings(template.parent))
    done = proc.run(["packer", "validate", str(template)], env=settings(template.parent), check=False)
    if done.code != 0:
        said = (done.text + done.stderr.decode("utf-8", "replace")).strip()
        raise TemplateError(
            f"Packer {version} refuses the rendered template:\n{said}",
            where=str(template),
            hint="mend the template it was rendered from, or its variables",
        )


def build_command(template: Path, *, keep_failed: bool = False) -> list[str]:
    """The command that builds `template`; with `keep_failed` what a failed build made is left where it is."""
    on_error = "abort" if keep_failed else "cleanup"
    return ["packer", "-machine-readable", "build", f"-on-error={on_error}", str(template)]


def build(
    command: list[str],
    *,
    folder: Path,
    on_output: Callable[[str], None],
    on_start: Callable[[int], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a build (`build_command`, wrapped as the builder needs) and give each line it says to `on_output`.

    Raises ProvisionError with what Packer called an error, once, without its wrapping.
    """
    errors: list[str] = []

    def on_line(raw: str) -> None:
        line = parse_line(raw)
        if line is None:
            on_output(raw)
        elif line.kind == "ui":
            level, text = line.data[0], ",".join(line.data[1:]).strip("\n")
            on_output(text)
            if level == "error":
                errors.append(text)
        elif line.kind == "error":
            errors.append(",".join(line.data))

    code = proc.stream(command, on_line, env={**settings(folder), **(env or {})}, cwd=folder, on_start=on_start)
    if code != 0:
        raise ProvisionError(f"Packer failed with exit code {code}: {_first_cause(errors)}", where=proc.paste(command))


def _first_cause(errors: list[str]) -> str:
    if not errors:
        return "it named no error"
    return re.sub(r"^Build '[^']*' errored after [^:]*: ", "", errors[0].strip())


def settings(folder: Path | None) -> dict[str, str]:
    """Packer's own settings, by environment: it asks nobody for news, and keeps what it downloads in `folder`."""
    env = {"CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}
    if folder is not None:
        env["PACKER_CACHE_DIR"] = str(folder / "packer_cache")
    return env
