"""`factory logs`: what a run did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from factory.cli import output
from factory.errors import UsageError
from factory.model import Layout

_MARKS = {"passed": "✓", "ok": "✓", "changed": "✓", "failed": "✗", "unreachable": "✗"}


@click.command()
@click.argument("run", required=False)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def logs(obj: dict[str, Any], /, run: str | None, name: str | None, as_json: bool) -> int:
    """What a run did: its stages, the tasks of its playbooks, its checks, and where the console logs are.

    Without RUN, the last one; RUN may be shortened. With NAME, the last such run that had that image, and only what
    belongs to it: `factory logs web`, `factory logs RUN web`.
    """
    layout = Layout(obj["folder"].resolve())
    folder, name = _find(layout, run, name)
    told = _Told(layout, folder, name)
    if as_json:
        output.document(told.as_json())
    else:
        told.show()
    return 0


def _find(layout: Layout, run: str | None, name: str | None) -> tuple[Path, str | None]:
    """The folder of the run that is meant, and the name of the image (without its architecture), if one is."""
    folders = sorted(layout.runs.glob("*/"), reverse=True)
    if not folders:
        raise UsageError(
            "there has been no run here", where=str(layout.runs), hint="factory bake, or name the folder with -C DIR"
        )
    wanted = [(run or "", name)] + ([("", run)] if run and name is None else [])
    for prefix, image in wanted:
        for folder in folders:
            if folder.name.startswith(prefix) and (
                image is None or any(_of(image, path) for path in folder.glob("*/"))
            ):
                return folder, image.partition("/")[0] if image else None
    sought = f"no run {run} that had an image {name}" if name else f"no run {run}, and no run that had an image {run}"
    raise UsageError(f"there is {sought}", hint="factory logs shows the last run")


def _of(image: str, folder: Path) -> bool:
    """Whether a folder of logs (NAME-ARCH) is that of an image, given as NAME or NAME/ARCH."""
    name, _, arch = folder.name.rpartition("-")
    return image in (name, f"{name}/{arch}")


class _Told:
    """Everything known of one run: the journal, and from the catalog tasks and checks."""

    def __init__(self, layout: Layout, folder: Path, name: str | None) -> None:
        from factory.bake import journal
        from factory.catalog import events
        from factory.catalog.database import Catalog

        self.folder, self.name = folder, name
        self.events = [
            event
            for event in journal.read_events(folder)
            if name is None or event.get("image", name).rpartition("-")[0] in (name, "")
        ]
        self.alive = journal.is_alive(folder)
        self.tasks: list[tuple[str, str, events.Task]] = []
        self.checks: list[tuple[str, str, events.Check]] = []
        if layout.catalog.is_file():
            with Catalog.open(layout.catalog) as catalog:
                self.tasks = events.tasks(catalog, folder.name, name)
                self.checks = events.checks(catalog, folder.name, name)

    @property
    def files(self) -> list[Path]:
        return sorted(
            path
            for path in self.folder.glob("*/*")
            if path.is_file() and (self.name is None or _of(self.name, path.parent))
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.folder.name,
            "running": self.alive,
            "events": self.events,
            "tasks": [{"image": image, "arch": arch, **vars(task)} for image, arch, task in self.tasks],
            "checks": [{"image": image, "arch": arch, **vars(check)} for image, arch, check in self.checks],
            "files": [str(path) for path in self.files],
        }

    def show(self) -> None:
        output.data(f"run {self.folder.name}" + (" (still running)" if self.alive else ""))
        for event in self.events:
            if event["event"] in ("decided", "stage", "failed", "started", "finished"):
                output.data(f"  {event['at'][11:19]}  {_event_line(event)}")
        for image in dict.fromkeys(image for image, _, _ in (*self.tasks, *self.checks)):
            tasks = [task for owner, _, task in self.tasks if owner == image]
            checks = [check for owner, _, check in self.checks if owner == image]
            output.data(f"\n{image}: {len(tasks)} tasks" if tasks else f"\n{image}")
            for task in tasks:
                mark = _MARKS.get(task.outcome, "·")
                output.data(f"  {mark} {task.outcome:<8} {task.duration_s:6.1f} s  {task.task}  ({_short(task.place)})")
                for line in task.message.splitlines()[:3] if task.outcome in ("failed", "unreachable") else ():
                    output.data(f"      {line}")
            output.data(f"{image}: {len(checks)} checks")
            for check in checks:
                output.data(f"  {_MARKS.get(check.outcome, '·')} {check.outcome:<8} {check.test}")
                for line in check.message.splitlines()[:3] if check.outcome == "failed" else ():
                    output.data(f"      {line}")
        if self.files:
            output.data("\nfiles")
            for path in self.files:
                output.data(f"  {path}")


def _event_line(event: dict[str, Any]) -> str:
    image = event.get("image", "")
    if event["event"] == "decided":
        return f"{image}: {event['action']}" + (f" ({'; '.join(event['reasons'])})" if event["reasons"] else "")
    if event["event"] == "stage":
        return f"{image}: {event['stage']}"
    if event["event"] == "failed":
        return f"{image}: failed: {event['error']['message'].splitlines()[0]}"
    return f"{event['event']} {event.get('command', '')}".strip()


def _short(place: str) -> str:
    """`file:line` with the file's last two folders."""
    return "/".join(place.split("/")[-3:])
