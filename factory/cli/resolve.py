"""`factory resolve`: the one trusted image for a deploy job, or exit 6 with the reason."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from factory.cli import answers, output
from factory.errors import FactoryError, LockMismatchError, TamperedError, UsageError
from factory.model import Layout
from factory.release import resolve as flow
from factory.release.resolve import Answer, Asked
from factory.trust import strict

_QUERY = ("name", "channel", "at", "policy", "policy_digest", "seen", "bundle", "check_bytes")
"""What Terraform may ask for; an option on the command line goes first."""

_FORMS = ("json", "env", "github_output", "terraform", "ansible")
_MAX_QUERY_BYTES = 1 << 20


@click.command()
@click.argument("name", required=False, metavar="NAME")
@click.option("--channel", metavar="CHANNEL", help="The image that CHANNEL points at, instead of the locked one.")
@click.option("--at", metavar="PLACE", help="The artifact there: aws/REGION, qcow2, raw, vmdk.")
@click.option("--policy", metavar="FILE", help="The deployer's own policy.  [default: the checkout's]")
@click.option("--policy-digest", metavar="DIGEST", help="The digest that the policy must have.")
@click.option("--seen", metavar="FILE", help="Refuse what is older than seen before; keeps the highest versions.")
@click.option("--bundle", metavar="DIR", help="Take lock, papers and bytes from what `factory export` wrote.")
@click.option("--check-bytes", is_flag=True, help="The bytes must be here; hash them.")
@click.option("--locked", is_flag=True, help="Exit 5 where images.lock is not true to its inputs.")
@click.option("--frozen", is_flag=True, help="Take images.lock as it is; read no inputs.")
@click.option("--json", is_flag=True, help="One JSON document.")
@click.option("--env", is_flag=True, help="Lines for a dotenv file or a shell.")
@click.option("--github-output", is_flag=True, help="Append outputs of a step to $GITHUB_OUTPUT.")
@click.option("--terraform", is_flag=True, help="Answer Terraform's external data source.")
@click.option("--ansible", is_flag=True, help="Variables for an inventory, as YAML.")
@click.pass_obj
def resolve(obj: dict[str, Any], /, name: str | None, **options: Any) -> int:
    """The one trusted image NAME (or NAME/ARCH) for a deploy job, or exit 6 with the reason.

    Prints what a launch needs: the path of its file, or the id it has at PLACE; where the bytes are not here, the
    digest. Checks the signed statements for exactly that digest, who signed them, revocations (of ancestors too),
    and that nothing is stale. Without --locked or --frozen it only says so where images.lock is not true to its inputs.
    """
    form, inputs = _one_of(options, _FORMS), _one_of(options, ("locked", "frozen"))
    for option in ("channel", "at", "policy", "policy_digest", "seen", "bundle"):
        if options[option] == "":
            flag = "--" + option.replace("_", "-")
            raise UsageError(f"{flag} is empty", where=flag, hint="is a variable not set? leave the option out")
    asked = {"name": name, **options}
    if form == "terraform":
        asked = _with_query(asked)
    github = _github_file() if form == "github_output" else None
    layout = Layout(obj["folder"].resolve())
    request = Asked(
        name=_name(asked["name"], asked["bundle"]),
        channel=asked["channel"],
        place=asked["at"],
        policy=_path(asked["policy"]),
        policy_digest=asked["policy_digest"],
        seen=_path(asked["seen"]),
        bundle=_folder(asked["bundle"]),
        check_bytes=bool(asked["check_bytes"]),
        frozen=inputs == "frozen",
    )
    if request.bundle is not None and inputs == "locked":
        raise UsageError("a bundle holds no inputs to compare with", where="--locked", hint="leave it out")
    answer = flow.resolve(layout, request)
    if inputs != "frozen" and request.bundle is None:
        _compare_inputs(layout, answer, must=inputs == "locked")
    _print(answer, form, github)
    _say(answer, bundled=request.bundle is not None)
    return 0


def _one_of(options: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The one of some flags that was given, if any; they are taken out of `options`."""
    given = [name for name in names if options.pop(name)]
    if len(given) > 1:
        flags = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{flags} do not go together", hint="leave out all but one")
    return given[0] if given else None


def _print(answer: Answer, form: str | None, github: Path | None) -> None:
    if github is not None:
        try:
            with github.open("a", encoding="utf-8") as file:
                file.write(answers.github_output(answer))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise UsageError(
                f"GITHUB_OUTPUT names no file that can be written: {error.strerror}", where=str(github)
            ) from error
    elif form == "json":
        output.document(answers.document(answer))
    else:
        forms = {"env": answers.dotenv, "terraform": answers.terraform, "ansible": answers.ansible}
        output.data(forms[form](answer) if form in forms else answer.reference)


def _say(answer: Answer, *, bundled: bool) -> None:
    """What a person should know of the answer, besides what is printed as data."""
    who = f"{answer.name}/{answer.arch}"
    output.say(
        f"{who} {answer.digest[:19]}… "
        + (f"in {answer.channel}, " if answer.channel else "")
        + f"signed by {', '.join(answer.signers)}; rollback: {answer.rollback}"
    )
    if answer.policy_source == flow.SIGNED:
        output.say(f"judged by the policy of version {answer.policy_version} that came along: your root keys signed it")
    if answer.policy_source == flow.CHECKOUT:
        output.say("judged by this checkout's own trust/policy.toml; a deploy job names its own: --policy FILE")
    if answer.development:
        output.say(
            f"{output.colour('warning:', 'yellow', 'bold')} a development key vouches for it: not for production"
        )
    if answer.path is None and answer.reference == answer.digest:
        channel = f" --channel {answer.channel}" if answer.channel else ""
        how = f"factory export {who} --bytes{channel} --to DIR, where they are" if bundled else f"factory fetch {who}"
        output.say(f"its bytes are not here: {how}")


def _compare_inputs(layout: Layout, answer: Answer, *, must: bool) -> None:
    """Whether images.lock is still true to its inputs; with `must` it has to be."""
    if not layout.spec.is_file():
        if must:
            raise UsageError("there is no images.toml to compare images.lock with", where="--locked")
        return
    from factory.bake import asking

    try:
        changed = asking.untrue(layout).get(answer.name, ())
    except FactoryError as error:
        if must:
            raise
        output.say(f"images.lock cannot be compared with its inputs: {error.message}")
        return
    if not changed:
        return
    message = f"images.lock is not true to the inputs of {answer.name}: {', '.join(changed)}"
    if must:
        hint = f"factory why {answer.name} shows it; factory bake makes it true; --frozen takes the lock as it is"
        raise LockMismatchError(message, where="images.lock", hint=hint)
    output.say(f"{message} (the answer is the locked image)")


def _with_query(asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked, completed by Terraform's query: a JSON object of strings on standard input."""
    text = sys.stdin.buffer.read(_MAX_QUERY_BYTES + 1)
    expected = "Terraform's query is a JSON object of strings on standard input"
    try:
        query = strict.loads(text or b"{}", "the query", max_bytes=_MAX_QUERY_BYTES)
    except TamperedError as error:
        raise UsageError(f"{expected}: {error.message}", where="standard input") from error
    if not isinstance(query, dict) or not all(isinstance(value, str) for value in query.values()):
        raise UsageError(expected, where="standard input")
    for key, value in query.items():
        if key not in _QUERY:
            raise UsageError(f"the query has a key that is not known: {key!r}", hint=f"known: {', '.join(_QUERY)}")
        if not value.isprintable():
            raise UsageError(f"the query's {key} holds what cannot be printed", where=f"standard input: {key}")
    wanted = query.pop("check_bytes", "")
    if wanted not in ("true", "false", ""):
        raise UsageError(f"check_bytes is true or false, not {wanted!r}", where="standard input: check_bytes")
    found = {key: value if asked.get(key) is None else asked[key] for key, value in query.items() if value}
    return {**asked, **found, "check_bytes": asked["check_bytes"] or wanted == "true"}


def _github_file() -> Path:
    """The file that GitHub's runner collects a step's outputs in."""
    name = os.environ.get("GITHUB_OUTPUT")
    if not name:
        raise UsageError(
            "GITHUB_OUTPUT is not set",
            where="--github-output",
            hint="it is set in a step of GitHub Actions; else --env",
        )
    return Path(name)


def _name(name: str | None, bundle: str | None) -> str | None:
    if name == "" or (name is None and bundle is None):
        raise UsageError("which image? factory resolve NAME", hint="only with --bundle can NAME be left out")
    return name


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _folder(text: str | None) -> Path | None:
    if text is not None and (not text or not Path(text).is_dir()):
        raise UsageError(f"there is no folder {text}", where="--bundle", hint="factory export NAME --to DIR writes one")
    return _path(text)
