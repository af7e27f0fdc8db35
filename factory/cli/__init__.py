"""The command line: one file per group of commands, loaded when used, and one place that turns an error into an exit.

Data goes to standard output, progress and logs to standard error. With `--json` a command prints one JSON document,
also when it fails. A failure is one line with its cause, then where and a hint; `-v` adds the traceback.
"""

# ruff: noqa: E402 - garbage collection is turned off before the imports
from __future__ import annotations

import gc

gc.disable()  # while modules load nothing can be collected, and looking takes time; turned on below

import errno
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from factory import __version__
from factory.cli import output
from factory.errors import FactoryError, InterruptedRunError, ToolError, UsageError

COMMANDS = {
    "attest": ("factory.cli.attest", "What is signed about an image: show it, check it."),
    "audit": ("factory.cli.audit", "Who did what when; is the log as it was written?"),
    "bake": ("factory.cli.bake", "Bake what changed, parents first."),
    "boot": ("factory.cli.images", "Start a disposable guest to look around in."),
    "catalog": ("factory.cli.catalog", "The catalog in a browser, as files, merged, checked."),
    "channels": ("factory.cli.channels", "What stands in each channel; sign heads before they expire."),
    "cve": ("factory.cli.cve", "Known vulnerabilities in what images hold."),
    "diff": ("factory.cli.contents", "What differs between two images."),
    "doctor": ("factory.cli.host", "What this host can do, and what to install."),
    "drift": ("factory.cli.drift", "What runs of a fleet and should not; healing it."),
    "export": ("factory.cli.export", "One trusted image as a folder, for an air gap."),
    "fetch": ("factory.cli.images", "Get an image's bytes from the shared store."),
    "fleet": ("factory.cli.fleet", "The fleets that run; how many of each; the end of one."),
    "images": ("factory.cli.lineage", "The images that were baked, and where they stand."),
    "init": ("factory.cli.host", "Lay out a new factory."),
    "key": ("factory.cli.key", "Make, list, rotate and withdraw the keys that sign."),
    "lineage": ("factory.cli.lineage", "What an image descends from, and what descends from it."),
    "lock": ("factory.cli.lock", "Check, refresh, repair or prune images.lock."),
    "logs": ("factory.cli.logs", "What a run did: tasks, console, checks."),
    "outdated": ("factory.cli.outdated", "What is installed, against what is offered now."),
    "packages": ("factory.cli.contents", "What is installed in an image; which images have a package."),
    "policy": ("factory.cli.policy", "What the trust policy says, and its signature."),
    "promote": ("factory.cli.promote", "Move a channel on to an image."),
    "report": ("factory.cli.report", "A self-contained page and CSVs for an auditor."),
    "resolve": ("factory.cli.resolve", "The one trusted image for a deploy job."),
    "revoke": ("factory.cli.revoke", "Withdraw an image, and all that descends from it."),
    "rollout": ("factory.cli.rollout", "Replace a fleet; follow along; go on, or back."),
    "show": ("factory.cli.lineage", "All that is known of one image."),
    "verify": ("factory.cli.images", "Boot a stored image and run its checks again."),
    "where": ("factory.cli.contents", "Which images, channels and instances have a package or image."),
    "why": ("factory.cli.bake", "Which inputs differ from the locked bake."),
}
"""Command name -> the module that holds it, and its line in --help."""

QUICK = frozenset({"resolve"})
"""Commands that deploy jobs wait for. They start nothing and leave nothing to tidy up, so they end at once."""

_NOT_OURS = "the factory's folder, and .factory in it, must be yours to write to"
_NO_ROOM = "make room on that disk (df)"
_HOST_TROUBLE = {
    errno.EACCES: _NOT_OURS,
    errno.EDQUOT: _NO_ROOM,
    errno.EIO: "that disk has a fault (dmesg)",
    errno.EISDIR: "a folder stands where a file should be",
    errno.ENOSPC: _NO_ROOM,
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.EPERM: _NOT_OURS,
    errno.EROFS: _NOT_OURS,
}
"""What a host may refuse us at any time, and what to do about it: no bug of ours."""


class _Commands(click.Group):
    """Loads a command's module only when that command runs, so that start-up stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(cmd_name, COMMANDS, 1)
            ctx.fail(f"there is no command {cmd_name}" + (f"; did you mean {close[0]}?" if close else ""))
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(COMMANDS.items())])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-C", "folder", metavar="DIR", default=".", help="The factory's folder.  [default: here]")
@click.option("-v", "--verbose", is_flag=True, help="Add the traceback to an error.")
@click.version_option(__version__, prog_name="factory")
@click.pass_context
def cli(ctx: click.Context, folder: str, verbose: bool) -> None:
    """Bake golden machine images once, prove what they are, and record them.

    A factory is a folder with an images.toml; `factory init DIR` lays out a new one.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder {folder}", where="-C", hint="-C names the folder that has images.toml")
    ctx.obj = {"folder": Path(folder), "verbose": verbose}


def main(argv: list[str] | None = None) -> None:
    """The console script: runs a command and exits with the code of the contract."""
    arguments = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, _interrupt)
    if _command(arguments) not in QUICK:
        sys.exit(run(arguments))
    gc.disable()  # it ends before there is anything to collect
    code = run(arguments)
    code = code if output.flush() else code or ToolError.exit_code
    os._exit(code)  # taking an interpreter apart takes as long as half of its start


def _interrupt(*_: object) -> None:
    """A request to end is taken like Ctrl-C: tidy up, exit 130."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout(1), for one, sends it twice: let us tidy up in peace
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run a command; its exit code. The only place where an error becomes an exit."""
    as_json, verbose = "--json" in arguments, _is_verbose(arguments)
    try:
        result: Any = cli.main(arguments, prog_name="factory", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as asked:
        output.say(asked.format_message())
        return asked.exit_code
    except click.UsageError as error:
        return output.fail(_usage(error, arguments), as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return output.fail(InterruptedRunError("interrupted"), as_json=as_json)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except SystemExit:  # what click makes of a broken pipe: whoever read our output wanted no more
        return 0
    except FactoryError as error:
        if verbose:
            _print_traceback()
        return output.fail(error, as_json=as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _HOST_TROUBLE:
            where = str(error.filename) if error.filename else None
            hint = _HOST_TROUBLE[error.errno]
            return output.fail(
                ToolError(f"this host refuses: {error.strerror}", where=where, hint=hint), as_json=as_json
            )
        _print_traceback()
        return output.bug(error, as_json=as_json)


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _command(arguments: list[str]) -> str | None:
    """The command that is called."""
    return next((argument for argument in arguments if argument in COMMANDS), None)


def _usage(error: click.UsageError, arguments: list[str]) -> UsageError:
    """What click says, and the help that tells more; options of `factory` itself stand before the command."""
    command = _command(arguments)
    if command and isinstance(error, click.NoSuchOption) and error.option_name in ("-C", "-v", "--verbose"):
        hint = f"{error.option_name} goes before the command: factory {error.option_name} … {command}"
    else:
        hint = f"factory {command} --help" if command else "factory --help"
    return UsageError(error.format_message(), hint=hint)


def _is_verbose(arguments: list[str]) -> bool:
    """Whether -v stands before the command's name."""
    for argument in arguments:
        if argument in COMMANDS:
            return False
        if argument in ("-v", "--verbose"):
            return True
    return False


gc.enable()
