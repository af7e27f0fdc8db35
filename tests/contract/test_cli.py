"""The command line's contract, for everything that boots nothing: errors, exit codes, JSON, streams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from factory import cli, lockfile
from factory.errors import UsageError

SPEC = """\
[base.debian-12]
kind = "debootstrap"
suite = "bookworm"
arch = "amd64"

[image.web]
base = "debian-12"
playbook = "playbooks/web.yml"
"""


@pytest.fixture
def factory_folder(tmp_path: Path) -> Path:
    (tmp_path / "images.toml").write_text(SPEC)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks/web.yml").write_text("- hosts: all\n")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/rootfs.pkr.hcl.j2").write_text("")
    return tmp_path


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bake"], 2, "no images.toml"),
        (["why", "web"], 2, "no images.toml"),
        (["bakee"], 2, "bake"),
        (["bake", "--jobs", "x"], 2, "--jobs"),
        (["bake", "--no-such-option"], 2, "--no-such-option"),
        (["logs"], 2, "no run"),
        (["lock", "debian-12"], 2, "--refresh"),
        (["boot"], 2, "NAME"),
    ],
)
def test_usage_errors_exit_2_with_cause_and_hint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    got, out, err = _run(capsys, "-C", str(tmp_path), *arguments)
    assert got == code
    assert said in err
    assert "hint:" in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    "command", ["bake", "why nope", "verify nope", "fetch nope", "lock --refresh nope", "logs nope"]
)
def test_a_failure_with_json_is_one_document(
    capsys: pytest.CaptureFixture[str], factory_folder: Path, command: str
) -> None:
    if command == "bake":
        (factory_folder / "images.toml").write_text("[image.web]\nbsae = 1\n")
    code, out, _ = _run(capsys, "-C", str(factory_folder), *command.split(), "--json")
    error = json.loads(out)["error"]
    assert set(error) == {"code", "kind", "message", "hint", "where"}
    assert error["code"] == code == 2


def test_a_bug_exits_1_and_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory.skeleton.lay_out", lambda folder: 1 / 0)
    code, out, err = _run(capsys, "init", "somewhere", "--json")
    assert code == 1
    assert json.loads(out)["error"]["kind"] == "bug"
    assert "this is a bug in factory" in err
    assert "Traceback" in err


def test_verbose_adds_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "Traceback" in _run(capsys, "-v", "-C", str(tmp_path), "bake")[2]
    assert "Traceback" not in _run(capsys, "-C", str(tmp_path), "bake")[2]


def test_dry_run_tells_action_and_reason_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], factory_folder: Path
) -> None:
    before = sorted(factory_folder.rglob("*"))
    code, out, _ = _run(capsys, "-C", str(factory_folder), "bake", "--dry-run", "--json")
    (image,) = json.loads(out)["images"]
    assert (code, image["name"], image["action"], image["reasons"]) == (0, "web", "bake", ["never baked"])
    assert sorted(factory_folder.rglob("*")) == before


def test_lock_check_exits_5_where_an_image_was_never_baked(
    capsys: pytest.CaptureFixture[str], factory_folder: Path
) -> None:
    code, out, _ = _run(capsys, "-C", str(factory_folder), "lock", "--check", "--json")
    assert (code, json.loads(out)) == (5, {"true": False, "images": {"web": ["never baked"]}})


@pytest.mark.parametrize(
    ("lock", "code"),
    [("lock-version = 2\n", 5), ("<<<<<<< ours\nlock-version = 1\n", 5), ("nonsense", 5)],
)
def test_a_lock_that_is_not_understood_is_refused(
    capsys: pytest.CaptureFixture[str], factory_folder: Path, lock: str, code: int
) -> None:
    (factory_folder / "images.lock").write_text(lock)
    assert _run(capsys, "-C", str(factory_folder), "bake")[0] == code
    assert (factory_folder / "images.lock").read_text() == lock


def test_init_lays_out_a_factory_that_can_be_read_and_refuses_a_second_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    new = tmp_path / "new"
    assert _run(capsys, "init", str(new))[0] == 0
    code, out, _ = _run(capsys, "-C", str(new), "bake", "--dry-run", "--json")
    assert (code, [image["action"] for image in json.loads(out)["images"]]) == (0, ["bake"])
    code, _, err = _run(capsys, "init", str(new))
    assert code == 2
    assert "is a factory already" in err


def test_a_missing_tool_is_named_with_its_package(
    capsys: pytest.CaptureFixture[str], factory_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.proc.shutil.which", lambda tool, path=None: None)
    code, out, _ = _run(capsys, "-C", str(factory_folder), "bake", "--json")
    (image,) = json.loads(out)["images"]
    assert code == image["error"]["code"] == 3
    assert image["error"]["kind"] == "missing-tool"
    assert "apt-get install" in image["error"]["hint"]
    code, out, _ = _run(capsys, "-C", str(factory_folder), "doctor", "--json")
    assert code == 3
    examined = json.loads(out)
    assert "packer" in examined["install"]
    (haproxy,) = [found for found in examined["findings"] if found["name"] == "haproxy"]
    assert (haproxy["ok"], haproxy["needed"]) == (False, False)
    assert haproxy["detail"] == "not installed: for fleets on this machine, nothing else (apt-get install haproxy)"
    assert "haproxy" not in examined["install"]


def test_the_console_script_exits_with_the_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from factory.cli import main; main()", "-C", str(tmp_path), "bake"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "\x1b" not in done.stderr, "no colours where there is no terminal"


def test_every_command_in_the_table_exists_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        code, out, _ = _run(capsys, name, "--help")
        assert code == 0
        assert f"factory {name}" in out


def test_usage_error_is_the_error_of_the_tree() -> None:
    assert UsageError("x").exit_code == 2


def test_init_tells_git_how_to_merge_the_lock(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _run(capsys, "init", str(tmp_path / "new"))[0] == 0
    assert (tmp_path / "new/.gitattributes").read_text() == lockfile.ATTRIBUTES + "trust/** -text\n"
