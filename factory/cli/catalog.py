"""`factory catalog`: the catalog as a file. Its subcommands are loaded when they run."""

from __future__ import annotations

import importlib

import click

SUBCOMMANDS = {
    "backup": ("factory.cli.catalog_files", "A verified copy in one file, while others go on writing."),
    "check": ("factory.cli.catalog_check", "Is the catalog whole, and its log as it was written?"),
    "export": ("factory.cli.catalog_files", "All of it as JSON lines."),
    "import": ("factory.cli.catalog_files", "Take over what other factories exported."),
    "serve": ("factory.cli.catalog_serve", "The catalog in a browser."),
}
"""Subcommand -> the module that holds it (as NAME_command), and its line in --help."""


class _Subcommands(click.Group):
    """Loads a subcommand's module only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(SUBCOMMANDS[cmd_name][0]), f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(SUBCOMMANDS.items())])


@click.group(cls=_Subcommands)
def catalog() -> None:
    """The catalog as a file: in a browser, as a backup, as JSON lines, merged with others, checked."""
