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

    Without RUN, the last one; RUN may be shortened, and `factory logs NAME` is the last run that had NAME.
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
    folders = sorted(layout.runs.glob("*/"), reverse=True)
    if not folders:
        raise UsageError("there has been no run here", where=str(layout.runs), hint="factory bake")
    if run is None:
        return folders[0], name
    matching = [folder for folder in folders if folder.name.startswith(run)]
    if matching:
        return matching[0], name
    if name is None:
        with_image = [folder for folder in folders if any(folder.glob(f"{run}-*/"))]
        if with_image:
            return with_image[0], run
    raise UsageError(
        f"there is no run {run}, and no run that had an image {run}", hint="factory logs shows the last run"
    )


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
        pattern = f"{self.name}-*/*" if self.name else "*/*"
        return sorted(path for path in self.folder.glob(pattern) if path.is_file())

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
            output.data(f"\n{image}: tasks")
            for owner, _, task in self.tasks:
                if owner == image:
                    mark = _MARKS.get(task.outcome, "·")
                    output.data(
                        f"  {mark} {task.outcome:<8} {task.duration_s:6.1f} s  {task.task}  ({_short(task.place)})"
                    )
            output.data(f"{image}: checks")
            for owner, _, check in self.checks:
                if owner == image:
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
