"""What README.md, docs/ and the hints of errors say is so: commands, options, files, keys, names and tables.

Each kind of claim has one function from text to faults, and a self-test in which it finds one.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from factory import cli, errors, packer, schema, spec
from factory.bake import key
from factory.bake.report import STAGES
from factory.builders import BuildJob, Parent, packer_build, qemu
from factory.digest import Digest
from factory.disk import rules
from factory.model import BaseSpec, CveSpec, FactorySpec, ImageSpec, Layout
from factory.rollout import spec as fleets
from factory.rollout import spec_evidence
from factory.rollout.model import (
    Analysis,
    Deadline,
    Deadlines,
    External,
    FleetSpec,
    Health,
    HttpProbe,
    Step,
    Strategy,
)
from factory.trust import policy
from factory.verify import built_in
from factory.verify.first_boot import FIRST_BOOT
from factory.vm.entry import Keys
from factory.vm.machine import TCG
from factory.vm.session import Way

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = {"docs/benchmarks.md": "benchmarks/run.py"}
"""Files that may be named (not linked) though they are not there yet, and what writes them."""

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FOLDERS = ("factory/", "docs/", "tests/", "templates/", "playbooks/", "benchmarks/", "scripts/")

# --- reading Markdown


def prose(text: str) -> str:
    """The text without its code blocks."""
    return _FENCE.sub("", text)


def said_as_code(text: str) -> list[str]:
    """Each backticked span, and each line of a code block, without the `$ ` of a prompt and what a comment says."""
    lines = [line for _, block in _FENCE.findall(text) for line in block.splitlines()]
    return [re.sub(r"^\$ |\s+# .*$", "", found.strip()) for found in (*_SPAN.findall(prose(text)), *lines)]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level. Its absence fails."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, their headings left out."""
    found = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")] for line in found]
    marks = [index for index, row in enumerate(cells) if set(row[0]) <= {"-"} and row[0]]
    return [row for index, row in enumerate(cells) if index not in marks and index + 1 not in marks]


def first_column(text: str) -> list[str]:
    """The backticked spans of the first cell of each row."""
    return [span for row in rows(text) for span in _SPAN.findall(row[0])]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make, as GitHub does."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


def page(name: str) -> str:
    return (ROOT / name).read_text()


# --- faults


def command_faults(text: str) -> list[str]:
    """What click would not take of the commands that a text names as code."""
    found = []
    for said in said_as_code(text):
        if said.startswith(("factory ", ".venv/bin/factory ")):
            problem = _problem_of(said)
            if problem:
                found.append(f"{said}: {problem}")
    return found


def _problem_of(said: str) -> str | None:
    words = [word.strip("[]") for word in shlex.split(said)[1:]]
    words = ["1" if word == "N" else word.partition("…")[0] for word in words]
    words = [word for word in words if word and word not in ("--help", "--version", "-h")]
    try:
        group = cli.cli.make_context("factory", ["-C", str(ROOT), *words] if words else ["--version"])
    except click.exceptions.Exit:
        return None
    except click.UsageError as error:
        return error.format_message()
    rest = [*group._protected_args, *group.args]
    try:
        command = cli.cli.get_command(group, rest[0])
        assert command is not None
        context = command.make_context(rest[0], rest[1:], parent=group)
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert command is not None
            context = command.make_context(name, rest, parent=context)
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        return None  # the command as such is meant
    except click.UsageError as error:
        return error.format_message()
    return None


def make_faults(text: str) -> list[str]:
    """The targets that a text names and the Makefile has not."""
    targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
    named = {found for said in said_as_code(text) for found in re.findall(r"(?:^|\s)make ([a-z]+)", said)}
    return sorted(named - targets)


def path_faults(name: str, text: str) -> list[str]:
    """The files and headings that a page links or names and that are not there."""
    found = []
    for target in _LINK.findall(prose(text)):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        if "://" in target:
            continue
        if not path.exists():
            found.append(f"{target}: there is no such file")
        elif anchor and anchor not in anchors(text if path == ROOT / name else path.read_text()):
            found.append(f"{target}: there is no such heading")
    for line in prose(text).splitlines():
        spans = _SPAN.findall(line)
        folders = [ROOT / span for span in spans if span.startswith("factory/") and span.endswith("/")]
        for span in spans:
            if not _exists(span, folders):
                found.append(f"{span}: there is no such file")
    return found


def _exists(span: str, folders: list[Path]) -> bool:
    """Whether a span names what is there, or no file of this repository at all."""
    if re.search(r"[*<>{}\sA-Z=]", span) or span in GENERATED:
        return span not in GENERATED or span in page(GENERATED[span])
    if span.startswith(_FOLDERS):
        return (ROOT / span).exists()
    if span.endswith(".py") and "/" in span:
        return (ROOT / "factory" / span).exists()
    if span.endswith(".py") and folders:
        return any((folder / span).exists() for folder in folders)
    return True


def hints() -> Iterator[tuple[str, str]]:
    """(place, text) of every `hint=` and `hint = ` in the product; what is computed shows as NAME."""
    for path in sorted((ROOT / "factory").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = node.targets if isinstance(node, ast.Assign) else [node]
            names = {getattr(target, "arg", getattr(target, "id", None)) for target in named}
            if isinstance(node, (ast.Assign, ast.keyword)) and "hint" in names:
                yield f"{path.relative_to(ROOT)}:{node.value.lineno}", _text_of(node.value)


def _text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(part) if isinstance(part, ast.Constant) else "NAME" for part in node.values)
    return " ".join(_text_of(child) for child in ast.iter_child_nodes(node))


def hint_faults(text: str) -> list[str]:
    """The commands in a hint that there are not. A hint has no backticks: a command is `factory`, a word (of a group,
    two), options, unless it is `a factory` or `of factory`."""
    word = rf"(?:(?:{'|'.join(_groups())}) )?[a-z]+"
    named = re.findall(rf"(?<!\ba )(?<!\bof )\bfactory ({word}(?: --[a-z-]+)*)", text)
    return command_faults("".join(f"`factory {words}`\n" for words in named))


@functools.cache
def _groups() -> tuple[str, ...]:
    """The commands that have commands of their own."""
    context = click.Context(cli.cli)
    return tuple(name for name in cli.COMMANDS if isinstance(cli.cli.get_command(context, name), click.Group))


def key_faults(text: str) -> list[str]:
    """How the keys of images.toml, and the defaults of an image's, differ from what a page says."""
    valid = {
        "[store]": {"url"},
        "[cve]": {field.name for field in fields(CveSpec)},
        "[base.NAME]": {field.name for field in fields(BaseSpec)} - {"name"},
        "[image.NAME]": {field.name for field in fields(ImageSpec)} - {"name", "arch", "layered"},
    }
    found = []
    for heading, keys in valid.items():
        table = rows(section(text, heading))
        said = {_SPAN.findall(row[0])[0] for row in table}
        found += [f"{heading} {name}" for name in sorted(said ^ keys)]
        if heading == "[image.NAME]":
            found += [f"default of {row[0]}: {row[2]}" for row in table if not _is_default(row[0], row[2])]
    return found


def _is_default(name: str, said: str) -> bool:
    default = _IMAGE_DEFAULTS.get(name.strip("`"))
    if not _SPAN.fullmatch(said):
        return default is None
    value = tomllib.loads(f"x = {said.strip('`')}")["x"]
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def _image_defaults() -> Mapping[str, Any]:
    table = spec._image(
        ROOT, "x", schema.Table({"base": "b", "playbook": "playbooks/base.yml"}, (), schema.Faults("x"))
    )
    return {field.name: getattr(table, field.name) for field in fields(ImageSpec) if field.name not in spec_required()}


def spec_required() -> set[str]:
    return {"name", "arch", "layered", "base", "playbook"}


_IMAGE_DEFAULTS = _image_defaults()


FLEET_TABLES: Mapping[str, tuple[tuple[str, ...], type | None]] = {
    "[fleet.NAME]": (fleets._FLEET_KEYS, FleetSpec),
    "Steps": (fleets._STEP_KEYS, Step),
    "[fleet.NAME.health]": (spec_evidence._HEALTH_KEYS, Health),
    "HTTP probe": (spec_evidence._PROBE_KEYS, HttpProbe),
    "[fleet.NAME.analysis]": (spec_evidence.ANALYSIS_KEYS, Analysis),
    "prometheus": (spec_evidence.SOURCE_KEYS["prometheus"], None),
    "http_json": (spec_evidence.SOURCE_KEYS["http_json"], None),
    "[fleet.NAME.deadlines]": (tuple(fleets.OUTCOMES), Deadlines),
    "[fleet.NAME.external]": (("path", "arn"), External),
}
"""Heading of docs/fleets-toml.md -> the keys that stand below it, and the record with their defaults."""


def fleet_faults(text: str) -> list[str]:
    """How the keys of fleets.toml, and those defaults that a page writes as values, differ from what it says."""
    found = []
    for heading, (keys, record) in FLEET_TABLES.items():
        table = {_SPAN.findall(row[0])[0]: row for row in rows(section(text, heading))}
        found += [f"{heading} {name}" for name in sorted(set(table) ^ set(keys))]
        defaults = {one.name: one.default for one in fields(record)} if record else {}
        for name, row in table.items():
            said, default = row[2], defaults.get(name)
            if isinstance(default, Deadline):
                default = asdict(default)
                said_outcomes = tuple(_SPAN.findall(row[3].rpartition(":")[2]))
                if said_outcomes != fleets.OUTCOMES[name]:
                    found.append(f"outcomes of {name}: {said_outcomes}")
            if _SPAN.fullmatch(said) and " " not in said.strip("`").partition("{")[0]:
                value = tomllib.loads(f"x = {said.strip('`')}")["x"]
                if value != (list(default) if isinstance(default, tuple) else default):
                    found.append(f"default of {heading} {name}: {said}")
            elif isinstance(default, (int, float, str)):
                found.append(f"default of {heading} {name}: {said}")
    return found


def policy_faults(text: str) -> list[str]:
    """How the keys and roles of trust/policy.toml differ from what a page says."""
    top = first_column(text.partition("\n## ")[0])
    named = section(text, "[key.NAME]")
    wanted = (*policy._TOP_KEYS[:-2], *policy._KEY_KEYS, *policy.ROLES, *policy._CHANNEL_KEYS)
    said = [*top, *first_column(named), *first_column(section(text, "[channel.NAME]"))]
    return [*sorted(set(said) ^ set(wanted)), *(word for word in policy.SEVERITIES if f"`{word}`" not in text)]


def first_boot_faults(text: str) -> list[str]:
    said = [tuple(row) for row in rows(section(text, "What a first boot may write"))]
    wanted = [(f"`{place}`", why) for place, why in FIRST_BOOT]
    return [str(row) for row in (*said, *wanted) if row not in wanted or row not in said]


def built_in_faults(text: str) -> list[str]:
    return sorted(set(first_column(section(text, "The checks every image gets"))) ^ set(built_in.NAMES))


def seal_faults(text: str) -> list[str]:
    """Rules of the seal that a page does not list alike."""
    words = {"remove": "", "files": " (files)", "truncate": " (made empty)"}
    wanted = [(rule.what + words[rule.action], frozenset(rule.patterns), frozenset(rule.kept)) for rule in rules.RULES]
    said = []
    for what, where in rows(section(text, "What the seal takes out")):
        out, _, kept = where.partition("; kept: ")
        said.append((what, _patterns(out), _patterns(kept)))
    return [str(row) for row in (*said, *wanted) if row not in wanted or row not in said]


def _patterns(cell: str) -> frozenset[str]:
    homes = [span.replace("~", home) for span in _SPAN.findall(cell) if span[0] == "~" for home in rules.HOMES]
    return frozenset(homes) | {span for span in _SPAN.findall(cell) if span[0] != "~"}


def template_faults(text: str, values: Mapping[str, Any]) -> list[str]:
    flat = {
        f"{name}.{part}" if part else name
        for name, value in values.items()
        for part in (value if isinstance(value, dict) and name != "vars" else ("",))
    }
    return sorted(set(first_column(section(text, "Writing a template"))) ^ flat)


def exit_code_faults(text: str) -> list[str]:
    """Exit codes that a text says or leaves out, other than those of the errors there are, 0 and 1."""
    sentence = re.search(r"Exit codes:(.*?)\.\n", text, re.DOTALL)
    said = {int(code) for code in re.findall(r"(?:^|,)\s*(\d+)\s", sentence[1])} if sentence else set()
    raised = {error.exit_code for error in _leaves(errors.FactoryError)}
    return sorted(str(code) for code in said ^ (raised | {0, 1}))


def _leaves(error: type[errors.FactoryError]) -> Iterator[type[errors.FactoryError]]:
    yield error
    for below in error.__subclasses__():
        yield from _leaves(below)


def layer_faults(text: str) -> list[str]:
    """Parts of the code that a page puts in another layer than the test of imports does, or does not explain."""
    path = Path(__file__).with_name("test_imports.py")
    module_spec = importlib.util.spec_from_file_location("layers_of_the_code", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    real = [set(layer) - {"__version__", "__main__"} for layer in module.LAYERS]
    ((_, block),) = _FENCE.findall(section(text, "Layers"))
    said = [set(line.split()) for line in reversed(block.splitlines())]
    pairs: Iterator[tuple[set[str], set[str]]] = zip_longest(said, real, fillvalue=set())
    explained = {span.split("/")[1].removesuffix(".py") for span in first_column(section(text, "Modules"))}
    return [*(f"layer {one} is {other}" for one, other in pairs if one != other),
            *sorted(explained ^ set().union(*real))]  # fmt: skip


# --- the pages


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_only_what_there_is(path: Path) -> None:
    text = path.read_text()
    assert command_faults(text) == []
    assert make_faults(text) == []
    assert path_faults(str(path.relative_to(ROOT)), text) == []


def test_pages_name_many_commands() -> None:
    named = {
        said.split()[1] for path in PAGES for said in said_as_code(path.read_text()) if said.startswith("factory ")
    }
    assert set(cli.COMMANDS) <= named


def test_hints_name_only_commands_there_are() -> None:
    found = dict(hints())
    assert len(found) > 50
    assert any("factory lock --refresh" in text for text in found.values())
    assert {place: faults for place, text in found.items() if (faults := hint_faults(text))} == {}


def test_documented_keys_are_those_of_the_spec() -> None:
    assert key_faults(page("docs/images-toml.md")) == []


def test_example_of_images_toml_has_only_keys_there_are() -> None:
    blocks = [block for kind, block in _FENCE.findall(page("docs/images-toml.md")) if kind == "toml"]
    example = tomllib.loads(blocks[0])
    assert set(example) == set(spec._TOP_KEYS)
    assert set().union(*example["base"].values()) <= set(spec._BASE_KEYS)
    assert set().union(*example["image"].values()) <= set(spec._IMAGE_KEYS)


def test_documented_keys_of_the_policy_are_those_that_are_read() -> None:
    text = page("docs/trust-policy.md")
    assert policy_faults(text) == []
    (example,) = [block for kind, block in _FENCE.findall(text) if kind == "toml"]
    assert policy.loads(example.encode()).version == 3
    assert policy_faults(text.replace("`approvals` |", "`approval` |")) == ["approval", "approvals"]


def test_documented_keys_of_fleets_are_those_that_are_read() -> None:
    text = page("docs/fleets-toml.md")
    assert fleet_faults(text) == []
    assert set(_SPAN.findall(section(text, "Strategies"))) >= {f"{name}" for name in get_args(Strategy)}
    for before, after, fault in (
        ("| `surge` ", "| `surg` ", "[fleet.NAME] surge"),
        ("| `512` |", "| `256` |", "default of [fleet.NAME] memory_mib: `256`"),
        ("| `false` |", "| required |", "default of [fleet.NAME] allow_public_listen: required"),
        (
            "| `{ seconds = 60,",
            "| `{ seconds = 61,",
            'default of [fleet.NAME.deadlines] shift: `{ seconds = 61, then = "abort" }`',
        ),
        ("no session is left on instances that go: `continue`", "x: `abort`", "outcomes of drain: ('abort', 'pause')"),
    ):
        assert before in text
        assert fault in fleet_faults(text.replace(before, after))


def test_example_of_fleets_toml_is_read(tmp_path: Path) -> None:
    (example,) = [block for kind, block in _FENCE.findall(page("docs/fleets-toml.md")) if kind == "toml"]
    (tmp_path / "fleets.toml").write_text(example)
    assert fleets.find(tmp_path, "web").strategy == "canary"


def test_first_boot_table_is_the_list() -> None:
    assert first_boot_faults(page("docs/verification.md")) == []


def test_documented_built_in_checks_are_those_there_are() -> None:
    assert built_in_faults(page("docs/verification.md")) == []


def test_table_of_the_seal_is_its_rules() -> None:
    assert seal_faults(page("docs/bake.md")) == []


def test_documented_template_names_are_those_a_template_gets(template_values: dict[str, Any]) -> None:
    assert template_faults(page("docs/bake.md"), template_values) == []


def test_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    assert exit_code_faults(page("README.md")) == []


def test_documented_stages_and_inputs_are_those_of_a_bake() -> None:
    text = page("docs/bake.md")
    assert [row[0] for row in rows(section(text, "Stages"))][: len(STAGES)] == list(STAGES)
    factory = spec.load(ROOT)
    inputs = key.collect(Layout(ROOT), factory.images["web"], 1, {}, ())
    assert first_column(section(text, "The bake key")) == [
        name for name in inputs.digests if name not in key.BESIDE_THE_KEY
    ]
    assert key.BESIDE_THE_KEY == ("checks",)


def test_documented_layers_are_those_that_are_tested() -> None:
    assert layer_faults(page("docs/layout.md")) == []


# --- each kind of fault is found


@pytest.mark.parametrize(
    "text",
    [
        "`factory frobnicate`",
        "`factory bake --frob`",
        "`factory why web --force`",
        "`factory doctor now`",
        "```console\n$ factory bake --jobs\n```",
        "```sh\nfactory --frob bake\n```",
    ],
)
def test_command_that_there_is_not_is_found(text: str) -> None:
    assert len(command_faults(text)) == 1


def test_commands_with_placeholders_are_taken() -> None:
    assert command_faults("`factory logs [RUN] [NAME]` `factory bake -j N` `factory why` `factory bake [NAME…]`") == []


def test_make_target_that_there_is_not_is_found() -> None:
    assert make_faults("`make test`, `make coffee`, and make haste") == ["coffee"]


@pytest.mark.parametrize(
    "text",
    [
        "[x](docs/none.md)",
        "[x](docs/bake.md#none)",
        "[x](#none)",
        "`factory/none.py`",
        "`bake/none.py`",
        "| `factory/bake/` | `none.py` |",
    ],
)
def test_file_that_there_is_not_is_found(text: str) -> None:
    assert len(path_faults("README.md", f"# Title\n\n{text}\n")) == 1


def test_files_that_there_are_are_taken() -> None:
    text = "# A title\n[x](docs/bake.md#the-bake-key) [x](#a-title) `bake/key.py` `docs/benchmarks.md`\n"
    assert path_faults("README.md", text) == []


def test_hint_with_a_command_that_there_is_not_is_found() -> None:
    assert len(hint_faults("is there room? (df, factory frobnicate)")) == 1
    assert len(hint_faults("factory bake --frob; what a factory starts with")) == 1
    assert hint_faults("pin them: factory lock --refresh NAME, or factory bake") == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("| `ports` ", "| `prots` ", "[image.NAME] ports"),
        ("| `suite` ", "| `sweet` ", "[base.NAME] suite"),
        ("| `2048` |", "| `4096` |", "default of `disk_mib`: `4096`"),
        ('| `["qcow2"]` |', "| required |", "default of `formats`: required"),
    ],
)
def test_key_that_is_documented_wrongly_is_found(before: str, after: str, fault: str) -> None:
    text = page("docs/images-toml.md")
    assert before in text
    assert fault in key_faults(text.replace(before, after))


def test_wrong_lines_of_tables_are_found(template_values: dict[str, Any]) -> None:
    verification, bake = page("docs/verification.md"), page("docs/bake.md")
    assert len(first_boot_faults(verification.replace("| `/var/log/wtmp` |", "| `/var/log/wmtp` |"))) == 2
    assert built_in_faults(verification.replace("`sealed`", "`seeled`")) == ["sealed", "seeled"]
    assert len(seal_faults(bake.replace("| `/tmp/**`, ", "| "))) == 2
    assert template_faults(bake.replace("`guest.qemu`", "`guest.emu`"), template_values) == ["guest.emu", "guest.qemu"]


def test_wrong_exit_code_is_found() -> None:
    assert exit_code_faults(re.sub(r"7(\s+another)", r"6\1", page("README.md"))) == ["7"]
    assert exit_code_faults("nothing") != []


def test_wrong_layer_is_found() -> None:
    text = page("docs/layout.md")
    assert layer_faults(text.replace("builders  doctor  verify", "builders  verify")) != []
    assert layer_faults(text.replace("| `factory/doctor.py` |", "| `doctor` |").replace("`doctor`", "doctor")) == [
        "doctor"
    ]


@pytest.fixture
def template_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All that a template of the qemu builder gets: what the one of rootfs gets, and `guest`."""
    (tmp_path / "variables").touch()
    monkeypatch.setattr(qemu, "FIRMWARE_VARS", tmp_path / "variables")
    monkeypatch.setattr(qemu, "accelerator", lambda cache: TCG)
    monkeypatch.setattr("factory.proc.find", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr("factory.vm.entry.write_credential", lambda *_: tmp_path / "credential")
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(512))
    image = ImageSpec("web", "amd64", "base", layered=False, builder="qemu", playbook="playbooks/web.yml")
    job = BuildJob(
        image=image,
        layout=Layout(FactorySpec(tmp_path, {}, {}).root),
        work=tmp_path,
        parent=Parent(disk, Digest("sha256:" + "0" * 64), lambda: (disk, "raw")),
        lent_files=lambda host: {},
    )
    guest = qemu._guest(job, Keys(tmp_path), Way("smbios"), 2222, disk, "raw", tmp_path / "out")
    version = packer.PackerVersion(1, 6, 6)
    return packer_build.template_values(job, tmp_path / "provision.json", version, guest=guest)
