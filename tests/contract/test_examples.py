"""The examples, run as they stand: with an image to trust, and with one that was revoked or tampered with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from signed_factory import AMI, SignedFactory, build

from factory.errors import TrustError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = ["shell", "dotenv", "ansible", "ci-jq"]
LAUNCH = "launching"
TOOLS = {"ci-jq": "jq", "ansible": "ansible-playbook"}


class Deployer:
    """A folder with an example and the deployer's policy, beside the factory."""

    def __init__(self, signed: SignedFactory) -> None:
        self.signed, self.folder = signed, signed.own_policy.parent
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {"PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}

    def take(self, example: str) -> None:
        tool = TOOLS.get(example)
        if tool and not shutil.which(tool, path=self.environment["PATH"]):
            pytest.skip(f"{tool} is not installed")
        shutil.copytree(EXAMPLES / example, self.folder, dirs_exist_ok=True)

    def run(self, *command: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env={**self.environment, **environment}, input=given, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    def refuse(self) -> None:
        """From now on the image is not to be run: an ancestor of it was revoked."""
        self.signed.revoke(self.signed.revocation(self.signed.images["base"].digest, "base/amd64"))


@pytest.fixture
def deployer(tmp_path: Path) -> Deployer:
    return Deployer(build(tmp_path))


def test_every_example_is_run() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {*SCRIPTS, "github-actions", "terraform", "air-gap"}
    listed = re.findall(r"^\| `([a-z-]+)`", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == folders


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*/*.sh")), ids=lambda path: path.parent.name)
def test_script_stops_at_the_first_failure(script: Path) -> None:
    first, *_ = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    assert first == "set -euo pipefail"
    assert script.stat().st_mode & 0o111


# --- scripts


@pytest.mark.parametrize("example", SCRIPTS)
def test_script_launches_the_image(deployer: Deployer, example: str) -> None:
    deployer.take(example)
    done = deployer.run("./deploy.sh")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{LAUNCH} {deployer.signed.artifact()}" in done.stdout
    assert (deployer.folder / "seen.json").is_file()


@pytest.mark.parametrize("example", SCRIPTS)
def test_script_stops_at_a_refusal(deployer: Deployer, example: str) -> None:
    deployer.take(example)
    deployer.refuse()
    done = deployer.run("./deploy.sh")
    assert done.returncode == 6
    assert "its ancestor base" in done.stderr
    assert LAUNCH not in done.stdout


def test_dotenv_file_of_before_is_kept_at_a_refusal(deployer: Deployer) -> None:
    deployer.take("dotenv")
    deployer.run("./deploy.sh")
    before = (deployer.folder / "image.env").read_text()
    deployer.refuse()
    assert deployer.run("./deploy.sh").returncode == 6
    assert (deployer.folder / "image.env").read_text() == before


def test_playbook_refuses_a_development_image(deployer: Deployer) -> None:
    deployer.take("ansible")
    deployer.run("./deploy.sh")
    variables = deployer.folder / "inventory" / "group_vars" / "all.yml"
    text = variables.read_text()
    variables.write_text(text.replace("factory_image_development: false", "factory_image_development: true"))
    assert variables.read_text() != text
    done = deployer.run("ansible-playbook", "-i", "inventory", "playbook.yml")
    assert done.returncode != 0
    assert LAUNCH not in done.stdout


# --- an air gap


def test_bundle_is_carried_over_and_run(deployer: Deployer) -> None:
    deployer.take("air-gap")
    assert deployer.run("./export.sh").returncode == 0
    shutil.rmtree(deployer.signed.root)
    done = deployer.run("./deploy.sh")
    assert done.returncode == 0, done.stderr
    (disk,) = re.findall(rf"{LAUNCH} (.*)", done.stdout)
    assert Path(disk).read_bytes() == b"web qcow2 "
    assert Path(disk).is_relative_to(deployer.folder / "bundle")


def test_bundle_swapped_on_the_way_is_not_run(deployer: Deployer) -> None:
    deployer.take("air-gap")
    deployer.run("./export.sh")
    disk = deployer.folder / "bundle" / "store" / "sha256" / deployer.signed.artifact().name
    disk.chmod(0o644)
    disk.write_bytes(b"evil qcow2")
    done = deployer.run("./deploy.sh")
    assert done.returncode == 6
    assert LAUNCH not in done.stdout


def test_revoked_image_is_not_exported(deployer: Deployer) -> None:
    deployer.take("air-gap")
    deployer.refuse()
    assert deployer.run("./export.sh").returncode == 6
    assert not (deployer.folder / "bundle").exists()


# --- GitHub Actions


def outputs_of(text: str) -> dict[str, str]:
    """What a runner makes of a step's GITHUB_OUTPUT: `name=value`, or lines between `name<<END` and END."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, heredoc, end = line.partition("<<")
        if heredoc and "=" not in name:
            value = []
            for part in lines:
                if part == end:
                    break
                value.append(part)
            else:
                pytest.fail(f"the value of {name} has no end")
            found[name] = "\n".join(value)
        else:
            name, equals, plain = line.partition("=")
            assert equals, f"a runner refuses {line!r}"
            found[name] = plain
    return found


def run_workflow(deployer: Deployer) -> tuple[int, str]:
    """The steps that have commands, as a runner runs them; the code of the last one, and what all printed."""
    job = yaml.safe_load((deployer.folder / "deploy.yml").read_text())["jobs"]["deploy"]
    assert job["defaults"]["run"] == {"shell": "bash", "working-directory": deployer.folder.name}
    known: dict[str, dict[str, str]] = {}
    printed = ""
    for step in (step for step in job["steps"] if "run" in step):
        assert "${{" not in step["run"], "what is put into a script is run: give it through env"
        file = deployer.folder / "github_output"
        file.write_text("")
        script = deployer.folder / "step.sh"
        script.write_text(step["run"])
        environment = {name: _filled(value, known) for name, value in step.get("env", {}).items()}
        done = deployer.run(
            "bash", "--noprofile", "--norc", "-eo", "pipefail", str(script), GITHUB_OUTPUT=str(file), **environment
        )
        printed += done.stdout
        if done.returncode:
            return done.returncode, printed
        known[step.get("id", "")] = outputs_of(file.read_text())
    return 0, printed


def _filled(value: str, known: dict[str, dict[str, str]]) -> str:
    return re.sub(
        r"\$\{\{ steps\.(\w+)\.outputs\.(\w+) \}\}", lambda match: known[match[1]][match[2]], value
    )  # a KeyError: the workflow names an output that there is not


def test_workflow_launches_the_image(deployer: Deployer) -> None:
    deployer.take("github-actions")
    code, printed = run_workflow(deployer)
    assert code == 0
    assert printed.splitlines()[-1] == f"{LAUNCH} {AMI} ({deployer.signed.images['web'].digest})"


def test_workflow_stops_at_a_refusal(deployer: Deployer) -> None:
    deployer.take("github-actions")
    deployer.refuse()
    code, printed = run_workflow(deployer)
    assert code == 6
    assert LAUNCH not in printed


# --- Terraform


def data_source() -> tuple[list[str], dict[str, str], set[str]]:
    """The program and the query of main.tf, and the results it uses."""
    text = (EXAMPLES / "terraform" / "main.tf").read_text()
    program = json.loads(re.findall(r"program\s*=\s*(\[.*\])", text)[0])
    (block,) = re.findall(r"query\s*=\s*\{(.*?)\}", text, re.DOTALL)
    query = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', block))
    return program, query, set(re.findall(r"data\.external\.image\.result\.(\w+)", text))


def ask(deployer: Deployer, **more: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """What Terraform's external data source does: a JSON object of strings in, one out, or a message and a failure."""
    program, query, _ = data_source()
    done = deployer.run(*program, given=json.dumps({**query, **more}))
    if done.returncode:
        assert done.stderr.strip(), "Terraform shows what stands on standard error"
        return done, None
    result = json.loads(done.stdout)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in result.items())
    return done, result


def test_data_source_gives_the_image(deployer: Deployer) -> None:
    deployer.take("terraform")
    _, result = ask(deployer)
    assert (result["reference"], result["digest"]) == (AMI, deployer.signed.images["web"].digest)
    assert data_source()[2] <= set(result)
    assert (deployer.folder / "seen.json").is_file()


def test_data_source_fails_at_a_refusal(deployer: Deployer) -> None:
    deployer.refuse()
    done, _ = ask(deployer)
    assert (done.returncode, done.stdout) == (6, "")
    assert "its ancestor base" in done.stderr


def test_data_source_fails_at_a_query_it_does_not_know(deployer: Deployer) -> None:
    done, _ = ask(deployer, chanel="prod")
    assert done.returncode == 2
    assert "chanel" in done.stderr


def test_terraform_takes_the_file(deployer: Deployer) -> None:
    if not shutil.which("terraform"):
        pytest.skip("terraform is not installed")
    deployer.take("terraform")
    done = deployer.run("terraform", "fmt", "-check", "-diff", "main.tf")
    assert done.returncode == 0, done.stdout + done.stderr


# --- the page


def test_page_lists_the_fields_of_the_answer(deployer: Deployer) -> None:
    page = (EXAMPLES.parent / "docs" / "deploy.md").read_text()
    table = page.partition("## The answer")[2].partition("\n| form |")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    said = [field for row in rows for field in re.findall(r"`(\w+)`", row)]
    program, _, _ = data_source()
    done = deployer.run(*program[:-1], "web", "--policy", "policy.toml", "--json")
    assert sorted(said) == sorted(json.loads(done.stdout))


def test_page_lists_the_kinds_of_refusals() -> None:
    page = (EXAMPLES.parent / "docs" / "deploy.md").read_text()
    said = re.findall(r"^\| `(\w+)`", page.partition("## Refusals")[2].partition("## Bundles")[0], re.MULTILINE)
    assert set(said) - {"kind"} == {TrustError.kind, *(leaf.kind for leaf in TrustError.__subclasses__())}
